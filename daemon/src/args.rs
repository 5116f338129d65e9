#![allow(clippy::doc_markdown, reason = "these comments are the help texts")]

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
    str::FromStr,
};

use clap::{Parser, ValueEnum};
use rustix::process::Uid;

/// Shows a Passhold vault to browsers, libfido2 and OpenSSH as a FIDO2 device
#[derive(Debug, Parser)]
#[command(name = "passholdd", version)]
pub(crate) struct Args {
    /// Serve this user alone, whom it asks itself
    #[arg(long, required_unless_present_any = ["vault", "system"])]
    pub(crate) user: bool,

    /// The user's vault's folder [default: passhold's own]
    #[arg(long, value_name = "DIR")]
    pub(crate) vault: Option<PathBuf>,

    /// Serve every user of this machine: a vault and a device for each, and --socket for all
    #[arg(long, conflicts_with_all = ["user", "vault", "prompt", "pin_fd"])]
    pub(crate) system: bool,

    /// Where --system keeps the vaults, a folder for each user
    #[arg(long, value_name = "DIR", default_value = "/var/lib/passhold", requires = "system")]
    pub(crate) state: PathBuf,

    /// A Unix socket for `passhold`, and for `passholdd prompt` [with --system: /run/passhold/socket]
    #[arg(long, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,

    /// The TPM: a device, swtpm (a private software TPM, for development), or a TCTI string
    #[arg(long, value_name = "TPM", default_value = "device:/dev/tpmrm0")]
    pub(crate) tpm: String,

    /// Where the device appears: uhid (the kernel), or seqpacket:PATH (a Unix socket, one report a message)
    #[arg(long, value_name = "HID", default_value = "uhid")]
    pub(crate) hid: Hid,

    /// How the person is asked: pinentry, tty (pinentry-curses on this terminal), or auto (nobody is; for tests, with a
    /// software TPM only)
    #[arg(long, value_name = "HOW", default_value = "pinentry")]
    pub(crate) prompt: How,

    /// Read the PIN that `--prompt auto` answers with from this file descriptor, one line
    #[arg(long, value_name = "N")]
    pub(crate) pin_fd: Option<i32>,

    /// The shortest PIN that is accepted, in characters
    #[arg(long, value_name = "N", default_value_t = 6)]
    pub(crate) min_pin_length: usize,

    /// How many of the last PINs a new one must differ from, up to 10
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) pin_history: usize,

    /// After how many days a PIN must be changed
    #[arg(long, value_name = "DAYS")]
    pub(crate) pin_max_age_days: Option<NonZeroU32>,
}

#[derive(Clone, Debug)]
pub(crate) enum Hid {
    Uhid,
    Seqpacket(PathBuf),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum How {
    Pinentry,
    Tty,
    Auto,
}

impl Hid {
    /// The socket, where it is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            Self::Uhid => None,
            Self::Seqpacket(path) => Some(path),
        }
    }

    /// One user's, where there are several.
    pub(crate) fn of(&self, user: Uid) -> Self {
        match self {
            Self::Uhid => Self::Uhid,
            Self::Seqpacket(path) => {
                let mut path = path.clone().into_os_string();
                path.push(format!(".{}", user.as_raw()));
                Self::Seqpacket(path.into())
            }
        }
    }
}

impl FromStr for Hid {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once(':') {
            None if text == "uhid" => Ok(Self::Uhid),
            Some(("seqpacket", path)) if !path.is_empty() => Ok(Self::Seqpacket(path.into())),
            _ => Err("neither uhid nor seqpacket:PATH"),
        }
    }
}
