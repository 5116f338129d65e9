//! What `passhold` makes of where it was started: without a terminal, on a narrow one, in a pipe.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::pedantic
)]

use std::{fs, path::PathBuf, thread, time::Duration};

use serde_json::Value;
use swtpm_tests::{
    Call, Desk, Device, PIN, Pinentry, Run, creation_options, crowd,
    proxy::{Fault, FaultKind, Proxy},
    request_options,
};

const ORIGIN: &str = "https://example.org";

/// `passhold sign` as a desktop starts it: no terminal, and this on the search path.
fn sign(desk: &Desk, pinentry: &Pinentry) -> Call {
    let sign = desk.call(["sign", "--origin", ORIGIN]).options(&request_options("example.org"));
    sign.env("PATH", pinentry.path()).env("DISPLAY", ":0")
}

fn tries_left(desk: &Desk) -> u64 {
    desk.json(&["status"])["triesLeft"].as_u64().unwrap()
}

/// A refusal with a next step, that counts no try.
#[track_caller]
fn assert_refused(desk: &Desk, run: &Run, why: &str, case: &str) {
    assert_eq!((run.code(), run.stdout.as_str()), (Some(15), ""), "{case}: {}", run.stderr);
    let said = run.stderr.split_once(why).unwrap_or_else(|| panic!("{case}: {}", run.stderr)).1;
    // The rest of that line, and the next step.
    assert_eq!(said.lines().count(), 2, "{case}: {}", run.stderr);
    assert_eq!(tries_left(desk), 8, "{case}");
}

#[test]
fn without_a_terminal_pinentry_asks_and_says_what_for() {
    for desk in Desk::both() {
        desk.enroll("example.org", "100%").run().expect_code(0);
        let pinentry = Pinentry::new();
        let program = pinentry.path().join("pinentry").display().to_string();
        for (name, value) in
            [("DISPLAY", ":0"), ("WAYLAND_DISPLAY", "wayland-0"), ("PASSHOLD_PINENTRY", &program)]
        {
            pinentry.person(&[&format!("echo 'D {PIN}'; echo OK")]);
            let sign = desk.call(["sign", "--origin", ORIGIN]).options(&request_options("example.org"));
            let path =
                if name == "PASSHOLD_PINENTRY" { "/nowhere".into() } else { pinentry.path().to_owned() };
            let signed = sign.env("PATH", path).env(name, value).run().expect_code(0).json();
            assert_eq!(signed["response"]["userHandle"], "MTAwJQ");
            let told = pinentry.told();
            let about = "SETDESC sign in as 100%25 at example.org, asked by https://example.org\n";
            assert!(told.contains(about), "{told}");
            assert!(told.contains("SETPROMPT PIN:\n") && told.contains("SETTIMEOUT 60\n"), "{told}");
        }
    }
}

#[test]
fn what_pinentry_says_of_a_question_was_told_since_the_one_before() {
    for desk in Desk::both() {
        desk.enroll("example.org", "alice").run().expect_code(0);
        let pinentry = Pinentry::new();
        pinentry.person(&["echo 'D 739184'; echo OK", &format!("echo 'D {PIN}'; echo OK")]);
        sign(&desk, &pinentry).run().expect_code(0);
        let told = pinentry.told();
        let about: Vec<_> = told.lines().filter_map(|line| line.strip_prefix("SETDESC ")).collect();
        let expected = [
            "sign in as alice at example.org, asked by https://example.org",
            "wrong PIN; 7 tries left, counted by the TPM",
        ];
        assert_eq!(about, expected);
    }
}

