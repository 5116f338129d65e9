//! `passhold doctor --fix` and `doctor harden`, used to do harm: by who owns the vault, by who took passholdd over, by what fails midway.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::pedantic)]

mod clinic;

use std::{
    fs,
    io::{Read, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown, symlink},
        net::{UnixListener, UnixStream},
    },
    path::Path,
    process::Command,
    thread,
};

use ciborium::{Value, cbor};
use clinic::{Patient, lines, path};
use swtpm_tests::{
    Machine, PIN, Passhold, TestTpm,
    proxy::{Fault, FaultKind, Proxy},
};

const RULE: &str = "etc/udev/rules.d/72-passhold.rules";
const MALLORY: u32 = 31_001;

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Without what would be mended of the machine, which these tests run on.
fn fix(patient: &Patient) -> swtpm_tests::Run {
    let machine = machine();
    patient.passhold.call(["doctor", "--fix", "--yes"]).under(&machine.runner()).run()
}

fn machine() -> Machine {
    let machine = Machine::without_devices().with_group();
    machine.write("dev/uhid", "");
    machine.write(RULE, include_str!("../../dist/udev/72-passhold.rules"));
    machine
}

#[test]
fn a_link_in_the_place_of_the_vaults_file_has_nobody_elses_mode_changed() {
    let patient = Patient::with_vault();
    let (dir, file) = (patient.passhold.vault(), patient.file());
    let theirs = patient.passhold.home().join("theirs");
    fs::write(&theirs, "").unwrap();
    set_mode(&theirs, 0o644);
    set_mode(&dir, 0o777);
    // Put there after it was looked at, and before.
    let mend = patient.line("vault-permissions").mend.unwrap();
    fs::rename(&file, dir.join("kept")).unwrap();
    symlink(&theirs, &file).unwrap();
    assert!(!Command::new("sh").args(["-c", &mend]).status().unwrap().success(), "{mend}");
    assert_eq!((mode(&theirs), mode(&dir)), (0o644, 0o700));
    let found = format!("{} is no file but a link or a folder", file.display());
    patient.is("vault-permissions", "problem", &found);
    fix(&patient).expect_code(20);
    assert_eq!(mode(&theirs), 0o644);
    fs::rename(dir.join("kept"), &file).unwrap();
    assert_eq!(patient.line("vault-permissions").level, "ok");
}

#[test]
fn root_neither_takes_a_vault_from_its_user_nor_does_what_he_prepared() {
    let patient = Patient::with_vault();
    let (dir, file) = (patient.passhold.vault(), patient.file());
    set_mode(&dir, 0o755);
    let owners = || [&dir, &file].map(|path| fs::metadata(path).unwrap().uid());
    for [of_dir, of_file] in [[MALLORY, MALLORY], [MALLORY, 0], [0, MALLORY]] {
        chown(&dir, Some(of_dir), None).unwrap();
        chown(&file, Some(of_file), None).unwrap();
        patient.is("vault-permissions", "problem", &format!("it belongs to user {MALLORY}"));
        fix(&patient).expect_code(20);
        assert_eq!((owners(), mode(&dir)), ([of_dir, of_file], 0o755));
    }
}

#[test]
fn nobody_is_told_to_take_anothers_vault() {
    let patient = Patient::with_vault();
    let home = patient.passhold.home();
    assert!(Command::new("chown").args(["-R", "31002"]).arg(home).status().unwrap().success());
    for path in [home, &patient.passhold.vault(), &patient.file()] {
        set_mode(path, 0o777);
    }
    let line = lines(patient.doctor().under(clinic::AS_USER)).remove("vault-permissions").unwrap();
    assert_eq!((line.found.as_str(), line.mend), ("it belongs to user 31002", None));
}

#[test]
fn the_rule_is_written_through_no_link_and_whole() {
    let patient = Patient::with_vault();
    let machine = machine();
    let (rule, theirs) = (machine.path(RULE), machine.path("theirs"));
    fs::write(&theirs, "theirs").unwrap();
    fs::remove_file(&rule).unwrap();
    for link in [&rule, &rule.with_file_name("72-passhold.draft")] {
        symlink(&theirs, link).unwrap();
    }
    let run = patient
        .passhold
        .call(["doctor", "--fix", "--yes"])
        .under(&format!("{} sh -c 'umask 077; exec \"$@\"' sh", machine.runner()));
    run.run().expect_code(19);
    assert_eq!(fs::read_to_string(&theirs).unwrap(), "theirs");
    assert!(fs::symlink_metadata(&rule).unwrap().is_file());
    assert_eq!(
        (fs::read_to_string(&rule).unwrap().as_str(), mode(&rule)),
        (include_str!("../../dist/udev/72-passhold.rules"), 0o644)
    );
    assert_eq!(fs::read_dir(rule.parent().unwrap()).unwrap().count(), 1);
}

