//! PIN/UV auth protocols one and two (CTAP 2.2 §6.5.6, §6.5.7): how a PIN and a token travel past a listener on the HID bus.

use aes::Aes256;
use cbc::cipher::{BlockModeDecrypt, BlockModeEncrypt, KeyIvInit, block_padding::NoPadding};
use coset::{
    AsCborValue, CoseKey, CoseKeyBuilder, KeyType, Label, RegisteredLabelWithPrivate,
    iana::{self, Algorithm, Ec2KeyParameter, EllipticCurve, EnumI64},
};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit, Mac};
use p256::{PublicKey, SecretKey, ecdh, elliptic_curve::sec1::ToSec1Point};
use rand_core::CryptoRng;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use vault_core::{Secret, secret_from};
use zeroize::Zeroizing;

use crate::Status;

/// AES's block, in bytes.
const BLOCK: usize = 16;

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PinProtocol {
    One,
    Two,
}

/// The authenticator's key-agreement key pair; made anew at start and after each wrong PIN (§6.5.5.1, §6.5.5.7).
pub(crate) struct KeyAgreement(SecretKey);

/// What both sides share for one exchange.
pub(crate) struct SharedSecret {
    protocol: PinProtocol,
    hmac: Secret,
    aes: Secret,
}

impl PinProtocol {
    /// §6.5.5: one that is not supported is an invalid parameter.
    pub(crate) fn from_number(number: u64) -> Result<Self, Status> {
        match number {
            1 => Ok(Self::One),
            2 => Ok(Self::Two),
            _ => Err(Status::InvalidParameter),
        }
    }

    /// `verify` (§6.5.4), in constant time.
    pub(crate) fn verify(self, key: &Secret, message: &[u8], signature: &[u8]) -> bool {
        let mac = mac(key, message);
        match self {
            Self::One => signature.len() == BLOCK && mac.verify_truncated_left(signature).is_ok(),
            Self::Two => mac.verify_slice(signature).is_ok(),
        }
    }
}

impl KeyAgreement {
    pub(crate) fn generate(rng: &mut dyn CryptoRng) -> Self {
        loop {
            let candidate = secret_from(|out| rng.fill_bytes(out));
            // Zero and numbers above the curve's order are none; hardly ever met.
            if let Ok(key) = SecretKey::from_slice(candidate.expose_secret()) {
                return Self(key);
            }
        }
    }

    /// `getPublicKey` (§6.5.4): a `COSE_Key` of algorithm -25.
    #[expect(clippy::expect_used, reason = "encoding a valid key to memory")]
    pub(crate) fn public(&self) -> ciborium::Value {
        let point = self.0.public_key().to_sec1_point(false);
        let (x, y) = (point.x().expect("not the identity"), point.y().expect("uncompressed"));
        CoseKeyBuilder::new_ec2_pub_key(EllipticCurve::P_256, x.to_vec(), y.to_vec())
            .algorithm(Algorithm::ECDH_ES_HKDF_256)
            .build()
            .to_cbor_value()
            .expect("a key of known members")
    }

    /// `decapsulate` (§6.5.4).
    pub(crate) fn decapsulate(
        &self,
        protocol: PinProtocol,
        peer: ciborium::Value,
    ) -> Result<SharedSecret, Status> {
        let peer = peer_key(peer).ok_or(Status::InvalidParameter)?;
        let z = ecdh::diffie_hellman(self.0.to_nonzero_scalar(), peer.as_affine());
        let z = z.raw_secret_bytes().as_slice();
        let (hmac, aes) = match protocol {
            PinProtocol::One => {
                let key = || secret_from(|out| Sha256::new_with_prefix(z).finalize_into(out.into()));
                (key(), key())
            }
            PinProtocol::Two => (expand(z, "CTAP2 HMAC key"), expand(z, "CTAP2 AES key")),
        };
        Ok(SharedSecret { protocol, hmac, aes })
    }
}

impl SharedSecret {
    pub(crate) fn protocol(&self) -> PinProtocol {
        self.protocol
    }

    pub(crate) fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        self.protocol.verify(&self.hmac, message, signature)
    }

    /// `decrypt` (§6.5.4); `None` if that is no ciphertext.
    pub(crate) fn decrypt(&self, ciphertext: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (iv, ciphertext) = match self.protocol {
            PinProtocol::One => ([0; BLOCK], ciphertext),
            PinProtocol::Two => ciphertext.split_first_chunk().map(|(iv, rest)| (*iv, rest))?,
        };
        if ciphertext.is_empty() {
            return None;
        }
        let cipher = cbc::Decryptor::<Aes256>::new(self.aes.expose_secret().into(), &iv.into());
        cipher.decrypt_padded_vec::<NoPadding>(ciphertext).ok().map(Zeroizing::new)
    }

    /// `encrypt` (§6.5.4), of whole blocks.
    #[expect(clippy::expect_used, reason = "what is encrypted here is two blocks each")]
    pub(crate) fn encrypt(&self, secrets: &[Secret], rng: &mut dyn CryptoRng) -> Vec<u8> {
        let mut iv = [0; BLOCK];
        if self.protocol == PinProtocol::Two {
            rng.fill_bytes(&mut iv);
        }
        let cipher = cbc::Encryptor::<Aes256>::new(self.aes.expose_secret().into(), &iv.into());
        let mut out = if self.protocol == PinProtocol::Two { iv.to_vec() } else { Vec::new() };
        let start = out.len();
        // Enough room at once, or a copy would be left behind as it grows.
        out.reserve_exact(32 * secrets.len());
        for secret in secrets {
            out.extend(secret.expose_secret());
        }
        let blocks = out.get_mut(start..).expect("just added");
        let len = blocks.len();
        cipher.encrypt_padded::<NoPadding>(blocks, len).expect("whole blocks");
        out
    }
}

fn mac(key: &Secret, message: &[u8]) -> Hmac<Sha256> {
    #[expect(clippy::expect_used, reason = "HMAC takes keys of any length")]
    let mac = Hmac::<Sha256>::new_from_slice(key.expose_secret()).expect("any length");
    mac.chain_update(message)
}

#[expect(clippy::expect_used, reason = "one block of output")]
fn expand(z: &[u8], label: &str) -> Secret {
    let hkdf = Hkdf::<Sha256>::new(Some(&[0; 32]), z);
    secret_from(|out| hkdf.expand(label.as_bytes(), out).expect("one block of output"))
}

/// The platform's public key, if it is a point of P-256 with both coordinates (§6.5.6).
fn peer_key(value: ciborium::Value) -> Option<PublicKey> {
    let key = CoseKey::from_cbor_value(value).ok()?;
    let expected = RegisteredLabelWithPrivate::Assigned(Algorithm::ECDH_ES_HKDF_256);
    let param = |which: Ec2KeyParameter| {
        let label = Label::Int(which.to_i64());
        key.params.iter().find(|(l, _)| *l == label).map(|(_, value)| value)
    };
    let on_curve = param(Ec2KeyParameter::Crv)?.as_integer()? == EllipticCurve::P_256.to_i64().into();
    if key.kty != KeyType::Assigned(iana::KeyType::EC2) || key.alg != Some(expected) || !on_curve {
        return None;
    }
    let coordinate = |which| param(which)?.as_bytes().filter(|c| c.len() == 32);
    let (x, y) = (coordinate(Ec2KeyParameter::X)?, coordinate(Ec2KeyParameter::Y)?);
    PublicKey::from_sec1_bytes(&[&[4][..], x, y].concat()).ok()
}
