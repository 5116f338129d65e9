//! §6.5.5.

use std::time::Duration;

use ciborium::Value;
use ctap::{Declined, Status};
use swtpm_tests::PIN;

use super::{
    Bench, Platform, WRONG, get_assertion, map, member,
    platform::{authenticate, client_pin as sub},
    with,
};

const COMMAND: u8 = 0x06;
const SUBCOMMANDS_WITH_KEY_AGREEMENT: [u8; 5] = [3, 4, 5, 6, 9];

fn token_using_pin(platform: &Platform, pin: &str) -> Value {
    platform.token_using_pin(pin, 2, Some("example.org"))
}

fn token_using_uv(platform: &Platform) -> Value {
    platform.token_using_uv(2, Some("example.org"))
}

fn retries(bench: &mut Bench) -> (Option<Value>, Option<Value>) {
    let reply = bench.ok(COMMAND, &sub(2, 1));
    (member(&reply, 3).cloned(), member(&reply, 4).cloned())
}

#[test]
fn unknown_subcommands_protocols_and_missing_parameters_are_refused() {
    let mut bench = Bench::new();
    bench.refuses("6.5.5", COMMAND, &map([(1.into(), 2.into())]), Status::MissingParameter);
    for subcommand in [0, 8, 10, 255] {
        bench.refuses("6.5.5", COMMAND, &sub(2, subcommand), Status::InvalidSubcommand);
    }
    bench.refuses("6.5.5.4", COMMAND, &map([(2.into(), 2.into())]), Status::MissingParameter);
    bench.refuses("6.5.5.4", COMMAND, &sub(3, 2), Status::InvalidParameter);
    for protocol in [1, 2] {
        let platform = bench.platform(protocol);
        let requests = [
            platform.set_pin(&platform.padded(PIN.as_bytes())),
            platform.change_pin(PIN, WRONG),
            platform.pin_token(PIN),
            token_using_uv(&platform),
            token_using_pin(&platform, PIN),
        ];
        for (request, subcommand) in requests.iter().zip(SUBCOMMANDS_WITH_KEY_AGREEMENT) {
            assert_eq!(member(request, 2), Some(&subcommand.into()));
            for (key, _) in request.as_map().unwrap() {
                let key = i64::try_from(key.as_integer().unwrap()).unwrap();
                bench.refuses("its step 1", COMMAND, &with(request, key, None), Status::MissingParameter);
            }
            bench.refuses("its step 2", COMMAND, &with(request, 1, Value::from(0)), Status::InvalidParameter);
        }
    }
    assert_eq!(retries(&mut bench), (Some(8.into()), Some(false.into())));
    assert_eq!(bench.person.asked, [""; 0]);
}

#[test]
fn a_key_that_is_no_point_of_p256_is_refused() {
    let mut bench = Bench::new();
    let platform = bench.platform(2);
    let key = platform.public.clone();
    for (what, bad) in [
        ("another algorithm", with(&key, 3, Value::from(-7))),
        ("another curve", with(&key, -1, Value::from(2))),
        ("another type", with(&key, 1, Value::from(1))),
        ("no x", with(&key, -2, None)),
        ("a short y", with(&key, -3, Value::Bytes(vec![1; 31]))),
        ("off the curve", with(&key, -3, Value::Bytes(vec![1; 32]))),
        ("zero", with(&with(&key, -2, Value::Bytes(vec![0; 32])), -3, Value::Bytes(vec![0; 32]))),
    ] {
        let request = with(&token_using_pin(&platform, PIN), 3, bad);
        bench.refuses(what, COMMAND, &request, Status::InvalidParameter);
    }
    let request = with(&token_using_pin(&platform, PIN), 3, Value::from(1));
    bench.refuses("no map", COMMAND, &request, Status::CborUnexpectedType);
    assert_eq!(retries(&mut bench), (Some(8.into()), Some(false.into())));
}

