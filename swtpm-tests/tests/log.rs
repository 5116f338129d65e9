//! The log as a whole: everything that is done with a vault is in it, and nothing that was not.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::pedantic
)]

use std::{fs, path::PathBuf};

use serde_json::Value;
use swtpm_tests::{Call, PIN, Passhold, TestTpm, creation_options, request_options};

const ORIGIN: &str = "https://example.org";
const NEW: &str = "314159x";
const WRONG: &str = "999888777x";

struct Desk {
    passhold: Passhold,
    // Dropped after the programs that use it.
    _tpm: TestTpm,
}

impl Desk {
    fn new() -> Self {
        let tpm = TestTpm::start().unwrap();
        Self { passhold: Passhold::with_vault(&tpm), _tpm: tpm }
    }

    fn file(&self) -> PathBuf {
        self.passhold.vault().join("vault.db")
    }

    fn with_pin(&self, args: &[&str], pin: &str) -> Call {
        self.passhold.call(args).pin(pin)
    }

    fn enroll(&self, user: &str) -> Call {
        let call = self.with_pin(&["enroll", "--origin", ORIGIN], PIN);
        call.stdin(creation_options("example.org", user, "none"))
    }

    fn sign(&self, id: &str, pin: &str) -> Call {
        let call = self.with_pin(&["sign", "--origin", ORIGIN, "--account", id], pin);
        call.stdin(request_options("example.org"))
    }

    fn entries(&self) -> Vec<Value> {
        let log = self.passhold.call(["log", "--json"]).run().expect_code(0);
        assert_eq!(log.stderr, "");
        log.json().as_array().unwrap().clone()
    }

    /// Deeds, with what they were refused for and the passkey's number.
    fn log(&self) -> Vec<String> {
        let of = |entry: &Value| {
            ["deed", "refusal", "id"].map(|name| entry[name].to_string().replace('"', "")).join(" ")
        };
        self.entries().iter().map(of).collect()
    }
}

#[test]
fn what_is_done_is_logged_and_what_is_only_looked_at_is_not() {
    let desk = Desk::new();
    let run = |args: &[&str]| desk.with_pin(args, PIN).run().expect_code(0);
    desk.enroll("alice").run().expect_code(0);
    desk.enroll("bob").run().expect_code(0);
    desk.sign("2", PIN).run().expect_code(0);
    desk.sign("2", WRONG).run().expect_code(5);
    run(&["rename", "2", "Work"]);
    run(&["delete", "1"]);
    run(&["undelete", "1"]);
    run(&["delete", "1"]);
    run(&["empty-bin"]);
    desk.with_pin(&["pin", "change"], &format!("{PIN}\n{NEW}")).run().expect_code(0);
    let code = desk.with_pin(&["recovery", "renew", "--json"], NEW).run().expect_code(0).json();
    let code = code["recoveryCode"].as_str().unwrap();
    let reset = format!("{code}\n{PIN}");
    desk.with_pin(&["pin", "reset"], &reset).run().expect_code(0);
    desk.with_pin(&["pin", "reset"], &reset).run().expect_code(21);
    let expected = [
        "set-up null null",
        "renew-code null null",
        "enrol null 1",
        "enrol null 2",
        "sign null 2",
        "prove-pin wrong-pin null",
        "rename null 2",
        "delete null 1",
        "undelete null 1",
        "delete null 1",
        "remove null 1",
        "change-pin null null",
        "renew-code null null",
        "reset-pin null null",
        "renew-code null null",
        "reset-pin spent-code null",
    ];
    assert_eq!(desk.log(), expected);
    for look in [&["list"][..], &["list", "--bin"], &["show", "2"], &["status"], &["log"]] {
        desk.passhold.call(look).run().expect_code(0);
    }
    run(&["log", "verify"]);
    assert_eq!(desk.log(), expected, "looking is not a deed");
    let entries = desk.entries();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let times: Vec<_> = entries.iter().map(|entry| entry["at"].as_u64().unwrap()).collect();
    assert!(times.is_sorted() && times[0] > now - 600 && *times.last().unwrap() <= now, "{times:?}");
    assert_eq!((&entries[4]["rpId"], &entries[4]["userName"]), (&"example.org".into(), &"bob".into()));
}

/// Sealed like the container: a thief reads neither who nor where, nor what.
#[test]
fn nothing_of_it_can_be_read_in_the_file() {
    let desk = Desk::new();
    desk.enroll("a-name-to-look-for").run().expect_code(0);
    desk.sign("1", PIN).run().expect_code(0);
    let file = fs::read(desk.file()).unwrap();
    for text in ["example.org", "a-name-to-look-for", "sign", "enrol"] {
        assert_eq!(memchr::memmem::find(&file, text.as_bytes()), None, "{text}");
    }
}

