//! What makes, changes or destroys is refused without presence, with a token for something else, on a channel that is nobody's,
//! too late, and for another relying party; and then nothing has changed.

use std::{path::Path, time::Duration};

use ciborium::Value;
use ctap::{
    Declined, Status, Vaults,
    hid::{Hid, Output, Packet},
};
use rusqlite::{Connection, types::Value as SqlValue};
use sha2::{Digest, Sha256};
use swtpm_tests::PIN;

use super::{
    Bench, Platform, Token, WRONG, descriptor, encoded, get_assertion, make_credential, map, member, options,
    platform::manage, with,
};

const MAKE: u8 = 0x01;
const CLIENT_PIN: u8 = 0x06;
const RESET: u8 = 0x07;
const MANAGE: u8 = 0x0a;
const LARGE_BLOBS: u8 = 0x0c;
const CONFIG: u8 = 0x0d;

/// A command that a token allows.
struct ByToken {
    name: &'static str,
    command: u8,
    request: Value,
    permission: u8,
}

impl ByToken {
    fn all(id: &[u8]) -> [Self; 5] {
        let user = map([("id".into(), Value::Bytes(b"alice".to_vec())), ("name".into(), "new".into())]);
        let which = |more: Option<Value>| Some(with(&map([(2.into(), descriptor(id))]), 3, more));
        let managing = |name, request| Self { name, command: MANAGE, request, permission: 0x04 };
        [
            Self { name: "makeCredential", command: MAKE, request: new("eve"), permission: 0x01 },
            managing("deleteCredential", manage(6, which(None))),
            managing("updateUserInformation", manage(7, which(Some(user)))),
            Self { name: "largeBlobs", command: LARGE_BLOBS, request: large_blobs(), permission: 0x10 },
            Self { name: "setMinPINLength", command: CONFIG, request: min_pin_length(), permission: 0x20 },
        ]
    }

    /// Whether it is about a relying party.
    fn has_rp_id(&self) -> bool {
        ![LARGE_BLOBS, CONFIG].contains(&self.command)
    }

    /// Where `pinUvAuthProtocol` stands.
    fn protocol_key(&self) -> i64 {
        match self.command {
            MAKE => 9,
            LARGE_BLOBS => 6,
            _ => 3,
        }
    }

    fn proven(&self, token: &Token) -> Value {
        match self.command {
            MAKE => token.prove(&self.request, (8, 9), &make_credential::CLIENT_DATA),
            MANAGE => token.manage(&self.request),
            // §6.10.2, §6.11.
            LARGE_BLOBS => {
                let written = Sha256::digest(bytes(member(&self.request, 2)));
                token.prove(
                    &self.request,
                    (5, 6),
                    &[&[0xff; 32][..], &[0x0c, 0, 0, 0, 0, 0], &written].concat(),
                )
            }
            _ => {
                let parameters = encoded(member(&self.request, 2).unwrap());
                token.prove(&self.request, (4, 3), &[&[0xff; 32][..], &[0x0d, 3], &parameters].concat())
            }
        }
    }

    /// What proves the same of another verb.
    fn proven_of_another(&self, token: &Token) -> Value {
        if !self.has_rp_id() {
            // As credential management has it, for the same subcommand.
            let managed = token.manage(&with(&self.request, 1, Value::from(3)));
            let proof = member(&managed, 4).cloned();
            return with(&self.proven(token), if self.command == CONFIG { 4 } else { 5 }, proof);
        }
        let other = match member(&self.request, 1).unwrap().as_integer() {
            // Without what the client data binds, a proof of the whole request is one of nothing.
            None => return token.prove(&self.request, (8, 9), &encoded(&self.request)),
            Some(number) => {
                if number == 6.into() {
                    7
                } else {
                    6
                }
            }
        };
        let proven = token.manage(&with(&self.request, 1, Value::from(other)));
        with(&proven, 1, member(&self.request, 1).cloned())
    }

    /// Why it is refused.
    fn refused(&self, bench: &mut Bench, what: &str, request: &Value, status: Status) {
        unchanged(bench, &format!("{}: {what}", self.name), self.command, &encoded(request), status);
    }
}

/// A request for a discoverable passkey of this user.
fn new(user: &str) -> Value {
    let request = with(&make_credential::request(), 7, options("rk", true));
    with(&request, 3, map([("id".into(), Value::Bytes(user.as_bytes().to_vec()))]))
}

