//! Passkeys that take presence alone, and no PIN.

use super::{
    Assertion, CeremonyError, Vault, WantedAssertion,
    unlocked::{note_use, presence_parent},
};
use crate::{
    Secret,
    container::Takes,
    keystore::KeyBlob,
    webauthn::{AuthenticatorData, UserPresent},
};

impl Vault<'_> {
    /// Signs in with a passkey that takes presence alone (WebAuthn Level 3 §6.3.3). The assertion does not say that a user was
    /// verified. `now` is in seconds since 1970.
    pub fn get_assertion_by_presence(
        &mut self,
        wanted: WantedAssertion<'_>,
        present: Option<UserPresent>,
        now: u64,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<Assertion, CeremonyError> {
        let WantedAssertion { rp_id, id, client_data, extensions } = wanted;
        let account = self.store.account(id)?;
        if account.rp_id != *rp_id || account.takes != Takes::Presence {
            return Err(CeremonyError::NotAllowed);
        }
        let parent = presence_parent(&self.store)?;
        let data = AuthenticatorData::for_assertion(rp_id, extensions, None, present);
        let digest = data.digest_to_sign(client_data);
        let signature = self.keys.sign_present(self.store.anchor(), &parent, &account.key, &digest)?;
        let made = Assertion::verified(id, account, data, signature, &digest)?;
        note_use(&mut self.store, id, &made.account, now, rng);
        Ok(made)
    }

    /// HMAC-SHA256 of each salt under such a passkey's [`Extras::prf`](crate::container::Extras::prf).
    pub fn prf_by_presence(&mut self, key: &KeyBlob, salts: &[Secret]) -> Result<Vec<Secret>, CeremonyError> {
        Ok(self.keys.prf_present(self.store.anchor(), &presence_parent(&self.store)?, key, salts)?)
    }
}
