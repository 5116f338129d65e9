//! What each operation costs in TPM commands: the measure that holds on any chip, and the table of docs/architecture.md.
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
    PIN, Scene, creation_options, key_store, pin,
    proxy::{Proxy, command_name},
    request_options, rng,
};
use vault_core::{
    Vault,
    webauthn::{CreateRequest, GetRequest, Origin, UserPresent},
};

const NEW_PIN: &str = "314159x";
/// YIELDED, TESTING and RETRY: libtss2 sends such a command again.
const ASK_AGAIN: [u32; 3] = [0x908, 0x90a, 0x922];

struct Counted {
    scene: Scene,
    proxy: Proxy,
}

impl Counted {
    /// The commands of one operation in a process of its own, up to the last flush.
    fn commands(&self, operation: impl FnOnce(&mut Vault<'_>)) -> Vec<&'static str> {
        self.proxy.clear_record();
        let mut keys = key_store(&self.proxy.tcti());
        let mut vault = Vault::open(self.scene.dir(), &mut keys).unwrap();
        operation(&mut vault);
        drop(vault);
        drop(keys);
        self.names()
    }

    fn names(&self) -> Vec<&'static str> {
        let done = self.proxy.record().into_iter().filter(|e| !ASK_AGAIN.contains(&e.response_code()));
        done.map(|e| command_name(e.code())).collect()
    }
}

fn origin() -> Origin {
    Origin::parse("https://example.org").unwrap()
}

fn enroll(vault: &mut Vault<'_>, attestation: &str) {
    let json = creation_options("example.org", "alice", attestation);
    let request = CreateRequest::from_json(&json, origin()).unwrap();
    let unlocked = vault.unlock(&pin(PIN)).unwrap();
    unlocked.enroll(&request, None, UserPresent::confirmed(), 0, &mut rng()).unwrap();
}

fn sign(vault: &mut Vault<'_>) {
    let request = GetRequest::from_json(&request_options("example.org"), origin()).unwrap();
    let id = vault.matching(&request).unwrap()[0].0;
    vault.unlock(&pin(PIN)).unwrap().sign(&request, id, UserPresent::confirmed(), 0, &mut rng()).unwrap();
}

#[test]
fn every_operation_stays_within_its_budget() {
    let scene = Scene::empty();
    let proxy = Proxy::start(scene.tpm.port()).unwrap();
    let here = Counted { scene, proxy };
    vault_core::setup(here.scene.dir(), &mut key_store(&here.proxy.tcti()), &pin(PIN), 0, &mut rng())
        .unwrap();
    let setup = here.names();
    let enrol = here.commands(|vault| enroll(vault, "none"));
    let packed = here.commands(|vault| enroll(vault, "direct"));
    let signed = here.commands(sign);
    let list = here.commands(|vault| drop(vault.accounts().unwrap()));
    // Nothing that a chip takes long for, or that an operation can know without asking.
    for operation in [&enrol, &packed, &signed, &list] {
        for dear in ["CreatePrimary", "GetCapability", "PolicyGetDigest", "unknown"] {
            assert!(!operation.contains(&dear), "{operation:?}");
        }
    }
    assert!(enrol.len() <= 15 && packed.len() <= enrol.len() + 4 && signed.len() <= 15);
    let delete = here.commands(|vault| {
        let id = vault.accounts().unwrap()[0].0;
        vault.unlock(&pin(PIN)).unwrap().delete(id, 0, &mut rng()).unwrap();
    });
    let change = here
        .commands(|vault| vault.unlock(&pin(PIN)).unwrap().change_pin(&pin(NEW_PIN), &mut rng()).unwrap());
    here.proxy.clear_record();
    vault_core::wipe(here.scene.dir(), &mut key_store(&here.proxy.tcti())).unwrap();
    let wipe = here.names();

    let table = [
        ("sign", signed),
        ("enrol, attestation none", enrol),
        ("enrol, packed self", packed),
        ("list", list),
        ("delete", delete),
        ("PIN change", change),
        ("set-up, where there is no SRK yet", setup),
        ("wipe", wipe),
    ];
    let documented = include_str!("../../docs/architecture.md");
    for (operation, commands) in table {
        println!("budget: {operation}: {} {commands:?}", commands.len());
        let row = format!("| {operation} | {} |", commands.len());
        assert!(documented.contains(&row), "docs/architecture.md has no row {row}");
    }
}
