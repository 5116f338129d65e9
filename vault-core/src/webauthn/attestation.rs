use ciborium::Value;
use coset::{CborSerializable, CoseKeyBuilder, iana};

use super::AuthenticatorData;
use crate::keystore::{PublicKey, Signature};

/// The public key as a `COSE_Key` (RFC 9052 §7) in CTAP2's canonical order.
#[expect(clippy::expect_used, reason = "encoding to memory what was just built")]
pub(crate) fn cose_key(key: &PublicKey) -> Vec<u8> {
    let point = key.to_sec1_point(false);
    let (x, y) = (point.x().expect("not the identity"), point.y().expect("uncompressed"));
    CoseKeyBuilder::new_ec2_pub_key(iana::EllipticCurve::P_256, x.to_vec(), y.to_vec())
        .algorithm(iana::Algorithm::ES256)
        .build()
        .to_vec()
        .expect("a key of known members")
}

/// The statement of format "none" (WebAuthn Level 3 §8.7).
pub(crate) fn none_statement() -> (&'static str, Value) {
    ("none", Value::Map(Vec::new()))
}

/// The statement of format "packed", self attestation (§8.2).
pub(crate) fn packed_self_statement(signature: &Signature) -> (&'static str, Value) {
    let alg = Value::from(-7);
    let sig = Value::Bytes(signature.to_der().as_bytes().to_vec());
    ("packed", Value::Map(vec![("alg".into(), alg), ("sig".into(), sig)]))
}

/// The attestation object (§6.5.4), its members in CTAP2's canonical order.
#[expect(clippy::expect_used, reason = "encoding to memory what was just built")]
pub(crate) fn attestation_object(data: &AuthenticatorData, (fmt, statement): (&str, Value)) -> Vec<u8> {
    let object = Value::Map(vec![
        ("fmt".into(), fmt.into()),
        ("attStmt".into(), statement),
        ("authData".into(), Value::Bytes(data.as_bytes().to_vec())),
    ]);
    let mut bytes = Vec::new();
    ciborium::into_writer(&object, &mut bytes).expect("a Vec takes all writes");
    bytes
}
