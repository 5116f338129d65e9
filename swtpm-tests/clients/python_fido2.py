"""What a program that uses python-fido2 does with the device, over passholdd's socket.

Usage: python_fido2.py SOCKET PIN. Says each claim that holds; the first that does not ends it.
"""

import os
import socket
import sys
import threading

from fido2.client import ClientError, DefaultClientDataCollector, Fido2Client, PinRequiredError, UserInteraction
from fido2.ctap import CtapError
from fido2.ctap2 import Config, Ctap2, CredentialManagement, LargeBlobs
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


def extensions(path, person, kind):
    """WebAuthn's prf, largeBlob and credBlob, as a browser has them."""
    client = Fido2Client(device(path), DefaultClientDataCollector(ORIGIN), person)
    server = Fido2Server(RP)
    first, second, blob = os.urandom(20), os.urandom(40), os.urandom(32)
    prf = {"eval": {"first": first, "second": second}}
    user = PublicKeyCredentialUserEntity(id=os.urandom(16), name="carol", display_name="Carol")
    options, state = server.register_begin(
        user, resident_key_requirement="required", user_verification="required",
        extensions={"prf": prf, "largeBlob": {"support": "required"}, "credBlob": blob},
    )
    answer = client.make_credential(options.public_key)
    made = server.register_complete(state, answer)
    results = answer.client_extension_results
    claim(f"{kind}: credBlob is kept", made.extensions["credBlob"])
    claim(f"{kind}: prf is enabled", results.prf.enabled)
    claim(f"{kind}: large blobs are supported", results.large_blob.supported)
    secrets = results.prf.results
    claim(f"{kind}: there are two secrets", (len(secrets.first), len(secrets.second)), (32, 32))

    def sign_in(wanted):
        options, state = server.authenticate_begin([made.credential_data], user_verification="required", extensions=wanted)
        answer = client.get_assertion(options.public_key).get_response(0)
        server.authenticate_complete(state, [made.credential_data], answer)
        return answer

    answer = sign_in({"prf": prf, "getCredBlob": True})
    claim(f"{kind}: a sign-in makes the same secrets", answer.client_extension_results.prf.results, secrets)
    claim(f"{kind}: and gets credBlob", answer.response.authenticator_data.extensions["credBlob"], blob)
    answer = sign_in({"prf": {"eval": {"first": second}}})
    claim(f"{kind}: a salt's place does not matter", answer.client_extension_results.prf.results.first, secrets.second)
    answer = sign_in({"largeBlob": {"read": True}})
    claim(f"{kind}: there is no large blob yet", answer.client_extension_results.large_blob.blob, None)
    answer = sign_in({"largeBlob": {"write": first * 50}})
    claim(f"{kind}: one is written with the sign-in's token", answer.client_extension_results.large_blob.written)
    answer = sign_in({"largeBlob": {"read": True}})
    claim(f"{kind}: and read", answer.client_extension_results.large_blob.blob, first * 50)


def large_blobs(ctap, pin):
    key, other = os.urandom(32), os.urandom(32)
    for protocol in [PinProtocolV1(), PinProtocolV2()]:
        kind = f"protocol {protocol.VERSION}"
        token = ClientPin(ctap, protocol).get_pin_token(pin, ClientPin.PERMISSION.LARGE_BLOB_WRITE)
        blobs = LargeBlobs(ctap, protocol, token)
        before = list(blobs.read_blob_array())
        blobs.put_blob(key, b"one")
        blobs.put_blob(other, os.urandom(2000))
        claim(f"{kind}: large blobs are put side by side", (LargeBlobs(ctap).get_blob(key), len(blobs.get_blob(other))), (b"one", 2000))
        refused(f"{kind}: until there is no room", CtapError, CtapError.ERR.LARGE_BLOB_STORAGE_FULL, lambda: blobs.put_blob(key, os.urandom(4096)))
        claim(f"{kind}: what does not fit changes nothing", blobs.get_blob(key), b"one")
        refused(f"{kind}: nothing is put without a token", CtapError, CtapError.ERR.PUAT_REQUIRED, lambda: LargeBlobs(ctap).put_blob(key, b"two"))
        blobs.delete_blob(key)
        blobs.delete_blob(other)
        claim(f"{kind}: they are deleted", (blobs.get_blob(key), list(blobs.read_blob_array())), (None, before))


