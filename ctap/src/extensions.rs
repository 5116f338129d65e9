//! Extensions (CTAP 2.2 §12): what a request asks for, and what it is answered.

use ciborium::Value;
use vault_core::{
    Secret, Unlocked,
    container::{Account, Extras, LargeBlobKey, Settings, Takes},
    keystore::KeyBlob,
    secret_from,
    webauthn::{Protection, RpId},
};

use crate::{
    Authenticator, Status,
    cbor::{Map, bytes, map, uint},
    failure::Result,
    pin_protocol::{PinProtocol, SharedSecret},
};

/// In the order in which getInfo names them.
pub(crate) const SUPPORTED: [&str; 7] = [
    "credBlob",
    "credProtect",
    "hmac-secret",
    "hmac-secret-mc",
    "largeBlobKey",
    "minPinLength",
    "thirdPartyPayment",
];

/// What authenticatorMakeCredential may be asked for. Members that are none of these are ignored (§6.1.2 step 15).
#[derive(Default)]
pub(crate) struct OnMake {
    pub(crate) protection: Option<Protection>,
    blob: Option<Vec<u8>>,
    hmac_secret: Option<bool>,
    hmac_secret_mc: Option<HmacSecret>,
    large_blob_key: bool,
    min_pin_length: bool,
    third_party_payment: Option<bool>,
}

/// What authenticatorGetAssertion may be asked for.
#[derive(Default)]
pub(crate) struct OnGet {
    blob: bool,
    hmac_secret: Option<HmacSecret>,
    large_blob_key: bool,
    third_party_payment: bool,
}

/// What a new passkey keeps, and what is answered.
pub(crate) struct Made {
    pub(crate) extras: Extras,
    pub(crate) outputs: Value,
}

/// The TPM's HMAC under a passkey's key.
pub(crate) type Prf<'a> = dyn FnMut(&KeyBlob, &[Secret]) -> Result<Vec<Secret>> + 'a;

/// Salts on their way to the TPM's HMAC key (§12.7).
struct HmacSecret {
    key_agreement: Value,
    salts: Vec<u8>,
    auth: Vec<u8>,
    protocol: PinProtocol,
}

impl OnMake {
    pub(crate) fn take(map: &mut Map) -> Result<Self> {
        let Some(mut map) = map.optional::<Map>(0x06)? else { return Ok(Self::default()) };
        let level = map.optional("credProtect")?;
        Ok(Self {
            protection: level
                .map(|level| Protection::from_level(level).ok_or(Status::InvalidOption))
                .transpose()?,
            blob: map.optional("credBlob")?,
            hmac_secret: map.optional("hmac-secret")?,
            hmac_secret_mc: HmacSecret::take(&mut map, "hmac-secret-mc")?,
            large_blob_key: only_true(&mut map, "largeBlobKey")?,
            min_pin_length: map.optional("minPinLength")?.unwrap_or(false),
            third_party_payment: map.optional("thirdPartyPayment")?,
        })
    }

    /// §12.3: a large blob's key is for discoverable passkeys. §12.8: a secret at creation is one of those that it makes.
    pub(crate) fn check(&self, discoverable: bool) -> Result<()> {
        if self.large_blob_key && !discoverable {
            return Err(Status::InvalidOption.into());
        }
        if self.hmac_secret_mc.is_some() && self.hmac_secret != Some(true) {
            return Err(Status::MissingParameter.into());
        }
        Ok(())
    }

    pub(crate) fn answer(
        self,
        (rp_id, discoverable, takes): (&RpId, bool, Takes),
        settings: &Settings,
        authenticator: &Authenticator,
        unlocked: &mut Unlocked<'_>,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<Made> {
        // §12.2: without the room for it, the passkey is made all the same.
        let blob = self.blob.as_ref().filter(|blob| discoverable && blob.len() <= Extras::MAX_BLOB).cloned();
        let prf = if self.hmac_secret == Some(true) { Some(unlocked.create_prf(takes)?) } else { None };
        let secrets = match (&prf, self.hmac_secret_mc) {
            (Some(prf), Some(asked)) => {
                Some(asked.answer(authenticator, &mut |salts| Ok(unlocked.prf(takes, prf, salts)?), rng)?)
            }
            _ => None,
        };
        let told_min = self.min_pin_length && settings.min_pin_length_rp_ids.contains(rp_id);
        let min = authenticator.policy.at_least(settings.min_pin_length).min_length();
        let large_blob_key = self.large_blob_key.then(|| {
            let mut key = LargeBlobKey([0; 32]);
            rng.fill_bytes(&mut key.0);
            key
        });
        let outputs = in_order([
            ("credBlob", self.blob.map(|_| blob.is_some().into())),
            ("credProtect", self.protection.map(|protection| protection.level().into())),
            ("hmac-secret", self.hmac_secret.map(Value::from)),
            ("minPinLength", if told_min { uint(min) } else { None }),
            ("hmac-secret-mc", secrets),
            ("thirdPartyPayment", self.third_party_payment.map(Value::from)),
        ]);
        let third_party_payment = self.third_party_payment == Some(true);
        Ok(Made { extras: Extras { prf, blob, large_blob_key, third_party_payment }, outputs })
    }
}

