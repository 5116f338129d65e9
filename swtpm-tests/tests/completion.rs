//! What a shell offers after TAB.
#![allow(clippy::unwrap_used, clippy::panic, clippy::pedantic)]

use std::{
    fs::File,
    time::{Duration, Instant},
};

use swtpm_tests::{PIN, Passhold, TestTpm, creation_options};

const ORIGIN: &str = "https://example.org";

#[test]
fn a_shell_offers_the_numbers_of_passkeys_with_their_names() {
    let (passhold, _tpm) = desk();
    passhold.call(["rename", "2", "my \u{1b}[31mkey"]).pin(PIN).run().expect_code(0);
    let both = "1\talice at example.org\n2\tmy \u{fffd}[31mkey at example.org\n";
    for words in [vec!["show"], vec!["rename"], vec!["delete"], vec!["sign", "--account"]] {
        assert_eq!(offered(&passhold, &[&words[..], &[""]].concat()), both, "{words:?}");
    }
    assert_eq!(offered(&passhold, &["show", "2"]), both.lines().nth(1).unwrap().to_owned() + "\n");
    assert_eq!(offered(&passhold, &["rename", "2", ""]), "");
    passhold.call(["delete", "1"]).pin(PIN).run().expect_code(0);
    assert_eq!(offered(&passhold, &["undelete", ""]), "1\talice at example.org\n");
    assert_eq!(offered(&passhold, &["show", ""]), both.lines().nth(1).unwrap().to_owned() + "\n");
}

#[test]
fn of_a_vault_that_is_busy_or_missing_it_offers_nothing_and_says_nothing() {
    let (mut passhold, _tpm) = desk();
    let lock = File::open(passhold.vault().join("lock")).unwrap();
    lock.lock().unwrap();
    let started = Instant::now();
    assert_eq!(offered(&passhold, &["show", ""]), "");
    assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
    lock.unlock().unwrap();
    passhold.set_tpm("device:/dev/no-tpm");
    assert_eq!(offered(&passhold, &["show", ""]), "");
}

fn desk() -> (Passhold, TestTpm) {
    let tpm = TestTpm::start().unwrap();
    let passhold = Passhold::with_vault(&tpm);
    for user in ["alice", "bob"] {
        let options = creation_options("example.org", user, "none");
        passhold.call(["enroll", "--origin", ORIGIN]).options(&options).pin(PIN).run().expect_code(0);
    }
    (passhold, tpm)
}

/// Lines of a word and what it means, as fish takes them; the words that are options are left out.
fn offered(passhold: &Passhold, words: &[&str]) -> String {
    let vault = passhold.vault();
    let call = passhold.bare(["--", "passhold", "--tpm", passhold.tpm(), "--vault", vault.to_str().unwrap()]);
    let call = words.iter().fold(call, |call, word| call.arg(word));
    let run = call.env("COMPLETE", "fish").run().expect_code(0);
    assert_eq!(run.stderr, "");
    let words = run.stdout.lines().filter(|line| !line.starts_with("--"));
    words.map(|line| format!("{line}\n")).collect()
}