/// The empty array of large blobs, whole (§6.10.1).
fn large_blobs() -> Value {
    let array = [&[0x80][..], &Sha256::digest([0x80])[..16]].concat();
    map([(2.into(), Value::Bytes(array)), (3.into(), 0.into()), (4.into(), 17.into())])
}

/// Who is told how long PINs are.
fn min_pin_length() -> Value {
    map([(1.into(), 3.into()), (2.into(), map([(2.into(), Value::Array(vec!["example.net".into()]))]))])
}

/// A vault with a passkey, and its ID.
fn bench() -> (Bench, Vec<u8>) {
    let mut bench = Bench::new();
    let made = bench.ok(MAKE, &new("alice"));
    let id = member(&made, 2).unwrap().as_bytes().unwrap()[55..87].to_vec();
    (bench, id)
}

/// Everything in the file but the log, which says what was refused.
fn rows(file: &Path) -> Vec<String> {
    let db = Connection::open(file).unwrap();
    let tables = ["passkey", "used", "tries", "tree"].map(|table| format!("SELECT * FROM {table}"));
    let header = "SELECT vault_id, state, anchor, kind, generation, root, settings FROM header".to_owned();
    let mut rows = Vec::new();
    for query in tables.into_iter().chain([header]) {
        let mut query = db.prepare(&query).unwrap();
        let columns = query.column_count();
        let values = query.query_map([], |row| {
            (0..columns).map(|column| row.get::<_, SqlValue>(column)).collect::<Result<Vec<_>, _>>()
        });
        rows.extend(values.unwrap().map(|values| format!("{values:?}", values = values.unwrap())));
    }
    rows
}

/// Refused so, and the vault is as it was: its file, and the tries in the TPM.
fn unchanged(bench: &mut Bench, what: &str, command: u8, parameters: &[u8], status: Status) {
    let state = |bench: &mut Bench| {
        let tries = bench.vault.exist().then(|| bench.vault.open().unwrap().tries_left().unwrap());
        let file = bench.vault.dir.join("vault.db");
        (file.exists().then(|| rows(&file)), tries)
    };
    let before = state(bench);
    let reply = bench.raw(&[&[command][..], parameters].concat());
    assert_eq!(reply, [status.code()], "{what}");
    assert!(state(bench) == before, "{what}: something has changed");
}

#[test]
fn without_the_right_token_nothing_is_made_changed_or_deleted() {
    let (mut bench, id) = bench();
    for protocol in [1, 2] {
        for case in ByToken::all(&id) {
            let (right, org) = (case.permission, Some("example.org"));
            let wrong = [0x01, 0x02, 0x04, 0x10, 0x20, 0x37 & !right].into_iter().filter(|p| p & right == 0);
            for permissions in wrong {
                let token = bench.token(protocol, permissions, org);
                let what = format!("permissions {permissions:#x}");
                case.refused(&mut bench, &what, &case.proven(&token), Status::PinAuthInvalid);
            }
            let others = ["example.com", "org", "a.example.org", "EXAMPLE.ORG"];
            for elsewhere in others.into_iter().filter(|_| case.has_rp_id()) {
                let token = bench.token(protocol, right, Some(elsewhere));
                case.refused(&mut bench, elsewhere, &case.proven(&token), Status::PinAuthInvalid);
            }

            let token = bench.token(protocol, right, org);
            let of_another = case.proven_of_another(&token);
            case.refused(&mut bench, "another verb", &of_another, Status::PinAuthInvalid);
            let mixed = with(&case.proven(&token), case.protocol_key(), Value::from(3 - protocol));
            case.refused(&mut bench, "the other protocol", &mixed, Status::PinAuthInvalid);
            // The right one, if it was in time.
            bench.now += Duration::from_secs(30);
            case.refused(&mut bench, "never used", &case.proven(&token), Status::PinAuthInvalid);

            let token = bench.token(protocol, right | 0x02, org);
            let silent = with(&get_assertion::request(), 5, options("up", false));
            bench.ok(0x02, &token.prove(&silent, (6, 7), &make_credential::CLIENT_DATA));
            bench.now += Duration::from_secs(600);
            case.refused(&mut bench, "too old", &case.proven(&token), Status::PinAuthInvalid);

            let token = bench.token(protocol, right | 0x02, org);
            bench.ok(0x02, &token.prove(&get_assertion::request(), (6, 7), &make_credential::CLIENT_DATA));
            // §6.5.2.1: it clears all permissions but that of large blobs.
            if case.command != LARGE_BLOBS {
                case.refused(
                    &mut bench,
                    "presence has spent it",
                    &case.proven(&token),
                    Status::PinAuthInvalid,
                );
            }

            let older = bench.token(protocol, right, org);
            bench.token(protocol, right, org);
            case.refused(&mut bench, "there is a newer one", &case.proven(&older), Status::PinAuthInvalid);

            let token = bench.token(protocol, right, org);
            bench.authenticator.lock();
            case.refused(&mut bench, "locked", &case.proven(&token), Status::PinAuthInvalid);

            let token = bench.token(protocol, right, org);
            bench.restart();
            case.refused(&mut bench, "of an earlier start", &case.proven(&token), Status::PinAuthInvalid);
        }
    }
}