#[test]
fn a_pinentry_that_does_not_end_well_is_a_refusal_and_counts_no_try() {
    for desk in Desk::both() {
        desk.enroll("example.org", "alice").run().expect_code(0);
        let pinentry = Pinentry::new();
        for (how, why) in [
            ("echo 'ERR 83886179 Operation cancelled <Pinentry>'", "passhold: cancelled"),
            ("echo 'ERR 83886194 Not confirmed <Pinentry>'", "passhold: cancelled"),
            ("echo 'ERR 83886142 Timeout <Pinentry>'", "passhold: nobody answered"),
            ("echo ERR", "passhold: cancelled"),
            ("kill $PPID", "passhold: pinentry does not answer"),
            ("kill -9 $PPID", "passhold: pinentry does not answer"),
            ("printf 'D 27182'; kill -9 $PPID", "passhold: pinentry does not answer"),
            ("printf 'D 271828\\n'; kill -9 $PPID", "passhold: pinentry does not answer"),
            ("printf 'D \\377\\376\\n'; echo OK", "passhold: pinentry does not answer"),
            ("yes 'D 271828' | head -n 1000; echo OK", "passhold: pinentry does not answer"),
            ("head -c 5000 /dev/zero | tr '\\0' x; echo; echo OK", "passhold: pinentry does not answer"),
        ] {
            pinentry.person(&[how]);
            let run = sign(&desk, &pinentry).run();
            assert_refused(&desk, &run, why, how);
            assert_eq!(pinentry.told().matches("GETPIN").count(), 1, "{how}");
        }
        fs::remove_file(pinentry.path().join("pinentry")).unwrap();
        let run = sign(&desk, &pinentry).run();
        assert_refused(&desk, &run, "passhold: pinentry does not answer: No such file", "not installed");
        assert!(run.stderr.contains("Install pinentry"), "{}", run.stderr);
    }
}

/// What is not shown was not agreed to.
#[test]
fn what_does_not_fit_into_a_pinentry_is_not_asked() {
    let desk = Desk::direct();
    let pinentry = Pinentry::new();
    let rp_id = [["a"; 60].concat(), ["b"; 60].concat(), "org".to_owned()].join(".");
    let enroll = desk.call(["enroll", "--origin", &format!("https://{rp_id}")]);
    let mut options: Value = serde_json::from_str(&creation_options(&rp_id, "alice", "none")).unwrap();
    options["user"]["name"] = "%".repeat(250).into();
    let enroll = enroll.options(&options.to_string());
    pinentry.person(&[&format!("echo 'D {PIN}'; echo OK")]);
    let run = enroll.env("PATH", pinentry.path()).env("DISPLAY", ":0").run();
    assert_refused(&desk, &run, "passhold: there is more to show than pinentry takes", "too long");
    assert!(!pinentry.told().contains("GETPIN"), "{}", pinentry.told());
}

#[test]
fn without_a_terminal_and_a_screen_nobody_is_asked() {
    let desk = Desk::direct();
    desk.enroll("example.org", "alice").run().expect_code(0);
    let pinentry = Pinentry::new();
    pinentry.person(&[&format!("echo 'D {PIN}'; echo OK")]);
    let run = sign(&desk, &pinentry).env("DISPLAY", "").run();
    assert_refused(&desk, &run, "passhold: there is no terminal to ask for the PIN on", "no screen");
    // Nor is a line asked for elsewhere than at a terminal.
    let run = desk.call(["wipe"]).env("PATH", pinentry.path()).env("DISPLAY", ":0").run();
    assert_refused(&desk, &run, "passhold: there is no terminal to ask on", "a line");
    assert_eq!(pinentry.told(), "");
}

/// Whoever sits at a terminal is asked there, screen or not.
#[test]
fn on_a_terminal_no_pinentry_asks() {
    for desk in Desk::both() {
        desk.enroll("example.org", "alice").run().expect_code(0);
        let pinentry = Pinentry::new();
        pinentry.person(&[]);
        let mut terminal = sign(&desk, &pinentry).redirect(">signed.json").on_terminal();
        terminal.wait_for("PIN: ");
        terminal.type_hidden(PIN);
        assert_eq!(terminal.wait().code(), Some(0));
        assert_eq!(pinentry.told(), "");
    }
}

