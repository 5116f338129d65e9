//! How a person is asked.

mod pinentry;
mod texts;

use ctap::{Ask, Declined};
use vault_core::{TriesLeft, container::Account, pin::Pin, webauthn::UserPresent};

use crate::{
    args::{Args, How},
    failure::{Failure, Result},
    vaults::DirVault,
    worker::Signal,
};

/// A way to ask.
pub(crate) enum Prompt {
    /// Nobody is asked, and everything is approved.
    Auto(Option<auto::AutoPin>),
    /// A pinentry program.
    Pinentry,
}

impl Prompt {
    pub(crate) fn new(args: &Args, vaults: &DirVault) -> Result<Self> {
        match args.prompt {
            How::Pinentry => Ok(Self::Pinentry),
            How::Auto if !vaults.is_software() => Err(Failure::AutoWithRealTpm),
            How::Auto => Ok(Self::Auto(args.pin_fd.map(auto::AutoPin::read).transpose()?)),
        }
    }

    pub(crate) fn confirm(&self, ask: &Ask<'_>, cancelled: &Signal) -> Result<UserPresent, Declined> {
        match self {
            Self::Auto(_) => Ok(UserPresent::confirmed()),
            Self::Pinentry => pinentry::confirm(&texts::question(ask), cancelled),
        }
    }

    pub(crate) fn choose(
        &self,
        accounts: &[&Account],
        cancelled: &Signal,
    ) -> Result<(usize, UserPresent), Declined> {
        match self {
            Self::Auto(_) => Ok((0, UserPresent::confirmed())),
            Self::Pinentry => pinentry::choose(accounts, cancelled),
        }
    }

    pub(crate) fn pin(
        &self,
        ask: &Ask<'_>,
        tries: Option<TriesLeft>,
        cancelled: &Signal,
    ) -> Result<(Pin, UserPresent), Declined> {
        match self {
            Self::Auto(pin) => {
                let pin = pin.as_ref().and_then(auto::AutoPin::pin).ok_or(Declined::No)?;
                Ok((pin, UserPresent::confirmed()))
            }
            Self::Pinentry => pinentry::pin(&texts::question(ask), tries, cancelled),
        }
    }
}

mod auto {
    use std::{
        fs::File,
        io::{self, ErrorKind, Read},
    };

    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    use vault_core::pin::Pin;
    use zeroize::Zeroizing;

    use crate::failure::{Failure, Result};

    /// The PIN that tests give.
    pub(crate) struct AutoPin(Zeroizing<String>);

    impl AutoPin {
        pub(super) fn read(fd: i32) -> Result<Self> {
            let mut line = Zeroizing::new(String::with_capacity(256));
            descriptor(fd).and_then(|mut file| file.read_to_string(&mut line)).map_err(Failure::PinFd)?;
            let line = line.strip_suffix('\n').filter(|pin| !pin.contains('\n'));
            let line = line.ok_or_else(|| Failure::PinFd(ErrorKind::InvalidData.into()))?;
            Ok(Self(Zeroizing::new(line.to_owned())))
        }

        pub(super) fn pin(&self) -> Option<Pin> {
            Pin::new(&self.0)
        }
    }

    /// A copy of a descriptor of our own.
    fn descriptor(fd: i32) -> io::Result<File> {
        let this = pidfd_open(getpid(), PidfdFlags::empty())?;
        Ok(pidfd_getfd(&this, fd, PidfdGetfdFlags::empty())?.into())
    }
}
