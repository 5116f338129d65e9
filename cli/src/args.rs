#![allow(clippy::doc_markdown, rustdoc::bare_urls, reason = "these comments are the help texts")]

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use vault_core::container::AccountId;

use crate::failure::EXIT_CODES;

/// Passkeys in this machine's TPM
///
/// Each account gets a P-256 key that the TPM makes and never gives out. Using it takes a PIN that the TPM
/// itself checks and counts.
#[derive(Debug, Parser)]
#[command(name = "passhold", version, after_long_help = EXIT_CODES, disable_help_subcommand = true)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Global {
    /// The vault's folder [default: $XDG_DATA_HOME/passhold]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) vault: Option<PathBuf>,

    /// The TPM: device:/dev/tpmrm0 (the default), swtpm (a private software TPM), or a TCTI string
    #[arg(long, global = true, value_name = "TPM", env = "PASSHOLD_TPM")]
    pub(crate) tpm: Option<String>,

    /// Print JSON, errors too
    #[arg(long, global = true)]
    pub(crate) json: bool,

    /// Read the PIN from this file descriptor, one line (for `pin change` two: the old one and the new one)
    #[arg(long, global = true, value_name = "N")]
    pub(crate) pin_fd: Option<u32>,

    /// Read the TPM's owner authorization from this file descriptor, one line (for setup, wipe, status)
    #[arg(long, global = true, value_name = "N")]
    pub(crate) owner_auth_fd: Option<u32>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Make a vault and choose its PIN
    Setup,
    /// Make a passkey: WebAuthn creation options in, a registration response out
    Enroll(Ceremony),
    /// Sign in with a passkey: WebAuthn request options in, an authentication response out
    Sign {
        #[command(flatten)]
        ceremony: Ceremony,
        /// Which passkey, where several match
        #[arg(long, value_name = "ID")]
        account: Option<AccountId>,
    },
    /// List the passkeys
    List,
    /// Show one passkey
    Show {
        /// Its number, as `list` shows it
        id: AccountId,
    },
    /// Give a passkey a name of your own
    Rename {
        /// Its number
        id: AccountId,
        /// The new name; an empty one restores the site's
        name: String,
    },
    /// Delete a passkey
    Delete {
        /// Its number
        id: AccountId,
    },
    /// Change the PIN
    #[command(subcommand)]
    Pin(Pin),
    /// Show the vault, its TPM and the PIN tries left; needs no PIN
    Status,
    /// Destroy the vault and every copy of it
    Wipe {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Ceremony {
    /// Who asks, such as https://example.org
    #[arg(long, value_name = "ORIGIN")]
    pub(crate) origin: String,

    /// The relying party's options as JSON, bare or as {"publicKey": …}; - is standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub(crate) options: PathBuf,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Pin {
    /// Replace the PIN; all passkeys stay
    Change,
}
