use p256::{FieldBytes, Sec1Point};
use secrecy::ExposeSecret;
use tss_esapi::{
    constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK},
    handles::KeyHandle,
    interface_types::algorithm::HashingAlgorithm,
    structures::{
        Digest, HashScheme, HashcheckTicket, MaxBuffer, Public, Signature as TpmSignature, SignatureScheme,
    },
    tss2_esys::{TPM2B_DIGEST, TPMT_TK_HASHCHECK},
};
use vault_core::{
    Secret,
    keystore::{Anchor, CreatedKey, KeyBlob, KeyStoreError, PublicKey, Signature, Then, UnlockedKeys},
    pin::PinSecrets,
    secret_from,
};
use zeroize::Zeroizing;

use crate::{
    anchor::WrappedKey,
    connection::Use,
    error::{During, Result, code, failed, odd_answer},
    link::{Link, Proven, forged},
    pin_change,
    templates::{self, GENERATION_AT, MASKED},
    tpm::Tpm,
};

/// Set in the stored generation while a PIN change is under way: both masked copies of S are meant.
pub(crate) const CHANGING: u64 = 1 << 63;

/// A TPM that has accepted the PIN, for one operation. Dropping it ends the link.
pub(crate) struct UnlockedTpm<'a> {
    pub(crate) tpm: &'a mut Tpm,
    pub(crate) anchor: Anchor,
    generation: u64,
}

/// What `NV_sec` holds.
struct Unmasked {
    secret: Secret,
    other: Secret,
    generation: u64,
}

impl<'a> UnlockedTpm<'a> {
    pub(crate) fn unlock(tpm: &'a mut Tpm, anchor: &Anchor, pin: &PinSecrets) -> Result<Self> {
        let generation = tpm.on_link(anchor, |link| match &link.proven {
            Some(proven) if proven.pin == *pin => Ok(proven.generation),
            _ => {
                let (secret, generation) = unlock(link, pin)?;
                link.proven = Some(Proven { pin: pin.clone(), secret, generation });
                Ok(generation)
            }
        })?;
        Ok(Self { tpm, anchor: anchor.clone(), generation })
    }

    fn on_link<T>(&mut self, operation: impl FnOnce(&mut Link) -> Result<T>) -> Result<T> {
        self.tpm.on_link(&self.anchor, operation)
    }
}

impl Drop for UnlockedTpm<'_> {
    fn drop(&mut self) {
        if !self.tpm.route.keeps {
            self.tpm.close();
        }
    }
}

impl UnlockedKeys for UnlockedTpm<'_> {
    fn generation(&self) -> u64 {
        self.generation
    }

    fn create_key(&mut self) -> Result<CreatedKey> {
        self.on_link(create_key)
    }

    fn confirm(&mut self) -> Result<()> {
        self.on_link(Link::try_vault_secret)
    }

    fn sign(&mut self, key: &KeyBlob, digest: &[u8; 32], then: Then) -> Result<Signature> {
        let key = WrappedKey::from_blob(key)?;
        self.on_link(|link| sign(link, key, digest, then))
    }

    fn create_prf(&mut self) -> Result<KeyBlob> {
        self.on_link(|link| {
            let template = templates::prf_key(link.place.policies.needs_pin)?;
            create(link, &template)?.to_blob()
        })
    }

    fn prf(&mut self, key: &KeyBlob, salts: &[Secret]) -> Result<Vec<Secret>> {
        let key = WrappedKey::from_blob(key)?;
        self.on_link(|link| prf(link, key, salts))
    }

    fn commit_generation(&mut self, generation: u64, then: Then) -> Result<()> {
        self.on_link(|link| {
            if then == Then::End {
                link.flush_v()?;
            }
            link.prove_pin(then)?;
            link.write_secret_index(&generation.to_be_bytes(), GENERATION_AT, Use::Authorize, then)?;
            if let Some(proven) = &mut link.proven {
                proven.generation = generation;
            }
            Ok(())
        })?;
        self.generation = generation;
        Ok(())
    }

    fn change_pin(&mut self, new: &PinSecrets, then: Then) -> Result<()> {
        pin_change::change(self, new, then)
    }
}

