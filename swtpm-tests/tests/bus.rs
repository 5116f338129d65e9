//! Whoever listens on the TPM's bus, or sits on it, learns no secret and gains no signature.
#![allow(clippy::type_complexity)]
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

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
};

use common::{
    Auth, Facts, Wire, accounts, cc, enroll, hmac, kdf_a, kdf_e, key, kind_of, open, sign, take, try_sign,
    unlock_error, wire,
};
use p256::SecretKey;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use swtpm_tests::{
    PIN, Scene, key_store, pin,
    proxy::{Exchange, Fault, FaultKind, Proxy, Rewriter, command_name},
    rng,
};
use vault_core::{RecoveryCode, RecoverySecrets, TriesLeft, UnlockError, keystore::KeyStore};

const SRK: u32 = 0x8100_0001;
const NULL: u32 = 0x4000_0007;
const OWNER: u32 = 0x4000_0001;
const PASSWORD: u32 = 0x4000_0009;
const DECRYPT: u8 = 0x20;
const ENCRYPT: u8 = 0x40;
const NEW_PIN: &str = "314159x";
const WRONG_PIN: &str = "999999x";

/// A command as it lies on the wire (Part 1 §18).
struct Command {
    code: u32,
    handles: Vec<u32>,
    sessions: Vec<Used>,
    params: Vec<u8>,
}

struct Used {
    handle: u32,
    nonce: Vec<u8>,
    attributes: u8,
    hmac: Vec<u8>,
}

fn word(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().unwrap())
}

fn parse(exchange: &Exchange) -> Command {
    let code = exchange.code();
    let handles = match code {
        cc::NV_UNDEFINE | cc::EVICT_CONTROL | cc::NV_WRITE | cc::NV_READ => 2,
        cc::POLICY_SECRET | cc::START_SESSION => 2,
        cc::CREATE | cc::LOAD | cc::SIGN | cc::NV_DEFINE | cc::NV_CHANGE_AUTH | cc::CREATE_PRIMARY => 1,
        cc::POLICY_COMMAND_CODE | cc::POLICY_OR | cc::POLICY_NV_WRITTEN | 0x180 => 1,
        cc::READ_PUBLIC | cc::NV_READ_PUBLIC => 1,
        cc::FLUSH | cc::GET_CAPABILITY => 0,
        other => panic!("a command that no operation sends: {} {other:#x}", command_name(other)),
    };
    let command = &exchange.command;
    let mut rest = &command[10..];
    let handles = (0..handles)
        .map(|_| {
            let handle = word(rest);
            rest = &rest[4..];
            handle
        })
        .collect();
    let mut sessions = Vec::new();
    if command[..2] == [0x80, 2] {
        let len = usize::try_from(word(rest)).unwrap();
        let mut area = &rest[4..4 + len];
        rest = &rest[4 + len..];
        while !area.is_empty() {
            let handle = word(area);
            area = &area[4..];
            let nonce = take(&mut area);
            let attributes = area[0];
            area = &area[1..];
            sessions.push(Used { handle, nonce, attributes, hmac: take(&mut area) });
        }
    }
    Command { code, handles, sessions, params: rest.to_vec() }
}

/// Set-up, both enrolments, a signature, a wrong PIN, a PIN change, a deletion and a wipe, on the record.
struct Life {
    record: Vec<Exchange>,
    facts: Facts,
    /// What must not be on the wire, by name.
    secrets: Vec<(String, Vec<u8>)>,
}

