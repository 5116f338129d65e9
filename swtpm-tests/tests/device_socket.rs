//! The path of `--hid seqpacket:PATH`: what passholdd does about whatever is there.
#![allow(clippy::unwrap_used)]

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Command};

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
