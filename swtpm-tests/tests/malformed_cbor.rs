//! Every way in which a message can be malformed × every command that takes parameters × every place in its request, with the
//! status code that CTAP 2.2 has for it. The encoder is the table's own.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::pedantic
)]

mod platform;

use std::collections::BTreeMap;

use ciborium::Value;
use platform::{
    Platform, client_pin, descriptor, manage, map, options,
    site::{RP, Site},
    with,
};
use swtpm_tests::{Device, HidClient, PIN, Passhold, TestTpm};

/// §8.2.
const INVALID_PARAMETER: u8 = 0x02;
const UNEXPECTED_TYPE: u8 = 0x11;
const INVALID_CBOR: u8 = 0x12;
const MISSING_PARAMETER: u8 = 0x14;
const PIN_AUTH_INVALID: u8 = 0x33;

/// §8: "the maximum nesting depth of CBOR structures is 4".
const MAX_DEPTH: usize = 4;

/// A request in good form, and what it is answered with.
struct Good {
    name: &'static str,
    command: u8,
    request: Value,
    status: u8,
    /// Members, elements and members of members that must be there, each as its path.
    required: Vec<Vec<Value>>,
    /// Those that need not, but have a type if they are.
    optional: Vec<Vec<Value>>,
}

/// What is wrong with the encoding of one item (§8: "CTAP2 canonical CBOR encoding form").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wrong {
    /// The argument in so many bytes, where fewer would do.
    Wider(usize),
    IndefiniteLength,
    Tagged,
    /// Additional information that RFC 8949 §3 reserves.
    Reserved(u8),
    /// A break that ends nothing.
    Break,
    /// The message ends before it.
    Cut,
    /// Longer than what is left.
    TooLong,
    NotUtf8,
    KeysOutOfOrder,
    KeyTwice,
    TooDeep,
}

const WRONGS: [Wrong; 16] = [
    Wrong::Wider(1),
    Wrong::Wider(2),
    Wrong::Wider(4),
    Wrong::Wider(8),
    Wrong::IndefiniteLength,
    Wrong::Tagged,
    Wrong::Reserved(28),
    Wrong::Reserved(29),
    Wrong::Reserved(30),
    Wrong::Break,
    Wrong::Cut,
    Wrong::TooLong,
    Wrong::NotUtf8,
    Wrong::KeysOutOfOrder,
    Wrong::KeyTwice,
    Wrong::TooDeep,
];

impl Wrong {
    /// Whether this item can be wrong in this way.
    fn applies(self, item: &Value) -> bool {
        let (major, argument) = header(item);
        match self {
            Self::Wider(bytes) if major == 7 => bytes == 1,
            Self::Wider(bytes) => bytes > width(argument),
            Self::TooLong | Self::IndefiniteLength => (2..=5).contains(&major),
            Self::NotUtf8 => major == 3 && argument > 0,
            Self::KeysOutOfOrder => major == 5 && argument > 1,
            Self::KeyTwice => major == 5 && argument > 0,
            _ => true,
        }
    }
}

/// Major type and argument (RFC 8949 §3).
fn header(item: &Value) -> (u8, u64) {
    let length = |n: usize| u64::try_from(n).unwrap();
    match item {
        Value::Integer(n) => match i128::from(*n) {
            n @ 0.. => (0, u64::try_from(n).unwrap()),
            n => (1, u64::try_from(-1 - n).unwrap()),
        },
        Value::Bytes(bytes) => (2, length(bytes.len())),
        Value::Text(text) => (3, length(text.len())),
        Value::Array(items) => (4, length(items.len())),
        Value::Map(members) => (5, length(members.len())),
        Value::Bool(value) => (7, if *value { 21 } else { 20 }),
        _ => panic!("no part of these requests"),
    }
}

/// How many bytes the argument needs behind the first one.
fn width(argument: u64) -> usize {
    match argument {
        0..=23 => 0,
        24..=0xff => 1,
        0x100..=0xffff => 2,
        0x1_0000..=0xffff_ffff => 4,
        _ => 8,
    }
}

/// Encodes a request with one item wrong; items are numbered as they are met, keys among them.
struct Encoder {
    bytes: Vec<u8>,
    at: usize,
    wrong: Option<(usize, Wrong)>,
    cut: bool,
}

