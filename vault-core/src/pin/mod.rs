//! The PIN: what it is, which ones are refused, and what the TPM is given of it.

mod policy;

pub use policy::{PinPolicy, PinRefused};

use argon2::{Algorithm, Argon2, Params, Version};
use hkdf::Hkdf;
use secrecy::{ExposeSecret, SecretBox};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use unicode_normalization::{UnicodeNormalization, is_nfc};
use zeroize::Zeroizing;

use crate::{Secret, secret_from, wipe_stack};

/// The longest PIN, in bytes of UTF-8 (CTAP 2.2 §6.5.1).
pub const MAX_BYTES: usize = 63;

/// Argon2id's memory in KiB, passes and lanes (OWASP's first recommendation). The TPM's count is what
/// stops guessing; this slows whoever gets hold of a masked secret.
const ARGON2: (u32, u32, u32) = (19 * 1024, 2, 1);

/// Whether a PIN is in Unicode normalization form C, as platforms send it (CTAP 2.2 §6.5.5.5).
#[must_use]
pub fn is_normalized(typed: &str) -> bool {
    is_nfc(typed)
}

/// A PIN as it was typed, in Unicode normalization form C.
pub struct Pin(SecretBox<str>);

impl Pin {
    /// Takes a typed PIN; the caller zeroizes its own copy. `None` if it is empty or longer than
    /// [`MAX_BYTES`], which no vault's PIN can be.
    #[must_use]
    pub fn new(typed: &str) -> Option<Self> {
        // NFC at most triples UTF-8's length (Unicode TR15 §9.1), so this never reallocates
        // and leaves no copy behind.
        let mut nfc = Zeroizing::new(String::with_capacity(3 * typed.len()));
        nfc.extend(typed.nfc());
        let fits = (1..=MAX_BYTES).contains(&nfc.len());
        fits.then(|| Self(SecretBox::from(nfc.as_str())))
    }

    /// `LEFT(SHA-256(PIN), 16)`, the value CTAP 2.2 §6.5.5.5 gives an authenticator, so that the
    /// terminal and the browser unlock the same vault with the same PIN.
    #[must_use]
    pub fn material(&self) -> PinMaterial {
        PinMaterial(SecretBox::init_with_mut(|material: &mut [u8; 16]| {
            let mut hash = Zeroizing::new([0; 32]);
            Sha256::new_with_prefix(self.0.expose_secret()).finalize_into((&mut *hash).into());
            material.copy_from_slice(hash.split_at(16).0);
        }))
    }

    fn as_str(&self) -> &str {
        self.0.expose_secret()
    }
}

impl std::fmt::Debug for Pin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pin([REDACTED])")
    }
}

/// 16 bytes that stand for the PIN.
pub struct PinMaterial(SecretBox<[u8; 16]>);

impl PinMaterial {
    /// Takes the material as CTAP delivers it (CTAP 2.2 §6.5.5.5, `pinHashEnc`); the caller zeroizes its own copy.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; 16]) -> Self {
        Self(SecretBox::init_with_mut(|material: &mut [u8; 16]| material.copy_from_slice(bytes)))
    }
}

impl std::fmt::Debug for PinMaterial {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PinMaterial([REDACTED])")
    }
}

/// What the TPM sees of a PIN, for one vault.
#[derive(Debug)]
pub struct PinSecrets {
    /// K1: the PIN index's authValue.
    pub auth: Secret,
    /// K3: masks the vault key's secret S in the TPM's NV memory.
    pub mask: Secret,
}

impl Clone for PinSecrets {
    fn clone(&self) -> Self {
        let copy = |secret: &Secret| secret_from(|out| out.copy_from_slice(secret.expose_secret()));
        Self { auth: copy(&self.auth), mask: copy(&self.mask) }
    }
}

/// In constant time.
impl PartialEq for PinSecrets {
    fn eq(&self, other: &Self) -> bool {
        let same = |a: &Secret, b: &Secret| a.expose_secret().ct_eq(b.expose_secret());
        (same(&self.auth, &other.auth) & same(&self.mask, &other.mask)).into()
    }
}

impl PinSecrets {
    /// K1 and K3 are HKDF-Expand outputs of Argon2id(PIN material, vault id).
    #[must_use]
    pub fn derive(material: &PinMaterial, vault_id: &[u8; 16]) -> Self {
        let stretched = secret_from(|out| stretch(material, vault_id, out));
        let auth = secret_from(|out| {
            expand(&stretched, "passhold v1 PIN authValue", out);
            // A TPM strips trailing zero bytes from an authValue (Part 1 §19.6.4.3).
            out[31] |= 1;
        });
        let mask = secret_from(|out| expand(&stretched, "passhold v1 PIN mask", out));
        wipe_stack();
        Self { auth, mask }
    }
}

#[expect(clippy::expect_used, reason = "constant parameters and lengths; proceeding without would be worse")]
fn stretch(material: &PinMaterial, vault_id: &[u8; 16], out: &mut [u8; 32]) {
    let (memory, passes, lanes) = ARGON2;
    let params = Params::new(memory, passes, lanes, Some(out.len())).expect("valid constants");
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(material.0.expose_secret(), vault_id, out)
        .expect("a 16-byte password and salt are within Argon2's limits");
}

/// HKDF-Expand (RFC 5869 §2.3) from a key that is already uniform.
#[expect(clippy::expect_used, reason = "lengths are constant")]
pub(crate) fn expand(key: &Secret, label: &str, out: &mut [u8; 32]) {
    Hkdf::<Sha256>::from_prk(key.expose_secret())
        .expect("a PRK as long as SHA-256's output")
        .expand(label.as_bytes(), out)
        .expect("one block of output");
}
