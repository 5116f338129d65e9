"""What a program that uses python-fido2 does with the device, over passholdd's socket.

Usage: python_fido2.py SOCKET PIN. Says each claim that holds; the first that does not ends it.
"""

import os
import socket
import sys
import threading

from fido2.client import ClientError, DefaultClientDataCollector, Fido2Client, PinRequiredError, UserInteraction
from fido2.ctap import CtapError
from fido2.ctap2 import Ctap2, CredentialManagement
from fido2.ctap2.pin import ClientPin, PinProtocolV1, PinProtocolV2
from fido2.hid import CAPABILITY, CTAPHID, CtapHidDevice
from fido2.hid.base import CtapHidConnection, HidDescriptor
from fido2.server import Fido2Server
from fido2.webauthn import PublicKeyCredentialRpEntity, PublicKeyCredentialUserEntity

REPORT = 64
RP = PublicKeyCredentialRpEntity(id="example.org", name="Example")
ORIGIN = "https://example.org"
WRONG = "739184"


class Socket(CtapHidConnection):
    def __init__(self, path):
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(20)
        self._socket.connect(path)

    def read_packet(self):
        return self._socket.recv(REPORT)

    def write_packet(self, data):
        self._socket.send(data.ljust(REPORT, b"\0"))

    def close(self):
        self._socket.close()


def device(path):
    return CtapHidDevice(HidDescriptor(path, 0x1209, 1, REPORT, REPORT, "Passhold", None), Socket(path))


def claim(what, got, expected=True):
    if got != expected:
        sys.exit(f"NOT: {what}: {got!r}, not {expected!r}")
    print(what)


def refused(what, error, code, call):
    try:
        result = call()
    except error as e:
        # The client wraps what the authenticator said.
        e = e.cause if isinstance(e, ClientError) else e
        claim(what, e.code, code)
    else:
        sys.exit(f"NOT: {what}: {result!r}")


class Person(UserInteraction):
    """Types this PIN into the platform's own dialog, or has none to type into."""

    def __init__(self, pin):
        self._pin = pin

    def prompt_up(self):
        pass

    def request_pin(self, permissions, rp_id):
        return self._pin

    def request_uv(self, permissions, rp_id):
        return self._pin is None


def ceremonies(path, person, kind):
    server = Fido2Server(RP)
    client = Fido2Client(device(path), DefaultClientDataCollector(ORIGIN), person)
    user = PublicKeyCredentialUserEntity(id=os.urandom(16), name="alice", display_name="Alice")
    options, state = server.register_begin(
        user, resident_key_requirement="required", user_verification="required"
    )
    made = server.register_complete(state, client.make_credential(options.public_key))
    claim(f"{kind}: a registration verifies", made.is_user_verified())
    for credentials in [None, [made.credential_data]]:
        options, state = server.authenticate_begin(credentials, user_verification="required")
        answer = client.get_assertion(options.public_key).get_response(0)
        server.authenticate_complete(state, [made.credential_data], answer)
        named = "where it is named" if credentials else "where nothing is named"
        claim(f"{kind}: a sign-in verifies {named}", answer.response.user_handle, user.id)
    ctap = Ctap2(device(path))
    return made.credential_data, ctap


