//! §6.2.2 and §6.3.

use std::time::Duration;

use ciborium::Value;
use ctap::{Declined, Status};

use super::{
    Bench, WRONG, descriptor,
    make_credential::{self, CLIENT_DATA},
    map, member, options, with,
};

const COMMAND: u8 = 0x02;
const NEXT: u8 = 0x08;
/// Where `pinUvAuthParam` and `pinUvAuthProtocol` stand.
const PROOF: (i64, i64) = (6, 7);

/// A request that is granted where there is a passkey.
pub(crate) fn request() -> Value {
    map([(1.into(), "example.org".into()), (2.into(), Value::Bytes(CLIENT_DATA.to_vec()))])
}

/// A vault with discoverable passkeys of these users, oldest first.
fn with_passkeys(users: &[&str]) -> Bench {
    let mut bench = Bench::new();
    for user in users {
        let request = with(&make_credential::request(), 7, options("rk", true));
        bench.ok(0x01, &with(&request, 3, map([("id".into(), Value::Bytes(user.as_bytes().to_vec()))])));
    }
    bench.person.asked.clear();
    bench
}

fn user(answer: &Value) -> &[u8] {
    let user = member(answer, 4).unwrap().as_map().unwrap();
    user[0].1.as_bytes().unwrap()
}

#[test]
fn a_request_with_a_parameter_missing_or_of_another_kind_is_refused() {
    let mut bench = with_passkeys(&["alice"]);
    for key in [1, 2] {
        bench.refuses("parameters", COMMAND, &with(&request(), key, None), Status::MissingParameter);
    }
    for key in [1, 2, 3, 5, 6, 7] {
        bench.refuses(
            "parameters",
            COMMAND,
            &with(&request(), key, Value::from(true)),
            Status::CborUnexpectedType,
        );
    }
    bench.refuses("an empty RP ID", COMMAND, &with(&request(), 1, Value::from("")), Status::InvalidLength);
    bench.refuses(
        "a long hash",
        COMMAND,
        &with(&request(), 2, Value::Bytes(vec![7; 33])),
        Status::InvalidLength,
    );
    assert_eq!(bench.person.asked, [""; 0]);
}

#[test]
fn each_step_refuses() {
    let mut bench = with_passkeys(&["alice"]);
    let token = bench.token(2, 0x02, Some("example.org"));
    let proven = token.prove(&request(), PROOF, &CLIENT_DATA);
    let no_proof = with(&with(&request(), 6, Value::Bytes(vec![])), 7, Value::from(2));

    bench.refuses("1, a PIN is set", COMMAND, &no_proof, Status::PinInvalid);
    bench.refuses_if("1, declined", Declined::No, (COMMAND, &no_proof), Status::OperationDenied);
    bench.refuses_if("1, timed out", Declined::TimedOut, (COMMAND, &no_proof), Status::OperationDenied);
    bench.refuses("2.1", COMMAND, &with(&proven, 7, Value::from(3)), Status::InvalidParameter);
    bench.refuses("2.2", COMMAND, &with(&proven, 7, None), Status::MissingParameter);
    bench.refuses("4.4.1", COMMAND, &with(&proven, 5, options("rk", true)), Status::UnsupportedOption);
    bench.refuses(
        "4.4.1, even if false",
        COMMAND,
        &with(&proven, 5, options("rk", false)),
        Status::UnsupportedOption,
    );
    let tampered = with(&proven, 2, Value::Bytes(vec![8; 32]));
    bench.refuses("6.1.1.1", COMMAND, &tampered, Status::PinAuthInvalid);
    let elsewhere = with(&proven, 1, Value::from("example.com"));
    bench.refuses("6.1.5.1", COMMAND, &elsewhere, Status::PinAuthInvalid);
    let of_others = with(&proven, 3, Value::Array(vec![descriptor(&[1; 32])]));
    bench.refuses("7.6, named ones", COMMAND, &of_others, Status::NoCredentials);
    bench.refuses_if("9.1.2.2, declined", Declined::No, (COMMAND, &proven), Status::OperationDenied);
    bench.refuses_if("9.1.2.2, timed out", Declined::TimedOut, (COMMAND, &proven), Status::OperationDenied);
    bench.refuses_if("9.1.2.2, cancelled", Declined::Cancelled, (COMMAND, &proven), Status::KeepaliveCancel);
    bench.ok(COMMAND, &proven);
    bench.refuses("6.1.3: presence has spent the token", COMMAND, &proven, Status::PinAuthInvalid);
    let token = bench.token(2, 0x01, Some("example.org"));
    bench.refuses("6.1.4", COMMAND, &token.prove(&request(), PROOF, &CLIENT_DATA), Status::PinAuthInvalid);

    bench.person.asked.clear();
    bench.refuses("7.6", COMMAND, &with(&request(), 1, Value::from("example.com")), Status::NoCredentials);
    bench.refuses(
        "7.4: silent, and every key needs the PIN",
        COMMAND,
        &with(&request(), 5, options("up", false)),
        Status::NoCredentials,
    );
    assert_eq!(bench.person.asked, [""; 0], "nobody is asked in vain");
}

#[test]
fn our_own_prompt_refuses() {
    let mut bench = with_passkeys(&["alice"]);
    bench.refuses_if("6.2.3.1", Declined::TimedOut, (COMMAND, &request()), Status::UserActionTimeout);
    bench.refuses_if("6.2.3.2", Declined::No, (COMMAND, &request()), Status::PuatRequired);
    bench.refuses_if("cancelled", Declined::Cancelled, (COMMAND, &request()), Status::KeepaliveCancel);
    bench.person.pin = WRONG;
    for _ in 0..3 {
        bench.refuses("6.2.3.2, wrong PINs", COMMAND, &request(), Status::PuatRequired);
    }
    bench.person.asked.clear();
    bench.refuses("6.2.3.2, none left", COMMAND, &request(), Status::PuatRequired);
    assert_eq!(bench.person.asked, [""; 0]);
}

