//! What passholdd asks through pinentry, and what it makes of every way in which that can end.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::pedantic
)]

#[path = "platform/mod.rs"]
mod platform;

use std::{
    fs,
    io::Write,
    process::Command,
    thread,
    time::{Duration, Instant},
};

use ciborium::Value;
use platform::site::{Refusal, SIGN, Site};
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use swtpm_tests::{Device, HidClient, PIN, Passhold, Pinentry, Program, Terminal, TestTpm, creation_options};

/// CTAP 2.2 §8.2.
const OK: u8 = 0;
const OPERATION_DENIED: u8 = 0x27;
const PIN_AUTH_INVALID: u8 = 0x33;
const KEEPALIVE_CANCEL: u8 = 0x2d;
const USER_ACTION_TIMEOUT: u8 = 0x2f;

struct Desk {
    programs: Pinentry,
    passhold: Passhold,
    device: Device,
    client: HidClient,
    // Last: the others use it.
    _tpm: TestTpm,
}

fn map(members: Vec<(Value, Value)>) -> Value {
    Value::Map(members)
}

impl Desk {
    fn new() -> Self {
        let tpm = TestTpm::start().unwrap();
        let passhold = Passhold::with_vault(&tpm);
        let programs = Pinentry::new();
        // What util-linux and glib have for it; what logind says is what is appended to a file.
        for (name, script) in [
            ("notify-send", "#!/bin/sh\necho \"$*\" >>HOME/shown\n"),
            ("setpriv", "#!/bin/sh\nPATH=HOME:/usr/bin:/bin\nshift 2\nexec \"$@\"\n"),
            (
                "gdbus",
                "#!/bin/sh\nPATH=/usr/bin:/bin\n[ \"$*\" = \"monitor --system --dest org.freedesktop.login1\" ] || exit 1\nexec tail -f HOME/said\n",
            ),
        ] {
            programs.program(name, script);
        }
        fs::write(programs.path().join("said"), "").unwrap();
        let device = Device::with_pinentry(&passhold.vault(), &tpm.tcti(), programs.path());
        let client = HidClient::connect(&device.socket());
        Self { programs, passhold, device, client, _tpm: tpm }
    }

    /// Each line answers one question.
    fn person(&self, script: &[&str]) {
        self.programs.person(script);
    }

    /// What pinentry was told since.
    fn told(&self) -> String {
        self.programs.told()
    }

    fn enroll(&self, user: &str) {
        let enroll = self.passhold.call(["enroll", "--origin", "https://example.org"]).pin(PIN);
        enroll.options(&creation_options("example.org", user, "none")).run().expect_code(0);
    }

    fn make_request() -> Vec<u8> {
        let parameters = map(vec![
            (1.into(), Value::Bytes(vec![7; 32])),
            (2.into(), map(vec![("id".into(), "example.org".into())])),
            (3.into(), map(vec![("id".into(), Value::Bytes(vec![1])), ("name".into(), "bob\n100%".into())])),
            (
                4.into(),
                Value::Array(vec![map(vec![
                    ("alg".into(), (-7).into()),
                    ("type".into(), "public-key".into()),
                ])]),
            ),
        ]);
        let mut request = vec![0x01];
        ciborium::into_writer(&parameters, &mut request).unwrap();
        request
    }

    fn make(&self) -> u8 {
        self.client.call(0x10, &Self::make_request()).1[0]
    }

    fn sign_in(&self) -> (u8, Value) {
        let parameters = map(vec![(1.into(), "example.org".into()), (2.into(), Value::Bytes(vec![7; 32]))]);
        self.client.ctap(0x02, &parameters)
    }

    fn passkeys(&self) -> usize {
        let listed = self.passhold.call(["--json", "list"]).run().expect_code(0).json();
        listed.as_array().unwrap().len()
    }
}

