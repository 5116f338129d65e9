//! The beginning and the end of a vault.

use std::path::Path;

use super::VaultError;
use crate::{
    container::{Container, ContainerError, Damage, State, Vacancy},
    keystore::{KeyStore, KeyStoreError},
    pin::{PinMaterial, PinSecrets},
    secret_from,
};

/// Makes a vault in `dir`. What an interrupted set-up or wipe left, in the TPM too, is removed first.
pub fn setup(
    dir: &Path,
    keys: &mut dyn KeyStore,
    pin: &PinMaterial,
    rng: &mut dyn rand_core::CryptoRng,
) -> Result<(), VaultError> {
    clear_remains(dir, keys)?;
    let vacancy = Vacancy::reserve(dir)?;
    let mut vault_id = [0; 16];
    rng.fill_bytes(&mut vault_id);
    let key = secret_from(|out| rng.fill_bytes(out));
    let secrets = PinSecrets::derive(pin, &vault_id);
    let mut recorded = None;
    let provisioned = keys.provision(&secrets, &key, &mut |anchor| {
        recorded = Some(vacancy.create(vault_id, anchor, &key)?);
        Ok(())
    });
    match (provisioned, recorded) {
        (Ok(provisioned), Some(container)) => Ok(container.activate(provisioned.kind, &key)?),
        (Ok(_), None) => Err(KeyStoreError::Malformed { what: "the set-up record" }.into()),
        (Err(e), None) => Err(e.into()),
        (Err(e), Some(container)) => {
            // If this fails too, the record stays, and the next set-up tries again.
            drop(erase_and_remove(container, keys));
            Err(e.into())
        }
    }
}

/// Destroys the vault in `dir`: the TPM forgets its secret first, so that no copy of the container can
/// ever sign again. Works without the PIN, and on a container whose passkeys cannot be read.
pub fn wipe(dir: &Path, keys: &mut dyn KeyStore) -> Result<(), VaultError> {
    let container = Container::open(dir)?;
    if container.state()? != State::Active {
        return erase_and_remove(container, keys);
    }
    let key = match keys.container_key(&container.anchor()?) {
        Ok(key) => key,
        Err(e) if is_gone(&e) => return erase_and_remove(container, keys),
        Err(e) => return Err(e.into()),
    };
    let mut store = match container.unseal(&key) {
        Ok(store) => store,
        Err(ContainerError::Damaged { .. }) => return erase_and_remove(Container::open(dir)?, keys),
        Err(e) => return Err(e.into()),
    };
    // From here on the wipe completes, at the next start if not now.
    store.set_state(State::Wiping)?;
    let erased = keys.erase(store.anchor());
    if let Err(KeyStoreError::OwnerAuthNeeded | KeyStoreError::OwnerAuthWrong) = erased {
        // The TPM refused before anything was destroyed.
        store.set_state(State::Active)?;
    }
    remove_erased(store.into_container(), erased)
}

/// Completes a wipe that was begun. A mark that the vault did not write itself is not believed.
pub(super) fn finish_wipe(container: Container, keys: &mut dyn KeyStore) -> Result<(), VaultError> {
    match keys.container_key(&container.anchor()?) {
        Ok(key) => erase_and_remove(container.unseal(&key)?.into_container(), keys),
        Err(e) if is_gone(&e) => erase_and_remove(container, keys),
        Err(e) => Err(e.into()),
    }
}

fn clear_remains(dir: &Path, keys: &mut dyn KeyStore) -> Result<(), VaultError> {
    let container = match Container::open(dir) {
        Ok(container) => container,
        Err(ContainerError::NotFound { .. }) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    match container.state()? {
        State::Active => Err(ContainerError::Exists { dir: dir.to_owned() }.into()),
        // A set-up that was interrupted has no passkeys: that mark is not believed.
        State::Provisioning if !container.is_empty()? => Err(ContainerError::from(Damage::Header).into()),
        State::Provisioning => Ok(erase_and_remove(container, keys)?),
        State::Wiping => Ok(finish_wipe(container, keys)?),
    }
}

fn erase_and_remove(container: Container, keys: &mut dyn KeyStore) -> Result<(), VaultError> {
    let erased = keys.erase(&container.anchor()?);
    remove_erased(container, erased)
}

fn remove_erased(container: Container, erased: Result<(), KeyStoreError>) -> Result<(), VaultError> {
    match erased {
        Err(KeyStoreError::KeysGone) | Ok(()) => Ok(container.remove()?),
        Err(e) => Err(e.into()),
    }
}

/// Whether the vault's objects are no longer in this TPM, so that there is nothing left to read or protect.
fn is_gone(error: &KeyStoreError) -> bool {
    matches!(error, KeyStoreError::KeysGone | KeyStoreError::Erased)
}
