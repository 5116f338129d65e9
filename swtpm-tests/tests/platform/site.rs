//! A site and the browser that shows it, over a channel of the device.

use std::{io, path::Path};

use ciborium::Value;
use p256::ecdsa::{Signature, VerifyingKey, signature::Verifier};
use sha2::{Digest, Sha256};
use swtpm_tests::{Device, HidClient};

use super::{Platform, Token, client_pin, descriptor, encoded, manage, map, member, options};

pub(crate) const RP: &str = "example.org";
const CLIENT_DATA: [u8; 32] = [7; 32];

/// Permissions (§6.5.5.7).
pub(crate) const MAKE: u8 = 0x01;
pub(crate) const SIGN: u8 = 0x02;
pub(crate) const MANAGE: u8 = 0x04;

/// Status codes (§8.2).
pub(crate) mod status {
    pub(crate) const OPERATION_DENIED: u8 = 0x27;
    pub(crate) const NO_CREDENTIALS: u8 = 0x2e;
    pub(crate) const PIN_INVALID: u8 = 0x31;
    pub(crate) const PIN_AUTH_INVALID: u8 = 0x33;
    pub(crate) const PIN_AUTH_BLOCKED: u8 = 0x34;
    pub(crate) const PUAT_REQUIRED: u8 = 0x36;
}

/// Why there is no answer.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It is this status code.
    Status(u8),
    /// The daemon is gone.
    Gone(io::Error),
}

pub(crate) type Answer<T> = Result<T, Refusal>;

/// A passkey as its site knows it.
#[derive(Clone, Debug)]
pub(crate) struct Passkey {
    pub(crate) id: Vec<u8>,
    pub(crate) key: VerifyingKey,
}

/// A passkey as credential management shows it.
#[derive(Clone, Debug)]
pub(crate) struct Listed {
    pub(crate) user: String,
    pub(crate) name: String,
    pub(crate) passkey: Passkey,
}

pub(crate) struct Site(HidClient);

impl Passkey {
    /// From authenticator data with attested credential data (WebAuthn Level 3 §6.5.1).
    pub(crate) fn of(data: &[u8]) -> Self {
        let (id, key) = data[55..].split_at(usize::from(u16::from_be_bytes([data[53], data[54]])));
        Self::new(id.to_vec(), &ciborium::from_reader(key).unwrap())
    }

    /// From a `COSE_Key`.
    fn new(id: Vec<u8>, key: &Value) -> Self {
        let coordinate = |n: i64| member(key, n).unwrap().as_bytes().unwrap().clone();
        let point = [&[4][..], &coordinate(-2), &coordinate(-3)].concat();
        Self { id, key: VerifyingKey::from_sec1_bytes(&point).unwrap() }
    }

    /// Whether it signed this.
    pub(crate) fn verify(&self, data: &[u8], client_data_hash: &[u8], signature: &[u8]) {
        let signature = Signature::from_der(signature).unwrap();
        self.key.verify(&[data, client_data_hash].concat(), &signature).unwrap();
    }
}

impl Site {
    pub(crate) fn connect(device: &Device) -> Self {
        Self::at(&device.socket())
    }

    pub(crate) fn at(socket: &Path) -> Self {
        Self(HidClient::connect(socket))
    }

    pub(crate) const fn hid(&self) -> &HidClient {
        &self.0
    }

    pub(crate) fn call(&self, command: u8, parameters: &Value) -> Answer<Value> {
        self.raw(&[&[command][..], &encoded(parameters)].concat())
    }

    pub(crate) fn raw(&self, request: &[u8]) -> Answer<Value> {
        let (kind, answer) = self.0.try_call(0x10, request).map_err(Refusal::Gone)?;
        assert_eq!(kind, 0x10, "{answer:02x?}");
        match answer.split_first().unwrap() {
            (0, []) => Ok(Value::Null),
            (0, data) => Ok(ciborium::from_reader(data).unwrap()),
            (status, _) => Err(Refusal::Status(*status)),
        }
    }

    /// Whether getInfo says that there is a PIN.
    pub(crate) fn has_pin(&self) -> bool {
        let info = self.raw(&[0x04]).unwrap();
        let options = member(&info, 4).unwrap().as_map().unwrap();
        options.iter().any(|(name, value)| *name == "clientPin".into() && *value == true.into())
    }

    /// getPINRetries.
    pub(crate) fn tries(&self) -> Answer<u8> {
        let reply = self.call(0x06, &client_pin(2, 1))?;
        Ok(u8::try_from(member(&reply, 3).unwrap().as_integer().unwrap()).unwrap())
    }

    pub(crate) fn platform(&self) -> Answer<Platform> {
        let reply = self.call(0x06, &client_pin(2, 2))?;
        Ok(Platform::agree(2, member(&reply, 1).unwrap()))
    }

    pub(crate) fn set_pin(&self, pin: &str) -> Answer<()> {
        let platform = self.platform()?;
        self.call(0x06, &platform.set_pin(&platform.padded(pin.as_bytes()))).map(drop)
    }

    pub(crate) fn change_pin(&self, old: &str, new: &str) -> Answer<()> {
        self.call(0x06, &self.platform()?.change_pin(old, new)).map(drop)
    }

