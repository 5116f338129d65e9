//! The public areas of a vault's objects: the table "Objects in the TPM" of docs/architecture.md.

use tss_esapi::{
    attributes::{NvIndexAttributes, ObjectAttributes},
    handles::NvIndexTpmHandle,
    interface_types::{
        algorithm::{HashingAlgorithm, PublicAlgorithm},
        ecc::EccCurve,
    },
    structures::{
        Digest, EccPoint, EccScheme, KeyDerivationFunctionScheme, KeyedHashScheme, NvPublic, NvPublicBuilder,
        Public, PublicBuilder, PublicEccParameters, PublicKeyedHashParameters, SymmetricDefinitionObject,
    },
};

use crate::{
    error::{During, Result},
    policy::{NvIndex, PolicyDigest},
};

/// `TPMA_OBJECT` of a storage root key by the TCG's template: fixedTPM, fixedParent, sensitiveDataOrigin,
/// userWithAuth, noDA, restricted, decrypt.
pub(crate) const SRK_ATTRIBUTES: u32 = 0x0003_0472;
/// The same without noDA: guesses at V's secret count against the TPM's lockout.
const V_ATTRIBUTES: u32 = 0x0003_0072;
/// fixedTPM, fixedParent, sensitiveDataOrigin, noDA, sign. Without userWithAuth only its policy opens it.
pub(crate) const ACCOUNT_KEY_ATTRIBUTES: u32 = 0x0004_0432;
/// The same with userWithAuth, and an empty authValue: whoever can load it can use it.
const PRESENCE_KEY_ATTRIBUTES: u32 = 0x0004_0472;

/// `TPMA_NV` (Part 2 §13.4).
mod nv {
    pub(super) const POLICY_WRITE: u32 = 1 << 3;
    pub(super) const PIN_FAIL: u32 = 8 << 4;
    pub(super) const OWNER_READ: u32 = 1 << 17;
    pub(super) const AUTH_READ: u32 = 1 << 18;
    pub(super) const POLICY_READ: u32 = 1 << 19;
    pub(super) const NO_DA: u32 = 1 << 25;
}

/// `NV_sec` holds two masked copies of S and the generation.
pub(crate) const MASKED: usize = 32;
pub(crate) const GENERATION_AT: u16 = 64;
pub(crate) const SEC_SIZE: u16 = GENERATION_AT + 8;
/// `NV_rec` holds S, masked by the recovery code, and what tells that code from others.
pub(crate) const REC_SIZE: u16 = 64;

/// Readable by the owner, in a password session: a branch that lets someone read it without the PIN in an
/// encrypted session would be an offline oracle for the PIN.
pub(crate) fn nv_pin(index: u32, policy: PolicyDigest) -> NvIndex {
    NvIndex {
        index,
        attributes: nv::POLICY_WRITE | nv::PIN_FAIL | nv::OWNER_READ | nv::NO_DA,
        policy,
        size: 8,
    }
}

pub(crate) fn nv_sec(index: u32, policy: PolicyDigest) -> NvIndex {
    NvIndex { index, attributes: nv::POLICY_WRITE | nv::POLICY_READ | nv::NO_DA, policy, size: SEC_SIZE }
}

/// Readable by anyone: it says nothing without the recovery code.
pub(crate) fn nv_rec(index: u32, policy: PolicyDigest) -> NvIndex {
    NvIndex { index, attributes: nv::POLICY_WRITE | nv::AUTH_READ | nv::NO_DA, policy, size: REC_SIZE }
}

pub(crate) fn nv_key(index: u32, policy: PolicyDigest) -> NvIndex {
    NvIndex { index, attributes: nv::POLICY_WRITE | nv::AUTH_READ | nv::NO_DA, policy, size: 32 }
}

pub(crate) fn srk() -> Result<Public> {
    ecc(SRK_ATTRIBUTES, Digest::default(), SymmetricDefinitionObject::AES_128_CFB)
}

pub(crate) fn vault_key() -> Result<Public> {
    ecc(V_ATTRIBUTES, Digest::default(), SymmetricDefinitionObject::AES_128_CFB)
}

/// As V, and noDA: nobody guesses at 32 random bytes, and losing power must not count against the TPM's lockout.
pub(crate) fn presence_parent() -> Result<Public> {
    ecc(SRK_ATTRIBUTES, Digest::default(), SymmetricDefinitionObject::AES_128_CFB)
}

/// What opens a key.
#[derive(Clone, Copy)]
pub(crate) enum Opens {
    /// The PIN, by this policy.
    Pin(PolicyDigest),
    /// Being there.
    Presence,
}

impl Opens {
    fn attributes(self) -> u32 {
        match self {
            Self::Pin(_) => ACCOUNT_KEY_ATTRIBUTES,
            Self::Presence => PRESENCE_KEY_ATTRIBUTES,
        }
    }

    fn policy(self) -> Result<Digest> {
        match self {
            Self::Pin(policy) => Digest::try_from(policy.to_vec()).during("building a key template"),
            Self::Presence => Ok(Digest::default()),
        }
    }
}

/// Scheme and symmetric NULL, so that a WebAuthn "tpm" statement can carry it (Level 3 §8.3).
pub(crate) fn account_key(opens: Opens) -> Result<Public> {
    ecc(opens.attributes(), opens.policy()?, SymmetricDefinitionObject::Null)
}

/// Makes no signatures of data, only MACs; the TPM makes the key itself.
pub(crate) fn prf_key(opens: Opens) -> Result<Public> {
    let step = "building a key template";
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::KeyedHash)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(ObjectAttributes::from(opens.attributes()))
        .with_auth_policy(opens.policy()?)
        .with_keyed_hash_parameters(PublicKeyedHashParameters::new(KeyedHashScheme::HMAC_SHA_256))
        .with_keyed_hash_unique_identifier(Digest::default())
        .build()
        .during(step)
}

fn ecc(attributes: u32, policy: Digest, symmetric: SymmetricDefinitionObject) -> Result<Public> {
    // Not the builder, which refuses a signing key without a scheme.
    let parameters = PublicEccParameters::new(
        symmetric,
        EccScheme::Null,
        EccCurve::NistP256,
        KeyDerivationFunctionScheme::Null,
    );
    PublicBuilder::new()
        .with_public_algorithm(PublicAlgorithm::Ecc)
        .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
        .with_object_attributes(ObjectAttributes::from(attributes))
        .with_auth_policy(policy)
        .with_ecc_parameters(parameters)
        .with_ecc_unique_identifier(EccPoint::default())
        .build()
        .during("building a key template")
}

impl NvIndex {
    /// As tss-esapi wants it for `NV_DefineSpace`.
    pub(crate) fn to_public(&self) -> Result<NvPublic> {
        let build = || {
            NvPublicBuilder::new()
                .with_nv_index(NvIndexTpmHandle::new(self.index)?)
                .with_index_name_algorithm(HashingAlgorithm::Sha256)
                .with_index_attributes(NvIndexAttributes::try_from(self.attributes)?)
                .with_index_auth_policy(Digest::try_from(self.policy.to_vec())?)
                .with_data_area_size(self.size.into())
                .build()
        };
        build().during("building an index template")
    }
}
