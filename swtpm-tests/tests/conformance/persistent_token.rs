//! §6.5.2.2, and §6.8 with the read-only token.

use std::time::Duration;

use ciborium::Value;
use ctap::{Declined, Status};
use sha2::{Digest, Sha256};
use swtpm_tests::PIN;

use super::{
    Bench, Token, Vaults, WRONG, descriptor, get_assertion, make_credential, map, member, pin,
    platform::manage, set_min_pin_length, with,
};

const COMMAND: u8 = 0x0a;
const LIST: u8 = 0x40;

fn of_site() -> Value {
    manage(4, Some(map([(1.into(), Value::Bytes(Sha256::digest("example.org").to_vec()))])))
}

/// What it is good for, all of it.
fn lists(bench: &mut Bench, token: &Token, passkeys: u8) {
    let metadata = bench.ok(COMMAND, &token.manage(&manage(1, None)));
    assert_eq!(member(&metadata, 1), Some(&passkeys.into()));
    let site = bench.ok(COMMAND, &token.manage(&manage(2, None)));
    assert_eq!(member(&site, 5), Some(&1.into()));
    let first = bench.ok(COMMAND, &token.manage(&of_site()));
    assert_eq!(member(&first, 9), Some(&passkeys.into()));
    for _ in 1..passkeys {
        bench.ok(COMMAND, &manage(5, None));
    }
    bench.refuses("6.8.4, no more", COMMAND, &manage(5, None), Status::NotAllowed);
}

fn lists_nothing(bench: &mut Bench, why: &str, token: &Token) {
    for (step, request) in
        [("6.8.2 step 3", manage(1, None)), ("6.8.3 step 3", manage(2, None)), ("6.8.4 step 3", of_site())]
    {
        let step = format!("{step}, {why}");
        bench.refuses(&step, COMMAND, &token.manage(&request), Status::PinAuthInvalid);
    }
}

#[test]
fn it_lists_and_does_nothing_else() {
    let mut bench = Bench::new();
    let id = bench.passkey("alice");
    bench.passkey("bob");
    for protocol in [1, 2] {
        let token = bench.token(protocol, LIST, None);
        lists(&mut bench, &token, 2);
        let user = map([("id".into(), Value::Bytes(b"alice".to_vec())), ("name".into(), "new".into())]);
        let delete = manage(6, Some(map([(2.into(), descriptor(&id))])));
        let update = manage(7, Some(map([(2.into(), descriptor(&id)), (3.into(), user)])));
        bench.refuses("6.8.5 step 3", COMMAND, &token.manage(&delete), Status::PinAuthInvalid);
        bench.refuses("6.8.6 step 3", COMMAND, &token.manage(&update), Status::PinAuthInvalid);
        let client_data = make_credential::CLIENT_DATA;
        let make = token.prove(&make_credential::request(), (8, 9), &client_data);
        bench.refuses("6.1.2 step 11.1.1", 0x01, &make, Status::PinAuthInvalid);
        let get = token.prove(&get_assertion::request(), (6, 7), &client_data);
        bench.refuses("6.2.2 step 6.1.1", 0x02, &get, Status::PinAuthInvalid);
        let array = [&[0x80][..], &Sha256::digest([0x80])[..16]].concat();
        let write = map([(2.into(), Value::Bytes(array)), (3.into(), 0.into()), (4.into(), 17.into())]);
        bench.refuses("6.10.2 step 5.5.4", 0x0c, &token.write(&write), Status::PinAuthInvalid);
        let config = token.configure(&set_min_pin_length(map([])));
        bench.refuses("6.11 step 4.4", 0x0d, &config, Status::PinAuthInvalid);
    }
    assert_eq!(bench.vault_accounts(), 2);
    assert_eq!(bench.vault.open().unwrap().accounts().unwrap()[0].1.user_name, "");
}

#[test]
fn a_proof_is_of_its_request_and_protocol() {
    let mut bench = Bench::new();
    bench.passkey("alice");
    let token = bench.token(2, LIST, None);
    for request in [manage(1, None), manage(2, None), of_site()] {
        let good = token.manage(&request);
        bench.refuses("its step 2", COMMAND, &with(&good, 3, None), Status::MissingParameter);
        bench.refuses("its step 2", COMMAND, &with(&good, 3, Value::from(3)), Status::InvalidParameter);
        bench.refuses("its step 3", COMMAND, &with(&good, 3, Value::from(1)), Status::PinAuthInvalid);
        for forged in [vec![], vec![0; 16], vec![0; 32]] {
            let forged = with(&good, 4, Value::Bytes(forged));
            bench.refuses("its step 3, forged", COMMAND, &forged, Status::PinAuthInvalid);
        }
        let other =
            with(&token.manage(&manage(99, member(&request, 2).cloned())), 1, member(&request, 1).cloned());
        bench.refuses("its step 3, another verb", COMMAND, &other, Status::PinAuthInvalid);
        bench.refuses("its step 1", COMMAND, &request, Status::PuatRequired);
    }
    lists(&mut bench, &token, 1);
}

