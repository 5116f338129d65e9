//! §6.4: every member, and that it is true.

use ciborium::Value;

use super::{Bench, encoded, map, member};

fn options(bench: &mut Bench) -> Vec<(String, bool)> {
    let options = bench.info(4).unwrap().into_map().unwrap();
    options.into_iter().map(|(name, is)| (name.into_text().unwrap(), is.into_bool().unwrap())).collect()
}

fn texts(value: &Value) -> Vec<&str> {
    value.as_array().unwrap().iter().map(|text| text.as_text().unwrap()).collect()
}

#[test]
fn each_member_is_as_announced() {
    let mut bench = Bench::without_vault();
    let info = bench.ok(0x04, &map([]));
    let keys: Vec<i64> =
        info.as_map().unwrap().iter().map(|(k, _)| k.as_integer().unwrap().try_into().unwrap()).collect();
    assert_eq!(keys, [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 15, 16, 22, 27]);
    assert_eq!(texts(member(&info, 0x01).unwrap()), ["FIDO_2_0", "FIDO_2_1"]);
    let extensions = [
        "credBlob",
        "credProtect",
        "hmac-secret",
        "hmac-secret-mc",
        "largeBlobKey",
        "minPinLength",
        "thirdPartyPayment",
    ];
    assert_eq!(texts(member(&info, 0x02).unwrap()), extensions);
    for (key, value) in
        [(0x05, 7609), (0x07, 64), (0x08, 32), (0x0b, 4096), (0x0d, 6), (0x0f, 32), (0x10, 16)]
    {
        assert_eq!(member(&info, key), Some(&value.into()), "{key:#x}");
    }
    assert_eq!(member(&info, 0x06), Some(&Value::Array(vec![2.into(), 1.into()])));
    assert_eq!(texts(member(&info, 0x09).unwrap()), ["usb"]);
    let es256 = map([("alg".into(), (-7).into()), ("type".into(), "public-key".into())]);
    assert_eq!(member(&info, 0x0a), Some(&Value::Array(vec![es256])));
    assert_eq!(member(&info, 0x0c), Some(&false.into()));
    assert_eq!(texts(member(&info, 0x16).unwrap()), ["packed"]);
    assert_eq!(member(&info, 0x1b), Some(&true.into()));
    assert!(encoded(&info).len() < 1024, "it fits what a platform may take before it knows maxMsgSize");
}

#[test]
fn options_say_whether_there_is_a_vault_and_no_more_than_that_changes() {
    let mut bench = Bench::without_vault();
    let before = options(&mut bench);
    let expected = [
        ("rk", true),
        ("up", true),
        ("uv", false),
        ("uvAcfg", true),
        ("alwaysUv", true),
        ("credMgmt", true),
        ("authnrCfg", true),
        ("clientPin", false),
        ("largeBlobs", true),
        ("perCredMgmtRO", true),
        ("pinUvAuthToken", true),
        ("setMinPINLength", true),
        ("makeCredUvNotRqd", false),
    ];
    assert_eq!(before, expected.map(|(name, is)| (name.to_owned(), is)));
    let platform = bench.platform(2);
    bench.ok(0x06, &platform.set_pin(&platform.padded(swtpm_tests::PIN.as_bytes())));
    let changed: Vec<_> = options(&mut bench).into_iter().filter(|option| !before.contains(option)).collect();
    assert_eq!(changed, [("uv".to_owned(), true), ("clientPin".to_owned(), true)]);
}

#[test]
fn nothing_in_it_tells_a_stranger_how_many_passkeys_there_are() {
    let mut bench = Bench::new();
    let before = bench.raw(&[0x04]);
    bench.passkey("alice");
    assert_eq!(bench.raw(&[0x04]), before);
}

#[test]
fn a_vault_that_cannot_be_opened_is_announced_and_can_be_reset() {
    let mut bench = Bench::new();
    let whole = bench.ok(0x04, &map([]));
    let db = rusqlite::Connection::open(bench.vault.dir.join("vault.db")).unwrap();
    db.execute("UPDATE header SET mac = zeroblob(32)", []).unwrap();
    drop(db);
    assert_eq!(bench.ok(0x04, &map([])), whole);
    assert_eq!(bench.raw(&[0x0c, 0xa2, 0x01, 0x11, 0x03, 0x00]), [ctap::Status::Other.code()]);
    assert_eq!(bench.raw(&[0x07]), [0]);
    assert!(options(&mut bench).contains(&("clientPin".to_owned(), false)));
}
