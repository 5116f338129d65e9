use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use rusqlite::{Connection, OpenFlags, config::DbConfig};

use super::{
    ContainerError, Damage,
    header::{Header, State},
    log::{self, Deed, Entry},
    seal::Sealer,
    store::Store,
    tree,
};
use crate::keystore::{Anchor, ContainerKey, TpmKind};

/// The database's name in the vault's folder.
pub const VAULT_FILE: &str = "vault.db";
/// The lock's name in the vault's folder.
pub const LOCK_FILE: &str = "lock";
/// Where a container is made before it gets its name.
const DRAFT_FILE: &str = "vault.db.draft";

/// "Pass" in `SQLite`'s `application_id`.
const APPLICATION_ID: i64 = 0x5061_7373;
/// The first one had no recovery code, no last use and no log.
const FORMAT: i64 = 2;

/// Rows of `used` say when a passkey was last used: sealed, and hints for a list. Rows of `tries` are Passhold's own count of wrong PINs: a hint for the prompt, not authenticated,
/// because the TPM decides.
const SCHEMA: &str = "
CREATE TABLE header (id INTEGER PRIMARY KEY CHECK (id = 0), vault_id BLOB NOT NULL, state TEXT NOT NULL, anchor BLOB NOT NULL, kind TEXT NOT NULL, generation INTEGER NOT NULL, root BLOB NOT NULL, mac BLOB NOT NULL, settings BLOB NOT NULL, log BLOB NOT NULL) STRICT;
CREATE TABLE passkey (id INTEGER PRIMARY KEY AUTOINCREMENT, bucket INTEGER NOT NULL, rp_tag BLOB NOT NULL, sealed BLOB NOT NULL) STRICT;
CREATE INDEX passkey_by_bucket ON passkey (bucket);
CREATE TABLE used (id INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT;
CREATE TABLE log (n INTEGER PRIMARY KEY, sealed BLOB NOT NULL) STRICT;
CREATE TABLE tree (node INTEGER PRIMARY KEY, children BLOB NOT NULL) STRICT;
CREATE TABLE tries (id INTEGER PRIMARY KEY CHECK (id = 0), wrong INTEGER NOT NULL) STRICT;";

/// The lock on a vault's folder: one process at a time. Clones hold it too.
#[derive(Clone, Debug)]
pub struct Lock(#[expect(dead_code, reason = "held")] Arc<LockedFile>);

#[derive(Debug)]
struct LockedFile(File);

impl Drop for LockedFile {
    fn drop(&mut self) {
        // Closing the file unlocks it too, unless a child that is just being started has a copy of the descriptor.
        self.0.unlock().ok();
    }
}

/// A locked folder without a vault.
#[derive(Debug)]
pub struct Vacancy {
    dir: PathBuf,
    lock: Lock,
}

impl Vacancy {
    /// Makes `dir` with mode 0700 if it is missing, and locks it.
    pub fn reserve(dir: &Path) -> Result<Self, ContainerError> {
        let vacancy = make_and_lock(dir)?;
        if Container::exists(dir)? {
            Err(ContainerError::Exists { dir: dir.to_owned() })
        } else {
            Ok(vacancy)
        }
    }

    /// Makes a container in state [`State::Provisioning`], recording what set-up is about to make in
    /// the TPM so that a crash can be undone. It appears under its name only when it is whole.
    pub fn create(
        &self,
        vault_id: [u8; 16],
        anchor: &Anchor,
        key: &ContainerKey,
    ) -> Result<Container, ContainerError> {
        let (path, draft) = (self.dir.join(VAULT_FILE), self.dir.join(DRAFT_FILE));
        remove_database(&draft)?;
        create(&draft)?;
        let db = connect(&draft)?;
        use_wal(&db)?;
        let tx = db.unchecked_transaction()?;
        tx.execute_batch(SCHEMA)?;
        tx.pragma_update(None, "application_id", APPLICATION_ID)?;
        tx.pragma_update(None, "user_version", FORMAT)?;
        let (state, kind) = (State::Provisioning, TpmKind::Software);
        let header = Header {
            vault_id,
            state,
            anchor: anchor.clone(),
            kind,
            generation: 0,
            root: tree::EMPTY,
            settings: Vec::new(),
            log: log::Head::default(),
        };
        log::make_room(&tx, 0)?;
        header.store(&tx, header.mac(&Sealer::new(key)))?;
        tx.commit()?;
        // Closing would do so too, and say nothing if it fails: the renamed file would hold nothing.
        checkpoint(&db)?;
        db.close().map_err(|(_, e)| e)?;
        // A log that outlived its database would be replayed into the new one.
        remove_database(&path)?;
        fs::rename(&draft, &path).map_err(|source| io_error(&path, source))?;
        remove_database(&draft)?;
        sync(&self.dir)?;
        Ok(Container { db: connect(&path)?, dir: self.dir.clone(), lock: self.lock.clone() })
    }
}

/// A vault's file on its way from another folder. It gets its name when it is whole.
#[derive(Debug)]
pub struct Arrival {
    dir: PathBuf,
    lock: Lock,
    draft: File,
    room: u64,
}

impl Arrival {
    /// The longest file that is taken.
    pub const LONGEST: u64 = 64 << 20;

    /// Makes `dir` with mode 0700 if it is missing, and locks it.
    pub fn begin(dir: &Path) -> Result<Self, ContainerError> {
        let vacancy = make_and_lock(dir)?;
        let draft = dir.join(DRAFT_FILE);
        remove_database(&draft)?;
        let file = create(&draft)?;
        Ok(Self { dir: vacancy.dir, lock: vacancy.lock, draft: file, room: Self::LONGEST })
    }

    /// The next part of it.
    pub fn append(&mut self, part: &[u8]) -> Result<(), ContainerError> {
        let path = self.dir.join(DRAFT_FILE);
        let left = u64::try_from(part.len()).ok().and_then(|len| self.room.checked_sub(len));
        self.room = left.ok_or_else(|| io_error(&path, io::ErrorKind::FileTooLarge.into()))?;
        self.draft.write_all(part).map_err(|source| io_error(&path, source))
    }

    /// Opens it before it has its name: whether it is to have it is yet to be proven.
    pub fn open(&mut self) -> Result<Container, ContainerError> {
        let path = self.dir.join(DRAFT_FILE);
        self.draft.sync_all().map_err(|source| io_error(&path, source))?;
        Container::open_file(&self.dir, self.lock.clone(), DRAFT_FILE)
    }

    /// Gives it its name, once it is closed. Another vault's place is not taken.
    pub fn settle(self) -> Result<(), ContainerError> {
        let (path, from) = (self.dir.join(VAULT_FILE), self.dir.join(DRAFT_FILE));
        if Container::exists(&self.dir)? {
            let header = |name| Header::load(&Container::open_file(&self.dir, self.lock.clone(), name)?.db);
            let (here, there) = (header(VAULT_FILE)?.0, header(DRAFT_FILE)?.0);
            // It came before, and nothing was changed since, here or there, nor was it used there.
            let same = Header { log: here.log, ..there.clone() } == here && there.log.count <= here.log.count;
            return if same { Ok(()) } else { Err(ContainerError::Exists { dir: self.dir.clone() }) };
        }
        remove_database(&path)?;
        fs::rename(&from, &path).map_err(|source| io_error(&path, source))?;
        sync(&self.dir)
    }
}

impl Drop for Arrival {
    fn drop(&mut self) {
        // What is left of it is overwritten by the next one.
        remove_database(&self.dir.join(DRAFT_FILE)).ok();
    }
}

/// A locked container whose key has not been had yet: only the header can be read, unauthenticated.
#[derive(Debug)]
pub struct Container {
    pub(super) db: Connection,
    dir: PathBuf,
    lock: Lock,
}

impl Container {
    /// Whether there is one in `dir`; takes no lock.
    pub fn exists(dir: &Path) -> Result<bool, ContainerError> {
        let path = dir.join(VAULT_FILE);
        path.try_exists().map_err(|source| io_error(&path, source))
    }

    /// Opens and locks the container in `dir`.
    pub fn open(dir: &Path) -> Result<Self, ContainerError> {
        if !Self::exists(dir)? {
            return Err(ContainerError::NotFound { dir: dir.to_owned() });
        }
        Self::open_locked(dir, lock(dir)?)
    }

    /// Opens the container in `dir`, whose lock is held already.
    pub fn open_locked(dir: &Path, lock: Lock) -> Result<Self, ContainerError> {
        Self::open_file(dir, lock, VAULT_FILE)
    }

    fn open_file(dir: &Path, lock: Lock, name: &str) -> Result<Self, ContainerError> {
        let path = dir.join(name);
        let db = connect(&path).map_err(|e| no_database(e, &path))?;
        check_format(&db, &path)?;
        // Only now: it writes to the file.
        use_wal(&db)?;
        Ok(Self { db, dir: dir.to_owned(), lock })
    }

    /// The lock, to keep the vault for oneself after the container is dropped.
    #[must_use]
    pub fn lock(&self) -> Lock {
        self.lock.clone()
    }

    /// Where the vault is in its life; unauthenticated.
    pub fn state(&self) -> Result<State, ContainerError> {
        Ok(Header::load(&self.db)?.0.state)
    }

    /// How to find the vault's objects in the TPM; unauthenticated.
    pub fn anchor(&self) -> Result<Anchor, ContainerError> {
        Ok(Header::load(&self.db)?.0.anchor)
    }

    /// Whether nothing is in it that a set-up in progress would not have made.
    pub fn is_empty(&self) -> Result<bool, ContainerError> {
        Ok(!self.db.query_row("SELECT EXISTS (SELECT 1 FROM passkey)", [], |row| row.get(0))?)
    }

    /// Marks set-up as finished; `now` is in seconds since 1970.
    pub fn activate(&self, kind: TpmKind, key: &ContainerKey, now: u64) -> Result<(), ContainerError> {
        let (sealer, (mut header, _)) = (Sealer::new(key), Header::load(&self.db)?);
        (header.state, header.kind) = (State::Active, kind);
        let tx = self.db.unchecked_transaction()?;
        let made = Entry { at: now, deed: Deed::SetUp, refusal: None, subject: None };
        header.log.append(&tx, &sealer, &header.vault_id, &made)?;
        header.store(&tx, header.mac(&sealer))?;
        Ok(tx.commit()?)
    }

    /// Authenticates the header and opens the rows for use.
    pub fn unseal(self, key: &ContainerKey) -> Result<Store, ContainerError> {
        let sealer = Sealer::new(key);
        let (header, mac) = Header::load(&self.db)?;
        if header.mac(&sealer) != mac {
            return Err(Damage::Header.into());
        }
        Ok(Store::new(self, header, sealer))
    }

    /// Removes the vault's files. The empty lock file stays: another process may be waiting on it.
    pub fn remove(self) -> Result<(), ContainerError> {
        let Self { db, dir, lock } = self;
        db.close().map_err(|(_, e)| e)?;
        remove_database(&dir.join(VAULT_FILE))?;
        sync(&dir)?;
        drop(lock);
        Ok(())
    }
}

/// Puts a change into the main file before anyone is told: a vault at rest is one file. The end of a damaged write-ahead
/// log could silently be lost, and one that stays behind is replayed into whatever file is put in the vault's place.
pub(super) fn checkpoint(db: &Connection) -> Result<(), ContainerError> {
    Ok(db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?)
}

/// Removes a database file, if it is there, and what `SQLite` keeps beside it.
fn remove_database(path: &Path) -> Result<(), ContainerError> {
    for suffix in ["", "-wal", "-shm", "-journal"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match fs::remove_file(&name) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(io_error(Path::new(&name), e)),
            _ => {}
        }
    }
    Ok(())
}

fn sync(dir: &Path) -> Result<(), ContainerError> {
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(|source| io_error(dir, source))
}

fn make_and_lock(dir: &Path) -> Result<Vacancy, ContainerError> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(|source| io_error(dir, source))?;
    Ok(Vacancy { dir: dir.to_owned(), lock: lock(dir)? })
}