def listing(ctap, pin):
    protocol = PinProtocolV2()
    token = ClientPin(ctap, protocol).get_pin_token(pin, ClientPin.PERMISSION.PERSISTENT_CREDENTIAL_MGMT)
    management = CredentialManagement(ctap, protocol, token)
    rp_id_hash = management.enumerate_rps()[0][management.RESULT.RP_ID_HASH]
    passkey = management.enumerate_creds(rp_id_hash)[0]
    claim("the persistent token lists", passkey[management.RESULT.USER]["name"], "alice")
    descriptor = passkey[management.RESULT.CREDENTIAL_ID]
    refused("and deletes nothing", CtapError, CtapError.ERR.PIN_AUTH_INVALID, lambda: management.delete_cred(descriptor))


def configure(ctap, pin):
    protocol, error = PinProtocolV2(), CtapError.ERR
    client_pin = ClientPin(ctap, protocol)

    def config(pin):
        return Config(ctap, protocol, client_pin.get_pin_token(pin, ClientPin.PERMISSION.AUTHENTICATOR_CFG))

    for always in [False, True]:
        config(pin).toggle_always_uv()
        claim(f"alwaysUv is {always}", ctap.get_info().options["alwaysUv"], always)
    refused("there is no enterprise attestation", CtapError, error.INVALID_PARAMETER, config(pin).enable_enterprise_attestation)
    config(pin).set_min_pin_length(rp_ids=["example.com"])
    es256 = [{"type": "public-key", "alg": -7}]
    for rp_id, told in [("example.com", {"minPinLength": 6}), ("example.org", None)]:
        made = ctap.make_credential(bytes(32), {"id": rp_id}, {"id": b"c"}, es256, extensions={"minPinLength": True})
        claim(f"what {rp_id} is told of the least PIN length", made.auth_data.extensions, told)
    refused("it does not fall", CtapError, error.PIN_POLICY_VIOLATION, lambda: config(pin).set_min_pin_length(5))
    config(pin).set_min_pin_length(8)
    info = ctap.get_info()
    claim("it rises, and the PIN must be changed", (info.min_pin_length, info.force_pin_change), (8, True))
    refused("the PIN is good for nothing else", CtapError, error.PIN_POLICY_VIOLATION, lambda: config(pin))
    refused("nor for an old platform", CtapError, error.PIN_INVALID, lambda: client_pin.get_pin_token(pin))
    refused("a short one will not do", CtapError, error.PIN_POLICY_VIOLATION, lambda: client_pin.change_pin(pin, "7391842"))
    client_pin.change_pin(pin, "73918420")
    claim("a longer one does", ctap.get_info().force_pin_change, False)
    config("73918420").set_min_pin_length(force_change_pin=True)
    refused("a change is forced", CtapError, error.PIN_POLICY_VIOLATION, lambda: config("73918420"))
    refused("and the same one will not do", CtapError, error.PIN_POLICY_VIOLATION, lambda: client_pin.change_pin("73918420", "73918420"))
    client_pin.change_pin("73918420", "93817204")
    config("93817204")
    claim("another one does", client_pin.get_pin_retries(), (8, False))


def main(path, pin):
    hid = device(path)
    claim("CTAPHID answers a ping of the longest message", hid.ping(bytes(range(256)) * 29), bytes(range(256)) * 29)
    claim("its capabilities are WINK, CBOR and no CTAP1", hid.capabilities, CAPABILITY.WINK | CAPABILITY.CBOR | CAPABILITY.NMSG)
    hid.wink()
    refused("CTAP1 is no command", CtapError, CtapError.ERR.INVALID_COMMAND, lambda: hid.call(CTAPHID.MSG, b"\0" * 7))

    ctap = Ctap2(hid)
    claim("the AAGUID is a software TPM's", str(ctap.info.aaguid), "629a1789-0354-4613-a1bc-14b825aa2162")
    expected = {
        "rk": True, "up": True, "uv": False, "uvAcfg": True, "alwaysUv": True, "credMgmt": True, "authnrCfg": True,
        "clientPin": False, "largeBlobs": True, "perCredMgmtRO": True, "pinUvAuthToken": True, "setMinPINLength": True,
        "makeCredUvNotRqd": False,
    }
    claim("its versions", ctap.info.versions, ["FIDO_2_0", "FIDO_2_1"])
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
    extensions(path, Person(pin), "the platform's PIN dialog")
    extensions(path, Person(None), "our own prompt")
    # A new connection: all see all reports, and this library takes no other channel's.
    ctap = Ctap2(device(path))
    large_blobs(ctap, pin)
    listing(ctap, pin)
    configure(ctap, pin)


main(*sys.argv[1:])
