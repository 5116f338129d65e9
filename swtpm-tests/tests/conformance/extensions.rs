//! §12.

use ciborium::Value;
use ctap::Status;
use sha2::{Digest, Sha256};

use super::{
    Bench, Platform, WRONG, descriptor, get_assertion, make_credential, map, member, options,
    platform::manage, with,
};

const MAKE: u8 = 0x01;
const GET: u8 = 0x02;
const SALTS: [[u8; 32]; 2] = [[1; 32], [2; 32]];

/// Extension outputs in authenticator data, if there are any.
pub(crate) fn outputs(reply: &Value) -> Option<Value> {
    let data = member(reply, 2).unwrap().as_bytes().unwrap();
    let (flags, mut rest) = (data[32], &data[37..]);
    if flags & 0x40 != 0 {
        rest = &rest[18 + usize::from(u16::from_be_bytes([rest[16], rest[17]]))..];
        let _: Value = ciborium::from_reader(&mut rest).unwrap();
    }
    let outputs = (flags & 0x80 != 0).then(|| ciborium::from_reader(&mut rest).unwrap());
    assert!(rest.is_empty(), "nothing follows");
    outputs
}

fn output(reply: &Value, name: &str) -> Option<Value> {
    let outputs = outputs(reply)?.into_map().unwrap();
    outputs.into_iter().find(|(key, _)| *key == name.into()).map(|(_, value)| value)
}

fn id_of(made: &Value) -> Vec<u8> {
    member(made, 2).unwrap().as_bytes().unwrap()[55..87].to_vec()
}

/// A registration of a discoverable passkey with these extensions.
fn make<const N: usize>(user: &str, extensions: [(Value, Value); N]) -> Value {
    let user = map([("id".into(), Value::Bytes(user.as_bytes().to_vec()))]);
    let request = with(&make_credential::request(), 7, options("rk", true));
    with(&with(&request, 3, user), 6, map(extensions))
}

fn not_discoverable(request: &Value) -> Value {
    with(request, 7, None)
}

/// A sign-in with this passkey and these extensions.
fn get<const N: usize>(id: &[u8], extensions: [(Value, Value); N]) -> Value {
    let request = with(&get_assertion::request(), 3, Value::Array(vec![descriptor(id)]));
    with(&request, 4, map(extensions))
}

/// hmac-secret's input with these salts.
fn salts(platform: &Platform, salts: &[u8]) -> Value {
    encrypted(platform, platform.encrypt(salts))
}

fn encrypted(platform: &Platform, salts: Vec<u8>) -> Value {
    let auth = platform.authenticate(&salts);
    let input = map([
        (1.into(), platform.public.clone()),
        (2.into(), Value::Bytes(salts)),
        (3.into(), auth),
        (4.into(), platform.protocol.into()),
    ]);
    // It is one unless it is said.
    if platform.protocol == 1 { with(&input, 4, None) } else { input }
}

/// What this passkey makes of these salts.
fn secrets(bench: &mut Bench, protocol: u8, id: &[u8], asked: &[u8]) -> Vec<u8> {
    let platform = bench.platform(protocol);
    let reply = bench.ok(GET, &get(id, [("hmac-secret".into(), salts(&platform, asked))]));
    let secrets = platform.decrypt(output(&reply, "hmac-secret").unwrap().as_bytes().unwrap());
    assert_eq!(secrets.len(), asked.len());
    secrets
}

