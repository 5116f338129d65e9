//! What the binary prints is accepted by four WebAuthn libraries that Passhold did not write, and is what the
//! specification says where none of them looks.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::pedantic
)]
#![allow(
    clippy::similar_names,
    clippy::needless_pass_by_value,
    clippy::format_collect,
    clippy::single_match_else
)]

use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use base64ct::{Base64UrlUnpadded, Encoding};
use ciborium::Value as Cbor;
use p256::{
    PublicKey,
    ecdsa::{Signature, VerifyingKey, signature::Verifier},
    pkcs8::DecodePublicKey,
};
use relying_party::RelyingParty;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use swtpm_tests::{Passhold, TestTpm, creation_options, installed, request_options};

const ORIGIN: &str = "https://login.example.org";
const OTHER_ORIGIN: &str = "https://example.org";
const RP_ID: &str = "example.org";
/// The conveyance a relying party asks for, and the format it gets.
const FORMATS: [(&str, &str); 2] = [("none", "none"), ("direct", "packed")];

#[test]
fn py_webauthn_accepts_what_enroll_and_sign_print_and_refuses_it_tampered() {
    accepts_ours_and_refuses_it_tampered("py_webauthn");
}

#[test]
fn python_fido2_accepts_what_enroll_and_sign_print_and_refuses_it_tampered() {
    accepts_ours_and_refuses_it_tampered("python_fido2");
}

#[test]
fn simplewebauthn_accepts_what_enroll_and_sign_print_and_refuses_it_tampered() {
    accepts_ours_and_refuses_it_tampered("simplewebauthn");
}

fn accepts_ours_and_refuses_it_tampered(name: &str) {
    let verifier = OtherLibrary::installed(name);
    let site = Site::new();
    for (conveyance, format) in FORMATS {
        let user = format!("alice-{format}");
        let made = site.enroll(&user, conveyance);
        let registration = request("registration", &made, json!({"attestation": format}));
        let verified = verifier.accepts(&registration);
        let expected = json!({
            "ok": true,
            "fmt": format,
            "aaguid": "629a1789-0354-4613-a1bc-14b825aa2162",
            "userVerified": true,
            "credential": verified["credential"],
        });
        assert_eq!(verified, expected, "{name}, {format}");
        assert_eq!(verified["credential"]["id"], made["id"]);
        assert_eq!(verified["credential"]["signCount"], 0);

        verifier.refuses_tampered(&registration);
        if format == "packed" {
            let mut tampered = registration.clone();
            flip_attestation_signature(&mut tampered["response"]);
            verifier.refuses(&tampered, "a flipped byte in the attestation's signature");
        }

        let signed = site.sign(&made);
        let authentication =
            request("authentication", &signed, json!({"credential": verified["credential"]}));
        let verified = verifier.accepts(&authentication);
        let expected = json!({
            "ok": true,
            "userVerified": true,
            "credential": authentication["credential"],
        });
        assert_eq!(verified, expected, "{name}, {format}");

        verifier.refuses_tampered(&authentication);
        let mut tampered = authentication.clone();
        flip(&mut tampered["response"]["response"]["signature"], 20);
        verifier.refuses(&tampered, "a flipped byte in the signature");
    }
}

