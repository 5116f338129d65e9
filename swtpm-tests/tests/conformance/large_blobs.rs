//! §6.10.

use std::time::Duration;

use ciborium::Value;
use ctap::Status;
use sha2::{Digest, Sha256};

use super::{Bench, Token, Vaults, map, member, with};

const COMMAND: u8 = 0x0c;
const WRITE: u8 = 0x10;
/// What getInfo says: the longest message, less 64 bytes, and the longest array.
const MAX_FRAGMENT: usize = 7609 - 64;
const CAPACITY: usize = 4096;
/// §6.10.1, of a device that has never been written to.
const EMPTY: [u8; 17] =
    [0x80, 0x76, 0xbe, 0x8b, 0x52, 0x8d, 0x00, 0x75, 0xf7, 0xaa, 0xe9, 0x8d, 0x6f, 0xa5, 0x7a, 0x6d, 0x3c];

/// An array with its checksum: `len` bytes.
fn number(n: usize) -> Value {
    u64::try_from(n).unwrap().into()
}

fn array(len: usize, fill: u8) -> Vec<u8> {
    let content = vec![fill; len - 16];
    [content.as_slice(), &Sha256::digest(&content)[..16]].concat()
}

fn get(count: usize, offset: usize) -> Value {
    map([(1.into(), number(count)), (3.into(), number(offset))])
}

fn set(fragment: &[u8], offset: usize, length: Option<usize>) -> Value {
    let request = map([(2.into(), Value::Bytes(fragment.to_vec())), (3.into(), number(offset))]);
    with(&request, 4, length.map(number))
}

fn writer(bench: &mut Bench) -> Token {
    bench.token(2, WRITE, None)
}

fn read(bench: &mut Bench, count: usize, offset: usize) -> Vec<u8> {
    let reply = bench.ok(COMMAND, &get(count, offset));
    assert_eq!(reply.as_map().unwrap().len(), 1);
    member(&reply, 1).unwrap().as_bytes().unwrap().clone()
}

/// Writes an array in fragments of this size.
fn write(bench: &mut Bench, token: &Token, array: &[u8], size: usize) {
    for (n, fragment) in array.chunks(size).enumerate() {
        let length = (n == 0).then_some(array.len());
        let reply = bench.ok(COMMAND, &token.write(&set(fragment, n * size, length)));
        assert_eq!(reply, Value::Null);
    }
}

#[test]
fn what_neither_reads_nor_writes_is_refused() {
    let mut bench = Bench::new();
    let read = get(17, 0);
    let written = set(&array(20, 1), 0, Some(20));
    let mut refuses = |step: &str, request: &Value, status| bench.refuses(step, COMMAND, request, status);
    for request in [&read, &written] {
        refuses("6.10.2 step 1", &with(request, 3, None), Status::InvalidParameter);
    }
    refuses("6.10.2 step 1", &map([]), Status::InvalidParameter);
    refuses("6.10.2 step 2", &map([(3.into(), 0.into())]), Status::InvalidParameter);
    refuses("6.10.2 step 3", &with(&written, 1, Value::from(1)), Status::InvalidParameter);
    for key in [1, 3] {
        refuses("of another kind", &with(&read, key, Value::from(true)), Status::CborUnexpectedType);
        refuses("negative", &with(&read, key, Value::from(-1)), Status::CborUnexpectedType);
    }
    for key in [2, 3, 4, 5, 6] {
        refuses("of another kind", &with(&written, key, Value::from(true)), Status::CborUnexpectedType);
    }
}

#[test]
fn reading_refuses() {
    let mut bench = Bench::new();
    let good = get(17, 0);
    let mut refuses = |step: &str, request: &Value, status| bench.refuses(step, COMMAND, request, status);
    refuses("6.10.2 step 4.1", &with(&good, 4, Value::from(17)), Status::InvalidParameter);
    refuses("6.10.2 step 4.2", &with(&good, 5, Value::Bytes(vec![0; 32])), Status::InvalidParameter);
    refuses("6.10.2 step 4.2, a protocol alone", &with(&good, 6, Value::from(2)), Status::InvalidParameter);
    refuses("6.10.2 step 4.3", &get(MAX_FRAGMENT + 1, 0), Status::InvalidLength);
    refuses("6.10.2 step 4.3", &with(&good, 1, Value::from(u64::MAX)), Status::InvalidLength);
    refuses("6.10.2 step 4.4", &get(1, 18), Status::InvalidParameter);
    refuses("6.10.2 step 4.4", &with(&good, 3, Value::from(u64::MAX)), Status::InvalidParameter);
}

