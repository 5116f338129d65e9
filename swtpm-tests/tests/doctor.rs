//! `passhold doctor` on TPMs and vaults that are really so: each line is reached, and what it says mends it does.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::pedantic)]

mod clinic;

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    sync::Arc,
    time::{Duration, SystemTime},
};

use clinic::{ANEW, AS_USER, Answer, PIN_TWICE, Patient, WRITTEN, YES, lines};
use sha2::{Digest, Sha256};
use swtpm_tests::{
    PIN, Passhold, TestTpm, creation_options, pin,
    proxy::{Fault, FaultKind, Proxy, Rewriter, command_name},
    rng,
};
use vault_core::{
    Unlocked, Vault,
    container::{Container, State},
    keystore::KeyStore,
};

const WRONG: &str = "999888777x";
const NEW_PIN: &str = "314159x";
const ORIGIN: &str = "https://example.org";
const SRK: &str = "0x81000001";

// The TPM.

#[test]
fn nothing_answers_where_the_tpm_was_and_it_is_ok_once_it_is_back() {
    let mut patient = Patient::with_vault();
    let other = patient.tpm.tcti();
    patient.tpm.reboot().unwrap();
    patient.is("tpm", "problem", &format!("no TPM at {other}"));
    patient.passhold.set_tpm(&patient.tpm.tcti());
    assert_eq!(patient.line("tpm").level, "ok");
}

/// With `TPM_PT` `property` of this value.
fn with_property(property: u32, value: [u8; 4], look: impl FnOnce(&Passhold)) {
    let tpm = TestTpm::start().unwrap();
    let proxy = Proxy::start(tpm.port()).unwrap();
    let rewrite: Rewriter = Arc::new(move |_, mut reply| {
        if let Some(at) = reply.windows(4).position(|window| window == property.to_be_bytes()) {
            reply[at + 4..at + 8].copy_from_slice(&value);
        }
        reply
    });
    proxy.arm(Fault::continuous(0, FaultKind::Rewrite(rewrite)));
    look(&Passhold::new(&proxy.tcti()));
}

#[test]
fn its_kind_and_its_version_are_what_it_says() {
    let look = |passhold: &Passhold, id: &str| {
        let line = lines(passhold.call(["doctor", "--json"])).remove(id).unwrap();
        (line.level, line.found, line.mend)
    };
    let line = |level: &str, found: &str| (level.to_owned(), found.to_owned(), None);
    for (maker, expected) in [
        (b"IFX\0", line("ok", "a chip of its own")),
        (b"INTC", line("ok", "in the processor's firmware")),
        (b"IBM ", line("warning", "software")),
    ] {
        with_property(0x105, *maker, |passhold| assert_eq!(look(passhold, "tpm-kind"), expected));
    }
    for (revision, expected) in [
        (116_u32, line("problem", "specification 1.16")),
        (138, line("ok", "specification 1.38")),
        (164, line("ok", "specification 1.64")),
    ] {
        with_property(0x102, revision.to_be_bytes(), |p| assert_eq!(look(p, "tpm-version"), expected));
    }
}

#[test]
fn owner_auth_is_empty_or_set() {
    let patient = Patient::with_vault();
    patient.is("owner-auth", "ok", "the owner authorization is empty");
    patient.tool("tpm2_changeauth", &["-c", "owner", "secret"]);
    patient.is("owner-auth", "ok", "the owner authorization is set");
    let (count, own) = (patient.line("pin-tries").found, "by Passhold's own count");
    assert!(count.contains(own), "{count}");
}

