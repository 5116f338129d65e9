//! A container in a folder, what it answers, and who may not be asked.

use std::{
    convert::Infallible,
    fs,
    path::{Path, PathBuf},
};

use p256::ecdsa::SigningKey;
use rand_core::{TryCryptoRng, TryRng};
use serde_json::json;
use tempfile::TempDir;
use vault_core::{
    RecoverySecrets, Secret,
    container::{
        Account, AccountId, Container, ContainerError, Damage, Deed, Log, State, Store, VAULT_FILE, Vacancy,
    },
    keystore::{
        Anchor, ContainerKey, Erased, KeyBlob, KeyStore, KeyStoreError, Mandate, PresenceParent, Provisioned,
        RecordAnchor, Signature, TpmKind, TpmStatus, UnlockedKeys,
    },
    pin::{Pin, PinSecrets},
    secret_from,
    webauthn::RpId,
};

pub const VAULT_ID: [u8; 16] = *b"a vault of tests";

/// The size of a test: `full` under `make torture` (`PASSHOLD_TORTURE` is set), else `quick`.
pub fn scale(quick: usize, full: usize) -> usize {
    if std::env::var_os("PASSHOLD_TORTURE").is_some() { full } else { quick }
}

/// `SplitMix64`: the same bytes for the same seed, which is all that a test wants of it.
pub struct Seeded(pub u64);

impl Seeded {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }
}

impl TryRng for Seeded {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(u32::try_from(self.next() >> 32).unwrap())
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(self.next())
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
        Ok(())
    }
}

impl TryCryptoRng for Seeded {}

pub fn key() -> ContainerKey {
    secret_from(|out| out.copy_from_slice(b"the container key of every test."))
}

pub fn id(number: i64) -> AccountId {
    number.to_string().parse().unwrap()
}

pub fn rp(name: &str) -> RpId {
    serde_json::from_value(json!(name)).unwrap()
}

/// A passkey as an enrolment stores it, with a real public key.
pub fn account(rp_id: &str, user: &str, seed: u64) -> Account {
    let mut rng = Seeded(seed);
    let mut bytes = |len: usize| -> Vec<u8> { (0..len).map(|_| rng.next().to_le_bytes()[0]).collect() };
    let public = SigningKey::from_slice(&bytes(32)).unwrap().verifying_key().to_sec1_point(true);
    serde_json::from_value(json!({
        "rp_id": rp_id,
        "rp_name": "Example",
        "user_handle": bytes(16),
        "user_name": user,
        "display_name": user,
        "label": null,
        "credential_id": bytes(32),
        "discoverable": true,
        "protection": "Required",
        "key": bytes(230),
        "public_key": public.as_bytes(),
        "created": seed,
    }))
    .unwrap()
}

/// The passkey under another name.
pub fn labelled(mut account: Account, label: Option<&str>) -> Account {
    account.label = label.map(str::to_owned);
    account
}

/// A folder with a container, in memory where the machine has such a place.
pub struct Bench(TempDir);

impl Bench {
    pub fn empty() -> Self {
        let memory = Path::new("/dev/shm");
        Self(if memory.is_dir() { TempDir::new_in(memory) } else { TempDir::new() }.unwrap())
    }

    /// An active container with these passkeys.
    pub fn with(accounts: &[Account]) -> Self {
        Self::with_id_and(VAULT_ID, accounts)
    }

    pub fn with_id_and(vault_id: [u8; 16], accounts: &[Account]) -> Self {
        let bench = Self::empty();
        let container =
            Vacancy::reserve(bench.dir()).unwrap().create(vault_id, &Anchor(vec![7; 300]), &key()).unwrap();
        container.activate(TpmKind::Firmware, &key(), 0).unwrap();
        drop(container);
        let mut store = bench.store();
        for (n, account) in accounts.iter().enumerate() {
            store.insert(account, &mut Seeded(n as u64)).unwrap();
        }
        drop(store);
        bench
    }

    /// Three passkeys of three relying parties.
    pub fn small() -> Self {
        Self::with(&["alice", "bob", "carol"].map(|user| account(&format!("{user}.example"), user, 1)))
    }

    /// Twelve passkeys of six relying parties, some renamed, and room that deleted ones left.
    pub fn lived_in() -> Self {
        let accounts: Vec<_> =
            (0..14).map(|n| account(&format!("rp{}.example", n % 6), &format!("user{n}"), n)).collect();
        let bench = Self::with(&accounts);
        let mut store = bench.store();
        let long = store.insert(&account("rp0.example", &"x".repeat(20_000), 99), &mut Seeded(99)).unwrap();
        for n in [3, 8] {
            store.remove(id(n)).unwrap();
        }
        let renamed = labelled(store.account(id(5)).unwrap(), Some("work"));
        store.update(Deed::Rename, id(5), &renamed, &mut Seeded(100)).unwrap();
        store.remove(long).unwrap();
        drop(store);
        bench
    }

