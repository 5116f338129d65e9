use std::collections::BTreeMap;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::{
    Account, AccountId, Container, ContainerError, Damage, Settings, State,
    file::checkpoint,
    header::Header,
    seal::{RpTag, Sealer},
    tree::{self, BucketDigest},
};
use crate::{
    keystore::{Anchor, TpmKind},
    webauthn::RpId,
};

/// An authenticated container: its header was written under the container key.
pub struct Store {
    container: Container,
    header: Header,
    sealer: Sealer,
    /// Passhold's count of wrong PINs, where it could not be written.
    tries: Option<u32>,
    /// Whether [`check_pages`] has passed; nobody else writes while the container is locked.
    pages_checked: bool,
}

/// A row as it lies in the file.
struct Row {
    id: AccountId,
    rp_tag: RpTag,
    sealed: Vec<u8>,
}

/// Whether a change is one of membership, which the TPM's generation guards.
#[derive(Clone, Copy)]
enum Change {
    Membership,
    Contents,
}

impl Store {
    pub(super) fn new(container: Container, header: Header, sealer: Sealer) -> Self {
        Self { container, header, sealer, tries: None, pages_checked: false }
    }

    /// The vault's random id.
    #[must_use]
    pub fn vault_id(&self) -> &[u8; 16] {
        &self.header.vault_id
    }

    /// Where the vault is in its life.
    #[must_use]
    pub fn state(&self) -> State {
        self.header.state
    }

    /// How to find the vault's objects in the TPM.
    #[must_use]
    pub fn anchor(&self) -> &Anchor {
        &self.header.anchor
    }

    /// The kind of TPM it was made in.
    #[must_use]
    pub fn kind(&self) -> TpmKind {
        self.header.kind
    }