#[test]
fn harden_sets_limits_and_an_authorization_that_alone_resets_the_count() {
    let patient = Patient::with_vault();
    patient.is_mended("lockout-auth", "warning", "the lockout authorization is empty", &WRITTEN);
    assert_eq!(patient.line("lockout-limits").found, "32 failures allowed, one more every 10 minutes");
    assert!(!patient.tpm.tool("tpm2_dictionarylockout", &["-c"]).unwrap().status.success());

    let other = Patient::empty();
    let found = "3 failures allowed, one more every 17 minutes";
    other.is_mended("lockout-limits", "warning", found, &WRITTEN);

    // By whoever has the authorization, where there is one.
    let owned = Patient::empty();
    owned.tool("tpm2_changeauth", &["-c", "lockout", "known"]);
    let mend = owned.line("lockout-limits").mend.unwrap();
    assert!(mend.ends_with(" doctor harden --yes --lockout-auth-fd 0 <FILE"), "{mend}");
    let file = owned.passhold.home().join("lockout");
    fs::write(&file, "known\n").unwrap();
    let harden = ["doctor", "harden", "--yes", "--lockout-auth-fd=0"];
    owned.passhold.call(harden).redirect(&format!("0<'{}'", file.display())).run().expect_code(0);
    owned.is("lockout-limits", "ok", "32 failures allowed, one more every 10 minutes");
}

#[test]
fn harden_shows_the_value_that_then_holds_and_replaces_it_for_whoever_has_it() {
    let patient = Patient::with_vault();
    let harden = |args: &[&str]| patient.passhold.call(["doctor", "harden", "--yes"].iter().chain(args));
    let first = harden(&[]).run().expect_code(0).stdout;
    patient.tool("tpm2_dictionarylockout", &["-c", "-p", first.trim()]);
    let refused = harden(&["--json"]).run().expect_code(17).error();
    assert_eq!(refused["message"], "the TPM's lockout authorization is set already");
    let give = |value: &str| {
        let path = patient.passhold.home().join("lockout");
        fs::write(&path, format!("{value}\n")).unwrap();
        harden(&["--json", "--lockout-auth-fd=5"]).redirect(&format!("5<'{}'", path.display())).run()
    };
    let second = give(first.trim()).expect_code(0).json()["lockoutAuth"].as_str().unwrap().to_owned();
    assert_eq!(second.len(), 32);
    patient.tool("tpm2_dictionarylockout", &["-c", "-p", &second]);
    assert_eq!(give(first.trim()).expect_code(17).error()["message"], "wrong lockout authorization");
}

#[test]
fn harden_changes_nothing_before_the_value_was_written_down() {
    let patient = Patient::empty();
    patient.passhold.call(["doctor", "harden"]).run().expect_code(15);
    let mut terminal = patient.passhold.call(["doctor", "harden"]).on_terminal();
    terminal.wait_for("once it is: ");
    terminal.type_line("yes");
    assert_eq!(terminal.wait().code(), Some(15));
    assert_eq!(patient.line("lockout-auth").level, "warning");
}

#[test]
fn the_new_lockout_authorization_does_not_cross_the_bus() {
    for vault in [true, false] {
        let tpm = TestTpm::start().unwrap();
        let proxy = Proxy::start(tpm.port()).unwrap();
        let passhold = Passhold::new(&proxy.tcti());
        if vault {
            passhold.call(["setup"]).pin(PIN).run().expect_code(0);
        }
        let value = passhold.call(["doctor", "harden", "--yes"]).run().expect_code(0).stdout;
        let (value, log) = (value.trim().as_bytes().to_owned(), proxy.record());
        assert!(log.iter().any(|exchange| exchange.code() == 0x129), "TPM2_HierarchyChangeAuth");
        let shows = |bytes: &[u8]| bytes.windows(value.len()).any(|window| window == value);
        assert!(!log.iter().any(|exchange| shows(&exchange.command) || shows(&exchange.response)));
    }
}

/// As another program that guesses.
fn fail(patient: &Patient, times: usize) {
    patient.tool(
        "tpm2_nvdefine",
        &["0x1500099", "-C", "o", "-s", "8", "-a", "authread|authwrite", "-p", "right"],
    );
    for _ in 0..times {
        let read = patient.tpm.tool("tpm2_nvread", &["0x1500099", "-C", "0x1500099", "-P", "wrong"]);
        assert!(!read.unwrap().status.success());
    }
}