fn whole_life() -> Life {
    let scene = Scene::empty();
    let proxy = Proxy::start(scene.tpm.port()).unwrap();
    let (tcti, dir) = (proxy.tcti(), scene.dir());
    vault_core::setup(dir, &mut key_store(&tcti), &pin(PIN), 0, &mut rng()).unwrap();
    // Past the proxy: what the attacker has to know to tell a secret when he sees it.
    let facts = Facts::of(dir, &mut scene.tpm.key_store());
    let direct = Wire::new(scene.tpm.port());
    let mut secrets = Vec::new();
    let mut learn = |what: &str, text: &str| {
        let s = facts.secrets(&direct, text);
        secrets.push((format!("S {what}"), s.s.to_vec()));
        secrets.push((format!("masked S {what}"), s.stored[..32].to_vec()));
        secrets.push((format!("second mask {what}"), s.stored[32..64].to_vec()));
    };
    learn("at first", PIN);
    enroll(dir, &mut key_store(&tcti), PIN, "alice", "none");
    enroll(dir, &mut key_store(&tcti), PIN, "bob", "direct");
    sign(dir, &mut key_store(&tcti), PIN);
    let wrong = unlock_error(dir, &mut key_store(&tcti), WRONG_PIN);
    assert!(matches!(wrong, Some(UnlockError::WrongPin)));
    open(dir, &mut key_store(&tcti)).status().unwrap();
    open(dir, &mut key_store(&tcti))
        .unlock(&pin(PIN))
        .unwrap()
        .change_pin(&pin(NEW_PIN), &mut rng())
        .unwrap();
    learn("after the PIN change", NEW_PIN);
    sign(dir, &mut key_store(&tcti), NEW_PIN);
    let codes = [(); 2].map(|()| RecoveryCode::random(&mut rng()));
    open(dir, &mut key_store(&tcti))
        .unlock(&pin(NEW_PIN))
        .unwrap()
        .renew_recovery_code(&codes[0], 0, &mut rng())
        .unwrap();
    open(dir, &mut key_store(&tcti)).reset_pin(&codes[0], &pin(NEW_PIN), &codes[1], 0, &mut rng()).unwrap();
    for code in &codes {
        secrets.push(("recovery code".to_owned(), code.to_text().as_bytes().to_vec()));
        let mask = RecoverySecrets::derive(code, &facts.vault_id).mask;
        secrets.push(("a recovery code's mask".to_owned(), mask.expose_secret().to_vec()));
    }
    let id = accounts(dir, &mut key_store(&tcti))[0].0;
    open(dir, &mut key_store(&tcti)).unlock(&pin(NEW_PIN)).unwrap().delete(id, 0, &mut rng()).unwrap();
    vault_core::wipe(dir, &mut key_store(&tcti)).unwrap();
    assert_eq!(direct.loaded(), [] as [u32; 0]);
    for text in [PIN, NEW_PIN, WRONG_PIN] {
        let (k1, k3) = facts.derive(text);
        secrets.push((format!("PIN {text}"), text.as_bytes().to_vec()));
        secrets.push((format!("SHA-256 of {text}"), Sha256::digest(text).to_vec()));
        secrets.push((format!("K1 of {text}"), k1.to_vec()));
        secrets.push((format!("K3 of {text}"), k3.to_vec()));
    }
    secrets.push(("container key".to_owned(), facts.container_key.to_vec()));
    Life { record: proxy.record(), facts, secrets }
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle)
}

/// How many of the secrets' stretches of eight bytes (or the whole, if shorter) are on the wire.
fn hits(wire: &[u8], secrets: &[(String, Vec<u8>)]) -> (Vec<String>, usize) {
    let mut found = Vec::new();
    let mut searched = 0;
    for (what, secret) in secrets {
        for part in secret.windows(secret.len().min(8)) {
            searched += 1;
            if contains(wire, part) && found.last() != Some(what) {
                found.push(what.clone());
            }
        }
    }
    (found, searched)
}

#[test]
fn no_secret_crosses_the_wire_in_a_vaults_whole_life() {
    let life = whole_life();
    let frames = |e: &Exchange| [e.command.as_slice(), &e.response].concat();
    let bytes: Vec<u8> = life.record.iter().flat_map(frames).collect();
    let (found, searched) = hits(&bytes, &life.secrets);
    assert_eq!(found, [] as [&str; 0]);
    // The control: the search finds what is there.
    let (public, ()) = (&life.facts.v_public, ());
    let control = [("V's public area".to_owned(), public.clone())];
    assert_eq!(hits(&bytes, &control).0, ["V's public area"]);
    println!(
        "bus: {} commands, {} bytes, {} secrets in {searched} stretches searched, 0 found",
        life.record.len(),
        bytes.len(),
        life.secrets.len()
    );
}

