//! What each operation costs: TPM commands, and time against a floor measured in the same run. Ends with an error where
//! an operation exceeds its budget, or a sign-in takes longer among more passkeys.
//!
//! The floor is the key derivation plus as many of the TPM's cheapest commands as the operation sends: no
//! program that sends these commands is faster.
#![allow(clippy::unwrap_used, clippy::print_stdout, clippy::print_stderr, missing_docs)]

use std::{
    cell::Cell,
    path::Path,
    process::{Command, ExitCode},
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use swtpm_tests::{
    PIN, Program, Scene, Tmux, creation_options, crowd, key_store, pin,
    proxy::{Proxy, command_name},
    request_options, rng,
};
use vault_core::{
    Vault,
    keystore::KeyStore,
    pin::PinSecrets,
    webauthn::{CreateRequest, GetRequest, Origin, UserPresent},
};

const RUNS: usize = 21;

/// The design's, in TPM commands; for set-up and PIN change what docs/architecture.md states.
const BUDGET: [(&str, usize); 6] = [
    ("set-up", 38),
    ("list", 8),
    ("enrol", 15),
    ("enrol, packed self", 19),
    ("sign", 15),
    ("PIN change", 38),
];

/// What the program may take for a whole vault of 100,000 passkeys, beside the TPM's time.
const CROWD: Duration = Duration::from_secs(1);

/// How much longer a sign-in may take among 100,000 passkeys than among 10.
const FLAT: f64 = 1.10;

fn main() -> ExitCode {
    tpm_backend::prepare_libtss2();
    let bench = Bench::new();
    bench.operations();
    bench.sizes();
    if bench.failed.get() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

struct Bench {
    scene: Scene,
    proxy: Proxy,
    derivation: Duration,
    command: Duration,
    failed: Cell<bool>,
}

/// One run of an operation.
struct Cost {
    commands: Vec<&'static str>,
    wall: Duration,
    /// From a command's first byte to its answer's last, as the proxy sees it.
    tpm: Duration,
    cpu: Duration,
}

impl Bench {
    fn new() -> Self {
        let scene = Scene::with_vault();
        let proxy = Proxy::start(scene.tpm.port()).unwrap();
        let timed = |run: &dyn Fn()| median((0..RUNS).map(|_| Cost::of(&proxy, run).wall));
        let derivation = timed(&|| drop(PinSecrets::derive(&pin(PIN), &[0; 16])));
        // status(None) is two TPM2_GetCapability on one connection.
        let command = timed(&|| drop(key_store(&proxy.tcti()).status(None).unwrap())) / 2;
        Self { scene, proxy, derivation, command, failed: Cell::new(false) }
    }

    fn operations(&self) {
        println!("key derivation {:.2?}, one cheap TPM command {:.2?}\n", self.derivation, self.command);
        println!(
            "{:<20}{:>9}{:>11}{:>11}{:>11}{:>11}{:>11}{:>7}",
            "operation", "commands", "time", "TPM", "own time", "own CPU", "floor", "ratio"
        );
        let setups: Vec<_> = (0..RUNS)
            .map(|_| {
                let scene = Scene::empty();
                let proxy = Proxy::start(scene.tpm.port()).unwrap();
                Cost::of(&proxy, || {
                    let mut tpm = key_store(&proxy.tcti());
                    vault_core::setup(scene.dir(), &mut tpm, &pin(PIN), 0, &mut rng()).unwrap();
                })
            })
            .collect();
        self.row("set-up", 1, &setups);
        self.measure("enrol", 1, &|vault| enroll(vault, "none"));
        self.measure("enrol, packed self", 1, &|vault| enroll(vault, "direct"));
        self.measure("list", 0, &|vault| drop(vault.accounts().unwrap()));
        self.measure("sign", 1, &|vault| sign(vault, "example.org"));
        let change = |vault: &mut Vault<'_>| {
            vault.unlock(&pin(PIN)).unwrap().change_pin(&pin(PIN), &mut rng()).unwrap();
        };
        self.measure("PIN change", 2, &change);
    }

    /// A sign-in, from opening the vault on, among more and more passkeys.
    fn sizes(&self) {
        println!("\n{:<20}{:>11}{:>7}", "sign, of passkeys", "time", "ratio");
        let sizes = [10, 1_000, 100_000];
        let scenes = sizes.map(|size| {
            // In memory: 100,000 durable writes would take as many disk flushes.
            let folder = tempfile::tempdir_in("/dev/shm").unwrap();
            vault_core::setup(folder.path(), &mut self.tpm(), &pin(PIN), 0, &mut rng()).unwrap();
            enroll(&mut Vault::open(folder.path(), &mut self.tpm()).unwrap(), "none");
            crowd(folder.path(), &mut self.tpm(), size);
            folder
        });
        let once = |dir: &Path| {
            let run = || sign(&mut Vault::open(dir, &mut self.tpm()).unwrap(), "example.org");
            Cost::of(&self.proxy, run).wall
        };
        // In turns, so that what the machine does besides meets all alike.
        let rounds: Vec<_> = (0..RUNS).map(|_| scenes.each_ref().map(|folder| once(folder.path()))).collect();
        let times = [0, 1, 2].map(|n| median(rounds.iter().filter_map(|round| round.get(n)).copied()));
        for (size, time) in sizes.into_iter().zip(times) {
            let ratio = time.as_secs_f64() / times[0].as_secs_f64();
            println!("{size:<20}{time:>11.2?}{ratio:>7.2}");
            if ratio > FLAT {
                self.fail(&format!("a sign-in among {size} passkeys takes {ratio:.2} times that among 10"));
            }
        }
        self.crowd(scenes[2].path());
    }

    /// The program's commands that look at all passkeys there are.
    fn crowd(&self, dir: &Path) {
        println!("\n{:<20}{:>11}{:>11}", "of 100,000 passkeys", "own time", "TPM");
        for line in ["list", "list site99999", "list --json", "log", "doctor"] {
            let run = |()| {
                let output = Command::new(Program::Passhold.path()).args(self.words(dir, line)).output();
                assert!(output.unwrap().status.code().is_some());
            };
            self.own_time(line, || (), run);
        }
        // Until all is on the screen, and the last one of them is.
        let typed = format!("{} {}", Program::Passhold.path().display(), self.words(dir, "tui").join(" "));
        self.own_time(
            "tui",
            || Tmux::start(dir, (80, 24)),
            |tmux| {
                tmux.type_line(&typed);
                tmux.wait_until("all", |screen| screen.contains("100000 passkeys  8 PIN tries left"));
                tmux.press(&["End"]);
                tmux.wait_for("site99999");
                tmux
            },
        );
    }

    fn words(&self, dir: &Path, line: &str) -> Vec<String> {
        let place = ["--tpm".to_owned(), self.proxy.tcti(), "--vault".to_owned(), dir.display().to_string()];
        line.split(' ').map(str::to_owned).chain(place).collect()
    }

    /// What `run` takes beside the TPM's time, and not more than it may. What it returns is dropped afterwards.
    fn own_time<T, U>(&self, name: &str, prepare: impl Fn() -> T, run: impl Fn(T) -> U) {
        let once = || {
            let (prepared, mut left) = (prepare(), None);
            let cost = Cost::of(&self.proxy, || left = Some(run(prepared)));
            drop(left);
            cost
        };
        let costs: Vec<_> = (0..RUNS / 3).map(|_| once()).collect();
        let own = median(costs.iter().map(|cost| cost.wall.saturating_sub(cost.tpm)));
        println!("{name:<20}{own:>11.2?}{:>11.2?}", median(costs.iter().map(|cost| cost.tpm)));
        if own > CROWD {
            self.fail(&format!("{name} takes {own:.2?} beside the TPM's time"));
        }
    }

    fn measure(&self, name: &str, pins: u32, run: &dyn Fn(&mut Vault<'_>)) {
        let once =
            || Cost::of(&self.proxy, || run(&mut Vault::open(self.scene.dir(), &mut self.tpm()).unwrap()));
        // The first one is not like the others.
        drop(once());
        let costs: Vec<_> = (0..RUNS).map(|_| once()).collect();
        self.row(name, pins, &costs);
    }

    fn row(&self, name: &str, pins: u32, costs: &[Cost]) {
        let median = |of: fn(&Cost) -> Duration| median(costs.iter().map(of));
        let (time, tpm) = (median(|cost| cost.wall), median(|cost| cost.tpm));
        let (own, cpu) = (median(|cost| cost.wall.saturating_sub(cost.tpm)), median(|cost| cost.cpu));
        let commands = costs.iter().map(|cost| cost.commands.len()).max().unwrap();
        let floor = self.command * u32::try_from(commands).unwrap() + self.derivation * pins;
        let ratio = time.as_secs_f64() / floor.as_secs_f64();
        println!(
            "{name:<20}{commands:>9}{time:>11.2?}{tpm:>11.2?}{own:>11.2?}{cpu:>11.2?}{floor:>11.2?}{ratio:>7.2}"
        );
        let (_, budget) = BUDGET.into_iter().find(|(of, _)| *of == name).unwrap();
        if commands > budget {
            self.fail(&format!("{name} takes {commands} TPM commands, and may take {budget}"));
        }
        if name != "set-up" && costs.iter().any(|cost| cost.commands.contains(&"CreatePrimary")) {
            self.fail(&format!("{name} has the TPM derive a primary key"));
        }
    }

    fn fail(&self, why: &str) {
        eprintln!("too dear: {why}");
        self.failed.set(true);
    }

    fn tpm(&self) -> impl KeyStore + use<> {
        key_store(&self.proxy.tcti())
    }
}

impl Cost {
    fn of(proxy: &Proxy, run: impl FnOnce()) -> Self {
        proxy.clear_record();
        let (started, cpu) = (Instant::now(), cpu_time());
        run();
        Self {
            wall: started.elapsed(),
            cpu: cpu_time().saturating_sub(cpu),
            tpm: proxy.busy(),
            commands: proxy.codes().into_iter().map(command_name).collect(),
        }
    }
}

fn enroll(vault: &mut Vault<'_>, attestation: &str) {
    let json = creation_options("example.org", "alice", attestation);
    let request = CreateRequest::from_json(&json, origin()).unwrap();
    let unlocked = vault.unlock(&pin(PIN)).unwrap();
    drop(unlocked.enroll(&request, None, UserPresent::confirmed(), 0, &mut rng()).unwrap());
}

fn sign(vault: &mut Vault<'_>, rp_id: &str) {
    let request = GetRequest::from_json(&request_options(rp_id), origin()).unwrap();
    let (id, _) = vault.matching(&request).unwrap().swap_remove(0);
    drop(
        vault.unlock(&pin(PIN)).unwrap().sign(&request, id, UserPresent::confirmed(), 0, &mut rng()).unwrap(),
    );
}

fn origin() -> Origin {
    Origin::parse("https://example.org").unwrap()
}

/// Of this thread, which libtss2 works on; the proxy has its own.
fn cpu_time() -> Duration {
    clock_gettime(ClockId::ThreadCPUTime).try_into().unwrap()
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<_> = times.collect();
    times.sort();
    times.get(times.len() / 2).copied().unwrap_or_default()
}