#[test]
fn verify_tells_a_changed_log_and_an_old_copy_of_the_whole_vault() {
    let desk = Desk::new();
    desk.enroll("alice").run().expect_code(0);
    let verify = |pin| desk.with_pin(&["log", "verify"], pin).run();
    let whole = verify(PIN).expect_code(0).stdout;
    assert!(whole.starts_with("The log is whole: 3 entries from number 0, "), "{whole}");
    verify(WRONG).expect_code(5);
    let (good, old) = (fs::read(desk.file()).unwrap(), fs::read(desk.file()).unwrap());
    let db = rusqlite::Connection::open(desk.file()).unwrap();
    db.execute("DELETE FROM log WHERE n = 1", []).unwrap();
    db.close().unwrap();
    let told = "entry 1 of the log is missing, or is not what was written there";
    let failed = verify(PIN).expect_code(10);
    assert!(failed.stderr.contains(told), "{}", failed.stderr);
    // The rest can be read, and is not taken for whole.
    let shown = desk.passhold.call(["log"]).run().expect_code(0);
    assert!(shown.stderr.contains(told) && shown.stdout.contains("vault made"), "{shown:?}");
    fs::write(desk.file(), &good).unwrap();
    verify(PIN).expect_code(0);
    // An old copy of everything holds an old log, which is whole: the TPM tells.
    desk.enroll("bob").run().expect_code(0);
    fs::write(desk.file(), &old).unwrap();
    verify(PIN).expect_code(11);
    let accepted = desk.with_pin(&["restore", "accept"], PIN).run();
    accepted.expect_code(0);
    assert_eq!(desk.log().last().unwrap(), "restore null null");
    verify(PIN).expect_code(0);
}

/// It changes no passkey, and is not hidden by the file from before it either.
#[test]
fn an_export_is_not_hidden_by_an_older_file() {
    let desk = Desk::new();
    desk.enroll("alice").run().expect_code(0);
    let before = fs::read(desk.file()).unwrap();
    desk.with_pin(&["export"], PIN).run().expect_code(0);
    assert_eq!(desk.log().last().unwrap(), "export null null");
    fs::write(desk.file(), before).unwrap();
    desk.with_pin(&["log", "verify"], PIN).run().expect_code(11);
}

#[test]
fn what_is_refused_at_the_terminal_is_logged_with_its_cause() {
    let desk = Desk::new();
    desk.enroll("alice").run().expect_code(0);
    // It is there already, and nobody is there to be asked.
    desk.enroll("alice").run().expect_code(15);
    desk.with_pin(&["rules", "add", "never", "example.org"], PIN).run().expect_code(0);
    desk.enroll("bob").run().expect_code(22);
    let log = desk.log();
    let refused: Vec<_> =
        log.iter().filter(|entry| entry.starts_with("enrol ") && !entry.contains("null 1")).collect();
    assert_eq!(refused, ["enrol declined null", "enrol rule null"], "{log:?}");
}

/// What is refused to whoever knows no PIN pushes nothing out of the log.
#[test]
fn a_locked_pin_is_logged_once_and_its_wrong_ones_each() {
    let desk = Desk::new();
    desk.enroll("alice").run().expect_code(0);
    for _ in 0..8 {
        assert!(matches!(desk.sign("1", WRONG).run().code(), Some(5 | 6)));
    }
    for _ in 0..5 {
        desk.sign("1", PIN).run().expect_code(6);
    }
    let log = desk.log();
    let count = |what: &str| log.iter().filter(|entry| *entry == what).count();
    assert_eq!(count("prove-pin wrong-pin null"), 8, "{log:?}");
    assert_eq!(count("prove-pin pin-locked null"), 1, "{log:?}");
}

/// Signing in is what a vault is for: a disk that takes no entry does not keep anybody out. It does keep anything from being
/// made or deleted, which would not be logged.
#[test]
fn on_a_full_disk_one_signs_in_and_changes_nothing() {
    let desk = Desk::new();
    desk.enroll("alice").run().expect_code(0);
    let before = desk.log();
    let full = |call: Call| call.under("strace -o /dev/null -e inject=pwrite64:error=ENOSPC").run();
    let signed = full(desk.sign("1", PIN)).expect_code(0).json();
    assert_eq!(signed["type"], "public-key");
    for args in [&["delete", "1"][..], &["rename", "1", "Work"]] {
        full(desk.with_pin(args, PIN)).expect_code(1);
    }
    full(desk.enroll("bob")).expect_code(1);
    assert_eq!(desk.log(), before);
    desk.with_pin(&["log", "verify"], PIN).run().expect_code(0);
    desk.sign("1", PIN).run().expect_code(0);
    assert_eq!(desk.log().last().unwrap(), "sign null 1");
}
