//! WebAuthn Level 3 as both client and authenticator: options in, responses out.

mod attestation;
mod authenticator_data;
mod ids;
mod options;
mod response;

pub use authenticator_data::{UserPresent, UserVerified, aaguid};
pub use ids::{CredentialId, Origin, OriginError, RpId, RpIdError, UserHandle};
pub use options::{Attestation, CreateRequest, GetRequest, RequestError, User};
pub use response::{AuthenticationResponse, RegistrationResponse};

pub(crate) use attestation::{attestation_object, cose_key, none_statement, packed_self_statement};
pub(crate) use authenticator_data::{AuthenticatorData, digest_to_sign};
pub(crate) use response::{Registered, client_data_json};

use base64ct::{Base64UrlUnpadded, Encoding};

/// Base64url without padding, as all binary members of WebAuthn's JSON are (Level 3 §5.1.8).
pub(crate) fn base64url(bytes: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(bytes)
}

pub(crate) fn from_base64url(text: &str) -> Option<Vec<u8>> {
    // Several relying parties pad what the specification says is unpadded.
    Base64UrlUnpadded::decode_vec(text.trim_end_matches('=')).ok()
}
