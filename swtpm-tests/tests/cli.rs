//! The command line as scripts meet it: results on standard output, refusals with their exit code and next step.
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
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use base64ct::{Base64UrlUnpadded, Encoding};
use serde_json::{Value, json};
use swtpm_tests::proxy::{Fault, FaultKind, Proxy};
use swtpm_tests::{Call, PIN, Passhold, Program, Run, Running, TestTpm, creation_options, request_options};
use vault_core::{
    RecoveryCode,
    container::{Container, State},
    keystore::KeyStore,
};

const ORIGIN: &str = "https://example.org";
const RP_ID: &str = "example.org";
const WRONG: &str = "999888777x";
const NEW: &str = "314159x";

// Every command's success, exit code 0.

#[test]
fn exit_0_setup_makes_a_private_vault_and_says_where() {
    let desk = Desk::empty();
    let run = desk.passhold.call(["setup"]).pin(PIN).run().expect_code(0);
    let vault = desk.passhold.vault();
    let code = recovery_code(&run.stdout);
    let expected = format!(
        "Recovery code: {code}\nWrite it down and keep it away from this machine; it is not shown again. Whoever has it and this machine can set a new PIN. It holds once this command says so.\nMade a vault in {}. The recovery code holds.\n",
        vault.display()
    );
    assert_eq!(run.stdout, expected);
    assert_eq!(run.stderr, "passhold: the TPM allows 8 wrong PINs in a row, then none; keep the PIN safe\n");
    assert_eq!(mode(&vault), 0o700);
    assert_eq!(mode(&vault.join("vault.db")), 0o600);

    let other = Desk::empty();
    let run = other.passhold.call(["setup", "--json"]).pin(PIN).run().expect_code(0);
    let code = recovery_code(&run.stdout);
    assert_eq!(run.json(), json!({"vault": other.passhold.vault(), "recoveryCode": code}));

    let without = Desk::empty();
    let run = without.call(["setup", "--no-recovery-code", "--json"]).pin(PIN).run().expect_code(0);
    assert_eq!(run.json(), json!({"vault": without.passhold.vault(), "recoveryCode": null}));
}

fn recovery_code(text: &str) -> String {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    let mut codes = words.filter(|word| word.len() == 34 && RecoveryCode::parse(word).is_ok());
    codes.next().unwrap_or_else(|| panic!("no recovery code in {text}")).to_owned()
}

#[test]
fn exit_21_wrong_code_for_one_that_is_not_in_force_and_0_for_the_one_that_is() {
    let desk = Desk::empty();
    let code = recovery_code(&desk.call(["setup"]).pin(PIN).run().expect_code(0).stdout);
    desk.enroll("alice").run().expect_code(0);
    let reset = |code: &str| desk.call(["pin", "reset"]).pin(&format!("{code}\n{NEW}"));
    let wrong = "4Y6X-WVJZ-TAFG-AZ77-60C1-EEVJ-1MV0";
    let (message, next) =
        ("this is not the vault's recovery code", "Nothing was changed or counted. Look at the code again.");
    refused(|| reset(wrong), 21, "WrongCode", message, next);
    for _ in 0..8 {
        desk.sign_with_pin(WRONG).run().expect_code(5);
    }
    desk.sign().run().expect_code(6);
    reset(&code).run().expect_code(0);
    desk.sign_with_pin(NEW).run().expect_code(0);
    desk.sign().run().expect_code(5);
    assert!(reset(&code).run().expect_code(21).stderr.contains("is spent: it was used or replaced on "));
}

#[test]
fn exit_0_enroll_and_sign_print_the_webauthn_json_alone() {
    let desk = Desk::with_vault();
    for json in [false, true] {
        let flag = |call: Call| if json { call.arg("--json") } else { call };
        let run = flag(desk.enroll("alice").arg("--another")).run().expect_code(0);
        assert_eq!(run.json()["type"], "public-key");
        let number = if json { 2 } else { 1 };
        let expected = format!(
            "passhold: make a passkey for alice at example.org, asked by https://example.org\n\
             passhold: made passkey {number}\n"
        );
        assert_eq!(run.stderr, expected);

        let run = flag(desk.sign().arg("--account=1")).run().expect_code(0);
        assert_eq!(user_handle(&run), b"alice");
        assert_eq!(run.stderr, "passhold: sign in as alice at example.org, asked by https://example.org\n");
    }
}

#[test]
fn exit_0_list_and_show_tell_what_was_enrolled() {
    let desk = Desk::with_vault();
    assert_eq!(desk.run(["list"]).stdout, "No passkeys yet.\n");
    assert_eq!(desk.json(["list"]), json!([]));
    let id = desk.enroll("alice").run().expect_code(0).json()["id"].clone();
    let mut account = desk.json(["show", "1"]);
    let made = account["created"].take().as_u64().unwrap();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    assert!((now - 60..=now).contains(&made), "{made} is not about {now}");
    let expected = json!({
        "id": 1,
        "rpId": RP_ID,
        "rpName": "Example",
        "userName": "alice",
        "displayName": "alice",
        "name": null,
        "takes": "pin",
        "credentialId": id,
        "created": null,
        "binned": null,
        "lastUsed": null,
        "neverUsed": true,
    });
    assert_eq!(account, expected);
    assert_eq!(desk.json(["list"]), json!([desk.json(["show", "1"])]));
    let text = desk.run(["show", "1"]).stdout;
    assert!(text.contains("\nAccount       alice (alice)\n"), "{text}");
    assert!(text.ends_with(&format!("\nCredential ID {}\n", id.as_str().unwrap())), "{text}");
}

#[test]
fn exit_0_rename_gives_a_name_and_an_empty_one_takes_it_back() {
    let desk = Desk::with_vault();
    desk.enroll("alice").run().expect_code(0);
    assert_eq!(desk.run(["rename", "1", "Work"]).stdout, "Passkey 1 is now Work.\n");
    assert_eq!(desk.json(["show", "1"])["name"], "Work");
    let run = desk.sign().run().expect_code(0);
    assert_eq!(run.stderr, "passhold: sign in as Work at example.org, asked by https://example.org\n");
    assert_eq!(desk.json(["rename", "1", ""])["name"], Value::Null);
    assert_eq!(desk.json(["show", "1"])["name"], Value::Null);
}

#[test]
fn exit_0_a_name_without_end_is_cut() {
    let desk = Desk::with_vault();
    // Three bytes each: 256 is no multiple of them.
    let endless = "\u{2603}".repeat(10_000);
    let mut options: Value = serde_json::from_str(&creation_options(RP_ID, "alice", "none")).unwrap();
    for name in ["name", "displayName"] {
        options["user"][name] = json!(endless);
    }
    let enroll = desk.passhold.call(["enroll", "--origin", "https://example.org"]).pin(PIN);
    enroll.options(&options.to_string()).run().expect_code(0);
    let kept = "\u{2603}".repeat(85);
    assert_eq!(desk.json(["rename", "1", &endless])["name"], json!(kept));
    let account = desk.json(["show", "1"]);
    assert_eq!((&account["userName"], &account["displayName"]), (&json!(kept), &json!(kept)));
}

#[test]
fn exit_0_delete_takes_the_passkey_away() {
    let desk = Desk::with_vault();
    for user in ["alice", "bob"] {
        desk.enroll(user).run().expect_code(0);
    }
    let run = desk.passhold.call(["delete", "1"]).pin(PIN).run().expect_code(0);
    assert_eq!(
        run.stdout,
        "Passkey 1, alice at example.org, is in the bin. \"passhold undelete 1\" takes it out again.\n"
    );
    let left = desk.json(["list"]);
    assert_eq!((left.as_array().unwrap().len(), &left[0]["userName"]), (1, &json!("bob")));
    let run = desk.passhold.call(["delete", "2", "--json"]).pin(PIN).run().expect_code(0);
    assert_eq!(run.json()["id"], left[0]["id"]);
    assert_eq!(desk.json(["list"]), json!([]));
}