#[test]
fn set_pin_refuses() {
    let mut bench = Bench::without_vault();
    for protocol in [1, 2] {
        let platform = bench.platform(protocol);
        let good = platform.set_pin(&platform.padded(PIN.as_bytes()));
        let forged = with(&good, 4, Value::Bytes(vec![0; if protocol == 1 { 16 } else { 32 }]));
        bench.refuses("6.5.5.5 step 5", COMMAND, &forged, Status::PinAuthInvalid);
        let short = platform.set_pin(&Value::Bytes(platform.encrypt(&[b'7'; 48])));
        bench.refuses("6.5.5.5 step 7", COMMAND, &short, Status::InvalidParameter);
        let no_blocks = platform.set_pin(&Value::Bytes(vec![1; 17]));
        bench.refuses("6.5.5.5 step 6", COMMAND, &no_blocks, Status::PinAuthInvalid);
        for (what, pin) in [
            ("too short", &b"49381"[..]),
            ("empty", b""),
            ("64 bytes", &[b'x'; 64]),
            ("a sequence", b"123456"),
            ("a repeat", b"777777"),
            ("a common one", b"password"),
            ("not UTF-8", b"\xff\xfe493817"),
            ("not normalized", "e\u{301}493817".as_bytes()),
        ] {
            let request = platform.set_pin(&platform.padded(pin));
            bench.refuses(what, COMMAND, &request, Status::PinPolicyViolation);
        }
        assert!(!bench.vault.dir.exists());
    }
    let platform = bench.platform(1);
    let good = platform.set_pin(&platform.padded(PIN.as_bytes()));
    bench.ok(COMMAND, &good);
    bench.refuses("6.5.5.5 step 3, there is one", COMMAND, &good, Status::PinAuthInvalid);
}

#[test]
fn change_pin_refuses() {
    for protocol in [1, 2] {
        let mut bench = Bench::new();
        let platform = bench.platform(protocol);
        let good = platform.change_pin(PIN, WRONG);
        let forged = with(&good, 4, Value::Bytes(vec![0; if protocol == 1 { 16 } else { 32 }]));
        bench.refuses("6.5.5.6 step 6", COMMAND, &forged, Status::PinAuthInvalid);
        assert_eq!(retries(&mut bench), (Some(8.into()), Some(false.into())));
        bench.refuses(
            "6.5.5.6 step 13",
            COMMAND,
            &platform.change_pin(PIN, "49381"),
            Status::PinPolicyViolation,
        );
        bench.ok(COMMAND, &platform.change_pin(PIN, WRONG));
        bench.refuses("6.5.5.6 step 10", COMMAND, &platform.change_pin(PIN, WRONG), Status::PinInvalid);
        assert_eq!(retries(&mut bench), (Some(7.into()), Some(false.into())));
        let new = bench.platform(protocol);
        bench.refuses(
            "6.5.5.6: the key is a new one",
            COMMAND,
            &platform.change_pin(WRONG, PIN),
            Status::PinAuthInvalid,
        );
        bench.ok(COMMAND, &new.change_pin(WRONG, PIN));
    }
}

/// A PIN that was typed into some program: what that program may do beyond a ceremony, which asks by itself, is asked here.
#[test]
fn what_a_typed_pin_is_to_allow_takes_consent() {
    let mut bench = Bench::new();
    for permissions in [0x04, 0x10, 0x20, 0x24, 0x40, 0x05] {
        let platform = bench.platform(2);
        // The wrong one is no try: nobody gets as far.
        let request = platform.token_using_pin(WRONG, permissions, Some("example.org"));
        let step = "6.5.5.7.2 step 7";
        bench.refuses_if(step, Declined::No, (COMMAND, &request), Status::OperationDenied);
        bench.refuses_if(step, Declined::TimedOut, (COMMAND, &request), Status::UserActionTimeout);
        bench.refuses_if(step, Declined::Cancelled, (COMMAND, &request), Status::KeepaliveCancel);
        let asked = bench.person.asked.split_off(0);
        assert!(asked.len() == 3 && asked.iter().all(|a| a.starts_with("confirm Unlock")), "{asked:?}");
    }
    assert_eq!(retries(&mut bench), (Some(8.into()), Some(false.into())));
    for permissions in [0x01, 0x02, 0x03] {
        bench.token(2, permissions, Some("example.org"));
    }
    let platform = bench.platform(2);
    bench.ok(COMMAND, &platform.pin_token(PIN));
    assert_eq!(bench.person.asked, [""; 0]);
    bench.token(2, 0x04, None);
    assert_eq!(bench.person.asked.len(), 1);
}

