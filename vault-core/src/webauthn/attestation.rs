use ciborium::Value;
use coset::{AsCborValue, CoseKeyBuilder, iana};

use super::AuthenticatorData;
use crate::keystore::{PublicKey, Signature};

/// A new passkey's authenticator data, and what vouches for it.
#[derive(Clone, Debug)]
pub struct Attested {
    /// The data.
    pub data: AuthenticatorData,
    /// The new key's own signature (format "packed", WebAuthn Level 3 §8.2, self attestation); none is format "none"
    /// (§8.7).
    pub signature: Option<Signature>,
}

impl Attested {
    /// The attestation statement format identifier (§8.1).
    #[must_use]
    pub fn format(&self) -> &'static str {
        if self.signature.is_some() { "packed" } else { "none" }
    }

    /// The attestation statement.
    #[must_use]
    pub fn statement(&self) -> Value {
        let Some(signature) = &self.signature else { return Value::Map(Vec::new()) };
        let sig = Value::Bytes(signature.to_der().as_bytes().to_vec());
        Value::Map(vec![("alg".into(), Value::from(-7)), ("sig".into(), sig)])
    }

    /// The attestation object (§6.5.4), its members in CTAP2's canonical order.
    #[expect(clippy::expect_used, reason = "encoding to memory what was just built")]
    pub(crate) fn object(&self) -> Vec<u8> {
        let object = Value::Map(vec![
            ("fmt".into(), self.format().into()),
            ("attStmt".into(), self.statement()),
            ("authData".into(), Value::Bytes(self.data.as_bytes().to_vec())),
        ]);
        let mut bytes = Vec::new();
        ciborium::into_writer(&object, &mut bytes).expect("a Vec takes all writes");
        bytes
    }
}

/// The public key as a `COSE_Key` (RFC 9052 §7) in CTAP2's canonical order.
#[expect(clippy::expect_used, reason = "encoding to memory what was just built")]
#[expect(clippy::missing_panics_doc, reason = "it never does")]
#[must_use]
pub fn cose_key(key: &PublicKey) -> Value {
    let point = key.to_sec1_point(false);
    let (x, y) = (point.x().expect("not the identity"), point.y().expect("uncompressed"));
    CoseKeyBuilder::new_ec2_pub_key(iana::EllipticCurve::P_256, x.to_vec(), y.to_vec())
        .algorithm(iana::Algorithm::ES256)
        .build()
        .to_cbor_value()
        .expect("a key of known members")
}
