//! What a stranger reads back from the TPM: every object is exactly what the design's table says.
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

use common::{
    Auth, Facts, Policies, Secrets, Session, Wire, b2, bytes_of, cc, created, enroll, kind_of, rc, sign,
};
use swtpm_tests::{PIN, Scene, TestTpm, key_store, pin, proxy::Proxy, rng};
use tpm_backend::Tpm;
use vault_core::{
    OpenError,
    keystore::{KeyStore, KeyStoreError},
};

const OWNER: u32 = 0x4000_0001;
const SRK: u32 = 0x8100_0001;
const POLICY: u8 = 1;
const TRIAL: u8 = 3;

/// A vault with one passkey, and what its owner and a stranger know of it.
struct Bench {
    // Dropped before the TPM that it uses.
    keys: Tpm,
    wire: Wire,
    scene: Scene,
    facts: Facts,
}

impl Bench {
    fn new() -> Self {
        Self::on(Scene::with_vault())
    }

    fn on(scene: Scene) -> Self {
        let mut keys = scene.tpm.key_store();
        enroll(scene.dir(), &mut keys, PIN, "alice", "none");
        let facts = Facts::of(scene.dir(), &mut keys);
        drop(keys);
        let (keys, wire) = (scene.tpm.key_store(), Wire::new(scene.tpm.port()));
        Self { keys, wire, scene, facts }
    }

    fn secrets(&self) -> Secrets {
        self.facts.secrets(&self.wire, PIN)
    }

    fn account_blob(&mut self) -> (Vec<u8>, Vec<u8>) {
        let accounts = common::accounts(self.scene.dir(), &mut self.keys);
        bytes_of(&accounts[0].1.key)
    }

    /// W or C or X, satisfied through W.
    fn write_once_session(&self, or: bool) -> Session {
        let policy = self.wire.session(POLICY);
        self.wire.command_code(&policy, cc::NV_WRITE);
        self.wire.not_written(&policy);
        if or {
            self.wire.or(&policy, &Policies::new(&self.facts.v_name()).branches()).unwrap();
        }
        policy
    }
}

#[test]
fn the_indices_have_the_tables_attributes_sizes_and_policies() {
    let Bench { wire, facts, .. } = &Bench::new();
    let policies = Policies::new(&facts.v_name());
    let (pin, sec, key, rec) = (
        wire.nv_public(facts.pin).unwrap(),
        wire.nv_public(facts.sec).unwrap(),
        wire.nv_public(facts.key).unwrap(),
        wire.nv_public(facts.rec).unwrap(),
    );
    // TPMA_NV: WRITTEN | NO_DA and then POLICYWRITE with
    const BASE: u32 = 1 << 29 | 1 << 25 | 1 << 3;
    assert_eq!(pin.attributes, BASE | 1 << 17 | 8 << 4, "OWNERREAD, TPM_NT_PIN_FAIL");
    assert_eq!(sec.attributes, BASE | 1 << 19, "POLICYREAD");
    assert_eq!(key.attributes, BASE | 1 << 18, "AUTHREAD");
    assert_eq!(rec.attributes, BASE | 1 << 18, "AUTHREAD");
    assert_eq!((pin.size, sec.size, key.size, rec.size), (8, 72, 32, 64));
    // What must not be there, said once more by name.
    for (bit, name) in [(0, "PPWRITE"), (1, "OWNERWRITE"), (2, "AUTHWRITE"), (10, "POLICY_DELETE")] {
        for index in [&pin, &sec, &key, &rec] {
            assert_eq!(index.attributes & 1 << bit, 0, "{name}");
        }
    }
    for (bit, name) in [(16, "PPREAD"), (18, "AUTHREAD"), (19, "POLICYREAD")] {
        assert_eq!(pin.attributes & 1 << bit, 0, "NV_pin {name}");
    }
    assert_eq!((&key.policy[..], &rec.policy), (&policies.w[..], &sec.policy));
    println!(
        "objects: indices pin {:#010x} sec {:#010x} key {:#010x}",
        pin.attributes, sec.attributes, key.attributes
    );
}

