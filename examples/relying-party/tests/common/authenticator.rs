use base64ct::{Base64UrlUnpadded, Encoding};
use ciborium::cbor;
use p256::ecdsa::signature::Signer;
use p256::ecdsa::{Signature, SigningKey};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// What to get wrong.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Lie {
    None,
    Challenge,
    Origin,
    RpId,
    Type,
    UserVerified,
    Counter,
    Signature,
}

/// One P-256 credential, with the client in front of it.
pub(crate) struct Authenticator {
    origin: String,
    key: SigningKey,
    credential_id: Vec<u8>,
    user_handle: String,
    counter: u32,
}

impl Authenticator {
    pub(crate) fn new(origin: &str, seed: u8) -> Self {
        Self {
            origin: origin.to_owned(),
            key: SigningKey::from_slice(&[seed; 32]).unwrap(),
            credential_id: vec![seed; 32],
            user_handle: String::new(),
            counter: 0,
        }
    }

    /// A `RegistrationResponseJSON` with self attestation.
    pub(crate) fn create(&mut self, options: &Value, lie: Lie) -> Value {
        let options = &options["publicKey"];
        options["user"]["id"].as_str().unwrap().clone_into(&mut self.user_handle);
        let client_data = self.client_data("webauthn.create", options, lie);
        let mut auth_data = self.auth_data(options["rp"]["id"].as_str().unwrap(), 0x40, lie);
        auth_data.extend([0; 16]);
        auth_data.extend(u16::try_from(self.credential_id.len()).unwrap().to_be_bytes());
        auth_data.extend(&self.credential_id);
        auth_data.extend(self.cose_key());
        let signature = self.sign(&auth_data, &client_data, lie);
        let attestation = cbor!({
            "fmt" => "packed",
            "attStmt" => { "alg" => -7, "sig" => ciborium::Value::Bytes(signature) },
            "authData" => ciborium::Value::Bytes(auth_data),
        });
        self.response(&json!({
            "clientDataJSON": encode(&client_data),
            "attestationObject": encode(&to_cbor(&attestation.unwrap())),
            "transports": ["internal"],
        }))
    }

    /// An `AuthenticationResponseJSON`.
    pub(crate) fn get(&mut self, options: &Value, lie: Lie) -> Value {
        let options = &options["publicKey"];
        if lie != Lie::Counter {
            self.counter += 1;
        }
        let client_data = self.client_data("webauthn.get", options, lie);
        let auth_data = self.auth_data(options["rpId"].as_str().unwrap(), 0, lie);
        let signature = self.sign(&auth_data, &client_data, lie);
        self.response(&json!({
            "clientDataJSON": encode(&client_data),
            "authenticatorData": encode(&auth_data),
            "signature": encode(&signature),
            "userHandle": self.user_handle,
        }))
    }

    fn client_data(&self, ceremony: &str, options: &Value, lie: Lie) -> Vec<u8> {
        let wrong_challenge = json!(encode(&[0; 32]));
        json!({
            "type": if lie == Lie::Type { "payment.get" } else { ceremony },
            "challenge": if lie == Lie::Challenge { &wrong_challenge } else { &options["challenge"] },
            "origin": if lie == Lie::Origin { "http://localhost.example" } else { &self.origin },
            "crossOrigin": false,
        })
        .to_string()
        .into_bytes()
    }

    fn auth_data(&self, rp_id: &str, flags: u8, lie: Lie) -> Vec<u8> {
        let rp_id = if lie == Lie::RpId { "example.org" } else { rp_id };
        let user_verified = if lie == Lie::UserVerified { 0 } else { 0x04 };
        let mut data = Sha256::digest(rp_id).to_vec();
        data.push(flags | 0x01 | user_verified);
        data.extend(self.counter.to_be_bytes());
        data
    }

    fn cose_key(&self) -> Vec<u8> {
        let point = self.key.verifying_key().to_sec1_point(false);
        let coordinate = |bytes: &[u8]| ciborium::Value::Bytes(bytes.to_vec());
        let x = coordinate(point.x().unwrap());
        let y = coordinate(point.y().unwrap());
        to_cbor(&cbor!({ 1 => 2, 3 => -7, -1 => 1, -2 => x, -3 => y }).unwrap())
    }

    fn sign(&self, auth_data: &[u8], client_data: &[u8], lie: Lie) -> Vec<u8> {
        let mut message = [auth_data, Sha256::digest(client_data).as_slice()].concat();
        if lie == Lie::Signature {
            message.push(0);
        }
        let signature: Signature = self.key.sign(&message);
        signature.to_der().as_bytes().to_vec()
    }

    fn response(&self, response: &Value) -> Value {
        let id = encode(&self.credential_id);
        json!({
            "id": id,
            "rawId": id,
            "type": "public-key",
            "response": response,
            "authenticatorAttachment": "platform",
            "clientExtensionResults": {},
        })
    }
}

fn encode(bytes: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(bytes)
}

fn to_cbor(value: &ciborium::Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).unwrap();
    bytes
}