    /// How many changes of membership were committed.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.header.generation
    }

    /// Passhold's own count of wrong PINs since the last right one: a hint, so one that cannot be read is none.
    #[must_use]
    pub fn wrong_pins(&self) -> u32 {
        let stored = || self.db().query_row("SELECT wrong FROM tries", [], |row| row.get(0)).unwrap_or(0);
        self.tries.unwrap_or_else(stored)
    }

    /// Sets that count.
    pub fn set_wrong_pins(&mut self, count: u32) -> Result<(), ContainerError> {
        self.tries = Some(count);
        self.db().execute("INSERT OR REPLACE INTO tries (id, wrong) VALUES (0, ?1)", [count])?;
        checkpoint(self.db())
    }

    /// What the vault keeps besides its passkeys.
    pub fn settings(&self) -> Result<Settings, ContainerError> {
        let sealed = &self.header.settings;
        if sealed.is_empty() {
            return Ok(Settings::default());
        }
        let plain = self.sealer.open(&settings_place(self.vault_id()), sealed);
        let settings = plain.and_then(|plain| ciborium::from_reader(plain.as_slice()).ok());
        settings.ok_or_else(|| Damage::Header.into())
    }

    /// Replaces that, and commits the next generation.
    pub fn set_settings(
        &mut self,
        settings: &Settings,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<(), ContainerError> {
        let sealed = self.sealer.seal(&settings_place(self.vault_id()), &encode(settings), rng);
        let generation = self.header.generation + 1;
        self.store_header(Header { settings: sealed, generation, ..self.header.clone() })
    }

    /// The passkeys of one relying party, oldest first; proven complete.
    pub fn accounts_of(&self, rp_id: &RpId) -> Result<Vec<(AccountId, Account)>, ContainerError> {
        let tag = self.sealer.rp_tag(rp_id);
        let mine = self.checked_bucket(bucket_of(&tag))?.into_iter().filter(|row| row.rp_tag == tag);
        mine.map(|row| self.open(&row)).collect()
    }

    /// One passkey by its number.
    pub fn account(&self, id: AccountId) -> Result<Account, ContainerError> {
        let row = self.row(id)?;
        Ok(self.open(&row)?.1)
    }

    /// All passkeys, oldest first; proven complete.
    pub fn accounts(&self) -> Result<Vec<(AccountId, Account)>, ContainerError> {
        let mut query = self.db().prepare("SELECT id, rp_tag, sealed FROM passkey ORDER BY id")?;
        let rows = query.query_map([], Row::read)?;
        let mut buckets: BTreeMap<u16, BucketDigest> = BTreeMap::new();
        let mut accounts = Vec::new();
        for row in rows {
            let row = row?;
            buckets.entry(bucket_of(&row.rp_tag)).or_insert_with(BucketDigest::new).add(
                row.id.0,
                &row.rp_tag,
                &row.sealed,
            );
            accounts.push(self.open(&row)?);
        }
        let digests = buckets.into_iter().map(|(bucket, digest)| (bucket, digest.finish())).collect();
        if tree::root_of(digests) != self.header.root {
            return Err(Damage::Membership.into());
        }
        Ok(accounts)
    }

    /// Adds a passkey and commits the next generation.
    pub fn insert(
        &mut self,
        account: &Account,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<AccountId, ContainerError> {
        self.replace(None, account, rng)
    }

    /// Adds a passkey, of the same relying party as `old`, in whose place it comes; commits the next generation.
    pub fn replace(
        &mut self,
        old: Option<AccountId>,
        account: &Account,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<AccountId, ContainerError> {
        let tag = self.sealer.rp_tag(&account.rp_id);
        let bucket = self.checked_bucket(bucket_of(&tag))?;
        if let Some(id) = old.filter(|id| !bucket.iter().any(|row| row.id == *id && row.rp_tag == tag)) {
            return Err(ContainerError::NoSuchAccount { id });
        }
        self.change(Change::Membership, &tag, |db, sealer, vault_id| {
            if let Some(old) = old {
                db.execute("DELETE FROM passkey WHERE id = ?1", [old.0])?;
            }
            // The row is sealed to its number, so that is had first.
            db.execute(
                "INSERT INTO passkey (bucket, rp_tag, sealed) VALUES (?1, ?2, x'')",
                (bucket_of(&tag), tag),
            )?;
            let id = AccountId(db.last_insert_rowid());
            let sealed = sealer.seal(&place(vault_id, id, &tag), &encode(account), rng);
            db.execute("UPDATE passkey SET sealed = ?2 WHERE id = ?1", (id.0, sealed))?;
            Ok(id)
        })
    }

    /// Replaces a passkey's row; membership stays.
    pub fn update(
        &mut self,
        id: AccountId,
        account: &Account,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<(), ContainerError> {
        let tag = self.row(id)?.rp_tag;
        self.change(Change::Contents, &tag, |db, sealer, vault_id| {
            let sealed = sealer.seal(&place(vault_id, id, &tag), &encode(account), rng);
            db.execute("UPDATE passkey SET sealed = ?2 WHERE id = ?1", (id.0, sealed))?;
            Ok(())
        })
    }

    /// Removes a passkey and commits the next generation.
    pub fn remove(&mut self, id: AccountId) -> Result<(), ContainerError> {
        let tag = self.row(id)?.rp_tag;
        self.change(Change::Membership, &tag, |db, _, _| {
            db.execute("DELETE FROM passkey WHERE id = ?1", [id.0])?;
            Ok(())
        })
    }

    /// Moves the vault to another state of its life.
    pub fn set_state(&mut self, state: State) -> Result<(), ContainerError> {
        self.store_header(Header { state, ..self.header.clone() })
    }

    fn store_header(&mut self, header: Header) -> Result<(), ContainerError> {
        header.store(self.db(), header.mac(&self.sealer))?;
        self.header = header;
        checkpoint(self.db())
    }

    /// Gives the container back, to be removed.
    #[must_use]
    pub fn into_container(self) -> Container {
        self.container
    }

    fn db(&self) -> &Connection {
        &self.container.db
    }

    /// Runs `edit` and everything that must change with it in one transaction.
    fn change<T>(
        &mut self,
        change: Change,
        tag: &RpTag,
        edit: impl FnOnce(&Connection, &Sealer, &[u8; 16]) -> Result<T, ContainerError>,
    ) -> Result<T, ContainerError> {
        let mut header = self.header.clone();
        if !self.pages_checked {
            check_pages(self.db())?;
            self.pages_checked = true;
        }
        let tx = self.container.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let result = edit(&tx, &self.sealer, &header.vault_id)?;
        let bucket = bucket_of(tag);
        header.root = tree::set(&tx, bucket, digest(&read_bucket(&tx, bucket)?))?;
        if let Change::Membership = change {
            header.generation += 1;
        }
        header.store(&tx, header.mac(&self.sealer))?;
        tx.commit()?;
        self.header = header;
        checkpoint(self.db())?;
        Ok(result)
    }

    /// A row that is proven to be a member.
    fn row(&self, id: AccountId) -> Result<Row, ContainerError> {
        let found = self
            .db()
            .query_row("SELECT id, rp_tag, sealed FROM passkey WHERE id = ?1", [id.0], Row::read)
            .optional()?;
        let Some(row) = found else {
            // Only the whole set can prove an absence; a damaged branch of the table can hide from a search what a scan finds.
            let hidden = self.accounts()?.iter().any(|(member, _)| *member == id);
            return Err(if hidden { Damage::File.into() } else { ContainerError::NoSuchAccount { id } });
        };
        self.checked_bucket(bucket_of(&row.rp_tag))?
            .into_iter()
            .find(|member| member.id == id)
            .ok_or_else(|| Damage::Row(id).into())
    }

    /// The rows of a bucket, proven to be the ones that were committed.
    fn checked_bucket(&self, bucket: u16) -> Result<Vec<Row>, ContainerError> {
        let rows = read_bucket(self.db(), bucket)?;
        match tree::check(self.db(), &self.header.root, bucket, digest(&rows)) {
            Ok(()) => Ok(rows),
            // The whole set names the row, or tells rows from the tree over them.
            Err(e) => Err(self.accounts().err().unwrap_or(e)),
        }
    }

    fn open(&self, row: &Row) -> Result<(AccountId, Account), ContainerError> {
        let damaged = || Damage::Row(row.id);
        let place = place(&self.header.vault_id, row.id, &row.rp_tag);
        let plain = self.sealer.open(&place, &row.sealed).ok_or_else(damaged)?;
        let account = ciborium::from_reader(plain.as_slice()).map_err(|_| damaged())?;
        Ok((row.id, account))
    }
}

/// Whether every page of the file has its place. What is to be written takes pages that `SQLite` believes free, and a
/// damaged list of those would have it write over passkeys that nothing has read yet.
fn check_pages(db: &Connection) -> Result<(), ContainerError> {
    let found: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    if found == "ok" { Ok(()) } else { Err(Damage::File.into()) }
}

impl Row {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { id: AccountId(row.get(0)?), rp_tag: row.get(1)?, sealed: row.get(2)? })
    }
}

fn read_bucket(db: &Connection, bucket: u16) -> Result<Vec<Row>, ContainerError> {
    let mut query =
        db.prepare_cached("SELECT id, rp_tag, sealed FROM passkey WHERE bucket = ?1 ORDER BY id")?;
    Ok(query.query_map([bucket], Row::read)?.collect::<Result<_, _>>()?)
}

fn digest(rows: &[Row]) -> tree::Digest {
    let mut digest = BucketDigest::new();
    for row in rows {
        digest.add(row.id.0, &row.rp_tag, &row.sealed);
    }
    digest.finish()
}

fn bucket_of(tag: &RpTag) -> u16 {
    let [high, low, ..] = *tag;
    u16::from_be_bytes([high, low])
}

/// What a row is sealed to.
fn place(vault_id: &[u8; 16], id: AccountId, tag: &RpTag) -> Vec<u8> {
    [b"passhold v1 row".as_slice(), vault_id, &id.0.to_be_bytes(), tag].concat()
}

fn settings_place(vault_id: &[u8; 16]) -> Vec<u8> {
    [b"passhold v1 settings".as_slice(), vault_id].concat()
}

#[expect(clippy::expect_used, reason = "encoding to memory what was just built")]
fn encode(value: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("a Vec takes all writes");
    bytes
}
