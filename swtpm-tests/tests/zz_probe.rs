//! probe
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
mod common;
use common::*;
use swtpm_tests::{PIN, Scene, key_store, pin, proxy::{Fault, FaultKind, Proxy}};
#[test]
fn forged_delete() {
    let scene = Scene::with_vault();
    let mut keys = scene.tpm.key_store();
    let id = enroll(scene.dir(), &mut keys, PIN, "alice", "none");
    let facts = Facts::of(scene.dir(), &mut keys);
    drop(keys);
    let wire = Wire::new(scene.tpm.port());
    let (k1, _) = facts.derive("314159x");
    facts.forge_pin_index(&wire, &k1);
    let mut keys = scene.tpm.key_store();
    let r = open(scene.dir(), &mut keys).unlock(&pin("314159x")).map_err(|e| format!("{e:?}")).and_then(|u| u.delete(id).map_err(|e| format!("{e:?}")));
    println!("probe: delete under forged index: {r:?}; accounts left {} lockout {}", accounts(scene.dir(), &mut keys).len(), wire.lockout_counter());
    // CHANGING flag set by the attacker
    let scene = Scene::with_vault();
    let mut keys = scene.tpm.key_store();
    enroll(scene.dir(), &mut keys, PIN, "alice", "none");
    let facts = Facts::of(scene.dir(), &mut keys);
    drop(keys);
    let wire = Wire::new(scene.tpm.port());
    let (k1, _) = facts.derive("314159x");
    facts.forge_pin_index(&wire, &k1);
    let mut stored = facts.read_sec(&wire, &k1).unwrap();
    stored[64] |= 0x80;
    let mut policy = wire.session(wire::POLICY);
    wire.policy_secret(facts.pin, &policy, Auth::Password(&k1)).unwrap();
    wire.nv_write(facts.sec, facts.sec, &stored, Auth::Policy(&mut policy)).unwrap();
    wire.flush(policy.handle);
    let mut keys = scene.tpm.key_store();
    let e = unlock_error(scene.dir(), &mut keys, "314159x");
    println!("probe: forged + CHANGING: {e:?} lockout {}", wire.lockout_counter());
}
#[test]
fn killed_without_restart() {
    let scene = Scene::with_vault();
    let mut keys = scene.tpm.key_store();
    enroll(scene.dir(), &mut keys, PIN, "alice", "none");
    drop(keys);
    let proxy = Proxy::start(scene.tpm.port()).unwrap();
    let wire = Wire::new(scene.tpm.port());
    for n in 0..15 {
        proxy.arm(Fault::once(n, FaultKind::EndOfStream));
        let _ = try_sign(scene.dir(), &mut key_store(&proxy.tcti()), PIN);
        let left = wire.loaded();
        let mut kinds = vec![];
        for _ in 0..3 {
            let r = try_sign(scene.dir(), &mut scene.tpm.key_store(), PIN);
            kinds.push(r.as_ref().map_or_else(|e| kind_of(e), |_| "signed".into()));
        }
        println!("probe: killed at {n}: left {left:x?} -> {kinds:?} then {:x?}", wire.loaded());
        for h in wire.loaded() { wire.flush(h); }
    }
}
