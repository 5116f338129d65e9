//! What the device costs in TPM commands, from a request's arrival to its reply, and what it unloads afterwards.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::pedantic)]

mod platform;

use std::{thread, time::Duration};

use platform::site::{MAKE, SIGN, Site};
use swtpm_tests::{
    Device, PIN, Passhold, Scene, TestTpm,
    proxy::{Proxy, command_name},
};

/// Longer than the daemon keeps a vault ready.
const REST: Duration = Duration::from_millis(2500);

const PROOF: [&str; 5] = ["Load", "StartAuthSession", "StartAuthSession", "PolicySecret", "NV_Read"];
const SIGNATURE: [&str; 4] = ["Load", "PolicySecret", "Sign", "FlushContext"];
/// V and two sessions.
const UNLOADED: [&str; 3] = ["FlushContext"; 3];

#[test]
fn with_a_token_a_sign_in_is_four_commands_and_then_the_tpm_is_empty() {
    let scene = Scene::with_vault();
    let proxy = Proxy::start(scene.tpm.port()).unwrap();
    let device = Device::start(scene.dir(), &proxy.tcti(), PIN);
    let site = Site::connect(&device);
    let commands = || {
        let commands: Vec<_> = proxy.codes().into_iter().map(command_name).collect();
        proxy.clear_record();
        commands
    };
    // What needs no PIN is found once, and remembered.
    let passkey = site.make(None, "alice").unwrap();
    thread::sleep(REST);

    commands();
    let token = site.token(PIN, SIGN).unwrap();
    assert_eq!(commands(), PROOF);
    site.sign_in(Some(&token), &passkey).unwrap();
    thread::sleep(REST);
    assert_eq!(commands(), [&SIGNATURE[..], &UNLOADED].concat());

    let token = site.token(PIN, MAKE).unwrap();
    commands();
    site.make(Some(&token), "bob").unwrap();
    thread::sleep(REST);
    // With packed self attestation, and the generation put into the TPM.
    assert_eq!(commands(), [&["Create"][..], &SIGNATURE, &["PolicySecret", "NV_Write"], &UNLOADED].concat());

    // A token that nobody uses keeps nothing loaded.
    site.token(PIN, SIGN).unwrap();
    thread::sleep(REST);
    assert_eq!(commands(), [&PROOF[..], &UNLOADED].concat());
}

#[test]
fn the_terminal_is_let_in_while_a_token_is_held() {
    let tpm = TestTpm::start().unwrap();
    let passhold = Passhold::with_vault(&tpm);
    let device = Device::start(&passhold.vault(), &tpm.tcti(), PIN);
    let site = Site::connect(&device);
    let passkey = site.make(None, "alice").unwrap();
    let token = site.token(PIN, SIGN).unwrap();
    passhold.call(["list"]).run().expect_code(0);
    site.sign_in(Some(&token), &passkey).unwrap();
}
