use std::error::Error;

use vault_core::{
    CeremonyError, OpenError, UnlockError, VaultError, container::ContainerError, keystore::KeyStoreError,
};

use crate::{Declined, Status};

/// Why a command is not answered with success: the status code, and what it does not tell.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) status: Status,
    pub(crate) cause: Option<Box<dyn Error>>,
}

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        Self { status, cause: None }
    }
}

impl From<Declined> for Failure {
    fn from(declined: Declined) -> Self {
        Self::from(match declined {
            Declined::No => Status::OperationDenied,
            Declined::TimedOut => Status::UserActionTimeout,
            Declined::Cancelled => Status::KeepaliveCancel,
        })
    }
}

impl From<KeyStoreError> for Failure {
    fn from(error: KeyStoreError) -> Self {
        let status = match &error {
            // Only a token proves the PIN where this is met: the PIN was changed since it was given out.
            KeyStoreError::WrongPin => Status::PinAuthInvalid,
            KeyStoreError::PinLocked => Status::PinBlocked,
            _ => Status::Other,
        };
        Self { status, cause: Some(error.into()) }
    }
}

impl From<ContainerError> for Failure {
    fn from(error: ContainerError) -> Self {
        Self { status: Status::Other, cause: Some(error.into()) }
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        Self { status: Status::Other, cause: Some(error.into()) }
    }
}

impl From<UnlockError> for Failure {
    fn from(error: UnlockError) -> Self {
        match error {
            UnlockError::WrongPin => KeyStoreError::WrongPin.into(),
            UnlockError::KeyStore(e) => e.into(),
            e => Self { status: Status::Other, cause: Some(e.into()) },
        }
    }
}

impl From<CeremonyError> for Failure {
    fn from(error: CeremonyError) -> Self {
        match error {
            CeremonyError::KeyStore(e) => e.into(),
            CeremonyError::ByRule(_) => Status::OperationDenied.into(),
            CeremonyError::PinChangeDue | CeremonyError::PinUsedBefore => Status::PinPolicyViolation.into(),
            e => Self { status: Status::Other, cause: Some(e.into()) },
        }
    }
}

impl From<VaultError> for Failure {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::KeyStore(e) => e.into(),
            VaultError::Container(e) => e.into(),
            e => Self { status: Status::Other, cause: Some(e.into()) },
        }
    }
}
