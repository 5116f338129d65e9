//! A person before a terminal that draws: `passhold tui`, and the prompts of the other commands.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::pedantic
)]

use std::{fs, process::Command, thread, time::Duration};

use serde_json::Value;
use swtpm_tests::{Desk, PIN, Passhold, TestTpm, Tmux, creation_options, request_options};

const USUAL: (u16, u16) = (80, 24);
const NEW_PIN: &str = "314159x";
const WRONG: &str = "999888777x";

#[track_caller]
fn type_hidden(tmux: &Tmux, prompt: &str, secret: &str) {
    tmux.type_hidden(prompt, secret);
    tmux.press(&["Enter"]);
}

/// The recovery code that the screen shows.
#[track_caller]
fn code_on(screen: &str) -> String {
    let at = screen.find("Recovery code: ").unwrap_or_else(|| panic!("{screen}")) + 15;
    screen[at..at + 34].to_owned()
}

/// The tui, once it shows the vault.
fn tui(desk: &Desk, size: (u16, u16)) -> Tmux {
    let tmux = desk.call(["tui"]).in_tmux(size);
    tmux.wait_for("8 PIN tries left");
    tmux
}

#[track_caller]
fn quit(tmux: &Tmux) {
    tmux.press(&["q"]);
    let screen = tmux.wait_for("exit 0");
    assert!(!screen.contains("Passhold"), "the screen is as it was: {screen}");
    // The shell's line is edited and shown as ever.
    tmux.type_line("echo $((20 + 3)) back");
    tmux.wait_for("23 back");
}

fn names(desk: &Desk) -> Vec<String> {
    let listed = desk.json(&["list"]);
    listed
        .as_array()
        .unwrap()
        .iter()
        .map(|account| account["userName"].as_str().unwrap().to_owned())
        .collect()
}

fn signs(desk: &Desk, pin: &str) -> i32 {
    let sign = desk.call(["sign", "--origin", "https://example.org"]).pin(pin);
    sign.stdin(request_options("example.org")).run().code().unwrap()
}

#[test]
fn a_vault_is_set_up_in_the_tui() {
    let tpm = TestTpm::start().unwrap();
    let passhold = Passhold::new(&tpm.tcti());
    let tmux = passhold.call(["tui"]).in_tmux(USUAL);
    tmux.wait_for("there is no vault");
    tmux.press(&["s"]);
    type_hidden(&tmux, "Choose a PIN: ", "123456");
    tmux.wait_for("this PIN is refused");
    tmux.press(&["Enter"]);
    tmux.wait_for("s set up");
    tmux.press(&["s"]);
    type_hidden(&tmux, "Choose a PIN: ", PIN);
    type_hidden(&tmux, "Once more: ", NEW_PIN);
    tmux.wait_for("the two PINs differ");
    tmux.press(&["Enter"]);
    tmux.wait_for("s set up");
    tmux.press(&["s"]);
    type_hidden(&tmux, "Choose a PIN: ", PIN);
    type_hidden(&tmux, "Once more: ", PIN);
    let screen = tmux.wait_for("Recovery code: ");
    assert!(screen.contains("it is not shown again"), "{screen}");
    let code = code_on(&screen);
    // It stays until it was read, whatever is typed and read beside it.
    tmux.wait_for("8 PIN tries left");
    tmux.press(&["x", "r", "d"]);
    thread::sleep(Duration::from_millis(300));
    assert!(tmux.screen().contains(&code));
    tmux.press(&["Enter"]);
    tmux.wait_for("No passkeys yet.");
    quit(&tmux);
    let enroll = passhold.call(["enroll", "--origin", "https://example.org"]).pin(PIN);
    enroll.stdin(creation_options("example.org", "alice", "none")).run().expect_code(0);
    passhold.call(["pin", "reset"]).pin(&format!("{code}\n{NEW_PIN}")).run().expect_code(0);
}