#[test]
fn a_table_is_no_wider_than_the_terminal() {
    let user = "alice, with a name that alone is wider than half a terminal";
    for desk in Desk::both() {
        desk.enroll("accounts.example.org", user).run().expect_code(0);
        desk.enroll("example.org", "bob").run().expect_code(0);
        for args in [&["list"][..], &["log"]] {
            let mut terminal = desk.call(args).on_terminal_of(60);
            assert_eq!(terminal.wait().code(), Some(0));
            let screen = terminal.screen();
            let widest = screen.lines().map(|line| line.chars().count()).max();
            assert!(screen.contains("bob") && widest <= Some(60), "{screen}");
            // Where there is no width to keep to, a passkey is one line.
            let printed = desk.call(args).run().expect_code(0).stdout;
            assert!(printed.lines().any(|line| line.contains(user)), "{printed}");
        }
    }
}

/// A vault whose TPM takes its time when it is told to, and `passhold` on it: by itself, or through a passholdd.
struct Slow {
    served: Option<(Device, PathBuf)>,
    proxy: Proxy,
    // Last: the others use it.
    desk: Desk,
}

impl Slow {
    fn both() -> [Self; 2] {
        [false, true].map(|is_served| {
            let mut desk = Desk::direct();
            desk.enroll("example.org", "alice").run().expect_code(0);
            let proxy = Proxy::start(desk.tpm().port()).unwrap();
            desk.passhold.set_tpm(&proxy.tcti());
            let socket = desk.passhold.home().join("socket");
            let args = ["--socket", &socket.display().to_string()];
            let start = || Device::start_with(&desk.passhold.vault(), &proxy.tcti(), PIN, &args);
            let served = is_served.then(|| (start(), socket.clone()));
            Self { served, proxy, desk }
        })
    }

    fn call(&self, args: &[&str]) -> Call {
        match &self.served {
            None => self.desk.call(args),
            Some((_, socket)) => {
                args.iter().fold(self.desk.passhold.bare(["--socket"]).arg(socket), Call::arg)
            }
        }
    }

    /// The TPM's next answer takes so many seconds.
    fn delay(&self, seconds: u64) {
        self.proxy.arm(Fault::once(0, FaultKind::Delay(Duration::from_secs(seconds))));
    }
}

/// What a person sees in the end: after a carriage return a line is written over.
fn seen(screen: &str) -> String {
    let line = |line: &str| {
        let mut seen = Vec::new();
        for part in line.split('\r') {
            let part: Vec<_> = part.chars().collect();
            seen.splice(..part.len().min(seen.len()), part);
        }
        seen.into_iter().collect::<String>().trim_end().to_owned() + "\n"
    };
    screen.lines().map(line).collect()
}

#[test]
fn who_waits_at_a_terminal_sees_that_something_still_happens() {
    for slow in Slow::both() {
        let expected = slow.call(&["list"]).run().expect_code(0).stdout;
        slow.delay(3);
        let mut terminal = slow.call(&["list"]).on_terminal();
        terminal.wait_for("\rpasshold: still at work, 1 s");
        terminal.wait_for("\rpasshold: still at work, 2 s");
        assert_eq!(terminal.wait().code(), Some(0));
        assert_eq!(seen(&terminal.screen()), expected);
        // Nor does anything of it stay before a failure.
        let expected = slow.call(&["show", "9"]).run().expect_code(13).stderr;
        slow.delay(2);
        let mut terminal = slow.call(&["show", "9"]).on_terminal();
        terminal.wait_for("\rpasshold: still at work, 1 s");
        assert_eq!(terminal.wait().code(), Some(13));
        assert_eq!(seen(&terminal.screen()), expected);
    }
}