#[test]
fn the_policy_digests_are_those_of_the_tpms_trial_sessions() {
    let bench = Bench::new();
    let (wire, facts) = (&bench.wire, &bench.facts);
    let secrets = bench.secrets();
    let v = facts.load_v(wire);
    let mut digests = 0;
    let mut trial = |steps: &dyn Fn(&Session)| -> Vec<u8> {
        let session = wire.session(TRIAL);
        steps(&session);
        let digest = wire.digest(&session);
        wire.flush(session.handle);
        digests += 1;
        digest
    };
    let prove_v = |s: &Session| wire.policy_secret(v, s, Auth::Password(&secrets.s)).unwrap();
    let w = trial(&|s| {
        wire.command_code(s, cc::NV_WRITE);
        wire.not_written(s);
    });
    let c = trial(&|s| {
        wire.command_code(s, cc::NV_CHANGE_AUTH);
        prove_v(s);
    });
    let x = trial(&|s| {
        wire.command_code(s, cc::NV_WRITE);
        prove_v(s);
    });
    let branches: Vec<[u8; 32]> =
        [&w, &c, &x].into_iter().map(|d| d.as_slice().try_into().unwrap()).collect();
    let either = trial(&|s| wire.or(s, &branches).unwrap());
    let needs_pin = trial(&|s| wire.policy_secret(facts.pin, s, Auth::Password(&secrets.k1)).unwrap());
    wire.flush(v);
    assert_eq!(Policies::new(&facts.v_name()).branches().to_vec(), branches);
    assert_eq!(wire.nv_public(facts.pin).unwrap().policy, either);
    assert_eq!(wire.nv_public(facts.sec).unwrap().policy, needs_pin);
    assert_eq!(wire.nv_public(facts.key).unwrap().policy, w);
    let mut bench = bench;
    let (public, _) = bench.account_blob();
    assert_eq!(public[8..10], [0, 32]);
    assert_eq!(public[10..42], needs_pin);
    println!("objects: {digests} policy digests equal the TPM's");
}

#[test]
fn nv_key_and_the_pin_limit_are_written_once() {
    let bench = Bench::new();
    let (wire, facts) = (&bench.wire, &bench.facts);
    let mut refused = 0;
    for (index, or, data) in [(facts.key, false, vec![0; 32]), (facts.pin, true, vec![0xff; 8])] {
        let mut policy = bench.write_once_session(or);
        let again = wire.nv_write(index, index, &data, Auth::Policy(&mut policy));
        assert_eq!(again, Err(rc::POLICY_FAIL));
        wire.flush(policy.handle);
        for (by, code) in [(index, rc::AUTH_UNAVAILABLE), (OWNER, rc::NV_AUTHORIZATION)] {
            let by_auth = wire.nv_write(by, index, &data, Auth::Password(&[]));
            assert_eq!(by_auth, Err(code), "{by:#x}");
        }
        refused += 3;
    }
    let (k1, _) = facts.derive(PIN);
    let by_pin = wire.nv_write(facts.pin, facts.pin, &[0xff; 8], Auth::Password(&k1));
    assert_eq!(by_pin, Err(rc::AUTH_UNAVAILABLE));
    assert_eq!(wire.pin_count(facts.pin), (0, 8));
    println!("objects: {} second writes refused", refused + 1);
}

/// A `TPMT_PUBLIC` of ours, up to its point (Part 2 §12.2.4).
fn ecc_public(attributes: u32, policy: &[u8], symmetric: &[u8]) -> Vec<u8> {
    [
        [0, 0x23, 0, 0x0b].as_slice(),
        &attributes.to_be_bytes(),
        &b2(policy),
        symmetric,
        &[0, 0x10, 0, 3, 0, 0x10], // scheme NULL, P-256, KDF NULL
    ]
    .concat()
}

const AES_128_CFB: [u8; 6] = [0, 6, 0, 0x80, 0, 0x43];
const ALG_NULL: [u8; 2] = [0, 0x10];
/// fixedTPM, fixedParent, sensitiveDataOrigin.
const STAYS: u32 = 1 << 1 | 1 << 4 | 1 << 5;

