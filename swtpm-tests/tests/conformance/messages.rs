//! What is no request (CTAP 2.2 §6 and §8).

use ctap::Status;

use super::{Bench, encoded, make_credential::request, map, with};

#[test]
fn an_empty_message_and_an_unknown_command_are_refused() {
    let mut bench = Bench::without_vault();
    assert_eq!(bench.raw(&[]), [Status::InvalidLength.code()]);
    for command in [0x00, 0x03, 0x05, 0x09, 0x0e, 0x40, 0xff] {
        assert_eq!(bench.raw(&[command]), [Status::InvalidCommand.code()], "{command:#x}");
    }
}

#[test]
fn cbor_that_is_not_canonical_is_refused() {
    let cases: [(&str, &[u8], Status); 24] = [
        ("cut short", &[0xa1], Status::InvalidCbor),
        ("more behind it", &[0xa0, 0x00], Status::InvalidCbor),
        ("no map", &[0x01], Status::CborUnexpectedType),
        ("an array", &[0x80], Status::CborUnexpectedType),
        ("an integer in two bytes that fits one", &[0xa1, 0x18, 0x01, 0x00], Status::InvalidCbor),
        ("in three", &[0xa1, 0x01, 0x19, 0x00, 0x20], Status::InvalidCbor),
        ("in five", &[0xa1, 0x01, 0x1a, 0x00, 0x00, 0x00, 0x20], Status::InvalidCbor),
        ("in nine", &[0xa1, 0x01, 0x1b, 0, 0, 0, 0, 0, 0, 0, 0x20], Status::InvalidCbor),
        ("a length in two bytes that fits one", &[0xa1, 0x01, 0x58, 0x01, 0x00], Status::InvalidCbor),
        ("a map of indefinite length", &[0xbf, 0xff], Status::InvalidCbor),
        ("a string of indefinite length", &[0xa1, 0x01, 0x5f, 0xff], Status::InvalidCbor),
        ("an array of indefinite length", &[0xa1, 0x01, 0x9f, 0xff], Status::InvalidCbor),
        ("a break", &[0xa1, 0x01, 0xff], Status::InvalidCbor),
        ("a tag", &[0xa1, 0x01, 0xc0, 0x00], Status::InvalidCbor),
        ("keys out of order", &[0xa2, 0x02, 0x00, 0x01, 0x00], Status::InvalidCbor),
        ("a key twice", &[0xa2, 0x01, 0x00, 0x01, 0x00], Status::InvalidCbor),
        ("a text before an integer", &[0xa2, 0x61, 0x61, 0x00, 0x01, 0x00], Status::InvalidCbor),
        ("a longer text first", &[0xa2, 0x62, 0x61, 0x61, 0x00, 0x61, 0x62, 0x00], Status::InvalidCbor),
        ("text that is not UTF-8", &[0xa1, 0x01, 0x61, 0xff], Status::InvalidCbor),
        (
            "a string longer than the message",
            &[0xa1, 0x01, 0x5a, 0xff, 0xff, 0xff, 0xff],
            Status::InvalidCbor,
        ),
        (
            "an array longer than the message",
            &[0xa1, 0x01, 0x9a, 0xff, 0xff, 0xff, 0xff],
            Status::InvalidCbor,
        ),
        ("a map longer than the message", &[0xba, 0xff, 0xff, 0xff, 0xff], Status::InvalidCbor),
        ("a reserved kind of length", &[0xa1, 0x01, 0x1c], Status::InvalidCbor),
        ("five levels", &[0xa1, 0x01, 0x81, 0x81, 0x81, 0x81, 0x00], Status::InvalidCbor),
    ];
    let mut bench = Bench::without_vault();
    for (what, cbor, status) in cases {
        for command in [0x01, 0x02, 0x06, 0x0a, 0x0c, 0x0d] {
            let reply = bench.raw(&[&[command][..], cbor].concat());
            assert_eq!(reply, [status.code()], "{what}, command {command:#x}");
        }
    }
    // Four levels are as many as there may be.
    let reply = bench.raw(&[0x01, 0xa1, 0x01, 0x81, 0x81, 0x81, 0x00]);
    assert_eq!(reply, [Status::CborUnexpectedType.code()]);
}

#[test]
fn every_prefix_of_a_request_is_refused_and_no_byte_more_is_taken() {
    let mut bench = Bench::without_vault();
    let whole = [&[0x01][..], &encoded(&request())].concat();
    for len in 1..whole.len() {
        let status = bench.raw(&whole[..len])[0];
        let expected = if len == 1 { Status::MissingParameter } else { Status::InvalidCbor };
        assert_eq!(status, expected.code(), "{len} bytes");
    }
    assert_eq!(bench.raw(&[&whole[..], &[0]].concat()), [Status::InvalidCbor.code()]);
}

#[test]
fn too_many_items_are_refused_before_they_are_decoded() {
    let mut bench = Bench::without_vault();
    let many =
        map([(1.into(), vec![0; 2000].into_iter().map(ciborium::Value::from).collect::<Vec<_>>().into())]);
    bench.refuses("8", 0x01, &many, Status::LimitExceeded);
    let list = vec![super::descriptor(&[1; 32]); 65];
    bench.refuses(
        "6.1 excludeList",
        0x01,
        &with(&request(), 5, ciborium::Value::Array(list.clone())),
        Status::LimitExceeded,
    );
    bench.refuses(
        "6.2 allowList",
        0x02,
        &with(&super::get_assertion::request(), 3, ciborium::Value::Array(list)),
        Status::LimitExceeded,
    );
}