impl Encoder {
    fn encode(request: &Value, wrong: Option<(usize, Wrong)>) -> Vec<u8> {
        let mut encoder = Self { bytes: Vec::new(), at: 0, wrong, cut: false };
        encoder.item(request, 0);
        encoder.bytes
    }

    fn push(&mut self, bytes: &[u8]) {
        if !self.cut {
            self.bytes.extend(bytes);
        }
    }

    fn header(&mut self, major: u8, argument: u64, width: usize) {
        let info = match width {
            0 => u8::try_from(argument).unwrap(),
            1 => 24,
            2 => 25,
            4 => 26,
            _ => 27,
        };
        self.push(&[major << 5 | info]);
        self.push(&argument.to_be_bytes()[8 - width..]);
    }

    /// `around`: how many arrays and maps it is in.
    fn item(&mut self, item: &Value, around: usize) {
        let wrong = self.wrong.filter(|(at, _)| *at == self.at).map(|(_, wrong)| wrong);
        self.at += 1;
        let (major, argument) = header(item);
        match wrong {
            Some(Wrong::Cut) => self.cut = true,
            Some(Wrong::Break) => return self.push(&[0xff]),
            Some(Wrong::TooDeep) => return self.push(&[vec![0x81; MAX_DEPTH - around], vec![0x80]].concat()),
            Some(Wrong::Tagged) => self.push(&[0xc1]),
            _ => {}
        }
        match wrong {
            Some(Wrong::IndefiniteLength) => self.push(&[major << 5 | 31]),
            Some(Wrong::Reserved(info)) => self.push(&[major << 5 | info]),
            Some(Wrong::Wider(width)) => self.header(major, argument, width),
            Some(Wrong::TooLong) => self.header(major, argument + 5000, width(argument + 5000)),
            Some(Wrong::KeyTwice) => self.header(major, argument + 1, width(argument + 1)),
            _ => self.header(major, argument, width(argument)),
        }
        match item {
            Value::Bytes(bytes) => self.string(2, bytes, wrong),
            Value::Text(text) => self.string(3, text.as_bytes(), wrong),
            Value::Array(items) => items.iter().for_each(|item| self.item(item, around + 1)),
            Value::Map(members) => {
                let mut members = members.clone();
                match wrong {
                    Some(Wrong::KeysOutOfOrder) => members.swap(0, 1),
                    Some(Wrong::KeyTwice) => members.insert(0, members[0].clone()),
                    _ => {}
                }
                for (key, value) in &members {
                    self.item(key, around + 1);
                    self.item(value, around + 1);
                }
            }
            _ => {}
        }
        if wrong == Some(Wrong::IndefiniteLength) {
            self.push(&[0xff]);
        }
    }

    fn string(&mut self, major: u8, bytes: &[u8], wrong: Option<Wrong>) {
        match wrong {
            Some(Wrong::IndefiniteLength) => {
                let length = u64::try_from(bytes.len()).unwrap();
                self.header(major, length, width(length));
                self.push(bytes);
            }
            Some(Wrong::NotUtf8) => self.push(&[&[0xff], &bytes[1..]].concat()),
            _ => self.push(bytes),
        }
    }
}

/// Every item of a request, numbered as [`Encoder`] does.
fn items(request: &Value) -> Vec<Value> {
    let mut all = vec![request.clone()];
    match request {
        Value::Array(inner) => all.extend(inner.iter().flat_map(items)),
        Value::Map(members) => {
            all.extend(members.iter().flat_map(|(key, value)| [items(key), items(value)].concat()));
        }
        _ => {}
    }
    all
}

/// The request with what is at the path replaced, or taken out.
fn replaced(request: &Value, path: &[Value], by: Option<&Value>) -> Value {
    let (first, rest) = path.split_first().unwrap();
    let replace = |value: &Value| {
        if rest.is_empty() { by.cloned() } else { Some(replaced(value, rest, by)) }
    };
    match request {
        Value::Map(members) => {
            assert!(members.iter().any(|(key, _)| key == first), "{first:?}");
            let replace = |(key, value): &(Value, Value)| {
                let value = if key == first { replace(value)? } else { value.clone() };
                Some((key.clone(), value))
            };
            Value::Map(members.iter().filter_map(replace).collect())
        }
        Value::Array(items) => Value::Array(items.iter().filter_map(replace).collect()),
        other => panic!("{other:?} has no members"),
    }
}

