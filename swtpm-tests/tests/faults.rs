//! Every operation × every TPM command it sends × every way in which that command can fail.
//!
//! A faulted operation reports an error, or has done all that it says: never a wrong success. With the
//! fault lifted the same key store goes on, and so does a new one; the vault is as before or as after;
//! no more than one PIN try and one count of the TPM's lockout were used; nothing stays loaded.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::pedantic
)]

mod lab;

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use lab::{Condition, Done, Lab, Operation, WrongSuccess, chain, of_key_store};
use swtpm_tests::{
    proxy::{Fault, FaultKind, Span, command_name},
    scale,
};
use vault_core::keystore::KeyStoreError;

/// What a TPM answers when it does not do it (Part 2 §6.6): initialize, failure, disabled-like vendor
/// code, context gap, object, session and general memory, session handles, object handles, yielded,
/// cancelled, testing, reference (H0), NV rate, lockout, retry, NV unavailable, and the three refusals of
/// an authorization.
const CODES: [u32; 19] = [
    0x100, 0x101, 0x1df, 0x901, 0x902, 0x903, 0x905, 0x906, 0x908, 0x909, 0x90a, 0x910, 0x920, 0x921, 0x922,
    0x923, 0x98e, 0x99d, 0x9a2,
];

/// YIELDED, TESTING and RETRY: "nothing was done, ask again". libtss2 does so by itself, up to 5 times.
const ASK_AGAIN: [u32; 3] = [0x908, 0x90a, 0x922];

/// AUTH_FAIL and BAD_AUTH, of session 1.
const AUTH_CODES: [u32; 2] = [0x98e, 0x9a2];

const FLUSH_CONTEXT: u32 = 0x165;
const NV_READ: u32 = 0x14e;
/// Opening a vault reads the container key by its fifth command.
const FIRST_NV_READ: usize = 4;
/// Set-up makes a primary key under the endorsement hierarchy by its tenth.
const ASKS_WHO_IT_IS: usize = 9;

/// One cell of the table.
#[derive(Clone)]
struct Case {
    operation: Operation,
    /// The command, by its place in an undisturbed run.
    at: usize,
    /// Its code there.
    command: u32,
    /// Whether the TPM itself refuses it there: V judges which copy of S a PIN masks.
    refused: bool,
    span: Span,
    kind: FaultKind,
    label: String,
}

/// What all runs came to.
#[derive(Default)]
struct Tally {
    runs: usize,
    successes: usize,
    most_commands: usize,
    most_pin_tries: u32,
    most_lockouts: u32,
    handles_left: usize,
    errors: BTreeMap<String, usize>,
    violations: Vec<String>,
}

#[test]
fn no_fault_of_the_tpm_is_taken_for_success_and_every_vault_goes_on() {
    let cases = table();
    let commands =
        cases.iter().map(|c| (c.operation as usize, c.at)).collect::<std::collections::BTreeSet<_>>();
    let next = AtomicUsize::new(0);
    let tally = Mutex::new(Tally::default());
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| run_all(&cases, &next, &tally));
        }
    });
    let tally = tally.into_inner().unwrap();
    println!(
        "faults: {} operations, {} commands, {} runs, {} verified successes, {} different errors, {} violations, {} handles left, \
         max {} PIN try, max {} lockout count, max {} commands after a fault",
        Operation::ALL.len(),
        commands.len(),
        tally.runs,
        tally.successes,
        tally.errors.len(),
        tally.violations.len(),
        tally.handles_left,
        tally.most_pin_tries,
        tally.most_lockouts,
        tally.most_commands,
    );
    assert_eq!(tally.violations.len(), 0, "see above");
}