#[test]
fn every_session_is_salted_and_every_secret_parameter_encrypted() {
    let life = whole_life();
    let Facts { pin, sec, key, rec, .. } = life.facts;
    // A session's handle, and whether it was salted. Handles are used again.
    let mut salted: BTreeMap<u32, bool> = BTreeMap::new();
    let mut loaded: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
    let v_name = life.facts.v_name();
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    let mut note = |what| *seen.entry(what).or_default() += 1;
    for exchange in &life.record {
        let command = parse(exchange);
        let name = command_name(command.code);
        let has = |attribute: u8| {
            let mut holders = command.sessions.iter().filter(|s| s.attributes & attribute != 0);
            holders.any(|s| salted[&s.handle])
        };
        let by_password = command.sessions.iter().any(|s| s.handle == PASSWORD);
        for session in &command.sessions {
            match session.handle {
                PASSWORD => {
                    assert_eq!(session.hmac, [] as [u8; 0], "{name} with a password");
                    assert_eq!(session.attributes & (DECRYPT | ENCRYPT), 0);
                    note("empty passwords");
                }
                handle => {
                    assert!(salted[&handle], "{name} in an unsalted session");
                    note("uses of salted sessions");
                }
            }
        }
        match command.code {
            cc::START_SESSION => {
                assert_ne!(command.handles[0], NULL, "tpmKey");
                // The SRK's public area is read from the bus, V's is not.
                note(if command.handles[0] == SRK {
                    "sessions salted with the SRK"
                } else {
                    "sessions salted with V"
                });
                if command.handles[0] != SRK {
                    assert_eq!(loaded.get(&command.handles[0]), Some(&v_name), "salted with V");
                }
                assert_eq!(command.handles[1], NULL, "bind");
                let mut rest = command.params.as_slice();
                take(&mut rest);
                let salt = take(&mut rest);
                assert!(salt.len() >= 64, "a point");
                salted.insert(word(&exchange.response[10..]), true);
            }
            cc::NV_READ if command.handles[1] == pin => {
                assert_eq!((command.handles[0], by_password), (OWNER, true));
                note("reads of the count");
            }
            cc::NV_READ => {
                assert!([sec, key, rec].contains(&command.handles[1]));
                assert!(has(ENCRYPT), "NV_Read of {:#x}", command.handles[1]);
                note("encrypted reads");
            }
            cc::NV_WRITE => {
                let len = take(&mut command.params.as_slice()).len();
                match (command.handles[1], len) {
                    (index, 72) if index == sec => {
                        assert!(has(DECRYPT), "masks");
                        note("encrypted writes of masks");
                    }
                    (index, 8) if index == sec => note("writes of the generation"),
                    (index, 8) if index == pin => note("writes of the limit"),
                    (index, 32) if index == key => {
                        assert!(has(DECRYPT), "the container key");
                        note("encrypted writes of the container key");
                    }
                    (index, 64) if index == rec => {
                        assert!(has(DECRYPT), "S, masked by the recovery code");
                        note("encrypted writes of the recovery index");
                    }
                    other => panic!("{other:x?}"),
                }
            }
            cc::NV_CHANGE_AUTH => {
                assert!(has(DECRYPT));
                note("encrypted NV_ChangeAuth");
            }
            cc::NV_DEFINE => {
                let auth = take(&mut command.params.as_slice());
                assert!(auth.is_empty() || has(DECRYPT));
                note(if auth.is_empty() { "indices without an authValue" } else { "encrypted authValues" });
            }
            cc::CREATE => {
                let sensitive = take(&mut command.params.as_slice());
                assert!(sensitive == [0; 4] || has(DECRYPT), "Create with an authValue");
                note(if sensitive == [0; 4] { "keys without an authValue" } else { "encrypted S" });
            }
            cc::POLICY_SECRET => {
                assert!(!by_password);
                note("PolicySecrets");
            }
            cc::LOAD if exchange.response_code() == 0 && command.handles[0] == SRK => {
                // handle, parameterSize, Name
                let name = take(&mut &exchange.response[18..]);
                loaded.insert(word(&exchange.response[10..]), name);
            }
            cc::LOAD if command.handles[0] != SRK => assert!(!by_password, "V's authorization"),
            cc::SIGN => assert!(!by_password),
            _ => {}
        }
    }
    println!("bus: {seen:?}");
    assert_eq!(seen["sessions salted with the SRK"], 1, "for set-up's Create of V");
    assert_eq!(seen["encrypted NV_ChangeAuth"], 2, "a PIN change, and a reset");
    assert_eq!(seen["encrypted writes of the recovery index"], 3, "set-up, a code, and the next one");
    assert_eq!(seen["writes of the limit"], 2, "set-up, and a reset");
    assert_eq!(seen["encrypted authValues"], 1);
    assert_eq!(seen["encrypted S"], 1);
    assert_eq!(seen["encrypted writes of the container key"], 1);
    assert_eq!(seen["encrypted writes of masks"], 4, "set-up, a PIN change's two, and a reset");
}

