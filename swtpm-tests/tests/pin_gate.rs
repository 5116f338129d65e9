//! The TPM judges eight wrong PINs and no more, whichever way they come in.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::pedantic
)]

mod common;

use std::collections::BTreeMap;

use common::{
    Auth, Facts, Wire, enroll, kind_of, open, rc, sign, sign_all, try_sign, unlock_error, wire, works,
};
use swtpm_tests::{
    PIN, Scene, creation_options, key_store, pin,
    proxy::{Fault, FaultKind, Proxy},
    rng, scale,
};
use tpm_backend::Tpm;
use vault_core::{
    TriesLeft, UnlockError,
    keystore::{KeyStore, KeyStoreError},
    webauthn::{CreateRequest, Origin, UserPresent},
};

const WRONG: &str = "999999x";

struct Bench {
    // Dropped before the TPM that it uses.
    keys: Tpm,
    facts: Facts,
    scene: Scene,
}

impl Bench {
    fn new() -> Self {
        let scene = Scene::with_vault();
        let mut keys = scene.tpm.key_store();
        enroll(scene.dir(), &mut keys, PIN, "alice", "none");
        enroll(scene.dir(), &mut keys, PIN, "bob", "none");
        let facts = Facts::of(scene.dir(), &mut keys);
        drop(keys);
        Self { keys: scene.tpm.key_store(), facts, scene }
    }

    fn wire(&self) -> Wire {
        Wire::new(self.scene.tpm.port())
    }

    fn count(&self) -> (u32, u32) {
        self.wire().pin_count(self.facts.pin)
    }

    fn unlock(&mut self, text: &str) -> Option<UnlockError> {
        unlock_error(self.scene.dir(), &mut self.keys, text)
    }

    fn assert_locked(&mut self, way: &str) {
        assert_eq!(self.count(), (8, 8), "{way}");
        let right = self.unlock(PIN);
        assert!(matches!(right, Some(UnlockError::KeyStore(KeyStoreError::PinLocked))), "{way}: {right:?}");
        let raw = self.facts.read_sec(&self.wire(), &self.facts.derive(PIN).0);
        assert_eq!(raw, Err(rc::AUTH_UNAVAILABLE), "{way}");
        assert_eq!(self.count(), (8, 8), "{way}");
    }
}

#[test]
fn eight_wrong_pins_lock_the_vault_and_not_the_tpm() {
    let mut bench = Bench::new();
    for wrong in 1..=8 {
        assert!(matches!(bench.unlock(WRONG), Some(UnlockError::WrongPin)), "{wrong}");
        assert_eq!(bench.count(), (wrong, 8));
        let left = open(bench.scene.dir(), &mut bench.keys).tries_left().unwrap();
        assert_eq!(left, TriesLeft::ByTpm(8 - wrong));
    }
    bench.assert_locked("unlock");
    let ninth = bench.unlock(WRONG);
    assert!(matches!(ninth, Some(UnlockError::KeyStore(KeyStoreError::PinLocked))), "{ninth:?}");
    let status = bench.keys.status(Some(&bench.facts.anchor)).unwrap();
    assert_eq!((status.lockout.counter, status.wrong_pins.unwrap().left()), (0, 0));
    println!("pin_gate: 8 wrong PINs lock, lockout counter 0");
}

#[test]
fn a_right_pin_below_the_limit_sets_the_count_to_zero() {
    let mut bench = Bench::new();
    for wrong in 0..8 {
        for _ in 0..wrong {
            assert!(matches!(bench.unlock(WRONG), Some(UnlockError::WrongPin)));
        }
        assert_eq!(bench.count(), (wrong, 8));
        sign(bench.scene.dir(), &mut bench.keys, PIN);
        assert_eq!(bench.count(), (0, 8), "after {wrong} wrong ones");
        let left = open(bench.scene.dir(), &mut bench.keys).tries_left_if_fewer().unwrap();
        assert_eq!(left, None);
    }
}

#[test]
fn reboots_and_power_cuts_do_not_reset_the_count() {
    let mut bench = Bench::new();
    // Set-up used V, and a power cut after that counts one in the TPM's own protection.
    bench.scene.tpm.reboot().unwrap();
    bench.keys = bench.scene.tpm.key_store();
    for wrong in 1..=8 {
        assert!(matches!(bench.unlock(WRONG), Some(UnlockError::WrongPin)));
        if wrong % 2 == 0 { bench.scene.tpm.reboot() } else { bench.scene.tpm.power_cycle() }.unwrap();
        bench.keys = bench.scene.tpm.key_store();
        assert_eq!(bench.count(), (wrong, 8));
    }
    bench.scene.tpm.power_cycle().unwrap();
    bench.keys = bench.scene.tpm.key_store();
    bench.assert_locked("reboots");
    // A wrong PIN uses no key that dictionary-attack protection guards, so power cuts count for nothing.
    println!("pin_gate: 9 restarts keep the count, lockout counter {}", bench.wire().lockout_counter());
    assert_eq!(bench.wire().lockout_counter(), 0);
}