#[test]
fn an_array_that_was_never_written_is_empty_with_and_without_a_vault() {
    for mut bench in [Bench::without_vault(), Bench::new()] {
        assert_eq!(read(&mut bench, MAX_FRAGMENT, 0), EMPTY);
        assert_eq!(read(&mut bench, 3, 0), EMPTY[..3]);
        assert_eq!(read(&mut bench, 30, 3), EMPTY[3..]);
        assert_eq!(read(&mut bench, 0, 3), [0; 0]);
        assert_eq!(read(&mut bench, 1, 17), [0; 0], "6.10.2 step 4.5: the end is no error");
        assert_eq!(bench.person.asked, [""; 0]);
    }
}

#[test]
fn writing_refuses() {
    let mut bench = Bench::new();
    let token = writer(&mut bench);
    let whole = array(100, 1);
    let first = set(&whole[..60], 0, Some(100));
    let mut refuses = |step: &str, request: &Value, status| bench.refuses(step, COMMAND, request, status);
    let long = set(&vec![0; MAX_FRAGMENT + 1], 0, Some(CAPACITY));
    refuses("6.10.2 step 5.1", &long, Status::InvalidLength);
    refuses("6.10.2 step 5.2.1", &token.write(&set(&whole, 0, None)), Status::InvalidParameter);
    for length in [CAPACITY + 1, usize::MAX] {
        let request = token.write(&set(&whole, 0, Some(length)));
        refuses("6.10.2 step 5.2.2", &request, Status::LargeBlobStorageFull);
    }
    for length in [0, 1, 16] {
        let request = token.write(&set(&whole[..length], 0, Some(length)));
        refuses("6.10.2 step 5.2.3", &request, Status::InvalidParameter);
    }
    refuses("6.10.2 step 5.3.1", &token.write(&set(&whole[60..], 60, Some(100))), Status::InvalidParameter);
    refuses("6.10.2 step 5.4", &token.write(&set(&whole[60..], 60, None)), Status::InvalidSeq);
    refuses("6.10.2 step 5.4", &with(&first, 3, Value::from(u64::MAX)), Status::InvalidParameter);
    let far = with(&with(&first, 3, Value::from(u64::MAX)), 4, None);
    refuses("6.10.2 step 5.4", &far, Status::InvalidSeq);
    refuses("6.10.2 step 5.5.1", &first, Status::PuatRequired);
    let good = token.write(&first);
    refuses("6.10.2 step 5.5.2", &with(&good, 6, None), Status::MissingParameter);
    refuses("6.10.2 step 5.5.3", &with(&good, 6, Value::from(3)), Status::InvalidParameter);
    refuses(
        "6.10.2 step 5.5.4, of another protocol",
        &with(&good, 6, Value::from(1)),
        Status::PinAuthInvalid,
    );
    for forged in [vec![], vec![0; 16], vec![0; 32]] {
        refuses("6.10.2 step 5.5.4, forged", &with(&good, 5, Value::Bytes(forged)), Status::PinAuthInvalid);
    }
    let other = with(&good, 2, Value::Bytes(whole[40..].to_vec()));
    refuses("6.10.2 step 5.5.4, of another fragment", &other, Status::PinAuthInvalid);
    let bare = token.prove(&first, (5, 6), &Sha256::digest(&whole[..60]));
    refuses("6.10.2 step 5.5.4, of a message without its head", &bare, Status::PinAuthInvalid);
    let more = token.write(&set(&whole, 0, Some(99)));
    refuses("6.10.2 step 5.6", &more, Status::InvalidParameter);
    let broken = [&whole[..99], &[whole[99] ^ 1]].concat();
    refuses("6.10.2 step 5.11.1", &token.write(&set(&broken, 0, Some(100))), Status::IntegrityFailure);
    bench.now += Duration::from_secs(600);
    bench.refuses("6.10.2 step 5.5.4, expired", COMMAND, &good, Status::PinAuthInvalid);
    assert_eq!(read(&mut bench, 100, 0), EMPTY);
}

