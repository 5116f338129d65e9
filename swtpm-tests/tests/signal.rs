//! What a site signals of its passkeys: tidied, and nothing ever destroyed.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::pedantic
)]

use std::fs;

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::{Value, json};
use swtpm_tests::{Call, Desk, PIN, pin, rng};
use vault_core::{Vault, VaultError, container::AccountId};

const WRONG: &str = "999888777x";

/// Two of alice's and one of bob's at one site, and one of alice's at another: numbers 1 to 4.
fn desks() -> [Desk; 2] {
    let desks = Desk::both();
    for desk in &desks {
        for (rp_id, user) in [
            ("example.org", "alice"),
            ("example.org", "alice"),
            ("example.org", "bob"),
            ("example.net", "alice"),
        ] {
            desk.enroll(rp_id, user).arg("--another").run().expect_code(0);
        }
    }
    desks
}

fn signal(desk: &Desk, json: &Value) -> Call {
    desk.with_pin(["signal", "-"]).stdin(json.to_string())
}

fn credential(desk: &Desk, id: u64) -> Value {
    let both = [desk.json(&["list"]), desk.json(&["list", "--bin"])];
    let mut all = both.iter().flat_map(|list| list.as_array().unwrap());
    all.find(|a| a["id"] == id).unwrap()["credentialId"].clone()
}

/// The numbers of those that can be used, and of those in the bin.
fn places(desk: &Desk) -> [Vec<u64>; 2] {
    [&["list"][..], &["list", "--bin"]].map(|args| {
        let list = desk.json(args);
        list.as_array().unwrap().iter().map(|a| a["id"].as_u64().unwrap()).collect()
    })
}

fn user(name: &str) -> String {
    Base64UrlUnpadded::encode_string(name.as_bytes())
}

fn accepted(desk: &Desk, rp_id: &str, name: &str, ids: &[u64]) -> Value {
    let ids: Vec<_> = ids.iter().map(|id| credential(desk, *id)).collect();
    json!({"rpId": rp_id, "userId": user(name), "allAcceptedCredentialIds": ids})
}

fn details(rp_id: &str, id: &str, name: &str, display_name: &str) -> Value {
    json!({"rpId": rp_id, "userId": user(id), "name": name, "displayName": display_name})
}

