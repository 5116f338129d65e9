//! A real kernel: Debian's, under QEMU, with swtpm behind /dev/tpmrm0, and /dev/uhid. What runs there is told in `lab/`.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, clippy::pedantic)]

mod debian;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Mutex, PoisonError},
};

use swtpm_tests::Program;

use crate::debian::Debian;

/// What the guest needs of this machine, beside root.
const NEEDED: [&str; 12] = [
    "/usr/bin/qemu-system-x86_64",
    "/bin/busybox",
    "/usr/bin/fido2-token",
    "/usr/bin/setfacl",
    "/usr/sbin/sshd",
    "/usr/bin/openssl",
    "/lib/systemd/systemd-udevd",
    "/usr/bin/chromium",
    "/usr/bin/firefox-esr",
    "/usr/bin/Xvfb",
    "/usr/bin/xdotool",
    "/usr/bin/scrot",
];

/// Runs a script of the lab in a guest; it must have said `claims` things.
fn guest(script: &str, claims: usize) {
    guest_with(&[], script, &[], claims);
}

/// The same, with options for the guest, and arguments for the script after the folder of the programs.
fn guest_with(options: &[&str], script: &str, arguments: &[&str], claims: usize) {
    let lab = Path::new(env!("CARGO_MANIFEST_DIR")).join("lab");
    if let Some(missing) = missing() {
        return skip(&missing);
    }
    // A guest has two processors; what waits in it, such as a browser, has time limits of its own.
    static ALONE: Mutex<()> = Mutex::new(());
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let programs = Program::Passholdd.path().parent().unwrap().to_owned();
    let output = Command::new(lab.join("guest-run.sh"))
        .args(["--timeout", "420"])
        .args(options)
        .arg("--")
        .arg(lab.join(script))
        .arg(programs)
        .args(arguments)
        // The kernel is fetched once.
        .env("GUEST_LAB", target().join("guest"))
        .output()
        .unwrap();
    let (said, complaint) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{complaint}");
    assert_eq!(said.lines().count(), claims, "{said}");
}

/// The same, with a picture that is kept in `target/browsers/`. `arguments` come before its path.
fn guest_with_picture(name: &str, udev: &[&str], script: &str, arguments: &[&str], claims: usize) {
    let pictures = target().join("browsers");
    fs::create_dir_all(&pictures).unwrap();
    let picture = pictures.join(name).with_extension("png");
    let options = [udev, &["--share", pictures.to_str().unwrap()]].concat();
    guest_with(&options, script, &[arguments, &[picture.to_str().unwrap()]].concat(), claims);
}

/// What is seen on a machine that need not have all of it.
fn skip(missing: &str) {
    assert_ne!(env::var("PASSHOLD_LAB").as_deref(), Ok("required"), "the guest cannot run: {missing}");
    eprintln!(
        "\n*** SKIPPED: the guest cannot run: {missing}. `make lab` installs what it needs, as root. ***\n"
    );
}

fn missing() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it shares this machine's files with the guest, which takes root".to_owned());
    }
    let missing = NEEDED.into_iter().find(|path| !Path::new(path).exists());
    missing.map(|path| format!("{path} is missing"))
}

fn target() -> PathBuf {
    env::current_exe().unwrap().ancestors().nth(3).unwrap().to_owned()
}

#[test]
fn libfido2s_tools_and_openssh_use_the_device_of_a_real_kernel() {
    guest("device.sh", 31);
}

#[test]
fn the_terminal_uses_real_device_nodes_and_says_where_it_cannot() {
    guest("terminal.sh", 9);
}

#[test]
fn chromium_registers_and_signs_in() {
    guest_with_picture("chromium", &["--udev"], "browser.sh", &["chromium"], 6);
}

#[test]
fn firefox_registers_and_signs_in() {
    guest_with_picture("firefox", &["--udev"], "browser.sh", &["firefox"], 6);
}

#[test]
fn chromium_asks_a_new_user_for_a_pin_in_its_own_window() {
    guest_with_picture("dialog", &[], "dialog.sh", &[], 5);
}

#[test]
fn the_service_gives_each_user_a_device_and_a_vault_of_his_own() {
    guest_with(&["--udev"], "service.sh", &[], 16);
}

#[test]
fn the_package_installed_and_started_again_gives_a_user_who_logs_in_a_device_and_a_vault() {
    let package = match debian::package() {
        Ok(package) => package,
        Err(why) => return skip(&why),
    };
    let machine = tempfile::tempdir_in(target()).unwrap();
    let (disk, tpm) = (machine.path().join("disk"), machine.path().join("tpm"));
    let debian = Debian::new();
    fs::copy(package, debian.0.path().join("root/passhold.deb")).unwrap();
    fs::File::create(&disk).unwrap().set_len(2 << 30).unwrap();
    debian::run(Command::new("mkfs.ext4").args(["-q", "-d"]).arg(debian.0.path()).arg(&disk));
    drop(debian);
    let options = ["--root", disk.to_str().unwrap(), "--tpm-state", tpm.to_str().unwrap()];
    guest_with(&options, "systemd.sh", &["install", "/root/passhold.deb"], 29);
    guest_with(&options, "systemd.sh", &["again"], 7);
}
