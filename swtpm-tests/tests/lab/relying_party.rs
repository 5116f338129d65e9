//! A relying party that believes nothing: it has its own P-256 and its own reading of the responses.

use base64ct::{Base64UrlUnpadded, Encoding};
use p256::{
    ecdsa::{Signature, VerifyingKey, signature::Verifier},
    pkcs8::DecodePublicKey,
};
use serde_json::Value;

pub(crate) const RP_ID: &str = "example.org";
pub(crate) const ORIGIN: &str = "https://example.org";

/// A challenge that no other request has.
pub(crate) fn challenge(number: u64) -> String {
    encode(format!("challenge number {number:020}").as_bytes())
}

/// The public key that a registration response registers; an error says what is wrong with it.
pub(crate) fn check_registration(response: &Value, challenge: &str) -> Result<VerifyingKey, String> {
    let inner = &response["response"];
    let (client_data, data) = collected(inner, "webauthn.create", challenge)?;
    let spki = decode(&inner["publicKey"])?;
    let key = VerifyingKey::from_public_key_der(&spki).map_err(|e| format!("public key: {e}"))?;
    let object = decode(&inner["attestationObject"])?;
    if !contains(&object, &data) {
        return Err("the attestation object holds other authenticator data".into());
    }
    if contains(&object, b"packed") {
        // {"alg": -7, "sig": bytes(n < 256)}
        let at = object.windows(5).position(|w| w == b"\x63sig\x58").ok_or("no packed signature")? + 5;
        let sig = &object[at + 1..][..object[at].into()];
        verify(&key, &data, &client_data, sig)?;
    }
    Ok(key)
}

/// Whether an authentication response is this key's answer to this challenge.
pub(crate) fn check_assertion(response: &Value, challenge: &str, key: &VerifyingKey) -> Result<(), String> {
    let inner = &response["response"];
    let (client_data, data) = collected(inner, "webauthn.get", challenge)?;
    verify(key, &data, &client_data, &decode(&inner["signature"])?)
}

fn collected(inner: &Value, kind: &str, challenge: &str) -> Result<(Vec<u8>, Vec<u8>), String> {
    let client_data = decode(&inner["clientDataJSON"])?;
    let parsed: Value = serde_json::from_slice(&client_data).map_err(|e| e.to_string())?;
    let said = [&parsed["type"], &parsed["challenge"], &parsed["origin"]];
    if said != [kind, challenge, ORIGIN] {
        return Err(format!("client data {parsed}"));
    }
    Ok((client_data, decode(&inner["authenticatorData"])?))
}

fn verify(key: &VerifyingKey, data: &[u8], client_data: &[u8], der: &[u8]) -> Result<(), String> {
    let hash = ring::digest::digest(&ring::digest::SHA256, client_data);
    let signature = Signature::from_der(der).map_err(|e| e.to_string())?;
    key.verify(&[data, hash.as_ref()].concat(), &signature)
        .map_err(|_| "the signature does not verify".into())
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle)
}

fn encode(bytes: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(bytes)
}

fn decode(value: &Value) -> Result<Vec<u8>, String> {
    let text = value.as_str().ok_or("a member is missing")?;
    Base64UrlUnpadded::decode_vec(text).map_err(|e| e.to_string())
}
