//! A system call that fails in the middle of a changing operation: an error with a next step, or no harm;
//! never a success that is none, and the vault is as before or as after.
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

use std::{collections::BTreeMap, fmt::Write as _};

use bench::{Bench, Ending, OPERATIONS, Operation};
use swtpm_tests::{Call, PIN, Passhold, TestTpm, creation_options, request_options, scale};

/// What fails, and how: strace's `inject=` without the call's number.
const FAULTS: [(&str, &str); 30] = [
    ("pwrite64", "error=ENOSPC"),
    ("pwrite64", "error=EDQUOT"),
    ("pwrite64", "error=EIO"),
    // A short write of nothing. strace cannot write a part.
    ("pwrite64", "retval=0"),
    ("write", "error=ENOSPC"),
    ("write", "error=EIO"),
    ("write", "error=EDQUOT"),
    ("fsync", "error=EIO"),
    ("fsync", "error=ENOSPC"),
    ("fdatasync", "error=EIO"),
    ("ftruncate", "error=EIO"),
    ("ftruncate", "error=EROFS"),
    ("pread64", "error=EIO"),
    ("openat", "error=EROFS"),
    ("openat", "error=EMFILE"),
    ("openat", "error=ENOSPC"),
    ("openat", "error=EIO"),
    ("openat", "error=EACCES"),
    ("unlink", "error=EROFS"),
    ("unlink", "error=EIO"),
    ("rename", "error=EROFS"),
    ("rename", "error=ENOSPC"),
    ("rename", "error=EIO"),
    ("mkdir", "error=EROFS"),
    ("mkdir", "error=ENOSPC"),
    ("socket", "error=EMFILE"),
    ("fcntl", "error=EIO"),
    ("fcntl", "error=ENOLCK"),
    ("flock", "error=EIO"),
    ("newfstatat", "error=EIO"),
];

const CALLS: [&str; 14] = [
    "newfstatat",
    "pwrite64",
    "write",
    "fsync",
    "fdatasync",
    "ftruncate",
    "pread64",
    "openat",
    "unlink",
    "rename",
    "mkdir",
    "socket",
    "fcntl",
    "flock",
];

#[derive(Default)]
struct Tally {
    faults: usize,
    refused: usize,
    harmless: BTreeMap<String, usize>,
    wrong: String,
}

