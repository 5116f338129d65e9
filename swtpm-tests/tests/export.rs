//! What leaves the machine: the passkeys' names and numbers, in one file that is whole, and never a key.
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
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::{Value, json};
use swtpm_tests::{Desk, PIN, creation_options, pin, request_options, rng};
use vault_core::{
    Vault,
    container::Container,
    keystore::{KeyStore, Then},
    pin::PinSecrets,
    webauthn::{RpId, UserHandle},
};

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
    names.retain(|name| !name.starts_with("input-"));
    names.sort();
    names
}

#[test]
fn nothing_is_written_without_the_pin_or_in_place_of_what_is_there() {
    for desk in Desk::both() {
        desk.enroll("example.org", "alice").run().expect_code(0);
        let home = desk.passhold.home();
        let before = names(home);
        let wrong = desk.call(["export", "--output", "a.json"]).pin("999888777x").run().expect_code(5);
        assert_eq!((names(home), wrong.stdout), (before.clone(), String::new()));
        desk.call(["export"]).run().expect_code(15);

        let there = home.join("there.json");
        fs::write(&there, "mine").unwrap();
        symlink("nowhere", home.join("link")).unwrap();
        symlink(&there, home.join("link to it")).unwrap();
        fs::create_dir(home.join("folder")).unwrap();
        let before = names(home);
        for (name, force, says) in [
            ("there.json", false, "is there already"),
            ("link", false, "is there already"),
            ("folder", false, "is there already"),
            ("/dev/null", false, "is there already"),
            ("link", true, "is no file that could be replaced"),
            ("link to it", true, "is no file that could be replaced"),
            ("folder", true, "is no file that could be replaced"),
            ("/dev/null", true, "is no file that could be replaced"),
        ] {
            // Refused before the PIN is asked for: none is given.
            let call = desk.call(["export", "--output", name]);
            let run = if force { call.arg("--force") } else { call }.run().expect_code(2);
            assert!(run.stderr.contains(&format!("{name} {says}\nNothing was written. ")), "{}", run.stderr);
            assert_eq!(
                (names(home), fs::read(&there).unwrap()),
                (before.clone(), b"mine".to_vec()),
                "{name}"
            );
        }
        let nowhere = desk.with_pin(["export", "--output", "no/such/folder.json"]).run().expect_code(1);
        assert!(nowhere.stderr.contains("cannot write no/such/folder.json"), "{}", nowhere.stderr);
        assert_eq!(names(home), before);
    }
}

#[test]
fn a_file_that_appears_meanwhile_is_left_alone() {
    for desk in Desk::both() {
        let file = desk.passhold.home().join("e.json");
        let mut terminal = desk.call(["export", "--output", "e.json"]).on_terminal();
        terminal.wait_for("PIN: ");
        fs::write(&file, "theirs").unwrap();
        let before = names(desk.passhold.home());
        terminal.type_hidden(PIN);
        assert_eq!(terminal.wait().code(), Some(2));
        assert_eq!((fs::read(&file).unwrap(), names(desk.passhold.home())), (b"theirs".to_vec(), before));
    }
}

#[test]
fn where_the_disk_fails_what_was_there_stays_and_no_half_of_a_file() {
    for desk in Desk::both() {
        desk.enroll("example.org", "alice").run().expect_code(0);
        let (home, file) = (desk.passhold.home(), desk.passhold.home().join("e.json"));
        let export = |strace: &str| {
            let export = desk.with_pin(["export", "--force", "--output", "e.json"]);
            export.under(&format!("strace -y -o trace -e trace=openat,write,fsync,renameat2 {strace}")).run()
        };
        export("").expect_code(0);
        fs::write(&file, "before").unwrap();
        let (before, trace) = (names(home), fs::read_to_string(home.join("trace")).unwrap());
        for (name, error) in
            [("openat", "EROFS"), ("write", "ENOSPC"), ("fsync", "EIO"), ("renameat2", "EIO")]
        {
            let mut calls = trace.lines().filter(|line| line.starts_with(&format!("{name}(")));
            let at = 1 + calls.position(|line| line.contains(".passhold-")).unwrap();
            let run = export(&format!("-e inject={name}:error={error}:when={at}")).expect_code(1);
            assert!(run.stderr.contains("cannot write e.json"), "{name}: {}", run.stderr);
            assert_eq!((run.stdout.as_str(), fs::read(&file).unwrap()), ("", b"before".to_vec()), "{name}");
            assert_eq!(names(home), before, "{name}");
        }
    }
}

