"""Verifies with Yubico's python-fido2."""

import uuid

from fido2.attestation import Attestation
from fido2.server import Fido2Server
from fido2.webauthn import (
    Aaguid,
    AttestationConveyancePreference,
    AttestationObject,
    AttestedCredentialData,
    AuthenticationResponse,
    PublicKeyCredentialRpEntity,
    PublicKeyCredentialUserEntity,
    RegistrationResponse,
    UserVerificationRequirement,
)

from contract import Authentication, Credential, Refusal, Registration, Request, Verified, serve


def verify_registration(request: Registration) -> Verified:
    server = _server(request)
    user = PublicKeyCredentialUserEntity(id=b"user", name="user")
    _, state = server.register_begin(
        user, challenge=request.challenge, user_verification=_user_verification(request)
    )
    auth_data = server.register_complete(state, request.response)
    credential = auth_data.credential_data
    return Verified(
        user_verified=auth_data.is_user_verified(),
        credential=Credential(
            credential.credential_id,
            # The bytes as they came; `public_key` would encode them anew.
            bytes(credential)[18 + len(credential.credential_id) :],
            auth_data.counter,
        ),
        fmt=RegistrationResponse.from_dict(request.response).response.attestation_object.fmt,
        aaguid=str(uuid.UUID(bytes=bytes(credential.aaguid))),
    )


def verify_authentication(request: Authentication) -> Verified:
    known = request.credential
    server = _server(request)
    credential = AttestedCredentialData(
        Aaguid.NONE + len(known.id).to_bytes(2) + known.id + known.public_key
    )
    _, state = server.authenticate_begin(
        [credential], challenge=request.challenge, user_verification=_user_verification(request)
    )
    server.authenticate_complete(state, [credential], request.response)
    auth_data = AuthenticationResponse.from_dict(request.response).response.authenticator_data
    # WebAuthn L3 §7.2 step 22, which Fido2Server leaves to its caller.
    if (auth_data.counter or known.sign_count) and auth_data.counter <= known.sign_count:
        raise Refusal(f"signature counter went from {known.sign_count} to {auth_data.counter}")
    return Verified(
        user_verified=auth_data.is_user_verified(),
        credential=Credential(known.id, known.public_key, auth_data.counter),
    )


def _server(request: Request) -> Fido2Server:
    return Fido2Server(
        PublicKeyCredentialRpEntity(id=request.rp_id, name="verifier"),
        # Direct, also when "none" is expected: otherwise the statement would not be looked at.
        attestation=AttestationConveyancePreference.DIRECT,
        verify_attestation=_verify_attestation,
        # The default takes every origin that the RP ID allows.
        verify_origin=lambda origin: origin == request.origin,
    )


def _verify_attestation(attestation: AttestationObject, client_data_hash: bytes) -> None:
    verifier = Attestation.for_type(attestation.fmt)()
    verifier.verify(attestation.att_stmt, attestation.auth_data, client_data_hash)


def _user_verification(request: Request) -> UserVerificationRequirement:
    if request.require_user_verification:
        return UserVerificationRequirement.REQUIRED
    return UserVerificationRequirement.DISCOURAGED


serve(verify_registration, verify_authentication)
