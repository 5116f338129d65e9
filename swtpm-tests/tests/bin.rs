//! No passkey by accident, and none lost by one: the bin, a second passkey for an account, and those that nobody uses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::pedantic
)]

use std::{collections::BTreeMap, fs};

use serde_json::{Value, json};
use swtpm_tests::{Call, PIN, Passhold, TestTpm, creation_options, pin, request_options, rng};
use vault_core::{
    CeremonyError, UnlockError, Vault, VaultError, WantedAssertion,
    container::{AccountId, BIN_KEEPS, ContainerError},
    webauthn::{RpId, UserPresent},
};

const ORIGIN: &str = "https://example.org";

struct Desk {
    passhold: Passhold,
    // Dropped after the programs that use it.
    tpm: TestTpm,
}

impl Desk {
    fn new() -> Self {
        let tpm = TestTpm::start().unwrap();
        Self { passhold: Passhold::with_vault(&tpm), tpm }
    }

    fn enroll(&self, user: &str) -> Call {
        let call = self.passhold.call(["enroll", "--origin", ORIGIN]).pin(PIN);
        call.stdin(creation_options("example.org", user, "none"))
    }

    fn sign(&self) -> Call {
        let call = self.passhold.call(["sign", "--origin", ORIGIN]).pin(PIN);
        call.stdin(request_options("example.org"))
    }

    fn with_pin(&self, args: &[&str]) -> Call {
        self.passhold.call(args).pin(PIN)
    }

    fn json(&self, args: &[&str]) -> Value {
        self.passhold.call(args).arg("--json").run().expect_code(0).json()
    }

    fn ids(&self, args: &[&str]) -> Vec<i64> {
        self.json(args).as_array().unwrap().iter().map(|a| a["id"].as_i64().unwrap()).collect()
    }