/// PIN to S: one try at the PIN index, and none at V unless a PIN change was cut short.
fn unlock(link: &mut Link, pin: &PinSecrets) -> Result<(Secret, u64)> {
    link.set_pin(&pin.auth)?;
    link.policy_session()?;
    link.prove_pin(Then::Continue)?;
    let unmasked = unmask(&link.read_secret_index()?, &pin.mask)?;
    let Unmasked { secret, other, generation } = unmasked;
    link.set_vault_secret(&secret)?;
    if generation & CHANGING == 0 {
        return Ok((secret, generation));
    }
    // A PIN change was cut short. Which copy this PIN masks only V can tell: at most one try at it is lost.
    let secret = match link.try_vault_secret() {
        Ok(()) => secret,
        Err(KeyStoreError::Replaced { .. }) => {
            link.set_vault_secret(&other)?;
            link.try_vault_secret()?;
            other
        }
        Err(e) => return Err(e),
    };
    let generation = generation & !CHANGING;
    link.prove_pin(Then::Continue)?;
    pin_change::write_settled(link, &secret, &pin.mask, generation, Then::Continue)?;
    Ok((secret, generation))
}

fn unmask(data: &[u8], mask: &Secret) -> Result<Unmasked> {
    let replaced = || KeyStoreError::Replaced { what: "the secret index" };
    let (first, rest) = data.split_first_chunk::<MASKED>().ok_or_else(replaced)?;
    let (second, generation) = rest.split_first_chunk::<MASKED>().ok_or_else(replaced)?;
    let generation = u64::from_be_bytes(generation.try_into().map_err(|_| replaced())?);
    Ok(Unmasked { secret: xor(first, mask), other: xor(second, mask), generation })
}

pub(crate) fn xor(data: &[u8; 32], mask: &Secret) -> Secret {
    secret_from(|out| {
        for (out, (a, b)) in out.iter_mut().zip(data.iter().zip(mask.expose_secret())) {
            *out = a ^ b;
        }
    })
}

fn create_key(link: &mut Link) -> Result<CreatedKey> {
    let template = templates::account_key(link.place.policies.needs_pin)?;
    let key = create(link, &template)?;
    Ok(CreatedKey { public: point(&key.public)?, blob: key.to_blob()? })
}

/// Makes a key under V, and makes sure that it is as the template asked: above all that it can never leave this TPM.
fn create(link: &mut Link, template: &Public) -> Result<WrappedKey> {
    let v = link.v()?;
    let hmac = link.hmac()?;
    link.tpm.prepare(hmac, Then::Continue, Use::Authorize)?;
    let made = link
        .tpm
        .execute_with_session(Some(hmac), |c| c.create(v, template.clone(), None, None, None, None))
        .map_err(|e| code(e).and_then(forged).unwrap_or_else(|| failed("making a key", e)))?;
    let mut asked = template.clone();
    match (&mut asked, &made.out_public) {
        (Public::Ecc { unique: asked, .. }, Public::Ecc { unique, .. }) => *asked = unique.clone(),
        (Public::KeyedHash { unique: asked, .. }, Public::KeyedHash { unique, .. }) => {
            *asked = unique.clone();
        }
        _ => {}
    }
    if asked != made.out_public {
        return Err(KeyStoreError::Replaced { what: "the new key" });
    }
    Ok(WrappedKey { public: made.out_public, private: made.out_private })
}

fn point(made: &Public) -> Result<PublicKey> {
    let other = || KeyStoreError::Replaced { what: "the new key" };
    let Public::Ecc { unique, .. } = made else { return Err(other()) };
    let (x, y) = (field(unique.x().value()).ok_or_else(other)?, field(unique.y().value()).ok_or_else(other)?);
    PublicKey::from_sec1_point(&Sec1Point::from_affine_coordinates(&x, &y, false)).map_err(|_| other())
}

