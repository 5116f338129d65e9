//! An old copy of the container, let in again.

use super::{Vault, prove_pin};
use crate::{
    UnlockError,
    container::{Deed, Settings},
    keystore::Then,
    pin::PinMaterial,
};

/// What became of an old copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restored {
    /// It is the latest now. So many changes that were made after it are lost.
    Accepted {
        /// How many.
        lost: u64,
    },
    /// It was the latest already.
    WasLatest,
    /// It was the latest, and what the TPM remembered was older. Now they agree.
    TpmCaughtUp,
}

impl Vault<'_> {
    /// Lets an old copy of the container in, by the PIN: from then on it is the latest, and every other copy is an old one.
    pub fn accept_old_copy(
        &mut self,
        pin: &PinMaterial,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<Restored, UnlockError> {
        let secrets = self.secrets(pin);
        let Self { store, keys } = self;
        let mut keys = prove_pin(store, *keys, &secrets)?;
        let (file, tpm) = (store.generation(), keys.generation());
        if file == tpm {
            return Ok(Restored::WasLatest);
        }
        // A PIN index that somebody replaced would do without this.
        keys.confirm()?;
        if file > tpm {
            keys.commit_generation(file, Then::End)?;
            return Ok(Restored::TpmCaughtUp);
        }
        // A token that was ended since must not live again.
        let settings = Settings { persistent_token: None, ..store.settings()? };
        // One ahead of the TPM, as after any change: cut short here, the next unlock completes it.
        store.note(Deed::Restore, None);
        store.overtake(tpm, &settings, rng)?;
        keys.commit_generation(store.generation(), Then::End)?;
        Ok(Restored::Accepted { lost: tpm - file })
    }
}