#[test]
fn a_power_cut_after_the_vault_key_was_used_counts_one_in_the_tpms_own_protection() {
    let mut bench = Bench::new();
    let mut counted = Vec::new();
    for used in [false, true] {
        bench.scene.tpm.reboot().unwrap();
        bench.keys = bench.scene.tpm.key_store();
        if used {
            sign(bench.scene.dir(), &mut bench.keys, PIN);
        } else {
            assert!(bench.unlock(PIN).is_none());
        }
        bench.scene.tpm.power_cycle().unwrap();
        bench.keys = bench.scene.tpm.key_store();
        counted.push(bench.wire().lockout_counter());
    }
    assert_eq!(counted, [0, 1]);
    // One count is no lockout: the vault goes on.
    sign(bench.scene.dir(), &mut bench.keys, PIN);
}

/// What an answer to a guess means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Judged {
    Wrong,
    Locked,
    Refused(u32),
}

fn judged(answer: Result<(), u32>) -> Judged {
    match answer {
        Err(rc::BAD_AUTH | rc::AUTH_FAIL) => Judged::Wrong,
        Err(rc::AUTH_UNAVAILABLE) => Judged::Locked,
        Err(other) => Judged::Refused(other),
        Ok(()) => panic!("a random authValue was accepted"),
    }
}

fn judged_unlock(error: Option<UnlockError>) -> Judged {
    match error {
        Some(UnlockError::WrongPin) => Judged::Wrong,
        Some(UnlockError::KeyStore(KeyStoreError::PinLocked)) => Judged::Locked,
        other => panic!("{other:?}"),
    }
}

fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

/// Makes many wrong guesses one way; says how many of them the TPM judged.
fn grind(way: &str, restarts: bool, guess: impl Fn(&mut Bench, usize) -> Judged) {
    let mut bench = Bench::new();
    let tries = scale(40, 1000);
    let mut tally: BTreeMap<Judged, usize> = BTreeMap::new();
    let mut restarted = 0;
    for n in 0..tries {
        if restarts && (n % 3 == 0 && n < 12 || n % 50 == 49) {
            if restarted % 2 == 0 { bench.scene.tpm.reboot() } else { bench.scene.tpm.power_cycle() }
                .unwrap();
            bench.keys = bench.scene.tpm.key_store();
            restarted += 1;
        }
        *tally.entry(guess(&mut bench, n)).or_default() += 1;
    }
    println!("pin_gate: {tries} guesses by {way}, {restarted} restarts: {tally:?}");
    assert_eq!(tally.get(&Judged::Wrong), Some(&8), "{way}");
    assert_eq!(tally.get(&Judged::Locked), Some(&(tries - 8)), "{way}");
    bench.assert_locked(way);
    assert_eq!(bench.wire().lockout_counter(), 0, "{way}");
    assert_eq!(bench.wire().loaded(), [] as [u32; 0], "{way}");
}

fn wrong_text(n: usize) -> String {
    format!("{n:06}-")
}

#[test]
fn many_wrong_pins_through_one_key_store_are_eight_tries() {
    grind("unlock with one key store", false, |b, n| judged_unlock(b.unlock(&wrong_text(n))));
}

#[test]
fn many_wrong_pins_through_fresh_key_stores_and_restarts_are_eight_tries() {
    grind("unlock with fresh key stores and restarts", true, |b, n| {
        let mut keys = b.scene.tpm.key_store();
        judged_unlock(unlock_error(b.scene.dir(), &mut keys, &wrong_text(n)))
    });
}

