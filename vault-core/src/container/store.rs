use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use rusqlite::{Connection, OptionalExtension, TransactionBehavior};

use super::{
    Account, AccountId, Container, ContainerError, Damage, Deed, Entry, LastUse, Log, Refusal, Settings,
    State, Subject,
    file::checkpoint,
    header::Header,
    seal::{RpTag, Sealer},
    tree::{self, BucketDigest},
};
use crate::{
    keystore::{Anchor, TpmKind},
    webauthn::RpId,
};

/// How long a passkey stays in the bin before it may be removed for good.
pub const BIN_KEEPS: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// An authenticated container: its header was written under the container key.
pub struct Store {
    container: Container,
    header: Header,
    sealer: Sealer,
    /// Passhold's count of wrong PINs, where it could not be written.
    tries: Option<u32>,
    /// What the clock said when it was opened, in seconds since 1970.
    now: u64,
    /// What the next transaction writes into the log.
    pending: Vec<Entry>,
    /// Whether [`check_pages`] has passed; nobody else writes while the container is locked.
    pages_checked: bool,
}

/// A row as it lies in the file.
struct Row {
    id: AccountId,
    rp_tag: RpTag,
    sealed: Vec<u8>,
    /// When it was last used, if that was asked for.
    used: Option<Vec<u8>>,
}

/// All rows, without their last uses and with them.
const ROWS: &str = "SELECT id, rp_tag, sealed, NULL FROM passkey ORDER BY id";
const ROWS_AND_USES: &str =
    "SELECT id, rp_tag, passkey.sealed, used.sealed FROM passkey LEFT JOIN used USING (id) ORDER BY id";

/// What one transaction changes.
struct Edit<'t> {
    db: &'t Connection,
    sealer: &'t Sealer,
    header: Header,
    log: Vec<Entry>,
    now: u64,
}

/// Whether a change is one of membership, which the TPM's generation guards.
#[derive(Clone, Copy)]
enum Change {
    Membership,
    Contents,
}

impl Store {
    pub(super) fn new(container: Container, header: Header, sealer: Sealer) -> Self {
        Self { container, header, sealer, tries: None, now: 0, pending: Vec::new(), pages_checked: false }
    }

    /// The time that entries of the log are given, in seconds since 1970.
    pub fn set_now(&mut self, now: u64) {
        self.now = now;
    }

    /// What happened to the vault.
    pub fn log(&self) -> Result<Log, ContainerError> {
        self.header.log.read(self.db(), &self.sealer, &self.header.vault_id)
    }

    /// Has the next change write this into the log.
    pub fn note(&mut self, deed: Deed, subject: Option<Subject>) {
        self.pending.push(Entry { at: self.now, deed, refusal: None, subject });
    }

    /// Has the next change write into the log that something was not done. What repeats the entry before it is not written again, or whoever is
    /// refused could push out all others.
    pub fn note_refusal(
        &mut self,
        deed: Deed,
        refusal: Refusal,
        subject: Option<Subject>,
    ) -> Result<(), ContainerError> {
        let entry = Entry { at: self.now, deed, refusal: Some(refusal), subject };
        let newest = self.header.log.newest(self.db(), &self.sealer, &self.header.vault_id)?;
        let repeats = newest.is_some_and(|newest| Entry { at: self.now, ..newest } == entry);
        if !repeats || refusal == Refusal::WrongPin {
            self.pending.push(entry);
        }
        Ok(())
    }

    /// Writes what was noted and no change has taken along.
    pub fn write_log(&mut self) -> Result<(), ContainerError> {
        if self.pending.is_empty() { Ok(()) } else { self.write(self.header.clone(), |_| Ok(())) }
    }

