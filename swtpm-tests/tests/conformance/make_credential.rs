//! §6.1.2.

use ciborium::Value;
use ctap::{Declined, Status};

use super::{Bench, WRONG, descriptor, map, member, options, with};

const COMMAND: u8 = 0x01;
pub(crate) const CLIENT_DATA: [u8; 32] = [7; 32];
/// Where `pinUvAuthParam` and `pinUvAuthProtocol` stand.
const PROOF: (i64, i64) = (8, 9);

fn parameters(alg: i64) -> Value {
    map([("alg".into(), alg.into()), ("type".into(), "public-key".into())])
}

/// A request that is granted.
pub(crate) fn request() -> Value {
    map([
        (1.into(), Value::Bytes(CLIENT_DATA.to_vec())),
        (2.into(), map([("id".into(), "example.org".into()), ("name".into(), "Example".into())])),
        (3.into(), map([("id".into(), Value::Bytes(b"handle".to_vec())), ("name".into(), "alice".into())])),
        (4.into(), Value::Array(vec![parameters(-257), parameters(-7)])),
    ])
}

#[test]
fn a_request_with_a_parameter_missing_or_of_another_kind_is_refused() {
    let mut bench = Bench::new();
    for key in [1, 2, 3, 4] {
        bench.refuses("parameters", COMMAND, &with(&request(), key, None), Status::MissingParameter);
    }
    for key in [1, 2, 3, 4, 5, 6, 7, 8, 9, 11] {
        let other = with(&request(), key, Value::from(true));
        bench.refuses("parameters", COMMAND, &other, Status::CborUnexpectedType);
    }
    let id = |id: Value| map([("id".into(), id)]);
    for (what, key, value, status) in [
        ("a short hash", 1, Value::Bytes(vec![7; 31]), Status::InvalidLength),
        ("rp without an ID", 2, map([("name".into(), "x".into())]), Status::MissingParameter),
        ("an empty RP ID", 2, id("".into()), Status::InvalidLength),
        ("one that rewrites its line", 2, id("a\u{202e}b".into()), Status::InvalidLength),
        ("user without an ID", 3, map([("name".into(), "x".into())]), Status::MissingParameter),
        ("an empty user ID", 3, id(Value::Bytes(vec![])), Status::InvalidLength),
        ("one of 65 bytes", 3, id(Value::Bytes(vec![1; 65])), Status::InvalidLength),
        ("parameters without alg", 4, Value::Array(vec![options("type", true)]), Status::MissingParameter),
        (
            "an ID that is no bytes",
            5,
            Value::Array(vec![map([("id".into(), 1.into()), ("type".into(), "public-key".into())])]),
            Status::CborUnexpectedType,
        ),
        ("an option that is no truth", 7, map([("rk".into(), 1.into())]), Status::CborUnexpectedType),
        ("an unknown level", 6, map([("credProtect".into(), 0.into())]), Status::InvalidOption),
    ] {
        bench.refuses(what, COMMAND, &with(&request(), key, value), status);
    }
    assert_eq!(bench.person.asked, [""; 0]);
}

#[test]
fn each_step_refuses() {
    let mut bench = Bench::new();
    let token = bench.token(2, 0x01, Some("example.org"));
    let proven = token.prove(&request(), PROOF, &CLIENT_DATA);
    let no_proof = with(&with(&request(), 8, Value::Bytes(vec![])), 9, Value::from(2));

    bench.refuses("1, a PIN is set", COMMAND, &no_proof, Status::PinInvalid);
    bench.refuses_if("1, declined", Declined::No, (COMMAND, &no_proof), Status::OperationDenied);
    bench.refuses_if("1, timed out", Declined::TimedOut, (COMMAND, &no_proof), Status::OperationDenied);
    bench.refuses_if("1, cancelled", Declined::Cancelled, (COMMAND, &no_proof), Status::KeepaliveCancel);
    bench.refuses("2.1", COMMAND, &with(&proven, 9, Value::from(3)), Status::InvalidParameter);
    bench.refuses("2.2", COMMAND, &with(&proven, 9, None), Status::MissingParameter);
    let rs256 = with(&proven, 4, Value::Array(vec![parameters(-257)]));
    bench.refuses("3", COMMAND, &rs256, Status::UnsupportedAlgorithm);
    let other = map([("alg".into(), (-7).into()), ("type".into(), "other".into())]);
    bench.refuses(
        "3, another type",
        COMMAND,
        &with(&proven, 4, Value::Array(vec![other])),
        Status::UnsupportedAlgorithm,
    );
    bench.refuses("5.6.1", COMMAND, &with(&proven, 7, options("up", false)), Status::InvalidOption);
    bench.refuses("9", COMMAND, &with(&proven, 10, Value::from(1)), Status::InvalidParameter);
    assert!(bench.person.asked.iter().all(|ask| ask == "confirm Select"), "{:?}", bench.person.asked);

    let tampered = with(&proven, 1, Value::Bytes(vec![8; 32]));
    bench.refuses("11.1.1", COMMAND, &tampered, Status::PinAuthInvalid);
    bench.refuses(
        "11.1.1, another protocol",
        COMMAND,
        &with(&proven, 9, Value::from(1)),
        Status::PinAuthInvalid,
    );
    let elsewhere = with(&proven, 2, map([("id".into(), "example.com".into())]));
    bench.refuses("11.1.3", COMMAND, &elsewhere, Status::PinAuthInvalid);
    bench.refuses_if("14.1.2.2, declined", Declined::No, (COMMAND, &proven), Status::OperationDenied);
    bench.refuses_if("14.1.2.2, timed out", Declined::TimedOut, (COMMAND, &proven), Status::OperationDenied);
    bench.refuses_if("14.1.2.2, cancelled", Declined::Cancelled, (COMMAND, &proven), Status::KeepaliveCancel);
    let made = bench.ok(COMMAND, &proven);
    bench.refuses("11.1.5: presence has spent the token", COMMAND, &proven, Status::PinAuthInvalid);

    let id = &member(&made, 2).unwrap().as_bytes().unwrap()[55..87];
    let token = bench.token(2, 0x01, Some("example.org"));
    let again = token.prove(&request(), PROOF, &CLIENT_DATA);
    let excluding = with(&again, 5, Value::Array(vec![descriptor(id)]));
    bench.refuses("12.1.4.2", COMMAND, &excluding, Status::CredentialExcluded);
    bench.refuses_if(
        "12.1.4.2, without presence",
        Declined::No,
        (COMMAND, &excluding),
        Status::CredentialExcluded,
    );
    let of_another_type = map([("id".into(), Value::Bytes(id.to_vec())), ("type".into(), "other".into())]);
    bench.ok(COMMAND, &with(&again, 5, Value::Array(vec![of_another_type])));

    let token = bench.token(2, 0x02, Some("example.org"));
    bench.refuses("11.1.2", COMMAND, &token.prove(&request(), PROOF, &CLIENT_DATA), Status::PinAuthInvalid);
}

