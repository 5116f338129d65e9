//! Wycheproof's vectors against the crates that vault-core uses, at the versions it uses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use chacha20poly1305::{
    KeyInit, XChaCha20Poly1305, XNonce,
    aead::{Aead, Payload},
};
use hkdf::Hkdf;
use hmac::{Hmac, Mac};
use p256::ecdsa::{Signature, VerifyingKey, signature::Verifier};
use sha2::Sha256;
use wycheproof::{TestResult, aead, ecdsa, hkdf as hkdf_vectors, mac};

/// What was decided on the vectors of a set, and how many there were.
#[derive(Default)]
struct Tally {
    valid: usize,
    invalid: usize,
    acceptable: usize,
}

impl Tally {
    /// A valid vector must be accepted, an invalid one refused; an "acceptable" one is ours to judge.
    fn hold(&mut self, what: &str, id: usize, comment: &str, expected: TestResult, accepted: bool) {
        match expected {
            TestResult::Valid => {
                self.valid += 1;
                assert!(accepted, "{what} {id} ({comment}) is valid and was refused");
            }
            TestResult::Invalid => {
                self.invalid += 1;
                assert!(!accepted, "{what} {id} ({comment}) is invalid and was accepted");
            }
            TestResult::Acceptable => self.acceptable += 1,
        }
    }

    /// All vectors of the set were seen, and both kinds occur.
    fn done(&self, what: &str, announced: usize) {
        let Self { valid, invalid, acceptable } = self;
        assert_eq!(valid + invalid + acceptable, announced, "{what}");
        assert!(*valid > 0 && *invalid > 0, "{what}");
        println!(
            "wycheproof {what}: {announced} vectors, {valid} valid accepted, {invalid} invalid refused, {acceptable} left to us"
        );
    }
}

fn ecdsa_set(name: ecdsa::TestName, what: &str, parse: fn(&[u8]) -> Option<Signature>) {
    let set = ecdsa::TestSet::load(name).unwrap();
    let mut tally = Tally::default();
    for group in &set.test_groups {
        let key = VerifyingKey::from_sec1_bytes(&group.key.key).unwrap();
        for test in &group.tests {
            let accepted = parse(&test.sig).is_some_and(|sig| key.verify(&test.msg, &sig).is_ok());
            tally.hold(what, test.tc_id, &test.comment, test.result, accepted);
        }
    }
    tally.done(what, set.number_of_tests);
}

#[test]
fn ecdsa_p256_sha256_in_der_agrees_with_wycheproof() {
    let name = ecdsa::TestName::EcdsaSecp256r1Sha256;
    ecdsa_set(name, "ECDSA P-256 SHA-256 DER", |sig| Signature::from_der(sig).ok());
}

#[test]
fn ecdsa_p256_sha256_in_fixed_length_agrees_with_wycheproof() {
    let name = ecdsa::TestName::EcdsaSecp256r1Sha256P1363;
    ecdsa_set(name, "ECDSA P-256 SHA-256 P1363", |sig| Signature::from_slice(sig).ok());
}

#[test]
fn hkdf_sha256_agrees_with_wycheproof() {
    let set = hkdf_vectors::TestSet::load(hkdf_vectors::TestName::HkdfSha256).unwrap();
    let mut tally = Tally::default();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let mut okm = vec![0; test.size];
        let expanded = Hkdf::<Sha256>::new(Some(&test.salt), &test.ikm).expand(&test.info, &mut okm);
        let accepted = expanded.is_ok() && okm == test.okm[..];
        tally.hold("HKDF", test.tc_id, &test.comment, test.result, accepted);
    }
    tally.done("HKDF-SHA256", set.number_of_tests);
}

#[test]
fn hmac_sha256_agrees_with_wycheproof() {
    let set = mac::TestSet::load(mac::TestName::HmacSha256).unwrap();
    let mut tally = Tally::default();
    for group in &set.test_groups {
        for test in &group.tests {
            let mut mac = Hmac::<Sha256>::new_from_slice(&test.key).unwrap();
            mac.update(&test.msg);
            let accepted = mac.verify_truncated_left(&test.tag).is_ok();
            tally.hold("HMAC", test.tc_id, &test.comment, test.result, accepted);
        }
    }
    tally.done("HMAC-SHA256", set.number_of_tests);
}

#[test]
fn xchacha20_poly1305_agrees_with_wycheproof() {
    let set = aead::TestSet::load(aead::TestName::XChaCha20Poly1305).unwrap();
    let mut tally = Tally::default();
    for test in set.test_groups.iter().flat_map(|group| &group.tests) {
        let sealed = [&test.ct[..], &test.tag[..]].concat();
        let opened = open(&test.key, &test.nonce, &test.aad, &sealed);
        assert!(opened.is_none() || opened.as_deref() == Some(&test.pt[..]), "{}", test.tc_id);
        if test.result == TestResult::Valid {
            assert_eq!(seal(&test.key, &test.nonce, &test.aad, &test.pt), sealed, "{}", test.tc_id);
        }
        tally.hold("XChaCha20-Poly1305", test.tc_id, &test.comment, test.result, opened.is_some());
    }
    tally.done("XChaCha20-Poly1305", set.number_of_tests);
}

fn open(key: &[u8], nonce: &[u8], aad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let nonce = XNonce::from(<[u8; 24]>::try_from(nonce).ok()?);
    XChaCha20Poly1305::new_from_slice(key).ok()?.decrypt(&nonce, Payload { msg: sealed, aad }).ok()
}

fn seal(key: &[u8], nonce: &[u8], aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let nonce = XNonce::from(<[u8; 24]>::try_from(nonce).unwrap());
    let cipher = XChaCha20Poly1305::new_from_slice(key).unwrap();
    cipher.encrypt(&nonce, Payload { msg: plain, aad }).unwrap()
}
