"""What the Python verifiers read and write; README.md has the shapes."""

import base64
import json
import sys
from dataclasses import dataclass
from typing import Any, Callable, NoReturn


@dataclass(frozen=True)
class Credential:
    id: bytes
    public_key: bytes  # COSE_Key
    sign_count: int


@dataclass(frozen=True)
class Request:
    origin: str
    rp_id: str
    challenge: bytes
    response: dict[str, Any]
    require_user_verification: bool


@dataclass(frozen=True)
class Registration(Request):
    attestation: str


@dataclass(frozen=True)
class Authentication(Request):
    credential: Credential


@dataclass(frozen=True)
class Verified:
    user_verified: bool
    credential: Credential
    fmt: str | None = None  # registration only, like aaguid
    aaguid: str | None = None


def serve(
    verify_registration: Callable[[Registration], Verified],
    verify_authentication: Callable[[Authentication], Verified],
) -> NoReturn:
    """Answers the request on stdin and ends the program."""
    try:
        request = _parse(json.load(sys.stdin))
    # Not exit code 1: a test that waits for a refusal must not take its own mistake for one.
    except (ValueError, KeyError, TypeError) as error:
        _end(2, {"ok": False, "error": f"the request is malformed: {_describe(error)}"})
    try:
        if isinstance(request, Registration):
            verified = verify_registration(request)
            _check_format(request, verified)
        else:
            verified = verify_authentication(request)
        _check_credential(request, verified)
    # The libraries let TypeError, struct.error and the like through for malformed input: all are refusals.
    except Exception as error:
        _end(1, {"ok": False, "error": _describe(error)})
    _end(0, _answer(verified))


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


class Refusal(Exception):
    """For the checks that a library leaves to its caller."""


def _parse(json_: dict[str, Any]) -> Registration | Authentication:
    common = {
        "origin": _typed(json_["origin"], str),
        "rp_id": _typed(json_["rpId"], str),
        "challenge": _decode(json_["challenge"]),
        "response": _typed(json_["response"], dict),
        "require_user_verification": _typed(json_["requireUserVerification"], bool),
    }
    match json_["kind"]:
        case "registration":
            if json_["attestation"] not in ("none", "packed"):
                raise ValueError("attestation is neither none nor packed")
            return Registration(**common, attestation=json_["attestation"])
        case "authentication":
            credential = _typed(json_["credential"], dict)
            return Authentication(
                **common,
                credential=Credential(
                    _decode(credential["id"]),
                    _decode(credential["publicKey"]),
                    _typed(credential["signCount"], int),
                ),
            )
        case kind:
            raise ValueError(f"unknown kind {kind!r}")


def _typed(value: Any, type_: type) -> Any:
    if not isinstance(value, type_):
        raise TypeError(f"{value!r} is not a {type_.__name__}")
    return value


def _decode(text: str) -> bytes:
    data = base64.b64decode(_typed(text, str) + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    if encode(data) != text:
        raise ValueError(f"{text!r} is not base64url without padding")
    return data


def _check_format(request: Registration, verified: Verified) -> None:
    if verified.fmt != request.attestation:
        raise Refusal(f"attestation format is {verified.fmt}, not {request.attestation}")


def _check_credential(request: Registration | Authentication, verified: Verified) -> None:
    if request.response.get("type") != "public-key":
        raise Refusal("the response's type is not public-key")
    if request.response.get("id") != encode(verified.credential.id):
        raise Refusal("the response's id is not the credential's")


def _answer(verified: Verified) -> dict[str, Any]:
    attested = {} if verified.fmt is None else {"fmt": verified.fmt, "aaguid": verified.aaguid}
    credential = verified.credential
    return {
        "ok": True,
        **attested,
        "userVerified": verified.user_verified,
        "credential": {
            "id": encode(credential.id),
            "publicKey": encode(credential.public_key),
            "signCount": credential.sign_count,
        },
    }


def _describe(error: BaseException) -> str:
    text = f"{type(error).__name__}: {error}"
    return f"{text} ({_describe(error.__cause__)})" if error.__cause__ else text


def _end(code: int, answer: dict[str, Any]) -> NoReturn:
    print(json.dumps(answer))
    sys.exit(code)
