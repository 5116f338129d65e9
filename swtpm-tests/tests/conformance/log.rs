//! What the device does stands in the vault's log, and what it was refused.

use ctap::{Declined, Status};
use vault_core::container::{Deed, Entry, Refusal};

use super::{Bench, WRONG, descriptor, get_assertion, make_credential, with};

fn last(bench: &mut Bench) -> Entry {
    let log = bench.vault.open_log();
    assert_eq!(log.broken, None);
    log.entries.last().unwrap().1.clone().unwrap()
}

fn entries(bench: &mut Bench) -> usize {
    bench.vault.open_log().entries.len()
}

#[test]
fn a_ceremony_that_ends_well_is_logged_with_its_passkey() {
    let mut bench = Bench::new();
    let id = bench.passkey("alice");
    let made = last(&mut bench);
    assert_eq!((made.at, made.deed, made.refusal), (1_700_000_000, Deed::Enrol, None));
    assert_eq!(made.subject.unwrap().rp_id, "example.org");
    bench.ok(0x02, &with(&get_assertion::request(), 3, ciborium::Value::Array(vec![descriptor(&id)])));
    let signed = last(&mut bench);
    assert_eq!((signed.deed, signed.refusal), (Deed::Sign, None));
    assert_eq!(signed.subject.unwrap().id.unwrap().to_string(), "1");
}

#[test]
fn who_said_no_is_logged_and_silence_and_cancelling_are_told_from_it() {
    let mut bench = Bench::new();
    bench.passkey("alice");
    for (declined, refusal) in [
        (Declined::No, Refusal::Declined),
        (Declined::TimedOut, Refusal::TimedOut),
        (Declined::Cancelled, Refusal::Cancelled),
    ] {
        for (command, request, deed) in [
            (0x01, make_credential::request(), Deed::Enrol),
            (0x02, get_assertion::request(), Deed::Sign),
            (0x07, super::map([]), Deed::Wipe),
        ] {
            bench.person.answer = Err(declined);
            assert_ne!(bench.call(command, &request).0, 0);
            bench.person.answer = Ok(());
            let entry = last(&mut bench);
            assert_eq!((entry.deed, entry.refusal), (deed, Some(refusal)), "{command}");
            let site = entry.subject.map(|subject| subject.rp_id);
            assert_eq!(site.as_deref(), (command != 0x07).then_some("example.org"));
        }
    }
    // Which authenticator is meant is nobody's secret.
    let before = entries(&mut bench);
    bench.person.answer = Err(Declined::No);
    assert_ne!(bench.raw(&[0x0b]), [0]);
    assert_eq!(entries(&mut bench), before);
}

#[test]
fn a_wrong_pin_is_logged_by_either_way_and_so_is_a_passkey_that_is_excluded() {
    let mut bench = Bench::new();
    let id = bench.passkey("alice");
    let platform = bench.platform(2);
    bench.refuses(
        "6.5.5.7.2",
        0x06,
        &platform.token_using_pin(WRONG, 0x01, Some("example.org")),
        Status::PinInvalid,
    );
    assert_eq!(last(&mut bench).refusal, Some(Refusal::WrongPin));
    let before = entries(&mut bench);
    bench.person.pin = WRONG;
    assert_ne!(bench.call(0x02, &get_assertion::request()).0, 0);
    bench.person.pin = swtpm_tests::PIN;
    // Three tries of one prompt.
    assert_eq!((entries(&mut bench) - before, last(&mut bench).refusal), (3, Some(Refusal::WrongPin)));
    let excluding = with(&make_credential::request(), 5, ciborium::Value::Array(vec![descriptor(&id)]));
    assert_eq!(bench.call(0x01, &excluding).0, Status::CredentialExcluded.code());
    let entry = last(&mut bench);
    assert_eq!((entry.deed, entry.refusal), (Deed::Enrol, Some(Refusal::Excluded)));
}

/// Whoever asks without a person being asked leaves nothing behind: it would push out what matters.
#[test]
fn what_is_refused_before_anybody_is_asked_is_not_logged() {
    let mut bench = Bench::new();
    bench.passkey("alice");
    let before = entries(&mut bench);
    let silent = with(&get_assertion::request(), 5, super::options("up", false));
    assert_ne!(bench.call(0x02, &silent).0, 0);
    assert_ne!(bench.raw(&[0x02, 0xff]), [0]);
    let nobody = with(&get_assertion::request(), 1, ciborium::Value::from("nobody.example"));
    assert_ne!(bench.call(0x02, &nobody).0, 0);
    assert_eq!(entries(&mut bench), before);
}