fn load(link: &mut Link, key: WrappedKey) -> Result<KeyHandle> {
    let v = link.v()?;
    let hmac = link.hmac()?;
    link.tpm.prepare(hmac, Then::Continue, Use::Authorize)?;
    link.tpm
        .load(hmac, |c| c.load(v, key.private, key.public))
        .map_err(|e| code(e).and_then(forged).unwrap_or_else(|| failed("loading a key", e)))
}

/// Each is a command of its own, and each proves the PIN.
fn prf(link: &mut Link, key: WrappedKey, salts: &[Secret]) -> Result<Vec<Secret>> {
    let step = "deriving a secret";
    let key = load(link, key)?;
    let mut outputs = Vec::new();
    for salt in salts {
        link.prove_pin(Then::Continue)?;
        let policy = link.policy_session()?;
        link.tpm.prepare(policy, Then::Continue, Use::Encrypt)?;
        let salt = MaxBuffer::try_from(salt.expose_secret().to_vec()).during(step)?;
        let output = link
            .tpm
            .execute_with_session(Some(policy), |c| c.hmac(key.into(), salt, HashingAlgorithm::Sha256))
            .during(step)?;
        let output: &[u8; 32] = output.value().try_into().map_err(|_| odd_answer(step))?;
        outputs.push(secret_from(|out| out.copy_from_slice(output)));
    }
    link.tpm.flush(key)?;
    Ok(outputs)
}

fn sign(link: &mut Link, key: WrappedKey, digest: &[u8; 32], then: Then) -> Result<Signature> {
    let key = load(link, key)?;
    link.flush_v()?;
    link.prove_pin(then)?;
    let policy = link.policy_session()?;
    link.tpm.prepare(policy, then, Use::Authorize)?;
    let digest = Digest::try_from(digest.to_vec()).during("signing")?;
    let scheme = SignatureScheme::EcDsa { hash_scheme: HashScheme::new(HashingAlgorithm::Sha256) };
    let ticket = no_ticket()?;
    let signature = link
        .tpm
        .execute_with_session(Some(policy), |c| c.sign(key, digest, scheme, ticket))
        .during("signing")?;
    link.tpm.ended(policy, then);
    link.tpm.flush(key)?;
    let TpmSignature::EcDsa(signature) = signature else { return Err(KeyStoreError::BadSignature) };
    let (r, s) = (field(signature.signature_r().value()), field(signature.signature_s().value()));
    r.zip(s).and_then(|(r, s)| Signature::from_scalars(r, s).ok()).ok_or(KeyStoreError::BadSignature)
}

/// A TPM gives numbers without their leading zeros.
fn field(bytes: &[u8]) -> Option<FieldBytes> {
    let mut field = FieldBytes::default();
    let start = field.len().checked_sub(bytes.len())?;
    field.get_mut(start..)?.copy_from_slice(bytes);
    Some(field)
}

/// The digest was not made by the TPM, which only restricted keys would mind (Part 3 §20.2).
fn no_ticket() -> Result<HashcheckTicket> {
    let ticket = TPMT_TK_HASHCHECK {
        tag: TPM2_ST_HASHCHECK,
        hierarchy: TPM2_RH_NULL,
        digest: TPM2B_DIGEST::default(),
    };
    HashcheckTicket::try_from(ticket).during("signing")
}

/// `NV_sec` in full: two masked copies of S and the generation.
pub(crate) fn secret_index(first: &Secret, second: &Secret, generation: u64) -> Zeroizing<Vec<u8>> {
    let mut data = Zeroizing::new(Vec::with_capacity(templates::SEC_SIZE.into()));
    data.extend(first.expose_secret());
    data.extend(second.expose_secret());
    data.extend(generation.to_be_bytes());
    data
}
