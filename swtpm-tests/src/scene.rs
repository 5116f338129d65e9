use std::path::Path;

use serde_json::json;
use tempfile::TempDir;
use tpm_backend::Tpm;
use vault_core::{
    Vault,
    container::{Account, Container},
    keystore::{KeyStore, Then},
    pin::{Pin, PinMaterial, PinSecrets},
    webauthn::{CredentialId, Origin, RpId},
};

use crate::TestTpm;

/// A TPM and a folder for a vault.
#[derive(Debug)]
pub struct Scene {
    /// The TPM.
    pub tpm: TestTpm,
    dir: TempDir,
}

/// The PIN of every test vault.
pub const PIN: &str = "271828";

impl Scene {
    /// A vault, set up with [`PIN`].
    ///
    /// # Panics
    /// If swtpm does not start or set-up fails.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test without a scene cannot go on")]
    pub fn with_vault() -> Self {
        let scene = Self::empty();
        vault_core::setup(scene.dir(), &mut scene.tpm.key_store(), &pin(PIN), 0, &mut rng()).expect("set-up");
        scene
    }

    /// No vault yet.
    ///
    /// # Panics
    /// If swtpm does not start.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test without a scene cannot go on")]
    pub fn empty() -> Self {
        let dir = tempfile::tempdir().expect("a temporary folder");
        Self { tpm: TestTpm::start().expect("swtpm"), dir }
    }

    /// The vault's folder.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The opened vault.
    pub fn open<'k>(&self, keys: &'k mut Tpm) -> Result<Vault<'k>, vault_core::OpenError> {
        Vault::open(self.dir(), keys)
    }
}

/// A PIN's material.
///
/// # Panics
/// If it can be no PIN.
#[must_use]
#[expect(clippy::expect_used, reason = "a test's own constant")]
pub fn pin(text: &str) -> PinMaterial {
    Pin::new(text).expect("a PIN").material()
}

/// The operating system's randomness.
#[must_use]
pub fn rng() -> getrandom::rand_core::UnwrapErr<getrandom::SysRng> {
    getrandom::rand_core::UnwrapErr(getrandom::SysRng)
}

/// Adds copies of a vault's one passkey until there are `size`, as far as the container is concerned; the TPM makes no keys for
/// them.
///
/// # Panics
/// If the vault has not just one, or another PIN than [`PIN`].
#[expect(clippy::expect_used, reason = "a test without a crowd cannot go on")]
pub fn crowd(dir: &Path, keys: &mut dyn KeyStore, size: usize) {
    let container = Container::open(dir).expect("a vault");
    let anchor = container.anchor().expect("one that is set up");
    let mut store =
        keys.container_key(&anchor).map(|key| container.unseal(&key)).expect("a TPM").expect("its own");
    let model = store.accounts().ok().and_then(|mut all| all.pop()).expect("a passkey").1;
    for n in 1..size {
        let origin = Origin::parse(&format!("https://site{n}.example.net")).expect("an origin");
        let rp_id = RpId::for_origin(None, &origin).expect("a domain");
        let account = Account { rp_id, credential_id: CredentialId::random(&mut rng()), ..model.clone() };
        store.insert(&account, &mut rng()).expect("room");
    }
    let secrets = PinSecrets::derive(&pin(PIN), store.vault_id());
    let mut unlocked = keys.unlock(&anchor, &secrets).expect("the PIN");
    unlocked.commit_generation(store.generation(), Then::End).expect("a TPM");
}

/// Options to register `user` at `rp_id`.
#[must_use]
pub fn creation_options(rp_id: &str, user: &str, attestation: &str) -> String {
    json!({
        "rp": {"id": rp_id, "name": "Example"},
        "user": {"id": base64url(user), "name": user, "displayName": user},
        "challenge": base64url("a challenge of some length"),
        "pubKeyCredParams": [{"type": "public-key", "alg": -7}],
        "attestation": attestation,
    })
    .to_string()
}

/// Options to sign in at `rp_id`.
#[must_use]
pub fn request_options(rp_id: &str) -> String {
    json!({"rpId": rp_id, "challenge": base64url("another challenge of some length")}).to_string()
}

fn base64url(text: &str) -> String {
    use base64ct::{Base64UrlUnpadded, Encoding};
    Base64UrlUnpadded::encode_string(text.as_bytes())
}

/// The size of a test: `full` under `make torture` (`PASSHOLD_TORTURE` is set), else `quick`.
#[must_use]
pub fn scale(quick: usize, full: usize) -> usize {
    if std::env::var_os("PASSHOLD_TORTURE").is_some() { full } else { quick }
}
