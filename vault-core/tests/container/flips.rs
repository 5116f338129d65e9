//! Every bit, every length, and 100,000 random edits.

use std::{collections::BTreeMap, fs::OpenOptions, os::unix::fs::FileExt, sync::Mutex, thread};

use vault_core::container::{Account, ContainerError, Damage};

use crate::bench::{Bench, Case, Look, Seeded, account, difference, scale};

/// SQLite's page.
const PAGE: usize = 4096;

/// How often each kind of answer was given.
#[derive(Default)]
struct Tally(Mutex<BTreeMap<&'static str, usize>>);

impl Tally {
    fn add(&self, what: &'static str) {
        *self.0.lock().unwrap().entry(what).or_default() += 1;
    }

    fn print(&self, what: &str, cases: usize) {
        println!("{what}: {cases} cases; {:?}", self.0.lock().unwrap());
    }
}

/// Looks at a changed file: the answer is right or an error, and the file stays as it was.
fn hold(bench: &Bench, changed: &[u8], intact: &Look, tally: &Tally) {
    let look = Look::for_those_in(bench.dir(), &intact.known());
    match look.judge(intact) {
        Err(wrong) => panic!("{wrong}"),
        Ok(errors) => tally.add(errors.first().copied().unwrap_or("as before")),
    }
    if let Some(difference) = difference(&without_mode(changed), &without_mode(&bench.bytes())) {
        panic!("looking at it changed the file: {difference}; the answer was {:?}", look.error());
    }
    assert_eq!(bench.litter(), Vec::<String>::new());
}

/// The file without what `SQLite` may set right as it opens a vault: that the file has a write-ahead log
/// (bytes 18 and 19), the counters of that change and its own version (24 to 27 and 92 to 99; file
/// format §1.3). None of it bears on a row, and the vault is one of ours by then.
fn without_mode(file: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    for range in [18..20, 24..28, 92..100] {
        if let Some(bytes) = file.get_mut(range) {
            bytes.fill(0);
        }
    }
    file
}

/// Runs `case` on the numbers below `count` in two threads, each with a bench of its own.
fn in_two_threads(
    make: fn() -> Bench,
    count: usize,
    step: usize,
    case: impl Fn(&Bench, &Look, &[u8], usize) + Sync,
) {
    thread::scope(|scope| {
        for first in [0, 1] {
            let case = &case;
            scope.spawn(move || {
                let bench = make();
                let (intact, bytes) = (bench.look(), bench.bytes());
                for n in (first * step..count).step_by(2 * step) {
                    case(&bench, &intact, &bytes, n);
                }
            });
        }
    });
}

#[test]
fn every_flipped_bit_is_named_or_changes_nothing() {
    let bits = Bench::small().bytes().len() * 8;
    // A prime, so that the sample meets every bit of a byte and every place in a page.
    let step = scale(149, 1);
    let tally = Tally::default();
    in_two_threads(Bench::small, bits, step, |bench, intact, bytes, bit| {
        let _case = Case(|| format!("bit {} of byte {}", bit % 8, bit / 8));
        let mut changed = bytes.to_vec();
        changed[bit / 8] ^= 1 << (bit % 8);
        let file = OpenOptions::new().write(true).open(bench.file()).unwrap();
        file.write_all_at(&changed[bit / 8..=bit / 8], (bit / 8) as u64).unwrap();
        hold(bench, &changed, intact, &tally);
        if bit % 13 == 0 {
            bench.assert_setup_refuses();
        }
        bench.put(bytes);
    });
    tally.print("flipped bits", bits.div_ceil(step));
}

#[test]
fn every_truncation_is_named() {
    let bytes = Bench::small().bytes().len();
    let step = scale(61, 1);
    let tally = Tally::default();
    in_two_threads(Bench::small, bytes, step, |bench, intact, bytes, len| {
        let _case = Case(|| format!("the first {len} bytes"));
        bench.put(&bytes[..len]);
        hold(bench, &bytes[..len], intact, &tally);
        if len % 7 == 0 {
            bench.assert_setup_refuses();
        }
    });
    tally.print("truncations", bytes.div_ceil(step));
}

#[test]
fn random_edits_are_named_or_change_nothing() {
    let given = std::env::var("PASSHOLD_SEED").ok().map(|seed| seed.parse().unwrap());
    let seed = given.unwrap_or_else(|| getrandom::u64().unwrap());
    let count = if given.is_some() { 1 } else { scale(1_000, 100_000) };
    let tally = Tally::default();
    in_two_threads(Bench::lived_in, count, 1, |bench, intact, bytes, n| {
        let seed = seed.wrapping_add(n as u64);
        let mut edits = Vec::new();
        let changed = edit_at_random(bytes, &mut Seeded(seed), &mut edits);
        let _case = Case(|| format!("PASSHOLD_SEED={seed}: {edits:?}"));
        bench.put(&changed);
        hold(bench, &changed, intact, &tally);
    });
    tally.print("random edits", count);
}

fn edit_at_random(bytes: &[u8], rng: &mut Seeded, log: &mut Vec<String>) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..=rng.below(4) {
        let (at, len, pages) = (rng.below(bytes.len()), 1 + rng.below(64), bytes.len() / PAGE);
        let end = (at + len).min(bytes.len());
        match rng.below(8) {
            0..3 => {
                log.push(format!("overwrite {at}..{end}"));
                bytes[at..end].fill_with(|| rng.next().to_le_bytes()[0]);
            }
            3 => {
                log.push(format!("insert {len} at {at}"));
                let new: Vec<u8> = (0..len).map(|_| rng.next().to_le_bytes()[0]).collect();
                bytes.splice(at..at, new);
            }
            4 => {
                log.push(format!("remove {at}..{end}"));
                bytes.drain(at..end);
            }
            5 => {
                let (a, b) = (rng.below(pages) * PAGE, rng.below(pages) * PAGE);
                log.push(format!("swap pages at {a} and {b}"));
                let page = bytes[a..a + PAGE].to_vec();
                bytes.copy_within(b..b + PAGE, a);
                bytes[b..b + PAGE].copy_from_slice(&page);
            }
            6 => {
                let (a, b) = (rng.below(pages) * PAGE, rng.below(pages) * PAGE);
                log.push(format!("copy page at {a} to {b}"));
                bytes.copy_within(a..a + PAGE, b);
            }
            _ => {
                let page = rng.below(pages) * PAGE;
                log.push(format!("clear page at {page}"));
                bytes[page..page + PAGE].fill(0);
            }
        }
    }
    bytes
}

