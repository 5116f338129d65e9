use super::Wiped;
use crate::{Rule, container::ContainerError, keystore::KeyStoreError};

/// Why a vault could not be made, changed or wiped.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VaultError {
    /// The container.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The TPM.
    #[error(transparent)]
    KeyStore(#[from] KeyStoreError),
}

impl VaultError {
    /// Whether another process uses the vault, so that waiting helps.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Container(ContainerError::Busy { .. }))
    }
}

/// Why a vault could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Set-up was interrupted; it can be run again.
    #[error("the vault's set-up was interrupted")]
    Unfinished,
    /// A wipe had been interrupted and has now been completed; there is no vault any more.
    #[error("an interrupted wipe has been completed; there is no vault any more{}", match .0 {
        Wiped::SecretAndFile => "",
        _ => ". This TPM holds no secret of it",
    })]
    Wiped(Wiped),
    /// A wipe was begun, and the TPM's owner authorization is needed to complete it.
    #[error("a wipe of this vault was begun and not completed")]
    WipePending(#[source] KeyStoreError),
    /// The container.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The TPM.
    #[error(transparent)]
    KeyStore(#[from] KeyStoreError),
}

/// Why a vault could not be unlocked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnlockError {
    /// The TPM refused the PIN and counted it.
    #[error("wrong PIN")]
    WrongPin,
    /// A PIN reset was cut short, and this PIN does not open the vault.
    #[error("a PIN reset was cut short")]
    ResetUnfinished,
    /// Container and device are not of one time: an old copy of the container was put in its place; or of what the device
    /// remembers, as with a virtual machine.
    #[error("{}", not_of_one_time(*file, *tpm))]
    RolledBack {
        /// The file's generation.
        file: u64,
        /// The TPM's.
        tpm: u64,
    },
    /// The container.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The TPM.
    #[error(transparent)]
    KeyStore(KeyStoreError),
}

fn not_of_one_time(file: u64, tpm: u64) -> String {
    let which = if file < tpm {
        "the vault's file is an old copy"
    } else {
        "the vault's file is newer than what the TPM remembers"
    };
    format!("{which}: it holds change {file}, and the TPM remembers change {tpm}")
}

impl From<KeyStoreError> for UnlockError {
    fn from(error: KeyStoreError) -> Self {
        match error {
            KeyStoreError::WrongPin => Self::WrongPin,
            other => Self::KeyStore(other),
        }
    }
}

/// Why a PIN could not be reset.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecoveryError {
    /// The vault was made without a recovery code, and got none since.
    #[error("this vault has no recovery code")]
    NoCode,
    /// It is no code of this vault, as far as is known.
    #[error("this is not the vault's recovery code")]
    WrongCode,
    /// It was one.
    #[error("this recovery code is spent: it was used or replaced")]
    SpentCode {
        /// When it ended, in seconds since 1970.
        at: u64,
    },
    /// The PIN is reset, and the vault cannot be used with it.
    #[error("the PIN is reset")]
    Reset(#[source] UnlockError),
    /// The reset was cut short.
    #[error("the PIN reset was cut short")]
    CutShort(#[source] KeyStoreError),
    /// The container.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The TPM, before anything was changed.
    #[error(transparent)]
    KeyStore(#[from] KeyStoreError),
}

/// Why a passkey could not be made or used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CeremonyError {
    /// The passkey is not for this relying party, or not among those it allows.
    #[error("this passkey does not answer this request")]
    NotAllowed,
    /// The relying party asks not to make another passkey where this one is.
    #[error("this vault already holds a passkey that the relying party excludes")]
    Excluded,
    /// A rule of the person's has it that this relying party gets none.
    #[error("the rule \"{0}\" refuses this passkey")]
    ByRule(Rule),
    /// The PIN must be changed first, to another one.
    #[error("the PIN must be changed to another one first")]
    PinChangeDue,
    /// The new PIN is one of the last ones.
    #[error("this PIN was used before")]
    PinUsedBefore,
    /// The container.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The TPM.
    #[error(transparent)]
    KeyStore(#[from] KeyStoreError),
}

impl From<VaultError> for OpenError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Container(e) => Self::Container(e),
            VaultError::KeyStore(e) => Self::KeyStore(e),
        }
    }
}
