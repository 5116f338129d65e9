//! §6.11, and §12.5: who is told of the minimum.

use ciborium::Value;
use ctap::Status;
use swtpm_tests::{PIN, creation_options, pin, request_options, rng};
use vault_core::{
    CeremonyError, UnlockError,
    container::Settings,
    webauthn::{CreateRequest, GetRequest, Origin, UserPresent},
};

use super::{
    Bench, Token, Vaults, WRONG, client_pin, get_assertion, make_credential, map, member, options,
    platform::manage, set_min_pin_length, with,
};

const COMMAND: u8 = 0x0d;
const CONFIGURE: u8 = 0x20;
const EIGHT: &str = "73918420";

fn toggle_always_uv() -> Value {
    map([(1.into(), 2.into())])
}

fn minimum(length: u64) -> Value {
    set_min_pin_length(map([(1.into(), length.into())]))
}

fn told(rp_ids: &[&str]) -> Value {
    let rp_ids = rp_ids.iter().map(|rp_id| Value::from(*rp_id)).collect();
    set_min_pin_length(map([(2.into(), Value::Array(rp_ids))]))
}

fn force() -> Value {
    set_min_pin_length(map([(3.into(), true.into())]))
}

fn configurer(bench: &mut Bench) -> Token {
    bench.token(2, CONFIGURE, None)
}

fn configure(bench: &mut Bench, request: &Value) {
    let token = configurer(bench);
    assert_eq!(bench.ok(COMMAND, &token.configure(request)), Value::Null);
}

/// What minPinLength is answered to a site that registers.
fn told_at(bench: &mut Bench, rp_id: &str, asked: bool) -> Option<Value> {
    let request = with(&make_credential::request(), 2, map([("id".into(), rp_id.into())]));
    let made = bench.ok(0x01, &with(&request, 6, options("minPinLength", asked)));
    super::extensions::outputs(&made).map(|outputs| outputs.into_map().unwrap().remove(0).1)
}

#[test]
fn nothing_is_configured_without_the_right_token() {
    let mut bench = Bench::new();
    bench.refuses("6.11, no subcommand", COMMAND, &map([]), Status::MissingParameter);
    for request in [minimum(8), told(&["example.org"]), force(), toggle_always_uv()] {
        bench.refuses("6.11 step 4.1", COMMAND, &request, Status::PuatRequired);
        let token = configurer(&mut bench);
        let good = token.configure(&request);
        bench.refuses("6.11 step 4.2", COMMAND, &with(&good, 3, None), Status::MissingParameter);
        bench.refuses("6.11 step 4.3", COMMAND, &with(&good, 3, Value::from(0)), Status::InvalidParameter);
        let of_another = with(&good, 3, Value::from(1));
        bench.refuses("6.11 step 4.4, of another protocol", COMMAND, &of_another, Status::PinAuthInvalid);
        for forged in [vec![], vec![0; 16], vec![0; 32]] {
            let forged = with(&good, 4, Value::Bytes(forged));
            bench.refuses("6.11 step 4.4, forged", COMMAND, &forged, Status::PinAuthInvalid);
        }
        let bare = token.manage(&request);
        bench.refuses("6.11 step 4.4, without its head", COMMAND, &bare, Status::PinAuthInvalid);
        let other = with(&good, 2, map([(1.into(), 9.into())]));
        bench.refuses("6.11 step 4.4, of other parameters", COMMAND, &other, Status::PinAuthInvalid);
        let verb = if member(&request, 1) == Some(&2.into()) { 3 } else { 2 };
        let other = with(&good, 1, Value::from(verb));
        bench.refuses("6.11 step 4.4, of another verb", COMMAND, &other, Status::PinAuthInvalid);
        for permissions in [0x01, 0x02, 0x04, 0x10, 0x17, 0x40] {
            let token = bench.token(2, permissions, Some("example.org"));
            bench.refuses("6.11 step 4.5", COMMAND, &token.configure(&request), Status::PinAuthInvalid);
        }
    }
    assert_eq!(
        bench.settings(),
        Settings { persistent_token: bench.settings().persistent_token, ..Settings::default() }
    );
    let mut bench = Bench::without_vault();
    bench.refuses("6.11 step 4.1, no vault", COMMAND, &minimum(8), Status::PuatRequired);
    let forged = with(&with(&minimum(8), 3, Value::from(2)), 4, Value::Bytes(vec![0; 32]));
    bench.refuses("6.11 step 4.4, no vault", COMMAND, &forged, Status::PinAuthInvalid);
}