fn send(stream: &mut UnixStream, message: &Value) {
    let mut bytes = Vec::new();
    ciborium::into_writer(message, &mut bytes).unwrap();
    stream.write_all(&u32::try_from(bytes.len()).unwrap().to_be_bytes()).unwrap();
    stream.write_all(&bytes).unwrap();
}

/// The first connection only shows that somebody listens.
fn asked(listener: &UnixListener) -> UnixStream {
    loop {
        let (mut stream, _) = listener.accept().unwrap();
        if stream.read(&mut [0; 1]).unwrap() == 1 {
            return stream;
        }
    }
}

/// Whoever took passholdd over gets no command run, by root or anyone, and no terminal.
#[test]
fn what_passholdd_says_mends_it_is_told_and_not_done() {
    let home = Passhold::new("unused");
    let (socket, done, machine) = (home.home().join("socket"), home.home().join("done"), machine());
    let touch = format!("touch {}", done.display());
    let mends = [
        serde_json::json!({"Safe": touch}),
        serde_json::json!({"Root": [touch]}),
        serde_json::json!({"Shell": touch}),
        serde_json::json!({"Passhold": [format!("; {touch}")]}),
        serde_json::json!("UdevRule"),
        serde_json::json!("Srk"),
    ];
    let findings: Vec<_> = mends
        .iter()
        .map(|mend| serde_json::json!({"group": "Tpm", "id": "\u{1b}[1mid", "level": "problem", "found": "\u{1b}[2Jgone", "why": "\u{9b}31mwhy\n", "mend": mend, "ours": true}))
        .collect();
    let findings = serde_json::to_string(&findings).unwrap();
    fs::remove_file(machine.path(RULE)).unwrap();
    machine.write(RULE, "# kept unless asked for");
    let listener = UnixListener::bind(&socket).unwrap();
    let serve = thread::spawn(move || {
        // Before and after what it mends of its own, which is the rule.
        [(), ()].map(|()| {
            let mut stream = asked(&listener);
            send(&mut stream, &cbor!({"Print" => findings.clone()}).unwrap());
            send(&mut stream, &cbor!({"End" => (0, null)}).unwrap());
            stream
        })
    });
    let call = home.bare(["--socket"]).arg(&socket).arg("doctor").arg("--fix").arg("--yes");
    let run = call.under(&machine.runner()).env("PATH", path()).run().expect_code(20);
    drop(serve.join().unwrap());
    assert!(!done.exists(), "{}", run.stderr);
    assert!(run.stderr.contains(&format!("to be mended with {touch}")), "{}", run.stderr);
    let said = [run.stdout, run.stderr].concat();
    assert!(said.contains("gone") && !said.contains(|c: char| c.is_control() && c != '\n'), "{said:?}");
}

#[test]
fn an_answer_that_is_none_is_told() {
    let home = Passhold::new("unused");
    let socket = home.home().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let answers = [
        (
            cbor!({"Print" => "what?"}),
            0,
            "passholdd's answer makes no sense: expected value at line 1 column 1",
        ),
        (cbor!({"Note" => "no"}), 1, "passholdd could not do it"),
    ];
    for (says, ends_with, found) in answers {
        let looked = thread::spawn({
            let call = home.bare(["--json", "--socket"]).arg(&socket).arg("doctor");
            move || lines(call).remove("daemon").unwrap()
        });
        let mut stream = asked(&listener);
        send(&mut stream, &says.unwrap());
        send(&mut stream, &cbor!({"End" => (ends_with, null)}).unwrap());
        let line = looked.join().unwrap();
        assert_eq!((line.level.as_str(), line.found.as_str(), line.mend), ("problem", found, None));
    }
}