#[test]
fn without_a_vault_there_is_nothing() {
    let mut bench = Bench::without_vault();
    let no_proof = with(&with(&request(), 6, Value::Bytes(vec![])), 7, Value::from(1));
    bench.refuses("1, no PIN is set", COMMAND, &no_proof, Status::PinNotSet);
    bench.refuses("4.3.2", COMMAND, &with(&request(), 5, options("uv", true)), Status::InvalidOption);
    bench.refuses("5.1.1.1", COMMAND, &request(), Status::PuatRequired);
    bench.refuses("7.6", COMMAND, &with(&request(), 5, options("up", false)), Status::NoCredentials);
    bench.refuses("6.3 step 1", NEXT, &map([]), Status::NotAllowed);
}

#[test]
fn of_several_passkeys_the_person_chooses_one() {
    let mut bench = with_passkeys(&["alice", "bob", "carol"]);
    for (choice, name) in [(0, "carol"), (1, "bob"), (2, "alice")] {
        bench.person.choice = choice;
        let answer = bench.ok(COMMAND, &request());
        assert_eq!(
            (user(&answer), member(&answer, 5), member(&answer, 6)),
            (name.as_bytes(), None, Some(&true.into()))
        );
    }
    bench.person.choice = 3;
    bench.refuses("12.2.3.3, none of them", COMMAND, &request(), Status::OperationDenied);
    bench.refuses_if("12.2.3.3, declined", Declined::No, (COMMAND, &request()), Status::OperationDenied);
    bench.refuses_if(
        "12.2.3.3, timed out",
        Declined::TimedOut,
        (COMMAND, &request()),
        Status::OperationDenied,
    );
    // And names it where the PIN is typed.
    bench.person.choice = 1;
    bench.person.asked.clear();
    bench.ok(COMMAND, &request());
    assert_eq!(bench.person.asked.len(), 2);
    assert_eq!(bench.person.asked[0], "choose among 3");
}

#[test]
fn a_series_without_presence_goes_on_until_something_else_comes_between() {
    let mut bench = with_passkeys(&["alice", "bob", "carol"]);
    let token = bench.token(2, 0x02, Some("example.org"));
    let silent = with(&token.prove(&request(), PROOF, &CLIENT_DATA), 5, options("up", false));
    let answer = bench.ok(COMMAND, &silent);
    assert_eq!((user(&answer), member(&answer, 5)), (&b"carol"[..], Some(&3.into())));
    assert_eq!(member(&answer, 2).unwrap().as_bytes().unwrap()[32], 0x04, "UV and no UP");
    bench.now += Duration::from_secs(29);
    assert_eq!(user(&bench.ok(NEXT, &map([]))), b"bob");
    bench.now += Duration::from_secs(29);
    let last = bench.ok(NEXT, &map([]));
    assert_eq!((user(&last), member(&last, 5)), (&b"alice"[..], None));
    bench.refuses("6.3 step 2, no more", NEXT, &map([]), Status::NotAllowed);

    bench.ok(COMMAND, &silent);
    bench.now += Duration::from_secs(30);
    bench.refuses("6.3 step 3, too late", NEXT, &map([]), Status::NotAllowed);
    bench.ok(COMMAND, &silent);
    bench.ok(0x04, &map([]));
    bench.refuses("6.3, another command came between", NEXT, &map([]), Status::NotAllowed);
    assert_eq!(bench.person.asked, [""; 0]);
}

#[test]
fn a_token_ends_unused_after_30_seconds_used_after_10_minutes_and_with_the_pin() {
    let mut bench = with_passkeys(&["alice"]);
    let token = bench.token(1, 0x02, Some("example.org"));
    let silent = with(&token.prove(&request(), PROOF, &CLIENT_DATA), 5, options("up", false));
    bench.now += Duration::from_secs(30);
    bench.refuses("6.5.2.1, unused", COMMAND, &silent, Status::PinAuthInvalid);
    let token = bench.token(1, 0x02, Some("example.org"));
    let silent = with(&token.prove(&request(), PROOF, &CLIENT_DATA), 5, options("up", false));
    bench.now += Duration::from_secs(29);
    bench.ok(COMMAND, &silent);
    bench.now += Duration::from_secs(570);
    bench.ok(COMMAND, &silent);
    bench.now += Duration::from_secs(1);
    bench.refuses("6.5.2.1, 10 minutes", COMMAND, &silent, Status::PinAuthInvalid);

    let token = bench.token(1, 0x02, Some("example.org"));
    let silent = with(&token.prove(&request(), PROOF, &CLIENT_DATA), 5, options("up", false));
    bench.authenticator.lock();
    bench.refuses("locked", COMMAND, &silent, Status::PinAuthInvalid);

    let token = bench.token(1, 0x02, Some("example.org"));
    let silent = with(&token.prove(&request(), PROOF, &CLIENT_DATA), 5, options("up", false));
    bench.change_pin_at_the_terminal(WRONG);
    for _ in 0..9 {
        bench.refuses("the PIN was changed elsewhere", COMMAND, &silent, Status::PinAuthInvalid);
    }
    let retries = bench.ok(0x06, &map([(1.into(), 2.into()), (2.into(), 1.into())]));
    assert_eq!(member(&retries, 3), Some(&7.into()), "a stale token costs one try and no more");
}
