//! A platform: its requests, and its half of the PIN/UV auth protocols (CTAP 2.2 §6.5.6, §6.5.7), sharing no code with the
//! authenticator's.
#![allow(dead_code, clippy::expect_used, clippy::panic, clippy::needless_pass_by_value)]

pub(crate) mod site;

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
        let coordinate = |n: i64| member(authenticator, n).unwrap().as_bytes().unwrap().clone();
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

    /// A subcommand of clientPIN with our public key.
    fn client_pin(&self, subcommand: u8) -> Value {
        with(&client_pin(self.protocol, subcommand), 3, self.public.clone())
    }

    pub(crate) fn set_pin(&self, padded: &Value) -> Value {
        let proof = self.authenticate(padded.as_bytes().unwrap());
        with(&with(&self.client_pin(3), 5, padded.clone()), 4, proof)
    }

    pub(crate) fn change_pin(&self, old: &str, new: &str) -> Value {
        let (hash, padded) = (self.pin_hash(old), self.padded(new.as_bytes()));
        let message = [padded.as_bytes().unwrap().as_slice(), hash.as_bytes().unwrap()].concat();
        with(&with(&with(&self.client_pin(4), 4, self.authenticate(&message)), 5, padded), 6, hash)
    }

    pub(crate) fn pin_token(&self, pin: &str) -> Value {
        with(&self.client_pin(5), 6, self.pin_hash(pin))
    }

    pub(crate) fn token_using_pin(&self, pin: &str, permissions: u8, rp_id: Option<&str>) -> Value {
        let request = with(&with(&self.client_pin(9), 6, self.pin_hash(pin)), 9, Value::from(permissions));
        with(&request, 10, rp_id.map(Value::from))
    }

    pub(crate) fn token_using_uv(&self, permissions: u8, rp_id: Option<&str>) -> Value {
        with(&with(&self.client_pin(6), 9, Value::from(permissions)), 10, rp_id.map(Value::from))
    }

    /// The token in a reply.
    pub(crate) fn token(&self, reply: &Value) -> Token {
        let key = self.decrypt(member(reply, 2).unwrap().as_bytes().unwrap());
        Token { protocol: self.protocol, key }
    }
}

/// A pinUvAuthToken.
pub(crate) struct Token {
    protocol: u8,
    key: Vec<u8>,
}

impl Token {
    /// The request with `pinUvAuthParam` and `pinUvAuthProtocol`, whose keys these are.
    pub(crate) fn prove(&self, request: &Value, (param, protocol): (i64, i64), message: &[u8]) -> Value {
        let proof = authenticate(self.protocol, &self.key, message);
        with(&with(request, param, proof), protocol, Value::from(self.protocol))
    }

    /// The same of a subcommand of credential management (§6.8).
    pub(crate) fn manage(&self, request: &Value) -> Value {
        let parameters = member(request, 2).map(encoded).unwrap_or_default();
        let subcommand = u8::try_from(member(request, 1).unwrap().as_integer().unwrap()).unwrap();
        self.prove(request, (4, 3), &[&[subcommand][..], &parameters].concat())
    }
}

impl Token {
    /// A proven subcommand of authenticatorConfig (§6.11).
    pub(crate) fn configure(&self, request: &Value) -> Value {
        let parameters = member(request, 2).map(encoded).unwrap_or_default();
        let subcommand = u8::try_from(member(request, 1).unwrap().as_integer().unwrap()).unwrap();
        self.prove(request, (4, 3), &[&[0xff; 32][..], &[0x0d, subcommand], &parameters].concat())
    }

    /// A proven fragment of the large-blob array (§6.10.2).
    pub(crate) fn write(&self, request: &Value) -> Value {
        let fragment = member(request, 2).unwrap().as_bytes().unwrap();
        let offset = u32::try_from(member(request, 3).unwrap().as_integer().unwrap()).unwrap();
        let message = [&[0xff; 32][..], &[0x0c, 0x00], &offset.to_le_bytes(), &Sha256::digest(fragment)];
        self.prove(request, (5, 6), &message.concat())
    }
}

/// A subcommand of clientPIN.
pub(crate) fn client_pin(protocol: u8, subcommand: u8) -> Value {
    map([(1.into(), protocol.into()), (2.into(), subcommand.into())])
}

/// authenticatorConfig's setMinPINLength (§6.11.4).
pub(crate) fn set_min_pin_length(parameters: Value) -> Value {
    map([(1.into(), 3.into()), (2.into(), parameters)])
}

/// A subcommand of credential management.
pub(crate) fn manage(subcommand: u8, parameters: Option<Value>) -> Value {
    with(&map([(1.into(), subcommand.into())]), 2, parameters)
}

pub(crate) fn authenticate(protocol: u8, key: &[u8], message: &[u8]) -> Value {
    let mac = Hmac::<Sha256>::new_from_slice(key).unwrap().chain_update(message).finalize().into_bytes();
    Value::Bytes(mac[..if protocol == 1 { 16 } else { 32 }].to_vec())
}

/// A map of a request.
pub(crate) fn map<const N: usize>(members: [(Value, Value); N]) -> Value {
    Value::Map(Vec::from(members))
}

/// A member of a map that has integers for keys.
pub(crate) fn member(map: &Value, key: i64) -> Option<&Value> {
    map.as_map()?.iter().find(|(k, _)| *k == key.into()).map(|(_, value)| value)
}

/// The request with a member put in or taken out, in canonical order.
pub(crate) fn with(request: &Value, key: i64, value: impl Into<Option<Value>>) -> Value {
    let mut members: Vec<_> = request.as_map().unwrap().clone();
    members.retain(|(k, _)| *k != key.into());
    members.extend(value.into().map(|value| (key.into(), value)));
    members.sort_by_key(|(key, _)| encoded(key));
    Value::Map(members)
}

pub(crate) fn encoded(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}

pub(crate) fn options(name: &str, value: bool) -> Value {
    map([(name.into(), value.into())])
}

pub(crate) fn descriptor(id: &[u8]) -> Value {
    map([("id".into(), Value::Bytes(id.to_vec())), ("type".into(), "public-key".into())])
}