#[test]
fn subcommands_refuse() {
    let mut bench = Bench::new();
    let token = configurer(&mut bench);
    for subcommand in [0_u64, 1, 4, 0xff, 0x103, u64::MAX] {
        let request = map([(1.into(), subcommand.into())]);
        bench.refuses("6.11 step 1", COMMAND, &request, Status::InvalidParameter);
    }
    for length in [0, 5, 64, u64::MAX] {
        let request = token.configure(&minimum(length));
        bench.refuses("6.11.4, the minimum", COMMAND, &request, Status::PinPolicyViolation);
    }
    let seventeen: Vec<_> = (0..17).map(|n| format!("{n}.example.org")).collect();
    let seventeen = told(&seventeen.iter().map(String::as_str).collect::<Vec<_>>());
    bench.refuses("6.11.4, the list", COMMAND, &token.configure(&seventeen), Status::KeyStoreFull);
    let no_site = token.configure(&told(&["example.org", ""]));
    bench.refuses("6.11.4, the list", COMMAND, &no_site, Status::InvalidLength);
    for key in [1, 2, 3] {
        let request = token.configure(&set_min_pin_length(map([(key.into(), "x".into())])));
        bench.refuses("6.11.4, of another kind", COMMAND, &request, Status::CborUnexpectedType);
    }
    let both = map([(1.into(), 5.into()), (3.into(), true.into())]);
    let both = token.configure(&set_min_pin_length(both));
    bench.refuses("6.11.4, all or nothing", COMMAND, &both, Status::PinPolicyViolation);
    assert_eq!(bench.settings(), Settings::default());
    // What asks for nothing new changes nothing, and the token goes on.
    for request in
        [set_min_pin_length(map([])), minimum(6), set_min_pin_length(map([(3.into(), false.into())]))]
    {
        bench.ok(COMMAND, &token.configure(&request));
        assert_eq!((bench.info(0x0c), bench.info(0x0d)), (Some(false.into()), Some(6.into())));
    }
    bench.ok(COMMAND, &token.configure(&map([(1.into(), 3.into())])));
}

#[test]
fn a_raised_minimum_holds_for_device_and_terminal_and_never_falls() {
    let mut bench = Bench::new();
    configure(&mut bench, &minimum(8));
    bench.restart();
    assert_eq!((bench.info(0x0c), bench.info(0x0d)), (Some(true.into()), Some(8.into())));
    let platform = bench.platform(2);
    let short = platform.change_pin(PIN, "7391842");
    bench.refuses("6.5.5.6 step 12", 0x06, &short, Status::PinPolicyViolation);
    bench.ok(0x06, &platform.change_pin(PIN, EIGHT));
    assert_eq!((bench.info(0x0c), bench.info(0x0d)), (Some(false.into()), Some(8.into())));
    let token = bench.token_for(EIGHT, 2, CONFIGURE, None);
    let lower = token.configure(&minimum(7));
    bench.refuses("6.11.4, the minimum", COMMAND, &lower, Status::PinPolicyViolation);
    let platform = bench.platform(2);
    let short = platform.change_pin(EIGHT, "7391842");
    bench.refuses("6.5.5.6 step 12", 0x06, &short, Status::PinPolicyViolation);
    let token = bench.token_for(EIGHT, 2, CONFIGURE, None);
    bench.ok(COMMAND, &token.configure(&minimum(63)));
    assert_eq!(bench.info(0x0d), Some(63.into()));
    assert_eq!(bench.raw(&[0x07]), [0]);
    assert_eq!((bench.info(0x0c), bench.info(0x0d)), (Some(false.into()), Some(6.into())), "reset");
}

