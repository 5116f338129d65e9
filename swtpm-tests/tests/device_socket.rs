//! The path of `--hid seqpacket:PATH`: what passholdd does about whatever is there.
#![allow(clippy::unwrap_used)]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

use ctap::Status;
use swtpm_tests::{Device, HidClient, PIN, Program, Scene};

/// Starts a second daemon on the path and returns what it says as it ends.
fn refused(scene: &Scene, path: &Path) -> String {
    let mut daemon = Command::new(Program::Passholdd.path());
    daemon.args(["--tpm", &scene.tpm.tcti(), "--vault"]).arg(scene.dir());
    let ended = daemon.args(["--hid", &format!("seqpacket:{}", path.display())]).output().unwrap();
    assert!(!ended.status.success());
    String::from_utf8(ended.stderr).unwrap()
}

#[test]
fn a_file_in_the_way_is_left_alone() {
    let scene = Scene::with_vault();
    let path = scene.dir().join("thesis");
    fs::write(&path, "years of work").unwrap();
    assert!(refused(&scene, &path).contains("cannot be made"));
    assert_eq!(fs::read_to_string(&path).unwrap(), "years of work");
}

#[test]
fn a_daemon_that_runs_keeps_its_socket() {
    let scene = Scene::with_vault();
    let device = Device::start(scene.dir(), &scene.tpm.tcti(), PIN);
    assert!(refused(&scene, &device.socket()).contains("is there a passholdd that uses it?"));
    drop(HidClient::connect(&device.socket()));
    let mode = fs::metadata(device.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn the_socket_of_a_killed_daemon_gives_way() {
    let scene = Scene::with_vault();
    let mut device = Device::start(scene.dir(), &scene.tpm.tcti(), PIN);
    device.restart();
    drop(HidClient::connect(&device.socket()));
}

/// A request that waits for the end of one that was given up is taken back like any other: its channel is free at once.
#[test]
fn a_request_that_waits_its_turn_is_taken_back() {
    let scene = Scene::with_vault();
    let device = Device::start(scene.dir(), &scene.tpm.tcti(), PIN);
    let (client, other) = (HidClient::connect(&device.socket()), HidClient::connect(&device.socket()));
    // Somebody has the vault, so the first is at work until he lets go.
    let busy = vault_core::container::Container::open(scene.dir()).unwrap();
    client.send(0x10, &[0x06, 0xa2, 0x01, 0x01, 0x02, 0x01]);
    client.send(0x06, b"a nonce!");
    while client.receive().0 != 0x06 {}
    client.send(0x10, &[0x04]);
    client.send(0x11, &[]);
    let answer = std::iter::repeat_with(|| client.receive()).find(|(command, _)| *command != 0x3b).unwrap();
    assert_eq!(answer, (0x10, vec![Status::KeepaliveCancel.code()]));
    drop(busy);
    assert_eq!(other.call(0x10, &[0x04]).1[0], 0);
}

/// INIT gives a channel up at once, while the request before is still at work: what piles up is bounded.
#[test]
fn requests_that_nobody_waits_for_do_not_pile_up() {
    let scene = Scene::with_vault();
    let device = Device::start(scene.dir(), &scene.tpm.tcti(), PIN);
    let client = HidClient::connect(&device.socket());
    let descriptors = || fs::read_dir(format!("/proc/{}/fd", device.pid())).unwrap().count();
    let before = descriptors();
    // Somebody has the vault, so each waits.
    let busy = vault_core::container::Container::open(scene.dir()).unwrap();
    for _ in 0..1000 {
        client.send(0x10, &[0x06, 0xa2, 0x01, 0x01, 0x02, 0x01]);
        client.send(0x06, b"a nonce!");
        // Its answer, whatever came before it.
        while client.receive().0 != 0x06 {}
    }
    assert!(descriptors() < before + 10, "{before} and then {}", descriptors());
    drop(busy);
    assert_eq!(client.call(0x10, &[0x04]).1[0], 0);
}
