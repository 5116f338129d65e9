//! The keys derived from the container key, and what each protects.

use aes_gcm_siv::{Aes256GcmSiv, Nonce};
use chacha20poly1305::{
    KeyInit, Tag, XChaCha20Poly1305, XNonce,
    aead::{Aead, AeadInOut, Payload},
};
use hmac::{Hmac, Mac};
use secrecy::ExposeSecret;
use sha2::Sha256;

use crate::{Secret, keystore::ContainerKey, pin::expand, secret_from, webauthn::RpId};

/// A keyed hash of an RP ID: finds its rows without telling a thief whose they are.
pub(super) type RpTag = [u8; 32];

const NONCE_LEN: usize = 24;
const TAG_LEN: usize = 16;

/// Seals rows and authenticates the header.
pub(super) struct Sealer {
    rows: Secret,
    lookup: Secret,
    header: Secret,
    log: Secret,
}

impl Sealer {
    pub(super) fn new(key: &ContainerKey) -> Self {
        let derive = |label| secret_from(|out| expand(key, label, out));
        Self {
            rows: derive("passhold v1 container rows"),
            lookup: derive("passhold v1 container lookup"),
            header: derive("passhold v1 container header"),
            log: derive("passhold v1 container log"),
        }
    }

    pub(super) fn rp_tag(&self, rp_id: &RpId) -> RpTag {
        mac(&self.lookup, rp_id.as_str().as_bytes())
    }

    pub(super) fn header_mac(&self, header: &[u8]) -> [u8; 32] {
        mac(&self.header, header)
    }

    /// XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha-03): 24-byte random nonce || ciphertext || tag.
    /// `place` says whose row this is, so that no row opens in another's place.
    #[expect(clippy::expect_used, reason = "encryption fails only beyond 256 GiB")]
    pub(super) fn seal(&self, place: &[u8], plain: &[u8], rng: &mut dyn rand_core::CryptoRng) -> Vec<u8> {
        let mut nonce = [0; NONCE_LEN];
        rng.fill_bytes(&mut nonce);
        let sealed = self
            .aead()
            .encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: place })
            .expect("a short row");
        [nonce.as_slice(), &sealed].concat()
    }

    /// Opens it where it lies.
    pub(super) fn open<'s>(&self, place: &[u8], sealed: &'s mut [u8]) -> Option<&'s [u8]> {
        let (nonce, ciphertext) = sealed.split_first_chunk_mut::<NONCE_LEN>()?;
        let (text, tag) = ciphertext.split_last_chunk_mut::<TAG_LEN>()?;
        let (nonce, tag) = (XNonce::from(*nonce), Tag::from(*tag));
        self.aead().decrypt_inout_detached(&nonce, place, (&mut *text).into(), &tag).ok()?;
        Some(text)
    }

    /// AES-256-GCM-SIV (RFC 8452): ciphertext || tag, sealed to the vault and to the entry's number, which is the nonce. An old
    /// copy of a vault that is let in goes on with numbers that were used before: this mode bears that.
    #[expect(clippy::expect_used, reason = "encryption fails only beyond 64 GiB")]
    pub(super) fn seal_entry(&self, vault_id: &[u8; 16], n: u64, plain: &[u8]) -> Vec<u8> {
        let payload = Payload { msg: plain, aad: vault_id };
        self.siv().encrypt(&number(n), payload).expect("a short entry")
    }

    pub(super) fn open_entry(&self, vault_id: &[u8; 16], n: u64, sealed: &[u8]) -> Option<Vec<u8>> {
        self.siv().decrypt(&number(n), Payload { msg: sealed, aad: vault_id }).ok()
    }

    fn siv(&self) -> Aes256GcmSiv {
        Aes256GcmSiv::new(self.log.expose_secret().into())
    }

    fn aead(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(self.rows.expose_secret().into())
    }
}

fn number(n: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[4..].copy_from_slice(&n.to_be_bytes());
    nonce.into()
}

#[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn mac(key: &Secret, message: &[u8]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret()).expect("any length");
    mac.update(message);
    mac.finalize().into_bytes().into()
}
