//! The platform's half of the PIN/UV auth protocols (CTAP 2.2 §6.5.6, §6.5.7), sharing no code with the authenticator's.

use aes::Aes256;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, block_padding::NoPadding};
use ciborium::Value;
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use p256::{PublicKey, SecretKey, ecdh::diffie_hellman, elliptic_curve::sec1::ToSec1Point};
use sha2::{Digest, Sha256};

pub(crate) const IV: [u8; 16] = [0x5a; 16];

/// One exchange's shared secret, and our public key.
pub(crate) struct Platform {
    pub(crate) protocol: u8,
    pub(crate) public: Value,
    hmac: Vec<u8>,
    aes: Vec<u8>,
}

impl Platform {
    pub(crate) fn agree(protocol: u8, authenticator: &Value) -> Self {
        let coordinate = |n: i64| super::member(authenticator, n).unwrap().as_bytes().unwrap().clone();
        let theirs =
            PublicKey::from_sec1_bytes(&[&[4][..], &coordinate(-2), &coordinate(-3)].concat()).unwrap();
        let ours = SecretKey::from_slice(&[0x17; 32]).unwrap();
        let z = diffie_hellman(ours.to_nonzero_scalar(), theirs.as_affine());
        let z = z.raw_secret_bytes();
        let (hmac, aes) = if protocol == 1 {
            let key = Sha256::digest(z).to_vec();
            (key.clone(), key)
        } else {
            let expand = |label: &[u8]| {
                let mut key = vec![0; 32];
                Hkdf::<Sha256>::new(Some(&[0; 32]), z).expand(label, &mut key).unwrap();
                key
            };
            (expand(b"CTAP2 HMAC key"), expand(b"CTAP2 AES key"))
        };
        let point = ours.public_key().to_sec1_point(false);
        let (x, y) = (point.x().unwrap().to_vec(), point.y().unwrap().to_vec());
        let public = Value::Map(vec![
            (1.into(), 2.into()),
            (3.into(), (-25).into()),
            ((-1).into(), 1.into()),
            ((-2).into(), Value::Bytes(x)),
            ((-3).into(), Value::Bytes(y)),
        ]);
        Self { protocol, public, hmac, aes }
    }

    pub(crate) fn encrypt(&self, plain: &[u8]) -> Vec<u8> {
        let iv = if self.protocol == 1 { [0; 16] } else { IV };
        let cipher = cbc::Encryptor::<Aes256>::new_from_slices(&self.aes, &iv).unwrap();
        let encrypted = cipher.encrypt_padded_vec::<NoPadding>(plain);
        if self.protocol == 1 { encrypted } else { [&IV[..], &encrypted].concat() }
    }

    pub(crate) fn decrypt(&self, cipher: &[u8]) -> Vec<u8> {
        let (iv, cipher) = if self.protocol == 1 {
            ([0; 16], cipher)
        } else {
            (cipher[..16].try_into().unwrap(), &cipher[16..])
        };
        let aes = cbc::Decryptor::<Aes256>::new_from_slices(&self.aes, &iv).unwrap();
        aes.decrypt_padded_vec::<NoPadding>(cipher).unwrap()
    }

    pub(crate) fn authenticate(&self, message: &[u8]) -> Value {
        authenticate(self.protocol, &self.hmac, message)
    }

    pub(crate) fn pin_hash(&self, pin: &str) -> Value {
        Value::Bytes(self.encrypt(&Sha256::digest(pin)[..16]))
    }

    pub(crate) fn padded(&self, pin: &[u8]) -> Value {
        let mut padded = pin.to_vec();
        padded.resize(64, 0);
        Value::Bytes(self.encrypt(&padded))
    }
}

pub(crate) fn authenticate(protocol: u8, key: &[u8], message: &[u8]) -> Value {
    let mac = Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(message).finalize().into_bytes();
    Value::Bytes(mac[..if protocol == 1 { 16 } else { 32 }].to_vec())
}