#[test]
fn the_prompt_names_site_and_account_and_the_pin_typed_there_is_consent() {
    let desk = Desk::new();
    desk.person(&[&format!("echo 'D {PIN}'; echo OK")]);
    assert_eq!(desk.make(), OK);
    let told = desk.told();
    // What would rewrite the line is replaced, and what Assuan would unescape is escaped.
    assert!(told.contains("SETDESC Create a passkey at example.org for \"bob\u{fffd}100%25\"?\n"), "{told}");
    assert!(told.contains("SETPROMPT PIN:\n") && told.contains("SETTIMEOUT 60\n"), "{told}");
    assert!(!told.contains("SETERROR"), "{told}");
    assert_eq!(desk.passkeys(), 1);
}

#[test]
fn the_prompt_says_that_a_rule_asks() {
    let desk = Desk::new();
    desk.passhold.call(["rules", "add", "ask", "*.org"]).pin(PIN).run().expect_code(0);
    desk.person(&[&format!("echo 'D {PIN}'; echo OK")]);
    assert_eq!(desk.make(), OK);
    assert!(desk.told().contains("\"? Your rule \"ask *.org\" asks.\n"), "{}", desk.told());
    // And where one forbids, nobody is asked.
    desk.passhold.call(["rules", "add", "never", "*"]).pin(PIN).run().expect_code(0);
    desk.person(&[&format!("echo 'D {PIN}'; echo OK")]);
    assert_eq!(desk.make(), OPERATION_DENIED);
    assert_eq!(desk.told(), "");
}

