//! alwaysUv turned off, and the passkeys that take presence alone (§6.11.3; §6.1.2 and §6.2.2, where nobody asks for user
//! verification).

use ciborium::Value;
use ctap::Status;
use sha2::{Digest, Sha256};
use vault_core::container::Takes;

use super::{
    Bench, descriptor, get_assertion, make_credential, map, member, options, platform::site::Passkey, with,
};

const UP: u8 = 0x01;
const UV: u8 = 0x04;

fn toggle(bench: &mut Bench) {
    let token = bench.token(2, 0x20, None);
    let request = map([(1.into(), 2.into())]);
    let message = [&[0xff; 32][..], &[0x0d, 0x02]].concat();
    bench.ok(0x0d, &token.prove(&request, (4, 3), &message));
}

fn always_uv(bench: &mut Bench) -> bool {
    let info = bench.ok(0x04, &Value::Map(Vec::new()));
    let options = member(&info, 4).unwrap().as_map().unwrap();
    options.iter().any(|(name, value)| *name == "alwaysUv".into() && *value == true.into())
}

fn flags(answer: &Value) -> u8 {
    member(answer, 2).unwrap().as_bytes().unwrap()[32] & (UP | UV)
}

fn verify(passkey: &Passkey, answer: &Value) {
    let bytes = |key: i64| member(answer, key).unwrap().as_bytes().unwrap();
    passkey.verify(bytes(2), &make_credential::CLIENT_DATA, bytes(3));
}

/// Made without anybody asking for user verification.
fn make(bench: &mut Bench, user: u8) -> (Passkey, u8) {
    let user = map([("id".into(), Value::Bytes(vec![user]))]);
    let request = with(&make_credential::request(), 3, user);
    let made = bench.ok(0x01, &request);
    (Passkey::of(member(&made, 2).unwrap().as_bytes().unwrap()), flags(&made))
}

fn named(passkey: &Passkey) -> Value {
    with(&get_assertion::request(), 3, Value::Array(vec![descriptor(&passkey.id)]))
}

#[test]
fn with_always_uv_off_what_nobody_asks_to_verify_takes_presence_and_never_says_verified() {
    let mut bench = Bench::new();
    bench.passkey("alice");
    let (before, _) = make(&mut bench, 1);
    assert!(always_uv(&mut bench));
    toggle(&mut bench);
    assert!(!always_uv(&mut bench));
    bench.person.asked.clear();
    let (passkey, made) = make(&mut bench, 2);
    assert_eq!(made, UP);
    assert!(bench.person.asked[0].starts_with("PIN Create"), "nobody gets a passkey by accident");
    bench.person.asked.clear();

    let answer = bench.ok(0x02, &named(&passkey));
    assert_eq!(flags(&answer), UP);
    verify(&passkey, &answer);
    assert!(bench.person.asked.iter().all(|ask| ask.starts_with("confirm")), "{:?}", bench.person.asked);
    // A platform that has the user verified gets no more of it than it is.
    let token = bench.token(2, 0x02, Some("example.org"));
    let proven = token.prove(&named(&passkey), (6, 7), &make_credential::CLIENT_DATA);
    assert_eq!(flags(&bench.ok(0x02, &proven)), UP);
    // What takes the PIN goes on to.
    bench.person.asked.clear();
    let answer = bench.ok(0x02, &named(&before));
    assert_eq!(flags(&answer), UP | UV);
    assert!(bench.person.asked[0].starts_with("PIN SignIn"));
    // Who asks for verification gets what takes it, if there is both.
    let answer = bench.ok(0x02, &with(&get_assertion::request(), 5, options("uv", true)));
    assert_eq!(flags(&answer), UP | UV);

    // Each is what it was made as, and on again alwaysUv asks for the PIN in any case.
    toggle(&mut bench);
    bench.person.asked.clear();
    assert_eq!(flags(&bench.ok(0x02, &named(&passkey))), UP);
    assert!(bench.person.asked[0].starts_with("PIN SignIn"));
    let accounts = bench.vault_takes();
    assert_eq!(accounts, [Takes::Pin, Takes::Pin, Takes::Presence]);
}

#[test]
fn a_silent_question_finds_what_takes_presence_and_nothing_else() {
    let mut bench = Bench::new();
    let (before, _) = make(&mut bench, 1);
    toggle(&mut bench);
    let silent = |request: &Value| with(request, 5, options("up", false));
    bench.refuses("6.2.2 step 7.4", 0x02, &silent(&named(&before)), Status::NoCredentials);
    bench.refuses("6.2.2 step 7.4", 0x02, &silent(&get_assertion::request()), Status::NoCredentials);
    let (passkey, _) = make(&mut bench, 2);
    bench.person.asked.clear();
    let answer = bench.ok(0x02, &silent(&named(&passkey)));
    assert_eq!((flags(&answer), bench.person.asked.len()), (0, 0));
    verify(&passkey, &answer);
}

#[test]
fn a_site_that_wants_its_passkey_protected_gets_one_that_takes_the_pin() {
    let mut bench = Bench::new();
    toggle(&mut bench);
    for (level, expected) in [(1_u8, UP), (2, UP), (3, UP | UV)] {
        let protected = map([("credProtect".into(), level.into())]);
        let request = with(&make_credential::request(), 6, protected);
        let made = bench.ok(0x01, &request);
        assert_eq!(flags(&made), expected, "level {level}");
        let passkey = Passkey::of(member(&made, 2).unwrap().as_bytes().unwrap());
        bench.person.asked.clear();
        assert_eq!(flags(&bench.ok(0x02, &named(&passkey))), expected);
    }
    bench.refuses("6.2.2 step 7.4", 0x02, &get_assertion::request(), Status::NoCredentials);
}

