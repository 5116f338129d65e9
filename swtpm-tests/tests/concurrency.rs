//! Several processes on one vault: each finishes or says that the vault is busy, and together they did what
//! one process could have done alone, one operation after the other.
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

use std::{
    collections::{BTreeMap, HashSet},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use common::Wire;
use swtpm_tests::{PIN, Passhold, Run, TestTpm, creation_options, request_options, scale};

const BUSY: i32 = 12;

/// What a process was asked to do, and with which PIN.
#[derive(Clone, Debug)]
enum Asked {
    Enroll(String),
    List,
    Status,
    Sign(u64, String),
    Rename(u64, String),
    Delete(u64, String),
    PinChange(String, String),
}

/// What it said.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Made(u64),
    Listed(Vec<(u64, Option<String>)>),
    Counted(u64),
    Done,
    NoPasskey,
    WrongPin,
}

#[derive(Clone, Debug)]
struct Event {
    from: Duration,
    to: Duration,
    asked: Asked,
    said: Said,
}

/// The vault as one process alone would see it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Model {
    passkeys: BTreeMap<u64, Option<String>>,
    last: u64,
    pin: String,
}

impl Model {
    fn new() -> Self {
        Self { passkeys: BTreeMap::new(), last: 0, pin: PIN.to_owned() }
    }

    fn apply(&mut self, asked: &Asked) -> Said {
        match asked {
            Asked::Enroll(pin) if *pin != self.pin => Said::WrongPin,
            Asked::Enroll(_) => {
                // A number is never used twice.
                self.last += 1;
                self.passkeys.insert(self.last, None);
                Said::Made(self.last)
            }
            Asked::List => Said::Listed(self.passkeys.clone().into_iter().collect()),
            Asked::Status => Said::Counted(self.passkeys.len() as u64),
            Asked::Sign(id, _) | Asked::Rename(id, _) | Asked::Delete(id, _)
                if !self.passkeys.contains_key(id) =>
            {
                Said::NoPasskey
            }
            Asked::Sign(_, pin) | Asked::Delete(_, pin) | Asked::PinChange(pin, _) if *pin != self.pin => {
                Said::WrongPin
            }
            Asked::Sign(..) => Said::Done,
            Asked::Rename(id, name) => {
                self.passkeys.insert(*id, Some(name.clone()));
                Said::Done
            }
            Asked::Delete(id, _) => {
                self.passkeys.remove(id);
                Said::Done
            }
            Asked::PinChange(_, new) => {
                self.pin.clone_from(new);
                Said::Done
            }
        }
    }
}

/// Finds an order in which one process could have said all this, none before it was asked or after it had
/// answered. Each history is one client's; the model is left as that order leaves it.
fn linearize(histories: &[Vec<Event>], model: &mut Model) -> bool {
    let mut seen = HashSet::new();
    let mut open = vec![(vec![0; histories.len()], model.clone())];
    while let Some((at, now)) = open.pop() {
        let next: Vec<_> = (0..at.len()).filter_map(|c| Some((c, histories[c].get(at[c])?))).collect();
        let Some(first_end) = next.iter().map(|(_, event)| event.to).min() else {
            *model = now;
            return true;
        };
        let mut candidates: Vec<_> = next.into_iter().filter(|(_, event)| event.from <= first_end).collect();
        // The last one pushed is tried first: the one that ended first.
        candidates.sort_by_key(|(_, event)| std::cmp::Reverse(event.to));
        for (client, event) in candidates {
            let mut then = now.clone();
            if then.apply(&event.asked) == event.said {
                let mut at = at.clone();
                at[client] += 1;
                if seen.insert((at.clone(), then.clone())) {
                    open.push((at, then));
                }
            }
        }
    }
    false
}

struct World {
    passhold: Passhold,
    began: Instant,
    pin: Mutex<String>,
    known: Mutex<Vec<u64>>,
    busy: AtomicUsize,
    wrong: AtomicUsize,
    names: AtomicUsize,
}

fn random(below: usize) -> usize {
    getrandom::u32().unwrap() as usize % below
}