impl OnGet {
    pub(crate) fn take(map: &mut Map) -> Result<Self> {
        let Some(mut map) = map.optional::<Map>(0x04)? else { return Ok(Self::default()) };
        Ok(Self {
            blob: map.optional("credBlob")?.unwrap_or(false),
            hmac_secret: HmacSecret::take(&mut map, "hmac-secret")?,
            large_blob_key: only_true(&mut map, "largeBlobKey")?,
            third_party_payment: map.optional("thirdPartyPayment")?.unwrap_or(false),
        })
    }

    /// §12.7: no secret without somebody there.
    pub(crate) fn check(&self, up: bool) -> Result<()> {
        if self.hmac_secret.is_some() && !up { Err(Status::UnsupportedOption.into()) } else { Ok(()) }
    }

    /// Authenticator data's part.
    pub(crate) fn answer(
        &self,
        account: &Account,
        authenticator: &Authenticator,
        prf: &mut Prf<'_>,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<Value> {
        let secrets = match (&self.hmac_secret, &account.extras.prf) {
            (Some(asked), Some(key)) => {
                Some(asked.answer(authenticator, &mut |salts| prf(key, salts), rng)?)
            }
            _ => None,
        };
        let blob = self.blob.then(|| Value::Bytes(account.extras.blob.clone().unwrap_or_default()));
        let payment = self.third_party_payment.then(|| account.extras.third_party_payment.into());
        Ok(in_order([("credBlob", blob), ("hmac-secret", secrets), ("thirdPartyPayment", payment)]))
    }

    /// The answer's own part (§12.3).
    pub(crate) fn large_blob_key(&self, account: &Account) -> Option<Value> {
        let key = account.extras.large_blob_key.as_ref().filter(|_| self.large_blob_key)?;
        bytes(key.0)
    }
}

impl HmacSecret {
    fn take(map: &mut Map, name: &str) -> Result<Option<Self>> {
        let Some(mut map) = map.optional::<Map>(name)? else { return Ok(None) };
        Ok(Some(Self {
            key_agreement: map.required(0x01)?,
            salts: map.required(0x02)?,
            auth: map.required(0x03)?,
            protocol: PinProtocol::from_number(map.optional(0x04)?.unwrap_or(1))?,
        }))
    }

    fn answer(
        &self,
        authenticator: &Authenticator,
        prf: &mut dyn FnMut(&[Secret]) -> Result<Vec<Secret>>,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<Value> {
        let shared = authenticator.agreement.decapsulate(self.protocol, self.key_agreement.clone())?;
        if !shared.verify(&self.salts, &self.auth) {
            return Err(Status::PinAuthInvalid.into());
        }
        let outputs = prf(&self.salts(&shared)?)?;
        Ok(Value::Bytes(shared.encrypt(&outputs, rng)))
    }

    /// One of 32 bytes, or two.
    fn salts(&self, shared: &SharedSecret) -> Result<Vec<Secret>> {
        let salts = shared.decrypt(&self.salts).ok_or(Status::InvalidParameter)?;
        let (salts, rest) = salts.as_chunks::<32>();
        if !rest.is_empty() || !(1..=2).contains(&salts.len()) {
            return Err(Status::InvalidParameter.into());
        }
        Ok(salts.iter().map(|salt| secret_from(|out| out.copy_from_slice(salt))).collect())
    }
}

/// §12.3: it may be left out, and not be false.
fn only_true(map: &mut Map, name: &str) -> Result<bool> {
    match map.optional(name)? {
        Some(false) => Err(Status::InvalidOption.into()),
        asked => Ok(asked.is_some()),
    }
}

/// Null where there are none. Shorter names come first in canonical order.
fn in_order<const N: usize>(outputs: [(&str, Option<Value>); N]) -> Value {
    let outputs = map(outputs);
    if outputs == Value::Map(Vec::new()) { Value::Null } else { outputs }
}
