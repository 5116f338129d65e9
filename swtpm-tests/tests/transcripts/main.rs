//! What each command prints, in one reviewed file a command.
//!
//! A line `$ passhold …` is a run, lines after `2> ` are its standard error, and `exit N` ends it. After a change
//! that is meant: `SNAPSHOTS=overwrite cargo test -p swtpm-tests --test transcripts`, then read the diff.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::pedantic
)]

use std::{
    fmt::Write as _,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use serde_json::{Value, json};
use snapbox::{Assert, Data};
use swtpm_tests::{
    Call, Device, Machine, PIN, Passhold, Program, TestTpm, Tmux, creation_options, request_options,
};
use vault_core::RecoveryCode;

const ORIGIN: &str = "https://example.org";
const WRONG: &str = "999888777x";

#[test]
fn passhold() {
    let mut transcript = Transcript::empty();
    transcript.bare(&[]);
    transcript.bare(&["--help"]);
    transcript.bare(&["-h"]);
    transcript.bare(&["--version"]);
    transcript.bare(&["frobnicate"]);
    transcript.bare(&["list", "--frobnicate"]);
    transcript.bare(&["list", "--tpm", "device:/dev/not-a-tpm"]);
    transcript.holds("passhold");
}

#[test]
fn setup() {
    let mut transcript = Transcript::empty();
    transcript.bare(&["setup", "--help"]);
    transcript.run(&["setup"], |call| call);
    transcript.run(&["setup"], |call| call.pin("12345"));
    transcript.run(&["setup"], |call| call.pin("123456"));
    transcript.run(&["setup"], |call| call.pin("111111"));
    transcript.run(&["setup"], |call| call.pin("password"));
    transcript.run(&["setup"], |call| call.pin(PIN));
    transcript.run(&["setup"], |call| call.pin(PIN));
    transcript.run(&["setup", "--json"], |call| call.pin(PIN));
    transcript.holds("setup");
}

#[test]
fn enroll() {
    let mut transcript = Transcript::with_accounts(&[]);
    transcript.bare(&["enroll", "--help"]);
    transcript.bare(&["enroll"]);
    let args = ["enroll", "--origin", ORIGIN];
    let options = creation_options("example.org", "alice", "none");
    transcript.run(&args, |call| call.stdin(&options).pin(PIN));
    transcript.run(&args, |call| call.stdin(&options).pin(PIN));
    transcript.run(&args, |call| call.stdin(&options).pin(WRONG));
    transcript.run(&args, |call| call.stdin("{}").pin(PIN));
    transcript.run(&args, |call| call.stdin(creation_options("org", "alice", "none")).pin(PIN));
    transcript.run(&args, |call| call.stdin(creation_options("example.net", "alice", "none")).pin(PIN));
    transcript.run(&["enroll", "--origin", "http://example.org"], |call| call.stdin(&options).pin(PIN));
    let mut edited: Value = serde_json::from_str(&options).unwrap();
    edited["excludeCredentials"] = json!([{"type": "public-key", "id": transcript.credentials()[0]}]);
    transcript.run(&args, |call| call.stdin(edited.to_string()).pin(PIN));
    edited["pubKeyCredParams"] = json!([{"type": "public-key", "alg": -257}]);
    transcript.run(&args, |call| call.stdin(edited.to_string()).pin(PIN));
    transcript.holds("enroll");
}

#[test]
fn sign() {
    let mut transcript = Transcript::with_accounts(&["alice"]);
    transcript.bare(&["sign", "--help"]);
    let args = ["sign", "--origin", ORIGIN];
    let options = request_options("example.org");
    transcript.run(&args, |call| call.stdin(&options).pin(PIN));
    transcript.run(&args, |call| call.stdin(&options).pin(WRONG));
    transcript.run(&args, |call| call.stdin(&options).pin(PIN));
    transcript.run(&["sign", "--origin", ORIGIN, "--json"], |call| call.stdin(&options).pin(WRONG));
    transcript.run(&args, |call| call.stdin("not JSON").pin(PIN));
    transcript.run(&["sign", "--origin", "https://example.net"], |call| {
        call.stdin(request_options("example.net")).pin(PIN)
    });
    transcript.enroll("bob");
    transcript.run(&args, |call| call.stdin(&options).pin(PIN));
    transcript.run(&["sign", "--origin", ORIGIN, "--account", "2"], |call| call.stdin(&options).pin(PIN));
    transcript.run(&["sign", "--origin", ORIGIN, "--account", "3"], |call| call.stdin(&options).pin(PIN));
    transcript.holds("sign");
}

#[test]
fn list() {
    let mut transcript = Transcript::empty();
    transcript.bare(&["list", "--help"]);
    transcript.run(&["list"], |call| call);
    transcript.run(&["list", "--json"], |call| call);
    let mut transcript = transcript.set_up();
    transcript.run(&["list"], |call| call);
    for user in ["alice", "bob\u{1b}[31m", "carol"] {
        transcript.enroll(user);
    }
    transcript.silently(&["rename", "3", "Work account"]);
    transcript.run(&["list"], |call| call);
    transcript.run(&["list", "--json"], |call| call);
    transcript.run(&["list", "WORK"], |call| call);
    transcript.run(&["list", "example.org", "--json", "--stale", "1"], |call| call);
    transcript.run(&["list", "nobody"], |call| call);
    transcript.holds("list");
}

#[test]
fn show() {
    let mut transcript = Transcript::with_accounts(&["alice"]);
    transcript.bare(&["show", "--help"]);
    transcript.run(&["show", "1"], |call| call);
    transcript.run(&["show", "1", "--json"], |call| call);
    transcript.run(&["show", "7"], |call| call);
    transcript.run(&["show", "seven"], |call| call);
    transcript.holds("show");
}

#[test]
fn rename() {
    let mut transcript = Transcript::with_accounts(&["alice"]);
    transcript.bare(&["rename", "--help"]);
    transcript.run(&["rename", "1", "Work account"], |call| call);
    transcript.run(&["show", "1"], |call| call);
    transcript.run(&["rename", "1", "", "--json"], |call| call);
    transcript.run(&["rename", "7", "Work account"], |call| call);
    transcript.holds("rename");
}

#[test]
fn delete() {
    let mut transcript = Transcript::with_accounts(&["alice", "bob"]);
    transcript.bare(&["delete", "--help"]);
    transcript.run(&["delete", "1"], |call| call.pin(WRONG));
    transcript.run(&["delete", "1"], |call| call.pin(PIN));
    transcript.run(&["delete", "1"], |call| call.pin(PIN));
    transcript.run(&["delete", "2", "--json"], |call| call.pin(PIN));
    transcript.holds("delete");
}

#[test]
fn pin() {
    let mut transcript = Transcript::with_accounts(&["alice"]);
    transcript.bare(&["pin", "--help"]);
    transcript.bare(&["pin", "change", "--help"]);
    transcript.run(&["pin", "change"], |call| call.pin(&format!("{WRONG}\n314159x")));
    transcript.run(&["pin", "change"], |call| call.pin(&format!("{PIN}\n123456")));
    transcript.run(&["pin", "change"], |call| call.pin(PIN));
    transcript.run(&["pin", "change"], |call| call.pin(&format!("{PIN}\n314159x")));
    transcript.run(&["pin", "change", "--json"], |call| call.pin(&format!("314159x\n{PIN}")));
    transcript.holds("pin");
}

#[test]
fn bin() {
    let mut transcript = Transcript::with_accounts(&["alice", "bob"]);
    transcript.bare(&["undelete", "--help"]);
    transcript.bare(&["empty-bin", "--help"]);
    transcript.run(&["list", "--bin"], |call| call);
    transcript.run(&["list", "--bin", "alice"], |call| call);
    transcript.run(&["empty-bin"], |call| call.pin(PIN));
    transcript.run(&["undelete", "1"], |call| call.pin(PIN));
    transcript.run(&["delete", "1"], |call| call.pin(PIN));
    transcript.run(&["list", "--bin"], |call| call);
    transcript.run(&["list", "--bin", "--json"], |call| call);
    transcript.run(&["show", "1"], |call| call);
    transcript.run(&["empty-bin"], |call| call.pin(WRONG));
    transcript.run(&["undelete", "1"], |call| call.pin(PIN));
    transcript.run(&["delete", "1"], |call| call.pin(PIN));
    transcript.run(&["empty-bin"], |call| call.pin(PIN));
    transcript.run(&["undelete", "1"], |call| call.pin(PIN));
    transcript.run(&["list", "--unused"], |call| call);
    transcript.run(&["list", "--stale", "30"], |call| call);
    transcript.run(&["enroll", "--origin", ORIGIN], |call| {
        call.stdin(creation_options("example.org", "bob", "none")).pin(PIN)
    });
    transcript.run(&["enroll", "--replace", "--origin", ORIGIN], |call| {
        call.stdin(creation_options("example.org", "bob", "none")).pin(PIN)
    });
    transcript.holds("bin");
}

#[test]
fn log() {
    let mut transcript = Transcript::with_accounts(&["alice", "bob\u{202e}"]);
    transcript.bare(&["log", "--help"]);
    transcript.bare(&["log", "verify", "--help"]);
    transcript.wrong_pin();
    transcript.run(&["log"], |call| call);
    transcript.run(&["log", "--last", "1"], |call| call);
    transcript.run(&["log", "--last", "1", "--json"], |call| call);
    transcript.run(&["log", "--last", "1", "verify"], |call| call);
    transcript.run(&["log", "verify"], |call| call.pin(WRONG));
    transcript.run(&["log", "verify"], |call| call.pin(PIN));
    transcript.run(&["log", "verify", "--json"], |call| call.pin(PIN));
    let db = rusqlite::Connection::open(transcript.passhold.vault().join("vault.db")).unwrap();
    db.execute("DELETE FROM log WHERE n = 2", []).unwrap();
    db.close().unwrap();
    transcript.run(&["log"], |call| call);
    transcript.run(&["log", "--json"], |call| call);
    transcript.run(&["log", "verify"], |call| call.pin(PIN));
    transcript.holds("log");
}

#[test]
fn restore() {
    let mut transcript = Transcript::with_accounts(&["alice"]);
    transcript.bare(&["restore", "accept", "--help"]);
    transcript.run(&["restore", "accept"], |call| call.pin(PIN));
    let file = transcript.passhold.vault().join("vault.db");
    let old = fs::read(&file).unwrap();
    transcript.enroll("bob");
    transcript.enroll("carol");
    transcript.passhold.call(["delete", "1"]).pin(PIN).run().expect_code(0);
    transcript.passhold.call(["export", "--output", "e.json"]).pin(PIN).run().expect_code(0);
    fs::write(&file, &old).unwrap();
    transcript.run(&["restore", "accept", "--export", "e.json"], |call| call.pin(WRONG));
    transcript.run(&["delete", "1"], |call| call.pin(PIN));
    transcript.run(&["restore", "accept"], |call| call.pin(WRONG));
    transcript.run(&["restore", "accept"], |call| call.pin(PIN));
    fs::write(&file, &old).unwrap();
    transcript.run(&["restore", "accept", "--json"], |call| call.pin(PIN));
    transcript.holds("restore");
}

#[test]
fn signal() {
    let mut transcript = Transcript::with_accounts(&["alice", "bob"]);
    transcript.bare(&["signal", "--help"]);
    transcript.run(&["signal", "-"], |call| call.stdin("{"));
    transcript.run(&["signal", "-"], |call| call.stdin(r#"{"rpId": "example.org"}"#));
    let unknown = json!({"rpId": "example.org", "credentialId": transcript.credentials()[0]}).to_string();
    transcript.run(&["signal", "-"], |call| call.stdin(&unknown).pin(WRONG));
    transcript.run(&["signal", "-"], |call| call.stdin(&unknown).pin(PIN));
    transcript.run(&["signal", "-"], |call| call.stdin(&unknown).pin(PIN));
    let accepted = |user: &str, ids: &[String]| {
        json!({"rpId": "example.org", "userId": user, "allAcceptedCredentialIds": ids}).to_string()
    };
    let ids = transcript.credentials();
    transcript.run(&["signal", "-"], |call| call.stdin(accepted("YWxpY2U", &ids)).pin(PIN));
    transcript.run(&["signal", "-", "--json"], |call| call.stdin(accepted("Ym9i", &[])).pin(PIN));
    let details =
        json!({"rpId": "example.org", "userId": "YWxpY2U", "name": "al", "displayName": "Al"}).to_string();
    transcript.run(&["signal", "-"], |call| call.stdin(&details));
    transcript.run(&["signal", "-", "--yes"], |call| call.stdin(&details));
    transcript.holds("signal");
}

#[test]
fn rules() {
    let mut transcript = Transcript::with_accounts(&["alice"]);
    for args in [&["rules", "--help"][..], &["rules", "add", "--help"], &["rules", "remove", "--help"]] {
        transcript.bare(args);
    }
    transcript.run(&["rules"], |call| call);
    transcript.run(&["rules", "add", "never", "https://example.org"], |call| call.pin(PIN));
    transcript.run(&["rules", "add", "always", "example.org"], |call| call.pin(PIN));
    transcript.run(&["rules", "add", "ask", "*.Bücher.example"], |call| call.pin(WRONG));
    transcript.run(&["rules", "add", "ask", "*.Bücher.example"], |call| call.pin(PIN));
    transcript.run(&["rules", "add", "ask", "example.org"], |call| call.pin(PIN));
    let enroll = |call: Call| call.stdin(creation_options("example.org", "bob", "none")).pin(PIN);
    transcript.run(&["enroll", "--origin", ORIGIN], enroll);
    transcript.run(&["rules", "add", "never", "example.*", "--json"], |call| call.pin(PIN));
    transcript.run(&["enroll", "--origin", ORIGIN], enroll);
    transcript.run(&["rules"], |call| call);
    transcript.run(&["rules", "--json"], |call| call);
    transcript.run(&["rules", "remove", "example.com"], |call| call.pin(PIN));
    transcript.run(&["rules", "remove", "example.*"], |call| call.pin(PIN));
    transcript.holds("rules");
}

#[test]
fn plan() {
    let mut transcript = Transcript::with_accounts(&["alice", "bob\u{1b}[31m"]);
    transcript.bare(&["plan", "--help"]);
    transcript.passhold.call(["export", "--output", "e.json"]).pin(PIN).run().expect_code(0);
    transcript.run(&["plan", "e.json"], |call| call);
    transcript.silently(&["wipe", "--yes"]);
    transcript.run(&["plan", "e.json"], |call| call);
    let mut transcript = transcript.set_up();
    transcript.enroll("alice");
    transcript.run(&["plan", "e.json"], |call| call);
    transcript.run(&["plan", "e.json", "--json"], |call| call);
    transcript.run(&["plan", "missing.json"], |call| call);
    for (name, text) in [("1.json", "{}"), ("2.json", r#"{"passhold": "export", "version": 2}"#)] {
        fs::write(transcript.passhold.home().join(name), text).unwrap();
        transcript.run(&["plan", name], |call| call);
    }
    fs::write(transcript.passhold.home().join("3.json"), r#"{"passhold": "export", "version": 1}"#).unwrap();
    transcript.run(&["plan", "3.json"], |call| call);
    transcript.holds("plan");
}

#[test]
fn export() {
    let mut transcript = Transcript::with_accounts(&["alice", "bob\u{1b}[31m"]);
    transcript.bare(&["export", "--help"]);
    transcript.run(&["export"], |call| call);
    transcript.run(&["export", "--output", "e.json"], |call| call.pin(WRONG));
    transcript.run(&["export", "--output", "e.json"], |call| call.pin(PIN));
    transcript.run(&["export", "--output", "e.json"], |call| call.pin(PIN));
    transcript.run(&["export", "--output", "e.json", "--force", "--json"], |call| call.pin(PIN));
    transcript.run(&["export", "--output", "vault", "--force"], |call| call.pin(PIN));
    transcript.run(&["export", "--output", "no/folder.json"], |call| call.pin(PIN));
    transcript.run(&["export"], |call| call.pin(PIN));
    transcript.holds("export");
}

#[test]
fn recovery() {
    let mut transcript = Transcript::empty();
    transcript.bare(&["recovery", "--help"]);
    transcript.bare(&["recovery", "renew", "--help"]);
    transcript.bare(&["pin", "reset", "--help"]);
    transcript.run(&["setup", "--no-recovery-code"], |call| call.pin(PIN));
    let never = "4Y6X-WVJZ-TAFG-AZ77-60C1-EEVJ-1MV0";
    transcript.run(&["pin", "reset"], |call| call.pin(&format!("{never}\n{PIN}")));
    transcript.run(&["recovery", "renew"], |call| call.pin(WRONG));
    transcript.run(&["recovery", "renew"], |call| call.pin(PIN));
    for _ in 0..7 {
        transcript.passhold.call(["pin", "change"]).pin(WRONG).run().expect_code(5);
    }
    transcript.run(&["pin", "change"], |call| call.pin(WRONG));
    let code = transcript.codes[0].clone();
    for typed in [never, &never[..20], &never.replace('4', "5"), "#secret", ""] {
        transcript.run(&["pin", "reset"], |call| call.pin(&format!("{typed}\n161803x")));
    }
    transcript.run(&["pin", "reset"], |call| call.pin(&format!("{code}\n123456")));
    transcript.run(&["pin", "reset"], |call| call.pin(&format!("{code}\n161803x")));
    transcript.run(&["pin", "reset"], |call| call.pin(&format!("{code}\n{PIN}")));
    let code = transcript.codes[1].clone();
    transcript.run(&["pin", "reset", "--json"], |call| call.pin(&format!("{code}\n{PIN}")));
    transcript.run(&["recovery", "renew", "--json"], |call| call.pin(PIN));
    transcript.holds("recovery");
}

#[test]
fn status() {
    let mut transcript = Transcript::empty();
    transcript.bare(&["status", "--help"]);
    transcript.run(&["status"], |call| call);
    let mut transcript = transcript.set_up();
    transcript.enroll("alice");
    transcript.run(&["status"], |call| call);
    transcript.run(&["status", "--json"], |call| call);
    for _ in 0..8 {
        transcript.wrong_pin();
    }
    transcript.run(&["status"], |call| call);
    transcript.run(&["delete", "1"], |call| call.pin(PIN));
    transcript.holds("status");
}

#[test]
fn doctor() {
    let mut transcript = Transcript::empty();
    transcript.bare(&["doctor", "--help"]);
    transcript.bare(&["doctor", "harden", "--help"]);
    let machine = Machine::without_devices().with_group();
    machine.write("dev/uhid", "");
    machine.write("etc/udev/rules.d/72-passhold.rules", include_str!("../../../dist/udev/72-passhold.rules"));
    let under = |call: Call| call.under(&machine.runner());
    transcript.run(&["doctor"], under);
    let mut transcript = transcript.set_up();
    transcript.enroll("alice");
    transcript.wrong_pin();
    transcript.run(&["doctor"], under);
    transcript.run(&["doctor", "--check-pin"], |call| under(call).pin(PIN));
    fs::set_permissions(transcript.passhold.vault(), Permissions::from_mode(0o755)).unwrap();
    transcript.run(&["doctor", "--fix"], under);
    transcript.run(&["doctor", "--fix", "--yes"], under);
    transcript.run(&["doctor", "harden"], under);
    transcript.run(&["doctor", "harden", "--yes"], under);
    transcript.run(&["doctor", "harden", "--yes"], under);
    for _ in 0..8 {
        transcript.wrong_pin();
    }
    transcript.run(&["doctor"], under);
    transcript.run(&["doctor", "--tpm", "device:/dev/not-a-tpm"], under);
    transcript.tool(&["tpm2_clear", "-c", "p"]);
    transcript.run(&["doctor"], under);
    transcript.holds("doctor");
}

#[test]
fn vault() {
    let mut transcript = Transcript::with_accounts(&["alice"]);
    transcript.bare(&["vault", "--help"]);
    transcript.bare(&["vault", "adopt", "--help"]);
    transcript.run(&["vault", "adopt"], |call| call.pin(PIN));
    let home = transcript.passhold.home();
    let (dir, socket) = (home.join("service"), home.join("socket"));
    let tcti = transcript.tpm.tcti();
    let device = Device::start_with(&dir, &tcti, PIN, &["--socket", socket.to_str().unwrap()]);
    let from = transcript.passhold.vault();
    let adopt = ["--socket", socket.to_str().unwrap(), "vault", "adopt", from.to_str().unwrap()];
    for pin in [WRONG, PIN, PIN] {
        let call = transcript.passhold.bare(adopt).pin(pin);
        transcript.add(&adopt, call);
    }
    device.stop();
    transcript.holds("vault");
}

#[test]
fn passholdd() {
    let mut transcript = Transcript::with_accounts(&["alice"]);
    let (vault, tcti) = (transcript.passhold.vault(), transcript.tpm.tcti());
    let vault = vault.to_str().unwrap();
    let hid = format!("seqpacket:{}", transcript.passhold.home().join("hid").display());
    transcript.daemon(&["--help"]);
    transcript.daemon(&["--version"]);
    transcript.daemon(&[]);
    transcript.daemon(&["--vault", vault, "--hid", "usb"]);
    transcript.daemon(&["--vault", vault, "--tpm", "usb"]);
    transcript.daemon(&["--vault", vault, "--tpm", "device:/dev/not-a-tpm", "--hid", &hid]);
    transcript.daemon(&["--vault", vault, "--tpm", &tcti, "--hid", "seqpacket:/not/there"]);
    transcript.daemon(&["--vault", vault, "--tpm", &tcti, "--hid", &hid, "--min-pin-length", "3"]);
    transcript.daemon(&["--vault", vault, "--tpm", &tcti, "--hid", &hid, "--pin-history", "11"]);
    transcript.daemon(&["--vault", vault, "--tpm", &tcti, "--hid", &hid, "--pin-max-age-days", "0"]);
    transcript
        .daemon(&["--vault", vault, "--tpm", &tcti, "--hid", &hid, "--prompt", "auto", "--pin-fd", "9"]);
    transcript.holds("passholdd");
}

#[test]
fn tui() {
    let mut transcript = Transcript::empty();
    transcript.bare(&["tui", "--help"]);
    transcript.run(&["tui"], |call| call);
    transcript.run(&["tui"], |call| call.pin(PIN));
    let tmux = transcript.passhold.call(["tui"]).in_tmux((80, 24));
    transcript.see(&tmux, "passhold tui", "there is no vault");
    tmux.press(&["s"]);
    tmux.type_hidden("Choose a PIN: ", PIN);
    transcript.see(&tmux, "s, a PIN", "••••");
    tmux.press(&["Enter"]);
    tmux.type_hidden("Once more: ", PIN);
    tmux.press(&["Enter"]);
    transcript.see(&tmux, "Enter, the PIN, Enter", "8 PIN tries left");
    tmux.press(&["Enter"]);
    transcript.see(&tmux, "Enter", "q quit");
    transcript.enroll("alice");
    transcript.enroll("bob\u{1b}[31m");
    tmux.press(&["r"]);
    transcript.see(&tmux, "r", "alice");
    tmux.press(&["Enter"]);
    transcript.see(&tmux, "Enter", "go on");
    tmux.press(&["Enter", "/", "b"]);
    transcript.see(&tmux, "Enter, /, b", "1 of 2");
    tmux.press(&["Enter", "n"]);
    transcript.see(&tmux, "Enter, n", "Another name");
    tmux.press(&["C-u"]);
    tmux.type_text("Work");
    tmux.press(&["Enter"]);
    tmux.wait_for("is now Work");
    transcript.see(&tmux, "Ctrl-U, Work, Enter", "example.org                   Work");
    tmux.press(&["Escape"]);
    tmux.wait_for("  2 passkeys");
    tmux.press(&["Home", "d"]);
    tmux.type_hidden("PIN: ", WRONG);
    tmux.press(&["Enter"]);
    transcript.see(&tmux, "Esc, Home, d, a wrong PIN, Enter", "wrong PIN");
    tmux.press(&["Escape"]);
    tmux.wait_for("7 PIN tries left");
    transcript.see(&tmux, "Esc", "cancelled");
    tmux.press(&["d"]);
    tmux.type_hidden("PIN: ", PIN);
    tmux.press(&["Enter"]);
    tmux.wait_for("8 PIN tries left");
    transcript.see(&tmux, "d, the PIN, Enter", "  1 passkey ");
    tmux.press(&["b"]);
    transcript.see(&tmux, "b", "just now");
    tmux.press(&["e"]);
    transcript.see(&tmux, "e", "PIN: ");
    tmux.press(&["Escape"]);
    tmux.wait_for("cancelled");
    tmux.press(&["Escape"]);
    tmux.wait_for("n rename");
    tmux.press(&["h"]);
    transcript.see(&tmux, "Esc, Esc, h", "vault-permissions");
    tmux.press(&["Escape"]);
    tmux.wait_for("n rename");
    tmux.press(&["f"]);
    tmux.type_hidden("Recovery code: ", "XXXX");
    tmux.press(&["Enter"]);
    transcript.see(&tmux, "Esc, f, XXXX, Enter", "go on");
    tmux.resize((40, 10));
    tmux.press(&["Enter", "p"]);
    transcript.see(&tmux, "a window of 40 columns and 10 lines, Enter, p", "PIN: ");
    transcript.holds("tui");
}

#[test]
fn wipe() {
    let mut transcript = Transcript::with_accounts(&["alice"]);
    transcript.bare(&["wipe", "--help"]);
    transcript.run(&["wipe"], |call| call);
    transcript.run(&["wipe", "--yes"], |call| call);
    transcript.run(&["wipe", "--yes"], |call| call);
    transcript.run(&["wipe", "--yes", "--json"], |call| call);
    transcript.holds("wipe");
}

/// The runs of one file, and whom they run for.
struct Transcript {
    text: String,
    /// The recovery codes that were shown, the last one in force.
    codes: Vec<String>,
    passhold: Passhold,
    // Dropped after the programs that use it.
    tpm: TestTpm,
}

impl Transcript {
    fn empty() -> Self {
        let tpm = TestTpm::start().unwrap();
        Self { text: String::new(), codes: Vec::new(), passhold: Passhold::new(&tpm.tcti()), tpm }
    }

    fn with_accounts(users: &[&str]) -> Self {
        let transcript = Self::empty().set_up();
        for user in users {
            transcript.enroll(user);
        }
        transcript
    }

    fn set_up(mut self) -> Self {
        self.codes.extend(code_in(&self.passhold.call(["setup"]).pin(PIN).run().expect_code(0).stdout));
        self
    }

    fn enroll(&self, user: &str) {
        let call = self.passhold.call(["enroll", "--origin", ORIGIN]).pin(PIN);
        call.stdin(creation_options("example.org", user, "none")).run().expect_code(0);
    }

    fn silently(&self, args: &[&str]) {
        self.passhold.call(args).run().expect_code(0);
    }

    fn tool(&self, command: &[&str]) {
        assert!(self.tpm.tool(command[0], &command[1..]).unwrap().status.success(), "{command:?}");
    }

    /// `passholdd`, which ends by itself.
    fn daemon(&mut self, args: &[&str]) {
        let ended = Command::new(Program::Passholdd.path()).args(args).stdin(Stdio::null()).output().unwrap();
        let [stdout, stderr] = [ended.stdout, ended.stderr].map(|text| String::from_utf8(text).unwrap());
        self.write("passholdd", args, &stdout, &stderr, ended.status.code().unwrap(), Vec::new());
    }

    fn wrong_pin(&self) {
        self.passhold.call(["delete", "1"]).pin(WRONG).run().expect_code(5);
    }

    fn credentials(&self) -> Vec<String> {
        let listed = |args: &[&str]| -> Vec<Value> {
            let run = self.passhold.call(args).run();
            serde_json::from_str(&run.stdout).unwrap_or_default()
        };
        let accounts = [listed(&["list", "--json"]), listed(&["list", "--bin", "--json"])].concat();
        accounts.iter().map(|a| a["credentialId"].as_str().unwrap().to_owned()).collect()
    }

    /// As it is, with vault and TPM of its own choice.
    fn bare(&mut self, args: &[&str]) {
        let call = self.passhold.bare(args);
        self.add(args, call);
    }

    /// On this vault and TPM.
    fn run(&mut self, args: &[&str], edit: impl Fn(Call) -> Call) {
        let call = edit(self.passhold.call(args));
        self.add(args, call);
    }

    fn add(&mut self, args: &[&str], call: Call) {
        let before = self.credentials();
        let run = call.run();
        self.write("passhold", args, &run.stdout, &run.stderr, run.code().unwrap(), before);
    }

    fn write(
        &mut self,
        program: &str,
        args: &[&str],
        stdout: &str,
        stderr: &str,
        code: i32,
        ids: Vec<String>,
    ) {
        let quoted = args
            .iter()
            .map(|a| if a.is_empty() || a.contains(' ') { format!("\"{a}\"") } else { (*a).to_owned() });
        let mut block = format!("$ {program} {}\n{stdout}", quoted.collect::<Vec<_>>().join(" "));
        for line in stderr.lines() {
            writeln!(block, "2> {line}").unwrap();
        }
        writeln!(block, "exit {code}\n").unwrap();
        self.push(block, ids);
    }

    /// What a person sees once this is on the screen, after the keys that led there.
    fn see(&mut self, tmux: &Tmux, keys: &str, there: &str) {
        let screen = tmux.wait_for(there);
        let lines = screen.lines().map(|line| format!("| {line}").trim_end().to_owned() + "\n");
        self.push(format!("[{keys}]\n{}\n", lines.collect::<String>()), Vec::new());
    }

    /// Without what is another one each time; `ids` are those of passkeys that may be gone by now.
    fn push(&mut self, mut block: String, mut ids: Vec<String>) {
        ids.extend(self.credentials());
        for id in ids {
            block = block.replace(&id, "[CREDENTIAL]");
        }
        block = block.replace(&self.passhold.vault().display().to_string(), "[VAULT]");
        block = block.replace(&self.passhold.home().display().to_string(), "[HOME]");
        block = block.replace(&self.tpm.tcti(), "[TCTI]");
        if let Some(code) = code_in(&block) {
            block = block.replace(&code, "[CODE]");
            self.codes.push(code);
        }
        block = block.split_inclusive('\n').map(without_size).map(without_secret).collect();
        let block: String = block.split_inclusive('\n').map(without_times).collect();
        self.text.push_str(&block);
    }

    fn holds(&self, name: &str) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/transcripts/{name}.txt"));
        if !path.exists() && std::env::var_os("SNAPSHOTS").is_some() {
            fs::write(&path, "").unwrap();
        }
        let text = self.text.trim_end().to_owned() + "\n";
        Assert::new().action_env("SNAPSHOTS").eq(Data::text(text).raw(), Data::read_from(&path, None).raw());
    }
}

/// A recovery code, if one is shown.
fn code_in(text: &str) -> Option<String> {
    let is_code = |word: &&str| word.len() == 34 && RecoveryCode::parse(word).is_ok();
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-').find(is_code).map(str::to_owned)
}

/// Without what is free on this machine's disk.
fn without_size(line: &str) -> String {
    match line.split_once(" MiB free") {
        Some((before, after)) => {
            format!("{}[SIZE] MiB free{after}", before.trim_end_matches(|c: char| c.is_ascii_digit()))
        }
        None => line.to_owned(),
    }
}

/// Without a lockout authorization.
fn without_secret(line: String) -> String {
    let is_secret = line.len() == 33 && line.trim_end().chars().all(|c| c.is_ascii_hexdigit());
    if is_secret { "[32 DIGITS]\n".to_owned() } else { line }
}

/// Without dates, times of creation, and the members of a response, which tests/verifiers.rs checks.
fn without_times(line: &str) -> String {
    let line = line.trim_end_matches('\n');
    if let Ok(mut json) = serde_json::from_str::<Value>(line) {
        redact(&mut json);
        return format!("{json}\n");
    }
    let chars: Vec<char> = line.chars().collect();
    let is_date = |at: usize| {
        let shape = "0000-00-00 00:00".chars();
        chars.len() >= at + 16
            && shape.zip(&chars[at..]).all(|(s, c)| if s == '0' { c.is_ascii_digit() } else { s == *c })
    };
    match (0..chars.len()).find(|at| is_date(*at)) {
        Some(at) => format!(
            "{}[DATE]{}\n",
            chars[..at].iter().collect::<String>(),
            chars[at + 16..].iter().collect::<String>()
        ),
        None => format!("{line}\n"),
    }
}

fn redact(json: &mut Value) {
    match json {
        Value::Array(list) => list.iter_mut().for_each(redact),
        Value::Object(members) => {
            for (name, value) in members {
                match name.as_str() {
                    "at" | "created" | "lastUsed" | "binned" | "exported" if value.is_number() => {
                        *value = json!("[TIME]");
                    }
                    // Of a vault that is gone, nobody lists it.
                    "credentialId" => *value = json!("[CREDENTIAL]"),
                    "vault" if value.as_str().is_some_and(|id| id.len() == 32) => *value = json!("[ID]"),
                    "clientDataJSON" | "authenticatorData" | "publicKey" | "attestationObject"
                    | "signature" => {
                        *value = json!("[BASE64URL]");
                    }
                    _ => redact(value),
                }
            }
        }
        _ => {}
    }
}
