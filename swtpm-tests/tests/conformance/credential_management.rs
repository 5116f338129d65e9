//! §6.8.

use std::time::Duration;

use ciborium::Value;
use ctap::Status;
use sha2::{Digest, Sha256};

use super::{Bench, descriptor, make_credential, map, member, options, platform::manage as sub, with};

const COMMAND: u8 = 0x0a;

fn of_site(rp_id: &str) -> Value {
    map([(1.into(), Value::Bytes(Sha256::digest(rp_id).to_vec()))])
}

/// Two sites' passkeys, and the ID of the first.
fn bench() -> (Bench, Vec<u8>) {
    let mut bench = Bench::new();
    let mut first = Vec::new();
    for rp_id in ["example.org", "example.com"] {
        for user in [b"alice".to_vec(), b"bob".to_vec()] {
            let request = with(&make_credential::request(), 7, options("rk", true));
            let request = with(&request, 2, map([("id".into(), rp_id.into())]));
            let made = bench.ok(0x01, &with(&request, 3, map([("id".into(), Value::Bytes(user))])));
            if first.is_empty() {
                first = member(&made, 2).unwrap().as_bytes().unwrap()[55..87].to_vec();
            }
        }
    }
    (bench, first)
}

fn all_subcommands(id: &[u8]) -> [Value; 5] {
    let user = map([("id".into(), Value::Bytes(b"alice".to_vec())), ("name".into(), "new".into())]);
    [
        sub(1, None),
        sub(2, None),
        sub(4, Some(of_site("example.org"))),
        sub(6, Some(map([(2.into(), descriptor(id))]))),
        sub(7, Some(map([(2.into(), descriptor(id)), (3.into(), user)]))),
    ]
}

#[test]
fn nothing_is_told_renamed_or_deleted_without_the_right_token() {
    let (mut bench, id) = bench();
    for request in all_subcommands(&id) {
        bench.refuses("its step 1", COMMAND, &request, Status::PuatRequired);
        let token = bench.token(2, 0x04, None);
        let good = token.manage(&request);
        bench.refuses("its step 2, no protocol", COMMAND, &with(&good, 3, None), Status::MissingParameter);
        bench.refuses(
            "its step 2, another",
            COMMAND,
            &with(&good, 3, Value::from(9)),
            Status::InvalidParameter,
        );
        bench.refuses(
            "its step 3, of another protocol",
            COMMAND,
            &with(&good, 3, Value::from(1)),
            Status::PinAuthInvalid,
        );
        bench.refuses(
            "its step 3, forged",
            COMMAND,
            &with(&good, 4, Value::Bytes(vec![0; 32])),
            Status::PinAuthInvalid,
        );
        bench.refuses(
            "its step 3, empty",
            COMMAND,
            &with(&good, 4, Value::Bytes(vec![])),
            Status::PinAuthInvalid,
        );
        // What proves one subcommand proves no other.
        let other = token.manage(&sub(99, member(&request, 2).cloned()));
        bench.refuses(
            "its step 3, another verb",
            COMMAND,
            &with(&other, 1, member(&request, 1).cloned()),
            Status::PinAuthInvalid,
        );
        for (permissions, rp_id) in [(0x02, "example.org"), (0x01, "example.org"), (0x04, "example.net")] {
            let token = bench.token(2, permissions, Some(rp_id));
            bench.refuses("its step 4", COMMAND, &token.manage(&request), Status::PinAuthInvalid);
        }
        let token = bench.token(2, 0x04, None);
        bench.now += Duration::from_secs(30);
        bench.refuses("its step 3, expired", COMMAND, &token.manage(&request), Status::PinAuthInvalid);
    }
    assert_eq!(bench.vault_accounts(), 4);
}

#[test]
fn without_the_right_token_nobody_learns_which_credentials_are_here() {
    let (mut bench, id) = bench();
    let nobodys = all_subcommands(&[1; 32]);
    for (here, nowhere) in all_subcommands(&id).into_iter().zip(nobodys) {
        for request in [here, nowhere] {
            bench.refuses("its step 1", COMMAND, &request, Status::PuatRequired);
            let token = bench.token(2, 0x04, None);
            let forged = with(&token.manage(&request), 4, Value::Bytes(vec![0; 32]));
            bench.refuses("its step 3", COMMAND, &forged, Status::PinAuthInvalid);
            let token = bench.token(2, 0x03, Some("example.org"));
            bench.refuses("its step 4", COMMAND, &token.manage(&request), Status::PinAuthInvalid);
        }
    }
}

