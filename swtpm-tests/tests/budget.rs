//! TPM commands per operation.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::pedantic
)]

use swtpm_tests::{
    Scene, creation_options, key_store, pin,
    proxy::{Proxy, command_name},
    request_options, rng,
};
use vault_core::{
    Vault,
    webauthn::{CreateRequest, GetRequest, Origin, UserPresent},
};

#[test]
fn budgets_hold() {
    let scene = Scene::empty();
    let proxy = Proxy::start(scene.tpm.port()).unwrap();
    let show = |what: &str| {
        let codes = proxy.codes();
        proxy.clear_record();
        let names: Vec<_> = codes.iter().map(|c| command_name(*c)).collect();
        println!("{what}: {} {names:?}", codes.len());
        codes.len()
    };
    let origin = || Origin::parse("https://example.org").unwrap();
    vault_core::setup(scene.dir(), &mut key_store(&proxy.tcti()), &pin("271828"), &mut rng()).unwrap();
    show("setup");
    for attestation in ["none", "direct"] {
        let mut tpm = key_store(&proxy.tcti());
        let mut vault = Vault::open(scene.dir(), &mut tpm).unwrap();
        let json = creation_options("example.org", "alice", attestation);
        let request = CreateRequest::from_json(&json, origin()).unwrap();
        let unlocked = vault.unlock(&pin("271828")).unwrap();
        unlocked.enroll(&request, UserPresent::confirmed(), 0, &mut rng()).unwrap();
        drop(vault);
        drop(tpm);
        show("enroll");
    }
    let mut tpm = key_store(&proxy.tcti());
    let mut vault = Vault::open(scene.dir(), &mut tpm).unwrap();
    let request = GetRequest::from_json(&request_options("example.org"), origin()).unwrap();
    let id = vault.matching(&request).unwrap()[0].0;
    vault.unlock(&pin("271828")).unwrap().sign(&request, id, UserPresent::confirmed()).unwrap();
    drop(vault);
    drop(tpm);
    show("sign");
    let mut tpm = key_store(&proxy.tcti());
    let mut vault = Vault::open(scene.dir(), &mut tpm).unwrap();
    vault.unlock(&pin("271828")).unwrap().change_pin(&pin("314159x")).unwrap();
    drop(vault);
    drop(tpm);
    show("pin change");
    let mut tpm = key_store(&proxy.tcti());
    let mut vault = Vault::open(scene.dir(), &mut tpm).unwrap();
    assert!(vault.unlock(&pin("271828")).is_err());
    println!("{:?}", vault.status().unwrap());
    vault.unlock(&pin("314159x")).unwrap().delete(id).unwrap();
    show("delete");
    drop(vault);
    drop(tpm);
    let mut tpm = key_store(&proxy.tcti());
    vault_core::wipe(scene.dir(), &mut tpm).unwrap();
    show("wipe");
    println!(
        "{}",
        String::from_utf8_lossy(&scene.tpm.tool("tpm2_getcap", &["handles-transient"]).unwrap().stdout)
    );
    println!(
        "{}",
        String::from_utf8_lossy(&scene.tpm.tool("tpm2_getcap", &["handles-loaded-session"]).unwrap().stdout)
    );
    println!(
        "{}",
        String::from_utf8_lossy(&scene.tpm.tool("tpm2_getcap", &["handles-nv-index"]).unwrap().stdout)
    );
}
