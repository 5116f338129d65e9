//! What an old copy of the file is worth, and what is left after a wipe or a set-up that was cut short.
#![allow(
    clippy::pedantic,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use std::{
    collections::BTreeSet,
    fs,
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
};

use swtpm_tests::{
    PIN, Scene, creation_options, key_store, pin,
    proxy::{Fault, FaultKind, Proxy, command_name},
    request_options, rng, scale,
};
use tpm_backend::{Tpm, swtpm::Swtpm};
use vault_core::{
    CeremonyError, OpenError, Restored, UnlockError, Vault, VaultError, Wiped,
    container::{AccountId, Container, ContainerError, LOCK_FILE, State, VAULT_FILE},
    keystore::{KeyStore, KeyStoreError},
    setup,
    webauthn::{CreateRequest, GetRequest, Origin, UserPresent},
    wipe,
};

const NV_WRITE: u32 = 0x137;
/// `TPM_RC_FAILURE`, which libtss2 does not try again.
const FAILURE: u32 = 0x101;

/// Tests start programs, and a program's start holds copies of every open file for a moment, another test's
/// locked vault among them (fork, then exec). So one test at a time.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn origin() -> Origin {
    Origin::parse("https://example.org").unwrap()
}

fn enroll(dir: &Path, keys: &mut dyn KeyStore, user: &str) -> Result<AccountId, CeremonyError> {
    let request = CreateRequest::from_json(&creation_options("example.org", user, "none"), origin()).unwrap();
    let mut vault = Vault::open(dir, keys).unwrap();
    let unlocked = vault.unlock(&pin(PIN)).unwrap();
    unlocked.enroll(&request, None, UserPresent::confirmed(), 0, &mut rng()).map(|(id, _)| id)
}

fn delete(dir: &Path, keys: &mut dyn KeyStore, id: AccountId) {
    Vault::open(dir, keys).unwrap().unlock(&pin(PIN)).unwrap().delete(id, 0, &mut rng()).unwrap();
}

/// The passkeys, from the opened vault.
fn ids(dir: &Path, keys: &mut dyn KeyStore) -> Vec<AccountId> {
    Vault::open(dir, keys).unwrap().accounts().unwrap().into_iter().map(|(id, _)| id).collect()
}

/// Signs with every passkey there is; says how many signatures that made. What it was refused with stands
/// in the output of a failed test.
fn signatures(dir: &Path, keys: &mut dyn KeyStore, typed: &str) -> usize {
    let ids: Vec<_> = match Vault::open(dir, keys).map(|vault| vault.accounts()) {
        Ok(Ok(accounts)) => accounts.into_iter().map(|(id, _)| id).collect(),
        other => {
            println!("no passkeys: {:?}", other.err());
            return 0;
        }
    };
    let signed = ids.into_iter().map(|id| sign(dir, keys, typed, id));
    signed.filter(|signed| signed.as_ref().inspect_err(|e| println!("no signature: {e:?}")).is_ok()).count()
}

/// Signs in; the response is only given after the signature was verified under the passkey's public key.
fn sign(
    dir: &Path,
    keys: &mut dyn KeyStore,
    typed: &str,
    id: AccountId,
) -> Result<(), Box<dyn std::error::Error>> {
    let request = GetRequest::from_json(&request_options("example.org"), origin())?;
    let mut vault = Vault::open(dir, keys)?;
    vault.unlock(&pin(typed))?.sign(&request, id, UserPresent::confirmed(), 0, &mut rng())?;
    Ok(())
}

fn copy(dir: &Path) -> Vec<u8> {
    fs::read(dir.join(VAULT_FILE)).unwrap()
}

fn put(dir: &Path, bytes: &[u8]) {
    fs::write(dir.join(VAULT_FILE), bytes).unwrap();
}

fn unlock_error(dir: &Path, keys: &mut dyn KeyStore) -> Option<UnlockError> {
    Vault::open(dir, keys).unwrap().unlock(&pin(PIN)).err()
}

