//! Operations of a vault in one line.

use std::{path::Path, time::Duration};

use swtpm_tests::{creation_options, pin, request_options, rng};
use tpm_backend::Tpm;
use vault_core::{
    CeremonyError, OpenError, UnlockError, Vault,
    container::{Account, AccountId, Container, ContainerError},
    keystore::KeyStoreError,
    webauthn::{AuthenticationResponse, CreateRequest, GetRequest, Origin, UserPresent},
};

pub(crate) const RP: &str = "example.org";
pub(crate) const ORIGIN: &str = "https://example.org";

/// While another test's thread starts a program, its new process holds copies of our locks for a moment.
pub(crate) fn unlocked_container(dir: &Path) -> Container {
    for _ in 0..400 {
        match Container::open(dir) {
            Err(ContainerError::Busy { .. }) => std::thread::sleep(Duration::from_millis(5)),
            other => return other.unwrap(),
        }
    }
    panic!("{} stays locked", dir.display());
}

pub(crate) fn try_open<'k>(dir: &Path, keys: &'k mut Tpm) -> Result<Vault<'k>, OpenError> {
    Vault::open_container(unlocked_container(dir), keys)
}

pub(crate) fn open<'k>(dir: &Path, keys: &'k mut Tpm) -> Vault<'k> {
    try_open(dir, keys).unwrap()
}

pub(crate) fn enroll(dir: &Path, keys: &mut Tpm, text: &str, user: &str, attestation: &str) -> AccountId {
    let json = creation_options(RP, user, attestation);
    let request = CreateRequest::from_json(&json, Origin::parse(ORIGIN).unwrap()).unwrap();
    let mut vault = open(dir, keys);
    let unlocked = vault.unlock(&pin(text)).unwrap();
    unlocked.enroll(&request, None, UserPresent::confirmed(), 0, &mut rng()).unwrap().0
}

pub(crate) fn accounts(dir: &Path, keys: &mut Tpm) -> Vec<(AccountId, Account)> {
    open(dir, keys).accounts().unwrap()
}

/// Unlocks and signs with the first passkey.
pub(crate) fn try_sign(
    dir: &Path,
    keys: &mut Tpm,
    text: &str,
) -> Result<AuthenticationResponse, CeremonyError> {
    let request = GetRequest::from_json(&request_options(RP), Origin::parse(ORIGIN).unwrap()).unwrap();
    let mut vault = match try_open(dir, keys) {
        Ok(vault) => vault,
        Err(OpenError::KeyStore(e)) => return Err(e.into()),
        Err(e) => panic!("{e:?}"),
    };
    let id = vault.matching(&request)?[0].0;
    let unlocked = vault.unlock(&pin(text)).map_err(|e| match e {
        UnlockError::WrongPin => KeyStoreError::WrongPin.into(),
        UnlockError::KeyStore(e) => CeremonyError::from(e),
        other => panic!("{other:?}"),
    })?;
    unlocked.sign(&request, id, UserPresent::confirmed(), 0, &mut rng())
}

pub(crate) fn sign(dir: &Path, keys: &mut Tpm, text: &str) {
    try_sign(dir, keys, text).unwrap();
}

/// Signs with every passkey; the vault itself verifies each signature. Says how many.
pub(crate) fn sign_all(dir: &Path, keys: &mut Tpm, text: &str) -> usize {
    let request = GetRequest::from_json(&request_options(RP), Origin::parse(ORIGIN).unwrap()).unwrap();
    let mut vault = open(dir, keys);
    let all = vault.matching(&request).unwrap();
    for (id, _) in &all {
        vault
            .unlock(&pin(text))
            .unwrap()
            .sign(&request, *id, UserPresent::confirmed(), 0, &mut rng())
            .unwrap();
    }
    all.len()
}

/// Whether the TPM takes the PIN; any other answer than yes or "wrong" is a failure of the test.
pub(crate) fn works(dir: &Path, keys: &mut Tpm, text: &str) -> bool {
    match unlock_error(dir, keys, text) {
        None => true,
        Some(UnlockError::WrongPin) => false,
        Some(e) => panic!("{e:?}"),
    }
}

pub(crate) fn unlock_error(dir: &Path, keys: &mut Tpm, text: &str) -> Option<UnlockError> {
    open(dir, keys).unlock(&pin(text)).err()
}

/// The variant's name, with `Replaced`'s and `Exhausted`'s object.
pub(crate) fn kind_of(error: &dyn std::fmt::Debug) -> String {
    let text = format!("{error:?}");
    let inner = text.strip_prefix("KeyStore(").unwrap_or(&text);
    inner.trim_end_matches(')').split(", source").next().unwrap_or_default().to_owned()
}

pub(crate) fn same(a: &[u8], b: &[u8]) -> bool {
    a == b
}