fn at<'r>(request: &'r Value, path: &[Value]) -> &'r Value {
    path.iter().fold(request, |value, step| match value {
        Value::Map(members) => &members.iter().find(|(key, _)| key == step).unwrap().1,
        Value::Array(items) => &items[0],
        other => panic!("{other:?} has no members"),
    })
}

/// An item of each type.
fn one_of_each_type() -> Vec<Value> {
    vec![
        1.into(),
        (-1).into(),
        Value::Bytes(vec![1]),
        "x".into(),
        Value::Array(vec![]),
        map([]),
        true.into(),
        Value::Null,
        1.5.into(),
    ]
}

/// Whether one stands where the other may. COSE's algorithm numbers are of either sign, all else counts from zero.
fn same_type(good: &Value, other: &Value) -> bool {
    let sort = |value: &Value| match value {
        Value::Null => 8,
        Value::Float(_) => 9,
        // Majors 0 and 1.
        Value::Integer(_) if header(good).0 == 1 => 1,
        value => header(value).0,
    };
    sort(good) == sort(other)
}

/// Paths, one a word: integer and text keys, 0 for an array's element.
fn paths(words: &str) -> Vec<Vec<Value>> {
    let step = |step: &str| step.parse::<i64>().map_or_else(|_| step.into(), Value::from);
    words.split_whitespace().map(|path| path.split('/').map(step).collect()).collect()
}

/// Parameters and their types: §6.1, §6.2, §6.5.5 and §6.8, each with a proof that is none, so that nothing happens.
fn good(key_agreement: &Platform) -> Vec<Good> {
    let (bytes, public) = (|n: usize| Value::Bytes(vec![7; n]), key_agreement.public.clone());
    let user =
        map([("id".into(), bytes(8)), ("name".into(), "alice".into()), ("displayName".into(), "A".into())]);
    let es256 = map([("alg".into(), (-7).into()), ("type".into(), "public-key".into())]);
    let make = map([
        (1.into(), bytes(32)),
        (2.into(), map([("id".into(), RP.into()), ("name".into(), "Example".into())])),
        (3.into(), user.clone()),
        (4.into(), Value::Array(vec![es256])),
        (5.into(), Value::Array(vec![descriptor(&[7; 32])])),
        (6.into(), options_of("credProtect", 2)),
        (7.into(), options("rk", true)),
        (8.into(), bytes(32)),
        (9.into(), 2.into()),
        (11.into(), Value::Array(vec!["packed".into()])),
    ]);
    let get = map([
        (1.into(), RP.into()),
        (2.into(), bytes(32)),
        (3.into(), Value::Array(vec![descriptor(&[7; 32])])),
        (5.into(), options("up", true)),
        (6.into(), bytes(32)),
        (7.into(), 2.into()),
    ]);
    let proven = |subcommand, parameters| {
        with(&with(&manage(subcommand, parameters), 3, Value::from(2)), 4, bytes(32))
    };
    let which = map([(2.into(), descriptor(&[7; 32]))]);
    let with_key = |subcommand| with(&client_pin(2, subcommand), 3, public.clone());
    let pin = |subcommand, more: &[(i64, usize)]| {
        more.iter().fold(with_key(subcommand), |request, (key, length)| with(&request, *key, bytes(*length)))
    };
    let scoped = with(&with(&pin(9, &[(6, 17)]), 9, Value::from(2)), 10, Value::from(RP));
    let by_prompt = with(&with(&with_key(6), 9, Value::from(2)), 10, Value::from(RP));
    let case = |name, command, request, status, required, optional| Good {
        name,
        command,
        request,
        status,
        required: paths(required),
        optional: paths(optional),
    };
    let config = proven(3, Some(map([(1.into(), 8.into())])));
    let blobs = map([
        (2.into(), bytes(20)),
        (3.into(), 0.into()),
        (4.into(), 20.into()),
        (5.into(), bytes(32)),
        (6.into(), 2.into()),
    ]);
    vec![
        case("authenticatorConfig", 0x0d, config, PIN_AUTH_INVALID, "1 3", "2 4"),
        // Without an offset it is CTAP1_ERR_INVALID_PARAMETER (§6.10.2).
        case("largeBlobs", 0x0c, blobs, PIN_AUTH_INVALID, "6", "2 3 4 5"),
        case(
            "makeCredential",
            0x01,
            make,
            PIN_AUTH_INVALID,
            "1 2 2/id 3 3/id 4 4/0/alg 4/0/type 5/0/id 5/0/type 9",
            "2/name 3/name 3/displayName 4/0 5 5/0 6 6/credProtect 7 7/rk 8 11 11/0",
        ),
        case("getAssertion", 0x02, get, PIN_AUTH_INVALID, "1 2 3/0/id 3/0/type 7", "3 3/0 5 5/up 6"),
        case("getKeyAgreement", 0x06, client_pin(2, 2), 0, "1 2", ""),
        case("setPIN", 0x06, pin(3, &[(4, 32), (5, 80)]), PIN_AUTH_INVALID, "1 2 3 4 5", ""),
        case("changePIN", 0x06, pin(4, &[(4, 32), (5, 80), (6, 32)]), PIN_AUTH_INVALID, "1 2 3 4 5 6", ""),
        case("getPinToken", 0x06, pin(5, &[(6, 17)]), PIN_AUTH_INVALID, "1 2 3 6", ""),
        case("getPinUvAuthTokenUsingUv", 0x06, by_prompt, 0, "1 2 3 9 10", ""),
        case("getPinUvAuthTokenUsingPin", 0x06, scoped, PIN_AUTH_INVALID, "1 2 3 6 9 10", ""),
        case("getCredsMetadata", 0x0a, proven(1, None), PIN_AUTH_INVALID, "1 3", "4"),
        case("enumerateRPs", 0x0a, proven(2, None), PIN_AUTH_INVALID, "1 3", "4"),
        case(
            "enumerateCredentials",
            0x0a,
            proven(4, Some(map([(1.into(), bytes(32))]))),
            PIN_AUTH_INVALID,
            "1 2 2/1 3",
            "4",
        ),
        case(
            "deleteCredential",
            0x0a,
            proven(6, Some(which.clone())),
            PIN_AUTH_INVALID,
            "1 2 2/2 2/2/id 3",
            "4",
        ),
        case(
            "updateUserInformation",
            0x0a,
            proven(7, Some(with(&which, 3, user))),
            PIN_AUTH_INVALID,
            "1 2 2/2 2/2/id 2/3 2/3/id 3",
            "2/3/name 2/3/displayName 4",
        ),
    ]
}