#[test]
fn v_srk_and_account_key_are_the_tables_as_create_and_read_public_return_them() {
    let scene = Scene::empty();
    let proxy = Proxy::start(scene.tpm.port()).unwrap();
    let mut keys = key_store(&proxy.tcti());
    vault_core::setup(scene.dir(), &mut keys, &pin(PIN), 0, &mut rng()).unwrap();
    enroll(scene.dir(), &mut keys, PIN, "alice", "none");
    enroll(scene.dir(), &mut keys, PIN, "bob", "direct");
    let record = proxy.record();
    let facts = Facts::of(scene.dir(), &mut keys);
    let accounts = common::accounts(scene.dir(), &mut keys);
    drop(keys);
    let wire = Wire::new(scene.tpm.port());
    let secrets = facts.secrets(&wire, PIN);
    let needs_pin = wire.nv_public(facts.sec).unwrap().policy;

    let (srk, srk_name) = wire.read_public(SRK).unwrap();
    let shape = ecc_public(0x0003_0472, &[], &AES_128_CFB);
    assert_eq!(srk[..shape.len()], shape, "the TCG's template");
    assert_eq!(facts.srk_name, srk_name);

    // As Create answered.
    let made: Vec<_> =
        record.iter().filter(|e| e.code() == cc::CREATE && e.response_code() == 0).map(created).collect();
    assert_eq!(made.len(), 3);
    let v_shape = ecc_public(0x0003_0072, &[], &AES_128_CFB);
    let key_shape = ecc_public(0x0004_0432, &needs_pin, &ALG_NULL);
    for (made, shape) in made.iter().zip([&v_shape, &key_shape, &key_shape]) {
        assert_eq!(made.public[..shape.len()], **shape);
        let attributes = u32::from_be_bytes(made.public[4..8].try_into().unwrap());
        assert_eq!(attributes & STAYS, STAYS);
    }
    assert_eq!((&made[0].public, &made[0].private), (&facts.v_public, &facts.v_private));
    // What is stored is what Create answered, and ReadPublic of it loaded is the same again.
    let v = facts.load_v(&wire);
    assert_eq!(wire.read_public(v).unwrap().0, facts.v_public);
    for (made, (_, account)) in made[1..].iter().zip(&accounts) {
        let (public, private) = bytes_of(&account.key);
        assert_eq!((&made.public, &made.private), (&public, &private));
        let key = wire.load(v, &secrets.s, &public, &private).unwrap();
        assert_eq!(wire.read_public(key).unwrap().0, public);
        wire.flush(key);
    }
    wire.flush(v);
    println!("objects: SRK, V and {} account keys as in the table", accounts.len());
}

#[test]
fn a_private_blob_loads_under_no_other_parent_and_in_no_other_tpm() {
    let mut bench = Bench::new();
    let (public, private) = bench.account_blob();
    let secrets = bench.secrets();
    let (wire, facts) = (&bench.wire, &bench.facts);
    let other = wire.other_storage_key();
    assert_eq!(wire.load(other, &[], &facts.v_public, &facts.v_private), Err(rc::INTEGRITY), "V");
    assert_eq!(wire.load(other, &[], &public, &private), Err(rc::INTEGRITY), "account key");
    wire.flush(other);
    assert_eq!(wire.load(SRK, &[], &public, &private), Err(rc::INTEGRITY), "account key under the SRK");
    // The same commands, the right parent.
    let v = facts.load_v(wire);
    let key = wire.load(v, &secrets.s, &public, &private).unwrap();
    wire.flush(key);
    // A public area with one attribute more is not what the private one was bound to.
    let mut weaker = public.clone();
    weaker[7] |= 1 << 6; // userWithAuth
    assert_eq!(wire.load(v, &secrets.s, &weaker, &private), Err(rc::INTEGRITY), "userWithAuth");
    wire.flush(v);

    // Another TPM, with an SRK of the same template in the same place.
    let stranger = Bench::new();
    let there = &stranger.wire;
    assert_eq!(there.load(SRK, &[], &facts.v_public, &facts.v_private), Err(rc::INTEGRITY));
    let v = stranger.facts.load_v(there);
    let s = stranger.secrets().s;
    assert_eq!(there.load(v, &s, &public, &private), Err(rc::INTEGRITY));
    there.flush(v);
    // And that is how a vault's file says so.
    let mut elsewhere = TestTpm::key_store(&stranger.scene.tpm);
    let error = common::try_open(bench.scene.dir(), &mut elsewhere).err().unwrap();
    assert!(matches!(error, OpenError::KeyStore(KeyStoreError::KeysGone(_))), "{error:?}");
    println!("objects: 6 loads of a blob elsewhere refused");
}

#[test]
fn no_key_can_be_duplicated() {
    let mut bench = Bench::new();
    let (public, private) = bench.account_blob();
    let s = bench.secrets();
    let (wire, facts) = (&bench.wire, &bench.facts);
    let v = facts.load_v(wire);
    let key = wire.load(v, &s.s, &public, &private).unwrap();
    for object in [v, key] {
        let mut policy = wire.session(POLICY);
        wire.command_code(&policy, cc::DUPLICATE);
        wire.policy_secret(facts.pin, &policy, Auth::Password(&s.k1)).unwrap();
        // No key of ours around it, no new parent: in the clear.
        let params = [b2(&[]), ALG_NULL.to_vec()].concat();
        let out = wire.call(cc::DUPLICATE, &[object, 0x4000_0007], &mut [Auth::Policy(&mut policy)], &params);
        assert!(out.is_err());
        println!("objects: Duplicate of {object:#x} answers {:#x}", out.err().unwrap());
        wire.flush(policy.handle);
    }
    wire.flush(key);
    wire.flush(v);
}