#[test]
fn our_own_prompt_refuses() {
    let mut bench = Bench::new();
    for request in [request(), with(&request(), 7, options("uv", true))] {
        bench.refuses_if("11.2.3.1", Declined::TimedOut, (COMMAND, &request), Status::UserActionTimeout);
        bench.refuses_if("11.2.3.3", Declined::No, (COMMAND, &request), Status::OperationDenied);
        bench.refuses_if("cancelled", Declined::Cancelled, (COMMAND, &request), Status::KeepaliveCancel);
    }
    bench.person.pin = WRONG;
    bench.person.asked.clear();
    bench.refuses("11.2.3.3, three wrong PINs", COMMAND, &request(), Status::OperationDenied);
    assert_eq!(bench.person.asked.len(), 3);
    bench.refuses("11.2.3.3, six", COMMAND, &request(), Status::OperationDenied);
    bench.refuses("11.2.3.2, eight", COMMAND, &request(), Status::PinBlocked);
    bench.person.pin = swtpm_tests::PIN;
    bench.person.asked.clear();
    bench.refuses("11.2.3.2, and then nobody is asked", COMMAND, &request(), Status::PinBlocked);
    assert_eq!(bench.person.asked, [""; 0]);
}

#[test]
fn without_a_vault_nothing_is_made() {
    let mut bench = Bench::without_vault();
    let no_proof = with(&with(&request(), 8, Value::Bytes(vec![])), 9, Value::from(2));
    bench.refuses("1, no PIN is set", COMMAND, &no_proof, Status::PinNotSet);
    bench.refuses("5.3.2", COMMAND, &with(&request(), 7, options("uv", true)), Status::InvalidOption);
    bench.refuses("6.2.1.1", COMMAND, &request(), Status::PuatRequired);
    let forged = with(&with(&request(), 8, Value::Bytes(vec![1; 32])), 9, Value::from(2));
    bench.refuses("6.2.1.1, with a token of nothing", COMMAND, &forged, Status::PuatRequired);
    assert!(!bench.vault.dir.exists());
}

#[test]
fn requests_that_only_blink_leave_nothing_behind() {
    let mut bench = Bench::new();
    for rp_id in [".dummy", "make.me.blink"] {
        let request = with(&request(), 2, map([("id".into(), rp_id.into())]));
        bench.refuses(rp_id, COMMAND, &request, Status::PinInvalid);
        let get = with(&super::get_assertion::request(), 1, Value::from(rp_id));
        bench.refuses(rp_id, 0x02, &get, Status::PinInvalid);
    }
    assert_eq!(bench.vault_accounts(), 0);
    assert_eq!(bench.person.asked, ["confirm Select"; 4]);
}

#[test]
fn the_prompt_names_the_site_and_the_account() {
    let mut bench = Bench::new();
    bench.ok(COMMAND, &request());
    let [asked] = bench.person.asked.as_slice() else { panic!("{:?}", bench.person.asked) };
    assert!(
        asked.starts_with("PIN Create") && asked.contains("example.org") && asked.contains("alice"),
        "{asked}"
    );
}

#[test]
fn a_discoverable_passkey_takes_the_place_of_the_same_accounts_and_others_stand_beside_it() {
    let mut bench = Bench::new();
    let discoverable = with(&request(), 7, options("rk", true));
    for (request, accounts) in [
        (&discoverable, 1),
        (&discoverable, 1),
        (&request(), 2),
        (&request(), 3),
        (&discoverable, 3),
        (&with(&discoverable, 3, map([("id".into(), Value::Bytes(b"other".to_vec()))])), 4),
        (&with(&discoverable, 2, map([("id".into(), "example.com".into())])), 5),
    ] {
        bench.ok(COMMAND, request);
        assert_eq!(bench.vault_accounts(), accounts);
    }
}

#[test]
fn the_attestation_is_packed_unless_none_is_asked_for() {
    let mut bench = Bench::new();
    let formats = |formats: &[&str]| Value::Array(formats.iter().map(|f| Value::from(*f)).collect());
    for (preference, format) in [
        (None, "packed"),
        (Some(formats(&["none"])), "none"),
        (Some(formats(&["packed"])), "packed"),
        (Some(formats(&["none", "packed"])), "packed"),
        (Some(formats(&[])), "packed"),
    ] {
        let made = bench.ok(COMMAND, &with(&request(), 11, preference));
        assert_eq!(member(&made, 1), Some(&Value::from(format)));
    }
}