    fn on_vault<T>(&self, work: impl FnOnce(&mut Vault<'_>) -> T) -> T {
        let mut keys = self.tpm.key_store();
        work(&mut Vault::open(&self.passhold.vault(), &mut keys).unwrap())
    }
}

fn id(number: &str) -> AccountId {
    number.parse().unwrap()
}

#[test]
fn what_is_in_the_bin_is_found_by_nobody_and_signs_nothing_until_it_is_taken_out() {
    let desk = Desk::new();
    desk.enroll("alice").run().expect_code(0);
    let credential = desk.json(&["show", "1"])["credentialId"].clone();
    desk.with_pin(&["delete", "1"]).run().expect_code(0);
    assert_eq!((desk.ids(&["list"]), desk.ids(&["list", "--bin"])), (vec![], vec![1]));
    desk.sign().run().expect_code(13);
    let named = json!({
        "rpId": "example.org",
        "challenge": "YW5vdGhlciBjaGFsbGVuZ2U",
        "allowCredentials": [{"type": "public-key", "id": credential}],
    });
    desk.sign().stdin(named.to_string()).run().expect_code(13);
    for command in
        [&["show", "1"][..], &["rename", "1", "x"], &["sign", "--origin", ORIGIN, "--account", "1"]]
    {
        let run = desk.with_pin(command).stdin(request_options("example.org")).run().expect_code(13);
        let hint = "passhold: passkey 1 is in the bin\n\"passhold undelete 1\" takes it out.\n";
        assert!(run.stderr.ends_with(hint), "{}", run.stderr);
    }
    // Past the command line.
    let refused = desk.on_vault(|vault| {
        let rp_id = RpId::vouched_for("example.org".to_owned()).unwrap();
        let extensions = &ciborium::Value::Null;
        let wanted = WantedAssertion { rp_id: &rp_id, id: id("1"), client_data: &[7; 32], extensions };
        let unlocked = vault.unlock(&pin(PIN)).unwrap();
        unlocked.get_assertion(wanted, Some(UserPresent::confirmed()), 1, &mut rng()).unwrap_err()
    });
    assert!(matches!(refused, CeremonyError::Container(ContainerError::InBin { .. })), "{refused:?}");
    // The site no longer finds it when it asks not to make another.
    let mut options: Value = serde_json::from_str(&creation_options("example.org", "alice", "none")).unwrap();
    options["excludeCredentials"] = json!([{"type": "public-key", "id": credential}]);
    desk.enroll("alice").stdin(options.to_string()).run().expect_code(0);
    desk.with_pin(&["delete", "2"]).run().expect_code(0);

    desk.with_pin(&["undelete", "1"]).run().expect_code(0);
    assert_eq!((desk.ids(&["list"]), desk.ids(&["list", "--bin"])), (vec![1], vec![2]));
    desk.sign().run().expect_code(0);
}

#[test]
fn the_bin_is_emptied_for_ever_and_what_was_deleted_comes_back_by_no_copy() {
    let desk = Desk::new();
    desk.enroll("alice").run().expect_code(0);
    desk.enroll("bob").run().expect_code(0);
    let file = desk.passhold.vault().join("vault.db");
    let copies: Vec<_> = [["delete", "1"], ["undelete", "1"], ["delete", "1"]]
        .map(|command| {
            let before = fs::read(&file).unwrap();
            desk.with_pin(&command).run().expect_code(0);
            before
        })
        .into();
    let run = desk.with_pin(&["empty-bin"]).run().expect_code(0);
    assert_eq!(run.stdout, "Gone for ever: 1 passkey.\n");
    assert_eq!(desk.ids(&["list", "--bin"]), [] as [i64; 0]);
    let gone = desk.with_pin(&["undelete", "1"]).run().expect_code(13);
    assert!(gone.stderr.contains("there is no passkey 1\n"), "{}", gone.stderr);
    let newest = fs::read(&file).unwrap();
    for copy in copies {
        fs::write(&file, copy).unwrap();
        desk.sign().arg("--account=2").run().expect_code(11);
    }
    fs::write(&file, newest).unwrap();
    desk.sign().run().expect_code(0);
    let none = desk.with_pin(&["empty-bin"]).run().expect_code(0);
    assert_eq!(none.stdout, "Gone for ever: 0 passkeys.\n");
}

#[test]
fn a_wrong_pin_moves_nothing_into_the_bin_out_of_it_or_to_nowhere() {
    let desk = Desk::new();
    desk.enroll("alice").run().expect_code(0);
    desk.enroll("bob").run().expect_code(0);
    desk.with_pin(&["delete", "2"]).run().expect_code(0);
    for command in [&["delete", "1"][..], &["undelete", "2"], &["empty-bin"]] {
        desk.passhold.call(command).pin("999888777x").run().expect_code(5);
        assert_eq!((desk.ids(&["list"]), desk.ids(&["list", "--bin"])), (vec![1], vec![2]), "{command:?}");
    }
    let live = desk.with_pin(&["undelete", "1"]).run().expect_code(13);
    assert!(live.stderr.contains("passkey 1 is not in the bin\n"), "{}", live.stderr);
}

#[test]
fn after_thirty_days_the_next_deletion_removes_it_for_good() {
    let desk = Desk::new();
    for user in ["alice", "bob", "carol"] {
        desk.enroll(user).run().expect_code(0);
    }
    let keeps = BIN_KEEPS.as_secs();
    assert_eq!(keeps, 30 * 24 * 60 * 60);
    let delete = |number: &str, now: u64| {
        desk.on_vault(|vault| vault.unlock(&pin(PIN)).unwrap().delete(id(number), now, &mut rng()).unwrap());
    };
    delete("1", 1000);
    delete("2", 1000 + keeps - 1);
    assert_eq!(desk.ids(&["list", "--bin"]), [1, 2]);
    delete("3", 1000 + keeps);
    assert_eq!(desk.ids(&["list", "--bin"]), [2, 3]);
    let gone =
        desk.on_vault(|vault| vault.unlock(&pin(PIN)).unwrap().undelete(id("1"), &mut rng()).unwrap_err());
    assert!(matches!(gone, VaultError::Container(ContainerError::NoSuchAccount { .. })), "{gone:?}");
}

#[test]
fn a_second_passkey_for_an_account_takes_a_word() {
    let desk = Desk::new();
    desk.enroll("alice").run().expect_code(0);
    let refused = desk.enroll("alice").run().expect_code(15);
    assert!(
        refused.stderr.contains("there is passkey 1 for alice at example.org already\n"),
        "{}",
        refused.stderr
    );
    assert_eq!(desk.ids(&["list"]), [1]);
    desk.enroll("alice").arg("--another").run().expect_code(0);
    assert_eq!(desk.ids(&["list"]), [1, 2]);
    let replaced = desk.enroll("alice").arg("--replace").run().expect_code(0);
    assert!(replaced.stderr.contains("passkey 2 goes to the bin for it\n"), "{}", replaced.stderr);
    assert_eq!((desk.ids(&["list"]), desk.ids(&["list", "--bin"])), (vec![1, 3], vec![2]));
    desk.enroll("bob").run().expect_code(0);
    desk.enroll("alice").arg("--replace").arg("--another").run().expect_code(2);
}

#[test]
fn at_a_terminal_the_word_is_asked_for() {
    let answers =
        BTreeMap::from([("another", vec![1, 2]), ("replace", vec![2]), ("no", vec![1]), ("", vec![1])]);
    for (answer, left) in answers {
        let desk = Desk::new();
        desk.enroll("alice").run().expect_code(0);
        let options = desk.passhold.home().join("options.json");
        fs::write(&options, creation_options("example.org", "alice", "none")).unwrap();
        let enroll = desk.passhold.call(["enroll", "--origin", ORIGIN, "--options"]).arg(&options);
        let mut terminal = enroll.redirect(">made.json").on_terminal();
        terminal.wait_for("Replace it, or make another (replace, another)? ");
        terminal.type_line(answer);
        if left != [1] {
            terminal.wait_for("PIN: ");
            terminal.type_hidden(PIN);
        }
        assert_eq!(terminal.wait().code(), Some(if left == [1] { 15 } else { 0 }), "{answer}");
        assert_eq!(desk.ids(&["list"]), left, "{answer}");
    }
}

#[test]
fn what_was_never_used_is_marked_and_what_nobody_uses_is_found() {
    let desk = Desk::new();
    desk.enroll("alice").run().expect_code(0);
    desk.enroll("bob").run().expect_code(0);
    desk.sign().arg("--account=2").run().expect_code(0);
    assert_eq!((desk.ids(&["list", "--unused"]), desk.ids(&["list", "--stale", "1"])), (vec![1], vec![]));
    assert_eq!(desk.ids(&["list", "--stale", "0"]), [1, 2]);
    let list = desk.json(&["list"]);
    assert_eq!(list[0]["lastUsed"], Value::Null);
    let used = list[1]["lastUsed"].as_u64().unwrap();
    assert!(used >= list[1]["created"].as_u64().unwrap());
    assert_eq!(desk.json(&["show", "2"])["lastUsed"], used);
    let text = desk.passhold.call(["list"]).run().expect_code(0).stdout;
    assert!(text.lines().nth(1).unwrap().ends_with("never"), "{text}");
    assert!(text.lines().nth(2).unwrap().ends_with("just now"), "{text}");
    // It outlives a deletion that is taken back.
    desk.with_pin(&["delete", "2"]).run().expect_code(0);
    desk.with_pin(&["undelete", "2"]).run().expect_code(0);
    assert_eq!(desk.json(&["show", "2"])["lastUsed"], used);
}

#[test]
fn a_refused_sign_in_is_no_use() {
    let desk = Desk::new();
    desk.enroll("alice").run().expect_code(0);
    desk.passhold
        .call(["sign", "--origin", ORIGIN])
        .stdin(request_options("example.org"))
        .pin("1234567")
        .run()
        .expect_code(5);
    assert_eq!(desk.ids(&["list", "--unused"]), [1]);
    let refused = desk.on_vault(|vault| vault.unlock(&pin("1234567")).map(drop).unwrap_err());
    assert!(matches!(refused, UnlockError::WrongPin));
}