/// The whole table, or of each command's faults some that change from command to command.
fn table() -> Vec<Case> {
    let each = scale(1, usize::MAX);
    let only = std::env::var("PASSHOLD_FAULTS").ok();
    let mut cases = Vec::new();
    let mut turn = 0;
    for operation in Operation::ALL {
        let mut lab = Lab::ready_for(operation);
        lab.proxy.clear_record();
        let mut keys = lab.key_store();
        lab.perform(operation, &mut keys).unwrap();
        // What the key store flushes when it is dropped is no part of the operation.
        let exchanges = lab.proxy.record();
        drop(keys);
        for (at, exchange) in exchanges.into_iter().enumerate() {
            let (command, mut all, refused) = (exchange.code(), faults(), exchange.response_code() != 0);
            // A reply is not truncated by as much as it is long.
            let len = exchange.response.len();
            all.retain(|(_, kind, _)| !matches!(kind, FaultKind::Truncate(kept) if *kept >= len));
            for n in 0..all.len().min(each) {
                let (span, kind, label) = all[(turn + n) % all.len()].clone();
                let span_name = if span == Span::Once { "once" } else { "continuous" };
                let label = format!("{operation:?}[{at}] {} {label} {span_name}", command_name(command));
                if only.as_ref().is_none_or(|only| label.contains(only.as_str())) {
                    cases.push(Case { operation, at, command, refused, span, kind, label });
                }
            }
            // Coprime to the number of faults, so that all have their turn.
            turn += 37;
        }
    }
    cases
}

fn faults() -> Vec<(Span, FaultKind, String)> {
    let mut faults = Vec::new();
    let spans = [Span::Once, Span::Continuous];
    for span in spans {
        for code in CODES {
            faults.push((span, FaultKind::Refuse(code), format!("Refuse({code:#x})")));
            faults.push((span, FaultKind::LoseReply(code), format!("LoseReply({code:#x})")));
        }
        faults.push((span, FaultKind::CutBefore, "CutBefore".to_owned()));
        faults.push((span, FaultKind::CutAfter, "CutAfter".to_owned()));
        for len in [1, 9, 10, 13, 20, 47] {
            faults.push((span, FaultKind::Truncate(len), format!("Truncate({len})")));
        }
    }
    // Each bit of tag, size and response code once in four commands; then spread over the rest.
    for bit in (0..80).step_by(5).chain((80..1600).step_by(67)) {
        faults.push((Span::Once, FaultKind::FlipBit(bit), format!("FlipBit({bit})")));
    }
    for bit in [80, 131, 1000] {
        faults.push((Span::Continuous, FaultKind::FlipBit(bit), format!("FlipBit({bit})")));
    }
    faults.push((Span::Continuous, FaultKind::EndOfStream, "EndOfStream".to_owned()));
    faults.push((Span::Once, FaultKind::Delay(Duration::from_millis(20)), "Delay".to_owned()));
    faults
}

fn run_all(cases: &[Case], next: &AtomicUsize, tally: &Mutex<Tally>) {
    // A child on its way from fork to exec holds the locks of all vaults that are open meanwhile.
    static SPAWNING: RwLock<()> = RwLock::new(());
    let mut lab: Option<Lab> = None;
    while let Some(case) = cases.get(next.fetch_add(1, Ordering::SeqCst)) {
        // A growing vault would slow the later runs down.
        if lab.as_ref().is_some_and(|lab| lab.passkeys.len() > 30) {
            lab = None;
        }
        let mut here = lab.take().unwrap_or_else(|| {
            let _alone = SPAWNING.write().unwrap_or_else(PoisonError::into_inner);
            Lab::empty()
        });
        let _nobody_spawns = SPAWNING.read().unwrap_or_else(PoisonError::into_inner);
        here.prepare(case.operation);
        if run(case, &mut here, tally) {
            lab = Some(here);
        }
    }
}