#[test]
fn failures_are_counted_and_in_lockout_the_time_is_told() {
    for (times, level) in [(1, "warning"), (3, "problem")] {
        let patient = Patient::with_vault();
        fail(&patient, times);
        let found = format!("{times} of 3 failures counted; one is forgotten in 17 minutes at the latest");
        patient.is_mended("lockout", level, &found, &[]);
    }
    // With a lockout authorization it heals by time alone, or by whoever has that.
    let patient = Patient::with_vault();
    patient.tool("tpm2_changeauth", &["-c", "lockout", "secret"]);
    fail(&patient, 1);
    patient.is("lockout", "warning", "1 of 3 failures counted; one is forgotten in 17 minutes at the latest");
}

#[test]
fn what_other_programs_left_loaded_is_flushed() {
    let patient = Patient::with_vault();
    let context = patient.passhold.home().join("context");
    for _ in 0..3 {
        patient.tool("tpm2_createprimary", &["-Q", "-C", "o", "-c", context.to_str().unwrap()]);
    }
    patient.is_mended("tpm-room", "problem", "no room: other programs left keys or sessions loaded", &[]);
}

#[test]
fn nv_space_is_full_until_something_goes() {
    let patient = Patient::empty();
    let index = |n: u32| format!("{:#x}", 0x0150_0000 + n);
    let mut defined = 0;
    for size in ["2048", "256", "32"] {
        let args = ["-C", "o", "-s", size, "-a", "ownerread|ownerwrite"];
        while patient
            .tpm
            .tool("tpm2_nvdefine", &[&[index(defined).as_str()], args.as_slice()].concat())
            .unwrap()
            .status
            .success()
        {
            defined += 1;
        }
    }
    patient.is("nv-space", "warning", "no room for NV indices");
    for n in 0..defined {
        patient.tool("tpm2_nvundefine", &["-C", "o", &index(n)]);
    }
    assert_eq!(patient.line("nv-space").level, "ok");
}

#[test]
fn a_missing_storage_root_key_is_put_back_and_looking_for_it_does_not() {
    for patient in [Patient::empty(), Patient::with_vault()] {
        if patient.file().exists() {
            patient.tool("tpm2_evictcontrol", &["-Q", "-C", "o", "-c", SRK]);
        }
        assert_eq!(patient.line("srk").level, "warning");
        let patient = patient.for_user();
        patient.is_mended("srk", "warning", "there is no storage root key", &YES);
    }
}

#[test]
fn another_key_in_the_storage_root_keys_place_is_told_from_it() {
    let patient = Patient::with_vault().for_user();
    let context = patient.passhold.home().join("context");
    let context = context.to_str().unwrap();
    let take_its_place = |patient: &Patient, args: &[&str]| {
        let primary = [["-Q", "-C", "o", "-c", context].as_slice(), args].concat();
        patient.tool("tpm2_createprimary", &primary);
        patient.tool("tpm2_evictcontrol", &["-Q", "-C", "o", "-c", context, SRK]);
        patient.tool("tpm2_flushcontext", &["-t"]);
    };
    patient.tool("tpm2_evictcontrol", &["-Q", "-C", "o", "-c", SRK]);
    take_its_place(&patient, &["-G", "rsa2048"]);
    let found = "another key is in the place of the vault's storage root key";
    patient.is_mended("srk", "problem", found, &YES);
    assert_eq!(patient.line("vault-keys").level, "ok");

    let patient = Patient::empty().for_user();
    take_its_place(&patient, &["-G", "ecc"]);
    let found = "the key at 0x81000001 is no storage root key: its attributes are not 0x00030472";
    patient.is_mended("srk", "problem", found, &YES);
}

#[test]
fn which_storage_root_key_is_right_may_not_be_told() {
    let patient = Patient::with_vault();
    patient.tool("tpm2_evictcontrol", &["-Q", "-C", "o", "-c", SRK]);
    patient.tool("tpm2_changeauth", &["-c", "owner", "secret"]);
    patient.is("srk", "problem", "the TPM's owner authorization is needed");
    let given = lines(patient.doctor().owner_auth("secret")).remove("srk").unwrap();
    assert_eq!((given.level.as_str(), given.found.as_str()), ("warning", "there is no storage root key"));
    let mend = patient.passhold.call(["doctor", "--fix", "--yes"]).owner_auth("secret").under(AS_USER);
    let patient = patient.for_user();
    mend.run().expect_code(19);
    assert_eq!(patient.line("srk").level, "ok");

    let anchor = [b"junk".as_slice(), &Sha256::digest(b"junk")].concat();
    let file = rusqlite::Connection::open(patient.file()).unwrap();
    file.execute("UPDATE header SET anchor = ?1", [anchor]).unwrap();
    drop(file);
    patient.is("srk", "warning", "which storage root key is needed cannot be told");
}

