//! The container against the simplest thing that does the same, and the cost of finding one passkey.

use std::{collections::BTreeMap, fs};

use proptest::prelude::*;
use vault_core::container::{Account, AccountId, ContainerError, Deed};

use crate::bench::{Bench, Seeded, account, labelled, rp, scale};

#[derive(Clone, Debug)]
enum Step {
    Insert { rp: u8, user: String },
    Remove(prop::sample::Index),
    Rename(prop::sample::Index, Option<String>),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..4_u8, ".{0,40}").prop_map(|(rp, user)| Step::Insert { rp, user }),
        1 => any::<prop::sample::Index>().prop_map(Step::Remove),
        1 => (any::<prop::sample::Index>(), prop::option::of(".{0,20}"))
            .prop_map(|(which, label)| Step::Rename(which, label)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: u32::try_from(scale(12, 1_000)).unwrap(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_container_holds_what_a_map_would_hold(steps in prop::collection::vec(step(), 1..16)) {
        let bench = Bench::with(&[]);
        let mut model: BTreeMap<AccountId, Account> = BTreeMap::new();
        let (mut changes, mut highest) = (0, 0);
        for (n, step) in steps.iter().enumerate() {
            let mut store = bench.store();
            let mut rng = Seeded(n as u64);
            let ids: Vec<AccountId> = model.keys().copied().collect();
            match step {
                Step::Insert { rp, user } => {
                    let new = account(&format!("rp{rp}.example"), user, n as u64);
                    let id = store.insert(&new, &mut rng).unwrap();
                    // Never used twice.
                    let number: i64 = id.to_string().parse().unwrap();
                    prop_assert!(number > highest);
                    highest = number;
                    changes += 1;
                    model.insert(id, new);
                }
                Step::Remove(which) if !ids.is_empty() => {
                    let id = *which.get(&ids);
                    store.remove(id).unwrap();
                    changes += 1;
                    model.remove(&id);
                    let gone = matches!(store.account(id), Err(ContainerError::NoSuchAccount { id: other }) if other == id);
                    prop_assert!(gone);
                }
                Step::Rename(which, label) if !ids.is_empty() => {
                    let id = *which.get(&ids);
                    let renamed = labelled(store.account(id).unwrap(), label.as_deref());
                    store.update(Deed::Rename, id, &renamed, &mut rng).unwrap();
                    model.insert(id, renamed);
                }
                _ => {}
            }
            let before = ask(&store);
            drop(store);
            let store = bench.store();
            prop_assert_eq!(&before, &ask(&store));
            prop_assert_eq!(before.0, model.clone().into_iter().collect::<Vec<_>>());
            for (rp_number, found) in before.1.iter().enumerate() {
                let mine = model.clone().into_iter().filter(|(_, a)| a.rp_id == rp(&format!("rp{rp_number}.example")));
                prop_assert_eq!(found, &mine.collect::<Vec<_>>());
            }
            prop_assert_eq!(store.generation(), changes);
        }
    }
}

type Accounts = Vec<(AccountId, Account)>;

fn ask(store: &vault_core::container::Store) -> (Accounts, Vec<Accounts>) {
    let of = |n| store.accounts_of(&rp(&format!("rp{n}.example"))).unwrap();
    for (id, account) in store.accounts().unwrap() {
        assert_eq!(store.account(id).unwrap(), account);
    }
    (store.accounts().unwrap(), (0..4).map(of).collect())
}

/// Bytes that this thread has read from files, its every read call counted (Linux,
/// Documentation/filesystems/proc.rst): what is read, and not how fast.
fn bytes_read() -> u64 {
    let io = fs::read_to_string("/proc/thread-self/io").unwrap();
    io.lines().find_map(|line| line.strip_prefix("rchar: ")).unwrap().parse().unwrap()
}

#[test]
fn opening_and_finding_one_passkey_reads_as_much_among_few_as_among_many() {
    let sizes = if scale(0, 1) == 1 { vec![10, 1_000, 100_000] } else { vec![10, 100, 1_000] };
    let bench = Bench::with(&[]);
    let (mut store, mut held, mut costs) = (bench.store(), 0, Vec::new());
    for size in sizes {
        for n in held..size {
            store.insert(&account(&format!("rp{n}.example"), "user", n), &mut Seeded(n)).unwrap();
        }
        held = size;
        drop(store);
        let mut pages = Vec::new();
        for n in [0, size / 2, size - 1] {
            let before = bytes_read();
            let store = bench.store();
            let found = store.accounts_of(&rp(&format!("rp{n}.example"))).unwrap();
            pages.push((bytes_read() - before) / 4096);
            assert_eq!(found.len(), 1);
            assert_eq!(found[0].1.user_name, "user");
        }
        costs.push((size, *pages.iter().max().unwrap(), bench.bytes().len() / 4096));
        store = bench.store();
    }
    println!("(passkeys, pages read to open and find one, pages of the file): {costs:?}");
    let (few, many) = (costs[0].1, costs.last().unwrap().1);
    // Not with the number of passkeys, but with the depth of SQLite's B-trees (one or two levels more in
    // each of three), with the hash tree's four nodes on pages of their own, and with the few rows of a
    // bucket on pages of theirs: 26 pages of 15,343 at 100,000, where 10 passkeys take 11.
    assert!(many <= 3 * few, "{costs:?}");
}
