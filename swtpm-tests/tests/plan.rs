//! What is left to do on another machine, and what an old copy of the vault lacks, by an export that may come from anybody.
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

use serde_json::{Value, json};
use swtpm_tests::{Desk, PIN, Passhold, TestTpm};

fn export_of(desk: &Desk) -> Value {
    desk.with_pin(["export"]).run().expect_code(0).json()
}

fn write(passhold: &Passhold, export: &Value) -> PathBuf {
    let file = passhold.home().join("e.json");
    fs::write(&file, export.to_string()).unwrap();
    file
}

/// Alice at two sites, bob at one.
fn old_machine() -> Value {
    let desk = Desk::direct();
    for (rp_id, user) in [("example.org", "alice"), ("example.net", "alice"), ("example.org", "bob")] {
        desk.enroll(rp_id, user).run().expect_code(0);
    }
    desk.call(["rename", "3", "work"]).run().expect_code(0);
    export_of(&desk)
}

fn states(plan: &Value) -> Vec<&str> {
    plan.as_array().unwrap().iter().map(|step| step["state"].as_str().unwrap()).collect()
}

#[test]
fn what_is_no_export_is_refused_with_a_next_step() {
    let export = old_machine();
    let edited = |edit: &dyn Fn(&mut Value)| {
        let mut export = export.clone();
        edit(&mut export);
        export.to_string().into_bytes()
    };
    let without =
        |name: &str| edited(&|export: &mut Value| drop(export.as_object_mut().unwrap().remove(name)));
    let deep = [b"{\"passhold\":\"export\",\"version\":1,\"x\":".to_vec(), vec![b'['; 100_000]].concat();
    let (no, half) = ("is no export\n", "is no whole export: ");
    let cases = [
        (Vec::new(), no),
        (b"null".to_vec(), no),
        (b"\xff\xfe".to_vec(), no),
        (b"[{}]".to_vec(), no),
        (deep, no),
        (export.to_string().into_bytes()[..200].to_vec(), no),
        ([export.to_string().as_bytes(), b"x"].concat(), no),
        (without("passhold"), no),
        (without("version"), no),
        (edited(&|export| export["passhold"] = json!("backup")), no),
        (edited(&|export| export["version"] = json!(-1)), no),
        (
            edited(&|export| export["version"] = json!(2)),
            "has version 2; this Passhold knows 1\nUse the Passhold that",
        ),
        (without("accounts"), half),
        (edited(&|export| export["accounts"][1]["rpId"] = json!(null)), half),
        (edited(&|export| export["accounts"][1]["rpId"] = json!(["example.org"])), half),
        (edited(&|export| export["accounts"][1]["created"] = json!(-1)), half),
        (edited(&|export| export["accounts"][1]["takes"] = json!("nothing\u{1b}[2J")), half),
        (edited(&|export| export["accounts"] = json!({})), half),
        (vec![b' '; (64 << 20) + 1], "is longer than 64 MiB\n"),
    ];
    for desk in Desk::both() {
        let file = desk.passhold.home().join("e.json");
        for (text, says) in &cases {
            fs::write(&file, text).unwrap();
            for args in [&["plan", "e.json"][..], &["restore", "accept", "--export", "e.json"]] {
                // Before the PIN is asked for: none is given.
                let run = desk.call(args).run().expect_code(2);
                assert!(run.stderr.contains(&format!("passhold: e.json {says}")), "{}", run.stderr);
                assert!(!run.stderr.contains('\u{1b}') && run.stdout.is_empty(), "{}", run.stderr);
                assert!(run.stderr.lines().last().unwrap().ends_with('.'), "{}", run.stderr);
            }
        }
        for args in [&["plan", "missing.json"][..], &["restore", "accept", "--export", "missing.json"]] {
            let run = desk.call(args).run().expect_code(1);
            assert!(run.stderr.contains("cannot read missing.json"), "{}", run.stderr);
        }
    }
}