// The vault.

#[test]
fn no_vault_and_one_whose_beginning_or_end_was_cut() {
    let patient = Patient::empty();
    let none = format!("there is no vault in {}", patient.passhold.vault().display());
    patient.is_mended("vault", "warning", &none, &PIN_TWICE);
    let mark = |state| {
        let mut tpm = patient.tpm.key_store();
        let container = Container::open(&patient.passhold.vault()).unwrap();
        let key = tpm.container_key(&container.anchor().unwrap()).unwrap();
        container.unseal(&key).unwrap().set_state(state).unwrap();
    };
    mark(State::Provisioning);
    patient.is_mended("vault", "problem", "the vault's set-up was interrupted", &PIN_TWICE);
    mark(State::Wiping);
    patient.is_mended("vault", "problem", "a wipe of the vault was begun and not completed", &ANEW);
}

#[test]
fn a_vault_that_another_process_uses_is_busy() {
    let patient = Patient::with_vault();
    let held = Container::open(&patient.passhold.vault()).unwrap();
    let line = patient.line("vault");
    let busy = format!("the vault is busy: process {} uses it", std::process::id());
    assert_eq!((line.level.as_str(), line.found), ("problem", busy));
    drop(held);
    assert_eq!(patient.line("vault").level, "ok");
}

#[test]
fn permissions_are_put_right() {
    let patient = Patient::with_vault();
    let (dir, file) = (patient.passhold.vault(), patient.file());
    let set =
        |path: &std::path::Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    for (folder, about) in [(0o755, 0o600), (0o700, 0o644)] {
        set(&dir, folder);
        set(&file, about);
        let found = format!("folder {folder:04o}, file {about:04o}");
        patient.is_mended("vault-permissions", "warning", &found, &[]);
    }
}

#[test]
fn fix_asks_before_it_mends_and_mends_what_it_printed() {
    let patient = Patient::with_vault();
    let dir = patient.passhold.vault();
    let mode = || fs::metadata(&dir).unwrap().permissions().mode() & 0o777;
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    patient.passhold.call(["doctor", "--fix"]).run().expect_code(15);
    // Nothing of the machine is root's to mend here.
    let patient = patient.for_user();
    let fix = || patient.passhold.call(["doctor", "--fix"]).under(AS_USER);
    for (answer, expected) in [("n", 0o755), ("y", 0o700)] {
        let mut terminal = fix().on_terminal();
        let asked = terminal.wait_for("[y/N] ");
        assert!(asked.contains("chmod 700"), "{asked}");
        terminal.type_line(answer);
        assert_eq!(terminal.wait().code(), Some(19), "{}", terminal.screen());
        assert_eq!(mode(), expected);
    }
}

#[test]
fn a_clock_that_is_behind_the_vaults_file_is_told() {
    let patient = Patient::with_vault();
    let written = |at| fs::File::open(patient.file()).unwrap().set_modified(at).unwrap();
    assert_eq!(patient.line("clock").level, "ok");
    written(SystemTime::now() + Duration::from_secs(86_400));
    let line = patient.line("clock");
    assert!(
        line.found.starts_with("the clock is behind the vault's file, which was written at 20"),
        "{line:?}"
    );
    assert_eq!((line.level.as_str(), line.mend), ("warning", None));
    written(SystemTime::now());
    assert_eq!(patient.line("clock").level, "ok");
}

