//! The person's rules for new passkeys, on every way in.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::pedantic
)]

mod platform;

use std::fs;

use platform::site::{Refusal, Site, status};
use serde_json::{Value, json};
use swtpm_tests::{Call, Desk, PIN, Scene, creation_options, pin, request_options, rng};
use vault_core::{
    CeremonyError, RuleAction, Rules, Vault,
    container::{self, Deed, Settings},
    webauthn::{CreateRequest, Origin, RpId, UserPresent},
};

const WRONG: &str = "999888777x";

fn add(desk: &Desk, action: &str, glob: &str) -> Call {
    desk.with_pin(["rules", "add", action, glob])
}

fn rules(desk: &Desk) -> Vec<String> {
    let rules = desk.json(&["rules"]);
    let text =
        |rule: &Value| format!("{} {}", rule["action"].as_str().unwrap(), rule["glob"].as_str().unwrap());
    rules.as_array().unwrap().iter().map(text).collect()
}

fn users(desk: &Desk) -> Vec<String> {
    let list = desk.json(&["list"]);
    list.as_array().unwrap().iter().map(|a| a["userName"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn what_is_no_rule_or_has_no_pin_changes_nothing() {
    for desk in Desk::both() {
        add(&desk, "never", "*.example.org").run().expect_code(0);
        let before = rules(&desk);
        for args in [&["rules", "add", "ask", "*"][..], &["rules", "remove", "*.example.org"]] {
            desk.call(args).pin(WRONG).run().expect_code(5);
            desk.call(args).run().expect_code(15);
        }
        let long = "x".repeat(256);
        let says = "is no glob for relying party IDs\nGive a relying party ID such as example.org, or";
        for (glob, says) in [
            ("", says),
            ("https://example.org", says),
            ("[", says),
            ("\u{1b}[2J", says),
            (&long, "a glob has at most 255 bytes\n"),
        ] {
            // Before the PIN is asked for: none is given.
            let run = desk.call(["rules", "add", "never", glob]).run().expect_code(2);
            assert!(run.stderr.contains(says) && !run.stderr.contains('\u{1b}'), "{}", run.stderr);
        }
        let run = desk.call(["rules", "remove", "*"]).run().expect_code(2);
        assert!(
            run.stderr.contains("there is no rule for \"*\"\n\"passhold rules\" lists them."),
            "{}",
            run.stderr
        );
        desk.call(["rules", "add", "always", "*"]).run().expect_code(2);
        assert_eq!(rules(&desk), before);
        // None of it was held against anybody: two wrong PINs are all there were.
        assert_eq!(desk.json(&["status"])["triesLeft"], 6);
    }
}

#[test]
fn there_is_a_last_rule_and_the_settings_of_a_full_vault_are_read_again() {
    let desk = Desk::direct();
    let mut keys = desk.tpm().key_store();
    let mut rules = Rules::default();
    for n in 0..Rules::MOST {
        rules.add(RuleAction::Never, &format!("{n:02}{}", "x".repeat(Rules::LONGEST - 2))).unwrap();
    }
    let full = Settings {
        min_pin_length_rp_ids: vec![RpId::vouched_for("y".repeat(255)).unwrap(); Settings::MAX_RP_IDS],
        large_blobs: vec![0xff; Settings::MAX_LARGE_BLOBS],
        rules,
        ..Settings::default()
    };
    let dir = desk.passhold.vault();
    let mut vault = Vault::open(&dir, &mut keys).unwrap();
    vault.unlock(&pin(PIN)).unwrap().configure(&full, &mut rng()).unwrap();
    drop(vault);
    let run = add(&desk, "ask", "one.more").run().expect_code(2);
    let says = "a vault has at most 50 rules\n\"passhold rules remove GLOB\" makes room.";
    assert!(run.stderr.contains(says), "{}", run.stderr);
    assert_eq!(Vault::open(&dir, &mut keys).unwrap().settings().unwrap(), full);
}

#[test]
fn never_is_refused_before_anything_is_asked_or_looked_up() {
    for desk in Desk::both() {
        let known = desk.enroll("login.example.org", "alice").run().expect_code(0).json()["id"].clone();
        let run = add(&desk, "never", "*.Example.ORG").run().expect_code(0);
        assert_eq!(
            run.stdout,
            "The rule \"never *.example.org\" holds from now on; passkeys that are there stay.\n"
        );
        // Neither a wrong PIN nor one that is there already is spoken of.
        let mut said = Vec::new();
        for excluded in [json!([]), json!([{"type": "public-key", "id": known}])] {
            for (user, more) in [("alice", "--replace"), ("alice", "--another"), ("bob", "--another")] {
                let mut options: Value =
                    serde_json::from_str(&creation_options("login.example.org", user, "none")).unwrap();
                options["excludeCredentials"] = excluded.clone();
                let call = desk.call(["enroll", "--origin", "https://login.example.org", more]).pin(WRONG);
                said.push(call.stdin(options.to_string()).run().expect_code(22).stderr);
            }
        }
        said.dedup();
        let once = "passhold: the rule \"never *.example.org\" refuses this passkey\n\
                    Nothing was made. \"passhold rules\" lists the rules, \"passhold rules remove GLOB\" takes one away.\n";
        assert_eq!(said, [once]);
        assert_eq!(desk.json(&["status"])["triesLeft"], 8);

        // What the rule does not name, and what is there.
        desk.enroll("example.org", "alice").run().expect_code(0);
        let sign = desk.with_pin(["sign", "--origin", "https://login.example.org"]);
        sign.stdin(request_options("login.example.org")).run().expect_code(0);
        desk.with_pin(["delete", "1"]).run().expect_code(0);
        desk.with_pin(["undelete", "1"]).run().expect_code(0);

        let removed = desk.with_pin(["rules", "remove", "*.EXAMPLE.org"]).run().expect_code(0);
        assert_eq!(removed.stdout, "The rule \"never *.example.org\" is gone.\n");
        desk.enroll("login.example.org", "bob").run().expect_code(0);
        assert_eq!(users(&desk), ["alice", "alice", "bob"]);
    }
}

#[test]
fn ask_asks_whoever_is_there_and_refuses_where_nobody_is() {
    for desk in Desk::both() {
        add(&desk, "ask", "example.*").run().expect_code(0);
        let refused = desk.enroll("example.org", "alice").arg("--another").run().expect_code(22);
        let says = "the rule \"ask example.*\" wants somebody asked, and nobody is there\nNothing was made.";
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
        let options = desk.passhold.home().join("options.json");
        fs::write(&options, creation_options("example.org", "alice", "none")).unwrap();
        for (answer, code) in [("no", 15), ("", 15), ("y\u{1b}es", 15), ("yes", 0)] {
            let call = desk.call(["enroll", "--origin", "https://example.org", "--options"]).arg(&options);
            let mut terminal = call.redirect(">made.json").on_terminal();
            terminal.wait_for(
                "Your rule \"ask example.*\" asks: make a passkey for alice at example.org (yes, no)? ",
            );
            terminal.type_line(answer);
            if code == 0 {
                terminal.wait_for("PIN: ");
                terminal.type_hidden(PIN);
            }
            assert_eq!(terminal.wait().code(), Some(code), "{answer}");
        }
        assert_eq!(users(&desk), ["alice"]);
        // The more restrictive rule counts, whichever is newer.
        add(&desk, "never", "*").run().expect_code(0);
        add(&desk, "ask", "example.org").run().expect_code(0);
        assert_eq!(rules(&desk), ["ask example.*", "never *", "ask example.org"]);
        let refused = desk.enroll("example.org", "bob").run().expect_code(22);
        assert!(refused.stderr.contains("\"never *\" refuses"), "{}", refused.stderr);
    }
}

#[test]
fn the_device_keeps_the_terminals_rules_at_once() {
    let desk = Desk::served();
    let site = Site::connect(desk.device.as_ref().unwrap());
    let made = site.make(None, "alice").unwrap();
    add(&desk, "never", "*").run().expect_code(0);
    let refused = site.make(None, "bob").unwrap_err();
    assert!(matches!(refused, Refusal::Status(status::OPERATION_DENIED)), "{refused:?}");
    assert_eq!(users(&desk), ["alice"]);
    // Signing in is no matter of rules.
    site.sign_in(None, &made).unwrap();
    desk.with_pin(["rules", "remove", "*"]).run().expect_code(0);
    site.make(None, "bob").unwrap();
    assert_eq!(users(&desk), ["alice", "bob"]);
}

/// Whoever gets past the command line and the device meets the vault.
#[test]
fn the_vault_itself_makes_nothing_that_is_never_to_be() {
    let scene = Scene::with_vault();
    let mut keys = scene.tpm.key_store();
    let mut vault = scene.open(&mut keys).unwrap();
    let mut settings = vault.settings().unwrap();
    settings.rules.add(RuleAction::Never, "example.org").unwrap();
    vault.unlock(&pin(PIN)).unwrap().configure(&settings, &mut rng()).unwrap();
    let origin = Origin::parse("https://example.org").unwrap();
    let request =
        CreateRequest::from_json(&creation_options("example.org", "alice", "none"), origin).unwrap();
    let unlocked = vault.unlock(&pin(PIN)).unwrap();
    let refused = unlocked.enroll(&request, None, UserPresent::confirmed(), 0, &mut rng()).unwrap_err();
    assert!(matches!(&refused, CeremonyError::ByRule(rule) if rule.glob == "example.org"), "{refused:?}");
    assert_eq!(vault.accounts().unwrap(), []);
    let (_, last) = vault.log().unwrap().entries.pop().unwrap();
    let last = last.unwrap();
    assert_eq!((last.deed, last.refusal), (Deed::Enrol, Some(container::Refusal::Rule)));
    assert_eq!(last.subject.unwrap().rp_id, "example.org");
}

#[test]
fn a_copy_from_before_a_rule_is_an_old_copy() {
    let desk = Desk::direct();
    let file = desk.passhold.vault().join("vault.db");
    let before = fs::read(&file).unwrap();
    add(&desk, "never", "*").run().expect_code(0);
    fs::write(&file, before).unwrap();
    desk.enroll("example.org", "alice").run().expect_code(11);
}

/// Nobody who reads the file learns which sites a person avoids.
#[test]
fn rules_are_sealed() {
    let desk = Desk::direct();
    add(&desk, "never", "secret.example").run().expect_code(0);
    let file = fs::read(desk.passhold.vault().join("vault.db")).unwrap();
    assert!(!file.windows(6).any(|part| part == b"secret"));
    let mut keys = desk.tpm().key_store();
    let vault = Vault::open(&desk.passhold.vault(), &mut keys).unwrap();
    assert_eq!(vault.settings().unwrap().rules.all()[0].glob, "secret.example");
}