#[test]
fn nothing_is_drawn_while_a_person_is_asked() {
    for slow in Slow::both() {
        slow.delay(2);
        let sign = slow.call(&["sign", "--origin", ORIGIN]).options(&request_options("example.org"));
        let mut terminal = sign.redirect(">signed.json").on_terminal();
        terminal.wait_for("\rpasshold: still at work, 1 s");
        terminal.wait_for("PIN: ");
        // Longer than whatever else is silent may be.
        thread::sleep(Duration::from_millis(2500));
        let about = "passhold: sign in as alice at example.org, asked by https://example.org\nPIN: ";
        assert!(terminal.screen().ends_with(about), "{}", terminal.screen());
        slow.delay(2);
        terminal.type_hidden(PIN);
        let before = terminal.wait_for("passhold: still at work, 1 s");
        assert_eq!(before, "\n\r");
        assert_eq!(terminal.wait().code(), Some(0));
        let expected = "passhold: sign in as alice at example.org, asked by https://example.org\nPIN:\n\n";
        assert_eq!(seen(&terminal.screen()), expected);
    }
}

#[test]
fn nothing_is_drawn_in_a_pipe_or_beside_json() {
    for slow in Slow::both() {
        let expected = slow.call(&["--json", "list"]).run().expect_code(0).stdout;
        slow.delay(2);
        let run = slow.call(&["--json", "list"]).run().expect_code(0);
        assert_eq!((run.stdout, run.stderr.as_str()), (expected.clone(), ""));
        slow.delay(2);
        assert_eq!(slow.call(&["list"]).run().expect_code(0).stderr, "");
        slow.delay(2);
        let mut terminal = slow.call(&["--json", "list"]).on_terminal();
        assert_eq!(terminal.wait().code(), Some(0));
        assert_eq!(terminal.screen(), expected);
    }
}

#[test]
fn doctor_has_colours_on_a_terminal_that_shows_them() {
    for desk in Desk::both() {
        let doctor = |args: &[&str], env: &[(&str, &str)]| {
            let call = desk.call(["doctor"]).env("TERM", "xterm");
            let call = args.iter().fold(call, Call::arg);
            env.iter().fold(call, |call, (name, value)| call.env(name, value))
        };
        let on_terminal = |args: &[&str], env: &[(&str, &str)]| {
            let mut terminal = doctor(args, env).on_terminal();
            terminal.wait();
            terminal.screen()
        };
        let coloured = on_terminal(&[], &[]);
        assert!(coloured.contains("\n  \u{1b}[32mok      \u{1b}[0m "), "{coloured}");
        for (args, env) in [
            (&[][..], &[("NO_COLOR", "1")][..]),
            (&[], &[("TERM", "dumb")]),
            (&[], &[("CLICOLOR", "0")]),
            (&["--json"], &[]),
            (&["--json"], &[("CLICOLOR_FORCE", "1")]),
        ] {
            let plain = on_terminal(args, env);
            assert!(plain.contains("ok") && !plain.contains('\u{1b}'), "{args:?} {env:?}: {plain}");
        }
        let piped = doctor(&[], &[]).run().stdout;
        assert!(piped.contains("\n  ok       ") && !piped.contains('\u{1b}'), "{piped}");
        let piped = doctor(&["--json"], &[("CLICOLOR_FORCE", "1")]).run().stdout;
        assert!(!piped.contains('\u{1b}'), "{piped}");
    }
}

/// They do not fit into one message.
#[test]
fn a_list_of_thousands_comes_through_passholdd() {
    let desk = Desk::served();
    desk.enroll("example.org", "alice").run().expect_code(0);
    crowd(&desk.passhold.vault(), &mut desk.tpm().key_store(), 5_000);
    let run = desk.call(["list", "--json"]).run().expect_code(0);
    assert!(run.stdout.len() > 1 << 20, "{}", run.stdout.len());
    assert_eq!(run.json().as_array().unwrap().len(), 5_000);
    assert_eq!(run.stdout, desk.passhold.call(["list", "--json"]).run().expect_code(0).stdout);
}