#[test]
fn passholdd_hardens_for_nobody_whatever_program_asks_and_says_no_secret() {
    let tpm = TestTpm::start().unwrap();
    let home = Passhold::new(&tpm.tcti());
    let (socket, log) = (home.home().join("socket"), home.home().join("log"));
    let state = home.home().join("state");
    fs::create_dir(&state).unwrap();
    let mut daemon = Command::new(swtpm_tests::Program::Passholdd.path())
        .args(["--system", "--tpm", &tpm.tcti(), "--hid"])
        .arg(format!("seqpacket:{}", home.home().join("hid").display()))
        .args(["--state".as_ref(), state.as_os_str(), "--socket".as_ref(), socket.as_os_str()])
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let mut stream = loop {
        if let Ok(stream) = UnixStream::connect(&socket) {
            break stream;
        }
        thread::sleep(std::time::Duration::from_millis(10));
    };
    let harden = cbor!({"Harden" => {"yes" => true, "lockout_auth_fd" => null}}).unwrap();
    let doctor = cbor!({"check_pin" => false, "fix" => true, "yes" => true, "then" => harden}).unwrap();
    let call = cbor!({"command" => {"Doctor" => doctor}, "json" => false, "pin_is_typed" => false, "gives_owner_auth" => false});
    send(&mut stream, &cbor!({"Run" => call.unwrap()}).unwrap());
    let mut said = Vec::new();
    stream.read_to_end(&mut said).unwrap();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("passholdd lets nobody change what all users of the TPM share"), "{said}");
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    assert_eq!(fs::read_to_string(&log).unwrap(), "");
    assert!(tpm.tool("tpm2_dictionarylockout", &["-c"]).unwrap().status.success(), "it is still empty");
}

/// A TPM that fails at any of the commands, having done it or not: the authorization is empty still, or it is the one that was
/// shown, and where that is not known it is said to keep both.
#[test]
fn harden_cut_short_anywhere_locks_nobody_out() {
    let kinds: [fn() -> FaultKind; 3] =
        [|| FaultKind::CutBefore, || FaultKind::CutAfter, || FaultKind::LoseReply(0x101)];
    let mut in_doubt = 0;
    for kind in kinds {
        for at in 0.. {
            let tpm = TestTpm::start().unwrap();
            let proxy = Proxy::start(tpm.port()).unwrap();
            let patient = Patient::on(Passhold::new(&proxy.tcti()), tpm);
            proxy.arm(Fault::once(at, kind()));
            let run = patient.passhold.call(["doctor", "harden", "--yes"]).run();
            let fired = proxy.fired() > 0;
            proxy.disarm();
            let (shown, code) = (run.stdout.trim().to_owned(), run.code());
            let resets =
                |args: &[&str]| patient.tpm.tool("tpm2_dictionarylockout", args).unwrap().status.success();
            // Not by trying: a wrong one shuts the right one out too.
            let about = patient.tpm.tool("tpm2_getcap", &["properties-variable"]).unwrap().stdout;
            let is_empty = String::from_utf8(about)
                .unwrap()
                .lines()
                .any(|line| line.contains("lockoutAuthSet") && line.ends_with(" 0"));
            let holds = !is_empty && resets(&["-c", "-p", &shown]);
            assert!(is_empty || holds, "at {at}: {run:?}");
            if code == Some(0) {
                assert!(holds, "at {at}: {run:?}");
            } else if holds || run.stderr.contains("Keep both") {
                in_doubt += 1;
                assert!(
                    run.stderr.contains("Keep both. \"passhold doctor\" tells whether one is set"),
                    "at {at}: {run:?}"
                );
                let now = patient.line("lockout-auth").level;
                assert_eq!(now, if holds { "ok" } else { "warning" });
            }
            if !fired {
                break;
            }
        }
    }
    assert!(in_doubt >= 3, "{in_doubt}");
}

#[test]
fn a_lockout_authorization_that_can_be_none_is_not_tried() {
    let patient = Patient::with_vault();
    patient.tool("tpm2_changeauth", &["-c", "lockout", "secret"]);
    let given = patient.passhold.home().join("given");
    fs::write(&given, format!("{}\n", "x".repeat(100))).unwrap();
    let harden = patient.passhold.call(["--json", "doctor", "harden", "--yes", "--lockout-auth-fd=5"]);
    let refused = harden.redirect(&format!("5<'{}'", given.display())).run().expect_code(17);
    assert_eq!(refused.error()["message"], "wrong lockout authorization");
    patient.tool("tpm2_dictionarylockout", &["-c", "-p", "secret"]);
}

/// The power goes between the value being shown and the TPM being told.
#[test]
fn what_was_shown_and_never_set_is_good_for_nothing_and_keeps_nothing_from_being_set() {
    let mut patient = Patient::with_vault();
    let mut terminal = patient.passhold.call(["doctor", "harden"]).on_terminal();
    terminal.wait_for("once it is: ");
    let pid = terminal.pid().to_string();
    assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
    drop(terminal);
    patient.tpm.power_cycle().unwrap();
    patient.passhold.set_tpm(&patient.tpm.tcti());
    assert_eq!(patient.line("lockout-auth").level, "warning");
    let shown = patient.passhold.call(["doctor", "harden", "--yes"]).run().expect_code(0).stdout;
    patient.tool("tpm2_dictionarylockout", &["-c", "-p", shown.trim()]);
    patient.passhold.call(["doctor", "--check-pin"]).pin(PIN).run().expect_code(19);
}
