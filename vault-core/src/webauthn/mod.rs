//! WebAuthn Level 3 as both client and authenticator: options in, responses out.

mod attestation;
mod authenticator_data;
mod ids;
mod options;
mod response;
mod signal;

pub use attestation::{Attested, cose_key};
pub use authenticator_data::{
    AuthenticatorData, ClientDataHash, Protection, UserPresent, UserVerified, aaguid,
};
pub use ids::{CredentialId, Origin, OriginError, RpId, RpIdError, UserHandle};
pub use options::{Attestation, CreateRequest, GetRequest, RequestError, User};
pub use response::{AuthenticationResponse, RegistrationResponse};
pub use signal::{Signal, SignalError};

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