#[test]
fn a_wrong_pin_a_lock_and_a_reset_in_the_tui() {
    for desk in Desk::both() {
        desk.enroll("example.org", "alice").run().expect_code(0);
        let renewed = desk.with_pin(["recovery", "renew"]).arg("--json").run().expect_code(0).json();
        let code = renewed["recoveryCode"].as_str().unwrap().to_owned();
        let tmux = tui(&desk, USUAL);
        tmux.wait_for("alice");
        // Three tries a command.
        for (left, tries) in [(5, [7, 6].as_slice()), (2, &[4, 3]), (0, &[1])] {
            tmux.press(&["d"]);
            let asked = tmux.wait_for("PIN: ");
            assert!(asked.contains("move the passkey for alice at example.org to the bin"), "{asked}");
            for tries in tries {
                type_hidden(&tmux, "PIN: ", WRONG);
                tmux.wait_for(&format!("wrong PIN; {tries} tr"));
            }
            type_hidden(&tmux, "PIN: ", WRONG);
            tmux.wait_for("go on");
            let left = if left == 0 {
                "wrong PIN; no tries left".to_owned()
            } else {
                format!("wrong PIN; {left} tries left")
            };
            tmux.wait_for(&left);
            tmux.press(&["Enter"]);
            tmux.wait_for("q quit  /");
        }
        tmux.wait_for("the PIN is locked");
        // The right one too, which is not even asked for, or refused.
        assert_eq!(signs(&desk, PIN), 6);

        tmux.press(&["f"]);
        type_hidden(&tmux, "Recovery code: ", "0000-0000-0000-0000-0000-0000-0000");
        tmux.wait_for("go on");
        tmux.press(&["Enter"]);
        tmux.wait_for("q quit  /");
        tmux.press(&["f"]);
        type_hidden(&tmux, "Recovery code: ", &code);
        type_hidden(&tmux, "New PIN: ", NEW_PIN);
        type_hidden(&tmux, "Once more: ", NEW_PIN);
        let next = code_on(&tmux.wait_for("The new PIN is set"));
        assert_ne!(next, code);
        tmux.press(&["Enter"]);
        tmux.wait_for("8 PIN tries left");
        quit(&tmux);
        assert_eq!(signs(&desk, NEW_PIN), 0);
    }
}

#[test]
fn passkeys_are_found_renamed_deleted_and_brought_back() {
    for desk in Desk::both() {
        for user in ["alice", "bob", "carol"] {
            desk.enroll("example.org", user).run().expect_code(0);
        }
        let tmux = tui(&desk, USUAL);
        tmux.wait_for("3 passkeys");
        tmux.press(&["/"]);
        tmux.type_text("BOB");
        let screen = tmux.wait_for("1 of 3 passkeys");
        assert!(!screen.contains("alice") && screen.contains("filter: BOB"), "{screen}");
        tmux.press(&["Enter", "n", "C-u"]);
        tmux.type_text("Work");
        tmux.press(&["Enter"]);
        tmux.wait_for("Passkey 2 is now Work.");
        assert_eq!(desk.json(&["show", "2"])["name"], "Work");
        tmux.press(&["d"]);
        type_hidden(&tmux, "PIN: ", PIN);
        tmux.wait_for("0 of 2 passkeys");
        assert_eq!(names(&desk), ["alice", "carol"]);
        tmux.press(&["b"]);
        tmux.wait_for("just now");
        tmux.press(&["u"]);
        type_hidden(&tmux, "PIN: ", PIN);
        tmux.wait_for("The bin is empty.");
        assert_eq!(names(&desk), ["alice", "bob", "carol"]);
        tmux.press(&["Escape"]);
        tmux.wait_for("3 passkeys");
        tmux.press(&["End", "d"]);
        tmux.wait_for("carol at example.org");
        type_hidden(&tmux, "PIN: ", PIN);
        tmux.wait_for("Passkey 3, carol at example.org, is in the bin.");
        tmux.wait_for("n rename");
        tmux.press(&["b"]);
        tmux.wait_for("just now");
        tmux.press(&["e"]);
        tmux.wait_for("delete what is in the bin for ever, 1 passkey");
        type_hidden(&tmux, "PIN: ", PIN);
        tmux.wait_for("Gone for ever: 1 passkey.");
        quit(&tmux);
        assert_eq!(names(&desk), ["alice", "bob"]);
        assert_eq!(desk.json(&["list", "--bin"]), Value::Array(Vec::new()));
    }
}