#[test]
fn only_the_permission_to_write_writes() {
    let mut bench = Bench::new();
    let request = set(&array(20, 1), 0, Some(20));
    for permissions in [0x01, 0x02, 0x04, 0x20, 0x27, 0x40] {
        let token = bench.token(1, permissions, Some("example.org"));
        bench.refuses("6.10.2 step 5.5.5", COMMAND, &token.write(&request), Status::PinAuthInvalid);
    }
    assert_eq!(read(&mut bench, 100, 0), EMPTY);
    for (protocol, permissions) in [(1, 0x10), (2, 0x12), (2, 0x37)] {
        let token = bench.token(protocol, permissions, Some("example.org"));
        bench.ok(COMMAND, &token.write(&request));
    }
    let mut bench = Bench::without_vault();
    bench.refuses("6.10.2 step 5.5.1, no vault", COMMAND, &request, Status::PuatRequired);
    let forged = with(&with(&request, 5, Value::Bytes(vec![0; 32])), 6, Value::from(2));
    bench.refuses("6.10.2 step 5.5.4, no vault", COMMAND, &forged, Status::PinAuthInvalid);
}

#[test]
fn an_array_of_any_length_is_written_and_read_in_fragments_of_any_length() {
    let mut bench = Bench::new();
    for (length, sizes) in [(17, vec![1, 16, 17]), (100, vec![7, 99]), (CAPACITY, vec![1000, CAPACITY])] {
        for (n, size) in sizes.into_iter().enumerate() {
            let array = array(length, u8::try_from(n).unwrap());
            let token = writer(&mut bench);
            write(&mut bench, &token, &array, size);
            for size in [size, MAX_FRAGMENT] {
                let mut read_back: Vec<u8> = Vec::new();
                loop {
                    let fragment = read(&mut bench, size, read_back.len());
                    read_back.extend(&fragment);
                    if fragment.len() < size {
                        break;
                    }
                }
                assert_eq!(read_back, array, "{length} bytes by {size}");
            }
        }
    }
}

#[test]
fn an_array_that_does_not_come_whole_and_in_order_leaves_the_old_one() {
    let mut bench = Bench::new();
    let old = array(200, 1);
    let token = writer(&mut bench);
    write(&mut bench, &token, &old, 200);
    let new = array(300, 2);
    let part = |from: usize, to| token.write(&set(&new[from..to], from, (from == 0).then_some(300)));

    bench.ok(COMMAND, &part(0, 100));
    bench.refuses("6.10.2 step 5.4, one left out", COMMAND, &part(200, 300), Status::InvalidSeq);
    bench.refuses("6.10.2 step 5.4, and then no more", COMMAND, &part(100, 200), Status::InvalidSeq);
    bench.ok(COMMAND, &part(0, 100));
    bench.ok(COMMAND, &part(100, 200));
    bench.refuses("6.10.2 step 5.4, twice", COMMAND, &part(100, 200), Status::InvalidSeq);

    bench.ok(COMMAND, &part(0, 100));
    assert_eq!(read(&mut bench, MAX_FRAGMENT, 0), old, "what has not come whole is not read");
    bench.refuses("6.10.2, after a reading", COMMAND, &part(100, 300), Status::InvalidSeq);
    bench.ok(COMMAND, &part(0, 100));
    bench.ok(0x04, &map([]));
    bench.refuses("6.10.2, after another command", COMMAND, &part(100, 300), Status::InvalidSeq);
    bench.ok(COMMAND, &part(0, 100));
    bench.now += Duration::from_secs(30);
    bench.refuses("6.10.2, after 30 seconds", COMMAND, &part(100, 300), Status::InvalidSeq);
    bench.ok(COMMAND, &part(0, 100));
    bench.authenticator.lock();
    bench.refuses("6.10.2, locked", COMMAND, &part(100, 300), Status::InvalidSeq);

    let token = writer(&mut bench);
    let part = |from: usize, to| token.write(&set(&new[from..to], from, (from == 0).then_some(300)));
    bench.ok(COMMAND, &part(0, 100));
    let beyond = token.write(&set(&[0; 201], 100, None));
    bench.refuses("6.10.2 step 5.6, later", COMMAND, &beyond, Status::InvalidParameter);
    bench.ok(COMMAND, &part(0, 100));
    let unproven = set(&new[100..], 100, None);
    bench.refuses("6.10.2 step 5.5.1, later", COMMAND, &unproven, Status::PuatRequired);
    bench.ok(COMMAND, &part(0, 100));
    let broken = token.write(&set(&[0; 200], 100, None));
    bench.refuses("6.10.2 step 5.11.1, later", COMMAND, &broken, Status::IntegrityFailure);
    assert_eq!(read(&mut bench, MAX_FRAGMENT, 0), old);
    // Slowly is well.
    bench.ok(COMMAND, &part(0, 100));
    bench.now += Duration::from_secs(29);
    bench.ok(COMMAND, &part(100, 200));
    bench.now += Duration::from_secs(29);
    bench.ok(COMMAND, &part(200, 300));
    assert_eq!(read(&mut bench, MAX_FRAGMENT, 0), new);
}

