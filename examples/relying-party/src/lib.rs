//! A WebAuthn relying party small enough to read, built on webauthn-rs and axum. It keeps everything in memory
//! and is meant for loopback: anyone who reaches it can register a passkey under any name.
//!
//! [`RelyingParty`] verifies in-process; [`router`] puts the same calls behind HTTP.

#![allow(clippy::doc_markdown, reason = "WebAuthn is a name, not code")]

mod error;
mod http;
mod relying_party;

pub use error::{FinishError, OriginError, StartError};
pub use http::router;
pub use relying_party::RelyingParty;