#[test]
fn the_pin_and_the_code_are_changed_in_the_tui() {
    let desk = Desk::direct();
    desk.enroll("example.org", "alice").run().expect_code(0);
    let tmux = tui(&desk, USUAL);
    tmux.wait_for("alice");
    tmux.press(&["p"]);
    type_hidden(&tmux, "PIN: ", PIN);
    type_hidden(&tmux, "New PIN: ", NEW_PIN);
    type_hidden(&tmux, "Once more: ", NEW_PIN);
    tmux.wait_for("The PIN is changed; all passkeys stay.");
    tmux.wait_for("q quit  /");
    tmux.press(&["c"]);
    type_hidden(&tmux, "PIN: ", NEW_PIN);
    let code = code_on(&tmux.wait_for("Recovery code: "));
    tmux.press(&["Enter"]);
    tmux.wait_for("q quit  /");
    quit(&tmux);
    assert_eq!(signs(&desk, NEW_PIN), 0);
    desk.call(["pin", "reset"]).pin(&format!("{code}\n{PIN}")).run().expect_code(0);
}

#[test]
fn the_doctor_tells_what_it_found_and_why_it_matters() {
    for desk in Desk::both() {
        let tmux = tui(&desk, USUAL);
        tmux.wait_for("q quit  /");
        tmux.press(&["h"]);
        tmux.wait_for("Passhold: doctor");
        let screen = tmux.wait_for("warning  tpm-kind");
        assert!(screen.contains("ok       tpm  "), "{screen}");
        tmux.press(&["Down", "Enter"]);
        let screen = tmux.wait_for("go on");
        assert!(screen.contains("software"), "{screen}");
        tmux.press(&["Enter", "Escape"]);
        tmux.wait_for("n rename");
        quit(&tmux);
    }
}

#[test]
fn it_fits_every_window() {
    let desk = Desk::direct();
    for user in 0..30 {
        desk.enroll("example.org", &format!("user{user:02}")).run().expect_code(0);
    }
    let tmux = tui(&desk, USUAL);
    let screen = tmux.wait_for("user00");
    assert!(screen.contains("Site       example.org"), "details below: {screen}");
    tmux.press(&["End"]);
    tmux.wait_for("user29");
    for size in [(100, 30), (40, 10), (20, 5), (12, 3), (3, 2), (1, 1), (200, 50)] {
        tmux.resize(size);
        tmux.wait_until("a window that is drawn on", |screen| {
            size.0 < 40 || (screen.contains("user29") && screen.contains("q quit"))
        });
        tmux.press(&["d"]);
        thread::sleep(Duration::from_millis(200));
        tmux.press(&["Escape"]);
        thread::sleep(Duration::from_millis(200));
    }
    let screen = tmux.wait_until("details beside the list", |screen| {
        screen.lines().any(|line| line.contains("user00") && line.contains("Site       example.org"))
            || screen.lines().nth(1).is_some_and(|line| line.contains("Site       example.org"))
    });
    assert!(screen.contains("user29"), "{screen}");
    tmux.resize((40, 10));
    tmux.press(&["Enter"]);
    tmux.wait_for("Account    user29");
    tmux.press(&["Enter"]);
    quit(&tmux);
    assert_eq!(names(&desk).len(), 30);
}

#[test]
fn walking_away_from_a_question_does_nothing_and_counts_no_try() {
    for desk in Desk::both() {
        desk.enroll("example.org", "alice").run().expect_code(0);
        for (key, ended) in
            [("C-c", false), ("Escape", false), ("INT", true), ("TERM", true), ("HUP", true), ("KILL", true)]
        {
            let tmux = tui(&desk, USUAL);
            tmux.wait_for("alice");
            tmux.press(&["d"]);
            tmux.wait_for("PIN: ");
            tmux.type_text("2718");
            if ended {
                let tui = tmux.child();
                assert!(
                    Command::new("kill")
                        .args([format!("-{key}"), tui.to_string()])
                        .status()
                        .unwrap()
                        .success()
                );
                tmux.wait_until("the shell", |screen| screen.ends_with('$') || screen.contains("Killed"));
                if key != "KILL" {
                    assert!(!tmux.screen().contains("alice"), "the screen is as it was");
                    tmux.type_line("echo $((20 + 3)) back");
                    tmux.wait_for("23 back");
                }
            } else {
                tmux.press(&[key]);
                tmux.wait_for("cancelled. Nothing was done.");
                quit(&tmux);
            }
            assert_eq!(desk.json(&["status"])["triesLeft"], 8, "{key}");
            assert_eq!(names(&desk), ["alice"], "{key}");
        }
    }
}