/// Damage that no answer depends on, such as in the list of free pages, must not become the loss of a
/// passkey when the next one is stored.
#[test]
fn a_passkey_added_to_a_damaged_file_costs_no_other() {
    let bytes = Bench::lived_in().bytes();
    // SQLite's own bookkeeping (its file format, §1.3 and §1.5): the first page's header, and the first page
    // of the list of free pages, whose entries name the pages that the next row may overwrite.
    let free = usize::try_from(u32::from_be_bytes(*bytes[32..].first_chunk().unwrap())).unwrap();
    assert_ne!(free, 0, "no page is free");
    let list = (free - 1) * PAGE * 8;
    let header = (0..800).step_by(scale(7, 1));
    // The low byte of each entry: one flipped bit names a page nearby, which is in use.
    let entries = (2..12).flat_map(|entry| (24..32).map(move |bit| list + entry * 32 + bit));
    let bookkeeping = header.chain(entries);
    let elsewhere = (0..bytes.len() * 8).step_by(scale(8_009, 17));
    let bits: Vec<usize> = bookkeeping.chain(elsewhere).collect();
    let tally = Tally::default();
    in_two_threads(Bench::lived_in, bits.len(), 1, |bench, intact, bytes, n| {
        let bit = bits[n];
        let _case = Case(|| format!("bit {} of byte {}", bit % 8, bit / 8));
        tally.add(add_after_flip(bench, intact, bytes, bit));
        bench.put(bytes);
    });
    tally.print("additions after a flipped bit", bits.len());
}

fn add_after_flip(bench: &Bench, intact: &Look, bytes: &[u8], bit: usize) -> &'static str {
    let mut changed = bytes.to_vec();
    changed[bit / 8] ^= 1 << (bit % 8);
    bench.put(&changed);
    let known = intact.known();
    if Look::for_those_in(bench.dir(), &known).error().is_some() {
        return "refused before";
    }
    // Longer than a page, so that free pages are used.
    let new = account("new.example", &"y".repeat(9_000), 1);
    let mut store = bench.store();
    let inserted = store.insert(&new, &mut Seeded(1));
    drop(store);
    let after = Look::for_those_in(bench.dir(), &known);
    let mut expected = known;
    match inserted {
        Ok(id) => expected.push((id, new)),
        Err(_) => assert_eq!(after.judge(intact), Ok(vec![]), "the failed addition left damage"),
    }
    let passkeys = after.accounts.unwrap().unwrap();
    assert_eq!(names(&passkeys), names(&expected));
    assert_eq!(passkeys, expected);
    if inserted_is(&passkeys, intact) { "added" } else { "refused" }
}

fn inserted_is(passkeys: &[(vault_core::container::AccountId, Account)], intact: &Look) -> bool {
    passkeys.len() > intact.known().len()
}

fn names(accounts: &[(vault_core::container::AccountId, Account)]) -> Vec<String> {
    accounts.iter().map(|(id, a)| format!("{id} {}", a.rp_id)).collect()
}

/// A number in a branch of the table leads a search past a passkey that a scan finds: it is damage, and no "no such passkey".
#[test]
fn a_passkey_that_a_damaged_branch_hides_is_not_said_to_be_missing() {
    let bench = Bench::lived_in();
    let known = bench.look().known();
    let root: usize = {
        let db = rusqlite::Connection::open(bench.file()).unwrap();
        db.query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'passkey'", [], |row| row.get(0))
            .unwrap()
    };
    let mut bytes = bench.bytes();
    let page = &mut bytes[(root - 1) * PAGE..];
    // SQLite's file format, §1.6: an interior page of a table, its first cell, and that cell's key after the child's number.
    assert_eq!(page[0], 5);
    let cell = usize::from(u16::from_be_bytes([page[12], page[13]]));
    page[cell + 4] = 0;
    bench.put(&bytes);
    let store = bench.store();
    let mut hidden = 0;
    for (id, account) in known {
        match store.account(id) {
            Ok(found) => assert_eq!(found, account),
            Err(ContainerError::Damaged { what: Damage::File }) => hidden += 1,
            Err(e) => panic!("{id}: {e:?}"),
        }
    }
    assert_ne!(hidden, 0);
}
