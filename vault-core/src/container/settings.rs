use serde::{Deserialize, Serialize};

use crate::{
    Rules,
    keystore::{KeyBlob, PresenceParent},
    pin::{MAX_BYTES, PinPolicy},
    webauthn::RpId,
};

/// What a vault keeps besides its passkeys. It lies in the header, sealed, and changes with the generation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Settings {
    /// Whether every passkey made from now on takes the PIN (§6.11.3).
    pub always_uv: bool,
    /// The parent of those that do not, once there may be any.
    pub presence_parent: Option<PresenceParent>,
    /// The least length of a new PIN, in code points, where it was raised (CTAP 2.2 §6.11.4).
    pub min_pin_length: usize,
    /// The relying parties that may ask for it.
    pub min_pin_length_rp_ids: Vec<RpId>,
    /// Whether the PIN must be changed before anything is signed.
    pub pin_change_due: bool,
    /// The persistentPinUvAuthToken (§6.5.2.2), if one was given out.
    pub persistent_token: Option<PersistentToken>,
    /// The serialized large-blob array (§6.10.1).
    #[serde(with = "serde_bytes")]
    pub large_blobs: Vec<u8>,
    /// When the PIN was set, in seconds since 1970, where that is known.
    pub pin_set: Option<u64>,
    /// The last PINs, where the policy asked for that.
    pub pin_history: Option<PinHistory>,
    /// The recovery code in force, if there is one.
    pub recovery_code: Option<CodeMark>,
    /// The last ones before it, oldest first.
    pub spent_codes: Vec<CodeMark>,
    /// Which sites get no passkey, or only on a word.
    pub rules: Rules,
}

/// What tells whether a PIN was used before, to whoever has proven the one in force and to nobody else.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinHistory {
    /// An HMAC key that the device uses with the PIN alone.
    pub key: KeyBlob,
    /// HMACs of the last PINs' secrets under it, the newest last.
    pub tags: Vec<serde_bytes::ByteArray<32>>,
}

/// What is kept of a recovery code.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeMark {
    /// Its [`check`](crate::RecoverySecrets::check).
    #[serde(with = "serde_bytes")]
    pub check: [u8; 32],
    /// When it came into force, or ended, in seconds since 1970.
    pub at: u64,
}

/// A token that allows to list the passkeys until the PIN is changed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, zeroize::ZeroizeOnDrop)]
pub struct PersistentToken(#[serde(with = "serde_bytes")] pub [u8; 32]);

impl std::fmt::Debug for PersistentToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PersistentToken([REDACTED])")
    }
}

impl Settings {
    /// As many relying parties may be given.
    pub const MAX_RP_IDS: usize = 16;
    /// The longest large-blob array. The least that the specification allows is 1,024.
    pub const MAX_LARGE_BLOBS: usize = 4096;
    /// Whether the PIN must be changed before it is good for anything else, by what was demanded or by `policy`; `now` is in
    /// seconds since 1970.
    #[must_use]
    pub fn demand_pin_change(&self, policy: PinPolicy, now: u64) -> bool {
        self.pin_change_due || policy.is_expired(self.pin_set, now)
    }

    /// As many recovery codes are remembered when they have ended.
    pub const MAX_SPENT_CODES: usize = 16;
    /// The longest PIN that can be demanded.
    pub const MAX_MIN_PIN_LENGTH: usize = MAX_BYTES;
    /// An empty array and the first half of its SHA-256 (§6.10.1).
    pub const NO_LARGE_BLOBS: [u8; 17] = [
        0x80, 0x76, 0xbe, 0x8b, 0x52, 0x8d, 0x00, 0x75, 0xf7, 0xaa, 0xe9, 0x8d, 0x6f, 0xa5, 0x7a, 0x6d, 0x3c,
    ];
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            always_uv: true,
            presence_parent: None,
            min_pin_length: 0,
            min_pin_length_rp_ids: Vec::new(),
            pin_change_due: false,
            persistent_token: None,
            large_blobs: Self::NO_LARGE_BLOBS.to_vec(),
            pin_set: None,
            pin_history: None,
            recovery_code: None,
            spent_codes: Vec::new(),
            rules: Rules::default(),
        }
    }
}
