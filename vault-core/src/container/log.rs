//! What happened to the vault, entry by entry.
//!
//! An entry is sealed to its number and to the head of the chain before it, and is as long as any other; the header
//! authenticates the newest head. So none can be read, changed, moved, dropped or put back by who has the file alone. Room is
//! made ahead: writing an entry moves nothing in the file.

use rusqlite::{Connection, OptionalExtension};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{Account, AccountId, ContainerError, seal::Sealer, store::encode_to, tree::Digest};
use crate::{text::cut, webauthn::RpId};

/// So many entries are kept at least; the oldest make room.
pub const LOG_KEEPS: u64 = 1 << 14;
/// For so many entries room is made at once.
pub(super) const ROOM: u64 = 64;

/// The head of the chain before it, and the entry in CBOR, filled up with zeros.
const PLAIN_LEN: usize = 32 + 352;
/// With the tag.
pub(super) const SEALED_LEN: usize = PLAIN_LEN + 16;
/// What an entry keeps of a relying party's ID and of an account's name, in bytes.
const LONGEST_TEXT: usize = 96;

/// Something that happened to a vault.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// In seconds since 1970, by the clock of the machine.
    #[serde(rename = "t")]
    pub at: u64,
    /// What was done, or asked for.
    #[serde(rename = "d")]
    pub deed: Deed,
    /// Why it was not done, if it was not.
    #[serde(rename = "r")]
    pub refusal: Option<Refusal>,
    /// To which passkey.
    #[serde(rename = "s")]
    pub subject: Option<Subject>,
}

/// What was done, or asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Deed {
    /// The vault was made.
    SetUp,
    /// A passkey was made.
    Enrol,
    /// Somebody signed in.
    Sign,
    /// The person's name for a passkey was changed.
    Rename,
    /// The relying party's names for an account were changed.
    Update,
    /// A passkey was moved to the bin.
    Delete,
    /// A passkey was taken out of the bin.
    Undelete,
    /// A passkey was removed for good.
    Remove,
    /// The PIN was shown to the TPM.
    ProvePin,
    /// The PIN was changed.
    ChangePin,
    /// The PIN was set by the recovery code.
    ResetPin,
    /// Another recovery code came into force.
    RenewCode,
    /// What the vault keeps besides its passkeys was changed.
    Configure,
    /// An old copy was let in.
    Restore,
    /// The accounts' metadata was written out.
    Export,
    /// A program asked to use passkeys.
    Unlock,
    /// Everything was to be destroyed.
    Wipe,
    /// What a later Passhold knows.
    #[serde(other)]
    Other,
}

/// Why something was not done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Refusal {
    /// The PIN was wrong.
    WrongPin,
    /// The TPM takes no PIN any more.
    PinLocked,
    /// The PIN has to be changed first.
    PinChangeDue,
    /// The recovery code was wrong.
    WrongCode,
    /// The recovery code was one that has ended.
    SpentCode,
    /// There is a passkey already that the relying party excludes.
    Excluded,
    /// Somebody said no, or the prompt died.
    Declined,
    /// Nobody answered.
    TimedOut,
    /// The program took its request back.
    Cancelled,
    /// A rule forbids it.
    Rule,
    /// What a later Passhold knows.
    #[serde(other)]
    Other,
}

/// A passkey, as an entry names it: it may be gone when that is read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Its number, if it has one.
    #[serde(rename = "i")]
    pub id: Option<AccountId>,
    /// The end of the relying party's ID.
    #[serde(rename = "p")]
    pub rp_id: String,
    /// The beginning of the account's name.
    #[serde(rename = "u")]
    pub user_name: String,
}

/// What a log says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// Its entries with their numbers, oldest first; `None` is one that is missing or was changed.
    pub entries: Vec<(u64, Option<Entry>)>,
    /// The first that is not what was written there.
    pub broken: Option<u64>,
}

/// Where the chain ends, and where what is kept of it begins. It stands in the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(super) struct Head {
    pub(super) first: u64,
    pub(super) count: u64,
    pub(super) digest: Digest,
}

impl Subject {
    /// A passkey.
    #[must_use]
    pub fn of(id: AccountId, account: &Account) -> Self {
        Self::new(Some(id), &account.rp_id, &account.user_name)
    }

    /// One that is asked for.
    #[must_use]
    pub fn new(id: Option<AccountId>, rp_id: &RpId, user_name: &str) -> Self {
        // What tells sites apart is the end of their IDs, in ASCII.
        let rp_id = rp_id.as_str();
        let rp_id = rp_id.get(rp_id.len().saturating_sub(LONGEST_TEXT)..).unwrap_or(rp_id).to_owned();
        Self { id, rp_id, user_name: cut(user_name, LONGEST_TEXT) }
    }
}

impl Head {
    pub(super) const LEN: usize = 48;

    pub(super) fn to_bytes(self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[..8].copy_from_slice(&self.first.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.count.to_be_bytes());
        bytes[16..].copy_from_slice(&self.digest);
        bytes
    }

    pub(super) fn from_bytes(bytes: &[u8; Self::LEN]) -> Option<Self> {
        let (first, rest) = bytes.split_first_chunk()?;
        let (count, digest) = rest.split_first_chunk()?;
        let (first, count) = (u64::from_be_bytes(*first), u64::from_be_bytes(*count));
        Some(Self { first, count, digest: digest.try_into().ok()? }).filter(|head| head.first <= head.count)
    }

