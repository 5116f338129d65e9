use ciborium::Value;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{CredentialId, RpId};
use crate::keystore::{PublicKey, TpmKind};

/// Proof that the TPM accepted the PIN for this operation. Minted when a vault is unlocked.
#[derive(Debug)]
pub struct UserVerified(());

impl UserVerified {
    pub(crate) fn by_the_tpm() -> Self {
        Self(())
    }
}

/// Proof that a person confirmed this very request. Spent with it.
#[derive(Debug)]
pub struct UserPresent(());

impl UserPresent {
    /// The caller vouches that it showed a person the relying party, the account and the origin, and
    /// that the person went on. A program that takes the PIN from another program vouches for that one's person.
    #[must_use]
    pub fn confirmed() -> Self {
        Self(())
    }
}

/// The AAGUID of a vault (WebAuthn Level 3 §6.5.1): one per kind of TPM, so that a test key never passes
/// for one in hardware. Random version 4 UUIDs, fixed for ever.
#[must_use]
pub fn aaguid(kind: TpmKind) -> [u8; 16] {
    let uuid: u128 = match kind {
        TpmKind::Discrete => 0x6e29_b323_3135_4242_9dfd_eba4_4a29_091f,
        TpmKind::Firmware => 0xe433_c386_e99f_4151_9193_8314_5e3e_1e52,
        TpmKind::Software => 0x629a_1789_0354_4613_a1bc_14b8_25aa_2162,
    };
    uuid.to_be_bytes()
}

/// Authenticator data (§6.1), encoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthenticatorData(Vec<u8>);

/// When a passkey may be used or found without user verification (CTAP 2.2 §12.1, credProtect). Every key of this vault needs
/// the PIN in the TPM, so this is what relying parties asked for, and is told them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protection {
    /// `userVerificationOptional`.
    Optional,
    /// `userVerificationOptionalWithCredentialIDList`.
    OptionalWithList,
    /// `userVerificationRequired`.
    Required,
}

impl Protection {
    /// The level that stands for it; `None` if none does.
    #[must_use]
    pub fn from_level(level: u64) -> Option<Self> {
        match level {
            1 => Some(Self::Optional),
            2 => Some(Self::OptionalWithList),
            3 => Some(Self::Required),
            _ => None,
        }
    }

    /// Its level.
    #[must_use]
    pub fn level(self) -> u64 {
        match self {
            Self::Optional => 1,
            Self::OptionalWithList => 2,
            Self::Required => 3,
        }
    }
}

/// SHA-256 of the client data (§5.8.1). CTAP hands an authenticator nothing else of it.
pub type ClientDataHash = [u8; 32];

/// §6.1: user present, user verified, attested credential data and extension data included. Backup eligibility and
/// state stay 0: a key of this TPM has no other place to be.
const UP: u8 = 1 << 0;
const UV: u8 = 1 << 2;
const AT: u8 = 1 << 6;
const ED: u8 = 1 << 7;

/// A signature counter of 0 says there is none (§6.1.1); a TPM key cannot be cloned.
const SIGN_COUNT: [u8; 4] = [0; 4];

impl AuthenticatorData {
    #[expect(clippy::needless_pass_by_value, reason = "a proof is spent")]
    pub(crate) fn for_assertion(
        rp_id: &RpId,
        extensions: &Value,
        verified: Option<UserVerified>,
        present: Option<UserPresent>,
    ) -> Self {
        let flag = |is: bool, flag| if is { flag } else { 0 };
        let flags = flag(verified.is_some(), UV) | flag(present.is_some(), UP);
        let mut data = header(rp_id, extensions, flags);
        extend(&mut data, extensions);
        Self(data)
    }

    #[expect(clippy::needless_pass_by_value, reason = "a proof is spent")]
    pub(crate) fn for_registration(
        rp_id: &RpId,
        kind: TpmKind,
        id: &CredentialId,
        key: &PublicKey,
        extensions: &Value,
        verified: Option<UserVerified>,
        _: UserPresent,
    ) -> Self {
        let mut data = header(rp_id, extensions, UP | AT | if verified.is_some() { UV } else { 0 });
        data.extend(aaguid(kind));
        data.extend(u16::try_from(id.as_bytes().len()).unwrap_or_default().to_be_bytes());
        data.extend(id.as_bytes());
        encode(&super::cose_key(key), &mut data);
        extend(&mut data, extensions);
        Self(data)
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// What an assertion and a packed statement sign: SHA-256(authenticator data || client data hash).
    pub(crate) fn digest_to_sign(&self, client_data: &ClientDataHash) -> [u8; 32] {
        Sha256::new().chain_update(&self.0).chain_update(client_data).finalize().into()
    }
}

#[expect(clippy::expect_used, reason = "encoding to memory what was just built")]
fn encode(value: &Value, into: &mut Vec<u8>) {
    ciborium::into_writer(value, into).expect("a Vec takes all writes");
}

fn extend(data: &mut Vec<u8>, extensions: &Value) {
    if *extensions != Value::Null {
        encode(extensions, data);
    }
}

fn header(rp_id: &RpId, extensions: &Value, flags: u8) -> Vec<u8> {
    let mut data = rp_id.hash().to_vec();
    data.push(flags | if *extensions == Value::Null { 0 } else { ED });
    data.extend(SIGN_COUNT);
    data
}
