//! A vault: its container and its keys together.

mod errors;
mod life;
mod pin_change;
mod presence;
mod recovery;
mod restore;
mod tidy;
mod unlocked;

pub use errors::{CeremonyError, OpenError, RecoveryError, UnlockError, VaultError};
pub use life::{Wiped, clear_remains, setup, wipe};
pub use restore::Restored;
pub use tidy::Tidying;
pub use unlocked::{Assertion, MadeCredential, NewCredential, Unlocked, WantedAssertion};

use std::path::Path;

use crate::{
    container::{
        Account, AccountId, Container, ContainerError, Deed, LastUse, Log, Refusal, Settings, State, Store,
        Subject,
    },
    keystore::{KeyStore, KeyStoreError, Then, TpmKind, TpmStatus, UnlockedKeys},
    pin::{PinMaterial, PinSecrets},
    text::kept,
    webauthn::{CreateRequest, GetRequest, RpId, User},
};

/// An opened vault; the PIN has not been asked for.
pub struct Vault<'k> {
    store: Store,
    keys: &'k mut dyn KeyStore,
}

/// Wrong PINs that are still allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum TriesLeft {
    /// As the TPM counts.
    ByTpm(u32),
    /// As Passhold counts, because this TPM shows its count only to its owner. The TPM still decides.
    ByPasshold(u32),
}

impl Drop for Vault<'_> {
    fn drop(&mut self) {
        // Before the container's lock goes, or the next process finds the TPM's few places taken.
        self.keys.release();
    }
}

impl TriesLeft {
    /// The number, whoever counted.
    #[must_use]
    pub fn count(self) -> u32 {
        match self {
            Self::ByTpm(count) | Self::ByPasshold(count) => count,
        }
    }
}

/// The limit that set-up writes into the TPM.
pub const PIN_LIMIT: u32 = 8;

impl<'k> Vault<'k> {
    /// Opens the vault in `dir`. A wipe that was interrupted is completed, and that is the error.
    pub fn open(dir: &Path, keys: &'k mut dyn KeyStore) -> Result<Self, OpenError> {
        Self::open_container(Container::open(dir)?, keys)
    }

    /// Opens the vault in a container that the caller has locked.
    pub fn open_container(container: Container, keys: &'k mut dyn KeyStore) -> Result<Self, OpenError> {
        match container.state()? {
            State::Active | State::Resetting => {}
            State::Provisioning => return Err(OpenError::Unfinished),
            State::Wiping => {
                return Err(match life::clear(container, keys) {
                    Ok(wiped) => OpenError::Wiped(wiped),
                    Err(VaultError::KeyStore(
                        e @ (KeyStoreError::OwnerAuthNeeded | KeyStoreError::OwnerAuthWrong),
                    )) => OpenError::WipePending(e),
                    Err(e) => e.into(),
                });
            }
        }
        let key = keys.container_key(&container.anchor()?)?;
        match container.unseal(&key) {
            Ok(store) => Ok(Self { store, keys }),
            Err(e) => {
                keys.release();
                Err(e.into())
            }
        }
    }

    /// What the clock says, in seconds since 1970: the time of what is written into the log from now on.
    #[must_use]
    pub fn at(mut self, now: u64) -> Self {
        self.store.set_now(now);
        self
    }

    /// What happened to the vault.
    pub fn log(&self) -> Result<Log, ContainerError> {
        self.store.log()
    }

    /// Writes into the log that something was done with the vault as a whole.
    pub fn note(&mut self, deed: Deed) -> Result<(), ContainerError> {
        self.store.note(deed, None);
        self.store.write_log()
    }

    /// Writes into the log that something was not done.
    pub fn note_refusal(
        &mut self,
        deed: Deed,
        refusal: Refusal,
        subject: Option<Subject>,
    ) -> Result<(), ContainerError> {
        self.store.note_refusal(deed, refusal, subject)?;
        self.store.write_log()
    }

    /// All passkeys, oldest first.
    pub fn accounts(&self) -> Result<Vec<(AccountId, Account)>, ContainerError> {
        self.store.accounts()
    }

    /// The passkeys in the bin, oldest first.
    pub fn bin(&self) -> Result<Vec<(AccountId, Account)>, ContainerError> {
        self.store.bin()
    }

    /// What `wanted` makes of each passkey, those in the bin too, and its last use, oldest first.
    pub fn each<T>(
        &self,
        wanted: impl FnMut(AccountId, Account, LastUse) -> Option<T>,
    ) -> Result<Vec<T>, ContainerError> {
        self.store.each(wanted)
    }

    /// When a passkey was last used.
    pub fn last_use(&self, id: AccountId) -> Result<LastUse, ContainerError> {
        self.store.last_use(id)
    }

    /// One relying party's passkeys, oldest first.
    pub fn accounts_of(&self, rp_id: &RpId) -> Result<Vec<(AccountId, Account)>, ContainerError> {
        self.store.accounts_of(rp_id)
    }

    /// One passkey.
    pub fn account(&self, id: AccountId) -> Result<Account, ContainerError> {
        self.store.account(id)
    }

    /// The passkeys that can answer `request`, oldest first.
    pub fn matching(&self, request: &GetRequest) -> Result<Vec<(AccountId, Account)>, ContainerError> {
        let mut accounts = self.store.accounts_of(&request.rp_id)?;
        accounts.retain(|(_, account)| request.allows(account));
        Ok(accounts)
    }

    /// The passkey that `request` excludes, if one is here (WebAuthn Level 3 §6.3.2 step 3).
    pub fn excluded(&self, request: &CreateRequest) -> Result<Option<(AccountId, Account)>, ContainerError> {
        let accounts = self.store.accounts_of(&request.rp_id)?;
        Ok(accounts.into_iter().find(|(_, account)| request.excludes(&account.credential_id)))
    }