/// A listener's check of one guess: does the command's HMAC fit this authValue and session key?
fn fits(command: &Command, exchange_names: &[Vec<u8>], nonce_tpm: &[u8], key: &[u8], auth: &[u8]) -> bool {
    let session = &command.sessions[0];
    let cp = Sha256::new()
        .chain_update(command.code.to_be_bytes())
        .chain_update(exchange_names.concat())
        .chain_update(&command.params)
        .finalize();
    let mac = hmac(&[key, auth].concat(), &[&cp, &session.nonce, nonce_tpm, &[session.attributes]]);
    mac == session.hmac
}

/// Every PolicySecret of `NV_pin` in a record, with the nonceTPM that was in force, and the session's
/// `StartAuthSession`.
fn proofs_of(record: &[Exchange], pin: u32) -> Vec<(Command, Vec<u8>, Exchange)> {
    let mut nonces: BTreeMap<u32, (Vec<u8>, Exchange)> = BTreeMap::new();
    let mut proofs = Vec::new();
    for exchange in record {
        let command = parse(exchange);
        if command.code == cc::START_SESSION {
            let nonce = take(&mut &exchange.response[14..]);
            nonces.insert(word(&exchange.response[10..]), (nonce, exchange.clone()));
            continue;
        }
        let answers = response_nonces(&command, exchange);
        if command.code == cc::POLICY_SECRET && command.handles[0] == pin {
            let (nonce, start) = nonces[&command.sessions[0].handle].clone();
            proofs.push((parse(exchange), nonce, start));
        }
        for (session, nonce) in command.sessions.iter().zip(answers) {
            if let Some((current, _)) = nonces.get_mut(&session.handle) {
                *current = nonce;
            }
        }
    }
    proofs
}

fn response_nonces(command: &Command, exchange: &Exchange) -> Vec<Vec<u8>> {
    if command.sessions.is_empty() || exchange.response_code() != 0 {
        return Vec::new();
    }
    let handles = usize::from(matches!(command.code, cc::LOAD | cc::CREATE_PRIMARY));
    let at = 10 + 4 * handles;
    let len = usize::try_from(word(&exchange.response[at..])).unwrap();
    let mut rest = &exchange.response[at + 4 + len..];
    let mut nonces = Vec::new();
    for _ in &command.sessions {
        nonces.push(take(&mut rest));
        rest = &rest[1..];
        take(&mut rest);
    }
    nonces
}

fn names_of(command: &Command, pin_name: &[u8]) -> [Vec<u8>; 2] {
    [pin_name.to_vec(), command.handles[1].to_be_bytes().to_vec()]
}

#[test]
fn a_listener_cannot_confirm_the_right_pin() {
    let scene = Scene::with_vault();
    let mut keys = scene.tpm.key_store();
    enroll(scene.dir(), &mut keys, PIN, "alice", "none");
    let facts = Facts::of(scene.dir(), &mut keys);
    drop(keys);
    let (k1, _) = facts.derive(PIN);
    let proxy = Proxy::start(scene.tpm.port()).unwrap();
    sign(scene.dir(), &mut key_store(&proxy.tcti()), PIN);
    let direct = Wire::new(scene.tpm.port());
    let pin_name = direct.nv_public(facts.pin).unwrap().name;
    let ours = proofs_of(&proxy.record(), facts.pin);
    assert_eq!(ours.len(), 2, "one for NV_sec, one for the signature");
    for (command, nonce, _) in &ours {
        let names = names_of(command, &pin_name);
        assert!(!fits(command, &names, nonce, &[], &k1), "unsalted");
        assert!(!fits(command, &names, nonce, &kdf_a(&[], "ATH", nonce, &command.sessions[0].nonce), &k1));
        assert!(!fits(command, &names, nonce, &kdf_a(&k1, "ATH", nonce, &command.sessions[0].nonce), &[]));
    }
    // The control: the same proof in an unsalted session confirms the right PIN and no other.
    proxy.clear_record();
    let victim = Wire::new(proxy.port());
    let (policy, mut session) = (victim.session(wire::POLICY), victim.session(wire::HMAC));
    victim.policy_secret(facts.pin, &policy, Auth::Value(&mut session, &k1)).unwrap();
    victim.flush(policy.handle);
    victim.flush(session.handle);
    let naive = proofs_of(&proxy.record(), facts.pin);
    let (command, nonce, _) = &naive[0];
    let names = names_of(command, &pin_name);
    assert!(fits(command, &names, nonce, &[], &k1));
    let (other, _) = facts.derive(WRONG_PIN);
    assert!(!fits(command, &names, nonce, &[], &other));
    println!(
        "bus: {} proofs of the PIN confirm nothing offline; the unsalted control confirms it",
        ours.len()
    );
}