#[test]
fn webauthn_rs_accepts_what_enroll_and_sign_print_and_refuses_it_tampered() {
    let origin = "http://localhost:8080";
    let tpm = TestTpm::start().unwrap();
    let passhold = Passhold::with_vault(&tpm);
    let enroll = |options: &Value, origin: &str| {
        let call = passhold.call(["enroll", "--origin", origin]).stdin(options.to_string());
        call.pin(swtpm_tests::PIN).run().expect_code(0).json()
    };
    let sign = |options: &Value, origin: &str| {
        let call = passhold.call(["sign", "--origin", origin]).stdin(options.to_string());
        call.pin(swtpm_tests::PIN).run().expect_code(0).json()
    };
    for (conveyance, format) in FORMATS {
        // One relying party a format: to a second passkey of the same user it would say "excluded".
        let mut rp = RelyingParty::new(origin).unwrap();
        let user = format!("alice-{format}");
        let start = |rp: &mut RelyingParty| {
            let mut options = rp.start_registration(&user).unwrap();
            assert_eq!(options["publicKey"]["authenticatorSelection"]["userVerification"], "required");
            options["publicKey"]["attestation"] = json!(conveyance);
            options
        };
        let old = enroll(&start(&mut rp), origin);
        assert_eq!(attestation_object(&old).0, format);
        let refused = |rp: &mut RelyingParty, response: &Value, why: &str| {
            let error = rp.finish_registration(&user, response).expect_err(why);
            assert!(matches!(error, relying_party::FinishError::Refused(_)), "{why}: {error:?}");
        };
        start(&mut rp);
        refused(&mut rp, &old, "another challenge");
        let options = start(&mut rp);
        refused(&mut rp, &enroll(&options, "http://localhost:9090"), "another origin");
        if format == "packed" {
            let options = start(&mut rp);
            let mut tampered = enroll(&options, origin);
            flip_attestation_signature(&mut tampered);
            refused(&mut rp, &tampered, "a flipped byte in the attestation's signature");
        }
        let options = start(&mut rp);
        let made = enroll(&options, origin);
        rp.finish_registration(&user, &made).unwrap();

        let options = rp.start_login(&user).unwrap();
        assert_eq!(options["publicKey"]["userVerification"], "required");
        assert_eq!(options["publicKey"]["allowCredentials"][0]["id"], made["id"]);
        let signed = sign(&options, origin);
        rp.finish_login(&user, &signed).unwrap();
        let refused = |rp: &mut RelyingParty, response: &Value, why: &str| {
            let error = rp.finish_login(&user, response).expect_err(why);
            assert!(matches!(error, relying_party::FinishError::Refused(_)), "{why}: {error:?}");
        };
        rp.start_login(&user).unwrap();
        refused(&mut rp, &signed, "another challenge");
        let options = rp.start_login(&user).unwrap();
        refused(&mut rp, &sign(&options, "http://localhost:9090"), "another origin");
        let options = rp.start_login(&user).unwrap();
        let mut tampered = sign(&options, origin);
        flip(&mut tampered["response"]["signature"], 20);
        refused(&mut rp, &tampered, "a flipped byte in the signature");
    }
}

#[test]
fn a_sign_in_without_a_user_name_is_accepted_by_webauthn_rs() {
    let origin = "http://localhost:8080";
    let tpm = TestTpm::start().unwrap();
    let passhold = Passhold::with_vault(&tpm);
    let mut rp = RelyingParty::new(origin).unwrap();
    let options = rp.start_registration("alice").unwrap();
    let call = passhold.call(["enroll", "--origin", origin]).stdin(options.to_string());
    rp.finish_registration("alice", &call.pin(swtpm_tests::PIN).run().expect_code(0).json()).unwrap();
    let options = rp.start_discoverable_login().unwrap();
    assert_eq!(options["publicKey"]["allowCredentials"], json!([]));
    let call = passhold.call(["sign", "--origin", origin]).stdin(options.to_string());
    let signed = call.pin(swtpm_tests::PIN).run().expect_code(0).json();
    assert_eq!(rp.finish_discoverable_login(&signed).unwrap(), "alice");
}