/// Every fault, or in the quick part one in 60 and those whose name holds `always`.
fn fails_at_each_call(operation: Operation, always: &str) {
    let every = scale(60, 1);
    let mut bench = Bench::new(operation);
    let mut calls = bench.calls(&CALLS);
    // A write to the TPM that fails is the proxy's matter (faults.rs). Here libtss2's swtpm transport would leave its socket
    // open, and swtpm, which serves one connection, would let the next one wait for ever.
    let to_tpm = bench.writes_to_tpm();
    if let Some(writes) = calls.get_mut("write") {
        writes.retain(|n| !to_tpm.contains(n));
    }
    let mut points = Vec::new();
    for (name, how) in FAULTS {
        for n in calls.get(name).into_iter().flatten() {
            // Once, and from then on.
            points.extend([(name, how, n.to_string()), (name, how, format!("{n}+"))]);
        }
    }
    let mut tally = Tally::default();
    let offset = OPERATIONS.iter().position(|o| *o == operation).unwrap();
    let total = points.len();
    // For repeating some: a part of a fault's name, such as `pwrite64 error=EIO 12`.
    let only = std::env::var("PASSHOLD_FAULTS").ok();
    for (i, (name, how, when)) in points.into_iter().enumerate() {
        let point = format!("{operation:?}, {name} {how} {when}");
        let sampled = i % every == offset * 7 % every || point.contains(always);
        if !only.as_ref().map_or(sampled, |only| point.contains(only)) {
            continue;
        }
        bench.point.clone_from(&point);
        let tpm = bench.restore();
        let inject = format!("inject={name}:{how}:when={when}");
        let output = bench.run(&tpm, &["-e", &format!("trace={name}"), "-e", &inject]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        bench.leftovers = name == "unlink";
        let found = bench.look(tpm, if i % 2 == 0 { Ending::Shutdown } else { Ending::PowerCut });
        let (before, after) = (operation.before(), operation.after());
        tally.faults += 1;
        let mut wrong =
            |what: &str| write!(tally.wrong, "\n{point}: {what}: {:?} {stderr}", output.status).unwrap();
        match output.status.code() {
            Some(0) => {
                *tally.harmless.entry(format!("{name} {how}")).or_default() += 1;
                if found != after {
                    wrong("said done, and is not");
                }
            }
            Some(1..=18) => {
                tally.refused += 1;
                if found != before && found != after {
                    wrong("neither old nor new");
                }
                // A message, and what to do next; nothing can be said where stderr fails too.
                let said: Vec<_> =
                    stderr.lines().skip_while(|line| !line.starts_with("passhold: ")).collect();
                if name != "write" && said.len() < 2 {
                    wrong("no next step");
                }
                if !bench::acknowledged(&output.stdout).is_empty() && name != "write" {
                    wrong("printed a result, and failed");
                }
            }
            // The dynamic loader's own calls come before any line of ours.
            _ if stderr.contains("error while loading shared libraries") => {}
            _ => wrong("died"),
        }
    }
    let Tally { faults, refused, harmless, wrong } = tally;
    let done: usize = harmless.values().sum();
    println!(
        "I/O errors, {operation:?}: {faults} of {total} faults: {refused} errors, {done} done all the same {harmless:?}"
    );
    assert_eq!(wrong, "");
}

/// No fault's name.
const NONE: &str = "-";

#[test]
fn setup_survives_failing_calls() {
    // Where a write fails only at the end, the draft once became a vault of nothing.
    fails_at_each_call(Operation::Setup, "pwrite64 error=ENOSPC 2");
}

#[test]
fn enrol_survives_failing_calls() {
    fails_at_each_call(Operation::Enroll, NONE);
}

#[test]
fn delete_survives_failing_calls() {
    fails_at_each_call(Operation::Delete, NONE);
}

#[test]
fn rename_survives_failing_calls() {
    fails_at_each_call(Operation::Rename, NONE);
}

#[test]
fn a_pin_change_survives_failing_calls() {
    fails_at_each_call(Operation::PinChange, NONE);
}

#[test]
fn undelete_survives_failing_calls() {
    fails_at_each_call(Operation::Undelete, NONE);
}

#[test]
fn emptying_the_bin_survives_failing_calls() {
    fails_at_each_call(Operation::EmptyBin, NONE);
}

#[test]
fn a_pin_reset_survives_failing_calls() {
    fails_at_each_call(Operation::PinReset, NONE);
}

#[test]
fn a_new_recovery_code_survives_failing_calls() {
    fails_at_each_call(Operation::RecoveryRenew, NONE);
}

#[test]
fn an_old_copy_that_is_let_in_survives_failing_calls() {
    fails_at_each_call(Operation::RestoreAccept, NONE);
}

#[test]
fn a_new_rule_survives_failing_calls() {
    fails_at_each_call(Operation::AddRule, NONE);
}

#[test]
fn a_wipe_survives_failing_calls() {
    fails_at_each_call(Operation::Wipe, NONE);
}

/// The TPM has judged the PIN by the time Passhold notes its own count.
#[test]
fn a_full_disk_hides_no_wrong_pin_and_keeps_nobody_from_signing_in() {
    let tpm = TestTpm::start().unwrap();
    let passhold = Passhold::with_vault(&tpm);
    let enroll = passhold.call(["enroll", "--origin", "https://example.org"]).pin(PIN);
    enroll.options(&creation_options("example.org", "alice", "none")).run().expect_code(0);
    let sign = |pin: &str| {
        let sign = passhold.call(["sign", "--origin", "https://example.org"]).pin(pin);
        sign.options(&request_options("example.org"))
    };
    let on_a_full_disk = |call: Call| call.under("strace -o /dev/null -e inject=pwrite64:error=ENOSPC").run();
    on_a_full_disk(sign("999888777x")).expect_code(5);
    // Noted this time, so that the right PIN has a count to set back.
    sign("999888777x").run().expect_code(5);
    on_a_full_disk(sign(PIN)).expect_code(0);
    // Where the TPM shows its count only to its owner, what could not be noted is counted all the same.
    assert!(tpm.tool("tpm2_changeauth", &["-c", "o", "ownersecret"]).unwrap().status.success());
    let run = on_a_full_disk(sign("999888777x")).expect_code(5);
    assert!(run.stderr.contains("tries left by Passhold's own count"), "{}", run.stderr);
    assert!(!run.stderr.contains("8 tries"), "{}", run.stderr);
}