    /// Writes an entry at the end. False if there is no room for it, and nothing was written.
    pub(super) fn append(
        &mut self,
        db: &Connection,
        sealer: &Sealer,
        vault_id: &[u8; 16],
        entry: &Entry,
    ) -> Result<bool, ContainerError> {
        let row = sealer.seal_entry(vault_id, self.count, &plain(&self.digest, entry));
        let written = db
            .prepare_cached("UPDATE log SET sealed = ?2 WHERE n = ?1 AND length(sealed) = length(?2)")?
            .execute((self.count, &row))?;
        if written == 1 {
            self.digest = chained(&self.digest, &row);
            self.count += 1;
        }
        Ok(written == 1)
    }

    /// Makes room for more entries. It moves pages: the file's have been checked.
    pub(super) fn make_room(&mut self, db: &Connection) -> Result<(), ContainerError> {
        make_room(db, self.count)?;
        let first = self.count.saturating_sub(LOG_KEEPS).max(self.first);
        if first >= self.first + ROOM {
            db.execute("DELETE FROM log WHERE n < ?1", [first])?;
            self.first = first;
        }
        Ok(())
    }

    /// The newest entry, if it can be read.
    pub(super) fn newest(
        &self,
        db: &Connection,
        sealer: &Sealer,
        vault_id: &[u8; 16],
    ) -> Result<Option<Entry>, ContainerError> {
        let Some(n) = self.count.checked_sub(1) else { return Ok(None) };
        let row = db.query_row(
            "SELECT sealed FROM log WHERE n = ?1 AND length(sealed) = ?2",
            (n, SEALED_LEN),
            |row| row.get::<_, Vec<u8>>(0),
        );
        Ok(row.optional()?.and_then(|row| opened(sealer, vault_id, n, &row)).map(|(_, entry)| entry))
    }

    /// All that is kept, with the first entry that does not fit in the chain.
    pub(super) fn read(
        &self,
        db: &Connection,
        sealer: &Sealer,
        vault_id: &[u8; 16],
    ) -> Result<Log, ContainerError> {
        let mut query = db.prepare(
            "SELECT n, sealed FROM log WHERE n >= ?1 AND n < ?2 AND length(sealed) = ?3 ORDER BY n",
        )?;
        let rows = query.query_map((self.first, self.count, SEALED_LEN), |row| {
            Ok((row.get::<_, u64>(0)?, row.get::<_, Vec<u8>>(1)?))
        })?;
        let mut rows = rows.collect::<Result<Vec<_>, _>>()?.into_iter().peekable();
        let mut links: Vec<_> = (self.first..self.count)
            .map(|n| {
                let (_, row) = rows.next_if(|(at, _)| *at == n)?;
                let (before, entry) = opened(sealer, vault_id, n, &row)?;
                Some(Link { before, after: chained(&before, &row), entry })
            })
            .collect();
        let broken = first_broken(&links, &self.digest);
        if let Some(link) = broken.and_then(|at| links.get_mut(at)) {
            *link = None;
        }
        let entries: Vec<_> = (self.first..).zip(links.into_iter().map(|link| Some(link?.entry))).collect();
        let broken = broken.and_then(|at| Some(entries.get(at)?.0));
        Ok(Log { entries, broken })
    }
}

/// An entry that is authentic, with the head before it and after it.
struct Link {
    before: Digest,
    after: Digest,
    entry: Entry,
}

/// The first entry that is not what was written there. An authentic one may be of another history: after an old copy was let
/// in there are two of one number.
fn first_broken(links: &[Option<Link>], head: &Digest) -> Option<usize> {
    // The header vouches for the newest, and each for the one before it.
    let mut head = *head;
    let last_broken = links.iter().rposition(|link| match link {
        Some(link) if link.after == head => {
            head = link.before;
            false
        }
        _ => true,
    })?;
    // Nothing vouches for those before it but that they hang together.
    let mut after = None;
    let hangs_together = |link: &Option<Link>| {
        let follows = link.as_ref().filter(|link| after.is_none_or(|after| after == link.before));
        after = follows.map(|link| link.after);
        follows.is_some()
    };
    Some(links.iter().take(last_broken).map(hangs_together).position(|good| !good).unwrap_or(last_broken))
}

/// Room for entries from number `n` on.
pub(super) fn make_room(db: &Connection, n: u64) -> Result<(), ContainerError> {
    let mut insert = db.prepare_cached("INSERT OR REPLACE INTO log (n, sealed) VALUES (?1, zeroblob(?2))")?;
    for n in n..n + ROOM {
        insert.execute((n, SEALED_LEN))?;
    }
    Ok(())
}

fn plain(head: &Digest, entry: &Entry) -> Vec<u8> {
    let mut plain = head.to_vec();
    encode_to(entry, &mut plain);
    debug_assert!(plain.len() <= PLAIN_LEN, "the longest texts fit");
    plain.resize(PLAIN_LEN, 0);
    plain
}

fn opened(sealer: &Sealer, vault_id: &[u8; 16], n: u64, row: &[u8]) -> Option<(Digest, Entry)> {
    let plain = sealer.open_entry(vault_id, n, row)?;
    let (head, entry) = plain.split_first_chunk()?;
    Some((*head, ciborium::from_reader(entry).ok()?))
}

fn chained(head: &Digest, row: &[u8]) -> Digest {
    Sha256::new_with_prefix(b"passhold v1 log").chain_update(head).chain_update(row).finalize().into()
}
