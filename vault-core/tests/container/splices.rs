//! Rows, headers and trees put together from different times and places.

use vault_core::container::{Container, ContainerError, Damage, Deed, State};

use crate::bench::{Bench, Look, Seeded, VAULT_ID, account, difference, id, key, labelled, rp};

/// What each question is answered with; `Ok` means: exactly as before.
#[derive(Debug, PartialEq)]
struct Answers {
    all: Result<(), Damage>,
    alices: Result<(), Damage>,
    bobs: Result<(), Damage>,
}

/// Alice (two passkeys), Bob and Carol; and the file as it was at each change.
struct History {
    bench: Bench,
    /// Alice and Bob.
    two: Vec<u8>,
    /// With Carol.
    three: Vec<u8>,
    /// With Dan.
    four: Vec<u8>,
    /// Bob renamed.
    renamed: Vec<u8>,
    /// Dan deleted: the latest.
    latest: Vec<u8>,
}

impl History {
    fn new() -> Self {
        let bench = Bench::with(&["alice", "bob"].map(|user| account(&format!("{user}.example"), user, 1)));
        let mut files = vec![bench.bytes()];
        let mut step = |change: &dyn Fn(&mut vault_core::container::Store)| {
            let mut store = bench.store();
            change(&mut store);
            drop(store);
            files.push(bench.bytes());
        };
        step(&|store| {
            store.insert(&account("carol.example", "carol", 1), &mut Seeded(3)).unwrap();
        });
        step(&|store| {
            store.insert(&account("alice.example", "dan", 2), &mut Seeded(4)).unwrap();
        });
        step(&|store| {
            let renamed = labelled(store.account(id(2)).unwrap(), Some("work"));
            store.update(Deed::Rename, id(2), &renamed, &mut Seeded(5)).unwrap();
        });
        step(&|store| store.remove(id(4)).unwrap());
        let [two, three, four, renamed, latest] = files.try_into().unwrap();
        Self { bench, two, three, four, renamed, latest }
    }

    /// Splices from `old` into the latest file and asks; the file must not change by the asking.
    fn splice(&self, old: &[u8], sql: &str) -> Result<Answers, Damage> {
        self.bench.put(&self.latest);
        let intact = self.bench.look();
        self.bench.splice(old, sql);
        let spliced = self.bench.bytes();
        let known = intact.known();
        let store = match Container::open(self.bench.dir()).and_then(|c| c.unseal(&key())) {
            Ok(store) => store,
            Err(e) => return Err(damage(e)),
        };
        let of = |name: &str| {
            let right: Vec<_> = known.iter().filter(|(_, a)| a.rp_id == rp(name)).cloned().collect();
            store.accounts_of(&rp(name)).map(|found| assert_eq!(found, right, "{sql}")).map_err(damage)
        };
        let answers = Answers {
            all: store.accounts().map(|all| assert_eq!(all, known, "{sql}")).map_err(damage),
            alices: of("alice.example"),
            bobs: of("bob.example"),
        };
        drop(store);
        assert_eq!(difference(&spliced, &self.bench.bytes()), None, "{sql}");
        self.bench.assert_setup_refuses();
        Ok(answers)
    }
}

fn damage(error: ContainerError) -> Damage {
    match error {
        ContainerError::Damaged { what } => what,
        other => panic!("{other:?}"),
    }
}

const MEMBERSHIP: Result<(), Damage> = Err(Damage::Membership);
const TREE: Result<(), Damage> = Err(Damage::Tree);

#[test]
fn a_deleted_passkey_that_is_put_back_is_noticed() {
    let history = History::new();
    let put_back = "INSERT INTO passkey SELECT * FROM old.passkey WHERE id = 4";
    let answers = history.splice(&history.renamed, put_back);
    assert_eq!(answers, Ok(Answers { all: MEMBERSHIP, alices: MEMBERSHIP, bobs: Ok(()) }));
    // With its index over the passkeys as well: then nothing under that root adds up.
    let with_tree = format!("{put_back}; DELETE FROM tree; INSERT INTO tree SELECT * FROM old.tree");
    let answers = history.splice(&history.renamed, &with_tree);
    assert_eq!(answers, Ok(Answers { all: MEMBERSHIP, alices: MEMBERSHIP, bobs: MEMBERSHIP }));
}