#[test]
fn a_registration_says_the_same_in_every_member() {
    let site = Site::new();
    for (conveyance, format) in FORMATS {
        let made = site.enroll("alice", conveyance);
        let inner = &made["response"];
        let keys = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
        let sorted = ["authenticatorAttachment", "clientExtensionResults", "id", "rawId", "response", "type"];
        assert_eq!(keys(&made), sorted);
        assert_eq!(made["id"], made["rawId"]);
        assert_eq!(made["type"], "public-key");
        assert_eq!(made["authenticatorAttachment"], "platform");
        assert_eq!(made["clientExtensionResults"], json!({}));
        assert_eq!(inner["transports"], json!(["internal"]));
        assert_eq!(inner["publicKeyAlgorithm"], -7);

        let (fmt, statement, data) = attestation_object(&made);
        assert_eq!(fmt, format);
        assert_eq!(bytes(&inner["authenticatorData"]), data);
        let Attested { aaguid, id, key, .. } = attested(&data);
        // Flags: user present, user verified, attested data; neither backup eligible nor backed up.
        assert_eq!((&data[..32], data[32]), (Sha256::digest(RP_ID).as_slice(), 0b0100_0101));
        assert_eq!(data[33..37], [0; 4], "no signature counter");
        assert_eq!(aaguid, 0x629a_1789_0354_4613_a1bc_14b8_25aa_2162_u128.to_be_bytes());
        assert_eq!((id.len(), encode(&id)), (32, made["id"].as_str().unwrap().to_owned()));
        // RFC 9053 §7.1.1: kty EC2, alg ES256, crv P-256, x and y in 32 bytes each.
        let key: Cbor = canonical(&key);
        let key = key.into_map().unwrap();
        let labels: Vec<i128> = key.iter().map(|(k, _)| k.as_integer().unwrap().into()).collect();
        assert_eq!(labels, [1, 3, -1, -2, -3], "CTAP2's canonical order");
        assert_eq!(
            key[..3].iter().map(|(_, v)| v.as_integer().unwrap().into()).collect::<Vec<i128>>(),
            [2, -7, 1]
        );
        let (x, y) = (key[3].1.as_bytes().unwrap(), key[4].1.as_bytes().unwrap());
        let cose = PublicKey::from_sec1_bytes(&[&[4], x.as_slice(), y].concat()).unwrap();
        let spki = PublicKey::from_public_key_der(&bytes(&inner["publicKey"])).unwrap();
        assert_eq!(cose, spki);
        // RFC 5480 §2: id-ecPublicKey, prime256v1, an uncompressed point; DER has one way to write it.
        let der = "3059301306072a8648ce3d020106082a8648ce3d030107034200";
        assert_eq!(hex(&bytes(&inner["publicKey"])), format!("{der}04{}{}", hex(x), hex(y)));

        let client_data = bytes(&inner["clientDataJSON"]);
        assert_eq!(client_data, client_data_json("webauthn.create"));
        match conveyance {
            "none" => assert_eq!(statement, Cbor::Map(Vec::new())),
            _ => {
                let statement = statement.into_map().unwrap();
                let members: Vec<_> = statement.iter().map(|(k, _)| k.as_text().unwrap()).collect();
                assert_eq!(members, ["alg", "sig"], "self attestation has no x5c");
                assert_eq!(i128::from(statement[0].1.as_integer().unwrap()), -7);
                assert_signed(&spki, &data, &client_data, statement[1].1.as_bytes().unwrap());
            }
        }
    }
}

#[test]
fn an_authentication_says_the_same_in_every_member() {
    let site = Site::new();
    let made = site.enroll("alice", "none");
    let signed = site.sign(&made);
    let inner = &signed["response"];
    assert_eq!(signed["id"], made["id"]);
    assert_eq!(signed["rawId"], made["id"]);
    assert_eq!(signed["type"], "public-key");
    assert_eq!(signed["authenticatorAttachment"], "platform");
    assert_eq!(signed["clientExtensionResults"], json!({}));
    assert_eq!(bytes(&inner["userHandle"]), b"alice");
    let mut expected = Sha256::digest(RP_ID).to_vec();
    expected.extend([0b0000_0101, 0, 0, 0, 0]);
    assert_eq!(bytes(&inner["authenticatorData"]), expected);
    let client_data = bytes(&inner["clientDataJSON"]);
    assert_eq!(client_data, client_data_json("webauthn.get"));
    let spki = PublicKey::from_public_key_der(&bytes(&made["response"]["publicKey"])).unwrap();
    assert_signed(&spki, &expected, &client_data, &bytes(&inner["signature"]));
}