    /// The vault's random id.
    #[must_use]
    pub fn id(&self) -> [u8; 16] {
        *self.store.vault_id()
    }

    /// The kind of TPM it was made in.
    #[must_use]
    pub fn kind(&self) -> TpmKind {
        self.store.kind()
    }

    /// How many changes of membership its file has seen; the TPM's count is told for the PIN alone.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.store.generation()
    }

    /// What the vault keeps besides its passkeys.
    pub fn settings(&self) -> Result<Settings, ContainerError> {
        self.store.settings()
    }

    /// Gives a passkey another name, or none.
    pub fn rename(
        &mut self,
        id: AccountId,
        label: Option<String>,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<Account, ContainerError> {
        let label = label.map(|label| kept(&label));
        let account = Account { label, ..self.store.account(id)? };
        self.store.update(Deed::Rename, id, &account, rng)?;
        Ok(account)
    }

    /// Gives a passkey's account the names that its relying party has for it now.
    pub fn update_user(
        &mut self,
        id: AccountId,
        user: &User,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<(), ContainerError> {
        let (user_name, display_name) = (kept(&user.name), kept(&user.display_name));
        let account = Account { user_name, display_name, ..self.store.account(id)? };
        self.store.update(Deed::Update, id, &account, rng)
    }

    /// What the TPM says of this vault without its PIN.
    pub fn status(&mut self) -> Result<TpmStatus, KeyStoreError> {
        self.keys.status(Some(self.store.anchor()))
    }

    /// How many wrong PINs are still allowed, if some were wrong since the last right one; asks the
    /// TPM only then.
    pub fn tries_left_if_fewer(&mut self) -> Result<Option<TriesLeft>, UnlockError> {
        Ok(if self.store.wrong_pins() == 0 { None } else { Some(self.tries_left()?) })
    }

    /// How many wrong PINs are still allowed.
    pub fn tries_left(&mut self) -> Result<TriesLeft, UnlockError> {
        let status = self.status()?;
        Ok(self.tries_by(&status))
    }

    /// The same, as this status tells it. It may have been changed on its way: more than there can be is not believed.
    #[must_use]
    pub fn tries_by(&self, status: &TpmStatus) -> TriesLeft {
        let own = TriesLeft::ByPasshold(PIN_LIMIT.saturating_sub(self.store.wrong_pins()));
        status.wrong_pins.map_or(own, |wrong| TriesLeft::ByTpm(wrong.left().min(PIN_LIMIT)))
    }

    /// What this vault's TPM is given of a PIN. Takes tens of milliseconds, on purpose.
    #[must_use]
    pub fn secrets(&self, pin: &PinMaterial) -> PinSecrets {
        PinSecrets::derive(pin, self.store.vault_id())
    }

    /// Proves the PIN to the TPM, and the container's generation against the TPM's.
    pub fn unlock(&mut self, pin: &PinMaterial) -> Result<Unlocked<'_>, UnlockError> {
        let secrets = self.secrets(pin);
        self.unlock_with(&secrets)
    }

    /// The same, with what was derived of the PIN before.
    pub fn unlock_with(&mut self, secrets: &PinSecrets) -> Result<Unlocked<'_>, UnlockError> {
        let Self { store, keys } = self;
        let mut keys = prove_pin(store, *keys, secrets)?;
        check_generation(store, keys.as_mut())?;
        recovery::settle(store, keys.as_mut())?;
        Ok(Unlocked::new(store, keys, secrets))
    }
}

/// Shows the PIN to the TPM, which counts it if it is wrong.
fn prove_pin<'k>(
    store: &mut Store,
    keys: &'k mut dyn KeyStore,
    secrets: &PinSecrets,
) -> Result<Box<dyn UnlockedKeys + 'k>, UnlockError> {
    let proven = keys.unlock(store.anchor(), secrets);
    match &proven {
        Ok(_) => remember_wrong_pins(store, |_| 0),
        Err(KeyStoreError::WrongPin) => {
            store.note_refusal(Deed::ProvePin, Refusal::WrongPin, None).ok();
            remember_wrong_pins(store, |count| count.saturating_add(1));
        }
        Err(KeyStoreError::PinLocked) => refused(store, Deed::ProvePin, Refusal::PinLocked, None),
        Err(_) => {}
    }
    Ok(proven?)
}

/// A log that cannot be written may not hide why something was refused.
fn refused(store: &mut Store, deed: Deed, refusal: Refusal, subject: Option<Subject>) {
    store.note_refusal(deed, refusal, subject).and_then(|()| store.write_log()).ok();
}

/// Passhold's own count is a hint for the next prompt. The TPM has decided by now, and a full disk must not hide
/// what it said.
fn remember_wrong_pins(store: &mut Store, count: impl FnOnce(u32) -> u32) {
    let before = store.wrong_pins();
    let now = count(before);
    if now != before {
        store.set_wrong_pins(now).ok();
    }
}

/// A file behind the TPM is an old copy. One that is one ahead is a crash between the two, and healed.
fn check_generation(store: &Store, keys: &mut (dyn UnlockedKeys + '_)) -> Result<(), UnlockError> {
    let (file, tpm) = (store.generation(), keys.generation());
    if file == tpm {
        Ok(())
    } else if Some(file) == tpm.checked_add(1) {
        Ok(keys.commit_generation(file, Then::Continue)?)
    } else {
        Err(UnlockError::RolledBack { file, tpm })
    }
}