#[test]
fn many_wrong_pins_by_raw_policy_secret_in_every_kind_of_session_are_eight_tries() {
    grind("PolicySecret in salted, unsalted and password sessions, restarts", true, |b, n| {
        let (wire, guess) = (b.wire(), random());
        // The salted session is with V: what the vault itself uses.
        let (v, proof) = match n % 3 {
            0 => {
                let v = b.facts.load_v(&wire);
                (Some(v), Some(wire.salted(wire::HMAC, v)))
            }
            1 => (None, Some(wire.session(wire::HMAC))),
            _ => (None, None),
        };
        let policy = wire.session(wire::POLICY);
        let mut proof = proof;
        let auth = match &mut proof {
            Some(session) => Auth::Value(session, &guess),
            None => Auth::Password(&guess),
        };
        let answer = wire.policy_secret(b.facts.pin, &policy, auth);
        for handle in [Some(policy.handle), proof.map(|s| s.handle), v].into_iter().flatten() {
            wire.flush(handle);
        }
        judged(answer)
    });
}

#[test]
fn many_wrong_pins_in_trial_sessions_are_eight_tries() {
    grind("PolicySecret into trial sessions", false, |b, _| {
        let (wire, guess) = (b.wire(), random());
        let trial = wire.session(wire::TRIAL);
        let answer = wire.policy_secret(b.facts.pin, &trial, Auth::Password(&guess));
        wire.flush(trial.handle);
        judged(answer)
    });
}

#[test]
fn many_wrong_pins_by_reading_with_the_auth_value_are_eight_tries() {
    grind("NV_Read of NV_pin with the authValue, password and HMAC", false, |b, n| {
        let (wire, guess, pin) = (b.wire(), random(), b.facts.pin);
        if n % 2 == 0 {
            return judged(wire.nv_read(pin, pin, 8, Auth::Password(&guess)).map(drop));
        }
        let mut session = wire.session(wire::HMAC);
        let answer = wire.nv_read(pin, pin, 8, Auth::Value(&mut session, &guess)).map(drop);
        wire.flush(session.handle);
        judged(answer)
    });
}

#[test]
fn other_uses_of_the_auth_value_judge_no_guess() {
    let bench = Bench::new();
    let (wire, facts) = (bench.wire(), &bench.facts);
    let (right, _) = facts.derive(PIN);
    let write = |auth: &[u8]| wire.nv_write(facts.pin, facts.pin, &[0; 8], Auth::Password(auth));
    let change = |auth: &[u8]| wire.nv_change_auth(facts.pin, &[1; 32], Auth::Password(auth));
    let read_sec = |auth: &[u8]| wire.nv_read(facts.pin, facts.sec, 72, Auth::Password(auth)).map(drop);
    let by_sec = |auth: &[u8]| wire.nv_read(facts.sec, facts.sec, 72, Auth::Password(auth)).map(drop);
    assert_eq!((write(&right), write(&random())), (Err(rc::AUTH_UNAVAILABLE), Err(rc::AUTH_UNAVAILABLE)));
    // NV_ChangeAuth is of the ADMIN role: by policy only.
    assert_eq!(change(&right), change(&random()));
    assert!(change(&right).is_err());
    assert_eq!((by_sec(&right), by_sec(&random())), (Err(rc::AUTH_UNAVAILABLE), Err(rc::AUTH_UNAVAILABLE)));
    assert_eq!(bench.count(), (0, 8));
    // NV_pin's authValue does not authorize another index, even the right one; the wrong one counts.
    assert_eq!(read_sec(&right), Err(rc::NV_AUTHORIZATION));
    assert_eq!((read_sec(&random()), bench.count()), (Err(rc::BAD_AUTH), (1, 8)));
    assert_eq!(wire.lockout_counter(), 0);
}

/// A session bound to an entity proves its authValue in commands that name it not, which nothing counts.
#[test]
fn no_session_can_be_bound_to_nv_pin() {
    let bench = Bench::new();
    let (wire, facts) = (bench.wire(), &bench.facts);
    assert_eq!(wire.bound(facts.pin, &facts.derive(PIN).0).err(), Some(rc::BIND_HANDLE));
    // The control: NV_key's empty authValue is found right, and a wrong one wrong, in TPM2_GetRandom.
    for (believed, answer) in [([].as_slice(), Ok(())), (&[1; 32], Err(rc::BAD_AUTH))] {
        let mut session = wire.bound(facts.key, believed).unwrap();
        assert_eq!(wire.get_random(&mut session), answer);
        wire.flush(session.handle);
    }
    assert_eq!((bench.count(), wire.lockout_counter()), ((0, 8), 0));
}