#[test]
fn exit_0_pin_change_makes_the_old_pin_wrong_and_keeps_the_passkeys() {
    let desk = Desk::with_vault();
    desk.enroll("alice").run().expect_code(0);
    let run = desk.passhold.call(["pin", "change"]).pin(&format!("{PIN}\n{NEW}")).run().expect_code(0);
    assert_eq!(run.stdout, "The PIN is changed; all passkeys stay.\n");
    desk.sign().run().expect_code(5);
    let run = desk.sign_with_pin(NEW).run().expect_code(0);
    assert_eq!(user_handle(&run), b"alice");
    let run = desk.passhold.call(["pin", "change", "--json"]).pin(&format!("{NEW}\n{PIN}")).run();
    assert_eq!(run.expect_code(0).json(), json!({"changed": "pin"}));
}

#[test]
fn exit_0_status_needs_no_pin_and_counts_passkeys_and_tries() {
    let desk = Desk::with_vault();
    desk.enroll("alice").run().expect_code(0);
    desk.sign_with_pin(WRONG).run().expect_code(5);
    let expected = json!({
        "vault": desk.passhold.vault(),
        "accounts": 1,
        "triesLeft": 7,
        "triesCountedBy": "tpm",
        "tpm": {"address": desk.passhold.tpm(), "kind": "software", "model": "IBM SW   TPM"},
        "lockout": {"counter": 0, "limit": 3, "recoverySeconds": 1000},
    });
    assert_eq!(desk.json(["status"]), expected);
    let text = desk.run(["status"]).stdout;
    assert!(text.contains("\nPIN       7 tries left, counted by the TPM\n"), "{text}");
}

#[test]
fn exit_0_wipe_with_yes_names_what_is_lost_and_leaves_no_vault() {
    let desk = Desk::with_vault();
    desk.enroll("alice").run().expect_code(0);
    let kept = fs::read(desk.passhold.vault().join("vault.db")).unwrap();
    let run = desk.passhold.call(["wipe", "--yes", "--json"]).run().expect_code(0);
    assert_eq!(run.json(), json!({"wiped": desk.passhold.vault(), "tpm": "erased"}));
    assert!(run.stderr.ends_with("passhold: 1: alice at example.org\n"), "{}", run.stderr);
    desk.call(["list"]).run().expect_code(4);
    fs::write(desk.passhold.vault().join("vault.db"), kept).unwrap();
    desk.sign().run().expect_code(9);
}

// Refusals, by exit code.

#[test]
fn exit_1_unexpected_where_a_file_cannot_be_read() {
    let desk = Desk::with_vault();
    let run = desk.call(["sign", "--origin", ORIGIN, "--options", "missing.json", "--json"]).run();
    let error = run.expect_code(1).error();
    assert_eq!(error["name"], "Unexpected");
    assert_eq!(error["message"], "cannot read missing.json: No such file or directory (os error 2)");
}

#[test]
fn exit_2_usage_where_the_command_line_cannot_be_understood() {
    let desk = Desk::empty();
    let run = desk.call(["frobnicate"]).run().expect_code(2);
    assert_eq!(run.stdout, "");
    assert!(run.stderr.ends_with("For more information, try '--help'.\n"), "{}", run.stderr);
    for args in
        [vec![], vec!["show"], vec!["show", "one"], vec!["sign"], vec!["pin"], vec!["--pin-fd=-1", "list"]]
    {
        desk.call(&args).run().expect_code(2);
    }
    refused(
        || desk.call(["setup", "--pin-fd", "9"]),
        2,
        "Usage",
        "cannot read file descriptor 9 (Bad file descriptor (os error 9))",
        "Open it for passhold, for example: --pin-fd 3 3<file",
    );
}

#[test]
fn exit_2_usage_where_the_config_file_cannot_be_understood() {
    let desk = Desk::empty();
    let path = desk.config("frobnicate = 1");
    refused(
        || desk.passhold.bare(["list"]),
        2,
        "Usage",
        &format!(
            "{} cannot be understood: unknown field `frobnicate`, expected one of `tpm`, `vault`, `min-pin-length`, `pin-history`, `pin-max-age-days`",
            path.display()
        ),
        "It may set tpm, vault, min-pin-length, pin-history and pin-max-age-days.",
    );
    for text in [
        "tpm = 1",
        "tpm",
        "min-pin-length = -1",
        "min-pin-length = 3",
        "min-pin-length = 64",
        "pin-history = 11",
        "pin-max-age-days = 0",
    ] {
        desk.config(text);
        let run = desk.passhold.bare(["list", "--json"]).run().expect_code(2);
        assert_eq!(run.error()["name"], "Usage", "{text}");
    }
}