#[test]
fn tokens_are_refused() {
    let mut bench = Bench::new();
    let platform = bench.platform(2);
    let old = platform.pin_token(PIN);
    bench.refuses("6.5.5.7.1", COMMAND, &with(&old, 9, Value::from(2)), Status::InvalidParameter);
    bench.refuses("6.5.5.7.1", COMMAND, &with(&old, 10, Value::from("x")), Status::InvalidParameter);
    for (name, request) in
        [("6.5.5.7.2", token_using_pin(&platform, PIN)), ("6.5.5.7.3", token_using_uv(&platform))]
    {
        bench.refuses(name, COMMAND, &with(&request, 9, Value::from(0)), Status::InvalidParameter);
        for (step, permission) in [
            ("be", 0x08),
            ("be", 0x37 | 0x08),
            ("be, whatever else is asked for", 0x88),
            ("pcmr and another", 0x41),
            ("pcmr and another", 0x42),
            ("pcmr and another", 0x44),
            ("pcmr and another", 0x48),
            ("pcmr and another", 0x50),
            ("pcmr and another", 0x60),
        ] {
            let request = with(&request, 9, Value::from(permission));
            let step = format!("{name} step 4, {step}");
            bench.refuses(&step, COMMAND, &request, Status::UnauthorizedPermission);
        }
        for permission in [1, 2, 3, 7, 0x11, 0x22, 0x81] {
            let request = with(&with(&request, 9, Value::from(permission)), 10, None);
            bench.refuses(name, COMMAND, &request, Status::MissingParameter);
        }
        bench.refuses(name, COMMAND, &with(&request, 10, Value::from("")), Status::InvalidLength);
    }
    let hash = Value::Bytes(vec![1; 17]);
    bench.refuses("no ciphertext", COMMAND, &with(&old, 6, hash), Status::PinAuthInvalid);
    let long = Value::Bytes(platform.encrypt(&[1; 32]));
    bench.refuses("no hash of 16 bytes", COMMAND, &with(&old, 6, long), Status::PinAuthInvalid);
    assert_eq!(retries(&mut bench), (Some(8.into()), Some(false.into())));
    assert_eq!(bench.person.asked, [""; 0]);

    let uv = token_using_uv(&platform);
    bench.refuses_if("6.5.5.7.3, declined", Declined::No, (COMMAND, &uv), Status::OperationDenied);
    bench.refuses_if("6.5.5.7.3, timed out", Declined::TimedOut, (COMMAND, &uv), Status::UserActionTimeout);
    bench.person.pin = WRONG;
    bench.refuses("6.5.5.7.3, wrong", COMMAND, &uv, Status::UvInvalid);
    bench.refuses("6.5.5.7.3, wrong", COMMAND, &uv, Status::UvInvalid);
    bench.refuses("6.5.5.7.3, no more", COMMAND, &uv, Status::UvBlocked);
    let retries = bench.ok(COMMAND, &map([(2.into(), 7.into())]));
    assert_eq!(member(&retries, 5), Some(&0.into()));
}

#[test]
fn three_wrong_pins_in_a_row_block_until_the_next_start_and_eight_for_good() {
    let mut bench = Bench::new();
    let wrong = |bench: &mut Bench, status| {
        let platform = bench.platform(2);
        bench.refuses("6.5.5.7.2", COMMAND, &token_using_pin(&platform, WRONG), status);
    };
    for start in 0..2 {
        wrong(&mut bench, Status::PinInvalid);
        wrong(&mut bench, Status::PinInvalid);
        wrong(&mut bench, Status::PinAuthBlocked);
        let platform = bench.platform(2);
        for request in
            [token_using_pin(&platform, PIN), platform.pin_token(PIN), platform.change_pin(PIN, WRONG)]
        {
            bench.refuses("even the right one", COMMAND, &request, Status::PinAuthBlocked);
        }
        assert_eq!(retries(&mut bench), (Some((5 - 3 * start).into()), Some(true.into())));
        bench.restart();
    }
    wrong(&mut bench, Status::PinInvalid);
    wrong(&mut bench, Status::PinBlocked);
    let platform = bench.platform(2);
    for request in [token_using_pin(&platform, PIN), platform.change_pin(PIN, WRONG)] {
        bench.refuses("6.5.5.6 step 4, none left", COMMAND, &request, Status::PinBlocked);
    }
    bench.restart();
    let platform = bench.platform(2);
    bench.refuses("nor after a start", COMMAND, &token_using_pin(&platform, PIN), Status::PinBlocked);
    assert_eq!(retries(&mut bench), (Some(0.into()), Some(false.into())));
}

#[test]
fn without_a_vault_there_is_no_pin() {
    let mut bench = Bench::without_vault();
    let platform = bench.platform(2);
    for request in [token_using_pin(&platform, PIN), platform.pin_token(PIN), platform.change_pin(PIN, WRONG)]
    {
        bench.refuses("no PIN", COMMAND, &request, Status::PinNotSet);
    }
    bench.refuses("6.5.5.7.3", COMMAND, &token_using_uv(&platform), Status::NotAllowed);
    assert_eq!(retries(&mut bench), (Some(8.into()), Some(false.into())));
}