#[test]
fn a_forged_pin_index_of_the_same_name_yields_only_masked_s_and_guesses_that_the_tpm_counts() {
    let mut bench = Bench::new();
    let (wire, his) = (bench.wire(), "314159x");
    let before = bench.facts.secrets(&wire, PIN);
    let (his_k1, his_k3) = bench.facts.derive(his);
    bench.facts.forge_pin_index(&wire, &his_k1);
    // He reads what is stored, and it is S under the old PIN's mask: not S, nor what his own mask makes of it.
    let stored = bench.facts.read_sec(&wire, &his_k1).unwrap();
    assert_eq!(stored, before.stored);
    assert_ne!(stored[..32], before.s);
    let his_s: Vec<u8> = stored.iter().zip(his_k3).map(|(a, b)| a ^ b).collect();
    assert_ne!(his_s, before.s);
    // Loading V takes no secret; using it takes S.
    assert_eq!(wire.lockout_counter(), 0);
    let mut answers = Vec::new();
    for guess in 1..=3 {
        let error = try_sign(bench.scene.dir(), &mut bench.keys, his).unwrap_err();
        answers.push(kind_of(&error));
        assert_eq!(wire.lockout_counter(), guess, "{error:?}");
        assert!(kind_of(&error).starts_with("Replaced"), "{error:?}");
    }
    // swtpm's limit is 3.
    let error = try_sign(bench.scene.dir(), &mut bench.keys, his).unwrap_err();
    answers.push(kind_of(&error));
    assert!(kind_of(&error).starts_with("Lockout"), "{error:?}");
    let v = bench.facts.load_v(&wire);
    let policy = wire.session(wire::POLICY);
    let raw = wire.policy_secret(v, &policy, Auth::Password(&his_s));
    assert_eq!(raw, Err(rc::LOCKOUT));
    wire.flush(policy.handle);
    wire.flush(v);
    println!("pin_gate: forged index: {answers:?}");
}

#[test]
fn a_guess_at_v_is_0x98e_and_one_lockout_count() {
    let bench = Bench::new();
    let (wire, s) = (bench.wire(), bench.facts.secrets(&bench.wire(), PIN).s);
    let v = bench.facts.load_v(&wire);
    let guess = |auth: &[u8]| {
        let policy = wire.session(wire::POLICY);
        let answer = wire.policy_secret(v, &policy, Auth::Password(auth));
        wire.flush(policy.handle);
        (answer, wire.lockout_counter())
    };
    assert_eq!(guess(&s), (Ok(()), 0));
    for counted in 1..=3 {
        assert_eq!(guess(&random()), (Err(rc::AUTH_FAIL), counted));
    }
    assert_eq!(guess(&random()), (Err(rc::LOCKOUT), 3));
    assert_eq!(guess(&s), (Err(rc::LOCKOUT), 3), "even the right secret");
    assert_eq!(bench.count(), (0, 8));
}

#[test]
fn under_a_forged_pin_index_no_passkey_is_made_or_deleted_and_no_pin_is_changed() {
    let mut outcomes = Vec::new();
    for operation in ["enroll", "change the PIN", "delete"] {
        let mut bench = Bench::new();
        let (wire, his) = (bench.wire(), "314159x");
        let all = common::accounts(bench.scene.dir(), &mut bench.keys);
        bench.facts.forge_pin_index(&wire, &bench.facts.derive(his).0);
        let outcome = {
            let mut vault = open(bench.scene.dir(), &mut bench.keys);
            vault.unlock(&pin(his)).map_err(|e| kind_of(&e)).and_then(|unlocked| match operation {
                "enroll" => {
                    let json = creation_options(common::RP, "mallory", "none");
                    let origin = Origin::parse(common::ORIGIN).unwrap();
                    let request = CreateRequest::from_json(&json, origin).unwrap();
                    let made = unlocked.enroll(&request, None, UserPresent::confirmed(), 0, &mut rng());
                    made.map(drop).map_err(|e| kind_of(&e))
                }
                "delete" => unlocked.delete(all[0].0, 0, &mut rng()).map(drop).map_err(|e| kind_of(&e)),
                _ => unlocked.change_pin(&pin("161803y"), &mut rng()).map_err(|e| kind_of(&e)),
            })
        };
        let left = common::accounts(bench.scene.dir(), &mut bench.keys).len();
        outcomes.push((operation, outcome, all.len(), left, wire.lockout_counter()));
    }
    println!("pin_gate: forged index, (operation, outcome, passkeys before, after, lockout): {outcomes:?}");
    for (operation, outcome, before, after, lockout) in outcomes {
        assert_eq!(outcome.unwrap_err(), "Replaced { what: \"the PIN index\" }", "{operation}");
        assert_eq!(before, after, "{operation}");
        assert_eq!(lockout, 1, "{operation}");
    }
}