#[test]
fn exit_3_request_where_the_relying_partys_request_cannot_be_served() {
    let desk = Desk::with_vault();
    refused(
        || desk.call(["enroll", "--origin", "http://example.org"]).stdin("{}"),
        3,
        "Request",
        "\"http://example.org\" is neither https nor http://localhost",
        "Give --origin as the browser shows it: https://host, or http://localhost:port.",
    );
    refused(
        || desk.call(["sign", "--origin", "https://example.com"]).stdin(request_options(RP_ID)),
        3,
        "Request",
        "the relying party ID \"example.org\" does not belong to https://example.com",
        "Give the origin that sent these options with --origin.",
    );
    refused(
        || desk.call(["sign", "--origin", ORIGIN]).stdin(r#"{"challenge": "!"}"#),
        3,
        "Request",
        "challenge is not base64url",
        "Give the options as the relying party sent them.",
    );
    let mut options: Value = serde_json::from_str(&creation_options(RP_ID, "alice", "none")).unwrap();
    options["pubKeyCredParams"] = json!([{"type": "public-key", "alg": -257}]);
    refused(
        || desk.call(["enroll", "--origin", ORIGIN]).stdin(options.to_string()),
        3,
        "Request",
        "the relying party does not accept ES256 (-7), the one algorithm of this vault",
        "Ask the relying party for other options, or use another authenticator.",
    );
    assert_eq!(desk.json(["list"]), json!([]), "nothing was stored");
}

#[test]
fn exit_3_request_for_every_malformed_one_and_nothing_is_stored() {
    let desk = Desk::with_vault();
    let good = || serde_json::from_str::<Value>(&creation_options(RP_ID, "alice", "none")).unwrap();
    let edited = |edit: fn(&mut Value)| {
        let mut options = good();
        edit(&mut options);
        options.to_string()
    };
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    let cases = [
        ("nothing", String::new()),
        ("no object", "7".into()),
        ("cut short", good().to_string()[..80].into()),
        ("nested deeply", deep.clone()),
        ("an unknown member nested deeply", format!(r#"{{"x":{deep},{}"#, &good().to_string()[1..])),
        (
            "no challenge",
            edited(|o| {
                o.as_object_mut().unwrap().remove("challenge");
            }),
        ),
        ("an empty challenge", edited(|o| o["challenge"] = json!(""))),
        ("a challenge of another type", edited(|o| o["challenge"] = json!([1, 2]))),
        ("a challenge in plain base64", edited(|o| o["challenge"] = json!("+/+/"))),
        ("no user", edited(|o| o["user"] = json!(null))),
        ("a user id of 0 bytes", edited(|o| o["user"]["id"] = json!(""))),
        ("a user id of 65 bytes", edited(|o| o["user"]["id"] = json!("A".repeat(87)))),
        ("an rp id of nobody", edited(|o| o["rp"]["id"] = json!(""))),
        ("a public suffix", edited(|o| o["rp"]["id"] = json!("org"))),
        ("publicKey of nothing", r#"{"publicKey": null}"#.into()),
    ];
    for (what, options) in cases {
        let run = desk.call(["enroll", "--json", "--origin", ORIGIN]).stdin(options).run();
        assert_eq!((run.code(), run.stdout.as_str()), (Some(3), ""), "{what}: {}", run.stderr);
        assert_eq!(run.error()["name"], "Request", "{what}");
    }
    for origin in [
        "https://192.0.2.1",
        "https://[::1]",
        "example.org",
        "https://example.org/login",
        "",
        "ftp://example.org",
    ] {
        let run = desk.call(["enroll", "--json", "--origin", origin]).stdin(good().to_string()).run();
        assert_eq!((run.code(), run.stdout.as_str()), (Some(3), ""), "{origin}: {}", run.stderr);
    }
    assert_eq!(desk.json(["list"]), json!([]));
}

#[test]
fn exit_4_no_vault_where_there_is_none() {
    let desk = Desk::empty();
    let message = format!("there is no vault in {}", desk.passhold.vault().display());
    let next = "Make one with \"passhold setup\", or name its folder with --vault.";
    let commands: [&[&str]; 7] = [
        &["list"],
        &["show", "1"],
        &["rename", "1", "x"],
        &["delete", "1"],
        &["pin", "change"],
        &["status"],
        &["wipe", "--yes"],
    ];
    for command in commands {
        refused(|| desk.call(command).pin(PIN), 4, "NoVault", &message, next);
    }
    refused(|| desk.sign(), 4, "NoVault", &message, next);
    refused(|| desk.enroll("alice"), 4, "NoVault", &message, next);
    assert!(!desk.passhold.vault().exists(), "and none was made");
}

#[test]
fn exit_5_wrong_pin_counts_down_and_exit_6_pin_locked_is_the_end() {
    let desk = Desk::with_vault();
    desk.enroll("alice").run().expect_code(0);
    for left in (1..8).rev() {
        let error = desk.sign_with_pin(WRONG).arg("--json").run().expect_code(5).error();
        let tries = if left == 1 { "1 try".to_owned() } else { format!("{left} tries") };
        let expected = json!({
            "exit": 5,
            "name": "WrongPin",
            "message": format!("wrong PIN; {tries} left, counted by the TPM"),
            "next": "Try again with the right PIN; a right one sets the count back.",
            "triesLeft": left,
        });
        assert_eq!(error, expected);
    }
    let run = desk.sign_with_pin(WRONG).run().expect_code(5);
    let last_words = "passhold: 1 try left, counted by the TPM\n\
                      passhold: wrong PIN; no tries left\n\
                      \"passhold pin reset\" sets a new PIN with the recovery code. Without the code, the passkeys cannot be used any more, and \"passhold wipe\" makes room for a new vault.\n";
    assert!(run.stderr.ends_with(last_words), "{}", run.stderr);
    refused(
        || desk.sign(),
        6,
        "PinLocked",
        "the TPM refuses every PIN after too many wrong ones",
        "\"passhold pin reset\" sets a new PIN with the recovery code. Without the code, the passkeys cannot be used any more, and \"passhold wipe\" makes room for a new vault.",
    );
    assert_eq!(desk.json(["status"])["triesLeft"], 0);
    desk.call(["wipe", "--yes"]).run().expect_code(0);
    desk.call(["setup"]).pin(PIN).run().expect_code(0);
}

#[test]
fn exit_5_wrong_pin_is_not_counted_for_what_can_be_no_pin() {
    let desk = Desk::with_vault();
    let long = "x".repeat(64);
    for text in ["", &long] {
        refused(
            || desk.call(["delete", "1"]).pin(text),
            13,
            "NoPasskey",
            "there is no passkey 1",
            "\"passhold list\" shows the numbers.",
        );
        refused(
            || desk.call(["pin", "change"]).pin(text),
            5,
            "WrongPin",
            "that is no PIN: a PIN has 1 to 63 bytes",
            "Nothing was counted.",
        );
    }
    assert_eq!(desk.json(["status"])["triesLeft"], 8);
}

#[test]
fn a_right_pin_sets_the_count_back() {
    let desk = Desk::with_vault();
    desk.enroll("alice").run().expect_code(0);
    desk.sign_with_pin(WRONG).run().expect_code(5);
    let run = desk.sign().run().expect_code(0);
    assert!(
        run.stderr.ends_with("passhold: 7 tries left, counted by the TPM\n"),
        "shown first: {}",
        run.stderr
    );
    assert_eq!(desk.json(["status"])["triesLeft"], 8);
    let run = desk.sign().run().expect_code(0);
    assert!(!run.stderr.contains("tries left"), "{}", run.stderr);
}

#[test]
fn exit_7_no_tpm_says_what_was_looked_for_and_never_falls_back() {
    let mut desk = Desk::with_vault();
    desk.passhold.set_tpm("device:/dev/not-a-tpm");
    let next = "Is the TPM switched on in the firmware set-up? To try Passhold without one: --tpm swtpm";
    refused(|| desk.call(["status"]), 7, "NoTpm", "no TPM at /dev/not-a-tpm", next);
    refused(|| desk.sign(), 7, "NoTpm", "no TPM at /dev/not-a-tpm", next);
    let fresh = Passhold::new("device:/dev/not-a-tpm");
    refused(|| fresh.call(["setup"]).pin(PIN), 7, "NoTpm", "no TPM at /dev/not-a-tpm", next);
    assert!(!fresh.vault().join("swtpm").exists() && !desk.passhold.vault().join("swtpm").exists());
    if !Path::new("/dev/tpmrm0").exists() {
        refused(|| desk.passhold.bare(["status"]), 7, "NoTpm", "no TPM at /dev/tpmrm0", next);
    }
}

#[test]
fn exit_7_no_tpm_where_swtpm_and_setpriv_are_not_installed() {
    let desk = Desk::empty();
    refused(
        || desk.call(["setup", "--tpm", "swtpm"]).pin(PIN).env("PATH", "/nonexistent"),
        7,
        "NoTpm",
        "the program swtpm (or setpriv) is not installed",
        "Install it: sudo apt install swtpm",
    );
}

#[test]
fn exit_7_no_tpm_where_only_swtpm_is_not_installed() {
    let desk = Desk::empty();
    let bin = desk.passhold.home().join("bin");
    fs::create_dir(&bin).unwrap();
    symlink("/usr/bin/setpriv", bin.join("setpriv")).unwrap();
    let run = desk.call(["setup", "--tpm", "swtpm", "--json"]).pin(PIN).env("PATH", bin).run();
    let error = run.expect_code(7).error();
    assert_eq!(
        (&error["name"], &error["next"]),
        (&json!("NoTpm"), &json!("Install it: sudo apt install swtpm"))
    );
}

#[test]
fn exit_8_lockout_says_when_the_tpm_allows_one_more_try() {
    let desk = Desk::with_vault();
    desk.enroll("alice").run().expect_code(0);
    let tool = |program: &str, args: &[&str]| desk.tpm.tool(program, args).unwrap().status.success();
    assert!(tool("tpm2_dictionarylockout", &["-s", "-n", "2", "-t", "600", "-l", "600"]));
    assert!(tool(
        "tpm2_nvdefine",
        &["0x1500099", "-C", "o", "-s", "8", "-a", "authread|authwrite", "-p", "right"]
    ));
    for _ in 0..2 {
        assert!(!tool("tpm2_nvread", &["0x1500099", "-C", "0x1500099", "-P", "wrong"]));
    }
    refused(
        || desk.sign(),
        8,
        "Lockout",
        "the TPM is in lockout",
        "Another program used the TPM with wrong secrets too often. It allows one more try at the latest in 10 minutes.",
    );
    assert!(tool("tpm2_dictionarylockout", &["-c"]));
    assert_eq!(desk.json(["status"])["triesLeft"], 8, "no try of the vault's was counted");
    desk.sign().run().expect_code(0);
}

#[test]
fn exit_9_keys_gone_in_another_tpm() {
    let mut desk = Desk::with_vault();
    let other = TestTpm::start().unwrap();
    desk.passhold.set_tpm(&other.tcti());
    refused(
        || desk.call(["list"]),
        9,
        "KeysGone",
        "this TPM does not hold the vault's keys: it is not the one that made them",
        "Put the vault's own TPM back, or name it with --tpm. If it is lost, \"passhold wipe\" makes room for a new vault.",
    );
}

#[test]
fn exit_9_keys_gone_in_a_tpm_that_was_cleared() {
    let desk = Desk::with_vault();
    assert!(desk.tpm.tool("tpm2_clear", &[]).unwrap().status.success());
    let gone = |message| {
        let next = "These passkeys cannot be brought back. \"passhold wipe\" makes room for a new vault.";
        refused(|| desk.call(["list"]), 9, "KeysGone", message, next);
    };
    gone("this TPM does not hold the vault's keys: it was cleared");
    assert!(desk.tpm.tool("tpm2_changeauth", &["-c", "e", "secret"]).unwrap().status.success());
    gone("this TPM does not hold the vault's keys: it was cleared, or it is another one");
}

#[test]
fn exit_10_damaged_names_what_is_broken_and_changes_nothing() {
    let desk = Desk::with_vault();
    let path = desk.passhold.vault().join("vault.db");
    let mut damaged = fs::read(&path).unwrap();
    // The page that holds the schema.
    damaged[100..116].fill(0xff);
    fs::write(&path, &damaged).unwrap();
    let next = "Nothing was changed. Put back a copy of the newest vault.db, if you have one.";
    let message = format!("{} is not a Passhold vault", path.display());
    for command in [["list"].as_slice(), &["setup"], &["wipe", "--yes"]] {
        refused(|| desk.call(command).pin(PIN), 10, "Damaged", &message, next);
    }
    assert!(fs::read(&path).unwrap() == damaged);
}

#[test]
fn exit_10_damaged_leaves_a_strangers_database_as_it_was() {
    let desk = Desk::empty();
    let path = desk.passhold.vault().join("vault.db");
    fs::create_dir(desk.passhold.vault()).unwrap();
    let script =
        "import sqlite3, sys; d = sqlite3.connect(sys.argv[1]); d.execute('create table t (x)'); d.commit()";
    assert!(Command::new("python3").arg("-c").arg(script).arg(&path).status().unwrap().success());
    let before = fs::read(&path).unwrap();
    let error = desk.call(["list", "--json"]).run().expect_code(10).error();
    assert_eq!(error["message"], format!("{} is not a Passhold vault", path.display()));
    assert!(fs::read(&path).unwrap() == before, "\"Nothing was changed\"");
}

#[test]
fn exit_11_rolled_back_for_an_old_copy() {
    let desk = Desk::with_vault();
    let path = desk.passhold.vault().join("vault.db");
    desk.enroll("alice").run().expect_code(0);
    let old = fs::read(&path).unwrap();
    desk.enroll("bob").run().expect_code(0);
    fs::write(&path, old).unwrap();
    refused(
        || desk.sign(),
        11,
        "RolledBack",
        "the vault's file is an old copy: it holds change 2, and the TPM remembers change 3",
        &format!(
            "Put the newest vault.db back into {}. If it is lost, \"passhold restore accept\" lets this copy in.",
            desk.passhold.vault().display()
        ),
    );
}

#[test]
fn exit_12_busy_names_the_process_after_ten_seconds() {
    let desk = Desk::with_vault();
    desk.enroll("alice").run().expect_code(0);
    let holder = at_the_prompt(&desk.passhold);
    let started = Instant::now();
    let error = desk.call(["list", "--json"]).run().expect_code(12).error();
    let waited = started.elapsed();
    let expected = json!({
        "exit": 12,
        "name": "Busy",
        "message": format!("the vault is busy: process {} uses it", holder.pid()),
        "next": "Try again when that process is done.",
        "triesLeft": null,
    });
    assert_eq!(error, expected);
    assert!((Duration::from_secs(10)..Duration::from_secs(20)).contains(&waited), "{waited:?}");
}

#[test]
fn a_vault_that_is_released_in_time_is_waited_for() {
    let desk = Desk::with_vault();
    desk.enroll("alice").run().expect_code(0);
    let mut holder = at_the_prompt(&desk.passhold);
    let waiting = desk.call(["list", "--json"]).start();
    std::thread::sleep(Duration::from_millis(500));
    holder.send(format!("{PIN}\n").as_bytes());
    assert_eq!(user_handle(&holder.wait().expect_code(0)), b"alice");
    assert_eq!(waiting.wait().expect_code(0).json()[0]["userName"], "alice");
}

#[test]
fn exit_13_no_passkey_where_none_answers() {
    let desk = Desk::with_vault();
    desk.enroll("alice").run().expect_code(0);
    let numbers = "\"passhold list\" shows the numbers.";
    let commands: [&[&str]; 3] = [&["show", "7"], &["rename", "7", "x"], &["delete", "7"]];
    for command in commands {
        refused(|| desk.call(command).pin(PIN), 13, "NoPasskey", "there is no passkey 7", numbers);
    }
    let elsewhere =
        || desk.call(["sign", "--origin", "https://example.net"]).stdin(request_options("example.net"));
    refused(
        || elsewhere().pin(PIN),
        13,
        "NoPasskey",
        "there is no passkey for example.net that it accepts",
        "\"passhold list\" shows the passkeys; make one with \"passhold enroll\".",
    );
    refused(
        || elsewhere().pin(PIN).arg("--account=1"),
        13,
        "NoPasskey",
        "this passkey does not answer this request",
        "\"passhold list\" shows which passkey is for which site.",
    );
    refused(|| desk.sign().arg("--account=7"), 13, "NoPasskey", "there is no passkey 7", numbers);
}

#[test]
fn exit_14_excluded_before_the_pin_is_asked_for() {
    let desk = Desk::with_vault();
    let id = desk.enroll("alice").run().expect_code(0).json()["id"].clone();
    let mut options: Value = serde_json::from_str(&creation_options(RP_ID, "alice", "none")).unwrap();
    options["excludeCredentials"] =
        json!([{"type": "public-key", "id": "AAAA"}, {"type": "public-key", "id": id}]);
    refused(
        || desk.call(["enroll", "--origin", ORIGIN]).stdin(options.to_string()).pin(WRONG),
        14,
        "Excluded",
        "this vault already holds a passkey that the relying party excludes",
        "You can sign in with it: \"passhold sign\".",
    );
    assert_eq!(desk.json(["status"])["triesLeft"], 8);
    options["excludeCredentials"] =
        json!([{"type": "public-key", "id": "AAAA"}, {"type": "nfc-key", "id": id}]);
    let call = desk.call(["enroll", "--another", "--origin", ORIGIN]).stdin(options.to_string()).pin(PIN);
    call.run().expect_code(0);
    assert_eq!(desk.json(["list"]).as_array().unwrap().len(), 2);
}

#[test]
fn exit_15_not_confirmed_where_nobody_can_be_asked() {
    let desk = Desk::with_vault();
    desk.enroll("alice").run().expect_code(0);
    let no_terminal = "No such device or address (os error 6)";
    refused(
        || desk.call(["sign", "--origin", ORIGIN]).stdin(request_options(RP_ID)),
        15,
        "NotConfirmed",
        &format!("there is no terminal to ask for the PIN on ({no_terminal})"),
        "Run this in a terminal, or give the PIN on a file descriptor with --pin-fd N.",
    );
    refused(
        || desk.call(["wipe"]),
        15,
        "NotConfirmed",
        &format!("there is no terminal to ask on ({no_terminal})"),
        "Run this in a terminal, or give --yes.",
    );
    let run = desk.call(["delete", "1", "--json", "--pin-fd=3"]).redirect("3</dev/null").run();
    assert_eq!(run.expect_code(15).error()["message"], "the PIN was not given");
    assert_eq!(desk.json(["list"]).as_array().unwrap().len(), 1, "all is there");
}

#[test]
fn exit_16_pin_refused_for_one_that_is_easily_guessed() {
    let desk = Desk::empty();
    for pin in ["12345", "123456", "111111", "password", "x"] {
        let error = desk.call(["setup", "--json"]).pin(pin).run().expect_code(16).error();
        assert_eq!((&error["name"], &error["next"]), (&json!("PinRefused"), &json!("Choose another one.")));
        assert!(error["message"].as_str().unwrap().starts_with("this PIN is refused: "), "{error}");
    }
    assert!(!desk.passhold.vault().exists(), "no vault was made");
    desk.call(["setup"]).pin(PIN).run().expect_code(0);
    let run = desk.call(["pin", "change", "--json"]).pin(&format!("{PIN}\n123456")).run();
    assert_eq!(run.expect_code(16).error()["name"], "PinRefused");
    desk.enroll("alice").run().expect_code(0);
}

#[test]
fn exit_17_owner_auth_where_it_is_set_and_not_given() {
    let desk = Desk::empty();
    assert!(desk.tpm.tool("tpm2_changeauth", &["-c", "o", "ownersecret"]).unwrap().status.success());
    let next = "Give it with --owner-auth-fd N.";
    let needed = "the TPM's owner authorization is needed";
    refused(|| desk.call(["setup"]).pin(PIN), 17, "OwnerAuth", needed, next);
    let wrong = || desk.call(["setup"]).pin(PIN).owner_auth("wrong");
    refused(wrong, 17, "OwnerAuth", "wrong owner authorization", next);
    desk.call(["setup"]).pin(PIN).owner_auth("ownersecret").run().expect_code(0);

    desk.enroll("alice").run().expect_code(0);
    desk.sign().run().expect_code(0);
    desk.sign_with_pin(WRONG).run().expect_code(5);
    let counted = |status: Value| (status["triesLeft"].clone(), status["triesCountedBy"].clone());
    assert_eq!(counted(desk.json(["status"])), (json!(7), json!("passhold")));
    let call = desk.call(["status", "--json"]).owner_auth("ownersecret");
    assert_eq!(counted(call.run().expect_code(0).json()), (json!(7), json!("tpm")));

    desk.call(["wipe", "--yes"]).owner_auth("ownersecret").run().expect_code(0);
    desk.call(["list"]).run().expect_code(4);
}

#[test]
fn a_wipe_refused_for_want_of_owner_auth_leaves_the_vault_as_it_was() {
    let desk = Desk::with_vault();
    desk.enroll("alice").run().expect_code(0);
    assert!(desk.tpm.tool("tpm2_changeauth", &["-c", "o", "ownersecret"]).unwrap().status.success());
    let next = "Give it with --owner-auth-fd N.";
    refused(
        || desk.call(["wipe", "--yes"]),
        17,
        "OwnerAuth",
        "the TPM's owner authorization is needed",
        next,
    );
    let wrong = || desk.call(["wipe", "--yes"]).owner_auth("wrong");
    refused(wrong, 17, "OwnerAuth", "wrong owner authorization", next);
    assert_eq!(desk.json(["list"])[0]["userName"], "alice");
    assert_eq!(user_handle(&desk.sign().run().expect_code(0)), b"alice");
    desk.call(["list"]).owner_auth("ownersecret").run().expect_code(0);
}

#[test]
fn a_wipe_that_was_cut_short_is_completed_by_the_next_and_that_is_a_success() {
    let mut desk = Desk::with_vault();
    desk.enroll("alice").run().expect_code(0);
    let proxy = Proxy::start(desk.tpm.port()).unwrap();
    desk.passhold.set_tpm(&proxy.tcti());
    let undefine = FaultKind::Rewrite(std::sync::Arc::new(|command, reply| {
        // NV_UndefineSpace is done, and its reply is lost.
        if command[6..10] == [0, 0, 1, 0x22] { Vec::new() } else { reply }
    }));
    proxy.arm(Fault::continuous(0, undefine));
    desk.call(["wipe", "--yes"]).run().expect_code(1);
    proxy.disarm();
    assert!(desk.passhold.vault().join("vault.db").exists());
    let run = desk.call(["wipe", "--yes"]).run().expect_code(0);
    assert_eq!(run.stderr, "passhold: a wipe of it was interrupted, and will be completed\n");
    assert!(!desk.passhold.vault().join("vault.db").exists());
    desk.call(["wipe", "--yes"]).run().expect_code(4);
}

/// Owner authorization is asked for when a wipe has just been marked; a power cut then leaves the mark.
#[test]
fn a_pending_wipe_that_needs_owner_auth_says_what_it_is() {
    let desk = Desk::with_vault();
    desk.enroll("alice").run().expect_code(0);
    assert!(desk.tpm.tool("tpm2_changeauth", &["-c", "o", "ownersecret"]).unwrap().status.success());
    // As the power cut leaves it.
    let mut keys = desk.tpm.key_store();
    let container = Container::open(&desk.passhold.vault()).unwrap();
    let key = keys.container_key(&container.anchor().unwrap()).unwrap();
    container.unseal(&key).unwrap().set_state(State::Wiping).unwrap();
    drop(keys);
    let run = desk.call(["list"]).run().expect_code(17);
    assert!(run.stderr.contains("a wipe of this vault was begun and not completed"), "{}", run.stderr);
    desk.call(["wipe", "--yes"]).owner_auth("ownersecret").run().expect_code(0);
}

/// A helper that dies in the middle of the PIN must not have half of one tried, and still less set.
#[test]
fn a_pin_that_ends_without_a_newline_is_none() {
    let next = "Nothing was done. Give the whole line.";
    let message = "the PIN ended without a newline";
    let half = |desk: &Desk, line: &[&str]| desk.call(line).arg("--pin-fd=0").stdin("271828");
    let empty = Desk::empty();
    refused(|| half(&empty, &["setup"]), 15, "NotConfirmed", message, next);
    assert!(!empty.passhold.vault().join("vault.db").exists());
    let desk = Desk::with_vault();
    desk.enroll("alice").run().expect_code(0);
    refused(|| half(&desk, &["delete", "1"]), 15, "NotConfirmed", message, next);
    let change = || desk.call(["pin", "change", "--pin-fd=0"]).stdin(format!("{PIN}\n31415"));
    refused(change, 15, "NotConfirmed", message, next);
    assert_eq!(desk.json(["status"])["triesLeft"], 8);
    desk.sign().run().expect_code(0);
}

/// Passhold's own count can be an old copy's; only the TPM's says that all is over.
#[test]
fn passholds_own_count_never_advises_a_wipe() {
    let desk = Desk::with_vault();
    assert!(desk.tpm.tool("tpm2_changeauth", &["-c", "o", "ownersecret"]).unwrap().status.success());
    let db = rusqlite::Connection::open(desk.passhold.vault().join("vault.db")).unwrap();
    db.execute("INSERT OR REPLACE INTO tries VALUES (0, 7)", []).unwrap();
    db.close().unwrap();
    let enroll = desk.call(["enroll", "--origin", ORIGIN]).stdin(creation_options(RP_ID, "alice", "none"));
    let run = enroll.pin(WRONG).run().expect_code(5);
    assert!(run.stderr.contains("0 tries left by Passhold's own count"), "{}", run.stderr);
    assert!(
        run.stderr.contains("Try again with the right PIN") && !run.stderr.contains("wipe"),
        "{}",
        run.stderr
    );
    desk.enroll("alice").run().expect_code(0);
}

#[test]
fn a_wrong_pin_is_told_though_the_count_cannot_be_had() {
    let mut desk = Desk::with_vault();
    desk.enroll("alice").run().expect_code(0);
    let proxy = Proxy::start(desk.tpm.port()).unwrap();
    desk.passhold.set_tpm(&proxy.tcti());
    // GetCapability is refused.
    let no_status = FaultKind::Rewrite(std::sync::Arc::new(|command, reply| {
        if command[6..10] == [0, 0, 1, 0x7a] { vec![0x80, 1, 0, 0, 0, 10, 0, 0, 1, 1] } else { reply }
    }));
    proxy.arm(Fault::continuous(0, no_status));
    let run = desk.sign_with_pin(WRONG).run().expect_code(5);
    assert!(
        run.stderr.ends_with(
            "passhold: wrong PIN\nTry again with the right PIN; a right one sets the count back.\n"
        )
    );
}

#[test]
fn a_pin_change_whose_reply_is_lost_says_that_either_pin_may_be_in_force() {
    let mut desk = Desk::with_vault();
    let proxy = Proxy::start(desk.tpm.port()).unwrap();
    desk.passhold.set_tpm(&proxy.tcti());
    // NV_ChangeAuth is done, and its reply is lost.
    let lost = FaultKind::Rewrite(std::sync::Arc::new(|command, reply| {
        if command[6..10] == [0, 0, 1, 0x3b] { Vec::new() } else { reply }
    }));
    proxy.arm(Fault::continuous(0, lost));
    let run = desk.call(["pin", "change"]).pin(&format!("{PIN}\n{NEW}")).run().expect_code(1);
    proxy.disarm();
    assert!(run.stderr.contains("the new PIN may be in force, or still the old one"), "{}", run.stderr);
    assert!(run.stderr.ends_with("Try the new PIN first, then the old one; the right one settles it.\n"));
    desk.call(["pin", "change"]).pin(&format!("{NEW}\n{PIN}")).run().expect_code(0);
}

#[test]
fn arguments_that_are_not_utf_8_are_a_usage_error() {
    use std::os::unix::ffi::OsStrExt;
    let passhold = Passhold::new("swtpm");
    for args in [["list", "--json", "--bogus"], ["list", "--bogus", "x"]] {
        let odd = std::ffi::OsStr::from_bytes(b"/tmp/\xff");
        passhold.bare(args).arg("--vault").arg(odd).run().expect_code(2);
    }
}

#[test]
fn exit_18_exists_where_there_is_a_vault_already() {
    let desk = Desk::with_vault();
    refused(
        || desk.call(["setup"]).pin(PIN),
        18,
        "Exists",
        &format!("there is a vault in {} already", desk.passhold.vault().display()),
        "Use it, name another folder with --vault, or destroy it with \"passhold wipe\".",
    );
}

#[test]
fn help_documents_exactly_the_exit_codes() {
    let run = Desk::empty().passhold.bare(["--help"]).run().expect_code(0);
    let table = run.stdout.split_once("Exit codes:\n").unwrap().1;
    let codes: Vec<u8> =
        table.lines().map(|l| l.split_whitespace().next().unwrap().parse().unwrap()).collect();
    assert_eq!(codes, (0..=22).collect::<Vec<u8>>());
}

#[test]
fn every_refusal_ends_with_a_next_step() {
    let desk = Desk::with_vault();
    desk.enroll("alice").run().expect_code(0);
    let long = "x".repeat(2000);
    let missing: Vec<_> = [
        ("options that cannot be read", desk.call(["sign", "--origin", ORIGIN, "--options", "missing.json"])),
        ("no TPM address", desk.call(["list", "--tpm", "nonsense"])),
        ("no PIN on the descriptor", desk.call(["delete", "1", "--pin-fd=3"]).redirect("3</dev/null")),
        ("a PIN too long to be one", desk.call(["delete", "1"]).pin(&long)),
        ("bytes that are no UTF-8", desk.call(["delete", "1", "--pin-fd=0"]).stdin([0xff, b'\n'])),
        ("min-pin-length", desk.misconfigured("min-pin-length = 3")),
    ]
    .into_iter()
    .filter_map(|(what, call)| {
        let run = call.arg("--json").run();
        let error = run.error();
        (error["next"] == Value::Null).then(|| format!("{what}: {}", error["message"]))
    })
    .collect();
    assert_eq!(missing, Vec::<String>::new());
}

#[test]
fn exit_2_usage_is_json_with_json() {
    let error = Desk::empty().call(["--json", "frobnicate"]).run().expect_code(2).error();
    assert_eq!((&error["exit"], &error["name"]), (&json!(2), &json!("Usage")));
}

#[test]
fn exit_3_request_for_options_that_are_not_utf_8_or_too_long() {
    let desk = Desk::with_vault();
    let run = desk.call(["sign", "--json", "--origin", ORIGIN]).stdin(b"{\"challenge\":\"\xff\"}").run();
    assert_eq!(run.expect_code(3).error()["name"], "Request");
    let padded = format!("{}{}", " ".repeat(1 << 20), request_options(RP_ID));
    let error = desk.call(["sign", "--json", "--origin", ORIGIN]).stdin(padded).run().expect_code(3).error();
    assert_eq!(error["message"], "what the relying party sent is longer than 1 MiB");
}

// Options.

#[test]
fn options_come_from_a_file_or_standard_input_bare_or_wrapped() {
    let desk = Desk::with_vault();
    let bare = creation_options(RP_ID, "alice", "none");
    let wrapped = format!(r#"{{"publicKey": {bare}, "mediation": "conditional"}}"#);
    for options in [&bare, &wrapped] {
        let enroll = || desk.call(["enroll", "--another", "--origin", ORIGIN]).pin(PIN);
        enroll().options(options).run().expect_code(0);
        enroll().stdin(options).run().expect_code(0);
        enroll().arg("--options=-").stdin(options).run().expect_code(0);
    }
    assert_eq!(desk.json(["list"]).as_array().unwrap().len(), 6);
    let bare = request_options(RP_ID);
    let wrapped = format!(r#"{{"publicKey": {bare}}}"#);
    for options in [&bare, &wrapped] {
        let sign = || desk.call(["sign", "--origin", ORIGIN, "--account=3"]).pin(PIN);
        assert_eq!(user_handle(&sign().options(options).run().expect_code(0)), b"alice");
        assert_eq!(user_handle(&sign().stdin(options).run().expect_code(0)), b"alice");
        assert_eq!(user_handle(&sign().arg("--options=-").stdin(options).run().expect_code(0)), b"alice");
    }
}

#[test]
fn unknown_members_are_ignored() {
    let desk = Desk::with_vault();
    let mut options: Value = serde_json::from_str(&creation_options(RP_ID, "alice", "none")).unwrap();
    options["timeout"] = json!(1);
    options["hints"] = json!(["security-key"]);
    options["attestationFormats"] = json!(["tpm"]);
    options["rp"]["icon"] = json!("data:,");
    options["extensions"] = json!({"prf": {"eval": {"first": "AAAA"}}, "minPinLength": true});
    let call = desk.call(["enroll", "--origin", ORIGIN]).stdin(options.to_string()).pin(PIN);
    let made = call.run().expect_code(0).json();
    assert_eq!(made["clientExtensionResults"], json!({}));
    let mut options: Value = serde_json::from_str(&request_options(RP_ID)).unwrap();
    options["timeout"] = json!("soon");
    options["userVerification"] = json!("whatever");
    options["extensions"] = json!({"appid": 1});
    let call = desk.call(["sign", "--origin", ORIGIN]).stdin(options.to_string()).pin(PIN);
    assert_eq!(call.run().expect_code(0).json()["id"], made["id"]);
}

#[test]
fn several_matching_accounts_need_a_choice() {
    let desk = Desk::with_vault();
    for user in ["alice", "bob"] {
        desk.enroll(user).run().expect_code(0);
    }
    let run = desk.sign().run().expect_code(15);
    let expected = "passhold: 1: alice\n\
                    passhold: 2: bob\n\
                    passhold: there is no terminal to ask on (No such device or address (os error 6))\n\
                    Name the passkey with --account ID: one of 1, 2.\n";
    assert_eq!(run.stderr, expected);
    for (id, user) in [("1", "alice"), ("2", "bob")] {
        assert_eq!(user_handle(&desk.sign().arg("--account").arg(id).run().expect_code(0)), user.as_bytes());
    }
}

#[test]
fn allow_credentials_choose_and_forbid() {
    let desk = Desk::with_vault();
    let mut ids = Vec::new();
    for user in ["alice", "bob", "carol"] {
        ids.push(desk.enroll(user).run().expect_code(0).json()["id"].clone());
    }
    let sign = |allowed: &[&Value]| {
        let mut options: Value = serde_json::from_str(&request_options(RP_ID)).unwrap();
        let list: Vec<_> = allowed.iter().map(|id| json!({"type": "public-key", "id": id})).collect();
        options["allowCredentials"] = json!(list);
        desk.call(["sign", "--origin", ORIGIN]).stdin(options.to_string()).pin(PIN)
    };
    assert_eq!(user_handle(&sign(&[&ids[1], &json!("AAAA")]).run().expect_code(0)), b"bob");
    let run = sign(&[&ids[2], &ids[0]]).run().expect_code(15);
    assert!(run.stderr.starts_with("passhold: 1: alice\npasshold: 3: carol\n"), "{}", run.stderr);
    sign(&[&ids[2], &ids[0]]).arg("--account=2").run().expect_code(13);
    sign(&[&json!("AAAA")]).run().expect_code(13);
}

// Where vault, TPM and PIN policy come from.

#[test]
fn tpm_swtpm_warns_keeps_its_state_in_the_vaults_folder_and_leaves_no_process() {
    let passhold = Passhold::new("swtpm");
    let warning = "passhold: warning: --tpm swtpm is a program, and nothing protects its keys; for development and tests only\n";
    let run = passhold.call(["setup"]).pin(PIN).run().expect_code(0);
    assert!(run.stderr.starts_with(warning), "{}", run.stderr);
    let run = passhold.call(["status", "--json"]).run().expect_code(0);
    assert_eq!(run.stderr, warning);
    assert_eq!(run.json()["tpm"]["kind"], "software");
    assert_eq!(mode(&passhold.vault().join("swtpm")), 0o700);
    assert!(passhold.vault().join("swtpm/tpm2-00.permall").exists());
    assert_eq!(swtpms_on(&passhold.vault()), Vec::<u32>::new());
}

#[test]
fn asking_for_a_vault_that_does_not_exist_makes_nothing() {
    let passhold = Passhold::new("swtpm");
    passhold.call(["list"]).run().expect_code(4);
    assert!(!passhold.vault().exists());
}

#[test]
fn tpm_and_vault_come_from_the_option_then_the_environment_then_the_config_file() {
    let desk = Desk::with_vault();
    let (tcti, vault) = (desk.passhold.tpm().to_owned(), desk.passhold.vault());
    desk.config(&format!("tpm = \"{tcti}\"\nvault = \"{}\"", vault.display()));
    let status = desk.passhold.bare(["status", "--json"]).run().expect_code(0).json();
    assert_eq!((&status["vault"], &status["tpm"]["address"]), (&json!(vault), &json!(tcti)));

    let run = desk.passhold.bare(["status"]).env("PASSHOLD_TPM", "device:/dev/env").run().expect_code(7);
    assert!(run.stderr.starts_with("passhold: no TPM at /dev/env\n"), "{}", run.stderr);
    let call =
        desk.passhold.bare(["status", "--tpm=device:/dev/option"]).env("PASSHOLD_TPM", "device:/dev/env");
    let run = call.run().expect_code(7);
    assert!(run.stderr.starts_with("passhold: no TPM at /dev/option\n"), "{}", run.stderr);

    let run = desk.passhold.bare(["list", "--vault=elsewhere"]).run().expect_code(4);
    assert!(run.stderr.starts_with("passhold: there is no vault in elsewhere\n"), "{}", run.stderr);
    fs::remove_file(desk.passhold.home().join(".config/passhold/config.toml")).unwrap();
    let run = desk.passhold.bare(["list"]).env("PASSHOLD_TPM", &tcti).run().expect_code(4);
    let default = desk.passhold.home().join(".local/share/passhold");
    assert!(run.stderr.starts_with(&format!("passhold: there is no vault in {}\n", default.display())));
    let call = desk.passhold.bare(["list"]).env("PASSHOLD_TPM", &tcti).env("XDG_DATA_HOME", "/nonexistent");
    assert!(call.run().stderr.starts_with("passhold: there is no vault in /nonexistent/passhold\n"));
}

#[test]
fn min_pin_length_in_the_config_file_is_the_policys() {
    let desk = Desk::empty();
    desk.config("min-pin-length = 8");
    let run = desk.call(["setup"]).pin("4839203").run().expect_code(16);
    assert!(run.stderr.contains('8'), "{}", run.stderr);
    desk.config("min-pin-length = 4");
    desk.call(["setup"]).pin("4839").run().expect_code(0);
    let run = desk.call(["enroll", "--origin", ORIGIN]).pin("4839");
    run.stdin(creation_options(RP_ID, "alice", "none")).run().expect_code(0);
}

// Secrets, and being interrupted.

#[test]
fn no_secret_is_in_the_arguments_or_the_environment_of_passhold_and_its_swtpm() {
    let passhold = Passhold::new("swtpm");
    passhold.call(["setup"]).pin(PIN).run().expect_code(0);
    let mut running = passhold.call(["pin", "change", "--pin-fd=0"]).owner_auth("ownersecret").start();
    running.wait_for("first the old one\n");
    running.send(format!("{PIN}\n").as_bytes());
    // It has the PIN, and waits for the new one.
    std::thread::sleep(Duration::from_secs(1));
    let swtpms = swtpms_on(&passhold.vault());
    assert_eq!(swtpms.len(), 1);
    for pid in swtpms.into_iter().chain([running.pid()]) {
        for file in ["cmdline", "environ"] {
            let text = match fs::read(format!("/proc/{pid}/{file}")) {
                Ok(text) => String::from_utf8_lossy(&text).into_owned(),
                // Not to be read even by its own user, because it is not dumpable.
                Err(e) => {
                    assert_eq!((e.kind(), file), (std::io::ErrorKind::PermissionDenied, "environ"));
                    continue;
                }
            };
            assert!(!text.is_empty());
            for secret in [PIN, "ownersecret"] {
                assert!(!text.contains(secret), "{secret} is in the {file} of {pid}: {text}");
            }
        }
    }
    running.send(format!("{NEW}\n").as_bytes());
    running.wait().expect_code(0);
}

#[test]
fn a_running_passhold_is_not_dumpable_and_writes_no_core() {
    let desk = Desk::empty();
    let running = desk.unprivileged("exec \"$0\" setup --pin-fd 3 3<>fifo");
    let owner = |pid: u32| fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid();
    let core = |pid: u32| {
        let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
        let line = limits.lines().find(|l| l.starts_with("Max core file size")).unwrap().to_owned();
        line.split_whitespace().skip(4).take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    let is = |pid: u32, name: &str| fs::read_to_string(format!("/proc/{pid}/comm")).unwrap() == name;
    until("passhold", || is(running.id(), "passhold\n"));
    // The kernel gives the files of what is not dumpable to root (proc(5), /proc/pid).
    until("not dumpable", || owner(running.id()) == 0);
    assert_eq!(core(running.id()), ["0", "0"]);
    let another = desk.unprivileged("exec sleep 60");
    until("a program", || is(another.id(), "sleep\n"));
    assert_ne!(owner(another.id()), 0, "any other program's are its user's");
}

#[test]
fn killed_at_the_prompt_the_vault_is_as_before_and_no_swtpm_and_no_counted_try_is_left() {
    let passhold = Passhold::new("swtpm");
    passhold.call(["setup"]).pin(PIN).run().expect_code(0);
    let enroll = passhold.call(["enroll", "--origin", ORIGIN]).pin(PIN);
    enroll.stdin(creation_options(RP_ID, "alice", "none")).run().expect_code(0);
    let database = || fs::read(passhold.vault().join("vault.db")).unwrap();
    let before = database();
    for (signal, number) in [("INT", 2), ("TERM", 15), ("KILL", 9)] {
        let mut running = at_the_prompt(&passhold);
        let swtpms = swtpms_on(&passhold.vault());
        assert_eq!(swtpms.len(), 1);
        // Half a PIN is typed.
        running.send(b"9998");
        running.signal(signal);
        let status = std::os::unix::process::ExitStatusExt::signal(&running.wait().status);
        assert_eq!(status, Some(number), "{signal}");
        until("no swtpm", || swtpms_on(&passhold.vault()).is_empty());
        assert!(database() == before, "{signal} changed the database");
        // SQLite's log of a killed process holds nothing.
        let log = passhold.vault().join("vault.db-wal").metadata().map(|log| log.len());
        assert!(matches!(log, Ok(0) | Err(_)), "{signal} left {log:?}");
        let status = passhold.call(["status", "--json"]).run().expect_code(0).json();
        assert_eq!((&status["triesLeft"], &status["lockout"]["counter"]), (&json!(8), &json!(0)), "{signal}");
    }
    let mut running = at_the_prompt(&passhold);
    running.send(format!("{PIN}\n").as_bytes());
    assert_eq!(user_handle(&running.wait().expect_code(0)), b"alice");
}

#[test]
fn a_pin_descriptor_is_read_from_where_it_stands() {
    let desk = Desk::with_vault();
    desk.enroll("alice").run().expect_code(0);
    let lines = desk.passhold.home().join("lines");
    fs::write(&lines, format!("{WRONG}\n{PIN}\n")).unwrap();
    let mut command = Command::new("sh");
    command.args(["-c", "read -r first; exec \"$0\" \"$@\""]).arg(Program::Passhold.path());
    command.args(["delete", "1", "--pin-fd", "0", "--tpm", desk.passhold.tpm(), "--vault"]);
    let status = command.arg(desk.passhold.vault()).stdin(fs::File::open(lines).unwrap()).status().unwrap();
    assert_eq!(status.code(), Some(0), "the second line is the right PIN");
}

#[test]
fn a_pin_descriptor_may_be_a_socket() {
    let desk = Desk::with_vault();
    desk.enroll("alice").run().expect_code(0);
    let (mut ours, theirs) = std::os::unix::net::UnixStream::pair().unwrap();
    std::io::Write::write_all(&mut ours, format!("{PIN}\n").as_bytes()).unwrap();
    let mut command = Command::new(Program::Passhold.path());
    command.args(["delete", "1", "--pin-fd", "0", "--tpm", desk.passhold.tpm(), "--vault"]);
    command.arg(desk.passhold.vault()).stdin(std::os::fd::OwnedFd::from(theirs));
    assert_eq!(command.status().unwrap().code(), Some(0));
}

/// A TPM and a person's home on it.
struct Desk {
    passhold: Passhold,
    // Dropped after the programs that use it.
    tpm: TestTpm,
}

impl Desk {
    fn empty() -> Self {
        let tpm = TestTpm::start().unwrap();
        Self { passhold: Passhold::new(&tpm.tcti()), tpm }
    }

    fn with_vault() -> Self {
        let tpm = TestTpm::start().unwrap();
        Self { passhold: Passhold::with_vault(&tpm), tpm }
    }

    fn call<'a>(&self, args: impl AsRef<[&'a str]>) -> Call {
        self.passhold.call(args.as_ref())
    }

    fn run<'a>(&self, args: impl AsRef<[&'a str]>) -> Run {
        self.call(args).run().expect_code(0)
    }

    fn json<'a>(&self, args: impl AsRef<[&'a str]>) -> Value {
        self.call(args).arg("--json").run().expect_code(0).json()
    }

    fn enroll(&self, user: &str) -> Call {
        self.call(["enroll", "--origin", ORIGIN]).stdin(creation_options(RP_ID, user, "none")).pin(PIN)
    }

    fn sign(&self) -> Call {
        self.sign_with_pin(PIN)
    }

    fn sign_with_pin(&self, pin: &str) -> Call {
        self.call(["sign", "--origin", ORIGIN]).stdin(request_options(RP_ID)).pin(pin)
    }

    /// A call that finds this in its config file.
    fn misconfigured(&self, text: &str) -> Call {
        let config = self.passhold.home().join(".config").join(text.replace(' ', ""));
        fs::create_dir_all(config.join("passhold")).unwrap();
        fs::write(config.join("passhold/config.toml"), text).unwrap();
        self.call(["list"]).env("XDG_CONFIG_HOME", config)
    }

    /// Writes the config file.
    fn config(&self, text: &str) -> PathBuf {
        let dir = self.passhold.home().join(".config/passhold");
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join("config.toml"), text).unwrap();
        dir.join("config.toml")
    }

    /// Runs an `sh` script, in which $0 is the binary, as nobody where the test runs as root, to whom all is
    /// permitted. `fifo` is one that nobody writes to.
    fn unprivileged(&self, script: &str) -> Ended {
        let home = self.passhold.home();
        fs::set_permissions(home, fs::Permissions::from_mode(0o777)).unwrap();
        let binary = home.join("passhold");
        if !binary.exists() {
            fs::copy(Program::Passhold.path(), &binary).unwrap();
        }
        let mut command = Command::new("setpriv");
        if home.metadata().unwrap().uid() == 0 {
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
        }
        command
            .args(["sh", "-c", &format!("test -p fifo || mkfifo fifo; {script}")])
            .arg(binary)
            .current_dir(home);
        Ended(command.env("HOME", home).env("PASSHOLD_TPM", self.passhold.tpm()).spawn().unwrap())
    }
}

