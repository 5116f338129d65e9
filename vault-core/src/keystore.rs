//! The door to the hardware: what a vault asks of the thing that holds its keys.

use std::{error::Error as StdError, time::Duration};

use crate::{RecoverySecrets, Secret, pin::PinSecrets};

/// What the key store needs to find a vault's objects again. Opaque and not secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Anchor(pub Vec<u8>);

/// A private key, wrapped by the key store, with its public half. Opaque and not secret.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct KeyBlob(#[serde(with = "serde_bytes")] pub Vec<u8>);

/// The key under which the container is sealed. Bound to the TPM, not to the PIN.
pub type ContainerKey = Secret;

/// An ECDSA P-256 signature over a SHA-256 digest.
pub type Signature = p256::ecdsa::Signature;

/// An ECDSA P-256 public key.
pub type PublicKey = p256::ecdsa::VerifyingKey;

/// The parent of presence keys: keys that this machine uses without a PIN. Whoever has this and can use the TPM can use
/// them; it lies in the sealed container.
#[derive(Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct PresenceParent {
    /// The wrapped key. Opaque and not secret.
    pub blob: KeyBlob,
    /// Its authValue.
    pub auth: zeroize::Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for PresenceParent {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PresenceParent([REDACTED])")
    }
}

/// What kind of TPM holds the keys. It decides the AAGUID, so that a test key never
/// passes for one in hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TpmKind {
    /// A chip of its own.
    Discrete,
    /// Part of the processor or its firmware.
    Firmware,
    /// A program. Nothing protects its keys.
    Software,
}

/// A freshly provisioned vault.
#[derive(Debug)]
pub struct Provisioned {
    /// How to find it again.
    pub anchor: Anchor,
    /// Where it lives.
    pub kind: TpmKind,
}

/// A freshly made account key.
#[derive(Debug)]
pub struct CreatedKey {
    /// The wrapped key.
    pub blob: KeyBlob,
    /// Its public half.
    pub public: PublicKey,
}

/// What the TPM says of a vault without its PIN.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TpmStatus {
    /// What kind of TPM this is.
    pub kind: TpmKind,
    /// Whether it is known to be a program, by its maker. Of one that nobody knows neither this nor the contrary is known.
    pub simulated: bool,
    /// Its maker and model, as it names itself.
    pub model: String,
    /// Wrong PINs counted and allowed; `None` where the TPM wants ownerAuth to tell.
    pub wrong_pins: Option<WrongPins>,
    /// The TPM's own dictionary-attack protection.
    pub lockout: Lockout,
}

/// The TPM's count of wrong PINs for one vault (TPM 2.0 Part 2 §13.3, `TPMS_NV_PIN_COUNTER_PARAMETERS`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WrongPins {
    /// Wrong PINs since the last right one.
    pub count: u32,
    /// At this many the TPM refuses every PIN.
    pub limit: u32,
}

impl WrongPins {
    /// How many wrong PINs the TPM still allows.
    #[must_use]
    pub fn left(self) -> u32 {
        self.limit.saturating_sub(self.count)
    }
}

/// The TPM's dictionary-attack protection (TPM 2.0 Part 1 §19.8), shared by all its users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lockout {
    /// Failures counted.
    pub counter: u32,
    /// At this many the TPM is in lockout.
    pub limit: u32,
    /// After this long without a failure one is forgotten.
    pub recovery: Duration,
}

/// Whether more commands follow in this operation. The last one also ends the TPM session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Then {
    /// More follow.
    Continue,
    /// This was the last.
    End,
}

/// On whose word a vault is erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mandate {
    /// The anchor is authentic, or the person asked.
    Given,
    /// Nobody's: all that may be cleared away is what a cut set-up or wipe leaves without a container key. Where there is
    /// more, that is [`KeyStoreError::Replaced`].
    Missing,
}

/// What an erasure found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Erased {
    /// The PIN-gated secret, which is destroyed.
    Secret,
    /// No such secret.
    Nothing,
}

/// Told the anchor before the first of a vault's indices is made in the TPM.
pub type RecordAnchor<'a> = dyn FnMut(&Anchor) -> Result<(), Box<dyn StdError + Send + Sync>> + 'a;

