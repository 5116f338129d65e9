//! A person at a terminal: what is asked, what is hidden, and what walking away means.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::pedantic
)]

use std::{os::unix::process::ExitStatusExt, process::Command};

use serde_json::Value;
use swtpm_tests::{Call, PIN, Passhold, Terminal, TestTpm, creation_options, request_options};
use vault_core::RecoveryCode;

const ORIGIN: &str = "https://example.org";
const WRONG: &str = "999888777x";
const SIGN_AS_ALICE: &str = "passhold: sign in as alice at example.org, asked by https://example.org\n";

#[test]
fn setup_asks_for_the_pin_twice_and_shows_nothing_that_is_typed() {
    let desk = Desk::empty();
    let mut terminal = desk.passhold.call(["setup"]).on_terminal();
    terminal.wait_for("Choose a PIN: ");
    terminal.type_hidden(PIN);
    terminal.wait_for("Once more: ");
    terminal.type_hidden(PIN);
    assert_eq!(terminal.wait().code(), Some(0));
    let expected = "Choose a PIN: \nOnce more: \n\
         passhold: the TPM allows 8 wrong PINs in a row, then none; keep the PIN safe\n\
         Recovery code: ";
    let screen = terminal.screen();
    let code = screen.strip_prefix(expected).unwrap_or_else(|| panic!("{screen}"));
    assert!(RecoveryCode::parse(&code[..34]).is_ok(), "{screen}");
    let made = format!("Made a vault in {}. The recovery code holds.\n", desk.passhold.vault().display());
    assert!(screen.ends_with(&made), "{screen}");
    assert_eq!(desk.tries_left(), 8);
}

#[test]
fn setup_refuses_two_pins_that_differ_and_makes_no_vault() {
    let desk = Desk::empty();
    let mut terminal = desk.passhold.call(["setup"]).on_terminal();
    terminal.wait_for("Choose a PIN: ");
    terminal.type_hidden(PIN);
    terminal.wait_for("Once more: ");
    terminal.type_hidden("271829");
    assert_eq!(terminal.wait().code(), Some(16));
    let expected = "Choose a PIN: \nOnce more: \n\
                    passhold: the two PINs differ\nNothing was changed; try again.\n";
    assert_eq!(terminal.screen(), expected);
    assert!(!desk.passhold.vault().exists());
}

#[test]
fn setup_refuses_a_weak_pin_before_asking_for_it_again() {
    let desk = Desk::empty();
    let mut terminal = desk.passhold.call(["setup"]).on_terminal();
    terminal.wait_for("Choose a PIN: ");
    terminal.type_hidden("123456");
    assert_eq!(terminal.wait().code(), Some(16));
    let screen = terminal.screen();
    assert!(screen.starts_with("Choose a PIN: \npasshold: this PIN is refused: "), "{screen}");
    assert!(screen.ends_with("\nChoose another one.\n"), "{screen}");
}

#[test]
fn a_wrong_pin_shows_the_tries_left_and_is_asked_for_again() {
    let desk = Desk::with_accounts(&["alice"]);
    let mut terminal = desk.sign().redirect(">signed.json").on_terminal();
    for typed in [WRONG, WRONG, PIN] {
        terminal.wait_for("PIN: ");
        terminal.type_hidden(typed);
    }
    assert_eq!(terminal.wait().code(), Some(0));
    let expected = format!(
        "{SIGN_AS_ALICE}\
         PIN: \npasshold: wrong PIN; 7 tries left, counted by the TPM\n\
         PIN: \npasshold: wrong PIN; 6 tries left, counted by the TPM\n\
         PIN: \n"
    );
    assert_eq!(terminal.screen(), expected);
    assert_eq!(desk.signed()["response"]["userHandle"], "YWxpY2U");
    assert_eq!(desk.tries_left(), 8);
}

/// While somebody types, others use the vault; even so what was shown is what is done.
#[test]
fn a_vault_that_was_replaced_while_somebody_typed_is_left_alone() {
    let desk = Desk::with_accounts(&["alice"]);
    let mut terminal = desk.passhold.call(["delete", "1"]).on_terminal();
    terminal.wait_for("PIN: ");
    desk.passhold.call(["wipe", "--yes"]).run().expect_code(0);
    desk.passhold.call(["setup"]).pin(PIN).run().expect_code(0);
    let enroll = desk.passhold.call(["enroll", "--origin", "https://example.org"]).pin(PIN);
    enroll.options(&creation_options("example.org", "bob", "none")).run().expect_code(0);
    terminal.type_hidden(PIN);
    assert_eq!(terminal.wait().code(), Some(12));
    assert!(terminal.screen().contains("the vault was replaced by another one meanwhile"));
    let left = desk.passhold.call(["--json", "list"]).run().expect_code(0).json();
    assert_eq!(left[0]["userName"], "bob");
}

