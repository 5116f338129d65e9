//! A TPM that cannot be used, in the ways that a software TPM can be brought into: each with a message of its own, the next
//! step, and nothing changed. What takes a real device node is in `lab/terminal.sh`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::pedantic)]

use std::{fs, os::unix::fs::PermissionsExt, sync::Arc};

use serde_json::json;
use swtpm_tests::{
    Call, PIN, Passhold, TestTpm,
    proxy::{Fault, FaultKind, Proxy, Rewriter},
};

/// `TPM_PT_REVISION` (Part 2 §6.13), and its value in a TPM without PIN FAIL indices, of specification 1.16.
const REVISION: [u8; 4] = [0, 0, 1, 2];
const OLD: [u8; 4] = [0, 0, 0, 116];

#[track_caller]
fn refused(call: Call, code: i32, name: &str, message: &str, next: &str) {
    let run = call.arg("--json").run().expect_code(code);
    let expected = json!({"exit": code, "name": name, "message": message, "next": next, "triesLeft": null});
    assert_eq!(run.error(), expected);
}

#[test]
fn one_that_cannot_count_pins_is_too_old() {
    let tpm = TestTpm::start().unwrap();
    let proxy = Proxy::start(tpm.port()).unwrap();
    let passhold = Passhold::new(&proxy.tcti());
    let old: Rewriter = Arc::new(|_, mut reply| {
        if let Some(at) = reply.windows(4).position(|window| window == REVISION) {
            reply[at + 4..at + 8].copy_from_slice(&OLD);
        }
        reply
    });
    proxy.arm(Fault::continuous(0, FaultKind::Rewrite(old)));
    let (message, next) =
        ("this TPM cannot count PINs (no PIN FAIL index)", "A TPM of specification 1.38 or later is needed.");
    refused(passhold.call(["setup"]).pin(PIN), 7, "NoTpm", message, next);
    assert!(!passhold.vault().join("vault.db").exists());
    proxy.disarm();
    passhold.call(["setup"]).pin(PIN).run().expect_code(0);
}

#[test]
fn one_without_room_for_indices_says_so_and_takes_them_once_there_is() {
    let tpm = TestTpm::start().unwrap();
    let passhold = Passhold::new(&tpm.tcti());
    let index = |n: u32| format!("{:#x}", 0x0150_0000 + n);
    // Large ones first, then small ones into what is left.
    let mut defined = 0;
    for size in ["2048", "256", "32", "8"] {
        let define = |n| {
            tpm.tool("tpm2_nvdefine", &[&index(n), "-C", "o", "-s", size, "-a", "ownerread|ownerwrite"])
                .unwrap()
        };
        while define(defined).status.success() {
            defined += 1;
        }
    }
    let next = "\"tpm2_getcap handles-nv-index\" shows what is there, \"tpm2_nvundefine\" removes what nobody needs.";
    let setup = || passhold.call(["setup"]).pin(PIN);
    refused(setup(), 7, "NoTpm", "the TPM has no room left for NV indices", next);
    assert!(!passhold.vault().join("vault.db").exists());
    // Room for one of the three: what was made of it is undone.
    for n in 0..defined {
        assert!(tpm.tool("tpm2_nvundefine", &["-C", "o", &index(n)]).unwrap().status.success());
        let run = setup().run();
        match run.status.code() {
            Some(7) => assert!(!passhold.vault().join("vault.db").exists()),
            other => {
                assert_eq!(other, Some(0), "{}", run.stderr);
                return;
            }
        }
    }
    panic!("an empty TPM has no room");
}

#[test]
fn one_that_this_user_may_not_open_is_not_permitted() {
    let tpm = TestTpm::start().unwrap();
    let mut passhold = Passhold::new(&tpm.tcti());
    let device = passhold.home().join("tpm");
    fs::write(&device, "").unwrap();
    fs::set_permissions(&device, fs::Permissions::from_mode(0o000)).unwrap();
    passhold.set_tpm(&format!("device:{}", device.display()));
    // Root may open everything but for this.
    let ordinary = "setpriv --bounding-set -dac_override,-dac_read_search";
    let message = format!("no permission to use {}", device.display());
    let next = "\"passhold doctor\" says which group to join. The service, where it runs, needs nobody to.";
    refused(passhold.call(["setup"]).pin(PIN).under(ordinary), 7, "NoTpm", &message, next);
    assert!(!passhold.vault().join("vault.db").exists());
}