#[test]
fn each_passkey_is_ticked_off_when_its_account_has_one_here() {
    let export = old_machine();
    for desk in Desk::both() {
        write(&desk.passhold, &export);
        let plan = || desk.json(&["plan", "e.json"]);
        assert_eq!(states(&plan()), ["missing"; 3]);
        let credential = &export["accounts"][2]["credentialId"];
        let expected = json!({
            "rpId": "example.org", "site": "https://example.org", "userName": "bob", "name": "work",
            "userHandle": "Ym9i", "credentialId": credential, "created": export["accounts"][2]["created"],
            "state": "missing",
        });
        assert_eq!(plan()[2], expected);
        let text = desk.call(["plan", "e.json"]).run().expect_code(0).stdout;
        assert!(text.starts_with(
            "3 passkeys: 3 to enroll, 0 enrolled again, 0 still here.\n[ ] alice at example.org, made 2"
        ));
        let how = "    sign in at https://example.org as bob, by other means; enroll a new one; delete the old one there\n";
        assert!(text.ends_with(how), "{text}");

        // Another account at the site, and the same one at another site, are others.
        desk.enroll("example.org", "carol").run().expect_code(0);
        assert_eq!(states(&plan()), ["missing"; 3]);
        desk.enroll("example.org", "alice").run().expect_code(0);
        assert_eq!(states(&plan()), ["again", "missing", "missing"]);
        desk.enroll("example.net", "alice").run().expect_code(0);
        desk.enroll("example.org", "bob").run().expect_code(0);
        let text = desk.call(["plan", "e.json"]).run().expect_code(0).stdout;
        assert!(
            text.starts_with("3 passkeys: 0 to enroll, 3 enrolled again, 0 still here.\n[x] alice at"),
            "{text}"
        );
        assert_eq!(
            text.matches(": enrolled again; delete the old one there, if it is not done yet\n").count(),
            3
        );
        // One that is deleted is to be made again.
        desk.with_pin(["delete", "2"]).run().expect_code(0);
        assert_eq!(states(&plan()), ["missing", "again", "again"]);
    }
}

#[test]
fn on_its_own_machine_all_is_still_here_and_what_was_in_the_bin_is_nobodys_work() {
    for desk in Desk::both() {
        desk.enroll("example.org", "alice").run().expect_code(0);
        desk.enroll("example.org", "bob").run().expect_code(0);
        desk.with_pin(["delete", "2"]).run().expect_code(0);
        write(&desk.passhold, &export_of(&desk));
        assert_eq!(states(&desk.json(&["plan", "e.json"])), ["here"]);
        let text = desk.call(["plan", "e.json"]).run().expect_code(0).stdout;
        assert!(
            text.starts_with("1 passkey: 0 to enroll, 0 enrolled again, 1 still here.\n[x] alice at"),
            "{text}"
        );
        assert!(text.ends_with(": still here\n"), "{text}");
    }
}

/// As long as no vault's keys are here, all is to be enrolled.
#[test]
fn without_a_vault_and_with_a_tpm_that_was_cleared_it_says_so_and_plans_all() {
    let export = old_machine();
    let tpm = TestTpm::start().unwrap();
    let passhold = Passhold::new(&tpm.tcti());
    write(&passhold, &export);
    let run = passhold.call(["plan", "e.json", "--json"]).run().expect_code(0);
    assert_eq!(states(&run.json()), ["missing"; 3]);
    assert!(
        run.stderr.contains("there is no vault in ") && run.stderr.contains("\"passhold setup\""),
        "{}",
        run.stderr
    );
    assert!(!passhold.vault().exists());

    passhold.call(["setup"]).pin(PIN).run().expect_code(0);
    assert!(tpm.tool("tpm2_clear", &[]).unwrap().status.success());
    let run = passhold.call(["plan", "e.json", "--json"]).run().expect_code(0);
    assert_eq!(states(&run.json()), ["missing"; 3]);
    assert!(run.stderr.contains("\"passhold wipe\" makes room"), "{}", run.stderr);
    // What could be mended is not planned around.
    passhold.call(["plan", "e.json", "--tpm", "device:/dev/not-a-tpm"]).run().expect_code(7);
    fs::write(passhold.vault().join("vault.db"), "x".repeat(5000)).unwrap();
    passhold.call(["plan", "e.json"]).run().expect_code(10);
}