#[test]
fn the_third_wrong_pin_ends_the_command() {
    let desk = Desk::with_accounts(&["alice"]);
    let mut terminal = desk.sign().on_terminal();
    for _ in 0..3 {
        terminal.wait_for("PIN: ");
        terminal.type_hidden(WRONG);
    }
    assert_eq!(terminal.wait().code(), Some(5));
    let expected = "PIN: \npasshold: wrong PIN; 5 tries left, counted by the TPM\n\
                    Try again with the right PIN; a right one sets the count back.\n";
    assert!(terminal.screen().ends_with(expected), "{}", terminal.screen());
    assert_eq!(desk.tries_left(), 5);

    let mut terminal = desk.sign().on_terminal();
    let shown = terminal.wait_for("PIN: ");
    assert_eq!(
        shown,
        format!("{SIGN_AS_ALICE}passhold: 5 tries left, counted by the TPM\n"),
        "before it matters"
    );
}

#[test]
fn several_matching_accounts_are_listed_and_asked_for() {
    let desk = Desk::with_accounts(&["alice", "bob"]);
    let mut terminal = desk.sign().redirect(">signed.json").on_terminal();
    let list = terminal.wait_for("Which passkey (one of 1, 2)? ");
    assert_eq!(list, "passhold: 1: alice\npasshold: 2: bob\n");
    terminal.type_line("2");
    let confirm = terminal.wait_for("PIN: ");
    assert_eq!(confirm, "2\npasshold: sign in as bob at example.org, asked by https://example.org\n");
    terminal.type_hidden(PIN);
    assert_eq!(terminal.wait().code(), Some(0));
    assert_eq!(desk.signed()["response"]["userHandle"], "Ym9i");
}

#[test]
fn an_account_that_is_not_on_the_list_is_refused_without_a_pin() {
    let desk = Desk::with_accounts(&["alice", "bob"]);
    for (answer, code, last_words) in [
        ("7", 13, "passhold: there is no passkey 7\n\"passhold list\" shows the numbers.\n"),
        ("bob", 15, "passhold: no passkey was chosen\nAnswer with one of 1, 2.\n"),
        ("", 15, "passhold: no passkey was chosen\nAnswer with one of 1, 2.\n"),
    ] {
        let mut terminal = desk.sign().on_terminal();
        terminal.wait_for("? ");
        terminal.type_line(answer);
        assert_eq!(terminal.wait().code(), Some(code), "{answer}");
        assert!(terminal.screen().ends_with(last_words), "{}", terminal.screen());
    }
}

#[test]
fn wipe_names_what_is_lost_and_wants_the_word() {
    let desk = Desk::with_accounts(&["alice", "bob"]);
    let question = format!("Type \"wipe\" to destroy the vault in {}: ", desk.passhold.vault().display());
    for answer in ["yes", "y", "", "WIPE", "wipe it"] {
        let mut terminal = desk.passhold.call(["wipe"]).on_terminal();
        let lost = terminal.wait_for(&question);
        let expected = "passhold: 2 passkeys will be lost:\n\
                        passhold: 1: alice at example.org\npasshold: 2: bob at example.org\n";
        assert_eq!(lost, expected);
        terminal.type_line(answer);
        assert_eq!(terminal.wait().code(), Some(15), "{answer:?}");
        assert!(terminal.screen().contains("passhold: nothing was destroyed\n"), "{}", terminal.screen());
    }
    assert_eq!(desk.tries_left(), 8, "it is still there");
    let mut terminal = desk.passhold.call(["wipe"]).on_terminal();
    terminal.wait_for(&question);
    terminal.type_line("wipe");
    assert_eq!(terminal.wait().code(), Some(0));
    desk.passhold.call(["list"]).run().expect_code(4);
}

