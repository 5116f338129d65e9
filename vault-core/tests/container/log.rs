//! The log against whoever writes to the file.

use vault_core::container::{ContainerError, Damage, Deed, Entry, LOG_KEEPS, Log, Refusal, Subject};

use crate::bench::{Bench, Look, Seeded, account, id, labelled, rp};

const SITE: &str = "alice.example";

fn deeds(log: &Log) -> Vec<Deed> {
    log.entries.iter().filter_map(|(_, entry)| Some(entry.as_ref()?.deed)).collect()
}

/// A vault with eleven entries, and the file as it was after the seventh.
fn lived() -> (Bench, Vec<u8>) {
    let bench = Bench::with(&[account(SITE, "alice", 1)]);
    let mut store = bench.store();
    store.set_now(1_700_000_000);
    for n in 2..7 {
        store.note(Deed::Sign, Some(Subject::of(id(1), &store.account(id(1)).unwrap())));
        store.note_use(id(1), n, &mut Seeded(n)).unwrap();
    }
    drop(store);
    let seven = bench.bytes();
    let mut store = bench.store();
    store.set_now(1_700_000_100);
    let renamed = labelled(store.account(id(1)).unwrap(), Some("work"));
    store.update(Deed::Rename, id(1), &renamed, &mut Seeded(8)).unwrap();
    store.move_to_bin(id(1), 9, &mut Seeded(9)).unwrap();
    store.take_from_bin(id(1), &mut Seeded(10)).unwrap();
    store.note_refusal(Deed::ProvePin, Refusal::WrongPin, None).unwrap();
    store.set_wrong_pins(1).unwrap();
    drop(store);
    (bench, seven)
}

/// The first entry that is not what was written there. The passkeys are as they were.
fn broken(bench: &Bench) -> Option<u64> {
    let store = bench.store();
    assert_eq!(store.accounts().unwrap().len(), 1);
    let log = store.log().unwrap();
    let missing = log.entries.iter().find(|(_, entry)| entry.is_none()).map(|(n, _)| *n);
    assert_eq!(missing, log.broken);
    log.broken
}

#[test]
fn it_says_what_happened_in_its_order() {
    use Deed::*;
    let (bench, _) = lived();
    let log = bench.store().log().unwrap();
    assert_eq!(log.broken, None);
    assert_eq!(deeds(&log), [SetUp, Enrol, Sign, Sign, Sign, Sign, Sign, Rename, Delete, Undelete, ProvePin]);
    let numbers: Vec<_> = log.entries.iter().map(|(n, _)| *n).collect();
    assert_eq!(numbers, (0..11).collect::<Vec<_>>());
    let subject = Subject { id: Some(id(1)), rp_id: SITE.into(), user_name: "alice".into() };
    assert_eq!(
        log.entries[7].1,
        Some(Entry { at: 1_700_000_100, deed: Rename, refusal: None, subject: Some(subject) })
    );
    assert_eq!(
        log.entries[10].1,
        Some(Entry { at: 1_700_000_100, deed: ProvePin, refusal: Some(Refusal::WrongPin), subject: None })
    );
}

#[test]
fn an_entry_that_was_removed_is_named() {
    for n in 0..11 {
        for how in [
            "DELETE FROM log WHERE n = N",
            "UPDATE log SET sealed = zeroblob(400) WHERE n = N",
            "UPDATE log SET sealed = x'' WHERE n = N",
        ] {
            let (bench, _) = lived();
            bench.edit(&how.replace('N', &n.to_string()));
            assert_eq!(broken(&bench), Some(n), "{how}");
        }
    }
}

#[test]
fn an_entry_that_was_changed_is_named() {
    for n in [0, 4, 10] {
        let (bench, _) = lived();
        bench.edit(&format!(
            "UPDATE log SET sealed = CAST(substr(sealed, 1, 40) || x'00' || substr(sealed, 42) AS BLOB) WHERE n = {n}"
        ));
        assert_eq!(broken(&bench), Some(n));
    }
}

#[test]
fn entries_that_trade_places_are_named() {
    for (one, other) in [(0, 1), (3, 4), (2, 10)] {
        let (bench, _) = lived();
        bench.edit(&format!(
            "CREATE TEMP TABLE one AS SELECT sealed FROM log WHERE n = {one};
             UPDATE log SET sealed = (SELECT sealed FROM log WHERE n = {other}) WHERE n = {one};
             UPDATE log SET sealed = (SELECT sealed FROM one) WHERE n = {other};"
        ));
        assert_eq!(broken(&bench), Some(one));
    }
}

#[test]
fn a_tail_that_was_cut_off_is_named() {
    for n in [1, 7, 10] {
        let (bench, _) = lived();
        bench.edit(&format!("DELETE FROM log WHERE n >= {n}"));
        assert_eq!(broken(&bench), Some(n));
    }
}