#[test]
fn a_prompt_for_a_token_says_all_that_the_token_is_for() {
    let desk = Desk::new();
    let site = platform::site::Site::connect(&desk.device);
    let platform = site.platform().unwrap();
    for (permissions, rp_id, wish) in [
        (0x01, Some("example.org"), "create a passkey at example.org"),
        (0x03, Some("example.org"), "create a passkey at example.org, and sign in at example.org"),
        (0x04, None, "list, rename and delete passkeys"),
        (0x12, Some("example.org"), "sign in at example.org, and replace what sites keep in Passhold"),
        // A site named with what is for none makes no sign-in of it.
        (0x20, Some("example.org"), "change Passhold's settings"),
        (0x40, Some("example.org"), "list all passkeys, until the PIN is changed"),
    ] {
        desk.person(&[&format!("echo 'D {PIN}'; echo OK")]);
        site.call(0x06, &platform.token_using_uv(permissions, rp_id)).unwrap();
        let told = desk.told();
        assert!(told.contains(&format!("SETDESC A program wants to {wish}.\n")), "{told}");
    }
    // It is the only prompt of a sign-in, so it says as whom; the fourth name would hide the question.
    for (user, as_whom) in [
        ("alice", r#"as "alice""#),
        ("bob", r#"as "alice" or "bob""#),
        ("carol", r#"as "alice" or "bob" or "carol""#),
        ("dave", "with one of 4 passkeys"),
    ] {
        desk.enroll(user);
        desk.person(&[&format!("echo 'D {PIN}'; echo OK")]);
        site.call(0x06, &platform.token_using_uv(SIGN, Some("example.org"))).unwrap();
        let told = desk.told();
        let question = format!("SETDESC A program wants to sign in at example.org {as_whom}.\n");
        assert!(told.contains(&question), "{told}");
    }
}

#[test]
fn a_prompt_that_does_not_end_well_is_a_refusal() {
    let desk = Desk::new();
    for (how, status) in [
        ("echo 'ERR 83886179 Operation cancelled <Pinentry>'", OPERATION_DENIED),
        ("echo 'ERR 83886194 Not confirmed <Pinentry>'", OPERATION_DENIED),
        ("echo 'ERR 83886142 Timeout <Pinentry>'", USER_ACTION_TIMEOUT),
        ("echo ERR", OPERATION_DENIED),
        ("kill $PPID", OPERATION_DENIED),
        ("kill -9 $PPID", OPERATION_DENIED),
        ("printf 'D 49'; kill -9 $PPID", OPERATION_DENIED),
        ("echo 'D '; echo OK", OPERATION_DENIED),
        ("echo OK", OPERATION_DENIED),
        ("printf 'D \\377\\376\\n'; echo OK", OPERATION_DENIED),
        ("head -c 5000 /dev/zero | tr '\\0' x; echo; echo OK", OPERATION_DENIED),
    ] {
        desk.person(&[how]);
        assert_eq!(desk.make(), status, "{how}");
    }
    assert_eq!(desk.passkeys(), 0);
    // None of them was a try.
    let status = desk.passhold.call(["--json", "status"]).run().expect_code(0).json();
    assert_eq!(status["triesLeft"], 8, "{status}");
}

#[test]
fn without_a_pinentry_everything_is_refused() {
    let desk = Desk::new();
    fs::remove_file(desk.programs.path().join("pinentry")).unwrap();
    assert_eq!(desk.make(), OPERATION_DENIED);
    assert_eq!(desk.client.call(0x10, &[0x0b]).1, [OPERATION_DENIED]);
    assert_eq!(desk.passkeys(), 0);
}

#[test]
fn a_wrong_pin_is_asked_for_again_with_what_is_left() {
    let desk = Desk::new();
    desk.person(&["echo 'D 739184'; echo OK", &format!("echo 'D {PIN}'; echo OK")]);
    assert_eq!(desk.make(), OK);
    assert!(desk.told().contains("SETERROR 7 tries left\n"), "{}", desk.told());
}

#[test]
fn of_several_passkeys_one_after_the_other_is_offered() {
    let desk = Desk::new();
    desk.enroll("alice");
    desk.enroll("bob");
    let pin = format!("echo 'D {PIN}'; echo OK");
    let not_this = "echo 'ERR 83886194 Not confirmed <Pinentry>'";
    desk.person(&[not_this, "echo OK", &pin]);
    let (status, answer) = desk.sign_in();
    assert_eq!(status, OK);
    let chosen =
        answer.as_map().unwrap().iter().any(|(key, value)| *key == 6.into() && *value == true.into());
    assert!(chosen, "{answer:?}");
    let asked: Vec<_> =
        desk.told().lines().filter_map(|l| l.strip_prefix("SETDESC ")).map(str::to_owned).collect();
    let (alice, bob) = ("Sign in to example.org as \"alice\"?", "Sign in to example.org as \"bob\"?");
    assert_eq!(asked, [bob, alice, alice]);
    desk.person(&[not_this, not_this]);
    assert_eq!(desk.sign_in().0, OPERATION_DENIED);
}

#[test]
fn a_pin_with_escapes_is_read_as_it_was_typed() {
    let tpm_pin = "10%0A\u{fc}%41z";
    let desk = Desk::new();
    desk.passhold.call(["pin", "change"]).pin(&format!("{PIN}\n{tpm_pin}")).run().expect_code(0);
    desk.person(&["echo 'D 10%250A\u{fc}%2541z'; echo OK"]);
    assert_eq!(desk.make(), OK);
}

#[test]
fn cancel_ends_a_prompt_at_once_and_meanwhile_there_are_keepalives_and_no_second_prompt() {
    let desk = Desk::new();
    desk.person(&["exec sleep 100"]);
    desk.client.send(0x10, &Desk::make_request());
    let mut keepalives = 0;
    while keepalives < 5 {
        let (command, status) = desk.client.receive();
        assert_eq!(command, 0x3b);
        // 1: the TPM works; 2: the person thinks.
        keepalives += usize::from(status == [2]);
    }
    let other = HidClient::connect(&desk.device.socket());
    assert_eq!(other.call(0x10, &Desk::make_request()), (0x3f, vec![0x06]), "the channel is busy");
    // Nobody else can take it back.
    other.send(0x11, &[]);
    assert_eq!(other.call(0x10, &[0x04]), (0x3f, vec![0x06]));
    let cancelled = Instant::now();
    desk.client.send(0x11, &[]);
    let answer = loop {
        let (command, data) = desk.client.receive();
        if command != 0x3b {
            break (command, data);
        }
    };
    assert_eq!(answer, (0x10, vec![KEEPALIVE_CANCEL]));
    assert!(cancelled.elapsed() < Duration::from_secs(10), "long before the prompt would have ended");
    let pids = fs::read_to_string(desk.programs.path().join("pids")).unwrap();
    // Another process ends it, once it hears of it.
    let alive = || Command::new("kill").arg("-0").args(pids.split_whitespace()).status().unwrap().success();
    while alive() {
        assert!(cancelled.elapsed() < Duration::from_secs(10), "the prompt stays");
        thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(desk.told().matches("GETPIN").count(), 1);
    // And the next one is asked anew.
    desk.person(&[&format!("echo 'D {PIN}'; echo OK")]);
    assert_eq!(desk.make(), OK);
    assert_eq!(desk.passkeys(), 1);
}

/// A token is good for nothing once the screen is locked, or the machine goes to sleep.
#[test]
fn what_logind_says_of_the_screen_and_of_sleep_ends_every_proof_of_the_pin() {
    let desk = Desk::new();
    let said = desk.programs.path().join("said");
    let site = Site::at(&desk.device.socket());
    desk.person(&[&format!("echo 'D {PIN}'; echo OK")]);
    let passkey = site.make(None, "alice").unwrap();
    // As gdbus prints it.
    let lines = [
        ("/org/freedesktop/login1/session/_32: org.freedesktop.login1.Session.Unlock ()", false),
        ("/org/freedesktop/login1: org.freedesktop.login1.Manager.PrepareForSleep (false,)", false),
        ("/org/freedesktop/login1/session/_32: org.freedesktop.login1.Session.Lock ()", true),
        (
            "/org/freedesktop/login1/session/_32: org.freedesktop.DBus.Properties.PropertiesChanged ('org.freedesktop.login1.Session', {'LockedHint': <false>}, @as [])",
            false,
        ),
        (
            "/org/freedesktop/login1/session/_32: org.freedesktop.DBus.Properties.PropertiesChanged ('org.freedesktop.login1.Session', {'LockedHint': <true>}, @as [])",
            true,
        ),
        ("/org/freedesktop/login1: org.freedesktop.login1.Manager.PrepareForSleep (true,)", true),
    ];
    for (line, locks) in lines {
        let token = site.token(PIN, SIGN).unwrap();
        fs::OpenOptions::new()
            .append(true)
            .open(&said)
            .unwrap()
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
        thread::sleep(Duration::from_millis(500));
        desk.person(&["echo OK"]);
        match site.sign_in(Some(&token), &passkey) {
            Ok(()) => assert!(!locks, "{line}"),
            Err(Refusal::Status(PIN_AUTH_INVALID)) => assert!(locks, "{line}"),
            Err(other) => panic!("{line}: {other:?}"),
        }
    }
    let token = site.token(PIN, SIGN).unwrap();
    let daemon = Pid::from_raw(desk.device.pid().try_into().unwrap()).unwrap();
    kill_process(daemon, Signal::USR1).unwrap();
    thread::sleep(Duration::from_millis(200));
    assert!(matches!(site.sign_in(Some(&token), &passkey), Err(Refusal::Status(PIN_AUTH_INVALID))));
}

#[test]
fn a_notification_is_shown_beside_the_prompt_and_at_a_wink_and_no_site_writes_markup_in_it() {
    let desk = Desk::new();
    desk.client.send(0x08, &[]);
    assert_eq!(desk.client.receive(), (0x08, Vec::new()));
    let shown = || fs::read_to_string(desk.programs.path().join("shown")).unwrap_or_default();
    let eventually = |text: &str| {
        let started = Instant::now();
        while !shown().contains(text) {
            assert!(started.elapsed() < Duration::from_secs(10), "{}", shown());
            thread::sleep(Duration::from_millis(10));
        }
    };
    eventually("This is Passhold");
    desk.person(&[&format!("echo 'D {PIN}'; echo OK")]);
    let site = Site::at(&desk.device.socket());
    site.make(None, "<b>alice</b> & co").unwrap();
    eventually("&lt;b&gt;alice&lt;/b&gt; &amp; co");
    assert!(!shown().contains("<b>"), "{}", shown());
}

#[test]
fn on_a_terminal_pinentry_curses_asks() {
    let tpm = TestTpm::start().unwrap();
    let passhold = Passhold::with_vault(&tpm);
    let socket = passhold.home().join("hid");
    let mut daemon = Command::new(Program::Passholdd.path());
    daemon.args(["--prompt", "tty", "--tpm", &tpm.tcti(), "--vault"]).arg(passhold.vault());
    daemon.arg("--hid").arg(format!("seqpacket:{}", socket.display())).env("TERM", "xterm");
    let mut terminal = Terminal::start(daemon);
    let started = Instant::now();
    while !HidClient::answers(&socket) {
        assert!(started.elapsed() < Duration::from_secs(10), "{}", terminal.screen());
        thread::sleep(Duration::from_millis(10));
    }
    let made = thread::spawn({
        let site = Site::at(&socket);
        move || site.make(None, "alice").map(drop)
    });
    terminal.wait_for("example.org");
    terminal.wait_for("PIN:");
    terminal.type_keys(&format!("{PIN}\r"));
    made.join().unwrap().unwrap();
}

/// The process that asks.
fn asker(desk: &Desk) -> Pid {
    let pid = desk.device.pid();
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    Pid::from_raw(children.trim().parse().unwrap()).unwrap()
}

/// Until pinentry was asked for a PIN.
fn wait_for_the_question(desk: &Desk) {
    let started = Instant::now();
    while !desk.told().contains("GETPIN") {
        assert!(started.elapsed() < Duration::from_secs(10), "nobody is asked");
        thread::sleep(Duration::from_millis(5));
    }
}

/// The answer to what was sent.
fn answer(desk: &Desk) -> Vec<u8> {
    loop {
        let (command, data) = desk.client.receive();
        if command != 0x3b {
            return data;
        }
    }
}

#[test]
fn when_the_process_that_asks_is_killed_everything_is_refused_at_once() {
    let desk = Desk::new();
    desk.person(&["exec sleep 100"]);
    desk.client.send(0x10, &Desk::make_request());
    wait_for_the_question(&desk);
    let killed = Instant::now();
    kill_process(asker(&desk), Signal::KILL).unwrap();
    assert_eq!(answer(&desk), [OPERATION_DENIED]);
    assert_eq!(desk.make(), OPERATION_DENIED);
    assert_eq!(desk.client.call(0x10, &[0x0b]).1, [OPERATION_DENIED]);
    assert!(killed.elapsed() < Duration::from_secs(10));
    assert_eq!(desk.passkeys(), 0);
}

#[test]
fn a_process_that_hangs_holds_up_no_cancel_and_its_late_answer_is_no_consent() {
    let desk = Desk::new();
    let asker = asker(&desk);
    kill_process(asker, Signal::STOP).unwrap();
    desk.client.send(0x10, &Desk::make_request());
    while desk.client.receive() != (0x3b, vec![2]) {}
    desk.client.send(0x11, &[]);
    assert_eq!(answer(&desk), [KEEPALIVE_CANCEL]);
    assert_eq!(desk.passkeys(), 0);
    desk.person(&[&format!("echo 'D {PIN}'; echo OK")]);
    kill_process(asker, Signal::CONT).unwrap();
    assert_eq!(desk.make(), OK);
    assert_eq!(desk.passkeys(), 1);
}

#[test]
fn a_prompt_ends_with_the_daemon() {
    let desk = Desk::new();
    desk.person(&["exec sleep 100"]);
    desk.client.send(0x10, &Desk::make_request());
    wait_for_the_question(&desk);
    let asker = asker(&desk);
    kill_process(Pid::from_raw(desk.device.pid() as i32).unwrap(), Signal::KILL).unwrap();
    let started = Instant::now();
    while test_kill_process(asker).is_ok() {
        assert!(started.elapsed() < Duration::from_secs(10), "it asks for nobody");
        thread::sleep(Duration::from_millis(5));
    }
    let pids = fs::read_to_string(desk.programs.path().join("pids")).unwrap();
    let alive = Command::new("kill").arg("-0").args(pids.split_whitespace()).status().unwrap();
    assert!(!alive.success(), "the prompt is gone");
}