fn options_of(name: &str, value: u64) -> Value {
    map([(name.into(), value.into())])
}

/// Every malformed variant of one request: what it is, its bytes, and the status code for it.
fn malformed(good: &Good) -> Vec<(String, Vec<u8>, u8)> {
    let mut all = Vec::new();
    for (n, item) in items(&good.request).iter().enumerate() {
        for wrong in WRONGS.into_iter().filter(|wrong| wrong.applies(item)) {
            // No bytes at all are no parameters; of large blobs that says that there is no offset (§6.10.2).
            let status = match (n, wrong, good.command) {
                (0, Wrong::Cut, 0x0c) => INVALID_PARAMETER,
                (0, Wrong::Cut, _) => MISSING_PARAMETER,
                _ => INVALID_CBOR,
            };
            let bytes = Encoder::encode(&good.request, Some((n, wrong)));
            all.push((format!("{wrong:?} at item {n}, {item:?}"), bytes, status));
        }
    }
    let whole = Encoder::encode(&good.request, None);
    for behind in [0x00, 0x60, 0xa0, 0xf6, 0xff] {
        all.push((format!("{behind:#04x} behind it"), [&whole[..], &[behind]].concat(), INVALID_CBOR));
    }
    for other in one_of_each_type().iter().filter(|other| !same_type(&good.request, other)) {
        all.push((format!("{other:?} for its map"), platform::encoded(other), UNEXPECTED_TYPE));
    }
    for path in &good.required {
        let without = replaced(&good.request, path, None);
        all.push((format!("without {path:?}"), platform::encoded(&without), MISSING_PARAMETER));
    }
    for path in good.required.iter().chain(&good.optional) {
        for other in one_of_each_type().iter().filter(|other| !same_type(at(&good.request, path), other)) {
            let bytes = platform::encoded(&replaced(&good.request, path, Some(other)));
            all.push((format!("{other:?} as {path:?}"), bytes, UNEXPECTED_TYPE));
        }
    }
    all
}