    pub fn dir(&self) -> &Path {
        self.0.path()
    }

    pub fn file(&self) -> PathBuf {
        self.dir().join(VAULT_FILE)
    }

    pub fn store(&self) -> Store {
        Container::open(self.dir()).unwrap().unseal(&key()).unwrap()
    }

    pub fn bytes(&self) -> Vec<u8> {
        fs::read(self.file()).unwrap()
    }

    /// Puts this file in the vault's place, with nothing beside it.
    pub fn put(&self, bytes: &[u8]) {
        for suffix in ["-wal", "-shm", "-journal"] {
            drop(fs::remove_file(self.dir().join(format!("{VAULT_FILE}{suffix}"))));
        }
        fs::write(self.file(), bytes).unwrap();
    }

    /// What lies in the folder besides the vault and its lock.
    pub fn litter(&self) -> Vec<String> {
        let names = fs::read_dir(self.dir()).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name != VAULT_FILE && name != "lock").collect()
    }

    /// Edits the closed file as someone with sqlite3 would.
    pub fn edit(&self, sql: &str) {
        let db = rusqlite::Connection::open(self.file()).unwrap();
        db.execute_batch(sql).unwrap();
        db.close().unwrap();
    }

    /// As [`Bench::edit`], with an older generation of the file attached as `old`.
    pub fn splice(&self, old: &[u8], sql: &str) {
        let path = self.dir().join("old.db");
        fs::write(&path, old).unwrap();
        self.edit(&format!("ATTACH '{}' AS old; {sql}", path.display()));
        for suffix in ["", "-wal", "-shm"] {
            drop(fs::remove_file(format!("{}{suffix}", path.display())));
        }
    }

    pub fn look(&self) -> Look {
        Look::at(self.dir())
    }

    /// Asserts that set-up refuses the folder and touches neither it nor the TPM.
    pub fn assert_setup_refuses(&self) -> String {
        let before = self.bytes();
        let pin = Pin::new("271828").unwrap().material();
        let refused = vault_core::setup(self.dir(), &mut Untouchable, &pin, 0, &mut Seeded(0)).unwrap_err();
        assert_eq!(difference(&before, &self.bytes()), None, "set-up wrote to what it refused");
        refused.to_string()
    }
}

/// Everything that can be asked of a vault: each answer by itself, as each command would get it.
#[derive(Debug)]
pub struct Look {
    /// Who it is, or why it does not open.
    pub header: Result<(Vec<u8>, State, TpmKind, u64, Anchor), ContainerError>,
    pub accounts: Option<Result<Vec<(AccountId, Account)>, ContainerError>>,
    /// By relying party and by number, for those that an intact vault has.
    pub one_by_one: Vec<Result<Vec<(AccountId, Account)>, ContainerError>>,
    pub log: Option<Result<Log, ContainerError>>,
}

impl Look {
    pub fn at(dir: &Path) -> Self {
        Self::for_those_in(dir, &[])
    }

    /// Asks for each of `known` as well.
    pub fn for_those_in(dir: &Path, known: &[(AccountId, Account)]) -> Self {
        let store = match Container::open(dir).and_then(|container| container.unseal(&key())) {
            Ok(store) => store,
            Err(e) => return Self { header: Err(e), accounts: None, one_by_one: Vec::new(), log: None },
        };
        let header = (
            store.vault_id().to_vec(),
            store.state(),
            store.kind(),
            store.generation(),
            store.anchor().clone(),
        );
        let accounts = store.accounts();
        let known = if known.is_empty() { accounts.as_deref().unwrap_or_default() } else { known };
        let mut one_by_one = Vec::new();
        for (id, account) in known {
            one_by_one.push(store.accounts_of(&account.rp_id));
            one_by_one.push(store.account(*id).map(|account| vec![(*id, account)]));
        }
        Self { header: Ok(header), accounts: Some(accounts), one_by_one, log: Some(store.log()) }
    }

    /// The passkeys of a vault that must be intact.
    pub fn known(&self) -> Vec<(AccountId, Account)> {
        self.accounts.as_ref().unwrap().as_ref().unwrap().clone()
    }

    /// The first thing that is wrong, in words.
    pub fn error(&self) -> Option<String> {
        self.errors().first().map(ToString::to_string)
    }

    fn errors(&self) -> Vec<&ContainerError> {
        let header = self.header.as_ref().err();
        let accounts = self.accounts.as_ref().and_then(|a| a.as_ref().err());
        header
            .into_iter()
            .chain(accounts)
            .chain(self.one_by_one.iter().filter_map(|a| a.as_ref().err()))
            .chain(self.log.as_ref().and_then(|log| log.as_ref().err()))
            .collect()
    }

