//! How a person is asked.

mod line;
mod notification;
pub(crate) mod process;
mod screen;
mod texts;
mod wire;

use std::os::unix::net::UnixStream;

use ctap::{Ask, Declined};
use vault_core::{TriesLeft, container::Account, pin::Pin, webauthn::UserPresent};

use self::{
    line::Line,
    process::PromptProcess,
    wire::{Answer, Question},
};
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
    /// Another process asks: one of our own, or one that came to us.
    Line(Line, #[expect(dead_code, reason = "it ends with this")] Option<PromptProcess>),
}

impl Prompt {
    pub(crate) fn new(args: &Args, vaults: &DirVault) -> Result<Self> {
        match args.prompt {
            How::Pinentry | How::Tty => {
                let (line, process) = PromptProcess::start(args.prompt == How::Tty)?;
                Ok(Self::Line(line, Some(process)))
            }
            How::Auto if !vaults.is_simulated() => Err(Failure::AutoWithRealTpm),
            How::Auto => Ok(Self::Auto(args.pin_fd.map(auto::AutoPin::read).transpose()?)),
        }
    }

    /// Whoever is at the other end asks.
    pub(crate) fn at(line: UnixStream) -> Result<Self> {
        Ok(Self::Line(process::line_to(line)?, None))
    }

    /// Shows where this authenticator is (CTAP 2.2 §11.2.9.2.1, WINK).
    pub(crate) fn wink(&mut self, cancelled: &Signal) {
        if let Self::Line(line, _) = self {
            let note = Question::Note { text: "This is Passhold, on this machine.".to_owned() };
            // Whether it can be shown is not told to anybody.
            line.ask(note, cancelled, |_| Some(())).ok();
        }
    }

    pub(crate) fn confirm(&mut self, ask: &Ask<'_>, cancelled: &Signal) -> Result<UserPresent, Declined> {
        match self {
            Self::Auto(_) => Ok(UserPresent::confirmed()),
            Self::Line(line, _) => {
                let question = Question::Confirm { text: texts::question(ask) };
                line.ask(question, cancelled, |answer| match answer {
                    Answer::Confirmed => Some(UserPresent::confirmed()),
                    _ => None,
                })
            }
        }
    }

    pub(crate) fn choose(
        &mut self,
        accounts: &[&Account],
        cancelled: &Signal,
    ) -> Result<(usize, UserPresent), Declined> {
        match self {
            Self::Auto(_) => Ok((0, UserPresent::confirmed())),
            Self::Line(line, _) => {
                let texts = accounts.iter().map(|account| texts::sign_in(account)).collect();
                line.ask(Question::Choose { texts }, cancelled, |answer| match answer {
                    Answer::Chosen(at) if *at < accounts.len() => Some((*at, UserPresent::confirmed())),
                    _ => None,
                })
            }
        }
    }

    pub(crate) fn pin(
        &mut self,
        ask: &Ask<'_>,
        tries: Option<TriesLeft>,
        cancelled: &Signal,
    ) -> Result<(Pin, UserPresent), Declined> {
        match self {
            Self::Auto(pin) => {
                let pin = pin.as_ref().and_then(auto::AutoPin::pin).ok_or(Declined::No)?;
                Ok((pin, UserPresent::confirmed()))
            }
            Self::Line(line, _) => {
                let tries_left = tries.map(TriesLeft::count);
                let question = Question::Pin { text: texts::question(ask), tries_left };
                let typed = line.ask(question, cancelled, |answer| match answer {
                    Answer::Pin(typed) => Some(Pin::new(typed)),
                    _ => None,
                })?;
                Ok((typed.ok_or(Declined::No)?, UserPresent::confirmed()))
            }
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
