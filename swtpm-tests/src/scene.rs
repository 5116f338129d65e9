use std::path::Path;

use serde_json::json;
use tempfile::TempDir;
use tpm_backend::Tpm;
use vault_core::{
    Vault,
    pin::{Pin, PinMaterial},
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