#[test]
fn a_file_that_is_damaged_foreign_or_of_a_later_format_is_told() {
    let patient = Patient::with_vault();
    let good = fs::read(patient.file()).unwrap();
    let edit = |sql: &str| rusqlite::Connection::open(patient.file()).unwrap().execute_batch(sql).unwrap();
    edit("UPDATE header SET generation = 7");
    patient.is("vault-file", "problem", "the vault is damaged: its header was changed");
    edit("UPDATE header SET anchor = x'00'");
    patient.is("vault", "problem", "the vault is damaged: its header was changed");
    edit("CREATE TABLE more (id INTEGER) STRICT");
    patient.is("vault", "problem", "the vault is damaged: its tables are not the ones Passhold made");
    edit("PRAGMA user_version = 9");
    patient.is("vault", "problem", "the vault has format 9; this Passhold knows up to 2");
    fs::write(patient.file(), "something else").unwrap();
    let foreign = format!("{} is not a Passhold vault", patient.file().display());
    patient.is("vault", "problem", &foreign);
    fs::write(patient.file(), good).unwrap();
    assert_eq!(["vault", "vault-file"].map(|id| patient.line(id).level), ["ok", "ok"]);
}

#[test]
fn keys_that_are_not_in_this_tpm_any_more() {
    let patient = Patient::with_vault();
    patient.tool("tpm2_clear", &["-Q", "-c", "p"]);
    patient.is_mended(
        "vault-keys",
        "problem",
        "this TPM does not hold the vault's keys: it was cleared",
        &ANEW,
    );

    let mut patient = Patient::with_vault();
    let (own, other) = (patient.passhold.tpm().to_owned(), TestTpm::start().unwrap());
    patient.passhold.set_tpm(&other.tcti());
    patient.is(
        "vault-keys",
        "problem",
        "this TPM does not hold the vault's keys: it is not the one that made them",
    );
    // Whose endorsement seed may not be asked.
    assert!(other.tool("tpm2_changeauth", &["-c", "endorsement", "secret"]).unwrap().status.success());
    let either = "this TPM does not hold the vault's keys: it was cleared, or it is another one";
    patient.is("vault-keys", "problem", either);
    patient.passhold.set_tpm(&own);
    assert_eq!(patient.line("vault-keys").level, "ok");

    let listed = patient.tpm.tool("tpm2_getcap", &["handles-nv-index"]).unwrap().stdout;
    for index in String::from_utf8(listed).unwrap().lines() {
        patient.tool("tpm2_nvundefine", &["-C", "o", index.trim_start_matches("- ")]);
    }
    patient.is_mended("vault-keys", "problem", "the vault's secrets are no longer in the TPM", &ANEW);
}

#[test]
fn the_secret_alone_is_missed_before_an_unlock_would() {
    let patient = Patient::with_vault();
    let secret = patient.index(72);
    patient.tool("tpm2_nvundefine", &["-C", "o", &secret]);
    let another = [secret.as_str(), "-C", "o", "-s", "72", "-a", "ownerread|ownerwrite"];
    for (found, defined) in [
        ("the vault's secrets are no longer in the TPM", None),
        ("the secret index in the TPM is not the one that set-up made", Some(another)),
    ] {
        defined.into_iter().for_each(|args| patient.tool("tpm2_nvdefine", &args));
        let line = patient.line("vault-keys");
        assert_eq!((line.level.as_str(), line.found.as_str()), ("problem", found));
    }
    patient.tool("tpm2_nvundefine", &["-C", "o", &secret]);
    patient.is_mended("vault-keys", "problem", "the vault's secrets are no longer in the TPM", &ANEW);
}

#[test]
fn wrong_pins_are_set_back_by_a_right_one_until_there_are_eight() {
    let patient = Patient::with_vault();
    let enroll = |pin: &str| {
        let call = patient.passhold.call(["enroll", "--origin", ORIGIN]).pin(pin);
        call.stdin(creation_options("example.org", "alice", "none")).run().code()
    };
    assert_eq!(enroll(WRONG), Some(5));
    let left = "7 tries left, counted by the TPM";
    patient.is_mended("pin-tries", "warning", left, &[Answer::Pin(PIN)]);
    let lock = || (0..8).for_each(|_| assert_eq!(enroll(WRONG), Some(5)));
    lock();
    patient.is_mended("pin-tries", "problem", "no tries left", &reset_with(&patient.code));

    let patient = Patient::empty();
    patient.passhold.call(["setup", "--no-recovery-code"]).pin(PIN).run().expect_code(0);
    let try_it = || patient.passhold.call(["recovery", "renew"]).pin(WRONG).run().expect_code(5);
    (0..8).for_each(|_| drop(try_it()));
    patient.is_mended("pin-tries", "problem", "no tries left", &ANEW);
}