#[test]
fn each_older_generation_is_refused_and_the_newest_still_works() {
    let _alone = alone();
    let scene = Scene::with_vault();
    let (dir, mut tpm) = (scene.dir(), scene.tpm.key_store());
    let generations = scale(12, 100);
    let mut files = vec![copy(dir)];
    let mut held = Vec::new();
    for n in 0..generations {
        if n % 3 == 2 {
            delete(dir, &mut tpm, held.remove(0));
        } else {
            held.push(enroll(dir, &mut tpm, &format!("user{n}")).unwrap());
        }
        files.push(copy(dir));
    }
    let newest = files.pop().unwrap();
    for (generation, file) in files.iter().enumerate() {
        put(dir, file);
        let error = unlock_error(dir, &mut tpm).expect("it opened");
        let (old, new) = (generation as u64, generations as u64);
        assert!(
            matches!(error, UnlockError::RolledBack { file, tpm } if (file, tpm) == (old, new)),
            "{error:?}"
        );
        let text = format!(
            "the vault's file is an old copy: it holds change {old}, and the TPM remembers change {new}"
        );
        assert_eq!(error.to_string(), text);
        assert_eq!(copy(dir), *file, "the refusal changed the file");
    }
    put(dir, &newest);
    assert_eq!(ids(dir, &mut tpm), held);
    assert_eq!(signatures(dir, &mut tpm, PIN), held.len());
    println!(
        "rollback: {} older generations refused, {} passkeys sign after putting back the newest",
        files.len(),
        held.len()
    );
}

#[test]
fn a_copy_from_before_a_pin_change_opens_with_the_new_pin_only() {
    let _alone = alone();
    let scene = Scene::with_vault();
    let (dir, mut tpm) = (scene.dir(), scene.tpm.key_store());
    let id = enroll(dir, &mut tpm, "alice").unwrap();
    let old = copy(dir);
    Vault::open(dir, &mut tpm)
        .unwrap()
        .unlock(&pin(PIN))
        .unwrap()
        .change_pin(&pin("a new one"), &mut rng())
        .unwrap();
    put(dir, &old);
    assert!(matches!(unlock_error(dir, &mut tpm), Some(UnlockError::WrongPin)));
    assert_eq!(signatures(dir, &mut tpm, PIN), 0);
    assert_eq!(signatures(dir, &mut tpm, "a new one"), 1);
    assert_eq!(ids(dir, &mut tpm), [id]);
}

#[test]
fn a_copy_from_before_a_delete_is_refused_and_signs_nothing() {
    let _alone = alone();
    let scene = Scene::with_vault();
    let (dir, mut tpm) = (scene.dir(), scene.tpm.key_store());
    let id = enroll(dir, &mut tpm, "alice").unwrap();
    let old = copy(dir);
    delete(dir, &mut tpm, id);
    put(dir, &old);
    let error = unlock_error(dir, &mut tpm);
    assert!(matches!(error, Some(UnlockError::RolledBack { file: 1, tpm: 2 })), "{error:?}");
    assert_eq!(signatures(dir, &mut tpm, PIN), 0);
}

/// The last write of an operation: the index of the command that makes the TPM remember.
fn last_write(proxy: &Proxy) -> usize {
    proxy.codes().iter().rposition(|code| *code == NV_WRITE).unwrap()
}

#[test]
fn a_file_one_ahead_of_the_tpm_is_healed() {
    let _alone = alone();
    let mut scene = Scene::with_vault();
    let proxy = Proxy::start(scene.tpm.port()).unwrap();
    let dir = &scene.dir().to_owned();
    // The first key that a TPM makes costs a command more, while it tests itself (TPM_RC_TESTING).
    let first = enroll(dir, &mut scene.tpm.key_store(), "ahead of all").unwrap();
    delete(dir, &mut scene.tpm.key_store(), first);
    enroll(dir, &mut key_store(&proxy.tcti()), "alice").unwrap();
    let at = last_write(&proxy);
    for (user, fault) in [
        ("bob", ("refused", Fault::continuous(at, FaultKind::Refuse(FAILURE)))),
        ("carol", ("cut", Fault::once(at, FaultKind::CutBefore))),
        ("dan", (CRASH, Fault::continuous(at, FaultKind::EndOfStream))),
    ] {
        let (enrolled, mut tpm) = under(&mut scene, &proxy, fault, |dir, tpm| enroll(dir, tpm, user));
        let error = enrolled.unwrap_err();
        assert!(matches!(error, CeremonyError::KeyStore(_)), "{error:?}");
        assert_ne!(proxy.fired(), 0);
        // One unlocking heals it: the next says the same number on both sides.
        for _ in 0..2 {
            let unlocked = unlock_error(dir, &mut tpm);
            assert!(unlocked.is_none(), "{unlocked:?}");
        }
    }
    let mut tpm = key_store(&proxy.tcti());
    assert_eq!(signatures(dir, &mut tpm, PIN), 4);
    let before = copy(dir);
    let first = ids(dir, &mut tpm)[0];
    delete(dir, &mut tpm, first);
    let after = copy(dir);
    put(dir, &before);
    // Exactly one step was healed each time: the copy is one behind, and names both numbers.
    assert!(matches!(unlock_error(dir, &mut tpm), Some(UnlockError::RolledBack { file: 6, tpm: 7 })));
    put(dir, &after);
    assert_eq!(signatures(dir, &mut tpm, PIN), 3);
}