#[test]
fn an_account_key_signs_with_no_authorization_but_the_pin() {
    let mut bench = Bench::new();
    let (public, private) = bench.account_blob();
    let s = bench.secrets();
    let (wire, facts) = (&bench.wire, &bench.facts);
    let v = facts.load_v(wire);
    let key = wire.load(v, &s.s, &public, &private).unwrap();
    let digest = [b2(&[3; 32]), vec![0, 0x18, 0, 0x0b, 0x80, 0x24, 0x40, 0, 0, 7, 0, 0]].concat();
    let sign = |auth: Auth<'_>| wire.call(cc::SIGN, &[key], &mut [auth], &digest).map(drop);
    const AUTH_UNAVAILABLE: u32 = rc::AUTH_UNAVAILABLE;
    assert_eq!(sign(Auth::Password(&[])), Err(AUTH_UNAVAILABLE), "empty password");
    assert_eq!(sign(Auth::Password(&s.s)), Err(AUTH_UNAVAILABLE), "S");
    assert_eq!(sign(Auth::Value(&mut wire.session(0), &[])), Err(AUTH_UNAVAILABLE), "empty HMAC");
    let mut policy = wire.session(POLICY);
    assert_eq!(sign(Auth::Policy(&mut policy)), Err(rc::POLICY_FAIL), "an empty policy");
    wire.policy_secret(v, &policy, Auth::Password(&s.s)).unwrap();
    assert_eq!(sign(Auth::Policy(&mut policy)), Err(rc::POLICY_FAIL), "S by policy");
    wire.flush(policy.handle);
    let mut policy = wire.session(POLICY);
    wire.policy_secret(facts.pin, &policy, Auth::Password(&s.k1)).unwrap();
    assert_eq!(sign(Auth::Policy(&mut policy)), Ok(()), "the PIN");
    assert_eq!(sign(Auth::Policy(&mut policy)), Err(rc::POLICY_FAIL), "the PIN once, a second signature");
    println!("objects: 6 signatures without a PIN of their own refused, 1 with it made");
}

/// `PolicyAuthValue` sessions for one command on an index.
fn auth_value_session(wire: &Wire, code: Option<u32>) -> Session {
    let policy = wire.session(POLICY);
    if let Some(code) = code {
        wire.command_code(&policy, code);
    }
    wire.auth_value(&policy);
    policy
}