#[test]
fn it_says_what_each_passkey_is_those_in_the_bin_too() {
    for desk in Desk::both() {
        for user in ["alice", "bob"] {
            desk.enroll("example.org", user).run().expect_code(0);
        }
        desk.call(["rename", "2", "work"]).run().expect_code(0);
        let sign = desk.with_pin(["sign", "--origin", "https://example.org", "--account", "2"]);
        sign.stdin(request_options("example.org")).run().expect_code(0);
        desk.with_pin(["delete", "1"]).run().expect_code(0);

        let run = desk.with_pin(["export", "--output", "e.json"]).run().expect_code(0);
        assert_eq!(run.stdout, "Described 2 passkeys in e.json. No key is in it.\n");
        let file = desk.passhold.home().join("e.json");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o7777, 0o600);
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.ends_with('\n') && text.lines().count() == 1);
        let export: Value = serde_json::from_str(&text).unwrap();
        let (alice, bob) = (&desk.json(&["list", "--bin"])[0], &desk.json(&["list"])[0]);
        let entry = |id: i64, user: &str, listed: &Value, used: &Value| {
            json!({
                "id": id, "rpId": "example.org", "rpName": "Example", "userName": user, "displayName": user,
                "name": listed["name"], "userHandle": Base64UrlUnpadded::encode_string(user.as_bytes()),
                "credentialId": listed["credentialId"], "takes": "pin", "created": listed["created"],
                "lastUsed": used, "neverUsed": used.is_null(), "binned": listed["binned"],
            })
        };
        let mut keys = desk.tpm().key_store();
        let vault = Vault::open(&desk.passhold.vault(), &mut keys).unwrap().id();
        let hex: String = vault.iter().map(|byte| format!("{byte:02x}")).collect();
        let expected = json!({
            "passhold": "export",
            "version": 1,
            "note": "No key is in here, and none can leave its TPM. This tells what to enroll again elsewhere.",
            "vault": hex,
            "aaguid": "629a1789-0354-4613-a1bc-14b825aa2162",
            "exported": export["exported"],
            "accounts": [entry(1, "alice", alice, &Value::Null), entry(2, "bob", bob, &bob["lastUsed"])],
        });
        assert_eq!(export, expected);
        assert!(alice["binned"].is_u64() && bob["lastUsed"].is_u64() && bob["name"] == "work");
        assert!(export["exported"].as_u64() >= bob["lastUsed"].as_u64());

        // Replaced when that is asked for, and to be read by scripts.
        let run = desk.with_pin(["export", "--force", "--json", "--output", "e.json"]).run().expect_code(0);
        assert_eq!(run.json(), json!({"exported": "e.json", "accounts": 2}));
        let piped = desk.with_pin(["export"]).run().expect_code(0).json();
        assert_eq!(piped["accounts"], export["accounts"]);
        // Nothing leaves unseen.
        let log = desk.json(&["log"]);
        assert_eq!(log.as_array().unwrap().iter().filter(|entry| entry["deed"] == "export").count(), 3);
    }
}

#[test]
fn no_key_is_in_it() {
    let desk = Desk::direct();
    desk.enroll("example.org", "alice").run().expect_code(0);
    let text = desk.with_pin(["export"]).run().expect_code(0).stdout;
    let mut keys = desk.tpm().key_store();
    let vault = Vault::open(&desk.passhold.vault(), &mut keys).unwrap();
    let (_, account) = vault.accounts().unwrap().remove(0);
    for key in [account.key.0, account.public_key] {
        assert!(key.len() > 32);
        // Wherever it begins, and in whichever encoding.
        for part in key.windows(9) {
            let hex: String = part.iter().map(|byte| format!("{byte:02x}")).collect();
            assert!(!text.contains(&Base64UrlUnpadded::encode_string(part)) && !text.contains(&hex));
        }
    }
}

#[test]
fn names_that_sites_gave_command_no_terminal_and_come_back_as_they_were() {
    for desk in Desk::both() {
        let name = "al\u{1b}[2J\u{9b}31m\u{202e}ice\u{7f}\n";
        let call = desk.with_pin(["enroll", "--origin", "https://example.org"]);
        call.stdin(creation_options("example.org", name, "none")).run().expect_code(0);
        let run = desk.with_pin(["export"]).run().expect_code(0);
        assert!(
            !run.stdout.trim_end().contains(|c: char| c.is_control() || c == '\u{202e}'),
            "{:?}",
            run.stdout
        );
        assert_eq!(run.json()["accounts"][0]["userName"], name);
    }
}

/// More than go into one message of the daemon's, each as long as can be.
#[test]
fn hundreds_of_passkeys_are_exported_one_and_all() {
    for desk in Desk::both() {
        desk.enroll("example.org", "alice").run().expect_code(0);
        let mut keys = desk.tpm().key_store();
        let anchor = Container::open(&desk.passhold.vault()).unwrap().anchor().unwrap();
        let key = keys.container_key(&anchor).unwrap();
        let mut store = Container::open(&desk.passhold.vault()).unwrap().unseal(&key).unwrap();
        let (_, mut account) = store.accounts().unwrap().remove(0);
        let long = "\u{1f511}".repeat(64);
        account.rp_id = RpId::vouched_for("x".repeat(255)).unwrap();
        account.user_handle = UserHandle::new(vec![7; 64]).unwrap();
        (account.rp_name, account.user_name, account.display_name) =
            (long.clone(), long.clone(), long.clone());
        account.label = Some(long);
        for _ in 1..300 {
            store.insert(&account, &mut rng()).unwrap();
        }
        let secrets = PinSecrets::derive(&pin(PIN), store.vault_id());
        keys.unlock(&anchor, &secrets).unwrap().commit_generation(store.generation(), Then::End).unwrap();
        keys.release();
        drop(store);
        let export = desk.with_pin(["export"]).run().expect_code(0).json();
        let ids: Vec<_> =
            export["accounts"].as_array().unwrap().iter().map(|a| a["id"].as_u64().unwrap()).collect();
        assert_eq!(ids, (1..=300).collect::<Vec<_>>());
    }
}
