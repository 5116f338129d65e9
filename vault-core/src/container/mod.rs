//! The sealed container: one SQLite database a vault, in a folder of its own.
//!
//! Each passkey is one row, sealed under keys derived from the container key, which only this
//! machine's TPM gives out. A header carries the generation and the root of a hash tree over the
//! rows, authenticated under the same key: a changed, missing, added or older row is an error that
//! names it, and finding one passkey costs the same among 10 and 100,000.

mod account;
mod file;
mod header;
mod log;
mod seal;
mod settings;
mod store;
mod tree;

pub use account::{Account, AccountId, Extras, LargeBlobKey, LastUse, Takes};
pub use file::{Arrival, Container, LOCK_FILE, Lock, VAULT_FILE, Vacancy};
pub use header::State;
pub use log::{Deed, Entry, LOG_KEEPS, Log, Refusal, Subject};
pub use settings::{CodeMark, PersistentToken, PinHistory, Settings};
pub use store::{BIN_KEEPS, Store};

use std::{io, path::PathBuf};

/// Why the container could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ContainerError {
    /// There is no vault here.
    #[error("there is no vault in {}", dir.display())]
    NotFound {
        /// The folder.
        dir: PathBuf,
    },
    /// There is one already.
    #[error("there is a vault in {} already", dir.display())]
    Exists {
        /// The folder.
        dir: PathBuf,
    },
    /// Another process uses it.
    #[error("the vault is busy: {}", holder.map_or_else(|| "another process uses it".to_owned(), |pid| format!("process {pid} uses it")))]
    Busy {
        /// That process.
        holder: Option<u32>,
    },
    /// The file is not a Passhold vault.
    #[error("{} is not a Passhold vault", path.display())]
    NotAVault {
        /// The file.
        path: PathBuf,
    },
    /// A later Passhold wrote it.
    #[error("the vault has format {found}; this Passhold knows up to {known}")]
    NewerFormat {
        /// The file's format.
        found: i64,
        /// The newest known.
        known: i64,
    },
    /// What is stored is not what Passhold stored.
    #[error("the vault is damaged: {what}")]
    Damaged {
        /// Which part.
        what: Damage,
    },
    /// No passkey has this number.
    #[error("there is no passkey {id}")]
    NoSuchAccount {
        /// The number asked for.
        id: AccountId,
    },
    /// It is in the bin.
    #[error("passkey {id} is in the bin")]
    InBin {
        /// Its number.
        id: AccountId,
    },
    /// It is not in the bin.
    #[error("passkey {id} is not in the bin")]
    NotInBin {
        /// Its number.
        id: AccountId,
    },
    /// The folder or a file in it cannot be read or written.
    #[error("cannot use {}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The database cannot be read or written: disk full, read-only, input/output error.
    #[error("the vault's database cannot be used")]
    Database(#[source] rusqlite::Error),
}

/// The damaged part of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Damage {
    /// `SQLite` cannot read the file.
    #[error("the database file is corrupt")]
    File,
    /// The tables are not those of this format.
    #[error("its tables are not the ones Passhold made")]
    Schema,
    /// The header fails its authentication code.
    #[error("its header was changed")]
    Header,
    /// A row does not open.
    #[error("passkey {0} was changed")]
    Row(AccountId),
    /// The rows open and are not the set that was committed.
    #[error("a passkey is missing, or an old one was put back")]
    Membership,
    /// The tree over the rows does not hold together.
    #[error("the index over its passkeys was changed")]
    Tree,
}

impl From<rusqlite::Error> for ContainerError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::{Error, ErrorCode};
        let what = match &error {
            Error::SqliteFailure(e, _) => match e.code {
                ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase | ErrorCode::TooBig => Damage::File,
                // Our statements are fixed: if one makes no sense, or the format has another number, it is the file's doing.
                _ if e.extended_code == rusqlite::ffi::SQLITE_ERROR => Damage::File,
                _ => return Self::Database(error),
            },
            // A column of another type or range than STRICT tables and our own writes allow.
            Error::FromSqlConversionFailure(..)
            | Error::IntegralValueOutOfRange(..)
            | Error::InvalidColumnType(..)
            | Error::Utf8Error(..) => Damage::File,
            _ => return Self::Database(error),
        };
        Self::Damaged { what }
    }
}

impl From<Damage> for ContainerError {
    fn from(what: Damage) -> Self {
        Self::Damaged { what }
    }
}