/// A process that ends with the test.
struct Ended(std::process::Child);

impl Ended {
    fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// A `sign` that has said what for, and waits for the PIN on standard input.
fn at_the_prompt(passhold: &Passhold) -> Running {
    let call = passhold.call(["sign", "--origin", ORIGIN, "--pin-fd=0"]).options(&request_options(RP_ID));
    let mut running = call.start();
    running.wait_for("asked by https://example.org\n");
    running
}

/// What every refusal must be, as text and as JSON: nothing on standard output, the message, the next step.
#[track_caller]
fn refused(call: impl Fn() -> Call, code: i32, name: &str, message: &str, next: &str) {
    let run = call().run().expect_code(code);
    assert_eq!(run.stdout, "");
    let expected = format!("passhold: {message}\n{next}\n");
    assert!(run.stderr.ends_with(&expected), "expected {expected}\nfound {}", run.stderr);
    let run = call().arg("--json").run().expect_code(code);
    assert_eq!(run.stdout, "");
    let expected = json!({"exit": code, "name": name, "message": message, "next": next, "triesLeft": null});
    assert_eq!(run.error(), expected);
}

fn user_handle(run: &Run) -> Vec<u8> {
    Base64UrlUnpadded::decode_vec(run.json()["response"]["userHandle"].as_str().unwrap()).unwrap()
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().mode() & 0o777
}

/// The swtpm processes whose state is in this vault's folder.
fn swtpms_on(vault: &Path) -> Vec<u32> {
    let state = format!("dir={}", vault.join("swtpm").display());
    let pids = fs::read_dir("/proc").unwrap().filter_map(|p| p.unwrap().file_name().to_str()?.parse().ok());
    pids.filter(|pid: &u32| {
        let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&command).contains(&state)
    })
    .collect()
}

fn until(what: &str, mut look: impl FnMut() -> bool) {
    let started = Instant::now();
    while !look() {
        assert!(started.elapsed() < Duration::from_secs(20), "still not: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
