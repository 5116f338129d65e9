//! Every error, from what brings it about.

use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use vault_core::{
    Secret,
    container::{Account, Container, ContainerError, Damage, Deed, LOCK_FILE, VAULT_FILE, Vacancy},
    keystore::{Anchor, TpmKind},
    secret_from,
};

use crate::bench::{Bench, Look, Seeded, VAULT_ID, account, difference, id, key};

fn open(bench: &Bench) -> ContainerError {
    Container::open(bench.dir()).and_then(|c| c.unseal(&key())).err().expect("it opened")
}

/// Edits a small vault, and asserts that it then does not open and is left alone.
fn refused(sql: &str) -> ContainerError {
    let bench = Bench::small();
    bench.edit(sql);
    left_alone(&bench)
}

/// Asserts that the file is not opened, nor changed by it.
fn left_alone(bench: &Bench) -> ContainerError {
    let before = bench.bytes();
    let error = open(bench);
    assert_eq!(difference(&before, &bench.bytes()), None, "opening changed the file: {error}");
    bench.assert_setup_refuses();
    error
}

#[test]
fn a_folder_without_a_vault_is_told() {
    let bench = Bench::empty();
    let error = open(&bench);
    assert!(matches!(&error, ContainerError::NotFound { dir } if dir == bench.dir()));
    assert_eq!(error.to_string(), format!("there is no vault in {}", bench.dir().display()));
    // Nothing is made by looking.
    assert_eq!(fs::read_dir(bench.dir()).unwrap().count(), 0);
}

/// What is not authentic yet is not fetched where it is longer than we ever wrote: another user's file is read in a process that
/// has everybody's.
#[test]
fn a_header_of_any_length_is_refused_before_it_is_read() {
    for column in ["anchor", "settings"] {
        let error = refused(&format!("UPDATE header SET {column} = zeroblob(300000000)"));
        assert!(matches!(error, ContainerError::Damaged { what: Damage::Header }), "{column}: {error}");
    }
}

#[test]
fn a_vault_is_never_made_over_another() {
    let bench = Bench::small();
    let before = bench.bytes();
    let error = Vacancy::reserve(bench.dir()).unwrap_err();
    assert!(matches!(&error, ContainerError::Exists { dir } if dir == bench.dir()));
    let text = format!("there is a vault in {} already", bench.dir().display());
    assert_eq!(error.to_string(), text);
    assert_eq!(bench.assert_setup_refuses(), text);
    assert_eq!(bench.bytes(), before);
}

#[test]
fn a_vault_in_use_names_the_process_that_uses_it() {
    let bench = Bench::small();
    let held = Container::open(bench.dir()).unwrap();
    let pid = std::process::id();
    for error in [open(&bench), Vacancy::reserve(bench.dir()).unwrap_err()] {
        assert!(matches!(error, ContainerError::Busy { holder: Some(holder) } if holder == pid));
        assert_eq!(error.to_string(), format!("the vault is busy: process {pid} uses it"));
    }
    assert_eq!(bench.assert_setup_refuses(), format!("the vault is busy: process {pid} uses it"));
    let store = held.unseal(&key()).unwrap();
    assert!(matches!(open(&bench), ContainerError::Busy { .. }));
    drop(store);
    assert_eq!(bench.look().known().len(), 3);
}

#[test]
fn a_lock_whose_holder_left_no_number_still_holds() {
    let bench = Bench::small();
    let held = Container::open(bench.dir()).unwrap();
    fs::write(bench.dir().join(LOCK_FILE), "").unwrap();
    let error = open(&bench);
    assert!(matches!(error, ContainerError::Busy { holder: None }));
    assert_eq!(error.to_string(), "the vault is busy: another process uses it");
    drop(held);
    // A number left by a process that is gone holds nothing.
    fs::write(bench.dir().join(LOCK_FILE), "1\n").unwrap();
    assert_eq!(bench.look().known().len(), 3);
}

