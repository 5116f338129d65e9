//! Policy digests and Names, computed as the TPM computes them (TPM 2.0 Part 1 §16 and §19.7), so that no
//! operation needs a trial session and every object is known before it is met.

use sha2::{Digest as _, Sha256};
use tss_esapi::{
    structures::{DigestList, Public},
    traits::Marshall,
};

use crate::{
    error::{During, Result},
    templates,
};

/// nameAlg (SHA-256) || digest, 34 bytes.
pub(crate) type Name = Vec<u8>;
pub(crate) type PolicyDigest = [u8; 32];

const SHA256: [u8; 2] = [0x00, 0x0b];

/// Command codes (Part 2 §6.5.2) that policies name.
pub(crate) mod cc {
    pub(crate) const NV_WRITE: u32 = 0x137;
    pub(crate) const NV_CHANGE_AUTH: u32 = 0x13b;
    pub(super) const POLICY_SECRET: u32 = 0x151;
    pub(super) const POLICY_COMMAND_CODE: u32 = 0x16c;
    pub(super) const POLICY_OR: u32 = 0x171;
    pub(super) const POLICY_NV_WRITTEN: u32 = 0x18f;
}

/// `TPMA_NV_WRITTEN` (Part 2 §13.4), which the TPM sets at the first write; it is part of the Name.
const WRITTEN: u32 = 1 << 29;

/// The policies of one vault.
pub(crate) struct Policies {
    /// W, C and X of the PIN index, in the order in which `PolicyOR` takes them.
    pub(crate) pin_branches: [PolicyDigest; 3],
    /// The PIN index's own: W or C or X.
    pub(crate) pin: PolicyDigest,
    /// `PolicySecret(NV_pin)`: what the PIN opens.
    pub(crate) needs_pin: PolicyDigest,
    /// `CommandCode(NV_Write) . NvWritten(no)`: written once.
    pub(crate) write_once: PolicyDigest,
}

impl Policies {
    pub(crate) fn new(v: &Name, pin_index: u32) -> Self {
        let write_once = extend(command_code(START, cc::NV_WRITE), cc::POLICY_NV_WRITTEN, &[&[0]]);
        let change = secret(command_code(START, cc::NV_CHANGE_AUTH), v);
        let reset = secret(command_code(START, cc::NV_WRITE), v);
        let pin_branches = [write_once, change, reset];
        let pin = extend(START, cc::POLICY_OR, &pin_branches.each_ref().map(<[u8; 32]>::as_slice));
        let needs_pin = secret(START, &templates::nv_pin(pin_index, pin).written());
        Self { pin_branches, pin, needs_pin, write_once }
    }

    /// The PIN index's branches, as tss-esapi wants them for `PolicyOR`.
    pub(crate) fn pin_branch_list(&self) -> Result<DigestList> {
        let step = "satisfying a policy";
        let mut list = DigestList::new();
        for digest in &self.pin_branches {
            list.add(digest.to_vec().try_into().during(step)?).during(step)?;
        }
        Ok(list)
    }
}

const START: PolicyDigest = [0; 32];

fn command_code(policy: PolicyDigest, code: u32) -> PolicyDigest {
    extend(policy, cc::POLICY_COMMAND_CODE, &[&code.to_be_bytes()])
}

/// `PolicyUpdate` with an empty policyRef (Part 3 §23.2.3): two extensions.
fn secret(policy: PolicyDigest, entity: &Name) -> PolicyDigest {
    Sha256::digest(extend(policy, cc::POLICY_SECRET, &[entity])).into()
}

fn extend(policy: PolicyDigest, code: u32, parts: &[&[u8]]) -> PolicyDigest {
    let mut hash = Sha256::new().chain_update(policy).chain_update(code.to_be_bytes());
    for part in parts {
        hash.update(part);
    }
    hash.finalize().into()
}

/// The public area of an NV index (`TPMS_NV_PUBLIC`, Part 2 §13.5).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NvIndex {
    pub(crate) index: u32,
    pub(crate) attributes: u32,
    pub(crate) policy: PolicyDigest,
    pub(crate) size: u16,
}

impl NvIndex {
    /// Its Name once it was written.
    pub(crate) fn written(&self) -> Name {
        self.name(self.attributes | WRITTEN)
    }

    /// Its Name between its definition and its first write.
    pub(crate) fn unwritten(&self) -> Name {
        self.name(self.attributes)
    }

    fn name(&self, attributes: u32) -> Name {
        let digest = Sha256::new()
            .chain_update(self.index.to_be_bytes())
            .chain_update(SHA256)
            .chain_update(attributes.to_be_bytes())
            .chain_update(32_u16.to_be_bytes())
            .chain_update(self.policy)
            .chain_update(self.size.to_be_bytes())
            .finalize();
        [SHA256.as_slice(), &digest].concat()
    }
}

/// The Name of an object.
pub(crate) fn object_name(public: &Public) -> Result<Name> {
    let digest = Sha256::digest(public.marshall().during("encoding a public area")?);
    Ok([SHA256.as_slice(), &digest].concat())
}