/// One run. False if it left the laboratory unfit for others.
fn run(case: &Case, lab: &mut Lab, tally: &Mutex<Tally>) -> bool {
    let mut wrong = Vec::new();
    let raw = lab.raw();
    let before = (raw.wrong_pins().unwrap_or(0), raw.lockout_counter());
    lab.proxy.clear_record();
    lab.proxy.arm(Fault { at: case.at, span: case.span, kind: case.kind.clone() });
    let mut keys = lab.key_store();
    let result = lab.perform(case.operation, &mut keys);
    let fired = lab.proxy.fired();
    lab.proxy.disarm();

    let commands = lab.proxy.record().len() + if reaches_tpm(&case.kind) { 0 } else { fired };
    let after_fault = commands.saturating_sub(case.at);
    let spent = [
        raw.wrong_pins().unwrap_or(0).saturating_sub(before.0),
        raw.lockout_counter().saturating_sub(before.1),
    ];
    let outcome = match &result {
        Ok(_) => "ok".to_owned(),
        Err(e) => chain(e.as_ref()),
    };
    let done = result.as_ref().ok();
    if let Err(e) = &result {
        if e.downcast_ref::<WrongSuccess>().is_some() {
            wrong.push(e.to_string());
        }
        if let Some(KeyStoreError::KeysGone(_) | KeyStoreError::Erased) = of_key_store(e.as_ref()) {
            wrong.push("keys said to be gone without proof".to_owned());
        }
    }
    if fired == 0 {
        wrong.push("the fault was not met".to_owned());
    }
    if done.is_some() && !may_succeed(case) {
        wrong.push("succeeded".to_owned());
    }
    if after_fault > MOST_COMMANDS {
        wrong.push(format!("{after_fault} commands"));
    }
    let allowed = if asks_again_after_doing(case) { 5 } else { 1 };
    if spent[0] > allowed {
        wrong.push(format!("{} PIN tries", spent[0]));
    }
    if spent[1] > allowed {
        wrong.push(format!("{} lockout counts", spent[1]));
    }

    let mut left = 0;
    let settled = settle(case, lab, done, keys, &mut wrong, &mut left);
    let mut tally = tally.lock().unwrap();
    tally.runs += 1;
    tally.successes += usize::from(done.is_some());
    tally.most_commands = tally.most_commands.max(after_fault);
    if !asks_again_after_doing(case) {
        tally.most_pin_tries = tally.most_pin_tries.max(spent[0]);
        tally.most_lockouts = tally.most_lockouts.max(spent[1]);
        tally.handles_left += left;
    }
    *tally.errors.entry(outcome.clone()).or_default() += 1;
    for wrong in &wrong {
        let line = format!("{} -> {outcome} | {wrong}", case.label);
        println!("{line}");
        tally.violations.push(line);
    }
    wrong.is_empty() && settled
}

/// With the fault lifted.
fn settle(
    case: &Case,
    lab: &mut Lab,
    done: Option<&Done>,
    mut keys: tpm_backend::Tpm,
    wrong: &mut Vec<String>,
    left: &mut usize,
) -> bool {
    let raw = lab.raw();
    let condition = match lab.prove(case.operation, done, &mut keys) {
        Ok(condition) => condition,
        Err(e) => {
            wrong.push(format!("the same key store: {}", chain(e.as_ref())));
            return false;
        }
    };
    if let Some(claim) = done.and_then(|done| refute(case, lab, done, condition)) {
        wrong.push(format!("WRONG SUCCESS: {claim}"));
    }
    if condition == Condition::Vacant {
        // Set-up takes over what a cut one or a cut wipe left.
        if let Err(e) = lab.perform(Operation::Setup, &mut keys) {
            wrong.push(format!("set-up with the same key store: {}", chain(e.as_ref())));
            return false;
        }
    }
    drop(keys);
    if !raw.loaded().is_empty() && !asks_again_after_doing(case) {
        *left += raw.loaded().len();
        wrong.push(format!("still loaded: {:x?}", raw.loaded()));
    }
    let mut fresh = lab.key_store();
    if let Err(e) = lab.accept(case.operation, condition, &mut fresh) {
        wrong.push(format!("a new key store: {}", chain(e.as_ref())));
        return false;
    }
    match lab.prove(Operation::Open, None, &mut fresh) {
        Ok(Condition::Same) => {}
        Ok(other) => wrong.push(format!("a new key store finds it {other:?}")),
        Err(e) => wrong.push(format!("a new key store: {}", chain(e.as_ref()))),
    }
    drop(fresh);
    let indices = raw.indices().len();
    if indices != 4 {
        wrong.push(format!("{indices} indices for one vault"));
    }
    !asks_again_after_doing(case) || raw.loaded().is_empty()
}