#[test]
fn other_files_are_not_vaults_and_stay_as_they_are() {
    let bench = Bench::small();
    let sqlite = {
        let other = Bench::empty();
        let db = rusqlite::Connection::open(other.file()).unwrap();
        db.execute_batch("CREATE TABLE diary (day TEXT); INSERT INTO diary VALUES ('monday')").unwrap();
        db.close().unwrap();
        other.bytes()
    };
    for (what, bytes) in [
        (
            "text",
            b"not a database, but longer than SQLite's header of a hundred bytes, so that it is read: "
                .repeat(60),
        ),
        ("short text", b"hello".to_vec()),
        ("zeros", vec![0; 8192]),
        ("another program's database", sqlite),
        ("nothing", Vec::new()),
    ] {
        bench.put(&bytes);
        let error = open(&bench);
        assert!(
            matches!(&error, ContainerError::NotAVault { path } if *path == bench.file()),
            "{what}: {error:?}"
        );
        assert_eq!(difference(&bytes, &bench.bytes()), None, "opening changed {what}");
        bench.assert_setup_refuses();
    }
    let error = refused("PRAGMA application_id = 0");
    assert!(matches!(error, ContainerError::NotAVault { .. }));
}

#[test]
fn a_newer_format_is_told() {
    let error = refused("PRAGMA user_version = 3");
    assert!(matches!(error, ContainerError::NewerFormat { found: 3, known: 2 }));
    assert_eq!(error.to_string(), "the vault has format 3; this Passhold knows up to 2");
    assert!(matches!(refused("PRAGMA user_version = 2147483647"), ContainerError::NewerFormat { .. }));
}

#[test]
fn another_schema_is_refused() {
    for sql in [
        "PRAGMA user_version = 0",
        "PRAGMA user_version = -1",
        "CREATE TRIGGER t AFTER INSERT ON passkey BEGIN DELETE FROM passkey; END",
        "CREATE VIEW v AS SELECT * FROM passkey",
        "CREATE TABLE more (x)",
        "CREATE INDEX more ON passkey (rp_tag)",
        "ALTER TABLE passkey ADD COLUMN more TEXT",
        "ALTER TABLE passkey RENAME COLUMN sealed TO opened",
        "ALTER TABLE tries RENAME TO passkeys",
        "DROP INDEX passkey_by_bucket",
        "DROP TABLE tries",
        "DROP TABLE passkey",
        "DROP TABLE passkey; CREATE VIEW passkey AS SELECT 1 AS id, 2 AS bucket, x'00' AS rp_tag, x'00' AS sealed",
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, ' STRICT', '') WHERE name = 'passkey'",
        "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, 'BLOB', 'TEXT') WHERE name = 'tree'",
        "PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = 'passkey_by_bucket'",
    ] {
        let error = refused(sql);
        assert!(matches!(error, ContainerError::Damaged { what: Damage::Schema }), "{sql}: {error:?}");
        assert_eq!(error.to_string(), "the vault is damaged: its tables are not the ones Passhold made");
    }
}

#[test]
fn a_number_that_no_passkey_has_is_told() {
    let bench = Bench::small();
    let mut store = bench.store();
    let none = id(99);
    let renamed = account("alice.example", "alice", 1);
    let errors = [
        store.account(none).unwrap_err(),
        store.update(Deed::Rename, none, &renamed, &mut Seeded(1)).unwrap_err(),
        store.remove(none).unwrap_err(),
    ];
    for error in errors {
        assert!(matches!(error, ContainerError::NoSuchAccount { id } if id == none));
        assert_eq!(error.to_string(), "there is no passkey 99");
    }
    assert_eq!(store.generation(), 3);
}

#[test]
fn a_folder_that_is_a_file_is_an_input_output_error_that_names_it() {
    let bench = Bench::empty();
    let file = bench.dir().join("file");
    fs::write(&file, "").unwrap();
    let error = Vacancy::reserve(&file).unwrap_err();
    assert!(matches!(&error, ContainerError::Io { path, .. } if *path == file), "{error:?}");
    assert_eq!(error.to_string(), format!("cannot use {}", file.display()));
    // And a lock that cannot be opened.
    let bench = Bench::small();
    fs::remove_file(bench.dir().join(LOCK_FILE)).unwrap();
    fs::create_dir(bench.dir().join(LOCK_FILE)).unwrap();
    assert!(matches!(open(&bench), ContainerError::Io { path, .. } if path == bench.dir().join(LOCK_FILE)));
}

#[test]
fn a_link_or_a_folder_in_the_files_place_is_not_followed() {
    let (bench, elsewhere) = (Bench::small(), Bench::small());
    let before = elsewhere.bytes();
    fs::remove_file(bench.file()).unwrap();
    symlink(elsewhere.file(), bench.file()).unwrap();
    assert!(matches!(open(&bench), ContainerError::Database(_)));
    assert_eq!(elsewhere.bytes(), before);
    fs::remove_file(bench.file()).unwrap();
    fs::create_dir(bench.file()).unwrap();
    assert!(matches!(open(&bench), ContainerError::Database(_)));
}

