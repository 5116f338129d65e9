//! What each operation costs: TPM commands, and time against a floor measured in the same run.
//!
//! The floor is the key derivation plus as many of the TPM's cheapest commands as the operation sends: no
//! program that sends these commands is faster.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::time::{Duration, Instant};

use swtpm_tests::{PIN, Scene, creation_options, key_store, pin, proxy::Proxy, request_options, rng};
use vault_core::{
    Vault,
    keystore::KeyStore,
    pin::PinSecrets,
    webauthn::{CreateRequest, GetRequest, Origin, UserPresent},
};

const RUNS: usize = 21;

fn main() {
    let scene = Scene::with_vault();
    let proxy = Proxy::start(scene.tpm.port()).unwrap();
    let derivation = median(|| drop(PinSecrets::derive(&pin(PIN), &[0; 16])));
    // status(None) is two TPM2_GetCapability on one connection.
    let command = median(|| drop(key_store(&proxy.tcti()).status(None).unwrap())) / 2;
    println!("key derivation {derivation:.2?}, one cheap TPM command {command:.2?}\n");
    println!("{:<24}{:>9}{:>12}{:>12}{:>8}", "operation", "commands", "time", "floor", "ratio");
    let row = |name: &str, pins: u32, run: &dyn Fn(&mut Vault<'_>)| {
        let once = || {
            let mut tpm = key_store(&proxy.tcti());
            run(&mut Vault::open(scene.dir(), &mut tpm).unwrap());
        };
        once();
        proxy.clear_record();
        once();
        let commands = proxy.codes().len();
        let (time, floor) = (median(once), command * u32::try_from(commands).unwrap() + derivation * pins);
        let ratio = time.as_secs_f64() / floor.as_secs_f64();
        println!("{name:<24}{commands:>9}{time:>12.2?}{floor:>12.2?}{ratio:>8.2}");
    };
    let enroll = |attestation: &'static str| {
        move |vault: &mut Vault<'_>| {
            let json = creation_options("example.org", "alice", attestation);
            let request = CreateRequest::from_json(&json, origin()).unwrap();
            let unlocked = vault.unlock(&pin(PIN)).unwrap();
            drop(unlocked.enroll(&request, UserPresent::confirmed(), 0, &mut rng()).unwrap());
        }
    };
    row("list", 0, &|vault| drop(vault.accounts().unwrap()));
    row("enrol", 1, &enroll("none"));
    row("enrol, packed self", 1, &enroll("direct"));
    row("sign", 1, &|vault| {
        let request = GetRequest::from_json(&request_options("example.org"), origin()).unwrap();
        let (id, _) = vault.matching(&request).unwrap().swap_remove(0);
        drop(vault.unlock(&pin(PIN)).unwrap().sign(&request, id, UserPresent::confirmed()).unwrap());
    });
    row("PIN change", 2, &|vault| vault.unlock(&pin(PIN)).unwrap().change_pin(&pin(PIN)).unwrap());
}

fn origin() -> Origin {
    Origin::parse("https://example.org").unwrap()
}

fn median(run: impl Fn()) -> Duration {
    let mut times: Vec<_> = (0..RUNS)
        .map(|_| {
            let started = Instant::now();
            run();
            started.elapsed()
        })
        .collect();
    times.sort();
    times.into_iter().nth(RUNS / 2).unwrap_or_default()
}