#[test]
fn cred_props_are_answered_only_when_asked() {
    let site = Site::new();
    let mut options: Value = serde_json::from_str(&creation_options(RP_ID, "alice", "none")).unwrap();
    options["extensions"] = json!({"credProps": true, "prf": {}});
    let made = site.enroll_with(&options.to_string());
    assert_eq!(made["clientExtensionResults"], json!({"credProps": {"rk": true}}));
}

#[test]
fn credential_ids_and_keys_are_never_the_same_twice() {
    let site = Site::new();
    let (a, b) = (site.enroll("alice", "none"), site.enroll("alice", "none"));
    assert_ne!(a["id"], b["id"]);
    assert_ne!(a["response"]["publicKey"], b["response"]["publicKey"]);
}

/// A TPM and a vault, and somebody who asks at [`ORIGIN`].
struct Site {
    passhold: Passhold,
    // Dropped after the vault.
    _tpm: TestTpm,
}

impl Site {
    fn new() -> Self {
        let tpm = TestTpm::start().unwrap();
        Self { passhold: Passhold::with_vault(&tpm), _tpm: tpm }
    }

    fn enroll(&self, user: &str, conveyance: &str) -> Value {
        self.enroll_with(&creation_options(RP_ID, user, conveyance))
    }

    fn enroll_with(&self, options: &str) -> Value {
        let call = self.passhold.call(["enroll", "--another", "--origin", ORIGIN]).stdin(options);
        call.pin(swtpm_tests::PIN).run().expect_code(0).json()
    }

    fn sign(&self, made: &Value) -> Value {
        let mut options: Value = serde_json::from_str(&request_options(RP_ID)).unwrap();
        options["userVerification"] = json!("required");
        options["allowCredentials"] = json!([{"type": "public-key", "id": made["id"]}]);
        let call = self.passhold.call(["sign", "--origin", ORIGIN]).stdin(options.to_string());
        call.pin(swtpm_tests::PIN).run().expect_code(0).json()
    }
}

/// A request to a verifier, as swtpm-tests/verifiers/README.md has it.
fn request(kind: &str, response: &Value, more: Value) -> Value {
    let mut request = json!({
        "kind": kind,
        "origin": ORIGIN,
        "rpId": RP_ID,
        "challenge": challenge(kind),
        "requireUserVerification": true,
        "response": response,
    });
    for (name, value) in more.as_object().unwrap() {
        request[name] = value.clone();
    }
    request
}

/// The challenge that the options of this crate hold.
fn challenge(kind: &str) -> String {
    let options = match kind {
        "registration" | "webauthn.create" => creation_options(RP_ID, "alice", "none"),
        _ => request_options(RP_ID),
    };
    let options: Value = serde_json::from_str(&options).unwrap();
    options["challenge"].as_str().unwrap().to_owned()
}