/// Puts the attacker's point into each answer to `ReadPublic`; the Name stays.
fn with_own_point(attacker: &SecretKey) -> FaultKind {
    let (x, y) = key::coordinates(attacker);
    FaultKind::Rewrite(Arc::new(move |command, mut reply| {
        if word(&command[6..]) == cc::READ_PUBLIC && word(&reply[6..]) == 0 {
            // The area ends with the point: two TPM2Bs of 32 bytes.
            let end = 12 + usize::from(u16::from_be_bytes([reply[10], reply[11]]));
            reply[end - 32..end].copy_from_slice(&y);
            reply[end - 66..end - 34].copy_from_slice(&x);
        }
        reply
    }))
}

/// The session key, if the salt was encrypted to the attacker's key.
fn session_key(start: &Exchange, attacker: &SecretKey) -> [u8; 32] {
    let command = parse(start);
    let mut rest = command.params.as_slice();
    let nonce_caller = take(&mut rest);
    let mut point = rest;
    let encrypted = take(&mut point);
    let mut point = encrypted.as_slice();
    let (x, y) = (take(&mut point), take(&mut point));
    let padded = |b: &[u8]| [vec![0; 32 - b.len()], b.to_vec()].concat();
    let shared = key::agree(attacker, &x, &y);
    let (my_x, _) = key::coordinates(attacker);
    let salt = kdf_e(&shared, &padded(&x), &my_x);
    let nonce_tpm = take(&mut &start.response[14..]);
    kdf_a(&salt, "ATH", &nonce_tpm, &nonce_caller)
}

#[test]
fn a_chip_on_the_bus_that_answers_read_public_with_its_own_key_learns_nothing() {
    let scene = Scene::with_vault();
    let mut keys = scene.tpm.key_store();
    enroll(scene.dir(), &mut keys, PIN, "alice", "none");
    let facts = Facts::of(scene.dir(), &mut keys);
    drop(keys);
    let (k1, _) = facts.derive(PIN);
    let direct = Wire::new(scene.tpm.port());
    let pin_name = direct.nv_public(facts.pin).unwrap().name;
    let attacker = key::random();
    let proxy = Proxy::start(scene.tpm.port()).unwrap();
    proxy.arm(Fault::continuous(0, with_own_point(&attacker)));
    // libtss2 computes the Name of what ReadPublic gave it, so the pinned Name tells; and if it did not,
    // sessions are salted with V, whose public area is not read from the bus at all.
    let mut kinds = Vec::new();
    for operation in ["sign", "PIN change"] {
        // The PIN change opens the vault first, and only its own raw connection meets the attack.
        let mut keys = key_store(&proxy.tcti());
        let kind = if operation == "sign" {
            proxy.arm(Fault::continuous(0, with_own_point(&attacker)));
            kind_of(&try_sign(scene.dir(), &mut keys, PIN).unwrap_err())
        } else {
            proxy.disarm();
            let mut vault = open(scene.dir(), &mut keys);
            let unlocked = vault.unlock(&pin(PIN)).unwrap();
            proxy.clear_record();
            proxy.arm(Fault::continuous(0, with_own_point(&attacker)));
            kind_of(&unlocked.change_pin(&pin(NEW_PIN), &mut rng()).unwrap_err())
        };
        let record = proxy.record();
        let reads = record.iter().filter(|e| e.code() == cc::READ_PUBLIC).count();
        let sessions = record.iter().filter(|e| e.code() == cc::START_SESSION).count();
        assert!(reads > 0, "{operation}: the attack was met");
        assert_eq!(sessions, 0, "{operation}: nothing was salted after it");
        kinds.push(format!("{operation}: {kind}"));
    }
    assert!(kinds[0].contains("ForeignSrk"), "{kinds:?}");
    assert!(kinds[1].contains("Replaced") || kinds[1].contains("ForeignSrk"), "{kinds:?}");
    assert_eq!(direct.pin_count(facts.pin), (0, 8));
    // The attack over, the vault works, and its PIN is the old one.
    proxy.disarm();
    sign(scene.dir(), &mut key_store(&proxy.tcti()), PIN);
    proxy.arm(Fault::continuous(0, with_own_point(&attacker)));
    // The control: a client that salts with what ReadPublic says of the SRK tells the attacker its PIN.
    proxy.clear_record();
    let victim = Wire::new(proxy.port());
    let (policy, mut session) = (victim.session(wire::POLICY), victim.salted(wire::HMAC, SRK));
    // The TPM, which has another private key, refuses; the proof is on the bus all the same.
    let answer = victim.policy_secret(facts.pin, &policy, Auth::Value(&mut session, &k1));
    assert!(answer.is_err());
    let record = proxy.record();
    let naive: Vec<_> = proofs_of(&record, facts.pin);
    let (command, nonce, start) = &naive[0];
    let names = names_of(command, &pin_name);
    let (other, _) = facts.derive(WRONG_PIN);
    assert!(fits(command, &names, nonce, &session_key(start, &attacker), &k1));
    assert!(!fits(command, &names, nonce, &session_key(start, &attacker), &other));
    println!("bus: own ReadPublic: {kinds:?}; the naive control told its PIN");
}