#[test]
fn without_presence_nothing_is_made_changed_or_destroyed() {
    let (mut bench, id) = bench();
    for (declined, status) in [
        (Declined::No, Status::OperationDenied),
        (Declined::TimedOut, Status::UserActionTimeout),
        (Declined::Cancelled, Status::KeepaliveCancel),
    ] {
        // Within a ceremony nobody answering is a refusal.
        let in_ceremony = if declined == Declined::TimedOut { Status::OperationDenied } else { status };
        let [make, others @ ..] = ByToken::all(&id);
        let token = bench.token(2, 0x01, Some("example.org"));
        let platform = bench.platform(2);
        bench.person.answer = Err(declined);
        unchanged(&mut bench, "reset", RESET, &[], status);
        make.refused(&mut bench, "its presence", &make.proven(&token), in_ceremony);
        make.refused(&mut bench, "by our prompt", &make.request, status);
        // The others ask for none but that of whoever gets their token; without it there is none.
        for case in others {
            let request = encoded(&platform.token_using_uv(case.permission, None));
            unchanged(&mut bench, case.name, CLIENT_PIN, &request, status);
            case.refused(&mut bench, "without a token", &case.request, Status::PuatRequired);
        }
        bench.person.answer = Ok(());
    }
}

/// The two that no token allows: the PIN itself does.
#[test]
fn no_pin_is_set_or_changed_without_the_old_one_and_a_proof_of_that_very_change() {
    let (mut bench, _) = bench();
    for protocol in [1, 2] {
        let platform = bench.platform(protocol);
        let padded = platform.padded(WRONG.as_bytes());
        let set = platform.set_pin(&padded);
        let change = platform.change_pin(PIN, WRONG);
        let refused = |bench: &mut Bench, what: &str, request: &Value, status| {
            unchanged(bench, what, CLIENT_PIN, &encoded(request), status);
        };
        refused(&mut bench, "setPIN where there is one", &set, Status::PinAuthInvalid);
        let as_set = with(&change, 4, member(&set, 4).cloned());
        refused(&mut bench, "changePIN with setPIN's proof", &as_set, Status::PinAuthInvalid);
        let other = platform.change_pin(PIN, "another 2718");
        let swapped = with(&change, 5, member(&other, 5).cloned());
        refused(&mut bench, "another new PIN", &swapped, Status::PinAuthInvalid);
        let mixed = with(&change, 1, Value::from(3 - protocol));
        refused(&mut bench, "the other protocol", &mixed, Status::PinAuthInvalid);
        let token = bench.token(protocol, 0x07, Some("example.org"));
        let by_token =
            token.prove(&change, (4, 1), &[member(&change, 5), member(&change, 6)].map(bytes).concat());
        refused(&mut bench, "a token's proof", &by_token, Status::PinAuthInvalid);

        // A wrong old PIN costs a try, which the file counts too, and the key with which it was sent.
        let wrong = platform.change_pin(WRONG, "another 2718");
        let passkeys = format!("{:?}", bench.vault.open().unwrap().accounts().unwrap());
        assert_eq!(bench.call(CLIENT_PIN, &wrong).0, Status::PinInvalid.code());
        assert_eq!(format!("{:?}", bench.vault.open().unwrap().accounts().unwrap()), passkeys);
        refused(&mut bench, "a key of before", &change, Status::PinAuthInvalid);
        bench.restart();
        refused(&mut bench, "a key of an earlier start", &change, Status::PinAuthInvalid);
        bench.token(protocol, 0x04, None);
    }
}