/// A device that can hold vaults.
pub trait KeyStore {
    /// Makes a vault's objects. `record` is called with the anchor before the first of them
    /// lasts, so that a crash can be undone with [`KeyStore::erase`].
    fn provision(
        &mut self,
        pin: &PinSecrets,
        key: &ContainerKey,
        record: &mut RecordAnchor<'_>,
    ) -> Result<Provisioned, KeyStoreError>;

    /// Reads the container key; needs no PIN.
    fn container_key(&mut self, anchor: &Anchor) -> Result<ContainerKey, KeyStoreError>;

    /// Proves the PIN to the device, once.
    fn unlock<'a>(
        &'a mut self,
        anchor: &Anchor,
        pin: &PinSecrets,
    ) -> Result<Box<dyn UnlockedKeys + 'a>, KeyStoreError>;

    /// Whether this is the recovery code in force: [`KeyStoreError::WrongCode`] if not.
    fn check_recovery(&mut self, anchor: &Anchor, code: &RecoverySecrets) -> Result<(), KeyStoreError>;

    /// Sets a new PIN, and the count of wrong ones back, by the recovery code. Cut short anywhere, the same code does it again.
    fn reset_pin<'a>(
        &'a mut self,
        anchor: &Anchor,
        code: &RecoverySecrets,
        new: &PinSecrets,
    ) -> Result<Box<dyn UnlockedKeys + 'a>, KeyStoreError>;

    /// Signs with a presence key, without a PIN. The caller verifies the signature before it lets it out.
    fn sign_present(
        &mut self,
        anchor: &Anchor,
        parent: &PresenceParent,
        key: &KeyBlob,
        digest: &[u8; 32],
    ) -> Result<Signature, KeyStoreError>;

    /// The same with an HMAC key that is one.
    fn prf_present(
        &mut self,
        anchor: &Anchor,
        parent: &PresenceParent,
        key: &KeyBlob,
        salts: &[Secret],
    ) -> Result<Vec<Secret>, KeyStoreError>;

    /// What the device says without a PIN; `None` asks of the device alone.
    fn status(&mut self, anchor: Option<&Anchor>) -> Result<TpmStatus, KeyStoreError>;

    /// Gives back what is held between two operations. A vault calls it before it lets the next process in.
    fn release(&mut self);

    /// Destroys a vault's objects, the PIN-gated secret first and the container key last. Those already gone are no error.
    /// An error about the owner authorization means that nothing was destroyed.
    fn erase(&mut self, anchor: &Anchor, mandate: Mandate) -> Result<Erased, KeyStoreError>;
}

/// A key store that has just accepted the PIN, for one operation.
pub trait UnlockedKeys {
    /// The container generation that the device remembers.
    fn generation(&self) -> u64;

    /// Makes a P-256 key that the device never gives out and uses only with the PIN; or with this parent, and then without.
    fn create_key(&mut self, presence: Option<&PresenceParent>) -> Result<CreatedKey, KeyStoreError>;

    /// Makes the parent of presence keys.
    fn create_presence_parent(&mut self) -> Result<PresenceParent, KeyStoreError>;

    /// [`KeyStore::sign_present`]
    fn sign_present(
        &mut self,
        parent: &PresenceParent,
        key: &KeyBlob,
        digest: &[u8; 32],
    ) -> Result<Signature, KeyStoreError>;

    /// Holds the secret that the PIN unmasked against the device's own protection, as making and using a key do
    /// anyway: for changes that do neither.
    fn confirm(&mut self) -> Result<(), KeyStoreError>;

    /// Signs a SHA-256 digest. The caller verifies the signature before it lets it out.
    fn sign(&mut self, key: &KeyBlob, digest: &[u8; 32], then: Then) -> Result<Signature, KeyStoreError>;

    /// Makes an HMAC-SHA256 key under the same protection.
    fn create_prf(&mut self, presence: Option<&PresenceParent>) -> Result<KeyBlob, KeyStoreError>;

    /// HMAC-SHA256 of each salt under such a key.
    fn prf(
        &mut self,
        presence: Option<&PresenceParent>,
        key: &KeyBlob,
        salts: &[Secret],
    ) -> Result<Vec<Secret>, KeyStoreError>;

    /// Makes the device remember `generation`.
    fn commit_generation(&mut self, generation: u64, then: Then) -> Result<(), KeyStoreError>;

    /// Puts another recovery code in force, in one step.
    fn renew_recovery(&mut self, code: &RecoverySecrets) -> Result<(), KeyStoreError>;