#[test]
fn pin_change_asks_for_the_old_pin_and_twice_for_the_new_one() {
    let desk = Desk::with_accounts(&["alice"]);
    let mut terminal = desk.passhold.call(["pin", "change"]).on_terminal();
    for (prompt, typed) in [("PIN: ", PIN), ("New PIN: ", "314159x"), ("Once more: ", "314159x")] {
        terminal.wait_for(prompt);
        terminal.type_hidden(typed);
    }
    assert_eq!(terminal.wait().code(), Some(0));
    let expected = "passhold: change the vault's PIN; first the old one\n\
                    PIN: \nNew PIN: \nOnce more: \nThe PIN is changed; all passkeys stay.\n";
    assert_eq!(terminal.screen(), expected);
    let mut terminal = desk.sign().redirect(">signed.json").on_terminal();
    terminal.wait_for("PIN: ");
    terminal.type_hidden("314159x");
    assert_eq!(terminal.wait().code(), Some(0));
}

#[test]
fn enroll_and_delete_name_the_account_before_the_pin_confirms() {
    let desk = Desk::with_accounts(&[]);
    let enroll = desk.passhold.call(["enroll", "--origin", ORIGIN]).redirect(">made.json");
    let mut terminal = enroll.options(&creation_options("example.org", "alice", "none")).on_terminal();
    let shown = terminal.wait_for("PIN: ");
    assert_eq!(shown, "passhold: make a passkey for alice at example.org, asked by https://example.org\n");
    terminal.type_hidden(PIN);
    assert_eq!(terminal.wait().code(), Some(0));
    assert!(terminal.screen().ends_with("PIN: \npasshold: made passkey 1\n"), "{}", terminal.screen());

    let mut terminal = desk.passhold.call(["delete", "1"]).on_terminal();
    let shown = terminal.wait_for("PIN: ");
    let expected = "passhold: move the passkey for alice at example.org to the bin, which keeps it for 30 days; remove it at the site too\n";
    assert_eq!(shown, expected);
    terminal.type_hidden(PIN);
    assert_eq!(terminal.wait().code(), Some(0));
    assert!(
        terminal.screen().ends_with(
            "\nPasskey 1, alice at example.org, is in the bin. \"passhold undelete 1\" takes it out again.\n"
        ),
        "{}",
        terminal.screen()
    );
}

#[test]
fn what_a_site_calls_its_user_cannot_rewrite_the_confirmation() {
    let desk = Desk::with_accounts(&[]);
    let user = "alice\r\u{1b}[2Kmallory\u{202e}";
    let mut options: Value = serde_json::from_str(&creation_options("example.org", "x", "none")).unwrap();
    options["user"]["name"] = user.into();
    let enroll = desk.passhold.call(["enroll", "--origin", ORIGIN]).redirect(">made.json");
    let mut terminal = enroll.options(&options.to_string()).on_terminal();
    let shown = terminal.wait_for("PIN: ");
    let plain = "alice\u{fffd}\u{fffd}[2Kmallory\u{fffd}";
    assert_eq!(shown, format!("passhold: make a passkey for {plain} at example.org, asked by {ORIGIN}\n"));
}

#[test]
fn options_are_not_waited_for_on_a_keyboard() {
    let desk = Desk::with_accounts(&["alice"]);
    let mut terminal = desk.passhold.call(["sign", "--origin", ORIGIN]).on_terminal();
    assert_eq!(terminal.wait().code(), Some(2));
    let expected = "passhold: there is nothing on standard input\n\
                    Name a file with what the relying party sent, or pipe it in.\n";
    assert_eq!(terminal.screen(), expected);
}

#[test]
fn a_prompt_that_is_killed_is_a_refusal_and_counts_no_try() {
    for signal in ["INT", "TERM", "HUP", "KILL"] {
        let desk = Desk::with_accounts(&["alice"]);
        let mut terminal = desk.sign().redirect(">signed.json").on_terminal();
        terminal.wait_for("PIN: ");
        terminal.type_keys("2718");
        let kill = Command::new("kill").args([format!("-{signal}"), terminal.pid().to_string()]).status();
        assert!(kill.unwrap().success());
        let status = terminal.wait();
        assert!(status.signal().is_some(), "{signal}: {status:?}");
        assert_eq!(std::fs::read(desk.passhold.home().join("signed.json")).unwrap(), b"", "{signal}");
        assert_eq!(desk.tries_left(), 8, "{signal}");
    }
}

#[test]
fn ctrl_c_at_the_prompt_is_a_refusal_and_counts_no_try() {
    let desk = Desk::with_accounts(&["alice"]);
    let mut terminal = desk.sign().redirect(">signed.json").on_terminal();
    terminal.wait_for("PIN: ");
    terminal.type_hidden_keys("2718\x03");
    assert!(!terminal.wait().success());
    assert_eq!(std::fs::read(desk.passhold.home().join("signed.json")).unwrap(), b"");
    assert_eq!(desk.tries_left(), 8);
}