#[test]
fn a_terminal_that_is_closed_ends_it_and_nothing_is_done() {
    let desk = Desk::direct();
    desk.enroll("example.org", "alice").run().expect_code(0);
    let tmux = tui(&desk, USUAL);
    tmux.wait_for("alice");
    tmux.press(&["d"]);
    tmux.wait_for("PIN: ");
    let process = format!("/proc/{}", tmux.child());
    drop(tmux);
    for _ in 0..500 {
        if !fs::exists(&process).unwrap() {
            break;
        }
        thread::sleep(Duration::from_millis(10));
    }
    assert!(!fs::exists(&process).unwrap());
    assert_eq!(names(&desk), ["alice"]);
    assert_eq!(desk.json(&["status"])["triesLeft"], 8);
}

#[test]
fn a_stopped_one_gives_the_terminal_back_and_goes_on() {
    let desk = Desk::direct();
    desk.enroll("example.org", "alice").run().expect_code(0);
    let tmux = tui(&desk, USUAL);
    tmux.wait_for("alice");
    tmux.press(&["C-z"]);
    let screen = tmux.wait_for("Stopped");
    assert!(!screen.contains("alice"), "{screen}");
    tmux.type_line("echo $((20 + 3)) back");
    tmux.wait_for("23 back");
    tmux.type_line("fg");
    let screen = tmux.wait_for("alice");
    assert!(!screen.contains("back"), "{screen}");
    tmux.press(&["d"]);
    type_hidden(&tmux, "PIN: ", PIN);
    tmux.wait_for("is in the bin");
}

#[test]
fn what_a_site_calls_its_user_draws_nothing() {
    let desk = Desk::direct();
    let mut options: Value = serde_json::from_str(&creation_options("example.org", "x", "none")).unwrap();
    options["user"]["name"] = "alice\r\u{1b}[2J\u{1b}[Hmallory\u{202e}".into();
    let enroll = desk.with_pin(["enroll", "--origin", "https://example.org"]);
    enroll.stdin(options.to_string()).run().expect_code(0);
    let tmux = tui(&desk, (120, 24));
    tmux.wait_for("alice\u{fffd}\u{fffd}[2J\u{fffd}[Hmallory");
    tmux.press(&["d"]);
    let screen = tmux.wait_for("PIN: ");
    assert!(screen.starts_with("Passhold  1 passkey"), "{screen}");
}

#[test]
fn colour_is_for_terminals_and_never_with_no_color() {
    let desk = Desk::direct();
    let colours = |tmux: &Tmux| tmux.coloured().contains("[38;5;");
    let tmux = tui(&desk, USUAL);
    tmux.wait_for("software");
    assert!(colours(&tmux), "{}", tmux.coloured());
    let tmux = desk.call(["tui"]).env("NO_COLOR", "1").in_tmux(USUAL);
    tmux.wait_for("software");
    assert!(!colours(&tmux), "{}", tmux.coloured());
    tmux.wait_for("q quit");
    tmux.press(&["h"]);
    tmux.wait_for("warning");
    assert!(!colours(&tmux), "{}", tmux.coloured());
}