#[test]
fn an_older_log_in_its_place_is_named() {
    let (bench, seven) = lived();
    bench.splice(&seven, "DELETE FROM log; INSERT INTO log SELECT * FROM old.log");
    assert_eq!(broken(&bench), Some(7));
    // With where it ends: that stands in the header, and the header is authenticated as a whole.
    bench.splice(&seven, "UPDATE header SET log = (SELECT log FROM old.header)");
    let error = Look::at(bench.dir()).header.unwrap_err();
    assert!(matches!(error, ContainerError::Damaged { what: Damage::Header }), "{error:?}");
}

/// After an old copy was let in there are two authentic entries of one number.
#[test]
fn an_entry_of_another_history_is_named() {
    for n in [7, 8, 9, 10] {
        let (bench, seven) = lived();
        let once = bench.bytes();
        bench.put(&seven);
        let mut store = bench.store();
        for _ in 0..4 {
            store.note(Deed::Configure, None);
            store.write_log().unwrap();
        }
        drop(store);
        assert_eq!(broken(&bench), None);
        let row = format!("(SELECT sealed FROM old.log WHERE n = {n})");
        bench.splice(&once, &format!("UPDATE log SET sealed = {row} WHERE n = {n}"));
        assert_eq!(broken(&bench), Some(n));
    }
}

#[test]
fn a_refusal_that_repeats_the_last_entry_is_not_written_again_unless_it_is_a_wrong_pin() {
    let bench = Bench::with(&[]);
    let mut store = bench.store();
    let site = |name| Some(Subject::new(None, &rp(name), "alice"));
    for (refusal, subject) in [
        (Refusal::PinLocked, None),
        (Refusal::PinLocked, None),
        (Refusal::Declined, site(SITE)),
        (Refusal::Declined, site(SITE)),
        (Refusal::Declined, site("bob.example")),
        (Refusal::WrongPin, None),
        (Refusal::WrongPin, None),
    ] {
        store.note_refusal(Deed::ProvePin, refusal, subject).unwrap();
        store.write_log().unwrap();
    }
    let refusals: Vec<_> =
        store.log().unwrap().entries.into_iter().filter_map(|(_, entry)| entry?.refusal).collect();
    let expected =
        [Refusal::PinLocked, Refusal::Declined, Refusal::Declined, Refusal::WrongPin, Refusal::WrongPin];
    assert_eq!(refusals, expected);
}

#[test]
fn the_oldest_make_room_when_there_are_too_many() {
    let bench = Bench::with(&[account(SITE, "alice", 1)]);
    let mut store = bench.store();
    for _ in 0..LOG_KEEPS + 500 {
        store.note(Deed::Sign, None);
    }
    store.write_log().unwrap();
    drop(store);
    let log = bench.store().log().unwrap();
    assert_eq!(log.broken, None);
    let (first, last) = (log.entries[0].0, log.entries.last().unwrap().0);
    assert_eq!(last, LOG_KEEPS + 501);
    let kept = last + 1 - first;
    assert!((LOG_KEEPS..LOG_KEEPS + 128).contains(&kept), "{kept}");
    // What is kept is still a chain.
    bench.edit(&format!("DELETE FROM log WHERE n = {first}"));
    assert_eq!(broken(&bench), Some(first));
}

/// Names of any length, in characters of any width.
#[test]
fn every_entry_is_as_long_as_any_other() {
    let site = format!("{}.example", ["a".repeat(60), "b".repeat(60), "c".repeat(60)].join("."));
    let bench = Bench::with(&[account(&site, &"\u{1f511}".repeat(60), 1), account(SITE, "", 2)]);
    let log = bench.store().log().unwrap();
    assert_eq!((log.broken, deeds(&log).len()), (None, 3));
    let subject = log.entries[1].1.clone().unwrap().subject.unwrap();
    assert!(site.ends_with(&subject.rp_id), "{}", subject.rp_id);
    assert_eq!((subject.rp_id.len(), subject.user_name.len()), (96, 96));
    let db = rusqlite::Connection::open(bench.file()).unwrap();
    let lengths: (i64, i64) = db
        .query_row("SELECT min(length(sealed)), max(length(sealed)) FROM log", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })
        .unwrap();
    assert_eq!(lengths, (400, 400));
}

/// What is written moves nothing: the passkeys' pages, and the list of free ones, stay as they are.
#[test]
fn an_entry_is_written_in_its_place() {
    let bench = Bench::lived_in();
    let before = bench.bytes();
    let mut store = bench.store();
    store.note(Deed::Sign, Some(Subject::of(id(5), &store.account(id(5)).unwrap())));
    store.note_use(id(5), 7, &mut Seeded(7)).unwrap();
    drop(store);
    let after = bench.bytes();
    let pages = |file: &[u8]| file.chunks(4096).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let changed = pages(&before).iter().zip(pages(&after)).filter(|(a, b)| **a != *b).count();
    // The header and the file's counters, the last uses, the log.
    assert_eq!((before.len(), changed), (after.len(), 3));
}
