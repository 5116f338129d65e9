//! What `export` writes and `plan` reads.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};
use vault_core::{
    container::{Account, AccountId, LastUse, Takes},
    printable,
};

use crate::{
    app::to_json,
    args::Output,
    failure::{Exit, Failure, Result},
};

/// What tells it from other JSON.
pub(crate) const KIND: &str = "export";
/// The one version there is.
pub(crate) const VERSION: u64 = 1;
/// For whoever finds the file.
const NOTE: &str =
    "No key is in here, and none can leave its TPM. This tells what to enroll again elsewhere.";

/// What the passkeys of a vault are. Members may be added; what has another meaning has another version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Export {
    passhold: String,
    version: u64,
    #[serde(default)]
    note: String,
    #[serde(flatten)]
    pub(crate) origin: Origin,
    pub(crate) accounts: Vec<Entry>,
}

/// Where an export comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Origin {
    /// The vault's random id, in hexadecimal.
    pub(crate) vault: String,
    /// What kind of authenticator its passkeys are in, as a UUID.
    aaguid: String,
    /// When it was made, in seconds since 1970.
    pub(crate) exported: u64,
}

/// A passkey, without its key. Whatever is text may come from anybody; times are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// Its number in its vault.
    pub id: AccountId,
    /// The relying party it signs in to.
    pub rp_id: String,
    /// The relying party's name for itself.
    pub rp_name: String,
    /// Such as `alice@example.org`.
    pub user_name: String,
    /// Such as `Alice`.
    pub display_name: String,
    /// The person's own name for it.
    pub name: Option<String>,
    /// In base64url without padding, as the next one.
    pub user_handle: String,
    /// The credential ID.
    pub credential_id: String,
    /// What it takes to use it.
    pub takes: Takes,
    /// When it was made.
    pub created: u64,
    /// Null if it was never used, or nobody knows.
    pub last_used: Option<u64>,
    /// Whether that is because it was never used.
    #[serde(default)]
    pub never_used: bool,
    /// Null unless it is in the bin.
    pub binned: Option<u64>,
}

/// A vault's id as exports show it.
pub(crate) fn hex(id: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(id))
}

impl Origin {
    pub(crate) fn new(vault: [u8; 16], aaguid: [u8; 16], exported: u64) -> Self {
        let mut uuid = hex(aaguid);
        for at in [20, 16, 12, 8] {
            uuid.insert(at, '-');
        }
        Self { vault: hex(vault), aaguid: uuid, exported }
    }
}

impl Export {
    pub(crate) fn new(origin: Origin, accounts: Vec<Entry>) -> Self {
        let (passhold, note) = (KIND.to_owned(), NOTE.to_owned());
        Self { passhold, version: VERSION, note, origin, accounts }
    }

    /// Writes it to a file that only its owner can read, or to standard output.
    pub(crate) fn write(&self, output: &Output) -> Result<()> {
        let json = harmless_json(self)? + "\n";
        let Some(file) = output.file() else {
            let printed = io::stdout().write_all(json.as_bytes());
            return printed.map_err(|e| Failure::unexpected("cannot write to standard output", e));
        };
        write_whole(file, output.replacing(), json.as_bytes()).map_err(|e| match e.kind() {
            ErrorKind::AlreadyExists => output.exists(file),
            _ => Failure::unexpected(format!("cannot write {}", file.display()), e)
                .next("Name another file with --output."),
        })
    }
}

impl Entry {
    pub(crate) fn new(id: AccountId, account: Account, last: LastUse) -> Self {
        Self {
            id,
            rp_id: account.rp_id.to_string(),
            rp_name: account.rp_name,
            user_name: account.user_name,
            display_name: account.display_name,
            name: account.label,
            user_handle: account.user_handle.to_string(),
            credential_id: account.credential_id.to_string(),
            takes: account.takes,
            created: account.created,
            last_used: last.at(),
            never_used: last == LastUse::Never,
            binned: account.binned,
        }
    }

    /// The name to show: the person's own, else the relying party's for the account.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.user_name)
    }
}

impl Output {
    /// The file, unless it is standard output.
    pub(crate) fn file(&self) -> Option<&Path> {
        (self.output != Path::new("-")).then_some(&self.output)
    }

    /// Refuses what is there already, before anybody types a PIN for it. Nothing but a file is ever replaced.
    pub(crate) fn check(&self) -> Result<()> {
        let Some(file) = self.file() else { return Ok(()) };
        match file.symlink_metadata() {
            Ok(there) if !self.force || !there.is_file() => Err(self.exists(file)),
            // What cannot be written says so when it is.
            _ => Ok(()),
        }
    }

    fn replacing(&self) -> RenameFlags {
        if self.force { RenameFlags::empty() } else { RenameFlags::NOREPLACE }
    }

    fn exists(&self, file: &Path) -> Failure {
        let (what, next) = if self.force {
            ("is no file that could be replaced", "Name another file with --output.")
        } else {
            ("is there already", "Name another file with --output, or replace it with --force.")
        };
        Failure::new(Exit::Usage, format!("{} {what}", file.display()))
            .next(format!("Nothing was written. {next}"))
    }
}

/// What lists show, as entries.
pub(crate) fn entries(accounts: &[(AccountId, Account)]) -> Vec<Entry> {
    accounts.iter().map(|(id, account)| Entry::new(*id, account.clone(), LastUse::Unknown)).collect()
}

/// JSON on one line, in which nothing rewrites the line that a terminal shows.
pub(crate) fn harmless_json(value: &impl Serialize) -> Result<String> {
    // Outside of its strings JSON has none of these characters, and inside each has an escape.
    let escaped = |c: char| {
        let harmless = printable(c.encode_utf8(&mut [0; 4])).starts_with(c);
        if harmless { c.to_string() } else { format!("\\u{:04x}", u32::from(c)) }
    };
    Ok(to_json(value)?.chars().map(escaped).collect())
}

/// The whole of it is there under that name, or nothing.
fn write_whole(path: &Path, how: RenameFlags, contents: &[u8]) -> io::Result<()> {
    let folder = path.parent().filter(|dir| *dir != Path::new("")).unwrap_or(Path::new("."));
    let draft = folder.join(format!(".passhold-{:016x}", getrandom::u64()?));
    let written =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft).and_then(|mut file| {
            file.write_all(contents)?;
            file.sync_all()?;
            Ok(renameat_with(CWD, &draft, CWD, path, how)?)
        });
    if written.is_err() {
        fs::remove_file(&draft).ok();
    }
    written.and_then(|()| File::open(folder)?.sync_all())
}
