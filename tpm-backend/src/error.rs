//! What the TPM's response codes mean here.

use std::time::Duration;

use tss_esapi::constants::response_code::Tss2ResponseCodeKind as Code;
use vault_core::keystore::KeyStoreError;

pub(crate) type Result<T> = std::result::Result<T, KeyStoreError>;

/// The TPM's own code, where that is what failed.
pub(crate) fn code(error: tss_esapi::Error) -> Option<Code> {
    match error {
        tss_esapi::Error::Tss2Error(rc) => rc.kind(),
        tss_esapi::Error::WrapperError(_) => None,
    }
}

/// Names the step that failed, and gives the codes that mean the same at every step their meaning.
pub(crate) trait During<T> {
    fn during(self, step: &'static str) -> Result<T>;
}

impl<T> During<T> for tss_esapi::Result<T> {
    fn during(self, step: &'static str) -> Result<T> {
        self.map_err(|e| failed(step, e))
    }
}

pub(crate) fn failed(during: &'static str, error: tss_esapi::Error) -> KeyStoreError {
    match code(error) {
        Some(Code::ObjectMemory | Code::ObjectHandles) => KeyStoreError::Exhausted { what: "objects" },
        Some(Code::SessionMemory | Code::SessionHandles) => KeyStoreError::Exhausted { what: "sessions" },
        Some(Code::Memory) => KeyStoreError::Exhausted { what: "objects or sessions" },
        Some(Code::NvSpace) => KeyStoreError::NoNvSpace,
        Some(Code::Lockout) => KeyStoreError::Lockout { heals_in: None },
        _ => KeyStoreError::Failed { during, source: error.into() },
    }
}

/// The TPM's reply is well-formed and makes no sense.
pub(crate) fn odd_answer(during: &'static str) -> KeyStoreError {
    KeyStoreError::Failed { during, source: "the TPM's answer makes no sense".into() }
}

pub(crate) fn is_exhausted(error: tss_esapi::Error) -> bool {
    matches!(failed("", error), KeyStoreError::Exhausted { .. })
}

/// Whether a failure may have left something in the TPM whose handle we never learned: every failure that we
/// do not know may be a reply that was lost or damaged on its way.
pub(crate) fn lost_a_reply(error: &KeyStoreError) -> bool {
    matches!(error, KeyStoreError::Failed { .. } | KeyStoreError::PinInDoubt(_))
}

/// What owner authorization means when the TPM refuses it (it is exempt from dictionary-attack protection).
pub(crate) fn owner(given: bool, during: &'static str) -> impl Fn(tss_esapi::Error) -> KeyStoreError {
    move |error| match code(error) {
        Some(Code::BadAuth | Code::AuthFail) if given => KeyStoreError::OwnerAuthWrong,
        Some(Code::BadAuth | Code::AuthFail) => KeyStoreError::OwnerAuthNeeded,
        _ => failed(during, error),
    }
}

/// With the time until the TPM allows one more try.
pub(crate) fn with_recovery(
    error: KeyStoreError,
    recovery: impl FnOnce() -> Option<Duration>,
) -> KeyStoreError {
    match error {
        KeyStoreError::Lockout { heals_in: None } => KeyStoreError::Lockout { heals_in: recovery() },
        other => other,
    }
}