#[test]
fn an_array_outlives_the_authenticator_the_pin_and_the_passkeys_but_no_reset() {
    let mut bench = Bench::new();
    let array = array(500, 1);
    let token = writer(&mut bench);
    write(&mut bench, &token, &array, 500);
    bench.restart();
    assert_eq!(read(&mut bench, MAX_FRAGMENT, 0), array);
    bench.passkey("alice");
    bench.change_pin_at_the_terminal(super::WRONG);
    assert_eq!(read(&mut bench, MAX_FRAGMENT, 0), array);
    assert_eq!(bench.raw(&[0x07]), [0]);
    assert_eq!(read(&mut bench, MAX_FRAGMENT, 0), EMPTY);
    bench.vault.set_up(&super::pin(super::PIN)).unwrap();
    assert_eq!(read(&mut bench, MAX_FRAGMENT, 0), EMPTY);
}

#[test]
fn a_token_writes_after_its_ceremony_and_does_nothing_else_then() {
    let mut bench = Bench::new();
    bench.passkey("alice");
    let whole = array(20, 1);
    let client_data = super::make_credential::CLIENT_DATA;
    for (command, permissions, request, proof) in [
        (0x02, 0x12, super::get_assertion::request(), (6, 7)),
        (0x01, 0x11, super::make_credential::request(), (8, 9)),
    ] {
        let token = bench.token(2, permissions | 0x20, Some("example.org"));
        let ceremony = token.prove(&request, proof, &client_data);
        bench.ok(command, &ceremony);
        bench.refuses("6.1.2 step 14, 6.2.2 step 9", command, &ceremony, Status::PinAuthInvalid);
        let config = token.configure(&super::set_min_pin_length(map([])));
        bench.refuses("6.11", 0x0d, &config, Status::PinAuthInvalid);
        bench.ok(COMMAND, &token.write(&set(&whole, 0, Some(20))));
        // A ceremony of another kind ends nothing of it, and it ends in its time.
        bench.now += Duration::from_secs(600);
        let late = token.write(&set(&whole, 0, Some(20)));
        bench.refuses("6.5.2.1, 10 minutes", COMMAND, &late, Status::PinAuthInvalid);
    }
}

#[test]
fn a_write_with_the_pin_of_yesterday_is_refused_and_costs_one_try() {
    let mut bench = Bench::new();
    let token = writer(&mut bench);
    bench.change_pin_at_the_terminal(super::WRONG);
    let request = token.write(&set(&array(20, 1), 0, Some(20)));
    for _ in 0..9 {
        bench.refuses("the PIN was changed elsewhere", COMMAND, &request, Status::PinAuthInvalid);
    }
    let retries = bench.ok(0x06, &super::client_pin(2, 1));
    assert_eq!(member(&retries, 3), Some(&7.into()));
    assert_eq!(read(&mut bench, MAX_FRAGMENT, 0), EMPTY);
}