/// The NV indices that the TPM holds.
fn indices(scene: &Scene) -> BTreeSet<String> {
    let output = scene.tpm.tool("tpm2_getcap", &["handles-nv-index"]).unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    String::from_utf8(output.stdout).unwrap().lines().map(str::to_owned).collect()
}

/// Transient objects and loaded sessions: what a failure may leave behind.
fn loaded(scene: &Scene) -> String {
    let list = |what| scene.tpm.tool("tpm2_getcap", &[what]).unwrap().stdout;
    String::from_utf8([list("handles-transient"), list("handles-loaded-session")].concat()).unwrap()
}

/// That nothing stays loaded is another test's claim; here it must only not add up over the cases.
fn restart_if_something_is_loaded(scene: &mut Scene, proxy: &Proxy) -> bool {
    let something = !loaded(scene).is_empty();
    if something {
        scene.tpm.reboot().unwrap();
        proxy.set_upstream(scene.tpm.port());
    }
    something
}

fn files(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// How a command is lost: refused once, refused and everything after it, executed without an answer, and
/// the end of the connection and of the machine with it.
fn losses(at: usize) -> [(&'static str, Fault); 4] {
    [
        ("refused once", Fault::once(at, FaultKind::Refuse(FAILURE))),
        ("refused from here on", Fault::continuous(at, FaultKind::Refuse(FAILURE))),
        ("executed, answer lost", Fault::once(at, FaultKind::CutAfter)),
        (CRASH, Fault::continuous(at, FaultKind::EndOfStream)),
    ]
}

const CRASH: &str = "crash";

/// Runs `operation` under a fault, and gives the key store that the next start has: the same one, which
/// has yet to clear up what the fault left loaded, or after a crash a new one on a restarted TPM.
fn under<T>(
    scene: &mut Scene,
    proxy: &Proxy,
    (what, fault): (&str, Fault),
    operation: impl FnOnce(&Path, &mut Tpm) -> T,
) -> (T, Tpm) {
    let mut tpm = key_store(&proxy.tcti());
    proxy.arm(fault);
    let result = operation(scene.dir(), &mut tpm);
    proxy.disarm();
    if what == CRASH {
        drop(tpm);
        scene.tpm.reboot().unwrap();
        proxy.set_upstream(scene.tpm.port());
        tpm = key_store(&proxy.tcti());
    }
    (result, tpm)
}

#[test]
fn a_wipe_cut_short_at_any_command_completes_at_the_next_start() {
    let _alone = alone();
    let (mut cases, mut left_loaded) = (0, 0);
    let (mut completed_by_start, mut completed_by_wipe, mut done) = (0, 0, 0);
    let commands = {
        let scene = Scene::with_vault();
        let proxy = Proxy::start(scene.tpm.port()).unwrap();
        wipe(scene.dir(), &mut key_store(&proxy.tcti())).unwrap();
        proxy.codes()
    };
    let mut scene = Scene::empty();
    let proxy = Proxy::start(scene.tpm.port()).unwrap();
    let (dir, none) = (&scene.dir().to_owned(), indices(&scene));
    let mut kept = Vec::new();
    for at in (0..commands.len()).step_by(scale(3, 1)) {
        for (what, fault) in losses(at) {
            let case = format!("{} ({at}) {what}", command_name(commands[at]));
            let mut tpm = scene.tpm.key_store();
            setup(dir, &mut tpm, &pin(PIN), 0, &mut rng()).unwrap_or_else(|e| panic!("{case}: {e:?}"));
            enroll(dir, &mut tpm, "alice").unwrap();
            let copy = copy(dir);
            let (wiped, mut tpm) = under(&mut scene, &proxy, (what, fault), |dir, tpm| wipe(dir, tpm));
            match (wiped, Vault::open(dir, &mut tpm).map(drop)) {
                (Err(_), Err(OpenError::Wiped(_))) => completed_by_start += 1,
                // Before anything was begun: the vault is whole.
                (Err(_), Ok(())) => {
                    assert_eq!(signatures(dir, &mut tpm, PIN), 1, "{case}");
                    wipe(dir, &mut tpm).unwrap_or_else(|e| panic!("{case}: {e:?}"));
                    completed_by_wipe += 1;
                }
                (Ok(Wiped::SecretAndFile), Err(OpenError::Container(ContainerError::NotFound { .. }))) => {
                    done += 1
                }
                other => panic!("{case}: {other:?}"),
            }
            let again = Vault::open(dir, &mut tpm).map(drop);
            assert!(
                matches!(again, Err(OpenError::Container(ContainerError::NotFound { .. }))),
                "{case}: {again:?}"
            );
            drop(tpm);
            assert_eq!(indices(&scene), none, "{case}");
            assert_eq!(files(dir), [LOCK_FILE], "{case}");
            left_loaded += usize::from(restart_if_something_is_loaded(&mut scene, &proxy));
            kept.push((case, copy));
            cases += 1;
        }
    }
    let mut tpm = scene.tpm.key_store();
    for (case, copy) in &kept {
        put(dir, copy);
        let error = Vault::open(dir, &mut tpm).map(drop).unwrap_err();
        assert!(matches!(error, OpenError::KeyStore(KeyStoreError::Erased)), "{case}: {error:?}");
        assert_eq!(signatures(dir, &mut tpm, PIN), 0, "{case}");
    }
    println!(
        "wipe: cut short in {cases} ways over {} commands: {completed_by_start} completed at the next start, {completed_by_wipe} had not begun, {done} finished in spite of it; {} kept copies with the right PIN made 0 signatures; something stayed loaded {left_loaded} times",
        commands.len(),
        kept.len(),
    );
}

#[test]
fn a_copy_kept_from_before_a_wipe_signs_nothing_while_the_wipe_is_half_done() {
    let _alone = alone();
    let mut scene = Scene::empty();
    let proxy = Proxy::start(scene.tpm.port()).unwrap();
    let dir = &scene.dir().to_owned();
    let mut tpm = scene.tpm.key_store();
    setup(dir, &mut tpm, &pin(PIN), 0, &mut rng()).unwrap();
    enroll(dir, &mut tpm, "alice").unwrap();
    drop(tpm);
    let (copy, before) = (copy(dir), indices(&scene).len());
    // One command more each time, until the first index, which holds the secret, is gone.
    for at in 0.. {
        let (wiped, _) =
            under(&mut scene, &proxy, (CRASH, Fault::continuous(at, FaultKind::EndOfStream)), |dir, tpm| {
                wipe(dir, tpm)
            });
        assert!(wiped.is_err());
        if indices(&scene).len() < before {
            break;
        }
    }
    let mut tpm = scene.tpm.key_store();
    assert_eq!(indices(&scene).len(), before - 1);
    put(dir, &copy);
    let error = unlock_error(dir, &mut tpm);
    assert!(matches!(error, Some(UnlockError::KeyStore(KeyStoreError::Erased))), "{error:?}");
    assert_eq!(signatures(dir, &mut tpm, PIN), 0);
    // The copy says nothing of the wipe; asked to wipe, it completes it.
    wipe(dir, &mut tpm).unwrap();
    assert_eq!(indices(&scene).len(), before - 4);
}

#[test]
fn a_set_up_cut_short_at_any_command_leaves_nothing() {
    let _alone = alone();
    let commands = {
        let scene = Scene::empty();
        let proxy = Proxy::start(scene.tpm.port()).unwrap();
        setup(scene.dir(), &mut key_store(&proxy.tcti()), &pin(PIN), 0, &mut rng()).unwrap();
        proxy.codes()
    };
    let mut scene = Scene::empty();
    let proxy = Proxy::start(scene.tpm.port()).unwrap();
    // A vault of someone else, which must stay as it is.
    let other = tempfile::tempdir().unwrap();
    let mut tpm = scene.tpm.key_store();
    setup(other.path(), &mut tpm, &pin(PIN), 0, &mut rng()).unwrap();
    enroll(other.path(), &mut tpm, "bob").unwrap();
    let (dir, before) = (&scene.dir().to_owned(), indices(&scene));
    let (mut cases, mut finished, mut left_loaded) = (0, 0, 0);
    for at in (0..commands.len()).step_by(scale(3, 1)) {
        for (what, fault) in losses(at) {
            let case = format!("{} ({at}) {what}", command_name(commands[at]));
            let (made, mut tpm) = under(&mut scene, &proxy, (what, fault), |dir, tpm| {
                setup(dir, tpm, &pin(PIN), 0, &mut rng())
            });
            if made.is_ok() {
                // A fault that cost nothing, or that came after the last command.
                finished += 1;
            } else {
                let opened = Vault::open(dir, &mut tpm).map(drop);
                let nothing = matches!(
                    opened,
                    Err(OpenError::Unfinished | OpenError::Container(ContainerError::NotFound { .. }))
                );
                assert!(nothing, "{case}: {opened:?}");
                setup(dir, &mut tpm, &pin(PIN), 0, &mut rng()).unwrap_or_else(|e| panic!("{case}: {e:?}"));
            }
            tpm = key_store(&proxy.tcti());
            let now = indices(&scene);
            assert!(now.is_superset(&before), "{case}");
            assert_eq!(now.len(), before.len() + 4, "{case}");
            left_loaded += usize::from(restart_if_something_is_loaded(&mut scene, &proxy));
            assert_eq!(files(dir), [LOCK_FILE, VAULT_FILE], "{case}");
            enroll(dir, &mut tpm, "alice").unwrap();
            assert_eq!(signatures(dir, &mut tpm, PIN), 1, "{case}");
            wipe(dir, &mut tpm).unwrap();
            assert_eq!(indices(&scene), before, "{case}");
            cases += 1;
        }
    }
    assert_eq!(signatures(other.path(), &mut scene.tpm.key_store(), PIN), 1);
    println!(
        "set-up: cut short in {cases} ways over {} commands; {finished} finished in spite of it; each time the next one works and the TPM holds three indices more; something stayed loaded {left_loaded} times",
        commands.len()
    );
}

#[test]
fn set_up_over_a_vault_is_refused_and_loses_nothing() {
    let _alone = alone();
    let scene = Scene::with_vault();
    let proxy = Proxy::start(scene.tpm.port()).unwrap();
    let (dir, mut tpm) = (scene.dir(), key_store(&proxy.tcti()));
    let id = enroll(dir, &mut tpm, "alice").unwrap();
    let (file, nv) = (copy(dir), indices(&scene));
    proxy.clear_record();
    let error = setup(dir, &mut tpm, &pin("another"), 0, &mut rng()).unwrap_err();
    assert!(
        matches!(&error, VaultError::Container(ContainerError::Exists { dir: there }) if there == dir),
        "{error:?}"
    );
    assert_eq!(proxy.codes(), [0_u32; 0], "the TPM was asked something");
    assert_eq!((copy(dir), indices(&scene)), (file, nv));
    assert_eq!(ids(dir, &mut tpm), [id]);
    assert_eq!(signatures(dir, &mut tpm, PIN), 1);
    assert_eq!(Container::open(dir).unwrap().state().unwrap(), State::Active);
}

#[test]
fn an_old_copy_is_let_in_by_the_pin_alone_and_every_other_copy_is_an_old_one_then() {
    let _alone = alone();
    let scene = Scene::with_vault();
    let dir = &scene.dir().to_owned();
    let mut tpm = scene.tpm.key_store();
    let mut copies = Vec::new();
    for user in ["alice", "bob", "carol"] {
        enroll(dir, &mut tpm, user).unwrap();
        copies.push(copy(dir));
    }
    put(dir, &copies[0]);
    {
        let mut vault = Vault::open(dir, &mut tpm).unwrap();
        let refused = vault.accept_old_copy(&pin("another"), &mut rng()).unwrap_err();
        assert!(matches!(refused, UnlockError::WrongPin), "{refused:?}");
        assert!(matches!(
            vault.unlock(&pin(PIN)).map(drop),
            Err(UnlockError::RolledBack { file: 1, tpm: 3 })
        ));
        assert_eq!(vault.accept_old_copy(&pin(PIN), &mut rng()).unwrap(), Restored::Accepted { lost: 2 });
        assert_eq!(vault.accept_old_copy(&pin(PIN), &mut rng()).unwrap(), Restored::WasLatest);
    }
    assert_eq!(signatures(dir, &mut tpm, PIN), 1);
    let accepted = copy(dir);
    for old in &copies {
        put(dir, old);
        assert!(matches!(unlock_error(dir, &mut tpm), Some(UnlockError::RolledBack { tpm: 4, .. })));
    }
    put(dir, &accepted);
    enroll(dir, &mut tpm, "dave").unwrap();
    assert_eq!(signatures(dir, &mut tpm, PIN), 2);
}

/// As a snapshot of a virtual machine puts its TPM back, and not a disk of its own.
#[test]
fn a_tpm_that_was_put_back_is_told_so_and_catches_up_after_the_pin() {
    let _alone = alone();
    let (home, dir) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let state = home.path().join("tpm");
    fs::create_dir(&state).unwrap();
    let start = || Swtpm::start(&state).unwrap();
    let swtpm = start();
    let mut tpm = key_store(&swtpm.tcti());
    setup(dir.path(), &mut tpm, &pin(PIN), 0, &mut rng()).unwrap();
    enroll(dir.path(), &mut tpm, "alice").unwrap();
    drop((tpm, swtpm));
    let snapshot: Vec<_> = fs::read_dir(&state)
        .unwrap()
        .map(|file| file.unwrap().path())
        .filter(|file| file.is_file())
        .map(|file| (file.clone(), fs::read(file).unwrap()))
        .collect();
    let swtpm = start();
    let mut tpm = key_store(&swtpm.tcti());
    for user in ["bob", "carol"] {
        enroll(dir.path(), &mut tpm, user).unwrap();
    }
    drop((tpm, swtpm));
    for (file, contents) in snapshot {
        fs::write(file, contents).unwrap();
    }
    let swtpm = start();
    let mut tpm = key_store(&swtpm.tcti());
    let refused = unlock_error(dir.path(), &mut tpm).unwrap();
    assert_eq!(
        refused.to_string(),
        "the vault's file is newer than what the TPM remembers: it holds change 3, and the TPM remembers change 1"
    );
    let mut vault = Vault::open(dir.path(), &mut tpm).unwrap();
    assert!(matches!(vault.accept_old_copy(&pin("another"), &mut rng()), Err(UnlockError::WrongPin)));
    assert_eq!(vault.accept_old_copy(&pin(PIN), &mut rng()).unwrap(), Restored::TpmCaughtUp);
    drop(vault);
    assert_eq!(signatures(dir.path(), &mut tpm, PIN), 3);
}

#[test]
fn letting_an_old_copy_in_cut_short_at_any_command_loses_nothing() {
    let _alone = alone();
    let mut scene = Scene::with_vault();
    let dir = &scene.dir().to_owned();
    let proxy = Proxy::start(scene.tpm.port()).unwrap();
    let mut tpm = scene.tpm.key_store();
    enroll(dir, &mut tpm, "alice").unwrap();
    let accept = |dir: &Path, tpm: &mut Tpm| {
        Vault::open(dir, tpm)
            .map_err(|e| format!("{e:?}"))?
            .accept_old_copy(&pin(PIN), &mut rng())
            .map_err(|e| format!("{e:?}"))
    };
    let mut old = copy(dir);
    let mut ends = [0, 0];
    for at in 0.. {
        enroll(dir, &mut tpm, "bob").unwrap();
        drop(tpm);
        put(dir, &old);
        let fault = (CRASH, Fault::continuous(at, FaultKind::EndOfStream));
        let (accepted, _) = under(&mut scene, &proxy, fault, accept);
        restart_if_something_is_loaded(&mut scene, &proxy);
        tpm = scene.tpm.key_store();
        let refused = unlock_error(dir, &mut tpm);
        match refused {
            None => ends[1] += 1,
            Some(UnlockError::RolledBack { .. }) if accepted.is_err() => {
                ends[0] += 1;
                accept(dir, &mut tpm).unwrap();
            }
            other => panic!("{at}: {other:?}"),
        }
        assert_eq!(signatures(dir, &mut tpm, PIN), 1, "{at}");
        old = copy(dir);
        if accepted.is_ok() {
            break;
        }
    }
    println!("restore: cut short at every command: {} as before, {} let in", ends[0], ends[1]);
    assert!(ends.iter().all(|n| *n > 0), "{ends:?}");
}
