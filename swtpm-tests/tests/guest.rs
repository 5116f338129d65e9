//! A real kernel: Debian's, under QEMU, with swtpm behind /dev/tpmrm0, and /dev/uhid. What runs there is told in `lab/`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, clippy::pedantic)]

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

use swtpm_tests::Program;

/// What the guest needs of this machine, beside root.
const NEEDED: [&str; 5] = [
    "/usr/bin/qemu-system-x86_64",
    "/bin/busybox",
    "/usr/bin/fido2-token",
    "/usr/sbin/sshd",
    "/usr/bin/openssl",
];

/// Runs a script of the lab in a guest; it must have said `claims` things.
fn guest(script: &str, claims: usize) {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab");
    if let Some(missing) = missing() {
        assert_ne!(env::var("PASSHOLD_LAB").as_deref(), Ok("required"), "the guest cannot run: {missing}");
        eprintln!(
            "\n*** SKIPPED: the guest cannot run: {missing}. `make lab` installs what it needs, as root. ***\n"
        );
        return;
    }
    let programs = Program::Passholdd.path().parent().unwrap().to_owned();
    let output = Command::new(lab.join("guest-run.sh"))
        .args(["--timeout", "420", "--"])
        .arg(lab.join(script))
        .arg(programs)
        .env("GUEST_LAB", cache())
        .output()
        .unwrap();
    let (said, complaint) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{complaint}");
    assert_eq!(said.lines().count(), claims, "{said}");
}

fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it shares this machine's files with the guest, which takes root".to_owned());
    }
    let missing = NEEDED.into_iter().find(|path| !Path::new(path).exists());
    missing.map(|path| format!("{path} is missing"))
}

/// The kernel is fetched once.
fn cache() -> PathBuf {
    env::current_exe().unwrap().ancestors().nth(3).unwrap().join("guest")
}

#[test]
fn libfido2s_tools_and_openssh_use_the_device_of_a_real_kernel() {
    guest("device.sh", 27);
}

#[test]
fn the_terminal_uses_real_device_nodes_and_says_where_it_cannot() {
    guest("terminal.sh", 9);
}