fn bytes(value: Option<&Value>) -> Vec<u8> {
    value.unwrap().as_bytes().unwrap().clone()
}

/// What is said on a channel that is not the speaker's never comes to be a request.
#[test]
fn on_a_wrong_channel_nothing_is_even_asked() {
    let (mut bench, id) = bench();
    let mut requests: Vec<Vec<u8>> = vec![vec![RESET]];
    for case in ByToken::all(&id) {
        let token = bench.token(2, case.permission, Some("example.org"));
        requests.push([&[case.command][..], &encoded(&case.proven(&token))].concat());
    }
    let platform: Platform = bench.platform(2);
    let change = platform.change_pin(PIN, WRONG);
    let set = platform.set_pin(&platform.padded(WRONG.as_bytes()));
    requests.extend([change, set].map(|request| [&[CLIENT_PIN][..], &encoded(&request)].concat()));
    for request in &requests {
        let mut hid = Hid::default();
        let [mine, other] = [(); 2].map(|()| allocate(&mut hid));
        for nobody in [[0; 4], [0xff; 4], [0, 0, 0, 99], [0x80, 0, 0, 1]] {
            assert_eq!(requested(&mut hid, &packets(nobody, request)), Vec::<Vec<u8>>::new());
        }
        let mut whole = packets(mine, request);
        assert_eq!(requested(&mut Hid::default(), &whole), Vec::<Vec<u8>>::new(), "of an earlier start");
        if whole.len() > 1 {
            // The end of it on another channel is not the end of it.
            let last = whole.pop().unwrap();
            let astray = Packet(std::array::from_fn(|at| if at < 4 { other[at] } else { last.0[at] }));
            assert_eq!(requested(&mut hid, &[whole, vec![astray]].concat()), Vec::<Vec<u8>>::new());
            assert_eq!(requested(&mut hid, &[last]), std::slice::from_ref(request));
        } else {
            assert_eq!(requested(&mut hid, &whole), std::slice::from_ref(request));
        }
    }
}

fn allocate(hid: &mut Hid) -> [u8; 4] {
    hid.receive(&packet(&[&[0xff; 4][..], &[0x86, 0, 8], &[7; 8]].concat()), Duration::ZERO);
    let Some(Output::Send(answer)) = hid.poll() else { panic!("no channel") };
    answer.0[15..19].try_into().unwrap()
}

/// A CBOR message on a channel.
fn packets(channel: [u8; 4], message: &[u8]) -> Vec<Packet> {
    let (first, rest) = message.split_at(message.len().min(57));
    let length = u16::try_from(message.len()).unwrap().to_be_bytes();
    let first = packet(&[&channel[..], &[0x90], &length, first].concat());
    let next = (0_u8..).zip(rest.chunks(59)).map(|(n, part)| packet(&[&channel[..], &[n], part].concat()));
    std::iter::once(first).chain(next).collect()
}

fn packet(bytes: &[u8]) -> Packet {
    Packet(std::array::from_fn(|at| bytes.get(at).copied().unwrap_or_default()))
}

/// The requests that the device takes these for.
fn requested(hid: &mut Hid, packets: &[Packet]) -> Vec<Vec<u8>> {
    packets.iter().for_each(|packet| hid.receive(packet, Duration::ZERO));
    let outputs = std::iter::from_fn(|| hid.poll());
    outputs
        .filter_map(|output| if let Output::Request(_, request) = output { Some(request) } else { None })
        .collect()
}

/// The cases above would also be refused if nothing were granted.
#[test]
fn with_everything_right_each_is_granted() {
    let (mut bench, id) = bench();
    let [make, delete, update, blobs, config] = ByToken::all(&id);
    for case in [make, update, delete, blobs, config] {
        let file = bench.vault.dir.join("vault.db");
        let before = rows(&file);
        let token = bench.token(2, case.permission, Some("example.org"));
        bench.ok(case.command, &case.proven(&token));
        assert_ne!(rows(&file), before, "{}", case.name);
    }
    let change = bench.platform(1).change_pin(PIN, WRONG);
    bench.ok(CLIENT_PIN, &change);
    assert_eq!(bench.raw(&[RESET]), [0]);
    let platform = bench.platform(2);
    bench.ok(CLIENT_PIN, &platform.set_pin(&platform.padded(PIN.as_bytes())));
}
