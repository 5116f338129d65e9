//! Programs that nobody here wrote use the device, each through a scenario of its own that says which claim holds; and the
//! terminal shares the vault with them.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::pedantic
)]

#[path = "platform/mod.rs"]
mod platform;

use std::{
    fs,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
};

use ciborium::Value;
use swtpm_tests::{Device, HidClient, PIN, Passhold, TestTpm, creation_options, installed, request_options};

const ORIGIN: &str = "https://example.org";

/// CTAP 2.2 §8.2.
const NO_CREDENTIALS: u8 = 0x2e;
const PUAT_REQUIRED: u8 = 0x36;

fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("clients")
}

/// Runs a scenario to its end; it must have said `claims` things.
fn scenario(mut client: Command, claims: usize) {
    let tpm = TestTpm::start().unwrap();
    let passhold = Passhold::new(&tpm.tcti());
    let device = Device::start(&passhold.vault(), &tpm.tcti(), PIN);
    let output = client.arg(device.socket()).arg(PIN).output().unwrap();
    let (said, complaint) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}{complaint}");
    assert_eq!(said.lines().count(), claims, "{said}");
    device.stop();
    assert_eq!(
        String::from_utf8(tpm.tool("tpm2_getcap", &["handles-transient"]).unwrap().stdout).unwrap(),
        ""
    );
}

#[test]
fn libfido2_goes_through_all_that_it_has_commands_for() {
    let home = tempfile::tempdir().unwrap();
    let program = home.path().join("libfido2");
    let flags = Command::new("pkg-config").args(["--cflags", "--libs", "libfido2"]).output().unwrap();
    assert!(flags.status.success(), "libfido2-dev is missing: scripts/dependencies test");
    let built = Command::new("cc")
        .args(["-Wall", "-Wextra", "-Werror", "-o"])
        .arg(&program)
        .arg(clients().join("libfido2.c"))
        .args(String::from_utf8(flags.stdout).unwrap().split_whitespace())
        .status();
    assert!(built.unwrap().success());
    scenario(Command::new(program), 103);
}

#[test]
fn python_fido2_goes_through_both_pin_protocols_all_kinds_of_tokens_and_extensions() {
    let mut python = Command::new(installed().join("venv/bin/python"));
    python.arg(clients().join("python_fido2.py"));
    scenario(python, 103);
}

#[test]
fn the_daemon_leaves_no_core_and_shows_its_memory_to_nobody() {
    let tpm = TestTpm::start().unwrap();
    let passhold = Passhold::new(&tpm.tcti());
    let device = Device::start(&passhold.vault(), &tpm.tcti(), PIN);
    let proc = Path::new("/proc").join(device.pid().to_string());
    let limits = fs::read_to_string(proc.join("limits")).unwrap();
    let core: Vec<_> =
        limits.lines().find(|l| l.starts_with("Max core")).unwrap().split_whitespace().collect();
    assert_eq!(core[4..6], ["0", "0"], "{limits}");
    // The kernel gives these files of a process that may not be dumped to root, whoever runs it.
    let environ = fs::metadata(proc.join("environ")).unwrap();
    assert_eq!((environ.uid(), environ.mode() & 0o077), (0, 0));
    assert_eq!(fs::metadata(device.socket()).unwrap().mode() & 0o777, 0o600);
    let command = fs::read(proc.join("cmdline")).unwrap();
    assert!(!command.windows(PIN.len()).any(|w| w == PIN.as_bytes()));
}

#[test]
fn what_the_device_demands_of_the_pin_binds_the_terminal() {
    let tpm = TestTpm::start().unwrap();
    let passhold = Passhold::with_vault(&tpm);
    let options = creation_options("example.org", "alice", "none");
    let enroll =
        |pin| passhold.call(["enroll", "--another", "--origin", ORIGIN]).pin(pin).options(&options).run();
    let request = request_options("example.org");
    let sign = |pin| {
        let sign = passhold.call(["sign", "--origin", ORIGIN, "--account", "1"]);
        sign.pin(pin).options(&request).run()
    };
    let change = |old: &str, new: &str| passhold.call(["pin", "change"]).pin(&format!("{old}\n{new}")).run();
    enroll(PIN).expect_code(0);

    let device = Device::start(&passhold.vault(), &tpm.tcti(), PIN);
    let site = platform::site::Site::connect(&device);
    let token = site.token(PIN, 0x20).unwrap();
    let minimum = platform::set_min_pin_length(platform::map([(1.into(), 8.into())]));
    site.call(0x0d, &token.configure(&minimum)).unwrap();
    for refused in [enroll(PIN), sign(PIN), change(PIN, PIN), change(PIN, "7391842")] {
        refused.expect_code(16);
    }
    change(PIN, "73918420").expect_code(0);
    sign("73918420").expect_code(0);
    // What is demanded outlives the change.
    change("73918420", "7391842").expect_code(16);
    device.stop();
}

