use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    keystore::{KeyBlob, PublicKey},
    webauthn::{CredentialId, Protection, RpId, UserHandle},
};

/// A passkey's number in its vault; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AccountId(pub(crate) i64);

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for AccountId {
    type Err = std::num::ParseIntError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        s.parse().map(Self)
    }
}

/// A passkey, as it is sealed in its row.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// The relying party it signs in to.
    pub rp_id: RpId,
    /// The relying party's name for itself.
    pub rp_name: String,
    /// The relying party's identifier for the account.
    pub user_handle: UserHandle,
    /// Such as `alice@example.org`.
    pub user_name: String,
    /// Such as `Alice`.
    pub display_name: String,
    /// A name that the person gave it.
    pub label: Option<String>,
    /// The credential ID.
    pub credential_id: CredentialId,
    /// Whether it is offered where the relying party names no credential (WebAuthn Level 3 §4, discoverable credential).
    pub discoverable: bool,
    /// What the relying party asked of user verification.
    pub protection: Protection,
    /// The wrapped key.
    pub key: KeyBlob,
    /// Its public half: a compressed SEC1 point.
    #[serde(with = "serde_bytes")]
    pub public_key: Vec<u8>,
    /// When it was made, in seconds since 1970.
    pub created: u64,
    /// What else is kept with it.
    #[serde(default)]
    pub extras: Extras,
    /// What it takes to use it.
    #[serde(default)]
    pub takes: Takes,
    /// When it was moved to the bin, in seconds since 1970, if it is there.
    #[serde(default)]
    pub binned: Option<u64>,
}

/// When a passkey was last used. A hint, which is not authenticated to be the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LastUse {
    /// What is stored cannot be read.
    Unknown,
    /// Not since it was made.
    Never,
    /// In seconds since 1970.
    At(u64),
}

impl LastUse {
    /// When, in seconds since 1970, if it was used and that is known.
    #[must_use]
    pub fn at(self) -> Option<u64> {
        if let Self::At(at) = self { Some(at) } else { None }
    }
}

/// What it takes to use a passkey: fixed when it was made, by its key's policy in the TPM.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Takes {
    /// The PIN.
    #[default]
    Pin,
    /// Somebody who is there. It never says that a user was verified.
    Presence,
}

impl fmt::Display for Takes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Pin => "the PIN",
            Self::Presence => "presence",
        })
    }
}

/// What a relying party asked to have kept with its passkey (CTAP 2.2 §12).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Extras {
    /// hmac-secret: the wrapped HMAC key.
    pub prf: Option<KeyBlob>,
    /// credBlob: up to [`Extras::MAX_BLOB`] bytes.
    #[serde(with = "serde_bytes")]
    pub blob: Option<Vec<u8>>,
    /// largeBlobKey: what the platform encrypts its large blob with.
    pub large_blob_key: Option<LargeBlobKey>,
    /// thirdPartyPayment: whether it may be used in a payment at another site.
    pub third_party_payment: bool,
}

impl Extras {
    /// The longest credBlob.
    pub const MAX_BLOB: usize = 32;
}

/// A key that platforms get to encrypt with.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, zeroize::ZeroizeOnDrop)]
pub struct LargeBlobKey(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl fmt::Debug for LargeBlobKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LargeBlobKey([REDACTED])")
    }
}

impl Account {
    /// Its public key; `None` if the stored one is no point of P-256.
    #[must_use]
    pub fn public_key(&self) -> Option<PublicKey> {
        PublicKey::from_sec1_bytes(&self.public_key).ok()
    }

    /// The name to show: the person's own, else the relying party's for the account.
    #[must_use]
    pub fn name(&self) -> &str {
        self.label.as_deref().unwrap_or(&self.user_name)
    }
}