/// Another PIN, by the recovery code.
fn reset_with(code: &str) -> [Answer<'_>; 3] {
    [
        Answer::Hidden("Recovery code: ", code),
        Answer::Hidden("New PIN: ", NEW_PIN),
        Answer::Hidden("more: ", NEW_PIN),
    ]
}

#[test]
fn the_count_of_wrong_pins_alone_is_missed() {
    let patient = Patient::with_vault();
    patient.tool("tpm2_nvundefine", &["-C", "o", &patient.index(8)]);
    patient.is_mended("pin-tries", "problem", "the vault's secrets are no longer in the TPM", &ANEW);
}

#[test]
fn a_pin_reset_that_was_cut_short_is_completed_with_the_same_code() {
    let tpm = TestTpm::start().unwrap();
    let proxy = Proxy::start(tpm.port()).unwrap();
    let patient = Patient::on(Passhold::new(&proxy.tcti()), tpm).set_up();
    // The TPM has the new PIN by then, and the vault does not know.
    let lost: Rewriter = Arc::new(|command, reply| match command[6..10] {
        [0, 0, 0x01, 0x3b] => [&[0x80, 0x01, 0, 0, 0, 10][..], &0x101_u32.to_be_bytes()].concat(),
        _ => reply,
    });
    proxy.arm(Fault::continuous(0, FaultKind::Rewrite(lost)));
    let reset = patient.passhold.call(["pin", "reset"]).pin(&format!("{}\n{NEW_PIN}", patient.code));
    reset.run().expect_code(1);
    proxy.disarm();
    let check = lines(patient.doctor().arg("--check-pin").pin(NEW_PIN)).remove("generation").unwrap();
    assert_eq!(check.level, "problem", "{check:?}");
    let begun = "a PIN reset was begun and not completed";
    patient.is_mended("vault", "problem", begun, &reset_with(&patient.code));
    assert_eq!(lines(patient.doctor().arg("--check-pin").pin(NEW_PIN))["generation"].level, "ok");
}

#[test]
fn a_vault_without_a_recovery_code_gets_one_and_so_does_one_whose_code_is_gone_from_the_tpm() {
    let patient = Patient::empty();
    patient.passhold.call(["setup", "--no-recovery-code"]).pin(PIN).run().expect_code(0);
    patient.is_mended("recovery-code", "warning", "there is no recovery code", &[Answer::Pin(PIN)]);

    let patient = Patient::with_vault();
    assert!(patient.line("recovery-code").found.starts_with("the one that was made 20"));
    let index = patient.index(64);
    patient.tool("tpm2_nvundefine", &["-C", "o", &index]);
    let gone = "what the recovery code opens is no longer in the TPM";
    let reset =
        patient.passhold.call(["--json", "pin", "reset"]).pin(&format!("{}\n{NEW_PIN}", patient.code));
    assert_eq!(reset.run().expect_code(9).error()["message"], gone);
    patient.is_mended("recovery-code", "problem", gone, &[Answer::Pin(PIN)]);

    patient.tool("tpm2_nvundefine", &["-C", "o", &index]);
    patient.tool("tpm2_nvdefine", &[&index, "-C", "o", "-s", "64", "-a", "ownerread|ownerwrite"]);
    patient.is("recovery-code", "problem", "the recovery index in the TPM is not the one that set-up made");
}

