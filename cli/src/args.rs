#![allow(clippy::doc_markdown, rustdoc::bare_urls, reason = "these comments are the help texts")]

use std::path::PathBuf;

use clap::{
    Parser, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use serde::{Deserialize, Serialize};
use vault_core::{RuleAction, container::AccountId};

use crate::{
    commands::quoted,
    failure::{EXIT_CODES, Result},
};

/// Passkeys in this machine's TPM
///
/// Each account gets a P-256 key that the TPM makes and never gives out. Using it takes a PIN that the TPM
/// itself checks and counts.
#[derive(Debug, Parser)]
#[command(name = "passhold", version, after_long_help = EXIT_CODES, disable_help_subcommand = true)]
pub struct Args {
    /// What every command has
    #[command(flatten)]
    pub global: Global,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Clone, Debug, clap::Args)]
pub struct Global {
    /// The vault's folder [default: $XDG_DATA_HOME/passhold]
    #[arg(long, global = true, value_name = "DIR")]
    pub vault: Option<PathBuf>,

    /// The TPM: device:/dev/tpmrm0 (the default), swtpm (a private software TPM), or a TCTI string
    #[arg(long, global = true, value_name = "TPM", env = "PASSHOLD_TPM")]
    pub tpm: Option<String>,

    /// passholdd's socket [default: /run/passhold/socket or $XDG_RUNTIME_DIR/passhold/socket, if it is there]
    #[arg(long, global = true, value_name = "PATH", conflicts_with_all = ["vault", "tpm", "direct"])]
    pub socket: Option<PathBuf>,

    /// Use the TPM and the vault here, without passholdd; so do --vault and --tpm
    #[arg(long, global = true)]
    pub direct: bool,

    /// Print JSON, errors too
    #[arg(long, global = true)]
    pub json: bool,

    /// Read the PIN from this file descriptor, one line (for `pin change` two: the old one and the new one; for `pin reset` the recovery code and the new PIN)
    #[arg(long, global = true, value_name = "N")]
    pub pin_fd: Option<u32>,

    /// Read the TPM's owner authorization from this file descriptor, one line; a command that needs it says so
    #[arg(long, global = true, value_name = "N")]
    pub owner_auth_fd: Option<u32>,
}

impl Global {
    /// What to type to say the same of TPM and vault again.
    pub(crate) fn invocation(&self) -> String {
        let tpm = self.tpm.as_ref().map(PathBuf::from);
        let paths = [("--vault", &self.vault), ("--tpm", &tpm), ("--socket", &self.socket)];
        let said = paths.into_iter().filter_map(|(option, path)| Some((option, path.as_ref()?)));
        let options = said.map(|(option, path)| format!(" {option} {}", quoted(&path.display().to_string())));
        let direct = self.direct.then(|| " --direct".to_owned());
        ["passhold".to_owned()].into_iter().chain(options).chain(direct).collect()
    }
}

/// What can be done with a vault.
#[derive(Debug, Subcommand, Serialize, Deserialize)]
pub enum Command {
    /// Make a vault and choose its PIN
    Setup {
        /// Make no recovery code: a forgotten PIN will cost every passkey
        #[arg(long)]
        no_recovery_code: bool,
    },
    /// Make a passkey: WebAuthn creation options in, a registration response out
    Enroll {
        /// The request
        #[command(flatten)]
        ceremony: Ceremony,
        /// Put the passkey that this account has already into the bin
        #[arg(long, conflicts_with = "another")]
        replace: bool,
        /// Make another one beside it
        #[arg(long)]
        another: bool,
    },
    /// Sign in with a passkey: WebAuthn request options in, an authentication response out
    Sign {
        /// The request
        #[command(flatten)]
        ceremony: Ceremony,
        /// Which passkey, where several match
        #[arg(long, value_name = "ID")]
        account: Option<AccountId>,
    },
    /// List the passkeys
    List {
        /// Only those with this text in their site, account or name
        #[arg(conflicts_with = "bin")]
        text: Option<String>,
        /// Only those that were never used since they were made
        #[arg(long)]
        unused: bool,
        /// Only those that were not used for so many days
        #[arg(long, value_name = "DAYS")]
        stale: Option<u64>,
        /// Those in the bin
        #[arg(long, conflicts_with_all = ["unused", "stale"])]
        bin: bool,
    },
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
    /// Move a passkey to the bin, where it cannot be used; it is kept there for 30 days
    Delete {
        /// Its number
        id: AccountId,
    },
    /// Take a passkey out of the bin
    Undelete {
        /// Its number, as `list --bin` shows it
        id: AccountId,
    },
    /// Delete what is in the bin, at once and for ever
    EmptyBin,
    /// Change the PIN, or reset a forgotten one
    #[command(subcommand)]
    Pin(Pin),
    /// The code that resets a forgotten PIN
    #[command(subcommand)]
    Recovery(Recovery),
    /// Do what a site's WebAuthn signal asks: move passkeys to the bin and out of it, or rename them
    Signal {
        /// The signal as JSON; - is standard input
        file: PathBuf,
        /// Do not ask before passkeys are renamed
        #[arg(long)]
        yes: bool,
    },
    /// List the rules for new passkeys, or change them: sites that get none, or only on a word
    Rules {
        /// What to do with them
        #[command(subcommand)]
        change: Option<RuleChange>,
    },
    /// Write down what the passkeys are, for another machine; no key leaves the TPM
    Export(Output),
    /// Say what is left to do here with the passkeys of an export; needs no PIN
    Plan {
        /// The file that `export` wrote
        file: PathBuf,
    },
    /// Move vaults
    #[command(subcommand)]
    Vault(Vault),
    /// Let a vault's file that was restored from a backup in
    #[command(subcommand)]
    Restore(Restore),
    /// Show what happened to the vault, oldest first
    #[command(args_conflicts_with_subcommands = true)]
    Log {
        /// Only the last so many entries
        #[arg(long, value_name = "COUNT")]
        last: Option<usize>,
        /// What else can be done with the log
        #[command(subcommand)]
        command: Option<Log>,
    },
    /// Show the vault, its TPM and the PIN tries left; needs no PIN
    Status,
    /// Look at everything a vault depends on: what is wrong, why it matters, what mends it
    Doctor(DoctorArgs),
    /// Look at the passkeys and manage them, in one screen with keys
    Tui,
    /// Destroy the vault and every copy of it
    Wipe {
        /// Do not ask
        #[arg(long)]
        yes: bool,
    },
}