/// Killed without a restart and without a resource manager, a program leaves what it had loaded.
#[test]
fn what_a_killed_program_leaves_loaded_costs_no_try() {
    let bench = Bench::new();
    let proxy = Proxy::start(bench.scene.tpm.port()).unwrap();
    let wire = bench.wire();
    let mut tally: BTreeMap<String, usize> = BTreeMap::new();
    for n in 0..15 {
        proxy.arm(Fault::once(n, FaultKind::EndOfStream));
        assert!(try_sign(bench.scene.dir(), &mut key_store(&proxy.tcti()), PIN).is_err());
        let left = wire.loaded().len();
        let next = try_sign(bench.scene.dir(), &mut bench.scene.tpm.key_store(), PIN);
        let kind = next.as_ref().map_or_else(|e| kind_of(e), |_| "signed".to_owned());
        *tally.entry(format!("{left} left: {kind}")).or_default() += 1;
        for handle in wire.loaded() {
            wire.flush(handle);
        }
        sign(bench.scene.dir(), &mut bench.scene.tpm.key_store(), PIN);
        assert_eq!((bench.count(), wire.lockout_counter()), ((0, 8), 0), "{n}");
    }
    println!("pin_gate: killed at each of 15 commands of a signature, then the next: {tally:?}");
}

/// With the forged index in place, nothing that a person with the right PIN does gives the attacker anything.
#[test]
fn a_forged_pin_index_refuses_the_right_pin() {
    let mut bench = Bench::new();
    let wire = bench.wire();
    bench.facts.forge_pin_index(&wire, &random());
    assert!(matches!(bench.unlock(PIN), Some(UnlockError::WrongPin)));
    assert_eq!((bench.count(), wire.lockout_counter()), ((1, 8), 0));
}

/// The old PIN or the new one, and with it every key signs; the other one is wrong.
fn exactly_one_works(scene: &Scene, old: &str, new: &str, what: &str) -> bool {
    let mut keys = scene.tpm.key_store();
    let old_works = works(scene.dir(), &mut keys, old);
    let new_works = works(scene.dir(), &mut keys, new);
    assert_ne!(old_works, new_works, "{what}");
    let now = if new_works { new } else { old };
    assert_eq!(sign_all(scene.dir(), &mut keys, now), 2, "{what}");
    new_works
}

#[test]
fn a_pin_change_killed_at_any_command_leaves_exactly_one_pin_and_all_keys() {
    let mut bench = Bench::new();
    let proxy = Proxy::start(bench.scene.tpm.port()).unwrap();
    let (mut now, mut next) = ("271828".to_owned(), "314159x".to_owned());
    let (mut kept, mut changed, mut lockouts) = (0, 0, 0);
    for n in 0.. {
        proxy.set_upstream(bench.scene.tpm.port());
        proxy.disarm();
        let mut keys = key_store(&proxy.tcti());
        let mut vault = open(bench.scene.dir(), &mut keys);
        proxy.arm(Fault::once(n, FaultKind::EndOfStream));
        let result = vault
            .unlock(&pin(&now))
            .map_err(|e| format!("{e:?}"))
            .and_then(|unlocked| unlocked.change_pin(&pin(&next), &mut rng()).map_err(|e| format!("{e:?}")));
        let fired = proxy.fired();
        drop(vault);
        drop(keys);
        if fired == 0 {
            assert_eq!(result, Ok(()));
            assert!(exactly_one_works(&bench.scene, &now, &next, "uncut"));
            println!(
                "pin_gate: PIN change cut at each of {n} commands: {kept} old, {changed} new, lockout counts {lockouts}"
            );
            break;
        }
        // The machine restarts; what was loaded is gone. In order, for an unclean end after V was used
        // counts one more, which is the TPM's rule and not what is claimed here.
        let before = bench.wire().lockout_counter();
        bench.scene.tpm.reboot().unwrap();
        let new_works = exactly_one_works(&bench.scene, &now, &next, &format!("cut at {n}: {result:?}"));
        let after = bench.wire().lockout_counter();
        assert!(after <= before + 1, "cut at {n}: lockout {before} -> {after}");
        if after > before {
            lockouts += after - before;
            assert!(bench.scene.tpm.tool("tpm2_dictionarylockout", &["-c"]).unwrap().status.success());
        }
        if result.is_ok() {
            assert!(new_works, "acknowledged at {n}");
        }
        if new_works {
            changed += 1;
            std::mem::swap(&mut now, &mut next);
        } else {
            kept += 1;
        }
    }
    assert!(kept > 0 && changed > 0);
    bench.keys = bench.scene.tpm.key_store();
    assert_eq!(bench.wire().lockout_counter(), 0);
}