fn create(path: &Path) -> Result<File, ContainerError> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600).open(path).map_err(|source| io_error(path, source))
}

fn lock(dir: &Path) -> Result<Lock, ContainerError> {
    let path = dir.join(LOCK_FILE);
    let failed = |source| io_error(&path, source);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut file = options.open(&path).map_err(failed)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            file.read_to_string(&mut holder).map_err(failed)?;
            return Err(ContainerError::Busy { holder: holder.trim().parse().ok() });
        }
        Err(TryLockError::Error(e)) => return Err(failed(e)),
    }
    file.set_len(0).and_then(|()| file.rewind()).map_err(failed)?;
    writeln!(file, "{}", std::process::id()).map_err(failed)?;
    Ok(Lock(Arc::new(LockedFile(file))))
}

fn connect(path: &Path) -> Result<Connection, ContainerError> {
    let flags =
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
    // SQLite's NOFOLLOW refuses links anywhere in a path; only the last component is ours to judge.
    let (dir, name) = (path.parent().unwrap_or(path), path.file_name().unwrap_or_default());
    let path = dir.canonicalize().map_err(|source| io_error(dir, source))?.join(name);
    let db = Connection::open_with_flags(path, flags)?;
    // The file is not trusted: nothing in its schema may run, and its cells are checked as they are read.
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_TRIGGER, false)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_VIEW, false)?;
    db.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    // What was read is soon not needed any more: 256 KiB of it are kept, however large the file.
    db.execute_batch(
        "PRAGMA locking_mode = EXCLUSIVE; PRAGMA synchronous = FULL; PRAGMA cell_size_check = ON;
         PRAGMA secure_delete = ON; PRAGMA temp_store = MEMORY; PRAGMA cache_size = -256;",
    )?;
    Ok(db)
}