    pub(crate) fn token(&self, pin: &str, permissions: u8) -> Answer<Token> {
        let platform = self.platform()?;
        let rp_id = (permissions != MANAGE).then_some(RP);
        Ok(platform.token(&self.call(0x06, &platform.token_using_pin(pin, permissions, rp_id))?))
    }

    /// getPinToken, for platforms that know no permissions.
    pub(crate) fn pin_token(&self, pin: &str) -> Answer<Token> {
        let platform = self.platform()?;
        Ok(platform.token(&self.call(0x06, &platform.pin_token(pin))?))
    }

    /// Makes a discoverable passkey; without a token the device's own prompt asks for the PIN.
    pub(crate) fn make(&self, token: Option<&Token>, user: &str) -> Answer<Passkey> {
        let es256 = map([("alg".into(), (-7).into()), ("type".into(), "public-key".into())]);
        let request = map([
            (1.into(), Value::Bytes(CLIENT_DATA.to_vec())),
            (2.into(), map([("id".into(), RP.into())])),
            (3.into(), user_entity(user, user)),
            (4.into(), Value::Array(vec![es256])),
            (7.into(), options("rk", true)),
        ]);
        let made = self.call(0x01, &proven(token, &request, (8, 9)))?;
        let data = member(&made, 2).unwrap().as_bytes().unwrap();
        let passkey = Passkey::of(data);
        let statement = member(&made, 3).unwrap().as_map().unwrap();
        let signature = statement.iter().find(|(name, _)| *name == "sig".into()).unwrap();
        passkey.verify(data, &CLIENT_DATA, signature.1.as_bytes().unwrap());
        Ok(passkey)
    }

    /// Signs in with this passkey, and verifies that.
    pub(crate) fn sign_in(&self, token: Option<&Token>, passkey: &Passkey) -> Answer<()> {
        let request = map([
            (1.into(), RP.into()),
            (2.into(), Value::Bytes(CLIENT_DATA.to_vec())),
            (3.into(), Value::Array(vec![descriptor(&passkey.id)])),
        ]);
        let signed = self.call(0x02, &proven(token, &request, (6, 7)))?;
        let bytes = |key: i64| member(&signed, key).unwrap().as_bytes().unwrap();
        assert_eq!((&bytes(2)[..32], bytes(2)[32]), (&Sha256::digest(RP)[..], 0b101), "here and verified");
        passkey.verify(bytes(2), &CLIENT_DATA, bytes(3));
        Ok(())
    }

    /// The site's passkeys, sorted by user.
    pub(crate) fn list(&self, token: &Token) -> Answer<Vec<Listed>> {
        let of_site = map([(1.into(), Value::Bytes(Sha256::digest(RP).to_vec()))]);
        let first = match self.call(0x0a, &token.manage(&manage(4, Some(of_site)))) {
            Err(Refusal::Status(status::NO_CREDENTIALS)) => return Ok(Vec::new()),
            answer => answer?,
        };
        let total = u64::try_from(member(&first, 9).unwrap().as_integer().unwrap()).unwrap();
        let mut all = vec![listed(&first)];
        for _ in 1..total {
            all.push(listed(&self.call(0x0a, &manage(5, None))?));
        }
        all.sort_by(|a, b| a.user.cmp(&b.user));
        Ok(all)
    }

    pub(crate) fn delete(&self, token: &Token, id: &[u8]) -> Answer<()> {
        let which = map([(2.into(), descriptor(id))]);
        self.call(0x0a, &token.manage(&manage(6, Some(which)))).map(drop)
    }

    /// updateUserInformation.
    pub(crate) fn rename(&self, token: &Token, id: &[u8], user: &str, name: &str) -> Answer<()> {
        let which = map([(2.into(), descriptor(id)), (3.into(), user_entity(user, name))]);
        self.call(0x0a, &token.manage(&manage(7, Some(which)))).map(drop)
    }

    pub(crate) fn reset(&self) -> Answer<()> {
        self.raw(&[0x07]).map(drop)
    }
}

/// `PublicKeyCredentialUserEntity`
fn user_entity(user: &str, name: &str) -> Value {
    map([("id".into(), Value::Bytes(user.as_bytes().to_vec())), ("name".into(), name.into())])
}

fn proven(token: Option<&Token>, request: &Value, keys: (i64, i64)) -> Value {
    token.map_or_else(|| request.clone(), |token| token.prove(request, keys, &CLIENT_DATA))
}

fn listed(reply: &Value) -> Listed {
    let entity = |key: i64, name: &str| {
        let members = member(reply, key).unwrap().as_map().unwrap();
        members.iter().find(|(key, _)| *key == name.into()).map(|(_, value)| value.clone())
    };
    let bytes = |key, name| entity(key, name).unwrap().into_bytes().unwrap();
    Listed {
        user: String::from_utf8(bytes(6, "id")).unwrap(),
        name: entity(6, "name").map_or_else(String::new, |name| name.into_text().unwrap()),
        passkey: Passkey::new(bytes(7, "id"), member(reply, 8).unwrap()),
    }
}