/// Why a success is none, if it is none.
fn refute(case: &Case, lab: &Lab, done: &Done, condition: Condition) -> Option<String> {
    let changes = !matches!(
        case.operation,
        Operation::Setup
            | Operation::Open
            | Operation::Heal
            | Operation::Sign
            | Operation::Settle
            | Operation::Status
    );
    let expected = match case.operation {
        Operation::Wipe => Condition::Vacant,
        _ if changes => Condition::Changed,
        _ => Condition::Same,
    };
    if condition != expected {
        return Some(format!("the vault is {condition:?}"));
    }
    match done {
        Done::Listed(ids) if *ids != lab.passkeys.iter().map(|p| p.id).collect::<Vec<_>>() => {
            Some(format!("{ids:?}"))
        }
        // What a TPM says of itself is not authenticated, and nothing relies on it: it is shown.
        Done::Status(status) if !matches!(case.kind, FaultKind::FlipBit(_)) => {
            let shown = (status.wrong_pins.map(|w| (w.count, w.limit)), status.lockout.counter);
            let count = if hides_the_count(case) { None } else { Some((0, 8)) };
            let counted = (count, lab.raw().lockout_counter());
            (shown != counted).then(|| format!("{shown:?} for {counted:?}"))
        }
        Done::Silently
            if case.operation == Operation::Wipe && (lab.has_vault() || !lab.raw().indices().is_empty()) =>
        {
            Some(format!("left: file {}, indices {:x?}", lab.has_vault(), lab.raw().indices()))
        }
        _ => None,
    }
}

/// The longest tail of commands after a fault: libtss2 asks up to 5 times, and clearing up after a lost
/// reply lists what is loaded and flushes it.
const MOST_COMMANDS: usize = 80;

/// A success is right only where the fault could not matter.
fn may_succeed(case: &Case) -> bool {
    match case.kind {
        FaultKind::Delay(_) => true,
        // Verified like any other: a bit that nobody reads, or that its session's HMAC would not cover.
        FaultKind::FlipBit(_) => true,
        // libtss2 asks again, and the second time the TPM does it.
        FaultKind::Refuse(code) | FaultKind::LoseReply(code)
            if case.span == Span::Once && ASK_AGAIN.contains(&code) =>
        {
            true
        }
        FaultKind::Refuse(code) | FaultKind::LoseReply(code)
            if case.refused && case.span == Span::Once && AUTH_CODES.contains(&code) =>
        {
            true
        }
        _ if hides_the_count(case) || hides_who_it_is(case) => true,
        // The work is done and answered for; whether the handle is gone is checked apart.
        _ => case.command == FLUSH_CONTEXT,
    }
}

/// An owner's TPM that does not show its count answers like this; Passhold then says that it shows its own.
fn hides_the_count(case: &Case) -> bool {
    let told = matches!(case.kind, FaultKind::Refuse(code) | FaultKind::LoseReply(code) if AUTH_CODES.contains(&code));
    told && case.operation == Operation::Status && case.command == NV_READ && case.at > FIRST_NV_READ
}

/// A TPM whose endorsement hierarchy wants an authorization answers like this; Passhold then cannot tell it from another one.
fn hides_who_it_is(case: &Case) -> bool {
    let told = matches!(case.kind, FaultKind::Refuse(code) | FaultKind::LoseReply(code) if AUTH_CODES.contains(&code));
    told && case.operation == Operation::Setup && case.at == ASKS_WHO_IT_IS
}

/// A TPM that does a command, says that it did not and asks for it again, breaks its specification
/// (Part 3 §5.2). libtss2 then sends the same bytes again, up to 5 times in all: what it loads twice is
/// loaded twice, and what it proves again fails with the session's old nonce. Neither can be mended above
/// libtss2; that the vault survives it, and that nothing is taken for success, is held all the same.
fn asks_again_after_doing(case: &Case) -> bool {
    matches!(case.kind, FaultKind::LoseReply(code) if ASK_AGAIN.contains(&code))
}

fn reaches_tpm(kind: &FaultKind) -> bool {
    !matches!(kind, FaultKind::Refuse(_) | FaultKind::CutBefore | FaultKind::EndOfStream)
}
