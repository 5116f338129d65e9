"""Verifies with Duo's py_webauthn."""

from webauthn import verify_authentication_response, verify_registration_response

from contract import Authentication, Credential, Registration, Verified, serve


def verify_registration(request: Registration) -> Verified:
    result = verify_registration_response(
        credential=request.response,
        expected_challenge=request.challenge,
        expected_rp_id=request.rp_id,
        expected_origin=request.origin,
        require_user_verification=request.require_user_verification,
    )
    return Verified(
        user_verified=result.user_verified,
        credential=Credential(result.credential_id, result.credential_public_key, result.sign_count),
        fmt=str(result.fmt),
        aaguid=result.aaguid,
    )


def verify_authentication(request: Authentication) -> Verified:
    known = request.credential
    result = verify_authentication_response(
        credential=request.response,
        expected_challenge=request.challenge,
        expected_rp_id=request.rp_id,
        expected_origin=request.origin,
        credential_public_key=known.public_key,
        credential_current_sign_count=known.sign_count,
        require_user_verification=request.require_user_verification,
    )
    return Verified(
        user_verified=result.user_verified,
        credential=Credential(known.id, known.public_key, result.new_sign_count),
    )


serve(verify_registration, verify_authentication)
