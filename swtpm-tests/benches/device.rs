//! How long the device takes from a request to its reply beyond the TPM, libtss2 and the key derivation, and what it needs when
//! nobody asks it anything. Ends with an error where that is more than the design allows.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::needless_pass_by_value,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs
)]

#[path = "../tests/platform/mod.rs"]
mod platform;

use std::{
    fs,
    process::ExitCode,
    thread,
    time::{Duration, Instant},
};

use platform::site::{MAKE, RP, SIGN, Site};
use swtpm_tests::{Device, PIN, Scene, TestTpm, pin, rng};
use tpm_backend::Tpm;
use vault_core::{
    Vault,
    container::Container,
    keystore::{Anchor, KeyBlob, KeyStore, Then, UnlockedKeys},
    pin::PinSecrets,
};

const RUNS: usize = 11;
/// Longer than a proof is kept. A processor that was idle for so long is slower at first.
const REST: Duration = Duration::from_millis(2100);
/// Of our own, for each request.
const LIMIT: Duration = Duration::from_millis(5);
const IDLE_KIB: u64 = 20 * 1024;
const IDLE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    tpm_backend::prepare_libtss2();
    let tpm = TestTpm::start().unwrap();
    // In memory: how long a disk takes to write is not ours.
    let folder = tempfile::tempdir_in("/dev/shm").unwrap();
    vault_core::setup(folder.path(), &mut tpm.key_store(), &pin(PIN), 0, &mut rng()).unwrap();
    let device = Device::start(folder.path(), &tpm.tcti(), PIN);
    let site = Site::connect(&device);
    let passkey = site.make(None, "alice").unwrap();
    let mut bare = Bare::new();
    let mut failed = false;

    println!("{:<30}{:>11}{:>11}{:>11}{:>7}", "request", "time", "floor", "own", "ratio");
    let mut row = |name: &str, floor: &mut dyn FnMut() -> Duration, run: &dyn Fn() -> Duration| {
        // In turns, and the least: what the machine does besides is not ours either.
        let turns: Vec<_> = (0..RUNS).map(|_| (floor(), run())).collect();
        let floor = turns.iter().map(|(floor, _)| *floor).min().unwrap_or_default();
        let time = turns.iter().map(|(_, time)| *time).min().unwrap_or_default();
        let (own, ratio) = (time.saturating_sub(floor), time.as_secs_f64() / floor.as_secs_f64());
        println!("{name:<30}{time:>11.2?}{floor:>11.2?}{own:>11.2?}{ratio:>7.2}");
        if own > LIMIT {
            eprintln!("too dear: {name} takes {own:.2?} of our own, and may take {LIMIT:?}");
            failed = true;
        }
    };
    row("PIN proof", &mut || bare.proof(), &|| {
        let platform = site.platform().unwrap();
        let request = platform.token_using_pin(PIN, SIGN, Some(RP));
        thread::sleep(REST);
        timed(|| drop(site.call(0x06, &request).unwrap()))
    });
    row("getAssertion with a token", &mut || bare.signature(), &|| {
        let token = site.token(PIN, SIGN).unwrap();
        timed(|| site.sign_in(Some(&token), &passkey).unwrap())
    });
    row("makeCredential with a token", &mut || bare.key(), &|| {
        let token = site.token(PIN, MAKE).unwrap();
        // The same account each time: it takes the place of the one before.
        timed(|| drop(site.make(Some(&token), "bob").unwrap()))
    });

    thread::sleep(IDLE);
    let (before, memory) = (wake_ups(device.pid()), status(device.pid(), "VmRSS:"));
    thread::sleep(IDLE);
    let woken = wake_ups(device.pid()) - before;
    println!("\nidle: {memory} KiB resident, {woken} wake-ups in {IDLE:?}");
    if memory > IDLE_KIB || woken > 0 {
        eprintln!("too dear: an idle daemon may have {IDLE_KIB} KiB, and no wake-ups");
        failed = true;
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The same without a device and a container: the key derivation, libtss2 and a TPM.
struct Bare {
    tpm: Tpm,
    anchor: Anchor,
    secrets: PinSecrets,
    key: KeyBlob,
    // Last: the others use it.
    _scene: Scene,
}

impl Bare {
    fn new() -> Self {
        let scene = Scene::with_vault();
        let anchor = Container::open(scene.dir()).unwrap().anchor().unwrap();
        let secrets = Vault::open(scene.dir(), &mut scene.tpm.key_store()).unwrap().secrets(&pin(PIN));
        let mut tpm = scene.tpm.key_store().keeping();
        let key = tpm.unlock(&anchor, &secrets).unwrap().create_key(None).unwrap().blob;
        Self { tpm, anchor, secrets, key, _scene: scene }
    }

    fn unlocked(&mut self) -> Box<dyn UnlockedKeys + '_> {
        self.tpm.unlock(&self.anchor, &self.secrets).unwrap()
    }

    fn proof(&mut self) -> Duration {
        self.tpm.park();
        thread::sleep(REST);
        timed(|| {
            drop(PinSecrets::derive(&pin(PIN), &[0; 16]));
            drop(self.unlocked());
        })
    }

    fn signature(&mut self) -> Duration {
        let key = self.key.clone();
        let mut keys = self.unlocked();
        timed(|| _ = keys.sign(&key, &[7; 32], Then::End).unwrap())
    }

    fn key(&mut self) -> Duration {
        let mut keys = self.unlocked();
        timed(|| {
            let key = keys.create_key(None).unwrap().blob;
            keys.sign(&key, &[7; 32], Then::Continue).unwrap();
            keys.commit_generation(0, Then::End).unwrap();
        })
    }
}

/// Of all its threads.
fn wake_ups(pid: u32) -> u64 {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.map(|thread| field(&thread.unwrap().path().join("status"), "voluntary_ctxt_switches:")).sum()
}

fn status(pid: u32, name: &str) -> u64 {
    field(format!("/proc/{pid}/status").as_ref(), name)
}

fn field(path: &std::path::Path, name: &str) -> u64 {
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

fn timed(run: impl FnOnce()) -> Duration {
    let started = Instant::now();
    run();
    started.elapsed()
}