#[test]
fn no_policy_auth_value_branch_opens_nv_pin() {
    let bench = Bench::new();
    let (wire, facts) = (&bench.wire, &bench.facts);
    let (k1, _) = facts.derive(PIN);
    let before = wire.pin_count(facts.pin);
    let branches = Policies::new(&facts.v_name()).branches();
    let mut refused = 0;
    // Even with the right authValue, so that no answer tells a right guess from a wrong one.
    for guess in [k1, [9; 32]] {
        for (code, or) in [
            (Some(cc::NV_CHANGE_AUTH), false),
            (None, false),
            (Some(cc::NV_WRITE), false),
            (Some(cc::NV_READ), false),
            (Some(cc::NV_CHANGE_AUTH), true),
        ] {
            let commands: [&dyn Fn(Auth<'_>) -> Result<(), u32>; 3] = [
                &|auth| wire.nv_change_auth(facts.pin, &[1; 32], auth),
                &|auth| wire.nv_write(facts.pin, facts.pin, &[0, 0, 0, 0, 0, 0, 1, 0], auth),
                &|auth| wire.nv_read(facts.pin, facts.pin, 8, auth).map(drop),
            ];
            for command in commands {
                let mut policy = auth_value_session(wire, code);
                if or {
                    let joined = wire.or(&policy, &branches);
                    assert!(joined.is_err(), "not one of W, C and X");
                }
                let answer = command(Auth::Value(&mut policy, &guess));
                assert!(
                    answer.is_err_and(|rc| rc != rc::BAD_AUTH && rc != rc::AUTH_FAIL || guess != k1),
                    "{answer:x?}"
                );
                wire.flush(policy.handle);
                refused += 1;
            }
        }
    }
    let (count, limit) = wire.pin_count(facts.pin);
    println!(
        "objects: {refused} uses of PolicyAuthValue on NV_pin refused, pinCount {} -> {count}",
        before.0
    );
    assert_eq!(limit, 8);
    sign(bench.scene.dir(), &mut bench.scene.tpm.key_store(), PIN);
}

/// The control: what the two branches would have given an attacker.
#[test]
fn a_scratch_index_with_a_policy_auth_value_branch_gives_unlimited_guesses() {
    let bench = Bench::new();
    let wire = &bench.wire;
    let right = [0x77; 32];
    for (n, branch_code) in [Some(cc::NV_CHANGE_AUTH), None].into_iter().enumerate() {
        let index = 0x0180_ff00 + u32::try_from(n).unwrap();
        let branch = {
            let trial = wire.session(TRIAL);
            if let Some(code) = branch_code {
                wire.command_code(&trial, code);
            }
            wire.auth_value(&trial);
            let digest: [u8; 32] = wire.digest(&trial).try_into().unwrap();
            wire.flush(trial.handle);
            digest
        };
        let w = Policies::new(&bench.facts.v_name()).w;
        let either = {
            let trial = wire.session(TRIAL);
            wire.or(&trial, &[w, branch]).unwrap();
            let digest = wire.digest(&trial);
            wire.flush(trial.handle);
            digest
        };
        // POLICYWRITE, PIN_FAIL, OWNERREAD, NO_DA: NV_pin's attributes; POLICYREAD too for the bare branch.
        let read = u32::from(branch_code.is_none()) << 19;
        wire.define(index, read | 1 << 25 | 1 << 17 | 1 << 3 | 8 << 4, &either, 8, &right);
        let mut policy = bench.write_once_session(false);
        wire.or(&policy, &[w, branch]).unwrap();
        wire.nv_write(index, index, &[0, 0, 0, 0, 0, 0, 0, 8], Auth::Policy(&mut policy)).unwrap();
        wire.flush(policy.handle);
        let guess = |auth: [u8; 32]| {
            let mut policy = auth_value_session(wire, branch_code);
            wire.or(&policy, &[w, branch]).unwrap();
            // NV_ChangeAuth is of the ADMIN role, for which a policy must name the command; the bare
            // branch opens the rest.
            let auth = Auth::Value(&mut policy, &auth);
            let answer = match branch_code {
                Some(_) => wire.nv_change_auth(index, &right, auth),
                None => wire.nv_read(index, index, 8, auth).map(drop),
            };
            wire.flush(policy.handle);
            answer
        };
        let wrong: Vec<u32> = (0..20).map(|n| guess([n; 32]).unwrap_err()).collect();
        let tried = wrong.iter().filter(|rc| [rc::BAD_AUTH, rc::AUTH_FAIL].contains(rc)).count();
        println!(
            "objects: control {n}: {tried} of 20 wrong guesses judged (limit 8), pinCount {:?}, then the right one: {:?}",
            wire.pin_count(index),
            guess(right)
        );
        assert_eq!(tried, 20, "{wrong:x?}");
        assert_eq!(guess(right), Ok(()));
    }
    assert_eq!(wire.lockout_counter(), 0);
}

#[test]
fn nv_pin_cannot_be_read_in_an_encrypted_policy_session() {
    let bench = Bench::new();
    let (wire, facts) = (&bench.wire, &bench.facts);
    let s = bench.secrets();
    let v = facts.load_v(wire);
    let branches = Policies::new(&facts.v_name()).branches();
    let mut refused = 0;
    let satisfied: [(&str, &dyn Fn(&Session)); 5] = [
        ("nothing", &|_| {}),
        ("W", &|p| {
            wire.command_code(p, cc::NV_WRITE);
            wire.not_written(p);
            wire.or(p, &branches).unwrap();
        }),
        ("C", &|p| {
            wire.command_code(p, cc::NV_CHANGE_AUTH);
            wire.policy_secret(v, p, Auth::Password(&s.s)).unwrap();
            wire.or(p, &branches).unwrap();
        }),
        ("X", &|p| {
            wire.command_code(p, cc::NV_WRITE);
            wire.policy_secret(v, p, Auth::Password(&s.s)).unwrap();
            wire.or(p, &branches).unwrap();
        }),
        ("the PIN", &|p| wire.policy_secret(facts.pin, p, Auth::Password(&s.k1)).unwrap()),
    ];
    let mut codes = Vec::new();
    for (what, satisfy) in satisfied {
        let mut policy = wire.session(POLICY);
        satisfy(&policy);
        let read = wire.nv_read(facts.pin, facts.pin, 8, Auth::Encrypted(&mut policy));
        codes.push((what, read.clone().err()));
        assert!(read.is_err(), "{what}");
        // The owner is no way round: a policy session does not authorize it.
        let read = wire.nv_read(OWNER, facts.pin, 8, Auth::Encrypted(&mut policy));
        assert!(read.is_err(), "{what} as the owner");
        wire.flush(policy.handle);
        refused += 2;
    }
    // libtpms lets the authValue of a PIN index authorize reads without AUTHREAD; each wrong one counts.
    assert_eq!(wire.nv_read(facts.pin, facts.pin, 8, Auth::Password(&[1; 32])), Err(rc::BAD_AUTH));
    assert_eq!(wire.pin_count(facts.pin), (1, 8));
    // The control: the same command reads NV_sec.
    let mut policy = wire.session(POLICY);
    wire.policy_secret(facts.pin, &policy, Auth::Password(&s.k1)).unwrap();
    let read = wire.nv_read(facts.sec, facts.sec, 72, Auth::Encrypted(&mut policy)).unwrap();
    assert_ne!(read, s.stored, "it was encrypted");
    wire.flush(policy.handle);
    wire.flush(v);
    println!("objects: {refused} encrypted reads of NV_pin refused: {codes:x?}");
}

#[test]
fn an_rsa_srk_that_is_there_is_used_as_found() {
    let scene = Scene::empty();
    let shape = "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt";
    let context = scene.tpm.state().join("srk.ctx");
    let context = context.to_str().unwrap();
    let run = |program: &str, args: &[&str]| {
        let out = scene.tpm.tool(program, args).unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    };
    run("tpm2_createprimary", &["-C", "o", "-G", "rsa2048:null:aes128cfb", "-a", shape, "-c", context]);
    run("tpm2_evictcontrol", &["-C", "o", "-c", context, "0x81000001"]);
    run("tpm2_flushcontext", &["-t"]);
    let wire = Wire::new(scene.tpm.port());
    let before = wire.read_public(SRK).unwrap();
    assert_eq!(before.0[..2], [0, 1], "RSA");
    let mut keys = scene.tpm.key_store();
    vault_core::setup(scene.dir(), &mut keys, &pin(PIN), 0, &mut rng()).unwrap();
    enroll(scene.dir(), &mut keys, PIN, "alice", "direct");
    sign(scene.dir(), &mut keys, PIN);
    assert_eq!(wire.read_public(SRK).unwrap(), before);
    assert_eq!(Facts::of(scene.dir(), &mut keys).srk_name, before.1);
}

#[test]
fn an_srk_place_taken_by_another_key_is_an_error_that_says_so() {
    for (attributes, algorithm) in [
        ("fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|sign", "ecc256:ecdsa-sha256:null"),
        ("fixedtpm|fixedparent|sensitivedataorigin|userwithauth|restricted|decrypt", "ecc256:null:aes128cfb"),
        (
            "fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda|restricted|decrypt",
            "ecc256:null:aes256cfb",
        ),
        ("sensitivedataorigin|userwithauth|noda|restricted|decrypt", "ecc256:null:aes128cfb"),
    ] {
        let scene = Scene::empty();
        let context = scene.tpm.state().join("k.ctx");
        let context = context.to_str().unwrap();
        let tool = |program: &str, args: &[&str]| {
            let out = scene.tpm.tool(program, args).unwrap();
            assert!(out.status.success(), "{program} {}", String::from_utf8_lossy(&out.stderr));
        };
        tool("tpm2_createprimary", &["-C", "o", "-G", algorithm, "-a", attributes, "-c", context]);
        tool("tpm2_evictcontrol", &["-C", "o", "-c", context, "0x81000001"]);
        tool("tpm2_flushcontext", &["-t"]);
        let mut keys = scene.tpm.key_store();
        let error = vault_core::setup(scene.dir(), &mut keys, &pin(PIN), 0, &mut rng()).unwrap_err();
        assert!(kind_of(&error).starts_with("ForeignSrk"), "{error:?}");
        assert_eq!(keys.status(None).unwrap().lockout.counter, 0);
        assert_eq!(Wire::new(scene.tpm.port()).loaded(), [] as [u32; 0]);
    }
}
