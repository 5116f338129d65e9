//! What a stranger reads back from the TPM: every object is exactly what the design's table says.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod common;

use common::{Auth, Facts, Policies, Secrets, Wire, b2, bytes_of, cc, enroll, rc, sign};
use swtpm_tests::{PIN, Scene, TestTpm, pin, proxy::Proxy, rng};
use tpm_backend::Tpm;
use vault_core::keystore::KeyStoreError;

const OWNER: u32 = 0x4000_0001;
const SRK: u32 = 0x8100_0001;
const POLICY: u8 = 1;
const TRIAL: u8 = 3;

/// A vault with one passkey, and what its owner and a stranger know of it.
struct Bench {
    scene: Scene,
    keys: Tpm,
    wire: Wire,
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
        Self { scene, keys, wire, facts }
    }

    fn secrets(&self) -> Secrets {
        self.facts.secrets(&self.wire, PIN)
    }

    fn account_blob(&mut self) -> (Vec<u8>, Vec<u8>) {
        let accounts = common::accounts(self.scene.dir(), &mut self.keys);
        bytes_of(&accounts[0].1.key)
    }

    /// W or C or X, satisfied through W.
    fn write_once_session(&self, or: bool) -> common::Session {
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
    let (pin, sec, key) = (
        wire.nv_public(facts.pin).unwrap(),
        wire.nv_public(facts.sec).unwrap(),
        wire.nv_public(facts.key).unwrap(),
    );
    // TPMA_NV: WRITTEN | NO_DA and then POLICYWRITE with
    const BASE: u32 = 1 << 29 | 1 << 25 | 1 << 3;
    assert_eq!(pin.attributes, BASE | 1 << 17 | 8 << 4, "OWNERREAD, TPM_NT_PIN_FAIL");
    assert_eq!(sec.attributes, BASE | 1 << 19, "POLICYREAD");
    assert_eq!(key.attributes, BASE | 1 << 18, "AUTHREAD");
    assert_eq!((pin.size, sec.size, key.size), (8, 72, 32));
    // What must not be there, said once more by name.
    for (bit, name) in [(0, "PPWRITE"), (1, "OWNERWRITE"), (2, "AUTHWRITE"), (10, "POLICY_DELETE")] {
        for index in [&pin, &sec, &key] {
            assert_eq!(index.attributes & 1 << bit, 0, "{name}");
        }
    }
    for (bit, name) in [(16, "PPREAD"), (18, "AUTHREAD"), (19, "POLICYREAD")] {
        assert_eq!(pin.attributes & 1 << bit, 0, "NV_pin {name}");
    }
    assert_eq!(key.policy, policies.w);
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
    let mut trial = |steps: &dyn Fn(&common::Session)| -> Vec<u8> {
        let session = wire.session(TRIAL);
        steps(&session);
        let digest = wire.digest(&session);
        wire.flush(session.handle);
        digests += 1;
        digest
    };
    let prove_v = |s: &common::Session| wire.policy_secret(v, s, Auth::Password(&secrets.s)).unwrap();
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
        for by in [index, OWNER] {
            let by_auth = wire.nv_write(by, index, &data, Auth::Password(&[]));
            assert_eq!(by_auth, Err(rc::NV_AUTHORIZATION), "{by:#x}");
        }
        refused += 3;
    }
    let (k1, _) = facts.derive(PIN);
    let by_pin = wire.nv_write(facts.pin, facts.pin, &[0xff; 8], Auth::Password(&k1));
    assert_eq!(by_pin, Err(rc::NV_AUTHORIZATION));
    assert_eq!(wire.pin_count(facts.pin), (0, 8));
    println!("objects: {} second writes refused", refused + 1);
}