    /// The same, and commits the next generation.
    pub fn commit_log(&mut self) -> Result<(), ContainerError> {
        self.write(Header { generation: self.header.generation + 1, ..self.header.clone() }, |_| Ok(()))
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

    /// Sets that count, and writes the log.
    pub fn set_wrong_pins(&mut self, count: u32) -> Result<(), ContainerError> {
        self.tries = Some(count);
        self.write(self.header.clone(), |edit| {
            edit.db.execute("INSERT OR REPLACE INTO tries (id, wrong) VALUES (0, ?1)", [count])?;
            Ok(())
        })
    }

    /// What the vault keeps besides its passkeys.
    pub fn settings(&self) -> Result<Settings, ContainerError> {
        let sealed = &self.header.settings;
        if sealed.is_empty() {
            return Ok(Settings::default());
        }
        let mut sealed = sealed.clone();
        let plain = self.sealer.open(&settings_place(self.vault_id()), &mut sealed);
        let settings = plain.and_then(|plain| ciborium::from_reader(plain).ok());
        settings.ok_or_else(|| Damage::Header.into())
    }

    /// Replaces that, and commits the next generation.
    pub fn set_settings(
        &mut self,
        settings: &Settings,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<(), ContainerError> {
        self.overtake(self.header.generation, settings, rng)
    }

    /// The same, and commits the generation after this one.
    pub fn overtake(
        &mut self,
        generation: u64,
        settings: &Settings,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<(), ContainerError> {
        let sealed = self.sealer.seal(&settings_place(self.vault_id()), &encode(settings), rng);
        let generation = generation + 1;
        self.write(Header { settings: sealed, generation, ..self.header.clone() }, |_| Ok(()))
    }

    /// The passkeys of one relying party, oldest first; proven complete.
    pub fn accounts_of(&self, rp_id: &RpId) -> Result<Vec<(AccountId, Account)>, ContainerError> {
        let tag = self.sealer.rp_tag(rp_id);
        let mine = self.checked_bucket(bucket_of(&tag))?.into_iter().filter(|row| row.rp_tag == tag);
        let mut accounts: Vec<_> = mine.map(|row| self.open(row)).collect::<Result<_, _>>()?;
        accounts.retain(|(_, account)| account.binned.is_none());
        Ok(accounts)
    }

    /// One passkey by its number.
    pub fn account(&self, id: AccountId) -> Result<Account, ContainerError> {
        let account = self.open(self.row(id)?)?.1;
        if account.binned.is_some() { Err(ContainerError::InBin { id }) } else { Ok(account) }
    }

    /// All passkeys, oldest first; proven complete.
    pub fn accounts(&self) -> Result<Vec<(AccountId, Account)>, ContainerError> {
        self.scan(ROWS, |id, account, _| account.binned.is_none().then_some((id, account)))
    }

    /// The passkeys in the bin, oldest first; proven complete.
    pub fn bin(&self) -> Result<Vec<(AccountId, Account)>, ContainerError> {
        self.scan(ROWS, |id, account, _| account.binned.is_some().then_some((id, account)))
    }

    /// When a passkey was last used.
    pub fn last_use(&self, id: AccountId) -> Result<LastUse, ContainerError> {
        let mut query = self.db().prepare_cached("SELECT sealed FROM used WHERE id = ?1")?;
        let used = query.query_row([id.0], |row| row.get(0)).optional()?;
        Ok(opened_use(&self.sealer, self.vault_id(), id, used))
    }

    /// Writes that a passkey was used, and the log; `now` is in seconds since 1970. Nothing moves in the file: what is written is as long as
    /// what was there.
    pub fn note_use(
        &mut self,
        id: AccountId,
        now: u64,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<(), ContainerError> {
        self.write(self.header.clone(), |edit| {
            let sealed = edit.sealer.seal(&used_place(&edit.header.vault_id, id), &now.to_be_bytes(), rng);
            let there = "UPDATE used SET sealed = ?2 WHERE id = ?1 AND length(sealed) = length(?2)";
            edit.db.execute(there, (id.0, sealed))?;
            Ok(())
        })
    }

    /// All passkeys and those in the bin, oldest first; proven complete.
    pub fn all(&self) -> Result<Vec<(AccountId, Account)>, ContainerError> {
        self.scan(ROWS, |id, account, _| Some((id, account)))
    }

    /// What `wanted` makes of each passkey, of each in the bin, and of when it was last used, oldest first; proven to be of all of
    /// them. What it leaves out is never in memory with the others.
    pub fn each<T>(
        &self,
        wanted: impl FnMut(AccountId, Account, LastUse) -> Option<T>,
    ) -> Result<Vec<T>, ContainerError> {
        self.scan(ROWS_AND_USES, wanted)
    }

    fn scan<T>(
        &self,
        query: &str,
        mut wanted: impl FnMut(AccountId, Account, LastUse) -> Option<T>,
    ) -> Result<Vec<T>, ContainerError> {
        let mut query = self.db().prepare(query)?;
        let rows = query.query_map([], Row::read)?;
        let mut buckets: BTreeMap<u16, BucketDigest> = BTreeMap::new();
        let mut found = Vec::new();
        for row in rows {
            let mut row = row?;
            buckets.entry(bucket_of(&row.rp_tag)).or_insert_with(BucketDigest::new).add(
                row.id.0,
                &row.rp_tag,
                &row.sealed,
            );
            let (id, account, last_use) = row.open(&self.sealer, &self.header.vault_id)?;
            found.extend(wanted(id, account, last_use));
        }
        let digests = buckets.into_iter().map(|(bucket, digest)| (bucket, digest.finish())).collect();
        if tree::root_of(digests) != self.header.root {
            return Err(Damage::Membership.into());
        }
        Ok(found)
    }

    /// Adds a passkey and commits the next generation.
    pub fn insert(
        &mut self,
        account: &Account,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<AccountId, ContainerError> {
        self.replace(None, account, rng)
    }

    /// Adds a passkey, of the same relying party as `old`, which is moved to the bin for it; commits the next generation.
    pub fn replace(
        &mut self,
        old: Option<AccountId>,
        account: &Account,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<AccountId, ContainerError> {
        let tag = self.sealer.rp_tag(&account.rp_id);
        self.checked_bucket(bucket_of(&tag))?;
        let old = match old {
            None => None,
            Some(id) if self.row(id)?.rp_tag != tag => return Err(ContainerError::NoSuchAccount { id }),
            Some(id) => Some((id, Account { binned: Some(account.created), ..self.account(id)? })),
        };
        self.change(Change::Membership, &[tag], |edit| {
            if let Some((id, old)) = &old {
                edit.set_row(*id, &tag, old, rng)?;
                edit.log(Deed::Delete, Subject::of(*id, old));
            }
            // The row is sealed to its number, so that is had first.
            edit.db.execute(
                "INSERT INTO passkey (bucket, rp_tag, sealed) VALUES (?1, ?2, x'')",
                (bucket_of(&tag), tag),
            )?;
            let id = AccountId(edit.db.last_insert_rowid());
            edit.set_row(id, &tag, account, rng)?;
            let never = edit.sealer.seal(&used_place(&edit.header.vault_id, id), &[0; 8], rng);
            edit.db.execute("INSERT OR REPLACE INTO used (id, sealed) VALUES (?1, ?2)", (id.0, never))?;
            edit.log(Deed::Enrol, Subject::of(id, account));
            Ok(id)
        })
    }

    /// Replaces a passkey's row; membership stays.
    pub fn update(
        &mut self,
        deed: Deed,
        id: AccountId,
        account: &Account,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<(), ContainerError> {
        self.rewrite(Change::Contents, &[(deed, id, account.clone())], &[], rng)
    }

    /// Moves a passkey to the bin, and removes for good what has been there for [`BIN_KEEPS`]; commits the next generation.
    pub fn move_to_bin(
        &mut self,
        id: AccountId,
        now: u64,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<Account, ContainerError> {
        self.sort_out(&[id], &[], now, rng)?;
        Ok(self.open(self.row(id)?)?.1)
    }

    /// Takes a passkey out of the bin, and commits the next generation.
    pub fn take_from_bin(
        &mut self,
        id: AccountId,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<Account, ContainerError> {
        // At the beginning of time, so that nothing is removed for good.
        self.sort_out(&[], &[id], 0, rng)?;
        self.account(id)
    }

    /// The same for several, all or none.
    pub fn sort_out(
        &mut self,
        to_bin: &[AccountId],
        from_bin: &[AccountId],
        now: u64,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<(), ContainerError> {
        let mut moved = Vec::new();
        for id in to_bin {
            moved.push((Deed::Delete, *id, Account { binned: Some(now), ..self.account(*id)? }));
        }
        for id in from_bin {
            let account = self.open(self.row(*id)?)?.1;
            if account.binned.is_none() {
                return Err(ContainerError::NotInBin { id: *id });
            }
            moved.push((Deed::Undelete, *id, Account { binned: None, ..account }));
        }
        let stays = |at: u64| now.saturating_sub(at) < BIN_KEEPS.as_secs();
        let mut expired = self.bin()?;
        expired.retain(|(id, account)| !from_bin.contains(id) && !account.binned.is_some_and(stays));
        self.rewrite(Change::Membership, &moved, &expired, rng)
    }

    /// Removes what is in the bin for good, and commits the next generation if there is any.
    pub fn empty_bin(&mut self) -> Result<Vec<(AccountId, Account)>, ContainerError> {
        let gone = self.bin()?;
        if !gone.is_empty() {
            let tags = self.tags_of(&gone);
            self.change(Change::Membership, &tags, |edit| edit.remove(&gone))?;
        }
        Ok(gone)
    }

    /// Removes a passkey and commits the next generation.
    pub fn remove(&mut self, id: AccountId) -> Result<(), ContainerError> {
        let row = self.row(id)?;
        let tag = row.rp_tag;
        let gone = [self.open(row)?];
        self.change(Change::Membership, &[tag], |edit| edit.remove(&gone))
    }

    /// Replaces rows, and removes others.
    fn rewrite(
        &mut self,
        change: Change,
        rows: &[(Deed, AccountId, Account)],
        gone: &[(AccountId, Account)],
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<(), ContainerError> {
        let tags: Result<Vec<_>, ContainerError> =
            rows.iter().map(|(_, id, _)| Ok(self.row(*id)?.rp_tag)).collect();
        let tags = [tags?, self.tags_of(gone)].concat();
        self.change(change, &tags, |edit| {
            for ((deed, id, account), tag) in rows.iter().zip(&tags) {
                edit.set_row(*id, tag, account, rng)?;
                edit.log(*deed, Subject::of(*id, account));
            }
            edit.remove(gone)
        })
    }

    fn tags_of(&self, accounts: &[(AccountId, Account)]) -> Vec<RpTag> {
        accounts.iter().map(|(_, account)| self.sealer.rp_tag(&account.rp_id)).collect()
    }

    /// Moves the vault to another state of its life.
    pub fn set_state(&mut self, state: State) -> Result<(), ContainerError> {
        self.write(Header { state, ..self.header.clone() }, |_| Ok(()))
    }

    /// Gives the container back, to be removed.
    #[must_use]
    pub fn into_container(self) -> Container {
        self.container
    }

    fn db(&self) -> &Connection {
        &self.container.db
    }

    /// Changes rows and everything that must change with them.
    fn change<T>(
        &mut self,
        change: Change,
        tags: &[RpTag],
        work: impl FnOnce(&mut Edit<'_>) -> Result<T, ContainerError>,
    ) -> Result<T, ContainerError> {
        check_pages(&self.container.db, &mut self.pages_checked)?;
        self.write(self.header.clone(), |edit| {
            let made = work(edit)?;
            for bucket in tags.iter().map(bucket_of).collect::<BTreeSet<_>>() {
                edit.header.root = tree::set(edit.db, bucket, digest(&read_bucket(edit.db, bucket)?))?;
            }
            if let Change::Membership = change {
                edit.header.generation += 1;
            }
            Ok(made)
        })
    }

    /// Writes `header` with what `work` does and the log, all or nothing.
    fn write<T>(
        &mut self,
        header: Header,
        work: impl FnOnce(&mut Edit<'_>) -> Result<T, ContainerError>,
    ) -> Result<T, ContainerError> {
        let log = std::mem::take(&mut self.pending);
        let tx = self.container.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut edit = Edit { db: &tx, sealer: &self.sealer, header, log, now: self.now };
        let made = work(&mut edit)?;
        edit.write_log(&mut self.pages_checked)?;
        let Edit { header, .. } = edit;
        let mac = header.mac(&self.sealer);
        if (Header { log: self.header.log, ..header.clone() }) == self.header {
            header.store_log(&tx, mac)?;
        } else {
            header.store(&tx, mac)?;
        }
        tx.commit()?;
        self.header = header;
        checkpoint(self.db())?;
        Ok(made)
    }

    /// A row that is proven to be a member.
    fn row(&self, id: AccountId) -> Result<Row, ContainerError> {
        let found = self
            .db()
            .query_row("SELECT id, rp_tag, sealed, NULL FROM passkey WHERE id = ?1", [id.0], Row::read)
            .optional()?;
        let Some(row) = found else {
            // Only the whole set can prove an absence; a damaged branch of the table can hide from a search what a scan finds.
            let hidden = self.all()?.iter().any(|(member, _)| *member == id);
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
            Err(e) => Err(self.all().err().unwrap_or(e)),
        }
    }

    fn open(&self, mut row: Row) -> Result<(AccountId, Account), ContainerError> {
        row.open(&self.sealer, &self.header.vault_id).map(|(id, account, _)| (id, account))
    }
}

/// What cannot be opened is a hint that is missing.
fn opened_use(sealer: &Sealer, vault_id: &[u8; 16], id: AccountId, used: Option<Vec<u8>>) -> LastUse {
    let mut used = used.unwrap_or_default();
    let plain = sealer.open(&used_place(vault_id, id), &mut used);
    match plain.and_then(|plain| plain.try_into().ok()).map(u64::from_be_bytes) {
        None => LastUse::Unknown,
        Some(0) => LastUse::Never,
        Some(at) => LastUse::At(at),
    }
}

/// Whether every page of the file has its place. What is to be written takes pages that `SQLite` believes free, and a
/// damaged list of those would have it write over passkeys that nothing has read yet.
fn check_pages(db: &Connection, checked: &mut bool) -> Result<(), ContainerError> {
    if !*checked {
        let found: String = db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        *checked = found == "ok";
    }
    if *checked { Ok(()) } else { Err(Damage::File.into()) }
}

impl Edit<'_> {
    fn log(&mut self, deed: Deed, subject: Subject) {
        self.log.push(Entry { at: self.now, deed, refusal: None, subject: Some(subject) });
    }

    fn set_row(
        &self,
        id: AccountId,
        tag: &RpTag,
        account: &Account,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<(), ContainerError> {
        let sealed = self.sealer.seal(&place(&self.header.vault_id, id, tag), &encode(account), rng);
        self.db.execute("UPDATE passkey SET sealed = ?2 WHERE id = ?1", (id.0, sealed))?;
        Ok(())
    }

    fn remove(&mut self, gone: &[(AccountId, Account)]) -> Result<(), ContainerError> {
        for (id, account) in gone {
            self.db.execute("DELETE FROM passkey WHERE id = ?1", [id.0])?;
            self.db.execute("DELETE FROM used WHERE id = ?1", [id.0])?;
            self.log(Deed::Remove, Subject::of(*id, account));
        }
        Ok(())
    }

    fn write_log(&mut self, pages_checked: &mut bool) -> Result<(), ContainerError> {
        let Header { log, vault_id, .. } = &mut self.header;
        for entry in &self.log {
            if !log.append(self.db, self.sealer, vault_id, entry)? {
                check_pages(self.db, pages_checked)?;
                log.make_room(self.db)?;
                log.append(self.db, self.sealer, vault_id, entry)?;
            }
        }
        Ok(())
    }
}

impl Row {
    fn read(row: &rusqlite::Row<'_>) -> rusqlite::Result<Self> {
        Ok(Self { id: AccountId(row.get(0)?), rp_tag: row.get(1)?, sealed: row.get(2)?, used: row.get(3)? })
    }

    /// What is in it, and its last use where that was asked for. It is opened where it lies: once.
    fn open(
        &mut self,
        sealer: &Sealer,
        vault_id: &[u8; 16],
    ) -> Result<(AccountId, Account, LastUse), ContainerError> {
        let plain = sealer.open(&place(vault_id, self.id, &self.rp_tag), &mut self.sealed);
        let account = plain.and_then(|plain| ciborium::from_reader(plain).ok());
        let last_use = opened_use(sealer, vault_id, self.id, self.used.take());
        Ok((self.id, account.ok_or(Damage::Row(self.id))?, last_use))
    }
}

fn read_bucket(db: &Connection, bucket: u16) -> Result<Vec<Row>, ContainerError> {
    let mut query =
        db.prepare_cached("SELECT id, rp_tag, sealed, NULL FROM passkey WHERE bucket = ?1 ORDER BY id")?;
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

fn used_place(vault_id: &[u8; 16], id: AccountId) -> Vec<u8> {
    [b"passhold v1 used".as_slice(), vault_id, &id.0.to_be_bytes()].concat()
}

fn settings_place(vault_id: &[u8; 16]) -> Vec<u8> {
    [b"passhold v1 settings".as_slice(), vault_id].concat()
}

fn encode(value: &impl serde::Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_to(value, &mut bytes);
    bytes
}

#[expect(clippy::expect_used, reason = "encoding to memory what was just built")]
pub(super) fn encode_to(value: &impl serde::Serialize, bytes: &mut Vec<u8>) {
    ciborium::into_writer(value, bytes).expect("a Vec takes all writes");
}