#[test]
fn a_corrupt_page_is_told() {
    let bench = Bench::small();
    let mut bytes = bench.bytes();
    let pages = bytes.len() / 4096;
    for page in 1..pages {
        bytes[page * 4096] = 0xff;
    }
    bench.put(&bytes);
    let error = bench.look().error().unwrap();
    assert_eq!(error, "the vault is damaged: the database file is corrupt");
}

#[test]
fn another_machines_key_does_not_open_the_header() {
    let bench = Bench::small();
    let other: Secret = secret_from(|out| out.fill(1));
    let error = Container::open(bench.dir()).unwrap().unseal(&other).err().unwrap();
    assert!(matches!(error, ContainerError::Damaged { what: Damage::Header }));
}

#[test]
fn only_the_user_can_read_the_folder_and_what_is_in_it() {
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    let bench = Bench::empty();
    let dir = bench.dir().join("share").join("passhold");
    let container = Vacancy::reserve(&dir).unwrap().create(VAULT_ID, &Anchor(vec![7]), &key()).unwrap();
    container.activate(TpmKind::Firmware, &key(), 0).unwrap();
    let mut store = container.unseal(&key()).unwrap();
    store.insert(&account("a.example", "a", 1), &mut Seeded(1)).unwrap();
    store.set_wrong_pins(1).unwrap();
    assert_eq!(mode(&dir), 0o700);
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(mode(&path), 0o600, "{}", path.display());
        names.push(path.file_name().unwrap().to_str().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(names, ["lock", "vault.db", "vault.db-wal"]);
}

/// A crash leaves a write-ahead log; someone then deletes vault.db alone and sets up anew.
#[test]
fn the_log_of_a_former_vault_does_not_get_into_a_new_one() {
    let old = Bench::small();
    let db = rusqlite::Connection::open(old.dir().join(VAULT_FILE)).unwrap();
    db.execute_batch("PRAGMA journal_mode = WAL; INSERT INTO tries VALUES (0, 5)").unwrap();
    let log = fs::read(old.dir().join(format!("{VAULT_FILE}-wal"))).unwrap();
    assert_ne!(log.len(), 0);
    let bench = Bench::empty();
    fs::write(bench.dir().join(format!("{VAULT_FILE}-wal")), log).unwrap();
    let container = Vacancy::reserve(bench.dir()).unwrap().create([1; 16], &Anchor(vec![8]), &key()).unwrap();
    container.activate(TpmKind::Firmware, &key(), 0).unwrap();
    drop(container);
    let store = bench.store();
    assert_eq!((store.vault_id(), store.wrong_pins()), (&[1; 16], 0));
    assert_eq!(store.accounts().unwrap(), []);
}

#[test]
fn passholds_own_count_of_wrong_pins_is_kept_and_is_only_a_hint() {
    let bench = Bench::small();
    assert_eq!(bench.store().wrong_pins(), 0);
    bench.store().set_wrong_pins(3).unwrap();
    assert_eq!(bench.store().wrong_pins(), 3);
    // No log stays behind, to be replayed into whatever file is put here next.
    let mut store = bench.store();
    store.set_wrong_pins(3).unwrap();
    let log = bench.dir().join(format!("{VAULT_FILE}-wal"));
    assert_eq!(fs::metadata(log).unwrap().len(), 0);
    drop(store);
    bench.edit("DELETE FROM tries");
    assert_eq!(bench.store().wrong_pins(), 0);
    bench.edit("INSERT INTO tries VALUES (0, -1)");
    assert_eq!(bench.store().wrong_pins(), 0);
    assert_eq!(bench.look().known().len(), 3);
}

#[test]
fn the_file_tells_a_thief_no_name() {
    let bench = Bench::lived_in();
    let bytes = bench.bytes();
    let Account { credential_id, .. } = &bench.look().known()[0].1;
    let needles: [&[u8]; 6] =
        [b"rp0.example", b"example", b"user1", b"Example", b"work", credential_id.as_bytes()];
    for needle in needles {
        assert!(!bytes.windows(needle.len()).any(|window| window == needle));
    }
    assert_eq!(Look::at(bench.dir()).known().len(), 12);
}
