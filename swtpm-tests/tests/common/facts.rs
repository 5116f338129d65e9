//! What can be known of a vault: without its PIN from file and TPM, and with it.

use std::path::Path;

use ciborium::Value;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use swtpm_tests::pin;
use tpm_backend::Tpm;
use vault_core::{
    keystore::{Anchor, KeyBlob, KeyStore},
    pin::PinSecrets,
};

use super::scenes::unlocked_container;
use super::wire::{self, Auth, Wire, cc};

/// What whoever reads the file and reaches the TPM knows.
pub(crate) struct Facts {
    pub(crate) anchor: Anchor,
    pub(crate) container_key: [u8; 32],
    pub(crate) vault_id: [u8; 16],
    pub(crate) srk_name: Vec<u8>,
    pub(crate) v_public: Vec<u8>,
    pub(crate) v_private: Vec<u8>,
    pub(crate) pin: u32,
    pub(crate) sec: u32,
    pub(crate) key: u32,
    pub(crate) rec: u32,
}

/// What whoever knows the PIN too can find out.
pub(crate) struct Secrets {
    pub(crate) k1: [u8; 32],
    pub(crate) k3: [u8; 32],
    pub(crate) s: [u8; 32],
    /// `NV_sec` as it is.
    pub(crate) stored: Vec<u8>,
}

impl Facts {
    pub(crate) fn of(dir: &Path, keys: &mut Tpm) -> Self {
        let container = unlocked_container(dir);
        let anchor = container.anchor().unwrap();
        let key = keys.container_key(&anchor).unwrap();
        let store = container.unseal(&key).unwrap();
        let vault_id = *store.vault_id();
        let fields: Value = ciborium::from_reader(anchor.0.as_slice()).unwrap();
        let field = |name: &str| {
            let map = fields.as_map().unwrap();
            map.iter().find(|(k, _)| k.as_text() == Some(name)).unwrap().1.clone()
        };
        let number = |name: &str| u32::try_from(field(name).as_integer().unwrap()).unwrap();
        let (v_public, v_private) = bytes_of(&KeyBlob(field("v").into_bytes().unwrap()));
        Self {
            anchor,
            container_key: *key.expose_secret(),
            vault_id,
            srk_name: field("srk_name").into_bytes().unwrap(),
            v_public,
            v_private,
            pin: number("pin_index"),
            sec: number("sec_index"),
            key: number("key_index"),
            rec: number("rec_index"),
        }
    }

    pub(crate) fn derive(&self, text: &str) -> ([u8; 32], [u8; 32]) {
        let secrets = PinSecrets::derive(&pin(text), &self.vault_id);
        (*secrets.auth.expose_secret(), *secrets.mask.expose_secret())
    }

    /// Reads and unmasks `NV_sec`.
    pub(crate) fn secrets(&self, tpm: &Wire, text: &str) -> Secrets {
        let (k1, k3) = self.derive(text);
        let stored = self.read_sec(tpm, &k1).unwrap();
        let s = std::array::from_fn(|i| stored[i] ^ k3[i]);
        Secrets { k1, k3, s, stored }
    }

    /// `NV_sec`'s bytes, for whoever proves this authValue of `NV_pin`.
    pub(crate) fn read_sec(&self, tpm: &Wire, k1: &[u8]) -> Result<Vec<u8>, u32> {
        let mut policy = tpm.session(wire::POLICY);
        let read = tpm
            .policy_secret(self.pin, &policy, Auth::Password(k1))
            .and_then(|()| tpm.nv_read(self.sec, self.sec, 72, Auth::Policy(&mut policy)));
        tpm.flush(policy.handle);
        read
    }

    /// V, loaded.
    pub(crate) fn load_v(&self, tpm: &Wire) -> u32 {
        tpm.load(0x8100_0001, &[], &self.v_public, &self.v_private).unwrap()
    }

    pub(crate) fn v_name(&self) -> Vec<u8> {
        object_name(&self.v_public)
    }

    /// Undefines `NV_pin` and defines one of the same Name that takes the attacker's authValue.
    pub(crate) fn forge_pin_index(&self, tpm: &Wire, k1: &[u8]) {
        let before = tpm.nv_public(self.pin).unwrap();
        let policies = Policies::new(&self.v_name());
        tpm.undefine(self.pin).unwrap();
        tpm.define(self.pin, before.attributes & !WRITTEN, &before.policy, 8, k1);
        let mut policy = tpm.session(wire::POLICY);
        tpm.command_code(&policy, cc::NV_WRITE);
        tpm.not_written(&policy);
        tpm.or(&policy, &policies.branches()).unwrap();
        let limit = [0, 0, 0, 0, 0, 0, 0, 8];
        tpm.nv_write(self.pin, self.pin, &limit, Auth::Policy(&mut policy)).unwrap();
        tpm.flush(policy.handle);
        assert_eq!(tpm.nv_public(self.pin).unwrap(), before, "an index of the same Name");
    }
}

/// `TPMA_NV_WRITTEN`.
pub(crate) const WRITTEN: u32 = 1 << 29;

/// The policies of the table, computed from the specification (Part 3 §23).
pub(crate) struct Policies {
    pub(crate) w: [u8; 32],
    pub(crate) c: [u8; 32],
    pub(crate) x: [u8; 32],
}

impl Policies {
    pub(crate) fn new(v_name: &[u8]) -> Self {
        let code = |code: u32| extend(&[0; 32], cc::POLICY_COMMAND_CODE, &code.to_be_bytes());
        let v = |policy: [u8; 32]| sha(&[&extend(&policy, cc::POLICY_SECRET, v_name)]);
        Self {
            w: extend(&code(cc::NV_WRITE), cc::POLICY_NV_WRITTEN, &[0]),
            c: v(code(cc::NV_CHANGE_AUTH)),
            x: v(code(cc::NV_WRITE)),
        }
    }

    pub(crate) fn branches(&self) -> [[u8; 32]; 3] {
        [self.w, self.c, self.x]
    }
}

fn extend(policy: &[u8], code: u32, data: &[u8]) -> [u8; 32] {
    sha(&[policy, &code.to_be_bytes(), data])
}

fn sha(parts: &[&[u8]]) -> [u8; 32] {
    Sha256::digest(parts.concat()).into()
}

pub(crate) fn object_name(public: &[u8]) -> Vec<u8> {
    [[0, 0x0b].as_slice(), &sha(&[public])].concat()
}

/// A wrapped key's `TPMT_PUBLIC` and private part.
pub(crate) fn bytes_of(blob: &KeyBlob) -> (Vec<u8>, Vec<u8>) {
    let value: Value = ciborium::from_reader(blob.0.as_slice()).unwrap();
    let [public, private] = value.into_array().unwrap().try_into().unwrap();
    (public.into_bytes().unwrap(), private.into_bytes().unwrap())
}

/// What `TPM2_Create` answered.
pub(crate) struct Created {
    pub(crate) public: Vec<u8>,
    pub(crate) private: Vec<u8>,
}

pub(crate) fn created(exchange: &swtpm_tests::proxy::Exchange) -> Created {
    assert_eq!((exchange.code(), exchange.response_code()), (cc::CREATE, 0));
    let mut rest = &exchange.response[14..];
    Created { private: wire::take(&mut rest), public: wire::take(&mut rest) }
}