#[test]
fn what_others_changed_is_seen_and_what_is_gone_is_told() {
    let desk = Desk::served();
    desk.enroll("example.org", "alice").run().expect_code(0);
    let tmux = tui(&desk, USUAL);
    tmux.wait_for("alice");
    desk.with_pin(["delete", "1"]).run().expect_code(0);
    desk.enroll("example.org", "bob").run().expect_code(0);
    tmux.press(&["d"]);
    tmux.wait_for("passkey 1 is in the bin");
    tmux.press(&["Enter"]);
    tmux.wait_for("bob");
    tmux.wait_for("q quit  /");
    tmux.press(&["d"]);
    tmux.wait_for("PIN: ");
    let mut desk = desk;
    drop(desk.device.take());
    type_hidden(&tmux, "PIN: ", PIN);
    tmux.wait_for("the other end of the socket does not answer");
    tmux.press(&["Enter"]);
    tmux.wait_for("passholdd does not answer at");
    tmux.press(&["r"]);
    tmux.wait_for("passholdd does not answer at");
    quit(&tmux);
}

#[test]
fn where_it_cannot_draw_it_says_so() {
    let desk = Desk::direct();
    for (call, why) in [
        (desk.call(["tui"]), "passhold: tui needs a terminal, and standard output is none\n"),
        (desk.call(["tui", "--json"]), "{\"error\""),
        (desk.with_pin(["tui"]), "passhold: tui asks and tells on the screen\n"),
    ] {
        let run = call.run().expect_code(2);
        assert!(run.stderr.starts_with(why), "{}", run.stderr);
        assert_eq!(run.stdout, "");
    }
    let tmux = desk.call(["tui"]).env("TERM", "dumb").in_tmux(USUAL);
    let screen = tmux.wait_for("exit 2");
    assert!(screen.contains("tui needs a terminal that can be drawn on, and TERM names none"), "{screen}");
}

/// The prompts of the commands themselves: set-up, wrong PINs, the lock, a reset by code.
#[test]
fn a_life_at_the_prompts() {
    let tpm = TestTpm::start().unwrap();
    let passhold = Passhold::new(&tpm.tcti());
    let hidden = |tmux: &Tmux, prompt: &str, secret: &str| {
        tmux.wait_until(prompt, |screen| screen.ends_with(prompt));
        tmux.type_line(secret);
    };
    let tmux = passhold.call(["setup"]).in_tmux(USUAL);
    hidden(&tmux, "Choose a PIN:", PIN);
    hidden(&tmux, "Once more:", PIN);
    let screen = tmux.wait_for("exit 0");
    assert!(!screen.contains(PIN), "{screen}");
    let code = code_on(&screen);
    let enroll = passhold.call(["enroll", "--origin", "https://example.org"]).pin(PIN);
    enroll.stdin(creation_options("example.org", "alice", "none")).run().expect_code(0);

    for (left, code) in [(5, 5), (2, 5), (0, 5)] {
        let tmux = passhold.call(["delete", "1"]).in_tmux(USUAL);
        let tries = if left == 0 { 2 } else { 3 };
        for asked in 1..=tries {
            tmux.wait_until("the next prompt", |screen| screen.matches("\nPIN:").count() == asked);
            hidden(&tmux, "PIN:", WRONG);
        }
        let screen = tmux.wait_for(&format!("exit {code}"));
        let left = if left == 0 { "no tries left".to_owned() } else { format!("{left} tries left") };
        assert!(screen.contains(&format!("wrong PIN; {left}")), "{screen}");
        assert!(!screen.contains(WRONG), "{screen}");
    }
    let tmux = passhold.call(["delete", "1"]).in_tmux(USUAL);
    hidden(&tmux, "PIN:", PIN);
    tmux.wait_for("exit 6");

    let tmux = passhold.call(["pin", "reset"]).in_tmux(USUAL);
    hidden(&tmux, "Recovery code:", &code);
    hidden(&tmux, "New PIN:", NEW_PIN);
    hidden(&tmux, "Once more:", NEW_PIN);
    let screen = tmux.wait_for("exit 0");
    assert!(screen.contains("The new PIN is set; all passkeys stay. The new"), "{screen}");
    assert!(!screen.contains(NEW_PIN) && !screen.contains(&code), "{screen}");

    let tmux = passhold.call(["delete", "1"]).in_tmux(USUAL);
    hidden(&tmux, "PIN:", NEW_PIN);
    tmux.wait_for("exit 0");
}