impl World {
    fn choose(&self, clients: usize) -> Asked {
        let known = self.known.lock().unwrap().clone();
        // Some that are gone or not there yet, too.
        let id = if known.is_empty() { 1 } else { known[random(known.len())] };
        let name = self.names.fetch_add(1, Ordering::Relaxed);
        let pin = || self.pin.lock().unwrap().clone();
        match random(100) {
            0..22 => Asked::Enroll(pin()),
            22..42 => Asked::List,
            42..48 => Asked::Status,
            48..63 => Asked::Sign(id, pin()),
            63..80 => Asked::Rename(id, format!("name {name}")),
            80..94 => Asked::Delete(id, pin()),
            94..97 => Asked::Sign(id, "no such pin 1".to_owned()),
            // Whoever waits meanwhile comes with the old PIN; eight of them would lock the vault.
            _ if clients <= 4 => Asked::PinChange(pin(), format!("pin no {name} x")),
            _ => Asked::List,
        }
    }

    fn run(&self, asked: &Asked) -> Run {
        let call = |line: &str| self.passhold.call(line.split(' '));
        match asked {
            Asked::Enroll(pin) => {
                let options = creation_options("example.org", "alice", "none");
                call("enroll --another --origin https://example.org").options(&options).pin(pin).run()
            }
            Asked::List => call("list --json").run(),
            Asked::Status => call("status --json").run(),
            Asked::Sign(id, pin) => call(&format!("sign --origin https://example.org --account {id}"))
                .options(&request_options("example.org"))
                .pin(pin)
                .run(),
            Asked::Rename(id, name) => call(&format!("rename {id}")).arg(name).run(),
            Asked::Delete(id, pin) => call(&format!("delete {id}")).pin(pin).run(),
            Asked::PinChange(old, new) => call("pin change").pin(&format!("{old}\n{new}")).run(),
        }
    }

    /// One operation, unless the vault was busy.
    fn event(&self, clients: usize) -> Option<Event> {
        let asked = self.choose(clients);
        let from = self.began.elapsed();
        let run = self.run(&asked);
        let to = self.began.elapsed();
        let json = || serde_json::from_str::<serde_json::Value>(&run.stdout).unwrap();
        let said = match (run.code(), &asked) {
            (Some(BUSY), _) => {
                self.busy.fetch_add(1, Ordering::Relaxed);
                assert_eq!(run.stdout, "");
                return None;
            }
            (Some(13), _) => Said::NoPasskey,
            (Some(5), _) => {
                self.wrong.fetch_add(1, Ordering::Relaxed);
                Said::WrongPin
            }
            (Some(0), Asked::Enroll(_)) => {
                let (_, id) = run.stderr.trim().rsplit_once("made passkey ").unwrap();
                let id = id.parse().unwrap();
                self.known.lock().unwrap().push(id);
                Said::Made(id)
            }
            (Some(0), Asked::List) => Said::Listed(
                json()
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|p| (p["id"].as_u64().unwrap(), p["name"].as_str().map(str::to_owned)))
                    .collect(),
            ),
            (Some(0), Asked::Status) => Said::Counted(json()["accounts"].as_u64().unwrap()),
            (Some(0), _) => Said::Done,
            (code, _) => panic!("{asked:?}: {code:?} {} {}", run.stdout, run.stderr),
        };
        if let (Asked::PinChange(_, new), Said::Done) = (&asked, &said) {
            self.pin.lock().unwrap().clone_from(new);
        }
        Some(Event { from, to, asked, said })
    }
}

