//! Passkeys that take presence alone, and no PIN.

use super::{Assertion, CeremonyError, Vault, unlocked::presence_parent};
use crate::{
    Secret,
    container::{AccountId, Takes},
    keystore::KeyBlob,
    webauthn::{AuthenticatorData, ClientDataHash, RpId, UserPresent},
};

impl Vault<'_> {
    /// Signs in with one passkey of `rp_id` that takes presence alone (WebAuthn Level 3 §6.3.3). The assertion does not say that
    /// a user was verified.
    pub fn get_assertion_by_presence(
        &mut self,
        rp_id: &RpId,
        id: AccountId,
        client_data: &ClientDataHash,
        present: Option<UserPresent>,
        extensions: &ciborium::Value,
    ) -> Result<Assertion, CeremonyError> {
        let account = self.store.account(id)?;
        if account.rp_id != *rp_id || account.takes != Takes::Presence {
            return Err(CeremonyError::NotAllowed);
        }
        let parent = presence_parent(&self.store)?;
        let data = AuthenticatorData::for_assertion(rp_id, extensions, None, present);
        let digest = data.digest_to_sign(client_data);
        let signature = self.keys.sign_present(self.store.anchor(), &parent, &account.key, &digest)?;
        Assertion::verified(id, account, data, signature, &digest)
    }

    /// HMAC-SHA256 of each salt under such a passkey's [`Extras::prf`](crate::container::Extras::prf).
    pub fn prf_by_presence(&mut self, key: &KeyBlob, salts: &[Secret]) -> Result<Vec<Secret>, CeremonyError> {
        Ok(self.keys.prf_present(self.store.anchor(), &presence_parent(&self.store)?, key, salts)?)
    }
}