#[test]
fn what_nobody_verified_is_not_discoverable() {
    let mut bench = Bench::new();
    toggle(&mut bench);
    let discoverable = with(&make_credential::request(), 7, options("rk", true));
    bench.person.asked.clear();
    bench.refuses("6.1.2 step 7.1", 0x01, &discoverable, Status::PuatRequired);
    assert_eq!(bench.person.asked, [""; 0]);
    // Whoever then has it verified gets one, and it takes the PIN.
    let token = bench.token(2, 0x01, Some("example.org"));
    let proven = token.prove(&discoverable, (8, 9), &make_credential::CLIENT_DATA);
    assert_eq!(flags(&bench.ok(0x01, &proven)), UP | UV);
    assert_eq!(bench.vault_takes(), [Takes::Pin]);
}

#[test]
fn its_secrets_are_its_own() {
    let mut bench = Bench::new();
    toggle(&mut bench);
    let platform = bench.platform(2);
    let salt = platform.encrypt(&Sha256::digest("a salt"));
    let asked = map([
        (1.into(), platform.public.clone()),
        (2.into(), Value::Bytes(salt.clone())),
        (3.into(), platform.authenticate(&salt)),
        (4.into(), 2.into()),
    ]);
    // §12.8: what it makes of a salt at its creation it makes of it later.
    let wanted = map([("hmac-secret".into(), true.into()), ("hmac-secret-mc".into(), asked.clone())]);
    let made = bench.ok(0x01, &with(&make_credential::request(), 6, wanted));
    assert_eq!(flags(&made), UP);
    let made = member(&made, 2).unwrap().as_bytes().unwrap();
    let secret = |extensions: &[u8], name: &str| {
        let outputs: Value = ciborium::from_reader(extensions).unwrap();
        let outputs = outputs.into_map().unwrap();
        let (_, encrypted) = outputs.into_iter().find(|(key, _)| *key == name.into()).unwrap();
        platform.decrypt(encrypted.as_bytes().unwrap())
    };
    let mut after_id = &made[87..];
    let _key: Value = ciborium::from_reader(&mut after_id).unwrap();
    let at_creation = secret(after_id, "hmac-secret-mc");
    let request = with(&named(&Passkey::of(made)), 4, map([("hmac-secret".into(), asked)]));
    for _ in 0..2 {
        let answer = bench.ok(0x02, &request);
        let later = secret(&member(&answer, 2).unwrap().as_bytes().unwrap()[37..], "hmac-secret");
        assert_eq!((later.len(), &later), (32, &at_creation));
    }
}

#[test]
fn its_key_cannot_leave_the_tpm_either() {
    let mut bench = Bench::new();
    toggle(&mut bench);
    make(&mut bench, 2);
    let account = bench.vault.open_accounts().swap_remove(0);
    // The wrapped key begins with its public area: type, nameAlg, TPMA_OBJECT (TPM 2.0 Part 2 §12.2.4).
    let stored: (Value, Value) = ciborium::from_reader(account.key.0.as_slice()).unwrap();
    let public = match stored.0 {
        Value::Bytes(bytes) => bytes,
        Value::Array(bytes) => bytes.iter().map(|b| u8::try_from(b.as_integer().unwrap()).unwrap()).collect(),
        other => panic!("{other:?}"),
    };
    let at = public.windows(4).position(|w| w == [0x00, 0x23, 0x00, 0x0b]).unwrap() + 4;
    let attributes = u32::from_be_bytes(public[at..at + 4].try_into().unwrap());
    // fixedTPM, fixedParent, sensitiveDataOrigin; userWithAuth, noDA, sign.
    assert_eq!(attributes, 0x0004_0472);
}

/// §6.2.2 step 9: presence that vouches for a token's holder vouches for nobody else.
#[test]
fn a_request_without_a_token_spends_nobodys_presence() {
    let mut bench = Bench::new();
    toggle(&mut bench);
    let (passkey, _) = make(&mut bench, 1);
    let platform = bench.platform(2);
    for (permissions, rp_id) in [(0x04, None), (0x02, Some("example.com"))] {
        bench.ok(0x06, &platform.token_using_uv(permissions, rp_id));
        bench.person.asked.clear();
        assert_eq!(flags(&bench.ok(0x02, &named(&passkey))), UP);
        assert_eq!(bench.person.asked.len(), 1, "somebody was asked");
    }
}

#[test]
fn it_does_not_outlive_a_wipe() {
    let mut bench = Bench::new();
    toggle(&mut bench);
    let (passkey, _) = make(&mut bench, 1);
    // A kept copy, put back after a wipe that another process made.
    let kept = std::fs::read(bench.vault.dir.join("vault.db")).unwrap();
    // As a daemon does: it remembers the container key.
    bench.vault.tpm = bench.another_tpm().keeping();
    bench.ok(0x02, &named(&passkey));
    bench.vault.tpm.park();
    vault_core::wipe(&bench.vault.dir.clone(), &mut bench.another_tpm()).unwrap();
    std::fs::write(bench.vault.dir.join("vault.db"), kept).unwrap();
    bench.vault.tpm.park();
    let (status, _) = bench.call(0x02, &named(&passkey));
    assert_eq!(status, Status::Other.code());
}
