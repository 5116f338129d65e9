//! A process that dies at any point of a changing operation leaves the old state or the new one.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::pedantic
)]

mod bench;
mod common;

use std::{io::Write, thread, time::Instant};

use bench::{Bench, Ending, OPERATIONS, Operation};
use swtpm_tests::scale;

/// Every system call that changes something outside the process: the vault's files, and the TPM (whose
/// commands go through `connect` and `write`), and standard output.
const CHANGING: [&str; 14] = [
    "write",
    "pwrite64",
    "sendto",
    "connect",
    "fsync",
    "fdatasync",
    "ftruncate",
    "unlink",
    "unlinkat",
    "rename",
    "openat",
    "mkdir",
    "fallocate",
    "fcntl",
];

#[derive(Default)]
struct Tally {
    kills: usize,
    old: usize,
    new: usize,
    acknowledged: usize,
    healed: usize,
}

impl Tally {
    /// Old or new, and new if it was said to be.
    fn count(&mut self, bench: &mut Bench, found: &Option<bench::State>, said: &[u8], point: &str) {
        let (operation, said) = (bench.operation, bench::acknowledged(said));
        let (before, after) = (operation.before(), operation.after());
        self.kills += 1;
        let redone = std::mem::take(&mut bench.redone);
        if *found == after {
            assert!(said.is_empty() || !redone, "{operation:?} killed at {point}: said done, and was not");
            self.new += 1;
        } else {
            assert_eq!(*found, before, "{operation:?} killed at {point}: neither old nor new");
            assert_eq!(said, "", "{operation:?} killed at {point}: said done, and was not");
            self.old += 1;
        }
        self.healed += std::mem::take(&mut bench.healed);
        self.acknowledged += usize::from(!said.is_empty());
    }

    fn show(&self, what: &str) {
        let Self { kills, old, new, acknowledged, healed } = self;
        println!(
            "{what}: {kills} kills: {old} old, {new} new ({acknowledged} acknowledged, {healed} healed)"
        );
    }
}

fn killed_at_each_call(operation: Operation, every: usize) {
    let mut bench = Bench::new(operation);
    let calls = bench.calls(&CHANGING);
    let total: usize = calls.values().map(Vec::len).sum();
    let points = calls.iter().flat_map(|(name, at)| at.iter().map(move |n| (name.clone(), *n)));
    let mut tally = Tally::default();
    for (i, (name, n)) in points.enumerate() {
        // A different residue for each operation.
        if i % every != OPERATIONS.iter().position(|o| *o == operation).unwrap() % every {
            continue;
        }
        let tpm = bench.restore();
        let inject = format!("inject={name}:signal=KILL:when={n}");
        let output = bench.run(&tpm, &["-e", &format!("trace={name}"), "-e", &inject]);
        let ending = if i % 2 == 0 { Ending::Shutdown } else { Ending::PowerCut };
        assert!(!output.status.success(), "{operation:?} was not killed at {name} {n}");
        let found = bench.look(tpm, ending);
        tally.count(&mut bench, &found, &output.stdout, &format!("{name} {n}"));
    }
    tally.show(&format!(
        "crash, {operation:?}, {total} calls {:?}",
        calls.iter().map(|(k, v)| (k.as_str(), v.len())).collect::<Vec<_>>()
    ));
}

fn every() -> usize {
    scale(14, 1)
}

#[test]
fn setup_killed_at_any_call_leaves_nothing_or_a_vault() {
    killed_at_each_call(Operation::Setup, every());
}

#[test]
fn enrol_killed_at_any_call_leaves_the_old_vault_or_the_new_one() {
    killed_at_each_call(Operation::Enroll, every());
}

#[test]
fn delete_killed_at_any_call_leaves_the_old_vault_or_the_new_one() {
    killed_at_each_call(Operation::Delete, every());
}

#[test]
fn undelete_killed_at_any_call_leaves_the_old_vault_or_the_new_one() {
    killed_at_each_call(Operation::Undelete, every());
}

#[test]
fn emptying_the_bin_killed_at_any_call_leaves_the_old_vault_or_the_new_one() {
    killed_at_each_call(Operation::EmptyBin, every());
}