/// What is changed in answers to `code` about `handle`: the public area (its attributes' lowest byte) or
/// the Name that follows it.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Flip {
    Area,
    Name,
}

fn flipped(code: u32, handle: u32, flip: Flip) -> FaultKind {
    FaultKind::Rewrite(Arc::new(move |command, mut reply| {
        if word(&command[6..]) == code && word(&command[10..]) == handle && word(&reply[6..]) == 0 {
            let area = usize::from(u16::from_be_bytes([reply[10], reply[11]]));
            let at = match (flip, code) {
                (Flip::Name, _) => 12 + area + 2 + 33,
                // TPMS_NV_PUBLIC: index, nameAlg, attributes; TPMT_PUBLIC: type, nameAlg, attributes.
                (Flip::Area, cc::NV_READ_PUBLIC) => 12 + 4 + 2 + 3,
                (Flip::Area, _) => 12 + 2 + 2 + 3,
            };
            reply[at] ^= 4;
        }
        reply
    }))
}

#[test]
fn another_public_area_or_name_than_the_pinned_one_is_never_a_signature() {
    let scene = Scene::with_vault();
    let mut keys = scene.tpm.key_store();
    enroll(scene.dir(), &mut keys, PIN, "alice", "none");
    let facts = Facts::of(scene.dir(), &mut keys);
    drop(keys);
    let proxy = Proxy::start(scene.tpm.port()).unwrap();
    let direct = Wire::new(scene.tpm.port());
    let mut answers = Vec::new();
    for (what, code, handle) in [
        ("SRK", cc::READ_PUBLIC, SRK),
        ("NV_key", cc::NV_READ_PUBLIC, facts.key),
        ("NV_pin", cc::NV_READ_PUBLIC, facts.pin),
        ("NV_sec", cc::NV_READ_PUBLIC, facts.sec),
    ] {
        for flip in [Flip::Area, Flip::Name] {
            proxy.arm(Fault::continuous(0, flipped(code, handle, flip)));
            let result = try_sign(scene.dir(), &mut key_store(&proxy.tcti()), PIN);
            proxy.disarm();
            let kind = result.as_ref().map_or_else(|e| kind_of(e), |_| "signed".to_owned());
            let (count, _) = direct.pin_count(facts.pin);
            answers.push(format!("{what} {flip:?}: {kind}, pinCount {count}"));
            assert!(count <= 1, "{answers:?}");
            assert_eq!(direct.lockout_counter(), 0, "{what} {flip:?}");
            assert_eq!(direct.loaded(), [] as [u32; 0], "{what} {flip:?}");
            match (flip, handle) {
                (Flip::Area, SRK) => assert!(kind.contains("ForeignSrk"), "{answers:?}"),
                // The audited answer that is asked for then does not fit its HMAC.
                (Flip::Area, _) => assert!(kind.contains("Failed"), "{answers:?}"),
                // The Name of what needs no authorization of its own is never used.
                (Flip::Name, SRK) => assert_eq!(kind, "signed", "{answers:?}"),
                (Flip::Name, _) => assert_ne!(kind, "signed", "{answers:?}"),
            }
            sign(scene.dir(), &mut key_store(&proxy.tcti()), PIN);
            assert_eq!(direct.pin_count(facts.pin), (0, 8));
        }
    }
    println!("bus: changed public areas and Names: {answers:#?}");
}