impl Command {
    /// Refuses what cannot be, before anybody is asked for anything.
    pub fn check(&self) -> Result<()> {
        if let Self::Export(output) = self { output.check() } else { Ok(()) }
    }
}

/// Where something is written.
#[derive(Clone, Debug, clap::Args, Serialize, Deserialize)]
pub struct Output {
    /// A new file for it, which only you can read; - is standard output
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub output: PathBuf,

    /// Replace a file that is there already
    #[arg(long)]
    pub force: bool,
}

/// A relying party's request.
#[derive(Debug, clap::Args, Serialize, Deserialize)]
pub struct Ceremony {
    /// Who asks, such as https://example.org
    #[arg(long, value_name = "ORIGIN")]
    pub origin: String,

    /// The relying party's options as JSON, bare or as {"publicKey": …}; - is standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub options: PathBuf,
}

/// What `doctor` looks at and does.
#[derive(Debug, Default, clap::Args, Serialize, Deserialize)]
#[command(args_conflicts_with_subcommands = true)]
pub struct DoctorArgs {
    /// Ask for the PIN, and hold the vault's file against the TPM's count of changes
    #[arg(long, conflicts_with = "fix")]
    pub check_pin: bool,
    /// Mend what costs nothing, each after it was asked
    #[arg(long)]
    pub fix: bool,
    /// Do not ask
    #[arg(long, requires = "fix")]
    pub yes: bool,
    /// What else
    #[command(subcommand)]
    pub then: Option<Doctor>,
}

/// What `doctor` changes for all users of the TPM.
#[derive(Debug, Subcommand, Serialize, Deserialize)]
pub enum Doctor {
    /// Set the TPM's lockout: 32 failures, one forgotten every 10 minutes, and an authorization to reset it that is
    /// shown once
    Harden {
        /// Do not ask whether it was written down
        #[arg(long)]
        yes: bool,
        /// Read the lockout authorization that is set from this file descriptor, one line
        #[arg(long, value_name = "N")]
        lockout_auth_fd: Option<u32>,
    },
}

/// What can be done with a PIN.
#[derive(Debug, Subcommand, Serialize, Deserialize)]
pub enum Pin {
    /// Replace the PIN; all passkeys stay
    Change,
    /// Set a new PIN with the recovery code; all passkeys stay, and the code is spent
    Reset,
}

/// What can be done with the recovery code.
#[derive(Debug, Subcommand, Serialize, Deserialize)]
pub enum Recovery {
    /// Replace the recovery code, or make the first one
    Renew,
}

/// What else can be done with the log.
#[derive(Debug, Subcommand, Serialize, Deserialize)]
pub enum Log {
    /// Tell whether an entry was removed or changed, or the whole vault put back to an earlier day
    Verify,
}

/// What can be done with the rules.
#[derive(Debug, Subcommand, Serialize, Deserialize)]
pub enum RuleChange {
    /// Add a rule; it replaces one with the same glob
    Add {
        /// never: no passkey is made; ask: you are asked before one is made
        #[arg(value_parser = PossibleValuesParser::new(["never", "ask"])
            .map(|word| if word == "never" { RuleAction::Never } else { RuleAction::Ask }))]
        action: RuleAction,
        /// Which sites, by their relying party ID: example.org, or *.example.org for all below it
        glob: String,
    },
    /// Take a rule away
    Remove {
        /// The glob, as `rules` shows it
        glob: String,
    },
}

/// What can be done with an old copy of the vault's file.
#[derive(Debug, Subcommand, Serialize, Deserialize)]
pub enum Restore {
    /// Make the copy that lies in the vault's folder the latest; what was changed after it is lost
    Accept {
        /// List what is lost of this export of the vault
        #[arg(long, value_name = "FILE")]
        export: Option<PathBuf>,
    },
}

/// What can be done with a vault as a whole.
#[derive(Debug, Subcommand, Serialize, Deserialize)]
pub enum Vault {
    /// Give a vault of your own to passholdd, which keeps it from then on
    Adopt {
        /// Its folder [default: $XDG_DATA_HOME/passhold]
        dir: Option<PathBuf>,
    },
}