    /// Replaces the PIN. After a crash at any point either the old PIN works or the new one.
    fn change_pin(&mut self, new: &PinSecrets, then: Then) -> Result<(), KeyStoreError>;
}

/// What became of the keys, as far as the TPM shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeysGone {
    /// The TPM is the same, and its storage seed is another.
    Cleared,
    /// It is another TPM.
    OtherTpm,
    /// It cannot be told: its endorsement authorization is set.
    Unknown,
}

/// Why the device did not do it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KeyStoreError {
    /// The TPM refused the PIN and counted it.
    #[error("wrong PIN")]
    WrongPin,
    /// The TPM refuses every PIN: too many were wrong.
    #[error("the TPM refuses every PIN after too many wrong ones")]
    PinLocked,
    /// It is not the recovery code in force.
    #[error("this is not the vault's recovery code")]
    WrongCode,
    /// The TPM's own dictionary-attack protection is active; no vault key can be used.
    #[error("the TPM is in lockout")]
    Lockout {
        /// How long until it allows one more try, where it tells.
        heals_in: Option<Duration>,
    },
    /// There is no TPM where one was looked for.
    #[error("no TPM at {at}")]
    Missing {
        /// Where it was looked for.
        at: String,
    },
    /// The TPM is there, and this user may not use it.
    #[error("no permission to use {at}")]
    NotPermitted {
        /// The device.
        at: String,
    },
    /// Another process holds the device.
    #[error("{at} is held by another process")]
    Held {
        /// The device.
        at: String,
    },
    /// The TPM's memory is taken by what other programs left loaded.
    #[error("the TPM has no room left for {what}")]
    Exhausted {
        /// Objects or sessions.
        what: &'static str,
    },
    /// There is no room for another NV index.
    #[error("the TPM has no room left for NV indices")]
    NoNvSpace,
    /// The storage root key is not the one this vault was made under: a cleared or another TPM.
    #[error("this TPM does not hold the vault's keys: {}", match .0 {
        KeysGone::Cleared => "it was cleared",
        KeysGone::OtherTpm => "it is not the one that made them",
        KeysGone::Unknown => "it was cleared, or it is another one",
    })]
    KeysGone(KeysGone),
    /// The storage root key is right and the vault's indices are missing: wiped, or undefined by someone.
    #[error("the vault's secrets are no longer in the TPM")]
    Erased,
    /// The recovery index is missing: the code that the vault has opens nothing any more. The PIN does.
    #[error("what the recovery code opens is no longer in the TPM")]
    RecoveryGone,
    /// An object of the vault is not the one that set-up made.
    #[error("{what} in the TPM is not the one that set-up made")]
    Replaced {
        /// Which object.
        what: &'static str,
    },
    /// The storage root key's place is taken by a key that cannot be one.
    #[error("the key at 0x81000001 is not a storage root key: {why}")]
    ForeignSrk {
        /// What is wrong with it.
        why: &'static str,
    },
    /// The TPM has no `TPM_NT_PIN_FAIL` indices (specification before 1.38).
    #[error("this TPM cannot count PINs (no PIN FAIL index)")]
    TooOld,
    /// The TPM's owner authorization is set and was not given.
    #[error("the TPM's owner authorization is needed")]
    OwnerAuthNeeded,
    /// It was given and is wrong.
    #[error("wrong owner authorization")]
    OwnerAuthWrong,
    /// The anchor or a key blob is not one.
    #[error("{what} is malformed")]
    Malformed {
        /// What.
        what: &'static str,
    },
    /// `record` failed; none of the vault's indices was made.
    #[error("set-up could not be recorded")]
    NotRecorded(#[source] Box<dyn StdError + Send + Sync>),
    /// A PIN change was cut short after it had begun: the old PIN may be in force or the new one.
    #[error("the PIN change was cut short: the new PIN may be in force, or still the old one")]
    PinInDoubt(#[source] Box<KeyStoreError>),
    /// A signature came back that its key did not make.
    #[error("the TPM returned a signature that does not verify")]
    BadSignature,
    /// The TPM, or the way to it, failed in a way nothing here knows.
    #[error("the TPM failed during {during}")]
    Failed {
        /// The step.
        during: &'static str,
        /// What it answered.
        #[source]
        source: Box<dyn StdError + Send + Sync>,
    },
}