#[test]
fn the_older_contents_of_a_row_are_noticed() {
    let history = History::new();
    let answers = history.splice(
        &history.four,
        "UPDATE passkey SET sealed = (SELECT sealed FROM old.passkey WHERE id = 2) WHERE id = 2",
    );
    assert_eq!(answers, Ok(Answers { all: MEMBERSHIP, alices: Ok(()), bobs: MEMBERSHIP }));
}

#[test]
fn an_old_header_over_new_rows_and_a_new_header_over_old_rows_are_noticed() {
    let history = History::new();
    for old in [&history.two, &history.three, &history.four, &history.renamed] {
        let header = "DELETE FROM header; INSERT INTO header SELECT * FROM old.header";
        let answers = history.splice(old, header).unwrap();
        assert_eq!(answers.all, MEMBERSHIP);
        let rows = "DELETE FROM passkey; INSERT INTO passkey SELECT * FROM old.passkey";
        assert_eq!(history.splice(old, rows).unwrap().all, MEMBERSHIP);
        let both = format!("{rows}; DELETE FROM tree; INSERT INTO tree SELECT * FROM old.tree");
        let answers = history.splice(old, &both);
        assert_eq!(answers, Ok(Answers { all: MEMBERSHIP, alices: MEMBERSHIP, bobs: MEMBERSHIP }));
    }
}

#[test]
fn an_old_tree_is_told_from_the_rows_under_it() {
    let history = History::new();
    for old in [&history.two, &history.three, &history.four] {
        let answers = history.splice(old, "DELETE FROM tree; INSERT INTO tree SELECT * FROM old.tree");
        // A look through all rows needs no tree, and finds them whole.
        assert_eq!(answers, Ok(Answers { all: Ok(()), alices: TREE, bobs: TREE }));
    }
    for sql in [
        "DELETE FROM tree",
        "UPDATE tree SET children = zeroblob(512)",
        "UPDATE tree SET children = x''",
        "UPDATE tree SET children = CAST(children || x'00' AS BLOB)",
        "DELETE FROM tree WHERE node = (SELECT max(node) FROM tree)",
    ] {
        let answers = history.splice(&history.latest, sql);
        assert_eq!(answers, Ok(Answers { all: Ok(()), alices: TREE, bobs: TREE }), "{sql}");
    }
}

#[test]
fn each_missing_row_is_noticed() {
    let history = History::new();
    for number in 1..=3 {
        let answers = history.splice(&history.latest, &format!("DELETE FROM passkey WHERE id = {number}"));
        let mine = |n| if n == number { MEMBERSHIP } else { Ok(()) };
        assert_eq!(answers, Ok(Answers { all: MEMBERSHIP, alices: mine(1), bobs: mine(2) }));
        let Err(error) = history.bench.store().account(id(number)) else { panic!("it is there") };
        assert_eq!(damage(error), Damage::Membership);
    }
    let answers = history.splice(&history.latest, "DELETE FROM passkey").unwrap();
    assert_eq!(answers, Answers { all: MEMBERSHIP, alices: MEMBERSHIP, bobs: MEMBERSHIP });
}

#[test]
fn rows_that_trade_places_are_named() {
    let history = History::new();
    let trade = |column: &str| {
        format!(
            "UPDATE passkey SET {column} = (SELECT p.{column} FROM passkey p WHERE p.id = 3 - passkey.id) WHERE id IN (1, 2)"
        )
    };
    let row = |n| Err(Damage::Row(id(n)));
    for sql in [trade("sealed"), trade("rp_tag")] {
        // SQLite runs the subquery against rows already changed, so the trade goes by way of a copy.
        let sql = format!(
            "CREATE TEMP TABLE copy AS SELECT * FROM passkey; {}",
            sql.replace("FROM passkey p", "FROM copy p")
        );
        let answers = history.splice(&history.latest, &sql).unwrap();
        assert_eq!(answers.all, row(1), "{sql}");
        assert!([answers.alices, answers.bobs].contains(&row(1)), "{sql}");
    }
    let numbers = "UPDATE passkey SET id = -id WHERE id < 3; UPDATE passkey SET id = 3 + id WHERE id < 0";
    assert_eq!(history.splice(&history.latest, numbers).unwrap().all, row(1));
    // The bucket only finds rows; it is not what vouches for them.
    let buckets = "UPDATE passkey SET bucket = 0 WHERE id = 1";
    let answers = history.splice(&history.latest, buckets);
    assert_eq!(answers, Ok(Answers { all: Ok(()), alices: TREE, bobs: Ok(()) }));
}

