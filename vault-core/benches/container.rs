//! Opening a container and finding one passkey, among 10, 1,000 and 100,000.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use getrandom::{SysRng, rand_core::UnwrapErr};
use vault_core::{
    container::{Account, Container, Extras, Takes, Vacancy},
    keystore::{Anchor, ContainerKey, KeyBlob, TpmKind},
    secret_from,
    webauthn::{CredentialId, Origin, Protection, RpId, UserHandle},
};

const RUNS: usize = 21;

fn main() {
    let mut floor = None;
    println!(
        "{:>10}  {:>12}  {:>5}  {:>12}  {:>12}",
        "passkeys", "open + find", "ratio", "list", "open + add"
    );
    for size in [10, 1_000, 100_000] {
        // In memory: 100,000 durable writes would take as many disk flushes.
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        fill(folder.path(), size);
        let find = median(|| {
            let store = Container::open(folder.path()).unwrap().unseal(&key()).unwrap();
            assert_eq!(store.accounts_of(&site(size / 2)).unwrap().len(), 1);
        });
        let list = median(|| {
            let store = Container::open(folder.path()).unwrap().unseal(&key()).unwrap();
            assert_eq!(store.accounts().unwrap().len(), size);
        });
        let add = median(|| {
            let mut store = Container::open(folder.path()).unwrap().unseal(&key()).unwrap();
            let mut rng = UnwrapErr(SysRng);
            store.insert(&account(size, CredentialId::random(&mut rng)), &mut rng).unwrap();
        });
        let floor = *floor.get_or_insert(find);
        let ratio = find.as_secs_f64() / floor.as_secs_f64();
        println!("{size:>10}  {find:>12.2?}  {ratio:>5.2}  {list:>12.2?}  {add:>12.2?}");
    }
}

fn fill(folder: &Path, size: usize) {
    let container = Vacancy::reserve(folder).unwrap().create([7; 16], &Anchor(vec![0; 400]), &key()).unwrap();
    container.activate(TpmKind::Software, &key(), 0).unwrap();
    let mut store = container.unseal(&key()).unwrap();
    let mut rng = UnwrapErr(SysRng);
    for n in 0..size {
        let account = account(n, CredentialId::random(&mut rng));
        store.insert(&account, &mut rng).unwrap();
    }
}

fn account(n: usize, credential_id: CredentialId) -> Account {
    Account {
        rp_id: site(n),
        rp_name: "Example".to_owned(),
        user_handle: UserHandle::new(n.to_be_bytes().to_vec()).unwrap(),
        user_name: format!("user{n}@example.org"),
        display_name: format!("User {n}"),
        label: None,
        credential_id,
        discoverable: true,
        protection: Protection::Required,
        key: KeyBlob(vec![0; 230]),
        public_key: vec![2; 33],
        created: 0,
        extras: Extras::default(),
        takes: Takes::Pin,
        binned: None,
    }
}

fn site(n: usize) -> RpId {
    RpId::for_origin(None, &Origin::parse(&format!("https://site{n}.example.org")).unwrap()).unwrap()
}

fn key() -> ContainerKey {
    secret_from(|out| out.fill(9))
}

fn median(run: impl Fn()) -> Duration {
    let mut times: Vec<_> = (0..RUNS)
        .map(|_| {
            let started = Instant::now();
            run();
            started.elapsed()
        })
        .collect();
    times.sort();
    times.into_iter().nth(RUNS / 2).unwrap_or_default()
}
