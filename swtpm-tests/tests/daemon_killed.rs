//! `passholdd` killed at any TPM command of any command that uses the TPM: the next one starts as if nothing had been, the
//! vault is as before or as after, and the TPM holds nothing of it.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::pedantic
)]

mod common;
mod platform;

use std::{
    fs,
    io::Read,
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::Arc,
};

use common::Wire;
use platform::{
    Token,
    site::{Answer, MAKE, MANAGE, Passkey, Refusal, SIGN, Site, status},
};
use rustix::process::{Pid, Signal, kill_process};
use swtpm_tests::{
    Device, PIN,
    proxy::{Fault, FaultKind, Proxy, command_name},
    scale,
};
use tempfile::TempDir;
use tpm_backend::swtpm::Swtpm;
use vault_core::PIN_LIMIT;

const NEW_PIN: &str = "314159x";

/// A command that uses the TPM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Command {
    SetPin,
    ChangePin,
    PinToken,
    Make,
    SignIn,
    Delete,
    Rename,
    Reset,
}

const COMMANDS: [Command; 8] = [
    Command::SetPin,
    Command::ChangePin,
    Command::PinToken,
    Command::Make,
    Command::SignIn,
    Command::Delete,
    Command::Rename,
    Command::Reset,
];

/// What a platform can tell of a vault: users, their names, the PIN.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    passkeys: Vec<(String, String)>,
    pin: &'static str,
}

impl Command {
    fn before(self) -> Option<State> {
        let passkeys = ["alice", "bob"].map(|user| (user.to_owned(), user.to_owned()));
        (self != Self::SetPin).then(|| State { passkeys: passkeys.to_vec(), pin: PIN })
    }

    fn after(self) -> Option<State> {
        let Some(mut state) = self.before() else { return Some(State { passkeys: vec![], pin: PIN }) };
        match self {
            Self::ChangePin => state.pin = NEW_PIN,
            Self::Make => state.passkeys.push(("carol".into(), "carol".into())),
            Self::Delete => drop(state.passkeys.remove(0)),
            Self::Rename => state.passkeys[0].1 = "Alice".into(),
            Self::Reset => return None,
            Self::SetPin | Self::PinToken | Self::SignIn => {}
        }
        Some(state)
    }

    /// What it needs a token for.
    fn token(self, site: &Site) -> Option<Token> {
        let permission = match self {
            Self::Make => MAKE,
            Self::SignIn => SIGN,
            Self::Delete | Self::Rename => MANAGE,
            _ => return None,
        };
        Some(site.token(PIN, permission).unwrap())
    }

    fn run(self, site: &Site, token: Option<&Token>, alice: Option<&Passkey>) -> Answer<()> {
        match self {
            Self::SetPin => site.set_pin(PIN),
            Self::ChangePin => site.change_pin(PIN, NEW_PIN),
            Self::PinToken => site.pin_token(PIN).map(drop),
            Self::Make => site.make(token, "carol").map(drop),
            Self::SignIn => site.sign_in(token, alice.unwrap()),
            Self::Delete => site.delete(token.unwrap(), &alice.unwrap().id),
            Self::Rename => site.rename(token.unwrap(), &alice.unwrap().id, "alice", "Alice"),
            Self::Reset => site.reset(),
        }
    }
}

/// Whether the TPM still does the command at which the daemon dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Last {
    Done,
    Lost,
}

/// A state of file and TPM to come back to.
struct Bench {
    root: TempDir,
    command: Command,
    alice: Option<Passkey>,
}

/// What runs in it.
struct Scene {
    // Before the TPM that it uses.
    device: Device,
    site: Site,
    proxy: Proxy,
    tpm: Swtpm,
}

#[derive(Debug, Default)]
struct Tally {
    kills: usize,
    old: usize,
    new: usize,
    acknowledged: usize,
    most_tries: u32,
}