#[test]
fn an_edited_row_is_named() {
    let history = History::new();
    for sealed in
        ["x''", "x'00'", "substr(sealed, 2)", "CAST(sealed || x'00' AS BLOB)", "zeroblob(length(sealed))"]
    {
        let sql = format!("UPDATE passkey SET sealed = {sealed} WHERE id = 2");
        let answers = history.splice(&history.latest, &sql);
        let row = Err(Damage::Row(id(2)));
        assert_eq!(answers, Ok(Answers { all: row, alices: Ok(()), bobs: row }), "{sealed}");
    }
}

#[test]
fn a_row_of_another_vault_under_the_same_key_is_named() {
    let history = History::new();
    let other = Bench::with_id_and([1; 16], &[account("alice.example", "alice", 1)]);
    assert_ne!(other.store().vault_id(), &VAULT_ID);
    let sql = "UPDATE passkey SET sealed = (SELECT sealed FROM old.passkey WHERE id = 1) WHERE id = 1";
    let row = Err(Damage::Row(id(1)));
    let answers = history.splice(&other.bytes(), sql);
    assert_eq!(answers, Ok(Answers { all: row, alices: row, bobs: Ok(()) }));
}

#[test]
fn an_edited_header_is_named() {
    let history = History::new();
    for edit in [
        "vault_id = zeroblob(16)",
        "anchor = x'00'",
        "anchor = CAST(anchor || x'00' AS BLOB)",
        "kind = 'discrete'",
        "kind = 'Firmware'",
        "generation = generation + 1",
        "generation = 0",
        "root = zeroblob(32)",
        "mac = zeroblob(32)",
        "state = 'wiping'",
        "state = 'Active'",
        "state = ''",
    ] {
        let spliced = splice_without_setup(&history, &format!("UPDATE header SET {edit}"));
        assert_eq!(spliced, Some(Damage::Header), "{edit}");
    }
    assert_eq!(splice_without_setup(&history, "DELETE FROM header"), Some(Damage::Header));
}

fn splice_without_setup(history: &History, sql: &str) -> Option<Damage> {
    history.bench.put(&history.latest);
    history.bench.edit(sql);
    history.bench.look().header.err().map(damage)
}

#[test]
fn a_header_that_only_claims_an_unfinished_set_up_does_not_cost_the_vault() {
    let history = History::new();
    // The record that set-up made before the first passkey, with its own authentication code.
    let bench = Bench::empty();
    let vacancy = vault_core::container::Vacancy::reserve(bench.dir()).unwrap();
    let anchor = vault_core::keystore::Anchor(vec![7; 300]);
    drop(vacancy.create(VAULT_ID, &anchor, &key()).unwrap());
    let record = bench.bytes();
    history.bench.put(&history.latest);
    history.bench.splice(&record, "DELETE FROM header; INSERT INTO header SELECT * FROM old.header");
    history.bench.assert_setup_refuses();
}

#[test]
fn the_states_of_a_vaults_life_are_read_as_written() {
    let bench = Bench::small();
    assert_eq!(Container::open(bench.dir()).unwrap().state().unwrap(), State::Active);
    let mut store = bench.store();
    store.set_state(vault_core::container::State::Wiping).unwrap();
    assert_eq!(store.state(), State::Wiping);
    drop(store);
    assert_eq!(Container::open(bench.dir()).unwrap().state().unwrap(), State::Wiping);
    assert_eq!(Look::at(bench.dir()).header.unwrap().1, State::Wiping);
}
