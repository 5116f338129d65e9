//! Another PIN, and how long one is good for.

use secrecy::ExposeSecret;
use serde_bytes::ByteArray;

use super::{CeremonyError, Unlocked, Vault, VaultError};
use crate::{
    RecoveryCode,
    container::{ContainerError, Deed, PinHistory, Settings},
    keystore::{KeyStoreError, Then},
    pin::{PinMaterial, PinPolicy, PinSecrets},
    secret_from,
};

impl Vault<'_> {
    /// Whether the PIN is too old by `policy`; `now` is in seconds since 1970.
    pub fn pin_is_expired(&self, policy: PinPolicy, now: u64) -> Result<bool, ContainerError> {
        Ok(policy.is_expired(self.store.settings()?.pin_set, now))
    }
}

impl Unlocked<'_> {
    /// What a new vault begins with: a recovery code, or none, and a PIN that was set at `now`.
    pub fn begin(
        self,
        code: Option<&RecoveryCode>,
        now: u64,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<(), VaultError> {
        let settings = Settings { pin_set: Some(now), ..self.store.settings()? };
        match code {
            Some(code) => self.renew_code(settings, code, now, rng),
            None => self.configure(&settings, rng),
        }
    }

    /// Has the PIN changed before anything more is signed.
    pub fn require_pin_change(self, rng: &mut dyn rand_core::CryptoRng) -> Result<(), VaultError> {
        let settings = Settings { pin_change_due: true, ..self.store.settings()? };
        self.configure(&settings, rng)
    }

    /// Replaces the PIN, whatever it was before.
    pub fn change_pin(
        self,
        new: &PinMaterial,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<(), CeremonyError> {
        self.change_pin_by(PinPolicy::default(), new, 0, rng)
    }

    /// Replaces the PIN, unless `policy` remembers the new one; `now` is in seconds since 1970. The container is not touched,
    /// unless something in it hangs on the PIN: what the old one granted ends before it does, and what demanded a new one ends
    /// after.
    pub fn change_pin_by(
        mut self,
        policy: PinPolicy,
        new: &PinMaterial,
        now: u64,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<(), CeremonyError> {
        let secrets = PinSecrets::derive(new, self.store.vault_id());
        let before = self.store.settings()?;
        if before.pin_change_due && secrets == self.proven {
            return Err(CeremonyError::PinChangeDue);
        }
        let last = [(self.proven.clone(), false), (secrets.clone(), true)];
        let (pin_history, was_used) = self.remember(policy, &before, &last)?;
        if was_used {
            return Err(CeremonyError::PinUsedBefore);
        }
        // Before it is in force: whoever has it changed and ends the program cannot keep that out of the log. A full disk may.
        self.store.note(Deed::ChangePin, None);
        self.store.write_log().ok();
        let granted_nothing = Settings { persistent_token: None, ..before.clone() };
        if granted_nothing != before {
            self.store.set_settings(&granted_nothing, rng)?;
            self.keys.commit_generation(self.store.generation(), Then::Continue)?;
        }
        // Where age does not matter nothing is written for it: a PIN may then pass for older than it is, and never for newer.
        let pin_set = if policy.expires() { Some(now) } else { before.pin_set };
        let after = Settings { pin_change_due: false, pin_set, pin_history, ..granted_nothing.clone() };
        if after == granted_nothing {
            return Ok(self.keys.change_pin(&secrets, Then::End)?);
        }
        self.keys.change_pin(&secrets, Then::Continue)?;
        self.store.set_settings(&after, rng)?;
        Ok(self.keys.commit_generation(self.store.generation(), Then::End)?)
    }

    /// The last PINs with these, and whether a new one of these is one of the last. The device tags them under a key that takes
    /// the PIN: what is kept helps nobody who guesses at one.
    pub(super) fn remember(
        &mut self,
        policy: PinPolicy,
        settings: &Settings,
        pins: &[(PinSecrets, bool)],
    ) -> Result<(Option<PinHistory>, bool), KeyStoreError> {
        if policy.history() == 0 {
            return Ok((settings.pin_history.clone(), false));
        }
        let mut was_used = false;
        let mut history = match settings.pin_history.clone() {
            Some(history) => history,
            None => PinHistory { key: self.keys.create_prf(None)?, tags: Vec::new() },
        };
        let salt = |pin: &PinSecrets| secret_from(|out| out.copy_from_slice(pin.auth.expose_secret()));
        let salts: Vec<_> = pins.iter().map(|(pin, _)| salt(pin)).collect();
        for (tag, &(_, is_new)) in self.keys.prf(None, &history.key, &salts)?.iter().zip(pins) {
            let tag = ByteArray::new(*tag.expose_secret());
            if history.tags.contains(&tag) {
                was_used |= is_new;
            } else {
                history.tags.push(tag);
            }
        }
        let too_many = history.tags.len().saturating_sub(policy.history());
        history.tags.drain(..too_many);
        Ok((Some(history), was_used))
    }
}