impl Bench {
    fn new(command: Command) -> Self {
        let root = tempfile::tempdir().unwrap();
        for name in ["tpm.0", "vault.0"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        let tpm = Swtpm::start(&root.path().join("tpm.0")).unwrap();
        let mut alice = None;
        if let Some(State { passkeys, pin }) = command.before() {
            let device = Device::start(&root.path().join("vault.0"), &tpm.tcti(), pin);
            let site = Site::connect(&device);
            site.set_pin(pin).unwrap();
            for (user, _) in passkeys {
                let made = site.make(None, &user).unwrap();
                alice.get_or_insert(made);
            }
            device.stop();
        }
        Self { root, command, alice }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    /// Puts file and TPM back, and starts TPM and daemon.
    fn restore(&self) -> Scene {
        for name in ["vault", "tpm"] {
            drop(fs::remove_dir_all(self.path(name)));
            copy(&self.path(&format!("{name}.0")), &self.path(name));
        }
        let tpm = Swtpm::start(&self.path("tpm")).unwrap();
        let proxy = Proxy::start(tpm.port()).unwrap();
        let device = Device::start(&self.path("vault"), &proxy.tcti(), PIN);
        let site = Site::connect(&device);
        Scene { device, site, proxy, tpm }
    }

    fn run(&self, scene: &Scene, token: Option<&Token>) -> Answer<()> {
        self.command.run(&scene.site, token, self.alice.as_ref())
    }

    /// The TPM commands of an undisturbed run.
    fn count(&self) -> Vec<u32> {
        let scene = self.restore();
        let token = self.command.token(&scene.site);
        scene.proxy.clear_record();
        self.run(&scene, token.as_ref()).unwrap();
        let codes = scene.proxy.codes();
        assert_eq!(look(&scene.site), self.command.after(), "{:?}", self.command);
        scene.device.stop();
        codes
    }

    /// The daemon dies at this TPM command.
    fn kill(&self, at: usize, last: Last, point: &str, tally: &mut Tally) {
        let mut scene = self.restore();
        let token = self.command.token(&scene.site);
        let (pid, upstream) = (Pid::from_raw(scene.device.pid() as i32).unwrap(), scene.proxy.upstream());
        let nowhere = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap().port();
        let kill = move || {
            if last == Last::Lost {
                upstream.set(nowhere);
            }
            // It may have answered and be dead already.
            kill_process(pid, Signal::KILL).ok();
        };
        scene.proxy.arm(Fault::once(at, FaultKind::Before(Arc::new(kill))));
        let answer = self.run(&scene, token.as_ref());
        scene.proxy.disarm();
        scene.device.kill();
        wait_for(&scene.proxy);
        match &answer {
            Err(Refusal::Gone(_)) => assert_eq!(scene.proxy.fired(), 1, "{point}"),
            // The last commands clear up, and the answer need not wait for them.
            Ok(()) => tally.acknowledged += 1,
            Err(e) => panic!("{point}: {e:?}"),
        }
        scene.proxy.set_upstream(scene.tpm.port());
        // What a dead client held is freed by the kernel's resource manager; swtpm has none.
        let wire = Wire::new(scene.tpm.port());
        wire.loaded().into_iter().for_each(|handle| wire.flush(handle));

        scene.device.restart();
        scene.site = Site::connect(&scene.device);
        let spent = PIN_LIMIT - u32::from(scene.site.tries().unwrap_or_else(|e| panic!("{point}: {e:?}")));
        assert!(spent <= 1, "{point}: {spent} tries");
        let found = look(&scene.site);
        tally.kills += 1;
        if found == self.command.after() {
            tally.new += 1;
        } else {
            assert_eq!(found, self.command.before(), "{point}: neither as before nor as after");
            assert!(answer.is_err(), "{point}: acknowledged, and not done");
            tally.old += 1;
        }
        if found.is_none() {
            // Whatever was left, there is room for a vault now.
            scene.site.set_pin(PIN).unwrap_or_else(|e| panic!("{point}: {e:?}"));
            assert!(look(&scene.site).is_some());
        }
        tally.most_tries = tally.most_tries.max(spent);
        scene.device.stop();
        assert_eq!(wire.loaded(), [0_u32; 0], "{point}: loaded in the TPM");
        let mut tool = std::process::Command::new("tpm2_getcap");
        let tool = tool.arg("handles-nv-index").env("TPM2TOOLS_TCTI", scene.tpm.tcti()).output().unwrap();
        let indices = String::from_utf8(tool.stdout).unwrap();
        assert_eq!(indices.lines().count(), 4, "{point}: NV indices {indices}");
        let files = fs::read_dir(self.path("vault")).unwrap();
        let mut files: Vec<_> = files.map(|file| file.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        assert_eq!(files, ["lock", "vault.db"], "{point}: files");
    }
}

/// What is there, all of which must work.
fn look(site: &Site) -> Option<State> {
    if !site.has_pin() {
        return None;
    }
    let (pin, token) = match site.token(PIN, MANAGE) {
        Ok(token) => (PIN, token),
        Err(Refusal::Status(status::PIN_INVALID)) => (NEW_PIN, site.token(NEW_PIN, MANAGE).unwrap()),
        Err(e) => panic!("{e:?}"),
    };
    let listed = site.list(&token).unwrap();
    for listed in &listed {
        let token = site.token(pin, SIGN).unwrap();
        site.sign_in(Some(&token), &listed.passkey).unwrap();
    }
    Some(State { passkeys: listed.into_iter().map(|listed| (listed.user, listed.name)).collect(), pin })
}

/// Returns when the proxy is done with the connections it has: it serves one after the other.
fn wait_for(proxy: &Proxy) {
    let mut ours = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port())).unwrap();
    ours.shutdown(Shutdown::Write).unwrap();
    assert_eq!(ours.read(&mut [0]).unwrap(), 0);
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}

#[test]
fn a_daemon_killed_at_any_tpm_command_leaves_the_old_vault_or_the_new_one() {
    let every = scale(13, 1);
    let mut turn = 0;
    for command in COMMANDS {
        let bench = Bench::new(command);
        let codes = bench.count();
        let mut tally = Tally::default();
        for (at, code) in codes.iter().enumerate() {
            for last in [Last::Done, Last::Lost] {
                turn += 1;
                if turn % every == 0 {
                    let point = format!("{command:?} killed at {at} {}, {last:?}", command_name(*code));
                    bench.kill(at, last, &point, &mut tally);
                }
            }
        }
        println!("daemon killed, {command:?}, {} TPM commands: {tally:?}", codes.len());
    }
}