#[test]
fn a_token_from_our_own_prompt_vouches_for_presence_once_and_not_at_a_registration() {
    let mut bench = Bench::new();
    bench.ok(0x01, &with(&super::make_credential::request(), 7, super::options("rk", true)));
    let platform = bench.platform(2);
    let token = |bench: &mut Bench, permissions: u8| {
        let reply = bench.ok(COMMAND, &with(&token_using_uv(&platform), 9, Value::from(permissions)));
        platform.decrypt(member(&reply, 2).unwrap().as_bytes().unwrap())
    };
    let proof = |key: &[u8]| authenticate(2, key, &super::make_credential::CLIENT_DATA);

    let sign = |key: &[u8]| with(&with(&get_assertion::request(), 6, proof(key)), 7, Value::from(2));
    for (seconds, asked) in [(0, 0), (29, 0), (30, 1)] {
        let key = token(&mut bench, 2);
        // As platforms do, to find out which credentials are here: it spends no presence, and keeps the token in use.
        bench.ok(0x02, &with(&sign(&key), 5, super::options("up", false)));
        bench.now += std::time::Duration::from_secs(seconds);
        bench.person.asked.clear();
        bench.ok(0x02, &sign(&key));
        assert_eq!(bench.person.asked.len(), asked, "after {seconds} seconds");
    }

    let key = token(&mut bench, 1);
    bench.person.asked.clear();
    bench.ok(0x01, &with(&with(&super::make_credential::request(), 8, proof(&key)), 9, Value::from(2)));
    assert!(bench.person.asked[0].starts_with("confirm Create"), "{:?}", bench.person.asked);
}

#[test]
fn permissions_that_are_not_defined_are_ignored() {
    let mut bench = Bench::new();
    for undefined in [0x80_u64, 0x100, 1 << 63] {
        let platform = bench.platform(2);
        let asked = with(&token_using_pin(&platform, PIN), 9, Value::from(0x20 | undefined));
        let token = platform.token(&bench.ok(COMMAND, &asked));
        let config = super::set_min_pin_length(map([]));
        bench.ok(0x0d, &token.configure(&config));
        // They alone make a token that is good for nothing.
        let asked = with(&token_using_pin(&platform, PIN), 9, Value::from(undefined));
        let token = platform.token(&bench.ok(COMMAND, &asked));
        bench.refuses("6.11", 0x0d, &token.configure(&config), Status::PinAuthInvalid);
        let list = token.manage(&super::platform::manage(1, None));
        bench.refuses("6.8.2 step 4", 0x0a, &list, Status::PinAuthInvalid);
    }
}

/// §6.5.2.1: the time limits begin when the token does, and not when the request came that a person then thought about.
#[test]
fn a_person_who_takes_his_time_gets_a_token_that_lasts() {
    let mut bench = Bench::new();
    let platform = bench.platform(2);
    bench.person.takes = Duration::from_secs(50);
    let token = platform.token(&bench.ok(COMMAND, &platform.token_using_uv(0x04, None)));
    bench.now += Duration::from_secs(29);
    bench.ok(0x0a, &token.manage(&super::platform::manage(1, None)));
}

#[test]
fn the_prompt_for_a_token_to_sign_in_knows_the_accounts() {
    let mut bench = Bench::new();
    bench.passkey("alice");
    let platform = bench.platform(2);
    for (permissions, rp_id, count) in
        [(0x02, "example.org", 1), (0x02, "example.com", 0), (0x04, "example.org", 0)]
    {
        bench.person.asked.clear();
        bench.ok(COMMAND, &platform.token_using_uv(permissions, Some(rp_id)));
        assert_eq!(bench.person.asked[0].matches("Account {").count(), count, "{permissions} {rp_id}");
    }
}

#[test]
fn the_prompt_for_a_token_knows_its_permissions() {
    let mut bench = Bench::new();
    let platform = bench.platform(2);
    for permissions in [0x02, 0x30, 0x40] {
        bench.person.asked.clear();
        bench.ok(COMMAND, &platform.token_using_uv(permissions, Some("example.org")));
        let expected = format!(
            "PIN Unlock {{ rp_id: Some(RpId(\"example.org\")), permissions: Permissions({permissions}), accounts: [] }}"
        );
        assert_eq!(bench.person.asked, [expected]);
    }
}