/// The device's own client, with the prompt that types the PIN.
struct Site(HidClient);

impl Site {
    fn make(&self, user: &str) -> u8 {
        let text = |text: &str| Value::from(text);
        let map = |members: Vec<(Value, Value)>| Value::Map(members);
        let parameters = map(vec![
            (1.into(), Value::Bytes(vec![7; 32])),
            (2.into(), map(vec![(text("id"), text("example.org"))])),
            (3.into(), map(vec![(text("id"), Value::Bytes(user.into())), (text("name"), text(user))])),
            (
                4.into(),
                Value::Array(vec![map(vec![(text("alg"), (-7).into()), (text("type"), text("public-key"))])]),
            ),
            (7.into(), map(vec![(text("rk"), true.into())])),
        ]);
        self.0.ctap(0x01, &parameters).0
    }

    /// Signs in with the newest passkey: the status, and whose it is.
    fn sign_in(&self) -> (u8, String) {
        let parameters =
            Value::Map(vec![(1.into(), "example.org".into()), (2.into(), Value::Bytes(vec![7; 32]))]);
        let (status, answer) = self.0.ctap(0x02, &parameters);
        let user = answer.as_map().and_then(|map| map.iter().find(|(key, _)| *key == 4.into()));
        let id = user.and_then(|(_, user)| user.as_map()?.first()?.1.as_bytes().cloned());
        (status, String::from_utf8(id.unwrap_or_default()).unwrap())
    }
}

#[test]
fn terminal_and_device_share_one_vault() {
    let tpm = TestTpm::start().unwrap();
    let passhold = Passhold::with_vault(&tpm);
    let device = Device::start(&passhold.vault(), &tpm.tcti(), PIN);
    let site = Site(HidClient::connect(&device.socket()));
    let terminal = |command: &str| passhold.call(command.split(' ')).pin(PIN);
    let names = || {
        let listed = passhold.call(["--json", "list"]).run().expect_code(0).json();
        let names = listed.as_array().unwrap().iter().map(|a| a["userName"].as_str().unwrap().to_owned());
        names.collect::<Vec<_>>()
    };
    assert_eq!(site.sign_in(), (NO_CREDENTIALS, String::new()));

    // Enrolled by either, used by the other.
    let options = creation_options("example.org", "alice", "none");
    terminal(&format!("enroll --origin {ORIGIN}")).options(&options).run().expect_code(0);
    assert_eq!(site.sign_in().0, 0);
    assert_eq!(site.make("bob"), 0);
    assert_eq!(names(), ["alice", "bob"]);
    assert_eq!(site.sign_in(), (0, "bob".into()));
    let request = request_options("example.org");
    terminal(&format!("sign --origin {ORIGIN} --account 2")).options(&request).run().expect_code(0);

    // The same account again takes the old one's place, as CTAP has it.
    assert_eq!(site.make("bob"), 0);
    assert_eq!(names(), ["alice", "bob"]);

    // Deleted by the terminal, gone for the device.
    terminal("delete 3").run().expect_code(0);
    assert_ne!(site.sign_in(), (0, "bob".into()));

    // The PIN changed by the terminal is the device's PIN.
    passhold.call(["pin", "change"]).pin(&format!("{PIN}\n739184205")).run().expect_code(0);
    assert_eq!(site.sign_in().0, PUAT_REQUIRED);
    device.stop();
    let device = Device::start(&passhold.vault(), &tpm.tcti(), "739184205");
    let site = Site(HidClient::connect(&device.socket()));
    assert_eq!(site.sign_in().0, 0);

    // Reset by the device, gone for the terminal.
    assert_eq!(site.0.call(0x10, &[0x07]), (0x10, vec![0]));
    passhold.call(["list"]).run().expect_code(4);
    device.stop();
}

#[test]
fn a_person_who_thinks_at_the_terminal_keeps_no_platform_from_knowing_the_device() {
    let tpm = TestTpm::start().unwrap();
    let passhold = Passhold::with_vault(&tpm);
    let device = Device::start(&passhold.vault(), &tpm.tcti(), PIN);
    let mut terminal = passhold.call(["pin", "change"]).on_terminal();
    terminal.wait_for("PIN: ");
    let client = HidClient::connect(&device.socket());
    let started = std::time::Instant::now();
    assert_eq!(client.call(0x10, &[0x04]).1[0], 0);
    assert!(started.elapsed() < std::time::Duration::from_secs(2), "{:?}", started.elapsed());
    device.stop();
}