/// WebAuthn L3 §5.8.1.1, byte for byte.
fn client_data_json(kind: &str) -> Vec<u8> {
    let challenge = challenge(kind);
    format!(r#"{{"type":"{kind}","challenge":"{challenge}","origin":"{ORIGIN}","crossOrigin":false}}"#).into()
}

/// One of the verifiers that are programs of their own.
struct OtherLibrary {
    name: String,
    dir: PathBuf,
}

impl OtherLibrary {
    fn installed(name: &str) -> Self {
        Self { name: name.to_owned(), dir: installed() }
    }

    fn accepts(&self, request: &Value) -> Value {
        let (code, answer) = self.run(request);
        assert_eq!(code, Some(0), "{}: {answer}\n{request}", self.name);
        answer
    }

    fn refuses(&self, request: &Value, why: &str) {
        let (code, answer) = self.run(request);
        assert_eq!((code, &answer["ok"]), (Some(1), &json!(false)), "{}: {why}: {answer}", self.name);
    }

    fn refuses_tampered(&self, request: &Value) {
        let mut tampered = request.clone();
        tampered["challenge"] = json!(encode(b"a challenge that nobody was given"));
        self.refuses(&tampered, "another challenge");
        let mut tampered = request.clone();
        tampered["origin"] = json!(OTHER_ORIGIN);
        self.refuses(&tampered, "another origin");
    }

    fn run(&self, request: &Value) -> (Option<i32>, Value) {
        let mut run = Command::new(scripts().join("run"));
        run.arg(&self.dir).arg(&self.name).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut run = run.spawn().unwrap();
        run.stdin.take().unwrap().write_all(request.to_string().as_bytes()).unwrap();
        let output = run.wait_with_output().unwrap();
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
    }
}

fn scripts() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("verifiers")
}

/// Its format, statement and authenticator data, from canonical CBOR.
fn attestation_object(response: &Value) -> (String, Cbor, Vec<u8>) {
    let object = canonical(&bytes(&response["response"]["attestationObject"])).into_map().unwrap();
    let members: Vec<_> = object.iter().map(|(k, _)| k.as_text().unwrap()).collect();
    assert_eq!(members, ["fmt", "attStmt", "authData"], "CTAP2's canonical order");
    let [fmt, statement, data] = object.into_iter().map(|(_, v)| v).collect::<Vec<_>>().try_into().unwrap();
    (fmt.into_text().unwrap(), statement, data.into_bytes().unwrap())
}

/// Decodes CBOR that is written in the one shortest way (CTAP 2.2 §8).
fn canonical(encoded: &[u8]) -> Cbor {
    let value: Cbor = ciborium::from_reader(encoded).unwrap();
    // ciborium writes shortest lengths; that it gives the same bytes means that there was no other form.
    let mut again = Vec::new();
    ciborium::into_writer(&value, &mut again).unwrap();
    assert_eq!(again, encoded);
    value
}

/// Attested credential data (WebAuthn L3 §6.5.1).
struct Attested {
    aaguid: [u8; 16],
    id: Vec<u8>,
    key: Vec<u8>,
}

fn attested(data: &[u8]) -> Attested {
    let length = usize::from(u16::from_be_bytes([data[53], data[54]]));
    let (id, key) = data[55..].split_at(length);
    Attested { aaguid: data[37..53].try_into().unwrap(), id: id.to_vec(), key: key.to_vec() }
}

fn assert_signed(key: &PublicKey, data: &[u8], client_data: &[u8], der: &[u8]) {
    let message = [data, &Sha256::digest(client_data)].concat();
    let signature = Signature::from_der(der).unwrap();
    assert_eq!(signature.to_der().as_bytes(), der, "DER has one way to write it");
    assert_eq!(VerifyingKey::from(key).verify(&message, &signature).ok(), Some(()));
}

/// Flips the last byte of the packed statement's signature.
fn flip_attestation_signature(response: &mut Value) {
    let (_, statement, _) = attestation_object(response);
    let sig = statement.into_map().unwrap().pop().unwrap().1.into_bytes().unwrap();
    let object = &mut response["response"]["attestationObject"];
    let encoded = bytes(object);
    let at = encoded.windows(sig.len()).position(|w| w == sig).unwrap();
    flip(object, at + sig.len() - 1);
}

/// Flips one bit of the byte at `at`.
fn flip(member: &mut Value, at: usize) {
    let mut changed = bytes(member);
    changed[at] ^= 1;
    *member = json!(encode(&changed));
}

fn bytes(member: &Value) -> Vec<u8> {
    Base64UrlUnpadded::decode_vec(member.as_str().unwrap()).unwrap()
}

fn encode(bytes: &[u8]) -> String {
    Base64UrlUnpadded::encode_string(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