    /// Each answer is exactly what `intact` answers, or an error that names what is broken.
    /// Returns the errors' kinds.
    pub fn judge(&self, intact: &Look) -> Result<Vec<&'static str>, String> {
        if let Ok(header) = &self.header
            && header != intact.header.as_ref().unwrap()
        {
            return Err(format!("another header: {header:?}"));
        }
        if let Some(Ok(accounts)) = &self.accounts
            && *accounts != intact.known()
        {
            return Err(format!("other passkeys: {accounts:?}"));
        }
        for (answer, right) in self.one_by_one.iter().zip(&intact.one_by_one) {
            if let Ok(answer) = answer
                && answer != right.as_ref().unwrap()
            {
                return Err(format!("another passkey: {answer:?}"));
            }
        }
        let mut broken = None;
        if let (Some(Ok(log)), Some(Ok(right))) = (&self.log, &intact.log) {
            broken = log.broken.map(|_| "log");
            let named = |n: &u64| log.broken.is_some_and(|broken| broken <= *n);
            for ((n, entry), right) in log.entries.iter().zip(&right.entries) {
                if (n, entry) != (&right.0, &right.1) && !(entry.is_none() && named(n)) {
                    return Err(format!("another entry {n}: {entry:?}"));
                }
            }
            if log.entries.len() != right.entries.len() {
                return Err("another log".to_owned());
            }
        }
        let errors = self.errors().into_iter();
        errors
            .map(|e| kind(e).ok_or_else(|| format!("an error that names nothing: {e:?}")))
            .chain(broken.map(Ok))
            .collect()
    }
}

/// A word for an error that names what is broken.
pub fn kind(error: &ContainerError) -> Option<&'static str> {
    Some(match error {
        ContainerError::NotAVault { .. } => "not a vault",
        ContainerError::NewerFormat { .. } => "newer format",
        ContainerError::Damaged { what } => match what {
            Damage::File => "file",
            Damage::Schema => "schema",
            Damage::Header => "header",
            Damage::Row(_) => "row",
            Damage::Membership => "membership",
            Damage::Tree => "tree",
            _ => return None,
        },
        _ => return None,
    })
}

/// Where two files differ.
pub fn difference(before: &[u8], after: &[u8]) -> Option<String> {
    if before == after {
        return None;
    }
    let at: Vec<_> =
        before.iter().zip(after).enumerate().filter(|(_, (a, b))| a != b).map(|(n, _)| n).collect();
    Some(format!(
        "{} bytes became {}; they differ at {:?}",
        before.len(),
        after.len(),
        &at[..at.len().min(20)]
    ))
}

/// Says which case it was if the test ends in a panic, one of the code's own included.
pub struct Case<F: Fn() -> String>(pub F);

impl<F: Fn() -> String> Drop for Case<F> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the case: {}", (self.0)());
        }
    }
}

/// A TPM that must not be asked anything.
pub struct Untouchable;

impl KeyStore for Untouchable {
    fn release(&mut self) {}

    fn provision(
        &mut self,
        _: &PinSecrets,
        _: &ContainerKey,
        _: &mut RecordAnchor<'_>,
    ) -> Result<Provisioned, KeyStoreError> {
        panic!("a vault was set up over another")
    }

    fn container_key(&mut self, _: &Anchor) -> Result<ContainerKey, KeyStoreError> {
        panic!("the container key was read")
    }

    fn unlock<'a>(
        &'a mut self,
        _: &Anchor,
        _: &PinSecrets,
    ) -> Result<Box<dyn UnlockedKeys + 'a>, KeyStoreError> {
        panic!("the PIN was tried")
    }

    fn check_recovery(&mut self, _: &Anchor, _: &RecoverySecrets) -> Result<(), KeyStoreError> {
        panic!("a recovery code was tried")
    }

    fn reset_pin<'a>(
        &'a mut self,
        _: &Anchor,
        _: &RecoverySecrets,
        _: &PinSecrets,
    ) -> Result<Box<dyn UnlockedKeys + 'a>, KeyStoreError> {
        panic!("the PIN was reset")
    }

    fn sign_present(
        &mut self,
        _: &Anchor,
        _: &PresenceParent,
        _: &KeyBlob,
        _: &[u8; 32],
    ) -> Result<Signature, KeyStoreError> {
        panic!("a key was used")
    }

    fn prf_present(
        &mut self,
        _: &Anchor,
        _: &PresenceParent,
        _: &KeyBlob,
        _: &[Secret],
    ) -> Result<Vec<Secret>, KeyStoreError> {
        panic!("a key was used")
    }

    fn status(&mut self, _: Option<&Anchor>) -> Result<TpmStatus, KeyStoreError> {
        panic!("the TPM was asked for its status")
    }

    fn erase(&mut self, _: &Anchor, _: Mandate) -> Result<Erased, KeyStoreError> {
        panic!("a vault's keys were erased")
    }
}