#[test]
fn what_is_no_signal_is_refused_before_the_pin_and_changes_nothing() {
    for desk in desks() {
        let before = [desk.json(&["list"]), desk.json(&["list", "--bin"])];
        let known = credential(&desk, 1);
        let (rp, id) = ("example.org", user("alice"));
        let deep = "[".repeat(100_000);
        let json = "the signal is not JSON as WebAuthn has it: ";
        let none = "it is none of WebAuthn's three signals\n";
        for (text, says) in [
            (String::new(), json),
            ("null".to_owned(), json),
            ("[]".to_owned(), json),
            (deep, json),
            (json!({"credentialId": known}).to_string(), json),
            (json!({"rpId": 7, "credentialId": known}).to_string(), json),
            (json!({"rpId": rp, "credentialId": [known]}).to_string(), json),
            (format!(r#"{{"rpId": "{rp}", "rpId": "{rp}", "credentialId": {known}}}"#), json),
            (json!({"rpId": rp, "credentialId": known}).to_string() + "x", json),
            (json!({"rpId": rp, "userId": id, "allAcceptedCredentialIds": known}).to_string(), json),
            (json!({"rpId": rp}).to_string(), none),
            (json!({"rpId": rp, "userId": id}).to_string(), none),
            (json!({"rpId": rp, "userId": id, "name": "x"}).to_string(), none),
            (json!({"rpId": rp, "credentialId": known, "userId": id}).to_string(), none),
            (json!({"rpId": rp, "allAcceptedCredentialIds": []}).to_string(), none),
            (
                json!({"rpId": rp, "userId": id, "allAcceptedCredentialIds": [], "name": "x", "displayName": "x"})
                    .to_string(),
                none,
            ),
            (json!({"rpId": "", "credentialId": known}).to_string(), "rpId is malformed\n"),
            (json!({"rpId": "a\u{1b}[2J", "credentialId": known}).to_string(), "rpId is malformed\n"),
            (json!({"rpId": rp, "credentialId": "+/=="}).to_string(), "credentialId is malformed\n"),
            (json!({"rpId": rp, "userId": "", "allAcceptedCredentialIds": []}).to_string(), "userId is malformed\n"),
            (details(rp, &"x".repeat(65), "x", "x").to_string(), "userId is malformed\n"),
            (
                json!({"rpId": rp, "userId": id, "allAcceptedCredentialIds": [known, "!"]}).to_string(),
                "allAcceptedCredentialIds is malformed\n",
            ),
            ("x".repeat((1 << 20) + 1), "what the relying party sent is longer than 1 MiB\n"),
        ] {
            // No PIN is given, and none is missed.
            let run = desk.call(["signal", "-"]).stdin(&text).run().expect_code(3);
            let said = run.stderr.strip_prefix("passhold: ").unwrap();
            assert!(said.starts_with(says) && said.lines().count() == 2, "{text:.80}: {said}");
            assert!(!said.contains('\u{1b}'));
        }
        desk.call(["signal", "missing.json"]).run().expect_code(1);
        let unknown = json!({"rpId": rp, "credentialId": known});
        signal(&desk, &unknown).pin(WRONG).run().expect_code(2);
        desk.call(["signal", "-"]).pin(WRONG).stdin(unknown.to_string()).run().expect_code(5);
        desk.call(["signal", "-"]).stdin(unknown.to_string()).run().expect_code(15);
        let renamed = details(rp, "alice", "mallory", "Mallory");
        let nobody = signal(&desk, &renamed).run().expect_code(15);
        assert!(nobody.stderr.contains("\nRun this in a terminal"), "{}", nobody.stderr);
        assert_eq!([desk.json(&["list"]), desk.json(&["list", "--bin"])], before);
    }
}

#[test]
fn a_signal_for_another_site_or_account_or_passkey_does_nothing() {
    for desk in desks() {
        let known = credential(&desk, 1);
        for json in [
            json!({"rpId": "example.net", "credentialId": known}),
            json!({"rpId": "Example.org", "credentialId": known}),
            json!({"rpId": "example.org", "credentialId": user("another")}),
            accepted(&desk, "example.org", "alice", &[1, 2]),
            accepted(&desk, "example.org", "carol", &[]),
            accepted(&desk, "sub.example.org", "alice", &[]),
            details("example.org", "alice", "alice", "alice"),
            details("example.org", "carol", "x", "x"),
        ] {
            // Nobody is asked for the PIN.
            let run = desk.call(["signal", "-"]).stdin(json.to_string()).run().expect_code(0);
            assert_eq!(
                (run.stdout.as_str(), run.stderr.as_str()),
                ("There is nothing to do.\n", ""),
                "{json}"
            );
        }
        assert_eq!(places(&desk), [vec![1, 2, 3, 4], vec![]]);
    }
}

#[test]
fn an_unknown_credential_goes_to_the_bin_and_can_be_taken_out() {
    for desk in desks() {
        let unknown = json!({"rpId": "example.org", "credentialId": credential(&desk, 2), "more": 1});
        let run = signal(&desk, &unknown).run().expect_code(0);
        assert_eq!(run.stdout, "Done.\n");
        let says = "passhold: go on only if this is from example.org: a file does not show who sent it\n\
                    passhold: 2: alice goes to the bin\n";
        assert_eq!(run.stderr, says);
        assert_eq!(places(&desk), [vec![1, 3, 4], vec![2]]);
        let again = signal(&desk, &unknown).run().expect_code(0);
        assert_eq!(again.stdout, "There is nothing to do.\n");
        desk.with_pin(["undelete", "2"]).run().expect_code(0);
        let json = signal(&desk, &unknown).arg("--json").run().expect_code(0).json();
        assert_eq!(json, json!({"toBin": [2], "fromBin": [], "renamed": []}));
    }
}

#[test]
fn what_an_account_takes_comes_out_of_the_bin_and_all_else_of_it_goes_there_at_once() {
    for desk in desks() {
        desk.with_pin(["delete", "1"]).run().expect_code(0);
        desk.with_pin(["delete", "3"]).run().expect_code(0);
        let before = desk.with_pin(["export"]).run().expect_code(0).json();
        let run = signal(&desk, &accepted(&desk, "example.org", "alice", &[1, 3, 4])).run().expect_code(0);
        let says = "passhold: 2: alice goes to the bin\npasshold: 1: alice comes out of the bin\n";
        assert!(run.stderr.ends_with(says), "{}", run.stderr);
        // Bob's, which was deleted, is none of alice's, whatever the list says.
        assert_eq!(places(&desk), [vec![1, 4], vec![2, 3]]);
        // None at all is a list too.
        let none =
            signal(&desk, &accepted(&desk, "example.org", "alice", &[])).arg("--json").run().expect_code(0);
        assert_eq!(none.json(), json!({"toBin": [1], "fromBin": [], "renamed": []}));
        let all = signal(&desk, &accepted(&desk, "example.org", "alice", &[1, 2]))
            .arg("--json")
            .run()
            .expect_code(0);
        assert_eq!(all.json(), json!({"toBin": [], "fromBin": [1, 2], "renamed": []}));
        assert_eq!(places(&desk), [vec![1, 2, 4], vec![3]]);
        // Nothing of them was lost on the way.
        let after = desk.with_pin(["export"]).run().expect_code(0).json();
        let names = |export: &Value| {
            let list = export["accounts"].as_array().unwrap();
            list.iter()
                .map(|a| [&a["id"], &a["credentialId"], &a["userName"], &a["created"]].map(Value::clone))
                .collect::<Vec<_>>()
        };
        assert_eq!(names(&after), names(&before));
    }
}

#[test]
fn several_are_moved_all_or_none() {
    let [desk, _] = desks();
    desk.with_pin(["delete", "3"]).run().expect_code(0);
    let id = |number: u64| number.to_string().parse::<AccountId>().unwrap();
    for (to_bin, from_bin) in
        [(vec![1, 2], vec![4]), (vec![1, 3], vec![]), (vec![1, 9], vec![3]), (vec![], vec![3, 9])]
    {
        let [to_bin, from_bin] = [to_bin, from_bin].map(|ids| ids.into_iter().map(id).collect::<Vec<_>>());
        let mut keys = desk.tpm().key_store();
        let mut vault = Vault::open(&desk.passhold.vault(), &mut keys).unwrap();
        let unlocked = vault.unlock(&pin(PIN)).unwrap();
        let refused = unlocked.sort_out(&to_bin, &from_bin, 1, &mut rng()).unwrap_err();
        assert!(matches!(refused, VaultError::Container(_)), "{refused:?}");
        drop(vault);
        assert_eq!(places(&desk), [vec![1, 2, 4], vec![3]]);
    }
}

#[test]
fn an_accounts_names_are_the_sites_to_give_and_the_persons_own_stays() {
    for desk in desks() {
        desk.call(["rename", "2", "work"]).run().expect_code(0);
        let new = details("example.org", "alice", "alice\u{1b}[2J", "Alice B");
        let run = desk.call(["signal", "-", "--yes"]).stdin(new.to_string()).run().expect_code(0);
        let says = "passhold: 1: alice (alice) becomes alice\u{fffd}[2J (Alice B)\n\
                    passhold: 2: alice (alice) becomes alice\u{fffd}[2J (Alice B)\n";
        assert!(run.stderr.ends_with(says), "{:?}", run.stderr);
        let list = desk.json(&["list"]);
        let names: Vec<_> = list
            .as_array()
            .unwrap()
            .iter()
            .map(|a| json!([a["userName"], a["displayName"], a["name"]]))
            .collect();
        let new = "alice\u{1b}[2J";
        let expected = [
            json!([new, "Alice B", null]),
            json!([new, "Alice B", "work"]),
            json!(["bob", "bob", null]),
            json!(["alice", "alice", null]),
        ];
        assert_eq!(names, expected);
        // As long as names are kept, and no longer: the second time it is no news.
        let long = details("example.org", "bob", &"x".repeat(5000), "");
        let renamed =
            desk.call(["signal", "-", "--yes", "--json"]).stdin(long.to_string()).run().expect_code(0);
        assert_eq!(renamed.json(), json!({"toBin": [], "fromBin": [], "renamed": [3]}));
        let again = desk.call(["signal", "-"]).stdin(long.to_string()).run().expect_code(0);
        assert_eq!(again.stdout, "There is nothing to do.\n");
    }
}

#[test]
fn at_a_terminal_the_person_sees_what_will_be_and_decides() {
    for desk in desks() {
        let file = desk.passhold.home().join("signal.json");
        fs::write(&file, details("example.org", "bob", "robert", "Robert").to_string()).unwrap();
        for (answer, code) in [("no", 15), ("", 15), ("yes", 0)] {
            let mut terminal = desk.call(["signal", "signal.json"]).on_terminal();
            terminal.wait_for("3: bob (bob) becomes robert (Robert)");
            terminal.wait_for("Give them these names (yes, no)? ");
            terminal.type_line(answer);
            assert_eq!(terminal.wait().code(), Some(code), "{answer}");
        }
        assert_eq!(desk.json(&["show", "3"])["userName"], "robert");
        fs::write(&file, accepted(&desk, "example.org", "bob", &[]).to_string()).unwrap();
        let mut terminal = desk.call(["signal", "signal.json"]).on_terminal();
        terminal.wait_for("3: robert goes to the bin");
        terminal.wait_for("PIN: ");
        // Others may use the vault meanwhile; what was not shown is not done.
        desk.enroll("example.org", "bob").arg("--another").run().expect_code(0);
        terminal.type_hidden(PIN);
        assert_eq!(terminal.wait().code(), Some(0));
        assert_eq!(places(&desk), [vec![1, 2, 4, 5], vec![3]]);
    }
}