#[test]
fn nothing_in_a_file_commands_a_terminal_or_passes_for_a_site() {
    let mut export = old_machine();
    let odd = "\u{1b}[2J\u{9b}31m\u{202e}\u{7}";
    let accounts = export["accounts"].as_array_mut().unwrap();
    accounts[0]["rpId"] = json!("example.org@evil.example");
    accounts[1]["rpId"] = json!(format!("evil.example/{odd}"));
    accounts[2]["rpId"] = json!("ssh:work");
    accounts.extend((0..4).map(|_| accounts[0].clone()).collect::<Vec<_>>());
    for (at, rp_id) in [(3, "EXAMPLE.org"), (4, "192.0.2.1"), (5, "example.org:8443"), (6, "")] {
        accounts[at]["rpId"] = json!(rp_id);
    }
    for account in accounts.iter_mut() {
        for name in ["userName", "displayName", "name", "rpName", "userHandle"] {
            account[name] = json!(odd);
        }
    }
    for desk in Desk::both() {
        write(&desk.passhold, &export);
        let run = desk.call(["plan", "e.json"]).run().expect_code(0);
        assert!(!run.stdout.contains("https://"), "{}", run.stdout);
        assert!(run.stdout.contains("make another with \"ssh-keygen -t ecdsa-sk\""), "{}", run.stdout);
        let json = desk.call(["plan", "e.json", "--json"]).run().expect_code(0);
        assert!(json.json().as_array().unwrap().iter().all(|step| step["site"].is_null()), "{}", json.stdout);
        assert_eq!(json.json()[1]["userName"], odd);
        for said in [run.stdout, json.stdout] {
            let bad = |c: char| c == '\u{202e}' || (c.is_control() && c != '\n');
            assert!(!said.contains(bad), "{said:?}");
        }
    }
}

/// Far more than one message of the daemon's holds.
#[test]
fn a_long_export_is_planned_whole() {
    let mut export = old_machine();
    let one = export["accounts"][0].clone();
    export["accounts"] = json!(vec![one; 10_000]);
    for desk in Desk::both() {
        let file = write(&desk.passhold, &export);
        assert!(fs::metadata(file).unwrap().len() > 2 << 20);
        assert_eq!(states(&desk.json(&["plan", "e.json"])).len(), 10_000);
    }
}

#[test]
fn an_old_copy_is_let_in_with_what_it_lacks_told_before_the_pin() {
    for desk in Desk::both() {
        for user in ["alice", "bob"] {
            desk.enroll("example.org", user).run().expect_code(0);
        }
        desk.with_pin(["delete", "2"]).run().expect_code(0);
        let db = desk.passhold.vault().join("vault.db");
        let old = fs::read(&db).unwrap();
        desk.with_pin(["undelete", "2"]).run().expect_code(0);
        desk.with_pin(["delete", "1"]).run().expect_code(0);
        for user in ["carol", "dave\u{1b}[2J"] {
            desk.enroll("example.org", user).run().expect_code(0);
        }
        desk.with_pin(["delete", "3"]).run().expect_code(0);
        write(&desk.passhold, &export_of(&desk));
        let foreign = desk.passhold.home().join("foreign.json");
        fs::write(&foreign, old_machine().to_string()).unwrap();
        fs::write(&db, &old).unwrap();

        let refused = desk.with_pin(["restore", "accept", "--export", "foreign.json"]).run().expect_code(2);
        assert!(
            refused.stderr.contains("foreign.json is an export of another vault\n"),
            "{}",
            refused.stderr
        );
        let accept = desk.call(["restore", "accept", "--export", "e.json"]);
        let wrong = accept.pin("999888777x").run().expect_code(5);
        // Bob's is in the copy's bin, carol's was in the bin when it was exported: neither is lost by this.
        let gone: Vec<_> = wrong.stderr.lines().filter(|line| line.contains("gone:")).collect();
        assert_eq!(gone.len(), 1, "{}", wrong.stderr);
        assert!(gone[0].starts_with("passhold: gone: dave\u{fffd}[2J at example.org, made 2"), "{gone:?}");
        let back: Vec<_> = wrong.stderr.lines().filter(|line| line.contains("comes back:")).collect();
        assert_eq!(back.len(), 1, "{}", wrong.stderr);
        assert!(back[0].starts_with("passhold: comes back: alice at example.org, made 2"), "{back:?}");
        let run = desk.with_pin(["restore", "accept", "--export", "e.json"]).run().expect_code(0);
        assert!(run.stderr.contains("\npasshold: gone: dave"), "{}", run.stderr);
        assert_eq!(desk.json(&["list"]).as_array().unwrap().len(), 1);
    }
}
