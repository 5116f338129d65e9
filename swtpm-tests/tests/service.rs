//! passholdd as a service: `passhold` through its socket, several users, whoever asks them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::pedantic)]

mod platform;

use std::{
    fs,
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::{
        fs::PermissionsExt,
        net::{UnixListener, UnixStream},
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use ciborium::Value;
use platform::site::{SIGN, Site};
use serde_json::json;
use swtpm_tests::{Call, HidClient, PIN, Passhold, Program, Run, TestTpm, creation_options, request_options};
use tempfile::TempDir;

/// Users that this machine need not know.
const ALICE: u32 = 31_001;
const BOB: u32 = 31_002;
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers each question as a person who agrees and knows the PIN.
const AGREES: &str = r#"#!/bin/sh
echo "OK Pleased to meet you"
while read -r line; do
    case $line in
    GETPIN) printf 'D %s\nOK\n' THE_PIN ;;
    *) echo OK ;;
    esac
done
"#;

/// A system service, and somebody's terminal.
struct System {
    daemon: Child,
    passhold: Passhold,
    dir: TempDir,
    // Last: the others use it.
    tpm: TestTpm,
}

impl System {
    fn start() -> Self {
        let tpm = TestTpm::start().unwrap();
        let dir = tempfile::tempdir().unwrap();
        // Other users come this way.
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let state = dir.path().join("state");
        fs::create_dir(&state).unwrap();
        let pinentry = dir.path().join("pinentry");
        fs::write(&pinentry, AGREES.replace("THE_PIN", PIN)).unwrap();
        fs::set_permissions(&pinentry, fs::Permissions::from_mode(0o755)).unwrap();
        let passhold = Passhold::new(&tpm.tcti());
        let mut system = Self { daemon: spawn(dir.path(), &tpm.tcti()), passhold, dir, tpm };
        system.comes_up();
        system
    }

