//! A vault behind a proxy, every operation on it, and the proof that it still works.

use std::{error::Error, path::Path, sync::Once};

use p256::ecdsa::VerifyingKey;
use serde_json::json;
use swtpm_tests::{TestTpm, creation_options, key_store, pin, proxy::Proxy, rng};
use tempfile::TempDir;
use tpm_backend::Tpm;
use vault_core::{
    CeremonyError, OpenError, UnlockError, Vault, VaultError,
    container::{AccountId, ContainerError},
    keystore::{KeyStoreError, TpmStatus},
    webauthn::{CreateRequest, GetRequest, Origin, UserPresent},
};

use super::{
    raw_tpm::RawTpm,
    relying_party::{ORIGIN, RP_ID, challenge, check_assertion, check_registration},
};

/// What a vault can be asked to do. Each starts with a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// On a TPM without an SRK.
    Setup,
    /// Open and list.
    Open,
    /// Open and list after somebody evicted the SRK, which is put back.
    Heal,
    EnrollNone,
    EnrollPacked,
    Sign,
    Delete,
    ChangePin,
    /// Unlock after a PIN change that was cut off before its last write.
    Settle,
    Status,
    Wipe,
}

impl Operation {
    pub const ALL: [Self; 11] = [
        Self::Setup,
        Self::Open,
        Self::Heal,
        Self::EnrollNone,
        Self::EnrollPacked,
        Self::Sign,
        Self::Delete,
        Self::ChangePin,
        Self::Settle,
        Self::Status,
        Self::Wipe,
    ];
}

/// What an operation that succeeded claims to have done.
#[derive(Debug)]
pub enum Done {
    /// It says nothing to check but the state it leaves.
    Silently,
    Listed(Vec<AccountId>),
    Enrolled(Passkey),
    Status(TpmStatus),
}

#[derive(Clone, Debug)]
pub struct Passkey {
    pub id: AccountId,
    pub public: VerifyingKey,
}

/// What the vault is expected to hold.
#[derive(Clone, Debug)]
pub struct Lab {
    inner: std::rc::Rc<Inner>,
    /// Oldest first. One stays for ever, the last is the one that [`Operation::Delete`] deletes.
    pub passkeys: Vec<Passkey>,
    /// The PIN in force, and the one that [`Operation::ChangePin`] sets.
    pub pins: [&'static str; 2],
    challenges: u64,
}

struct Inner {
    proxy: Proxy,
    dir: TempDir,
    tpm: TestTpm,
}

impl std::fmt::Debug for Inner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.tpm.fmt(f)
    }
}