#[test]
fn processes_on_one_vault_act_as_one() {
    let tpm = TestTpm::start().unwrap();
    let world = World {
        passhold: Passhold::with_vault(&tpm),
        began: Instant::now(),
        pin: Mutex::new(PIN.to_owned()),
        known: Mutex::default(),
        busy: AtomicUsize::default(),
        wrong: AtomicUsize::default(),
        names: AtomicUsize::default(),
    };
    let mut model = Model::new();
    let rounds = [2, 4, 8, 3];
    let (mut events, mut overlapping) = (0, 0);
    let total = scale(120, 10_000);
    for clients in rounds {
        let each = total / rounds.len() / clients;
        let world = &world;
        let histories: Vec<Vec<Event>> = thread::scope(|scope| {
            let client = || (0..each).filter_map(|_| world.event(clients)).collect();
            let clients: Vec<_> = (0..clients).map(|_| scope.spawn(client)).collect();
            clients.into_iter().map(|client| client.join().unwrap()).collect()
        });
        let all: Vec<&Event> = histories.iter().flatten().collect();
        overlapping += all.iter().filter(|a| all.iter().any(|b| b.from > a.from && b.from < a.to)).count();
        events += all.len();
        assert!(linearize(&histories, &mut model), "no order explains {histories:#?}");
        assert_eq!(Wire::new(tpm.port()).loaded(), [0_u32; 0], "loaded in the TPM");
    }
    // And nothing was lost afterwards.
    let list = Asked::List;
    let run = world.run(&list).expect_code(0);
    let ids: Vec<u64> = serde_json::from_str::<serde_json::Value>(&run.stdout)
        .unwrap()
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["id"].as_u64().unwrap())
        .collect();
    assert_eq!(ids, model.passkeys.keys().copied().collect::<Vec<_>>());
    for id in &ids {
        world.run(&Asked::Sign(*id, model.pin.clone())).expect_code(0);
    }
    let (busy, wrong) = (world.busy.into_inner(), world.wrong.into_inner());
    println!(
        "concurrency: {events} operations by {rounds:?} processes at a time, {overlapping} overlapped, {busy} busy, \
         {wrong} wrong PINs, {} passkeys made, {} left, all sign; {:?}",
        model.last,
        ids.len(),
        world.began.elapsed()
    );
    assert!(overlapping > 0);
}

/// The checker itself.
#[test]
fn a_lost_passkey_or_a_number_used_twice_is_noticed() {
    let event = |from: u64, to: u64, asked, said| {
        let (from, to) = (Duration::from_secs(from), Duration::from_secs(to));
        Event { from, to, asked, said }
    };
    let enroll = |from, to, id| event(from, to, Asked::Enroll(PIN.into()), Said::Made(id));
    let list = |from, to, ids: &[u64]| {
        event(from, to, Asked::List, Said::Listed(ids.iter().map(|id| (*id, None)).collect()))
    };
    let holds = |histories: &[Vec<Event>]| linearize(histories, &mut Model::new());
    assert!(holds(&[vec![enroll(0, 2, 1)], vec![list(1, 3, &[])]]), "before it");
    assert!(holds(&[vec![enroll(0, 2, 1)], vec![list(1, 3, &[1])]]), "after it");
    assert!(!holds(&[vec![enroll(0, 2, 1)], vec![list(3, 4, &[])]]), "lost");
    assert!(!holds(&[vec![enroll(0, 2, 1)], vec![enroll(0, 2, 1)]]), "one number twice");
    assert!(
        !holds(&[vec![enroll(0, 5, 1)], vec![list(0, 1, &[1]), list(2, 3, &[])]]),
        "there and gone again"
    );
}

#[test]
fn two_processes_share_a_private_software_tpm_or_one_says_busy() {
    let passhold = Passhold::new("swtpm");
    passhold.call(["setup"]).pin(PIN).run().expect_code(0);
    let (mut done, mut busy) = (0, 0);
    for _ in 0..scale(3, 100) {
        let calls = [0, 1].map(|_| {
            let options = creation_options("example.org", "alice", "none");
            let call = passhold.call(["enroll", "--another", "--origin", "https://example.org"]);
            call.options(&options).pin(PIN).start()
        });
        for running in calls {
            let run = running.wait();
            match run.code() {
                Some(0) => done += 1,
                Some(BUSY) => busy += 1,
                _ => panic!("{run:?}"),
            }
        }
    }
    let run = passhold.call(["list", "--json"]).run().expect_code(0);
    let listed = serde_json::from_str::<serde_json::Value>(&run.stdout).unwrap().as_array().unwrap().len();
    println!("private software TPM: {done} done, {busy} busy");
    assert_eq!(listed, done);
}
