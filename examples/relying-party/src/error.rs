//! Why a ceremony did not go through. The outer message is the step, `source()` the reason.

use thiserror::Error;
use webauthn_rs::prelude::WebauthnError;

/// An origin no relying party can have.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OriginError {
    /// Not a URL with a host name. An IP address can't be an RP ID (WebAuthn L3 §5.1.2).
    #[error("{0:?} is not an origin with a host name, like http://localhost:8080")]
    NoHostName(String),
    /// webauthn-rs would not take it.
    #[error("webauthn-rs refused the origin")]
    Refused(#[source] WebauthnError),
}

/// A ceremony that could not start.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum StartError {
    /// Register first.
    #[error("no passkey is registered for {0:?}")]
    UnknownUser(String),
    /// No options came out of webauthn-rs.
    #[error("could not make the options")]
    Options(#[source] WebauthnError),
    /// The options did not become JSON.
    #[error("could not write the options as JSON")]
    Json(#[source] serde_json::Error),
}

/// An answer that was not accepted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum FinishError {
    /// The JSON lacks a member or has one of the wrong type; the challenge still waits.
    #[error("the response is malformed")]
    Malformed(#[source] serde_json::Error),
    /// `type` is not "public-key"; the challenge still waits.
    #[error("the response's type is {0:?}, not \"public-key\"")]
    CredentialType(String),
    /// `id` is not the base64url of `rawId`; the challenge still waits.
    #[error("the response's id is not the base64url of its rawId")]
    IdMismatch,
    /// There was no start, or an answer has already spent its challenge.
    #[error("no challenge waits for this response; start again")]
    NotStarted,
    /// The credential ID belongs to an account already.
    #[error("this credential is already registered")]
    AlreadyRegistered,
    /// Nobody here has this user handle or credential.
    #[error("the user handle belongs to nobody here")]
    UnknownUserHandle,
    /// The user handle is not the one of the account that is signing in.
    #[error("the user handle belongs to another account")]
    WrongUserHandle,
    /// A check of WebAuthn L3 §7.1 or §7.2 failed.
    #[error("the response was refused")]
    Refused(#[source] WebauthnError),
}