#[test]
fn rename_killed_at_any_call_leaves_the_old_vault_or_the_new_one() {
    killed_at_each_call(Operation::Rename, every());
}

#[test]
fn a_pin_change_killed_at_any_call_leaves_the_old_pin_or_the_new_one() {
    killed_at_each_call(Operation::PinChange, every());
}

#[test]
fn a_pin_reset_killed_at_any_call_leaves_the_old_pin_or_is_done_again_with_the_same_code() {
    killed_at_each_call(Operation::PinReset, every());
}

#[test]
fn a_renewal_killed_at_any_call_leaves_one_code_in_force() {
    killed_at_each_call(Operation::RecoveryRenew, every());
}

#[test]
fn a_rule_added_and_killed_at_any_call_holds_or_does_not() {
    killed_at_each_call(Operation::AddRule, every());
}

#[test]
fn an_old_copy_let_in_and_killed_at_any_call_is_refused_or_let_in() {
    killed_at_each_call(Operation::RestoreAccept, every());
}

#[test]
fn a_wipe_killed_at_any_call_is_completed_or_never_began() {
    killed_at_each_call(Operation::Wipe, every());
}

fn killed_at_random(operation: Operation) {
    let kills = scale(24, 10_000).div_ceil(OPERATIONS.len());
    let (mut tally, started) = (Tally::default(), Instant::now());
    let mut bench = Bench::new(operation);
    let tpm = bench.restore();
    let began = Instant::now();
    assert!(bench.run(&tpm, &[]).status.success());
    let whole = began.elapsed();
    drop(tpm);
    for i in 0..kills {
        let tpm = bench.restore();
        let mut child = bench.command(&tpm, &[]).spawn().unwrap();
        drop(child.stdin.take().unwrap().write_all(bench.typed().as_bytes()));
        thread::sleep(whole.mul_f64(f64::from(getrandom::u32().unwrap()) / f64::from(u32::MAX)));
        drop(child.kill());
        let output = child.wait_with_output().unwrap();
        let ending = if i % 2 == 0 { Ending::Shutdown } else { Ending::PowerCut };
        let found = bench.look(tpm, ending);
        tally.count(&mut bench, &found, &output.stdout, "a random moment");
    }
    tally.show(&format!("random, {operation:?}, {} s", started.elapsed().as_secs()));
}

#[test]
fn setup_killed_at_random_leaves_nothing_or_a_vault() {
    killed_at_random(Operation::Setup);
}

#[test]
fn enrol_killed_at_random_leaves_the_old_vault_or_the_new_one() {
    killed_at_random(Operation::Enroll);
}

#[test]
fn delete_killed_at_random_leaves_the_old_vault_or_the_new_one() {
    killed_at_random(Operation::Delete);
}

#[test]
fn undelete_killed_at_random_leaves_the_old_vault_or_the_new_one() {
    killed_at_random(Operation::Undelete);
}

#[test]
fn emptying_the_bin_killed_at_random_leaves_the_old_vault_or_the_new_one() {
    killed_at_random(Operation::EmptyBin);
}

#[test]
fn rename_killed_at_random_leaves_the_old_vault_or_the_new_one() {
    killed_at_random(Operation::Rename);
}

#[test]
fn a_pin_change_killed_at_random_leaves_the_old_pin_or_the_new_one() {
    killed_at_random(Operation::PinChange);
}

#[test]
fn a_pin_reset_killed_at_random_leaves_the_old_pin_or_is_done_again_with_the_same_code() {
    killed_at_random(Operation::PinReset);
}

#[test]
fn a_renewal_killed_at_random_leaves_one_code_in_force() {
    killed_at_random(Operation::RecoveryRenew);
}

#[test]
fn a_rule_added_and_killed_at_random_holds_or_does_not() {
    killed_at_random(Operation::AddRule);
}

#[test]
fn an_old_copy_let_in_and_killed_at_random_is_refused_or_let_in() {
    killed_at_random(Operation::RestoreAccept);
}

#[test]
fn a_wipe_killed_at_random_is_completed_or_never_began() {
    killed_at_random(Operation::Wipe);
}