/// Everything that the PIN is not good for while it must be changed.
fn is_blocked(bench: &mut Bench) {
    bench.person.asked.clear();
    let platform = bench.platform(2);
    for permissions in [0x02, 0x04, 0x10, 0x20, 0x40] {
        let request = platform.token_using_pin(PIN, permissions, Some("example.org"));
        bench.refuses("6.5.5.7.2 step 11", 0x06, &request, Status::PinPolicyViolation);
        let request = platform.token_using_uv(permissions, Some("example.org"));
        bench.refuses("6.5.5.7.3", 0x06, &request, Status::PinPolicyViolation);
    }
    bench.refuses("6.5.5.7.1 step 11", 0x06, &platform.pin_token(PIN), Status::PinInvalid);
    bench.refuses("6.1.2 step 11.2", 0x01, &make_credential::request(), Status::PinPolicyViolation);
    bench.refuses("6.2.2 step 6.2", 0x02, &get_assertion::request(), Status::PinPolicyViolation);
    assert_eq!(bench.person.asked, [""; 0], "nobody types a PIN in vain");
    let retries = bench.ok(0x06, &client_pin(2, 1));
    assert_eq!(member(&retries, 3), Some(&8.into()), "and none of it was a wrong PIN");
    assert_eq!(bench.info(0x0c), Some(true.into()));

    let origin = Origin::parse("https://example.org").unwrap();
    let mut vault = bench.vault.open().unwrap();
    let create =
        CreateRequest::from_json(&creation_options("example.org", "bob", "none"), origin.clone()).unwrap();
    let enrolled =
        vault.unlock(&pin(PIN)).unwrap().enroll(&create, None, UserPresent::confirmed(), 0, &mut rng());
    assert!(matches!(enrolled, Err(CeremonyError::PinChangeDue)), "{enrolled:?}");
    let get = GetRequest::from_json(&request_options("example.org"), origin).unwrap();
    let (id, _) = vault.matching(&get).unwrap()[0];
    let signed = vault.unlock(&pin(PIN)).unwrap().sign(&get, id, UserPresent::confirmed(), 0, &mut rng());
    assert!(matches!(signed, Err(CeremonyError::PinChangeDue)), "{signed:?}");
    let same = vault.unlock(&pin(PIN)).unwrap().change_pin(&pin(PIN), &mut rng());
    assert!(matches!(same, Err(CeremonyError::PinChangeDue)), "{same:?}");
    drop(vault);
    let platform = bench.platform(2);
    let same = platform.change_pin(PIN, PIN);
    bench.refuses("6.5.5.6 step 13, the same", 0x06, &same, Status::PinPolicyViolation);
    assert_eq!(bench.info(0x0c), Some(true.into()));
}

#[test]
fn a_forced_change_blocks_everything_until_the_pin_is_another_one() {
    for by_device in [true, false] {
        let mut bench = Bench::new();
        bench.passkey("alice");
        let lister = bench.token(2, 0x40, None);
        let session = bench.token(2, CONFIGURE | 0x04, None);
        bench.ok(COMMAND, &session.configure(&force()));
        let list = manage(1, None);
        for (whose, token) in [("6.11.4 step 7, the token's", &session), ("the persistent token's", &lister)]
        {
            bench.refuses(whose, 0x0a, &token.manage(&list), Status::PinAuthInvalid);
        }
        is_blocked(&mut bench);
        bench.restart();
        is_blocked(&mut bench);
        if by_device {
            let platform = bench.platform(2);
            bench.ok(0x06, &platform.change_pin(PIN, WRONG));
        } else {
            bench.change_pin_at_the_terminal(WRONG);
        }
        assert_eq!((bench.info(0x0c), bench.info(0x0d)), (Some(false.into()), Some(6.into())));
        bench.token_for(WRONG, 2, 0x02, Some("example.org"));
        bench.person.pin = WRONG;
        bench.ok(0x02, &get_assertion::request());
        bench.ok(0x01, &make_credential::request());
        let mut vault = bench.vault.open().unwrap();
        assert!(matches!(vault.unlock(&pin(PIN)), Err(UnlockError::WrongPin)));
    }
}

#[test]
fn the_minimum_is_told_to_those_sites_alone_that_may_know_it() {
    let mut bench = Bench::new();
    assert_eq!(told_at(&mut bench, "example.org", true), None, "12.5: no site is on the list");
    configure(&mut bench, &told(&["example.org", "example.com"]));
    bench.restart();
    assert_eq!(told_at(&mut bench, "example.org", true), Some(6.into()));
    assert_eq!(told_at(&mut bench, "example.com", true), Some(6.into()));
    for other in ["www.example.org", "example.net", "org"] {
        assert_eq!(told_at(&mut bench, other, true), None, "12.5: {other} is not on the list");
    }
    assert_eq!(told_at(&mut bench, "example.org", false), None, "12.5: it has not asked");
    // What is not given stays; what is given takes the old one's place.
    configure(&mut bench, &minimum(6));
    assert_eq!(told_at(&mut bench, "example.com", true), Some(6.into()));
    configure(&mut bench, &told(&["example.net"]));
    assert_eq!(told_at(&mut bench, "example.com", true), None);
    assert_eq!(told_at(&mut bench, "example.net", true), Some(6.into()));
    configure(&mut bench, &told(&[]));
    assert_eq!(told_at(&mut bench, "example.net", true), None);
    let sixteen: Vec<_> = (0..16).map(|n| format!("{n}.example.org")).collect();
    configure(&mut bench, &told(&sixteen.iter().map(String::as_str).collect::<Vec<_>>()));
    assert_eq!(told_at(&mut bench, "15.example.org", true), Some(6.into()));
}