#[test]
fn every_malformed_message_has_its_status_code_and_none_does_anything() {
    let tpm = TestTpm::start().unwrap();
    let passhold = Passhold::with_vault(&tpm);
    let device = Device::start(&passhold.vault(), &tpm.tcti(), PIN);
    let (site, client) = (Site::connect(&device), HidClient::connect(&device.socket()));
    let ask = |command: u8, parameters: &[u8]| {
        let (kind, answer) = client.call(0x10, &[&[command][..], parameters].concat());
        assert_eq!(kind, 0x10, "{answer:02x?}");
        answer
    };
    let (mut wrong, mut codes) = (Vec::new(), BTreeMap::<u8, usize>::new());
    for good in good(&site.platform().unwrap()) {
        let whole = Encoder::encode(&good.request, None);
        assert_eq!(whole, platform::encoded(&good.request), "our encoder errs where nothing is wrong");
        assert_eq!(ask(good.command, &whole)[0], good.status, "{} in good form", good.name);
        for (what, bytes, status) in malformed(&good) {
            let answer = ask(good.command, &bytes);
            if answer != [status] {
                wrong.push(format!("{}, {what}: {answer:02x?} for {status:#04x}", good.name));
            }
            *codes.entry(status).or_default() += 1;
            assert_eq!(ask(0x04, &[])[0], 0, "{}, {what}: no getInfo afterwards", good.name);
        }
    }
    let all: usize = codes.values().sum();
    println!("malformed CBOR: {all} messages, {codes:x?}, {} answered otherwise", wrong.len());
    assert!(all >= 1000);
    assert_eq!(wrong, [""; 0]);
    assert_eq!(site.tries().unwrap(), 8);
    let listed = passhold.call(["--json", "list"]).run().expect_code(0).json();
    assert_eq!(listed.as_array().unwrap().len(), 0);
    device.stop();
}

/// The encoder's own golden bytes.
#[test]
fn the_encoder_makes_the_mistakes_that_it_is_asked_to() {
    let request = map([(1.into(), "ab".into()), (2.into(), Value::Array(vec![true.into()]))]);
    for (at, wrong, bytes) in [
        (0, Wrong::KeysOutOfOrder, &[0xa2, 2, 0x81, 0xf5, 1, 0x62, b'a', b'b'][..]),
        (0, Wrong::KeyTwice, &[0xa3, 1, 0x62, b'a', b'b', 1, 0x62, b'a', b'b', 2, 0x81, 0xf5]),
        (0, Wrong::IndefiniteLength, &[0xbf, 1, 0x62, b'a', b'b', 2, 0x81, 0xf5, 0xff]),
        (1, Wrong::Wider(1), &[0xa2, 0x18, 1, 0x62, b'a', b'b', 2, 0x81, 0xf5]),
        (2, Wrong::NotUtf8, &[0xa2, 1, 0x62, 0xff, b'b', 2, 0x81, 0xf5]),
        (2, Wrong::IndefiniteLength, &[0xa2, 1, 0x7f, 0x62, b'a', b'b', 0xff, 2, 0x81, 0xf5]),
        (4, Wrong::Cut, &[0xa2, 1, 0x62, b'a', b'b', 2]),
        (4, Wrong::TooLong, &[0xa2, 1, 0x62, b'a', b'b', 2, 0x99, 0x13, 0x89, 0xf5]),
        // A map, an array, and three arrays in it.
        (5, Wrong::TooDeep, &[0xa2, 1, 0x62, b'a', b'b', 2, 0x81, 0x81, 0x81, 0x80]),
        (5, Wrong::Wider(1), &[0xa2, 1, 0x62, b'a', b'b', 2, 0x81, 0xf8, 21]),
    ] {
        assert_eq!(Encoder::encode(&request, Some((at, wrong))), bytes, "{wrong:?}");
    }
    assert_eq!(items(&request).len(), 6);
}
