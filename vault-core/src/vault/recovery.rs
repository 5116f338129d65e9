//! The way back for whoever forgot the PIN.

use super::{
    RecoveryError, UnlockError, Unlocked, Vault, VaultError, check_generation, refused, remember_wrong_pins,
};
use crate::{
    RecoveryCode, RecoverySecrets,
    container::{CodeMark, Deed, Refusal, Settings, State, Store},
    keystore::{KeyStoreError, UnlockedKeys},
    pin::{PinMaterial, PinPolicy},
};

impl Vault<'_> {
    /// Whether this is the recovery code in force; nothing is changed, and no guess is counted.
    pub fn check_recovery_code(&mut self, code: &RecoveryCode) -> Result<RecoverySecrets, RecoveryError> {
        let settings = self.store.settings()?;
        if settings.recovery_code.is_none() {
            return Err(RecoveryError::NoCode);
        }
        let secrets = RecoverySecrets::derive(code, self.store.vault_id());
        // The TPM's word comes first: where a renewal was cut short, it alone knows which one is in force.
        match self.keys.check_recovery(self.store.anchor(), &secrets) {
            Ok(()) => Ok(secrets),
            Err(KeyStoreError::WrongCode) => {
                let known = settings.recovery_code.iter().chain(&settings.spent_codes);
                let spent = known.into_iter().find(|mark| mark.check == secrets.check);
                let refusal = if spent.is_some() { Refusal::SpentCode } else { Refusal::WrongCode };
                refused(&mut self.store, Deed::ResetPin, refusal, None);
                Err(spent.map_or(RecoveryError::WrongCode, |mark| RecoveryError::SpentCode { at: mark.at }))
            }
            Err(e) => Err(e.into()),
        }
    }

    /// [`Vault::reset_pin_by`] a policy that remembers no PIN.
    pub fn reset_pin(
        &mut self,
        code: &RecoveryCode,
        new: &PinMaterial,
        next: &RecoveryCode,
        now: u64,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<(), RecoveryError> {
        self.reset_pin_by(PinPolicy::default(), code, new, next, now, rng).map(drop)
    }

    /// Sets a new PIN by the recovery code, which is spent by it: `next` is in force afterwards. No passkey is touched. Cut
    /// short anywhere, it can be done again with the same code. True if `policy` remembers the new PIN, which shows only once it
    /// is set: it must be changed before anything is signed.
    pub fn reset_pin_by(
        &mut self,
        policy: PinPolicy,
        code: &RecoveryCode,
        new: &PinMaterial,
        next: &RecoveryCode,
        now: u64,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<bool, RecoveryError> {
        let code = self.check_recovery_code(code)?;
        let new = self.secrets(new);
        // Until it is done, a PIN that is accepted may not open anything. That must not look like an attack.
        self.store.note(Deed::ResetPin, None);
        self.store.set_state(State::Resetting)?;
        let anchor = self.store.anchor().clone();
        let mut keys = self.keys.reset_pin(&anchor, &code, &new).map_err(RecoveryError::CutShort)?;
        self.store.set_state(State::Active).map_err(|e| RecoveryError::Reset(e.into()))?;
        remember_wrong_pins(&mut self.store, |_| 0);
        check_generation(&self.store, keys.as_mut()).map_err(RecoveryError::Reset)?;
        let settings = self.store.settings().map_err(|e| RecoveryError::Reset(e.into()))?;
        let mut unlocked = Unlocked::new(&mut self.store, keys, &new);
        let remembered = unlocked.remember(policy, &settings, &[(new.clone(), true)]);
        let (pin_history, was_used) =
            remembered.map_err(|e| RecoveryError::Reset(UnlockError::KeyStore(e)))?;
        // Whoever reset the PIN may not be who got the token, and nobody knows how long the new PIN is.
        let pin_set = settings.pin_set.map(|_| now);
        let settings =
            Settings { persistent_token: None, pin_change_due: was_used, pin_set, pin_history, ..settings };
        unlocked.renew_code(settings, next, now, rng).map_err(|e| {
            RecoveryError::Reset(match e {
                VaultError::Container(e) => e.into(),
                VaultError::KeyStore(e) => UnlockError::KeyStore(e),
            })
        })?;
        Ok(was_used)
    }
}

impl Unlocked<'_> {
    /// Puts another recovery code in force, or the first one.
    pub fn renew_recovery_code(
        self,
        code: &RecoveryCode,
        now: u64,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<(), VaultError> {
        let settings = self.store.settings()?;
        self.renew_code(settings, code, now, rng)
    }

    pub(super) fn renew_code(
        mut self,
        mut settings: Settings,
        code: &RecoveryCode,
        now: u64,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<(), VaultError> {
        let secrets = RecoverySecrets::derive(code, self.store.vault_id());
        // In the TPM first: the code that a person was shown counts as soon as the one before does not.
        self.keys.renew_recovery(&secrets)?;
        let mark = CodeMark { check: secrets.check, at: now };
        if let Some(before) = settings.recovery_code.replace(mark) {
            settings.spent_codes.push(CodeMark { at: now, ..before });
            let too_many = settings.spent_codes.len().saturating_sub(Settings::MAX_SPENT_CODES);
            settings.spent_codes.drain(..too_many);
        }
        self.store.note(Deed::RenewCode, None);
        self.change(|store| store.set_settings(&settings, rng))
    }
}

/// After a PIN reset that was cut short, only the vault key tells whether the PIN that the TPM has just accepted opens it.
pub(super) fn settle(store: &mut Store, keys: &mut (dyn UnlockedKeys + '_)) -> Result<(), UnlockError> {
    if store.state() != State::Resetting {
        return Ok(());
    }
    match keys.confirm() {
        Ok(()) => Ok(store.set_state(State::Active)?),
        Err(KeyStoreError::Replaced { .. }) => Err(UnlockError::ResetUnfinished),
        Err(e) => Err(e.into()),
    }
}