#[test]
fn it_is_the_same_for_all_who_ask_and_stays_beside_the_token_in_use() {
    let mut bench = Bench::new();
    bench.passkey("alice");
    let session = bench.token(2, 0x04, None);
    let persistent = bench.token(2, LIST, Some("example.org"));
    let request = manage(1, None);
    bench.ok(COMMAND, &session.manage(&request));
    // It opens neither what the session's opens, nor is it the session's.
    assert_ne!(persistent.manage(&request), session.manage(&request));
    let other = bench.token(2, LIST, None);
    assert_eq!(other.manage(&request), persistent.manage(&request));
    let platform = bench.platform(2);
    let by_uv = platform.token(&bench.ok(0x06, &platform.token_using_uv(LIST, None)));
    assert_eq!(by_uv.manage(&request), persistent.manage(&request));
    bench.ok(COMMAND, &session.manage(&request));
    let asked = bench.platform(2).token_using_uv(LIST, None);
    bench.refuses_if("6.5.5.7.3 step 8", Declined::No, (0x06, &asked), Status::OperationDenied);
    let wrong = bench.platform(2).token_using_pin(WRONG, LIST, None);
    bench.refuses("6.5.5.7.2 step 9", 0x06, &wrong, Status::PinInvalid);
    let mut other_vault = Bench::new();
    other_vault.passkey("alice");
    lists_nothing(&mut other_vault, "of another vault", &persistent);
    let own = other_vault.token(2, LIST, None);
    assert_ne!(own.manage(&request), persistent.manage(&request));
}

#[test]
fn it_outlives_time_locks_and_restarts() {
    let mut bench = Bench::new();
    bench.passkey("alice");
    let token = bench.token(2, LIST, None);
    bench.person.asked.clear();
    bench.now += Duration::from_secs(31);
    lists(&mut bench, &token, 1);
    bench.authenticator.lock();
    bench.now += Duration::from_secs(100_000);
    lists(&mut bench, &token, 1);
    bench.restart();
    lists(&mut bench, &token, 1);
    bench.passkey("bob");
    lists(&mut bench, &token, 2);
    assert_eq!(bench.person.asked.len(), 1, "for the passkey alone");
}

#[test]
fn it_ends_with_the_pin_and_with_the_vault() {
    let mut bench = Bench::new();
    bench.passkey("alice");
    let token = bench.token(2, LIST, None);
    let platform = bench.platform(2);
    bench.refuses("6.5.5.6 step 9", 0x06, &platform.change_pin(WRONG, PIN), Status::PinInvalid);
    let platform = bench.platform(2);
    bench.refuses("6.5.5.6 step 12", 0x06, &platform.change_pin(PIN, "1"), Status::PinPolicyViolation);
    lists(&mut bench, &token, 1);

    let platform = bench.platform(2);
    bench.ok(0x06, &platform.change_pin(PIN, WRONG));
    lists_nothing(&mut bench, "6.5.5.6 step 20", &token);
    let second = bench.token_for(WRONG, 2, LIST, None);
    assert_ne!(second.manage(&of_site()), token.manage(&of_site()));
    lists(&mut bench, &second, 1);
    bench
        .vault
        .open()
        .unwrap()
        .unlock(&pin(WRONG))
        .unwrap()
        .change_pin(&pin(PIN), &mut super::rng())
        .unwrap();
    lists_nothing(&mut bench, "changed at the terminal", &second);
    lists_nothing(&mut bench, "and the first is none again", &token);

    let third = bench.token(2, LIST, None);
    lists(&mut bench, &third, 1);
    // Even the same PIN again is a change.
    let platform = bench.platform(2);
    bench.ok(0x06, &platform.change_pin(PIN, PIN));
    lists_nothing(&mut bench, "changed to the same", &third);

    let fourth = bench.token(2, LIST, None);
    assert_eq!(bench.raw(&[0x07]), [0]);
    lists_nothing(&mut bench, "reset", &fourth);
    bench.vault.set_up(&pin(PIN)).unwrap();
    bench.passkey("alice");
    lists_nothing(&mut bench, "reset, and a new vault", &fourth);
}
