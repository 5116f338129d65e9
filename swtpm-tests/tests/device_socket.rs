//! The path of `--hid seqpacket:PATH`: what passholdd does about whatever is there.
#![allow(clippy::unwrap_used)]

use std::{
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

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
fn without_a_folder_it_serves_the_vault_that_the_terminal_uses() {
    let (scene, home) = (Scene::with_vault(), tempfile::tempdir().unwrap());
    fs::create_dir_all(home.path().join(".local/share")).unwrap();
    fs::rename(scene.dir(), home.path().join(".local/share/passhold")).unwrap();
    let hid = home.path().join("hid");
    let daemon = || {
        let mut daemon = Command::new(Program::Passholdd.path());
        daemon.args(["--user", "--prompt", "auto", "--tpm", &scene.tpm.tcti()]).env_clear();
        daemon.arg("--hid").arg(format!("seqpacket:{}", hid.display())).stderr(Stdio::piped());
        daemon
    };
    let mut running = daemon().env("HOME", home.path()).spawn().unwrap();
    while !HidClient::answers(&hid) {
        assert!(running.try_wait().unwrap().is_none());
        thread::sleep(Duration::from_millis(10));
    }
    // getPINRetries: there is a PIN, and it is the TPM's.
    let retries = [0x06, 0xa2, 0x01, 0x02, 0x02, 0x01];
    assert_eq!(HidClient::connect(&hid).call(0x10, &retries).1[..4], [0, 0xa2, 0x03, 8]);
    running.kill().unwrap();
    running.wait().unwrap();
    fs::create_dir_all(scene.dir()).unwrap();
    if rustix::process::getuid().is_root() {
        let ended = daemon().uid(31_007).spawn().unwrap().wait_with_output().unwrap();
        let said = String::from_utf8(ended.stderr).unwrap();
        assert!(said.contains("this user has no home folder; name the vault's with --vault"), "{said}");
    }
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
    let mut answers = std::iter::repeat_with(|| client.receive()).take(50);
    let answer = answers.find(|(command, _)| *command != 0x3b).expect("more than keepalives");
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