    fn comes_up(&mut self) {
        let started = Instant::now();
        while UnixStream::connect(self.socket()).is_err() {
            assert!(self.daemon.try_wait().unwrap().is_none(), "passholdd ended");
            assert!(started.elapsed() < PATIENCE);
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("socket")
    }

    /// `passhold --socket … ARGS`, run by this user.
    fn call(&self, user: u32, args: &[&str]) -> Call {
        let call = self.passhold.bare(["--socket"]).arg(self.socket());
        let call = args.iter().fold(call, |call, arg| call.arg(arg));
        call.under(&format!("setpriv --reuid {user} --regid {user} --clear-groups"))
    }

    fn setup(&self, user: u32) -> Run {
        self.call(user, &["setup"]).pin(PIN).run()
    }

    fn enroll(&self, user: u32, account: &str) -> Run {
        let options = creation_options("example.org", account, "none");
        let call = self.call(user, &["enroll", "--origin", "https://example.org", "--options", "-"]);
        call.pin(PIN).stdin(options).run()
    }

    /// Who asks this user, in his session.
    fn asker(&self, user: u32) -> Child {
        let mut command = Command::new(Program::Passholdd.path());
        command.arg("prompt").arg(self.socket()).env_clear().env("PATH", self.dir.path());
        command.stdin(Stdio::null()).stderr(Stdio::null()).uid(user).gid(user).spawn().unwrap()
    }

    fn hid(&self, user: u32) -> PathBuf {
        self.dir.path().join(format!("hid.{user}"))
    }

    fn restart(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
        self.daemon = spawn(self.dir.path(), &self.tpm.tcti());
        self.comes_up();
    }

    fn loaded(&self) -> String {
        let list = |what: &str| self.tpm.tool("tpm2_getcap", &[what]).unwrap().stdout;
        String::from_utf8([list("handles-transient"), list("handles-loaded-session")].concat()).unwrap()
    }
}

fn spawn(dir: &Path, tpm: &str) -> Child {
    let mut command = Command::new(Program::Passholdd.path());
    command.args(["--system", "--tpm", tpm, "--state"]).arg(dir.join("state"));
    command.arg("--socket").arg(dir.join("socket"));
    command.arg("--hid").arg(format!("seqpacket:{}", dir.join("hid").display()));
    command.stdin(Stdio::null()).spawn().unwrap()
}

impl Drop for System {
    fn drop(&mut self) {
        self.daemon.kill().ok();
        self.daemon.wait().ok();
    }
}

fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < PATIENCE, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Other users' programs are run here, which root alone can.
fn is_root() -> bool {
    let root = rustix::process::getuid().is_root();
    if !root {
        eprintln!("*** SKIPPED: only root can be other users; the guest runs this. ***");
    }
    root
}

#[test]
fn every_command_works_the_same_through_the_socket() {
    if !is_root() {
        return;
    }
    let system = System::start();
    let missing = system.call(ALICE, &["list", "--json"]).run().expect_code(4);
    assert!(missing.error()["message"].as_str().unwrap().contains("there is no vault"));
    system.setup(ALICE).expect_code(0);
    let made = system.enroll(ALICE, "alice").expect_code(0).json();
    let sign = || system.call(ALICE, &["sign", "--origin", "https://example.org"]);
    let signed = sign().pin(PIN).stdin(request_options("example.org")).run().expect_code(0).json();
    assert_eq!(made["id"], signed["id"]);
    let wrong = sign().pin("739184").stdin(request_options("example.org")).run().expect_code(5);
    assert!(wrong.stderr.contains("7 tries left"), "{}", wrong.stderr);
    system.call(ALICE, &["rename", "1", "work"]).run().expect_code(0);
    let list = system.call(ALICE, &["--json", "list"]).run().expect_code(0).json();
    assert_eq!(list[0]["name"], "work");
    system.call(ALICE, &["show", "1"]).run().expect_code(0);
    system.call(ALICE, &["status"]).run().expect_code(0);
    system.call(ALICE, &["pin", "change"]).pin(&format!("{PIN}\n314159x")).run().expect_code(0);
    system.call(ALICE, &["delete", "1"]).pin("314159x").run().expect_code(0);
    system.call(ALICE, &["wipe", "--yes"]).run().expect_code(0);
    system.call(ALICE, &["list"]).run().expect_code(4);
    // What only the caller may read, the caller reads.
    let unreadable = system.dir.path().join("secret");
    fs::write(&unreadable, creation_options("example.org", "alice", "none")).unwrap();
    fs::set_permissions(&unreadable, fs::Permissions::from_mode(0o600)).unwrap();
    let call = system.call(ALICE, &["enroll", "--origin", "https://example.org", "--options"]);
    let refused = call.arg(&unreadable).run().expect_code(1);
    assert!(refused.stderr.contains("Permission denied"), "{}", refused.stderr);
}

#[test]
fn one_user_learns_nothing_of_another_not_even_that_he_is_there() {
    if !is_root() {
        return;
    }
    let system = System::start();
    system.setup(ALICE).expect_code(0);
    system.enroll(ALICE, "alice").expect_code(0);
    let nobody = 31_003;
    let commands: [&[&str]; 8] = [
        &["list"],
        &["show", "1"],
        &["rename", "1", "mine"],
        &["delete", "1"],
        &["sign", "--origin", "https://example.org"],
        &["enroll", "--origin", "https://example.org"],
        &["pin", "change"],
        &["wipe", "--yes"],
    ];
    // Before he has a vault, and with one: what he is told is what a user is told on a machine of his own.
    for with_vault in [false, true] {
        if with_vault {
            system.setup(BOB).expect_code(0);
        }
        for args in commands {
            let run = |user: u32| {
                let stdin = if args[0] == "enroll" {
                    creation_options("example.org", "bob", "none")
                } else {
                    request_options("example.org")
                };
                let run = system.call(user, args).pin(&format!("{PIN}\n314159x")).stdin(stdin).run();
                (run.code(), run.stderr.replace(&user.to_string(), "USER"))
            };
            if with_vault && matches!(args[0], "enroll" | "pin" | "wipe") {
                continue;
            }
            let (bob, alone) = (run(BOB), if with_vault { None } else { Some(run(nobody)) });
            assert!(alone.is_none_or(|alone| alone == bob), "{args:?}: {bob:?}");
            assert!(!bob.1.contains("alice"), "{args:?}: {}", bob.1);
        }
    }
    assert_eq!(system.call(ALICE, &["--json", "list"]).run().expect_code(0).json()[0]["userName"], "alice");
    let folder = system.dir.path().join("state").join(ALICE.to_string());
    assert_eq!(fs::metadata(folder).unwrap().permissions().mode() & 0o777, 0o700);
}

#[test]
fn a_user_has_a_device_while_somebody_asks_him_and_it_is_his_alone() {
    if !is_root() {
        return;
    }
    let system = System::start();
    system.setup(ALICE).expect_code(0);
    assert!(!system.hid(ALICE).exists());
    let mut asker = system.asker(ALICE);
    eventually("the device appears", || system.hid(ALICE).exists());
    // The socket lets root in by its mode, and the daemon by nobody's credentials but Alice's.
    let speak = Command::new("setpriv")
        .args([&format!("--reuid={BOB}"), &format!("--regid={BOB}"), "--clear-groups", "python3", "-c"])
        .arg("import socket,sys; s=socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.connect(sys.argv[1])")
        .arg(system.hid(ALICE))
        .output()
        .unwrap();
    assert!(!speak.status.success(), "Bob reaches Alice's device");
    // A second one who would ask does not take the first one's place.
    let mut second = system.asker(ALICE);
    eventually("the second asker is sent away", || second.try_wait().unwrap().is_some());
    assert!(system.hid(ALICE).exists());
    asker.kill().unwrap();
    asker.wait().unwrap();
    eventually("the device goes with him", || !system.hid(ALICE).exists());
    let mut again = system.asker(ALICE);
    eventually("and comes again", || system.hid(ALICE).exists());
    again.kill().unwrap();
    again.wait().unwrap();
}

/// §6.5.5.6: blocked until the daemon is started anew. Who asks is a process of the user's own, which anything of his can end.
#[test]
fn wrong_pins_in_a_row_are_counted_though_the_device_goes_and_comes() {
    if !is_root() {
        return;
    }
    let mut system = System::start();
    system.call(0, &["setup"]).pin(PIN).run().expect_code(0);
    let refusal = |system: &System, pin: &str| {
        let mut asker = system.asker(0);
        eventually("the device appears", || HidClient::answers(&system.hid(0)));
        let token = Site::at(&system.hid(0)).token(pin, SIGN);
        asker.kill().unwrap();
        asker.wait().unwrap();
        eventually("it goes", || !system.hid(0).exists());
        token.err().map(|why| format!("{why:?}"))
    };
    let said = ["000001", "000002", "000003", PIN].map(|pin| refusal(&system, pin).unwrap());
    assert_eq!(said, ["Status(49)", "Status(49)", "Status(52)", "Status(52)"]);
    system.restart();
    assert_eq!(refusal(&system, PIN), None);
    assert_eq!(refusal(&system, "000001").unwrap(), "Status(49)", "and the right one starts the count anew");
}

#[test]
fn terminal_and_device_share_the_vault_behind_the_socket() {
    if !is_root() {
        return;
    }
    // The device's socket lets in its user alone: here that is root, who runs these tests.
    let system = System::start();
    system.call(0, &["setup"]).pin(PIN).run().expect_code(0);
    let mut asker = system.asker(0);
    eventually("the device appears", || HidClient::answers(&system.hid(0)));
    let site = Site::at(&system.hid(0));
    let passkey = site.make(None, "alice").unwrap();
    let list = system.call(0, &["--json", "list"]).run().expect_code(0).json();
    assert_eq!(list[0]["rpId"], "example.org");
    site.sign_in(None, &passkey).unwrap();
    system.call(0, &["delete", "1"]).pin(PIN).run().expect_code(0);
    site.sign_in(None, &passkey).unwrap_err();
    asker.kill().unwrap();
    asker.wait().unwrap();
}

#[test]
fn whoever_says_nothing_or_nonsense_or_goes_away_harms_nobody() {
    if !is_root() {
        return;
    }
    let mut system = System::start();
    system.call(0, &["setup"]).pin(PIN).run().expect_code(0);
    let huge = u32::MAX.to_be_bytes();
    let nonsense: [&[u8]; 5] = [b"", b"\0\0\0\x01\xff", b"GET / HTTP/1.1\r\n\r\n", &huge, b"\0\0\x10\0abc"];
    for bytes in nonsense {
        let mut stream = UnixStream::connect(system.socket()).unwrap();
        stream.write_all(bytes).unwrap();
        stream.shutdown(std::net::Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok();
        assert!(answer.is_empty(), "{bytes:?}");
    }
    // So many that keep their places are no more than their user's own.
    let mut silent: Vec<_> = (0..20).map(|_| UnixStream::connect(system.socket()).unwrap()).collect();
    system.call(BOB, &["list"]).run().expect_code(4);
    assert_ne!(system.call(0, &["list"]).run().code(), Some(0), "a user beyond his connections is served");
    silent.clear();
    eventually("they are forgotten", || system.call(0, &["list"]).run().code() == Some(0));
    // The caller dies at the PIN prompt: nothing is done, and nothing stays loaded.
    let call = system.call(0, &["enroll", "--origin", "https://example.org"]);
    let call = call.options(&creation_options("example.org", "alice", "none"));
    let mut terminal = call.on_terminal();
    terminal.wait_for("PIN: ");
    drop(terminal);
    eventually("nothing stays loaded", || system.loaded().trim().is_empty());
    assert_eq!(system.call(0, &["--json", "list"]).run().expect_code(0).json(), json!([]));
    // The daemon dies: the next one goes on.
    system.restart();
    system.call(0, &["list"]).run().expect_code(0);
}

#[test]
fn a_vault_of_ones_own_is_given_to_the_service_and_is_there_once() {
    if !is_root() {
        return;
    }
    let system = System::start();
    system.passhold.call(["setup"]).pin(PIN).run().expect_code(0);
    let enroll = system.passhold.call(["enroll", "--origin", "https://example.org"]).pin(PIN);
    enroll.options(&creation_options("example.org", "alice", "none")).run().expect_code(0);
    let own = system.passhold.vault();
    let adopt = || system.call(0, &["vault", "adopt"]).arg(&own).pin(PIN).run();
    let kept = fs::read(own.join("vault.db")).unwrap();
    // Whoever has a copy and not the PIN gets nothing by it.
    system.call(0, &["vault", "adopt"]).arg(&own).pin("739184").run().expect_code(5);
    system.call(0, &["list"]).run().expect_code(4);
    assert!(own.join("vault.db").exists());
    adopt().expect_code(0);
    assert!(!own.join("vault.db").exists());
    let sign = || system.call(0, &["sign", "--origin", "https://example.org"]).pin(PIN);
    sign().stdin(request_options("example.org")).run().expect_code(0);
    // Cut before the old one was removed, it goes on; nothing is taken twice.
    fs::write(own.join("vault.db"), &kept).unwrap();
    adopt().expect_code(0);
    assert!(!own.join("vault.db").exists());
    sign().stdin(request_options("example.org")).run().expect_code(0);
    // Nor is what happened since lost: where the old one was used on, it stays.
    fs::write(own.join("vault.db"), &kept).unwrap();
    let enroll = system.passhold.call(["enroll", "--origin", "https://example.org"]).pin(PIN);
    enroll.options(&creation_options("example.org", "bob", "none")).run().expect_code(0);
    adopt().expect_code(18);
    assert_eq!(
        system.passhold.call(["--json", "list"]).run().expect_code(0).json().as_array().unwrap().len(),
        2
    );
    fs::remove_file(own.join("vault.db")).unwrap();
    // Another vault does not take its place, and stays where it is.
    system.passhold.call(["setup"]).pin(PIN).run().expect_code(0);
    let refused = adopt().expect_code(18);
    assert!(refused.stderr.contains("there is a vault"), "{}", refused.stderr);
    system.passhold.call(["list"]).run().expect_code(0);
    // What is none, or of another TPM, is not taken either.
    system.call(0, &["wipe", "--yes"]).run().expect_code(0);
    let other = TestTpm::start().unwrap();
    let elsewhere = Passhold::with_vault(&other);
    let foreign = system.call(0, &["vault", "adopt"]).arg(elsewhere.vault()).pin(PIN).run().expect_code(9);
    assert!(elsewhere.vault().join("vault.db").exists(), "{}", foreign.stderr);
    let junk = system.dir.path().join("junk");
    fs::create_dir(&junk).unwrap();
    fs::write(junk.join("vault.db"), "no database").unwrap();
    system.call(0, &["vault", "adopt"]).arg(&junk).pin(PIN).run().expect_code(10);
    system.call(0, &["list"]).run().expect_code(4);
    // Without a service there is nobody to give it to.
    let alone = system.passhold.call(["vault", "adopt"]).run().expect_code(2);
    assert!(alone.stderr.contains("Start the service"), "{}", alone.stderr);
}

/// Runs `passhold list` on a socket where somebody else answers.
fn list_of(answers: impl FnOnce(&mut UnixStream)) -> Run {
    let home = Passhold::new("unused");
    let socket = home.home().join("socket");
    let listener = UnixListener::bind(&socket).unwrap();
    let listed = thread::spawn({
        let call = home.bare(["--socket"]).arg(&socket).arg("list");
        move || call.run()
    });
    let (mut stream, _) = listener.accept().unwrap();
    answers(&mut stream);
    stream.shutdown(Shutdown::Write).unwrap();
    listed.join().unwrap()
}

fn tell(stream: &mut UnixStream, ask: &Value) -> io::Result<()> {
    let mut message = Vec::new();
    ciborium::into_writer(ask, &mut message).unwrap();
    stream.write_all(&u32::try_from(message.len()).unwrap().to_be_bytes())?;
    stream.write_all(&message)
}

fn hear(stream: &mut UnixStream) -> io::Result<()> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    stream.read_exact(&mut vec![0; u32::from_be_bytes(length).try_into().unwrap()])
}

fn value(json: &serde_json::Value) -> Value {
    Value::serialized(json).unwrap()
}

fn ask(what: &str, with: Value) -> Value {
    Value::Map(vec![(what.into(), with)])
}

/// Somebody who took the service over asks for what the command has nothing to do with.
#[test]
fn the_service_gets_no_file_but_the_commands_own() {
    let origin = [("vault", "".into()), ("aaguid", "".into()), ("exported", 1.into())];
    let origin = Value::Map(origin.map(|(name, value): (&str, Value)| (name.into(), value)).into());
    let asks = ["Input", "VaultPart", "VaultIsTaken", "Plan"].map(Value::from);
    let standing = value(&json!({"tries": {"ByTpm": 8}, "kind": "firmware", "model": ""}));
    let asks =
        asks.into_iter().chain([ask("Export", origin), ask("Gone", "".into()), ask("Overview", standing)]);
    for wanted in asks {
        let mut sent = Vec::new();
        let refused = list_of(|stream| {
            tell(stream, &wanted).unwrap();
            stream.read_to_end(&mut sent).unwrap();
        });
        let refused = refused.expect_code(1);
        assert!(refused.stderr.contains("Nothing was sent"), "{}", refused.stderr);
        let length = u32::from_be_bytes(sent[..4].try_into().unwrap());
        assert_eq!(sent.len(), 4 + usize::try_from(length).unwrap(), "nothing but the command itself");
    }
}

/// Whoever took the service over does not take the caller's terminal over too.
#[test]
fn what_the_service_says_cannot_command_a_terminal() {
    let escape = Value::from("\u{1b}[2Jgone\u{9b}31m\u{7}");
    let end = Value::Array(vec![0.into(), escape.clone()]);
    let said = [("Note", escape.clone()), ("Part", escape.clone()), ("Print", escape), ("End", end)];
    let run =
        list_of(|stream| said.into_iter().for_each(|(what, with)| tell(stream, &ask(what, with)).unwrap()));
    let run = run.expect_code(0);
    let said = [run.stdout, run.stderr].concat();
    assert_eq!(said.matches("gone").count(), 4, "{said:?}");
    assert!(!said.contains(|c: char| c.is_control() && c != '\n'), "{said:?}");
}

/// Nor its memory.
#[test]
fn a_service_that_never_stops_talking_is_left() {
    let long = "x".repeat(1 << 19);
    let passkey = value(&json!({
        "id": 1, "rpId": "", "rpName": "", "userName": long, "displayName": "", "name": null, "userHandle": "",
        "credentialId": "", "takes": "pin", "created": 0, "lastUsed": null, "binned": null,
    }));
    for said in [ask("Part", long.into()), ask("Passkeys", Value::Array(vec![passkey]))] {
        let mut told = 0;
        let run = list_of(|stream| {
            while told < 200 << 20 && tell(stream, &said).and_then(|()| hear(stream)).is_ok() {
                told += 1 << 19;
            }
        });
        assert!(
            run.stderr.starts_with("passhold: passholdd has more to say than any vault holds\n"),
            "{}",
            run.stderr
        );
        assert_eq!((run.code(), run.stdout.as_str()), (Some(1), ""));
        assert!(told < 160 << 20, "{told}");
    }
}

/// No descriptor is left, and who is there goes on being served.
#[test]
fn whoever_takes_its_last_descriptor_does_not_end_it() {
    let mut system = System::start();
    let pid = system.daemon.id().to_string();
    let limit = |soft: &str| {
        let limit = format!("--nofile={soft}:");
        assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
    };
    let open = fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let open: Vec<u32> = open.map(|fd| fd.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect();
    let free = (0..).find(|fd| !open.contains(fd)).unwrap();
    // A connection takes two, so the last is wanted by an accept with one of these limits.
    for spare in [4, 5] {
        limit(&(free + spare).to_string());
        let many: Vec<_> = (0..10).map(|_| UnixStream::connect(system.socket()).unwrap()).collect();
        thread::sleep(Duration::from_millis(300));
        assert!(system.daemon.try_wait().unwrap().is_none(), "passholdd ended");
        drop(many);
    }
    limit("1024");
    eventually("it serves again", || {
        system.passhold.bare(["--socket"]).arg(system.socket()).arg("list").run().code() == Some(4)
    });
}

#[test]
fn asked_to_end_it_ends() {
    let mut system = System::start();
    let pid = rustix::process::Pid::from_child(&system.daemon);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(system.daemon.wait().unwrap().success());
}