/// Whatever salts are refused for: the step, the input, the status.
fn bad_salts(platform: &Platform) -> Vec<(&'static str, Value, Status)> {
    let good = salts(platform, &SALTS[0]);
    let mut bad: Vec<(&'static str, Value, Status)> = Vec::new();
    for key in [1, 2, 3] {
        bad.push(("a part is missing", with(&good, key, None), Status::MissingParameter));
    }
    for key in [2, 3, 4] {
        bad.push(("of another kind", with(&good, key, Value::from("x")), Status::CborUnexpectedType));
    }
    bad.push(("no map", Value::from(true), Status::CborUnexpectedType));
    bad.push(("a protocol that is not had", with(&good, 4, Value::from(3)), Status::InvalidParameter));
    bad.push(("no key", with(&good, 1, map([])), Status::InvalidParameter));
    let off_curve = with(&platform.public, -3, Value::Bytes(vec![1; 32]));
    bad.push(("no point", with(&good, 1, off_curve), Status::InvalidParameter));
    for auth in [vec![], vec![0; 16], vec![0; 32]] {
        bad.push(("saltAuth", with(&good, 3, Value::Bytes(auth)), Status::PinAuthInvalid));
    }
    let mut tampered = member(&good, 2).unwrap().as_bytes().unwrap().clone();
    *tampered.last_mut().unwrap() ^= 1;
    bad.push(("saltEnc is another", with(&good, 2, Value::Bytes(tampered)), Status::PinAuthInvalid));
    let other = if platform.protocol == 1 { Value::from(2) } else { Value::from(1) };
    bad.push(("of another protocol", with(&good, 4, other), Status::PinAuthInvalid));
    for length in [16, 48, 80, 96] {
        bad.push(("neither one salt nor two", salts(platform, &vec![1; length]), Status::InvalidParameter));
    }
    for length in [0, 1, 16, 31, 33] {
        let salts = encrypted(platform, vec![1; length]);
        bad.push(("no whole salt", salts, Status::InvalidParameter));
    }
    bad
}

#[test]
fn inputs_of_another_kind_are_refused_and_unknown_extensions_ignored() {
    let mut bench = Bench::new();
    let names = ["credProtect", "credBlob", "hmac-secret", "hmac-secret-mc", "largeBlobKey", "minPinLength"];
    for name in names.into_iter().chain(["thirdPartyPayment"]) {
        let request = make("alice", [(name.into(), "x".into())]);
        bench.refuses(name, MAKE, &request, Status::CborUnexpectedType);
    }
    for name in ["credBlob", "hmac-secret", "largeBlobKey", "thirdPartyPayment"] {
        let request = get(&[1; 32], [(name.into(), "x".into())]);
        bench.refuses(name, GET, &request, Status::CborUnexpectedType);
    }
    bench.refuses(
        "no map",
        GET,
        &with(&get_assertion::request(), 4, Value::from(1)),
        Status::CborUnexpectedType,
    );
    assert_eq!(bench.person.asked, [""; 0]);
    let made = bench.ok(MAKE, &make("alice", [("uvm".into(), true.into())]));
    assert_eq!(outputs(&made), None, "6.1.2 step 15");
    let got = bench.ok(GET, &get(&id_of(&made), [("uvm".into(), true.into())]));
    assert_eq!(outputs(&got), None, "6.2.2 step 10");
}

#[test]
fn cred_protect_is_answered_and_kept() {
    let mut bench = Bench::new();
    for level in [0, 4, 255] {
        let request = make("alice", [("credProtect".into(), level.into())]);
        bench.refuses("12.1", MAKE, &request, Status::InvalidOption);
    }
    for level in [1, 2, 3] {
        let made = bench.ok(MAKE, &make("alice", [("credProtect".into(), level.into())]));
        assert_eq!(outputs(&made), Some(map([("credProtect".into(), level.into())])));
        assert_eq!(member(&listed(&mut bench), 0x0a), Some(&level.into()));
    }
    let made = bench.ok(MAKE, &make("alice", []));
    assert_eq!(outputs(&made), None);
    assert_eq!(member(&listed(&mut bench), 0x0a), Some(&3.into()), "what every key here is");
}

/// The one passkey of the site in credential management.
fn listed(bench: &mut Bench) -> Value {
    let token = bench.token(2, 0x04, None);
    let of_site = map([(1.into(), Value::Bytes(Sha256::digest("example.org").to_vec()))]);
    bench.ok(0x0a, &token.manage(&manage(4, Some(of_site))))
}

#[test]
fn a_cred_blob_is_kept_if_there_is_room() {
    let mut bench = Bench::new();
    let blob = |length: usize| [("credBlob".into(), Value::Bytes(vec![7; length]))];
    let asked = || [("credBlob".into(), true.into())];
    for (request, kept) in [
        (make("alice", blob(32)), Some(32)),
        (make("bob", blob(1)), Some(1)),
        (make("carol", blob(0)), Some(0)),
        (make("dave", blob(33)), None),
        (make("erin", blob(1000)), None),
        (not_discoverable(&make("frank", blob(32))), None),
    ] {
        let made = bench.ok(MAKE, &request);
        let answer = Some(map([("credBlob".into(), kept.is_some().into())]));
        assert_eq!(outputs(&made), answer, "12.2: {request:?}");
        let got = bench.ok(GET, &get(&id_of(&made), asked()));
        assert_eq!(output(&got, "credBlob"), Some(Value::Bytes(vec![7; kept.unwrap_or(0)])));
        let got = bench.ok(GET, &get(&id_of(&made), [("credBlob".into(), false.into())]));
        assert_eq!(outputs(&got), None, "who does not ask is not told");
    }
    let made = bench.ok(MAKE, &make("grace", []));
    let got = bench.ok(GET, &get(&id_of(&made), asked()));
    assert_eq!(output(&got, "credBlob"), Some(Value::Bytes(vec![])), "12.2: none is empty");
}

#[test]
fn a_large_blob_key_is_one_passkeys_own_wherever_it_is_told() {
    let mut bench = Bench::new();
    let wanted = || [("largeBlobKey".into(), true.into())];
    let unwanted = || [("largeBlobKey".into(), false.into())];
    bench.refuses("12.3, not true", MAKE, &make("alice", unwanted()), Status::InvalidOption);
    let request = make("alice", wanted());
    bench.refuses("12.3, not discoverable", MAKE, &not_discoverable(&request), Status::InvalidOption);
    let request = with(&request, 7, options("rk", false));
    bench.refuses("12.3, not discoverable", MAKE, &request, Status::InvalidOption);
    let without = bench.ok(MAKE, &make("alice", []));
    assert_eq!((member(&without, 5), outputs(&without)), (None, None));
    let got = bench.ok(GET, &get(&id_of(&without), wanted()));
    assert_eq!(member(&got, 7), None, "12.3: it has none");
    assert_eq!(member(&listed(&mut bench), 0x0b), None);

    let made = bench.ok(MAKE, &make("alice", wanted()));
    let key = member(&made, 5).unwrap().clone();
    assert_eq!(
        (key.as_bytes().unwrap().len(), outputs(&made)),
        (32, None),
        "12.3: outside of what is signed"
    );
    let id = id_of(&made);
    bench.refuses("12.3, not true", GET, &get(&id, unwanted()), Status::InvalidOption);
    bench.restart();
    let got = bench.ok(GET, &get(&id, wanted()));
    assert_eq!((member(&got, 7), outputs(&got)), (Some(&key), None));
    assert_eq!(member(&bench.ok(GET, &get(&id, [])), 7), None, "who does not ask is not told");
    assert_eq!(member(&listed(&mut bench), 0x0b), Some(&key));
    let other = bench.ok(MAKE, &make("bob", wanted()));
    assert_ne!(member(&other, 5), Some(&key));
}

#[test]
fn secrets_are_the_passkeys_and_the_salts_and_nobody_elses() {
    let mut bench = Bench::new();
    let mut made = |user: &str| id_of(&bench.ok(MAKE, &make(user, [("hmac-secret".into(), true.into())])));
    let (alice, bob) = (made("alice"), made("bob"));
    let one = secrets(&mut bench, 2, &alice, &SALTS[0]);
    let two = secrets(&mut bench, 2, &alice, &SALTS[1]);
    assert_ne!(one, two);
    assert_eq!(secrets(&mut bench, 2, &alice, &SALTS.concat()), [one.clone(), two.clone()].concat());
    assert_eq!(secrets(&mut bench, 1, &alice, &SALTS.concat()), [one.clone(), two.clone()].concat());
    assert_eq!(secrets(&mut bench, 1, &alice, &[SALTS[1], SALTS[0]].concat()), [two, one.clone()].concat());
    assert_eq!(
        secrets(&mut bench, 1, &alice, &[SALTS[0], SALTS[0]].concat()),
        [one.clone(), one.clone()].concat()
    );
    assert_ne!(secrets(&mut bench, 2, &bob, &SALTS[0]), one);
    bench.restart();
    assert_eq!(secrets(&mut bench, 2, &alice, &SALTS[0]), one, "after a restart");
    bench.change_pin_at_the_terminal(WRONG);
    bench.person.pin = WRONG;
    assert_eq!(secrets(&mut bench, 2, &alice, &SALTS[0]), one, "under another PIN");
    // The platform's PIN dialog makes the same ones.
    let platform = bench.platform(2);
    let token = bench.token_for(WRONG, 2, 0x02, Some("example.org"));
    let request = get(&alice, [("hmac-secret".into(), salts(&platform, &SALTS[0]))]);
    let request = token.prove(&request, (6, 7), &make_credential::CLIENT_DATA);
    let reply = bench.ok(GET, &request);
    let got = output(&reply, "hmac-secret").unwrap();
    assert_eq!(platform.decrypt(got.as_bytes().unwrap()), one);
}

#[test]
fn a_passkey_makes_secrets_if_that_was_asked_for_when_it_was_made() {
    let mut bench = Bench::new();
    for (user, extensions, answer) in [
        ("alice", vec![], None),
        ("bob", vec![("hmac-secret".into(), false.into())], Some(false)),
        ("carol", vec![("hmac-secret".into(), true.into())], Some(true)),
    ] {
        for request in [make(user, []), not_discoverable(&make(user, []))] {
            let made = bench.ok(MAKE, &with(&request, 6, Value::Map(extensions.clone())));
            assert_eq!(output(&made, "hmac-secret"), answer.map(Value::from));
            let platform = bench.platform(2);
            let asked = [("hmac-secret".into(), salts(&platform, &SALTS[0]))];
            let got = bench.ok(GET, &get(&id_of(&made), asked));
            assert_eq!(output(&got, "hmac-secret").is_some(), answer == Some(true), "12.7: {user}");
        }
    }
}

#[test]
fn salts_are_refused() {
    let mut bench = Bench::new();
    let id = id_of(&bench.ok(MAKE, &make("alice", [("hmac-secret".into(), true.into())])));
    for protocol in [1, 2] {
        let platform = bench.platform(protocol);
        for (what, input, status) in bad_salts(&platform) {
            let request = get(&id, [("hmac-secret".into(), input)]);
            bench.refuses(&format!("12.7, {what}"), GET, &request, status);
        }
        let good = [("hmac-secret".into(), salts(&platform, &SALTS[0]))];
        let token = bench.token(2, 0x02, Some("example.org"));
        let silent = with(&get(&id, good.clone()), 5, options("up", false));
        let silent = token.prove(&silent, (6, 7), &make_credential::CLIENT_DATA);
        bench.refuses("12.7, nobody there", GET, &silent, Status::UnsupportedOption);
        // A key agreement ends with a wrong PIN.
        let wrong = platform.token_using_pin(WRONG, 2, Some("example.org"));
        bench.refuses("6.5.5.7.2 step 9.1.1", 0x06, &wrong, Status::PinInvalid);
        bench.refuses("12.7, with the old key", GET, &get(&id, good), Status::PinAuthInvalid);
        secrets(&mut bench, protocol, &id, &SALTS[0]);
    }
}

#[test]
fn secrets_at_creation_are_those_of_later() {
    let mut bench = Bench::new();
    for protocol in [1, 2] {
        let platform = bench.platform(protocol);
        let secret = |input: Value| [("hmac-secret".into(), true.into()), ("hmac-secret-mc".into(), input)];
        for asked in [&SALTS[0][..], &SALTS.concat()] {
            let made = bench.ok(MAKE, &make("alice", secret(salts(&platform, asked))));
            assert_eq!(output(&made, "hmac-secret"), Some(true.into()));
            let at_creation = platform.decrypt(output(&made, "hmac-secret-mc").unwrap().as_bytes().unwrap());
            assert_eq!(at_creation, secrets(&mut bench, 3 - protocol, &id_of(&made), asked));
        }
        let before = bench.vault_accounts();
        for (what, input, status) in bad_salts(&platform) {
            let request = make("bob", secret(input));
            bench.refuses(&format!("12.8, {what}"), MAKE, &request, status);
        }
        let good = salts(&platform, &SALTS[0]);
        let alone = make("bob", [("hmac-secret-mc".into(), good.clone())]);
        bench.refuses("12.8, without hmac-secret", MAKE, &alone, Status::MissingParameter);
        let unwanted = make("bob", [("hmac-secret".into(), false.into()), ("hmac-secret-mc".into(), good)]);
        bench.refuses("12.8, without hmac-secret", MAKE, &unwanted, Status::MissingParameter);
        assert_eq!(bench.vault_accounts(), before, "what was refused was not made");
    }
}

#[test]
fn a_third_partys_payment_is_what_was_asked_for() {
    let mut bench = Bench::new();
    let payment = |is: bool| [("thirdPartyPayment".into(), Value::from(is))];
    for (made_for, answer, kept) in
        [(None, None, false), (Some(false), Some(false), false), (Some(true), Some(true), true)]
    {
        let request = make("alice", []);
        let request = with(&request, 6, made_for.map(|is| map(payment(is))));
        let made = bench.ok(MAKE, &request);
        assert_eq!(output(&made, "thirdPartyPayment"), answer.map(Value::from), "12.9");
        let got = bench.ok(GET, &get(&id_of(&made), payment(true)));
        assert_eq!(output(&got, "thirdPartyPayment"), Some(kept.into()), "12.9");
        let got = bench.ok(GET, &get(&id_of(&made), payment(false)));
        assert_eq!(outputs(&got), None, "12.9: who does not ask is not told");
        assert_eq!(member(&listed(&mut bench), 0x0c), Some(&kept.into()), "6.8.4");
    }
}

#[test]
fn all_at_once_are_in_canonical_order_and_signed() {
    let mut bench = Bench::new();
    let platform = bench.platform(2);
    let made = bench.ok(
        MAKE,
        &make(
            "alice",
            [
                ("credBlob".into(), Value::Bytes(vec![7; 32])),
                ("credProtect".into(), 2.into()),
                ("hmac-secret".into(), true.into()),
                ("largeBlobKey".into(), true.into()),
                ("minPinLength".into(), true.into()),
                ("hmac-secret-mc".into(), salts(&platform, &SALTS.concat())),
                ("thirdPartyPayment".into(), true.into()),
            ],
        ),
    );
    let answered = outputs(&made).unwrap();
    super::is_in_order(&answered);
    let names: Vec<_> = answered.as_map().unwrap().iter().map(|(name, _)| name.as_text().unwrap()).collect();
    assert_eq!(names, ["credBlob", "credProtect", "hmac-secret", "hmac-secret-mc", "thirdPartyPayment"]);
    let data = member(&made, 2).unwrap().as_bytes().unwrap();
    let passkey = super::platform::site::Passkey::of(data);
    let statement = member(&made, 3).unwrap().as_map().unwrap();
    let signature = statement.iter().find(|(name, _)| *name == "sig".into()).unwrap();
    passkey.verify(data, &make_credential::CLIENT_DATA, signature.1.as_bytes().unwrap());

    let got = bench.ok(
        GET,
        &get(
            &passkey.id,
            [
                ("credBlob".into(), true.into()),
                ("hmac-secret".into(), salts(&platform, &SALTS[0])),
                ("largeBlobKey".into(), true.into()),
                ("thirdPartyPayment".into(), true.into()),
            ],
        ),
    );
    let answered = outputs(&got).unwrap();
    super::is_in_order(&answered);
    assert_eq!(answered.as_map().unwrap().len(), 3);
    let bytes = |key: i64| member(&got, key).unwrap().as_bytes().unwrap();
    passkey.verify(bytes(2), &make_credential::CLIENT_DATA, bytes(3));
}

#[test]
fn each_of_a_series_answers_what_the_first_was_asked() {
    let mut bench = Bench::new();
    let mut keys = Vec::new();
    for (user, blob) in [("alice", 1), ("bob", 2)] {
        let extensions =
            [("credBlob".into(), Value::Bytes(vec![blob])), ("largeBlobKey".into(), true.into())];
        let made = bench.ok(MAKE, &make(user, extensions));
        keys.insert(0, member(&made, 5).unwrap().clone());
    }
    let token = bench.token(2, 0x02, Some("example.org"));
    let asked = map([("credBlob".into(), true.into()), ("largeBlobKey".into(), true.into())]);
    let silent = with(&with(&get_assertion::request(), 5, options("up", false)), 4, asked);
    let first = bench.ok(GET, &token.prove(&silent, (6, 7), &make_credential::CLIENT_DATA));
    let next = bench.ok(0x08, &map([]));
    for (answer, blob, key) in [(first, 2, &keys[0]), (next, 1, &keys[1])] {
        assert_eq!(output(&answer, "credBlob"), Some(Value::Bytes(vec![blob])));
        assert_eq!(member(&answer, 7), Some(key));
    }
}