#[test]
fn a_token_for_one_site_manages_that_site_alone() {
    let (mut bench, id) = bench();
    let token = bench.token(1, 0x04, Some("example.org"));
    let [metadata, sites, credentials, delete, update] = all_subcommands(&id).map(|r| token.manage(&r));
    bench.refuses("6.8.2", COMMAND, &metadata, Status::PinAuthInvalid);
    bench.refuses("6.8.3", COMMAND, &sites, Status::PinAuthInvalid);
    let elsewhere = token.manage(&sub(4, Some(of_site("example.com"))));
    bench.refuses("6.8.4", COMMAND, &elsewhere, Status::PinAuthInvalid);
    bench.ok(COMMAND, &credentials);
    bench.ok(COMMAND, &update);
    bench.ok(COMMAND, &delete);
    bench.refuses("6.8.5, twice", COMMAND, &delete, Status::NoCredentials);
    assert_eq!(bench.vault_accounts(), 3);
}

#[test]
fn each_step_refuses() {
    let (mut bench, id) = bench();
    let token = bench.token(2, 0x04, None);
    for subcommand in [0, 8, 255] {
        bench.refuses("6.8", COMMAND, &token.manage(&sub(subcommand, None)), Status::InvalidSubcommand);
    }
    bench.refuses("6.8", COMMAND, &map([]), Status::MissingParameter);
    for subcommand in [4, 6, 7] {
        bench.refuses("6.8", COMMAND, &token.manage(&sub(subcommand, None)), Status::MissingParameter);
    }
    let nowhere = token.manage(&sub(4, Some(of_site("example.net"))));
    bench.refuses("6.8.4", COMMAND, &nowhere, Status::NoCredentials);
    let none = token.manage(&sub(6, Some(map([(2.into(), descriptor(&[1; 32]))]))));
    bench.refuses("6.8.5", COMMAND, &none, Status::NoCredentials);
    let user = map([("id".into(), Value::Bytes(b"bob".to_vec()))]);
    let other = token.manage(&sub(7, Some(map([(2.into(), descriptor(&id)), (3.into(), user)]))));
    bench.refuses("6.8.6", COMMAND, &other, Status::InvalidParameter);
    bench.refuses("6.8.3, nothing begun", COMMAND, &sub(3, None), Status::NotAllowed);
    bench.refuses("6.8.4, nothing begun", COMMAND, &sub(5, None), Status::NotAllowed);

    bench.ok(COMMAND, &token.manage(&sub(2, None)));
    bench.refuses("6.8.4, something else begun", COMMAND, &sub(5, None), Status::NotAllowed);
    bench.ok(COMMAND, &token.manage(&sub(2, None)));
    bench.ok(COMMAND, &sub(3, None));
    bench.refuses("6.8.3, no more", COMMAND, &sub(3, None), Status::NotAllowed);
    bench.ok(COMMAND, &token.manage(&sub(4, Some(of_site("example.org")))));
    bench.now += Duration::from_secs(30);
    bench.refuses("6.8.4, too late", COMMAND, &sub(5, None), Status::NotAllowed);
}

#[test]
fn an_empty_vault_has_nothing_to_list() {
    let mut bench = Bench::new();
    let token = bench.token(2, 0x04, None);
    let with_parameters = token.manage(&sub(1, Some(map([]))));
    bench.ok(COMMAND, &with_parameters);
    bench.refuses("6.8.2 step 3", COMMAND, &with(&with_parameters, 2, None), Status::PinAuthInvalid);
    bench.refuses("6.8.3", COMMAND, &token.manage(&sub(2, None)), Status::NoCredentials);
    let metadata = bench.ok(COMMAND, &token.manage(&sub(1, None)));
    assert_eq!(member(&metadata, 1), Some(&0.into()));
}