fn use_wal(db: &Connection) -> Result<(), ContainerError> {
    Ok(db.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))?)
}

fn check_format(db: &Connection, path: &Path) -> Result<(), ContainerError> {
    let pragma = |name: &str| db.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    let application_id = pragma("application_id").map_err(|e| no_database(e.into(), path))?;
    if application_id != APPLICATION_ID {
        return Err(ContainerError::NotAVault { path: path.to_owned() });
    }
    let found = pragma("user_version")?;
    if found > FORMAT {
        return Err(ContainerError::NewerFormat { found, known: FORMAT });
    }
    if found != FORMAT || schema(db)? != expected_schema() {
        return Err(Damage::Schema.into());
    }
    Ok(())
}

/// What cannot even be read as a database is somebody else's file.
fn no_database(error: ContainerError, path: &Path) -> ContainerError {
    match error {
        ContainerError::Damaged { what: Damage::File } => ContainerError::NotAVault { path: path.to_owned() },
        other => other,
    }
}

fn schema(db: &Connection) -> Result<Vec<String>, ContainerError> {
    // SQLite's own sqlite_sequence, which AUTOINCREMENT keeps, has no place in SCHEMA.
    let mut query = db.prepare(
        "SELECT sql FROM sqlite_schema WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\' ORDER BY rowid",
    )?;
    let rows = query.query_map([], |row| row.get(0))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn expected_schema() -> Vec<String> {
    SCHEMA.split(';').map(|s| s.trim().to_owned()).filter(|s| !s.is_empty()).collect()
}

fn io_error(path: &Path, source: io::Error) -> ContainerError {
    ContainerError::Io { path: path.to_owned(), source }
}
