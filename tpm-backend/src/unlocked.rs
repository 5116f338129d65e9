use secrecy::ExposeSecret;
use vault_core::{
    RecoverySecrets, Secret,
    keystore::{Anchor, CreatedKey, KeyBlob, KeyStoreError, PresenceParent, Signature, Then, UnlockedKeys},
    pin::PinSecrets,
    secret_from,
};
use zeroize::Zeroizing;

use crate::{
    anchor::WrappedKey,
    connection::Use,
    error::Result,
    keys,
    link::{Link, Proven},
    pin_change, presence, recovery,
    templates::{self, GENERATION_AT, MASKED, Opens},
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

    fn create_key(&mut self, presence: Option<&PresenceParent>) -> Result<CreatedKey> {
        self.on_link(|link| {
            if let Some(parent) = presence {
                return presence::create_key(link, parent);
            }
            let template = templates::account_key(Opens::Pin(link.place.policies.needs_pin))?;
            let v = link.v()?;
            let key = keys::create(link, v, &template, None)?;
            Ok(CreatedKey { public: keys::point(&key.public)?, blob: key.to_blob()? })
        })
    }

    fn create_presence_parent(&mut self) -> Result<PresenceParent> {
        self.on_link(presence::create_parent)
    }

    fn sign_present(
        &mut self,
        parent: &PresenceParent,
        key: &KeyBlob,
        digest: &[u8; 32],
    ) -> Result<Signature> {
        self.on_link(|link| presence::sign(link, parent, key, digest))
    }

    fn confirm(&mut self) -> Result<()> {
        self.on_link(Link::try_vault_secret)
    }

    fn sign(&mut self, key: &KeyBlob, digest: &[u8; 32], then: Then) -> Result<Signature> {
        let key = WrappedKey::from_blob(key)?;
        self.on_link(|link| sign(link, key, digest, then))
    }

    fn create_prf(&mut self, presence: Option<&PresenceParent>) -> Result<KeyBlob> {
        self.on_link(|link| {
            if let Some(parent) = presence {
                return presence::create_prf(link, parent);
            }
            let template = templates::prf_key(Opens::Pin(link.place.policies.needs_pin))?;
            let v = link.v()?;
            keys::create(link, v, &template, None)?.to_blob()
        })
    }

    fn prf(
        &mut self,
        presence: Option<&PresenceParent>,
        key: &KeyBlob,
        salts: &[Secret],
    ) -> Result<Vec<Secret>> {
        self.on_link(|link| {
            if let Some(parent) = presence {
                return presence::prf(link, parent, key, salts);
            }
            let key = WrappedKey::from_blob(key)?;
            let v = link.v()?;
            let key = keys::load(link, v, key)?;
            let outputs = keys::prf(link, key, salts, |link| {
                link.prove_pin(Then::Continue)?;
                link.policy_session()
            })?;
            link.tpm.flush(key)?;
            Ok(outputs)
        })
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

    fn renew_recovery(&mut self, code: &RecoverySecrets) -> Result<()> {
        let owner = self.tpm.owner_auth()?;
        self.on_link(|link| {
            // What is masked is what V takes: nothing else here would notice that a PIN index was replaced.
            link.try_vault_secret()?;
            let proven = link.take_proven()?;
            recovery::renew(link, Some((&proven.secret, code)), owner.as_ref())?;
            link.proven = Some(proven);
            Ok(())
        })
    }

    fn change_pin(&mut self, new: &PinSecrets, then: Then) -> Result<()> {
        pin_change::change(self, new, then)
    }
}

fn sign(link: &mut Link, key: WrappedKey, digest: &[u8; 32], then: Then) -> Result<Signature> {
    let v = link.v()?;
    let key = keys::load(link, v, key)?;
    link.flush_v()?;
    link.prove_pin(then)?;
    let policy = link.policy_session()?;
    link.tpm.prepare(policy, then, Use::Authorize)?;
    let signature = keys::sign(link, policy, key, digest)?;
    link.tpm.ended(policy, then);
    link.tpm.flush(key)?;
    Ok(signature)
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

/// The generation in what `NV_sec` holds.
pub(crate) fn generation_of(data: &[u8]) -> Result<u64> {
    let generation = data.last_chunk().ok_or(KeyStoreError::Replaced { what: "the secret index" })?;
    Ok(u64::from_be_bytes(*generation) & !CHANGING)
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

/// `NV_sec` in full: two masked copies of S and the generation.
pub(crate) fn secret_index(first: &Secret, second: &Secret, generation: u64) -> Zeroizing<Vec<u8>> {
    let mut data = Zeroizing::new(Vec::with_capacity(templates::SEC_SIZE.into()));
    data.extend(first.expose_secret());
    data.extend(second.expose_secret());
    data.extend(generation.to_be_bytes());
    data
}