#[test]
fn a_signature_replaced_on_the_bus_is_refused() {
    let scene = Scene::with_vault();
    let mut keys = scene.tpm.key_store();
    enroll(scene.dir(), &mut keys, PIN, "alice", "none");
    drop(keys);
    let proxy = Proxy::start(scene.tpm.port()).unwrap();
    let direct = Wire::new(scene.tpm.port());
    // A signature that was good once, with its whole response; and this response with other numbers in it.
    sign(scene.dir(), &mut key_store(&proxy.tcti()), PIN);
    let old = proxy.record().into_iter().find(|e| e.code() == cc::SIGN).unwrap().response;
    let seen = Arc::new(Mutex::new(0_usize));
    let mut errors = Vec::new();
    let replay = old.clone();
    let replacements: [(&str, Arc<dyn Fn(Vec<u8>) -> Vec<u8> + Send + Sync>); 5] = [
        ("an older response", Arc::new(move |_| replay.clone())),
        ("the older signature", {
            let end = 14 + usize::try_from(word(&old[10..])).unwrap();
            Arc::new(move |mut reply| {
                if reply.len() == old.len() {
                    reply[14..end].copy_from_slice(&old[14..end]);
                } else {
                    reply[30] ^= 1;
                }
                reply
            })
        }),
        (
            "r flipped",
            Arc::new(|mut reply: Vec<u8>| {
                reply[30] ^= 1;
                reply
            }),
        ),
        (
            "s flipped",
            Arc::new(|mut reply: Vec<u8>| {
                reply[70] ^= 1;
                reply
            }),
        ),
        (
            "the response's HMAC flipped",
            Arc::new(|mut reply: Vec<u8>| {
                *reply.last_mut().unwrap() ^= 1;
                reply
            }),
        ),
    ];
    for (what, replace) in replacements {
        let seen_here = Arc::clone(&seen);
        proxy.arm(Fault::continuous(
            0,
            FaultKind::Rewrite(Arc::new(move |command, reply| {
                if word(&command[6..]) != cc::SIGN || word(&reply[6..]) != 0 {
                    return reply;
                }
                *seen_here.lock().unwrap() += 1;
                replace(reply)
            })),
        ));
        let error = try_sign(scene.dir(), &mut key_store(&proxy.tcti()), PIN).unwrap_err();
        let kind = kind_of(&error);
        assert!(kind.starts_with("Failed") || kind.starts_with("BadSignature"), "{what}: {error:?}");
        errors.push(format!("{what}: {kind}"));
        proxy.disarm();
        assert_eq!(direct.loaded(), [] as [u32; 0], "{what}");
    }
    assert_eq!(*seen.lock().unwrap(), 5);
    println!("bus: {errors:?}");
}

/// A chip on the bus that says the vault's indices are gone, so that a wipe leaves them to a kept copy.
#[test]
fn a_wipe_is_not_done_because_the_bus_says_so() {
    let scene = Scene::with_vault();
    enroll(scene.dir(), &mut scene.tpm.key_store(), PIN, "alice", "none");
    let facts = Facts::of(scene.dir(), &mut scene.tpm.key_store());
    let copy = std::fs::read(scene.dir().join("vault.db")).unwrap();
    let proxy = Proxy::start(scene.tpm.port()).unwrap();
    let indices = [facts.pin, facts.sec, facts.key];
    let gone: fn() -> Vec<u8> =
        || [0x8001_u16.to_be_bytes().as_slice(), &[0, 0, 0, 10, 0, 0, 1, 0x8b]].concat();
    let no_index: Rewriter = Arc::new(move |command, reply| match word(&command[6..]) {
        cc::NV_READ_PUBLIC if indices.contains(&word(&command[10..])) => gone(),
        _ => reply,
    });
    // Another index than the first at or after the one that was asked for.
    let no_list: Rewriter = Arc::new(move |command, mut reply| {
        let deny = |reply: &mut Vec<u8>| {
            let at = reply.windows(4).position(|w| indices.contains(&word(w)));
            at.map(|at| reply[at + 3] ^= 0x40)
        };
        match word(&command[6..]) {
            cc::GET_CAPABILITY => drop(deny(&mut reply)),
            cc::NV_READ_PUBLIC if indices.contains(&word(&command[10..])) => return gone(),
            _ => {}
        }
        reply
    });
    let mut answers = Vec::new();
    for (what, rewrite) in [("no index", no_index), ("no index, and none listed", no_list)] {
        proxy.arm(Fault::continuous(0, FaultKind::Rewrite(rewrite)));
        let wiped = vault_core::wipe(scene.dir(), &mut key_store(&proxy.tcti()));
        proxy.disarm();
        answers.push(format!("{what}: {:?}", wiped.as_ref().map_err(|e| kind_of(e))));
        assert!(wiped.is_err(), "{answers:?}");
        assert!(scene.dir().join("vault.db").exists(), "{answers:?}");
    }
    // Once the bus is honest again, the wipe completes, and the kept copy is worth nothing.
    vault_core::wipe(scene.dir(), &mut key_store(&proxy.tcti())).unwrap();
    std::fs::write(scene.dir().join("vault.db"), copy).unwrap();
    let error = common::try_open(scene.dir(), &mut scene.tpm.key_store()).map(drop).unwrap_err();
    assert_eq!(kind_of(&error), "Erased");
    println!("bus: wipes under a lying bus: {answers:?}");
}