def main(path, pin):
    hid = device(path)
    claim("CTAPHID answers a ping of the longest message", hid.ping(bytes(range(256)) * 29), bytes(range(256)) * 29)
    claim("its capabilities are WINK, CBOR and no CTAP1", hid.capabilities, CAPABILITY.WINK | CAPABILITY.CBOR | CAPABILITY.NMSG)
    hid.wink()
    refused("CTAP1 is no command", CtapError, CtapError.ERR.INVALID_COMMAND, lambda: hid.call(CTAPHID.MSG, b"\0" * 7))

    ctap = Ctap2(hid)
    claim("the AAGUID is a software TPM's", str(ctap.info.aaguid), "629a1789-0354-4613-a1bc-14b825aa2162")
    expected = {"rk": True, "up": True, "uv": False, "alwaysUv": True, "clientPin": False, "credMgmt": True, "pinUvAuthToken": True, "makeCredUvNotRqd": False}
    claim("its options before a vault", ctap.info.options, expected)
    ClientPin(ctap, PinProtocolV1()).set_pin(pin)
    claim("its options with a vault", Ctap2(hid).info.options, {**expected, "uv": True, "clientPin": True})

    ceremonies(path, Person(pin), "the platform's PIN dialog")
    credential, ctap = ceremonies(path, Person(None), "our own prompt")
    es256 = [{"type": "public-key", "alg": -7}]
    made = ctap.make_credential(bytes(32), {"id": "example.com"}, {"id": b"a"}, es256, options={"rk": True}, extensions={"credProtect": 3})
    claim("credProtect is answered", made.auth_data.extensions, {"credProtect": 3})
    refused("there are three levels of it", CtapError, CtapError.ERR.INVALID_OPTION, lambda: ctap.make_credential(bytes(32), {"id": "example.com"}, {"id": b"a"}, es256, extensions={"credProtect": 4}))
    made = ctap.make_credential(bytes(32), {"id": "example.com"}, {"id": b"b"}, es256)
    several = ctap.get_assertions("example.com", bytes(32))
    claim("a credential that is not discoverable is not found", several[0].user["id"], b"a")
    named = ctap.get_assertions("example.com", bytes(32), allow_list=[{"type": "public-key", "id": made.auth_data.credential_data.credential_id}])
    claim("but where it is named", [(a.user, a.credential["id"]) for a in named], [(None, made.auth_data.credential_data.credential_id)])

    for protocol in [PinProtocolV1(), PinProtocolV2()]:
        kind = f"protocol {protocol.VERSION}"
        client_pin = ClientPin(ctap, protocol)
        permission = ClientPin.PERMISSION.GET_ASSERTION
        hash_ = os.urandom(32)
        bad = CtapError.ERR

        def assertion(token, rp_id="example.org", proven=hash_, **options):
            param = protocol.authenticate(token, proven)
            return ctap.get_assertion(rp_id, hash_, pin_uv_param=param, pin_uv_protocol=protocol.VERSION, **options)

        token = client_pin.get_pin_token(pin, permission, "example.org")
        refused(f"{kind}: a token proves one request", CtapError, bad.PIN_AUTH_INVALID, lambda: assertion(token, proven=bytes(32)))
        refused(f"{kind}: a token is for one site", CtapError, bad.PIN_AUTH_INVALID, lambda: assertion(token, "example.com"))
        silent = assertion(token, options={"up": False})
        claim(f"{kind}: a silent assertion says so", silent.auth_data.flags, 0x04)
        answer = assertion(token, allow_list=[{"type": "public-key", "id": credential.credential_id}])
        answer.verify(hash_, credential.public_key)
        claim(f"{kind}: an assertion verifies", answer.auth_data.flags, 0x05)
        refused(f"{kind}: presence spends the token", CtapError, bad.PIN_AUTH_INVALID, lambda: assertion(token))
        token = client_pin.get_pin_token(pin, ClientPin.PERMISSION.MAKE_CREDENTIAL, "example.org")
        refused(f"{kind}: a token allows what it was asked for", CtapError, bad.PIN_AUTH_INVALID, lambda: assertion(token))
        token = client_pin.get_pin_token(pin)
        assertion(token)
        claim(f"{kind}: the old kind of token works", True)
        refused(f"{kind}: no permissions are an error", CtapError, bad.INVALID_PARAMETER, lambda: client_pin.get_pin_token(pin, 0, "example.org"))
        refused(f"{kind}: what is not offered is not granted", CtapError, bad.UNAUTHORIZED_PERMISSION, lambda: client_pin.get_pin_token(pin, ClientPin.PERMISSION.BIO_ENROLL))
        refused(f"{kind}: a wrong PIN is refused", CtapError, bad.PIN_INVALID, lambda: client_pin.get_pin_token(WRONG, permission, "example.org"))
        claim(f"{kind}: and counted", client_pin.get_pin_retries(), (7, False))
        client_pin.change_pin(pin, WRONG)
        client_pin.change_pin(WRONG, pin)
        claim(f"{kind}: the PIN changes and changes back", client_pin.get_pin_retries(), (8, False))

    several = ctap.get_assertions("example.org", bytes(32), options={"uv": True})
    claim("of several the person chooses one", len(several), 1)
    client_pin = ClientPin(ctap, PinProtocolV2())
    token = client_pin.get_pin_token(pin, ClientPin.PERMISSION.GET_ASSERTION, "example.org")
    param = PinProtocolV2().authenticate(token, bytes(32))
    several = ctap.get_assertions("example.org", bytes(32), options={"up": False}, pin_uv_param=param, pin_uv_protocol=2)
    claim("where nobody is asked all are told, the newest first", [a.user["id"] == several[0].user["id"] for a in several], [True, False])
    refused("and then no more", CtapError, CtapError.ERR.NOT_ALLOWED, ctap.get_next_assertion)
    for protocol in [PinProtocolV1(), PinProtocolV2()]:
        kind = f"protocol {protocol.VERSION}"
        token = ClientPin(ctap, protocol).get_pin_token(pin, ClientPin.PERMISSION.CREDENTIAL_MGMT)
        management = CredentialManagement(ctap, protocol, token)
        sites = management.enumerate_rps()
        claim(f"{kind}: sites are listed", [site[management.RESULT.RP]["id"] for site in sites], ["example.org", "example.com"])
        rp_id_hash = sites[0][management.RESULT.RP_ID_HASH]
        users = [c[management.RESULT.USER]["name"] for c in management.enumerate_creds(rp_id_hash)]
        claim(f"{kind}: their passkeys are listed", users, ["alice", "alice"])
        refused(f"{kind}: no site, no passkeys", CtapError, CtapError.ERR.NO_CREDENTIALS, lambda: management.enumerate_creds_begin(bytes(32)))
        token = ClientPin(ctap, protocol).get_pin_token(pin, ClientPin.PERMISSION.CREDENTIAL_MGMT, "example.com")
        management = CredentialManagement(ctap, protocol, token)
        refused(f"{kind}: a token for one site counts not all", CtapError, CtapError.ERR.PIN_AUTH_INVALID, management.get_metadata)
        descriptor = {"type": "public-key", "id": credential.credential_id}
        refused(f"{kind}: and deletes nothing of another", CtapError, CtapError.ERR.PIN_AUTH_INVALID, lambda: management.delete_cred(descriptor))
        token = ClientPin(ctap, protocol).get_pin_token(pin, ClientPin.PERMISSION.GET_ASSERTION, "example.org")
        management = CredentialManagement(ctap, protocol, token)
        refused(f"{kind}: a token to sign in deletes nothing", CtapError, CtapError.ERR.PIN_AUTH_INVALID, lambda: management.delete_cred(descriptor))
    ctap.selection()
    claim("a selection is confirmed", True)


main(*sys.argv[1:])