fn unlocked(patient: &Patient, and: impl FnOnce(Unlocked<'_>)) {
    let mut keys = patient.tpm.key_store();
    let mut vault = Vault::open(&patient.passhold.vault(), &mut keys).unwrap();
    and(vault.unlock(&pin(PIN)).unwrap());
}

#[test]
fn a_pin_that_must_be_changed_or_is_older_than_the_policy_allows() {
    let patient = Patient::with_vault();
    assert!(patient.line("pin-age").found.starts_with("set 20"));
    let change = |old, new| {
        [Answer::Hidden("PIN: ", old), Answer::Hidden("New PIN: ", new), Answer::Hidden("more: ", new)]
    };
    unlocked(&patient, |unlocked| unlocked.require_pin_change(&mut rng()).unwrap());
    let line = patient.line("pin-age");
    assert!(line.found.starts_with("the PIN must be changed: set 20"), "{line:?}");
    patient.is_mended("pin-age", "warning", &line.found, &change(PIN, NEW_PIN));

    let patient = Patient::with_vault();
    let config = patient.passhold.home().join(".config/passhold");
    fs::create_dir_all(&config).unwrap();
    fs::write(config.join("config.toml"), "pin-max-age-days = 90\n").unwrap();
    unlocked(&patient, |unlocked| unlocked.begin(None, 86_400, &mut rng()).unwrap());
    let line = patient.line("pin-age");
    assert!(line.found.starts_with("the PIN is older than the policy allows: set 1970-01-02"), "{line:?}");
    patient.is_mended("pin-age", "warning", &line.found, &change(PIN, NEW_PIN));
}

#[test]
fn an_old_copy_is_told_to_whoever_gives_the_pin() {
    let patient = Patient::with_vault();
    let old = fs::read(patient.file()).unwrap();
    let enroll = patient.passhold.call(["enroll", "--origin", ORIGIN]).pin(PIN);
    enroll.stdin(creation_options("example.org", "alice", "none")).run().expect_code(0);
    let new = fs::read(patient.file()).unwrap();
    let check = |pin: &str| lines(patient.doctor().arg("--check-pin").pin(pin)).remove("generation").unwrap();
    fs::write(patient.file(), &old).unwrap();
    let (line, unproven) = (check(PIN), patient.line("generation"));
    let rolled_back = "the vault's file is an old copy: it holds change 1, and the TPM remembers change 2";
    assert_eq!((line.level.as_str(), line.found.as_str()), ("problem", rolled_back));
    let honest = "the file is at change 1; --check-pin asks the TPM for its count";
    assert_eq!((unproven.level.as_str(), unproven.found.as_str()), ("ok", honest));
    fs::write(patient.file(), new).unwrap();
    let newest = check(PIN);
    assert_eq!((newest.level.as_str(), newest.found.as_str()), ("ok", "file and TPM are at change 2"));
    fs::write(patient.file(), old).unwrap();
    patient.shell(&line.mend.unwrap(), &[Answer::Pin(PIN)]);
    assert_eq!(check(PIN).level, "ok");
    assert_eq!(check(WRONG).found, "wrong PIN; 7 tries left, counted by the TPM");
}

#[test]
fn looking_costs_few_tpm_commands_and_none_that_takes_a_chip_long() {
    let tpm = TestTpm::start().unwrap();
    let proxy = Proxy::start(tpm.port()).unwrap();
    let patient = Patient::on(Passhold::new(&proxy.tcti()), tpm).set_up();
    proxy.clear_record();
    patient.line("tpm");
    let names: Vec<_> = proxy.codes().into_iter().map(command_name).collect();
    for dear in ["CreatePrimary", "Create", "PolicySecret", "unknown"] {
        assert!(!names.contains(&dear), "{names:?}");
    }
    let row = format!("| doctor | {} |", names.len());
    assert!(include_str!("../../docs/architecture.md").contains(&row), "{row} {names:?}");
}

#[test]
fn looking_costs_no_try_and_changes_nothing() {
    let patient = Patient::with_vault();
    let before = fs::read(patient.file()).unwrap();
    let known = || {
        [
            "handles-persistent",
            "handles-transient",
            "handles-loaded-session",
            "handles-saved-session",
            "handles-nv-index",
            "properties-variable",
        ]
        .map(|what| patient.tpm.tool("tpm2_getcap", &[what]).unwrap().stdout)
    };
    let tpm = known();
    for _ in 0..3 {
        patient.line("tpm");
    }
    assert!(known() == tpm && fs::read(patient.file()).unwrap() == before);
}