/// A chip on the bus that says that a PIN may be tried for ever.
#[test]
fn more_tries_than_there_are_is_not_believed() {
    let scene = Scene::with_vault();
    let proxy = Proxy::start(scene.tpm.port()).unwrap();
    let told = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&told);
    // TPMS_NV_PIN_COUNTER_PARAMETERS: count and limit.
    let many = FaultKind::Rewrite(Arc::new(move |command, mut reply| {
        if word(&command[6..]) == cc::NV_READ && reply.get(14..16) == Some(&[0, 8]) {
            reply[20..24].fill(0xff);
            *seen.lock().unwrap() += 1;
        }
        reply
    }));
    proxy.arm(Fault::continuous(0, many));
    let left = open(scene.dir(), &mut key_store(&proxy.tcti())).tries_left().unwrap();
    assert_eq!((left, *told.lock().unwrap()), (TriesLeft::ByTpm(8), 1));
}

#[test]
fn a_retry_right_after_start_is_invisible() {
    let scene = Scene::with_vault();
    let mut keys = scene.tpm.key_store();
    enroll(scene.dir(), &mut keys, PIN, "alice", "none");
    drop(keys);
    let proxy = Proxy::start(scene.tpm.port()).unwrap();
    sign(scene.dir(), &mut key_store(&proxy.tcti()), PIN);
    let commands = proxy.codes().len();
    for n in 0..commands {
        proxy.arm(Fault::once(n, FaultKind::Refuse(0x922)));
        sign(scene.dir(), &mut key_store(&proxy.tcti()), PIN);
        assert_eq!(proxy.fired(), 1, "{n}");
    }
    println!("bus: TPM_RC_RETRY at each of {commands} commands of a signature is invisible");
}

#[test]
fn fifty_operations_on_one_key_store_leave_no_handle() {
    let scene = Scene::with_vault();
    let mut keys = scene.tpm.key_store();
    let direct = Wire::new(scene.tpm.port());
    let (mut done, mut now) = (0, PIN);
    enroll(scene.dir(), &mut keys, now, "alice", "none");
    while done < 50 {
        match done % 10 {
            3 => {
                let wrong = unlock_error(scene.dir(), &mut keys, WRONG_PIN);
                assert!(matches!(wrong, Some(UnlockError::WrongPin)));
            }
            5 => {
                let next = if now == PIN { NEW_PIN } else { PIN };
                open(scene.dir(), &mut keys)
                    .unlock(&pin(now))
                    .unwrap()
                    .change_pin(&pin(next), &mut rng())
                    .unwrap();
                now = next;
            }
            7 => {
                let id = enroll(scene.dir(), &mut keys, now, "carol", "direct");
                open(scene.dir(), &mut keys).unlock(&pin(now)).unwrap().delete(id, 0, &mut rng()).unwrap();
            }
            8 => {
                // An unlocked vault that nobody uses.
                let mut vault = open(scene.dir(), &mut keys);
                drop(vault.unlock(&pin(now)).unwrap());
            }
            _ => sign(scene.dir(), &mut keys, now),
        }
        done += 1;
        keys.status(None).unwrap();
        // Between operations a key store may keep its link for the next; an idle one holds what a
        // link holds, never more.
        assert!(direct.loaded().len() <= 3, "{:x?} after {done}", direct.loaded());
    }
    sign(scene.dir(), &mut keys, now);
    assert_eq!(direct.loaded(), [] as [u32; 0], "after {done} operations");
    println!("bus: {done} operations on one key store, 0 handles left");
}
