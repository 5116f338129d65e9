//! What the TPM signs, two libraries that share no code accept.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout
)]

use std::collections::BTreeMap;

use p256::ecdsa::signature::hazmat::PrehashVerifier;
use ring::signature::{ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use swtpm_tests::{Scene, pin, scale};
use vault_core::{
    keystore::{Anchor, CreatedKey, KeyStore, Signature, Then},
    pin::PinSecrets,
    secret_from,
};

/// Keys to sign with in turn: what their public points look like matters as well.
const KEYS: usize = 8;

/// SHA-256 of what is signed: ring hashes for itself, so both libraries start from the message.
fn digest(message: &[u8]) -> [u8; 32] {
    ring::digest::digest(&ring::digest::SHA256, message).as_ref().try_into().unwrap()
}

fn check(key: &CreatedKey, message: &[u8], signature: &Signature) {
    key.public.verify_prehash(&digest(message), signature).expect("p256 refuses it");
    let point = key.public.to_sec1_point(false);
    let fixed = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point.as_bytes());
    fixed.verify(message, &signature.to_bytes()).expect("ring refuses it in fixed length");
    let der = UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, point.as_bytes());
    der.verify(message, signature.to_der().as_bytes()).expect("ring refuses it in DER");
    let mut other = message.to_vec();
    other.push(0);
    assert!(fixed.verify(&other, &signature.to_bytes()).is_err(), "it signs another message too");
}

#[test]
fn every_signature_of_the_tpm_is_accepted_by_p256_and_by_ring() {
    let scene = Scene::empty();
    let (vault_id, mut anchor) = ([7; 16], None);
    let secrets = PinSecrets::derive(&pin("271828"), &vault_id);
    let mut tpm = scene.tpm.key_store();
    let mut record = |made: &Anchor| {
        anchor = Some(made.clone());
        Ok(())
    };
    tpm.provision(&secrets, &secret_from(|out| out.fill(9)), &mut record).unwrap();
    let anchor = anchor.unwrap();
    let keys: Vec<_> = {
        let mut unlocked = tpm.unlock(&anchor, &secrets).unwrap();
        (0..KEYS).map(|_| unlocked.create_key(None).unwrap()).collect()
    };
    let count = scale(40, 10_000);
    let mut short: BTreeMap<(usize, usize), usize> = BTreeMap::new();
    for n in 0..count {
        let message = message(n);
        let key = &keys[n % KEYS];
        // As each sign-in does: one unlocking of the vault, one signature.
        let mut unlocked = tpm.unlock(&anchor, &secrets).unwrap();
        let signature = unlocked.sign(&key.blob, &digest(&message), Then::End).unwrap();
        check(key, &message, &signature);
        *short.entry(leading_zeros(&signature)).or_default() += 1;
    }
    if count >= 10_000 {
        // One in 128 has an r or s with a leading zero byte; none among 10,000 would be an error of ours.
        assert!(short.keys().any(|(r, _)| *r > 0) && short.keys().any(|(_, s)| *s > 0), "{short:?}");
    }
    println!(
        "TPM signatures: {count} accepted by p256 and ring (fixed and DER); leading zero bytes of (r, s): {short:?}"
    );
}

/// Messages of all lengths around a block of SHA-256.
fn message(n: usize) -> Vec<u8> {
    let mut message = vec![0; n % 130];
    getrandom::fill(&mut message).unwrap();
    message
}

/// Leading zero bytes of r and of s, which the TPM leaves out.
fn leading_zeros(signature: &Signature) -> (usize, usize) {
    let (r, s) = signature.split_bytes();
    let count = |bytes: &[u8]| bytes.iter().take_while(|b| **b == 0).count();
    (count(&r), count(&s))
}

/// A signature with a short r or s is as good as any: 32 bytes each, whatever the TPM left out.
#[test]
fn leading_zeros_survive_both_encodings() {
    use p256::ecdsa::{SigningKey, signature::hazmat::PrehashSigner};
    let signer = SigningKey::from_slice(&[3; 32]).unwrap();
    let key = CreatedKey { blob: vault_core::keystore::KeyBlob(Vec::new()), public: *signer.verifying_key() };
    let (mut short_r, mut short_s, mut n) = (0, 0, 0_u32);
    while short_r == 0 || short_s == 0 {
        let message = n.to_be_bytes();
        n += 1;
        let signature: Signature = signer.sign_prehash(&digest(&message)).unwrap();
        let (r, s) = leading_zeros(&signature);
        if r + s > 0 {
            check(&key, &message, &signature);
            assert_eq!(Signature::from_der(signature.to_der().as_bytes()).unwrap(), signature);
            assert_eq!(signature.to_bytes().len(), 64);
            (short_r, short_s) = (short_r + r, short_s + s);
        }
    }
}