#[test]
fn ctrl_d_or_enter_alone_at_the_prompt_is_a_refusal_and_counts_no_try() {
    let desk = Desk::with_accounts(&["alice"]);
    for (key, code) in [("\x04", 15), ("\n", 5)] {
        let mut terminal = desk.sign().redirect(">signed.json").on_terminal();
        terminal.wait_for("PIN: ");
        terminal.type_hidden_keys(key);
        assert_eq!(terminal.wait().code(), Some(code), "{key:?}: {}", terminal.screen());
        assert_eq!(std::fs::read(desk.passhold.home().join("signed.json")).unwrap(), b"");
        assert_eq!(desk.tries_left(), 8);
    }
}

#[test]
fn a_closed_terminal_at_a_question_is_a_refusal() {
    let desk = Desk::with_accounts(&["alice"]);
    let mut terminal = desk.passhold.call(["wipe"]).on_terminal();
    terminal.wait_for("Type \"wipe\"");
    drop(terminal);
    assert_eq!(desk.tries_left(), 8, "it is still there");
    let mut terminal = desk.passhold.call(["wipe"]).on_terminal();
    terminal.wait_for("destroy");
    terminal.wait_for(": ");
    terminal.type_keys("\x04");
    assert_eq!(terminal.wait().code(), Some(15));
    assert_eq!(desk.tries_left(), 8);
}

#[test]
fn the_terminal_is_as_it_was_after_a_pin_was_typed() {
    let desk = Desk::with_accounts(&["alice"]);
    let mut terminal = desk.sign().redirect(">signed.json").then("stty -a").on_terminal();
    terminal.wait_for("PIN: ");
    terminal.type_hidden(PIN);
    terminal.wait();
    assert_restored(&terminal);
}

#[test]
fn the_terminal_is_as_it_was_after_ctrl_c() {
    let desk = Desk::with_accounts(&["alice"]);
    let mut terminal = desk.sign().redirect(">signed.json").then("stty -a").on_terminal();
    terminal.wait_for("PIN: ");
    terminal.type_hidden_keys("\x03");
    terminal.wait();
    assert_restored(&terminal);
}

#[test]
fn typing_is_hidden_before_the_prompt_appears() {
    let desk = Desk::with_accounts(&["alice"]);
    for _ in 0..20 {
        let mut terminal = desk.sign().redirect(">signed.json").on_terminal();
        terminal.wait_for("PIN: ");
        assert!(!terminal.echoes());
        terminal.type_keys("\x03");
        assert_eq!(terminal.wait().code(), Some(15));
    }
}

#[track_caller]
fn assert_restored(terminal: &Terminal) {
    let screen = terminal.screen();
    let modes: Vec<_> = screen.split_whitespace().map(|word| word.trim_end_matches(';')).collect();
    for mode in ["echo", "icanon", "isig"] {
        assert!(modes.contains(&mode), "not {mode}: {screen}");
    }
}

/// A TPM and a person's home on it.
struct Desk {
    passhold: Passhold,
    // Dropped after the programs that use it.
    _tpm: TestTpm,
}

impl Desk {
    fn empty() -> Self {
        let tpm = TestTpm::start().unwrap();
        Self { passhold: Passhold::new(&tpm.tcti()), _tpm: tpm }
    }

    fn with_accounts(users: &[&str]) -> Self {
        let tpm = TestTpm::start().unwrap();
        let passhold = Passhold::with_vault(&tpm);
        for user in users {
            let enroll = passhold.call(["enroll", "--origin", ORIGIN]).pin(PIN);
            enroll.stdin(creation_options("example.org", user, "none")).run().expect_code(0);
        }
        Self { passhold, _tpm: tpm }
    }

    /// Options from a file, PIN from the terminal.
    fn sign(&self) -> Call {
        self.passhold.call(["sign", "--origin", ORIGIN]).options(&request_options("example.org"))
    }

    fn signed(&self) -> Value {
        serde_json::from_slice(&std::fs::read(self.passhold.home().join("signed.json")).unwrap()).unwrap()
    }

    fn tries_left(&self) -> u64 {
        let run = self.passhold.call(["status", "--json"]).run().expect_code(0);
        run.json()["triesLeft"].as_u64().unwrap()
    }
}