#[test]
fn an_old_copy_of_the_container_holds_no_pin_state() {
    let mut bench = Bench::new();
    let copy = tempfile::tempdir().unwrap();
    let copied = |from: &std::path::Path, to: &std::path::Path| {
        for file in std::fs::read_dir(from).unwrap() {
            let file = file.unwrap();
            std::fs::copy(file.path(), to.join(file.file_name())).unwrap();
        }
    };
    copied(bench.scene.dir(), copy.path());
    let new = "correct horse 7";
    open(bench.scene.dir(), &mut bench.keys)
        .unlock(&pin(PIN))
        .unwrap()
        .change_pin(&pin(new), &mut rng())
        .unwrap();
    assert!(!works(copy.path(), &mut bench.keys, PIN));
    assert_eq!(sign_all(copy.path(), &mut bench.keys, new), 2);
    assert_eq!(sign_all(bench.scene.dir(), &mut bench.keys, new), 2);
    // Nor does a copy hold a count of its own that the TPM would believe.
    for _ in 0..4 {
        assert!(!works(copy.path(), &mut bench.keys, PIN));
        assert!(!works(bench.scene.dir(), &mut bench.keys, PIN));
    }
    bench.facts = Facts::of(bench.scene.dir(), &mut bench.keys);
    assert_eq!(bench.count(), (8, 8));
    let error = unlock_error(copy.path(), &mut bench.keys, new);
    assert!(matches!(error, Some(UnlockError::KeyStore(KeyStoreError::PinLocked))), "{error:?}");
}

/// A TPM strips trailing zeros of an authValue; one in 256 K1s would have one, if nothing were done.
#[test]
fn every_pin_that_is_set_unlocks() {
    let mut bench = Bench::new();
    let changes = scale(6, 300);
    let mut now = PIN.to_owned();
    for n in 0..changes {
        let next = format!("{:06}-{n}", (n * 7_919 + 271_828) % 1_000_000);
        let (k1, _) = bench.facts.derive(&next);
        assert_eq!(k1[31] & 1, 1);
        open(bench.scene.dir(), &mut bench.keys)
            .unlock(&pin(&now))
            .unwrap()
            .change_pin(&pin(&next), &mut rng())
            .unwrap();
        sign(bench.scene.dir(), &mut bench.keys, &next);
        now = next;
    }
    assert_eq!(bench.wire().lockout_counter(), 0);
    for n in 0..scale(2, 60) {
        let scene = Scene::empty();
        let mut keys = scene.tpm.key_store();
        let text = format!("set-up {n}");
        vault_core::setup(scene.dir(), &mut keys, &pin(&text), 0, &mut rng()).unwrap();
        enroll(scene.dir(), &mut keys, &text, "alice", "none");
        sign(scene.dir(), &mut keys, &text);
    }
    println!("pin_gate: {changes} PINs changed to and used");
}

#[test]
fn a_pin_of_63_bytes_and_both_normal_forms_are_one_pin_each() {
    let mut bench = Bench::new();
    let longest = "é".repeat(31) + "7";
    assert_eq!(longest.len(), 63);
    let decomposed = "e\u{301}".repeat(31) + "7";
    assert_ne!(longest, decomposed);
    open(bench.scene.dir(), &mut bench.keys)
        .unlock(&pin(PIN))
        .unwrap()
        .change_pin(&pin(&decomposed), &mut rng())
        .unwrap();
    sign(bench.scene.dir(), &mut bench.keys, &longest);
    sign(bench.scene.dir(), &mut bench.keys, &decomposed);
    let shorter = "é".repeat(31);
    assert!(matches!(bench.unlock(&shorter), Some(UnlockError::WrongPin)));
    sign(bench.scene.dir(), &mut bench.keys, &longest);
    // And set up with the other form.
    let scene = Scene::empty();
    let mut keys = scene.tpm.key_store();
    vault_core::setup(scene.dir(), &mut keys, &pin("Ame\u{301}lie-5"), 0, &mut rng()).unwrap();
    enroll(scene.dir(), &mut keys, "Am\u{e9}lie-5", "alice", "none");
    sign(scene.dir(), &mut keys, "Am\u{e9}lie-5");
    assert_eq!(Wire::new(scene.tpm.port()).loaded(), [] as [u32; 0]);
}
