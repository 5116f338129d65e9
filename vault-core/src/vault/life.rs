//! The beginning and the end of a vault.

use std::path::Path;

use super::VaultError;
use crate::{
    container::{Container, ContainerError, Damage, State, Vacancy},
    keystore::{Erased, KeyStore, KeyStoreError, Mandate},
    pin::{PinMaterial, PinSecrets},
    secret_from,
};

/// Makes a vault in `dir`. What an interrupted set-up or wipe left, in the TPM too, is removed first.
/// `now` is in seconds since 1970.
pub fn setup(
    dir: &Path,
    keys: &mut dyn KeyStore,
    pin: &PinMaterial,
    now: u64,
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
        recorded = Some((vacancy.create(vault_id, anchor, &key)?, anchor.clone()));
        Ok(())
    });
    match (provisioned, recorded) {
        (Ok(provisioned), Some((container, _))) => Ok(container.activate(provisioned.kind, &key, now)?),
        (Ok(_), None) => Err(KeyStoreError::Malformed { what: "the set-up record" }.into()),
        (Err(e), None) => Err(e.into()),
        (Err(e), Some((container, anchor))) => {
            // If this fails too, the record stays, and the next set-up tries again.
            drop(remove(container, keys.erase(&anchor, Mandate::Given), Header::Authentic));
            Err(e.into())
        }
    }
}

/// What a wipe destroyed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wiped {
    /// The secret in the TPM, and the file: no copy of it can sign again.
    SecretAndFile,
    /// The file, and the secret that it named. It was not as Passhold wrote it: a good copy may name another secret.
    SecretItNamed,
    /// The file alone: this TPM holds no secret of it. If another one made it, a copy still signs there.
    File,
}

/// Destroys the vault in `dir`: the TPM forgets its secret first, so that no copy of the container can
/// ever sign again. Works without the PIN, and on a container whose passkeys cannot be read.
pub fn wipe(dir: &Path, keys: &mut dyn KeyStore) -> Result<Wiped, VaultError> {
    let container = Container::open(dir)?;
    let anchor = container.anchor()?;
    let mut store = match keys.container_key(&anchor) {
        Ok(key) => match container.unseal(&key) {
            Ok(store) => store,
            Err(ContainerError::Damaged { .. }) => {
                return remove(Container::open(dir)?, keys.erase(&anchor, Mandate::Given), Header::Unproven);
            }
            Err(e) => return Err(e.into()),
        },
        Err(e @ KeyStoreError::KeysGone(_)) => return remove(container, Err(e), Header::Unproven),
        Err(KeyStoreError::Erased | KeyStoreError::Replaced { .. }) => {
            return remove(container, keys.erase(&anchor, Mandate::Given), Header::Unproven);
        }
        Err(e) => return Err(e.into()),
    };
    // From here on the wipe completes, at the next start if not now.
    let before = store.state();
    store.set_state(State::Wiping)?;
    let erased = keys.erase(&anchor, Mandate::Given);
    if let Err(KeyStoreError::OwnerAuthNeeded | KeyStoreError::OwnerAuthWrong) = erased {
        // The TPM refused before anything was destroyed. If this fails, the wipe stays pending, and says so.
        store.set_state(before).ok();
    }
    remove(store.into_container(), erased, Header::Authentic)
}

/// Removes what a cut set-up or wipe left, and nothing that may be a vault: whoever can write to the file can mark it so. The
/// mark is believed under the container key, which is erased last, or where nothing is left to destroy. In another TPM it
/// means nothing.
pub(super) fn clear(container: Container, keys: &mut dyn KeyStore) -> Result<Wiped, VaultError> {
    let anchor = container.anchor()?;
    match keys.container_key(&anchor) {
        Ok(key) => {
            let container = container.unseal(&key).inspect_err(|_| keys.release())?.into_container();
            remove(container, keys.erase(&anchor, Mandate::Given), Header::Authentic)
        }
        Err(KeyStoreError::Erased | KeyStoreError::Replaced { .. }) => {
            match keys.erase(&anchor, Mandate::Missing) {
                Err(KeyStoreError::Replaced { .. }) => Err(ContainerError::from(Damage::Header).into()),
                erased => remove(container, erased, Header::Unproven),
            }
        }
        Err(e) => Err(e.into()),
    }
}

/// Removes what an interrupted set-up or wipe left in `dir` and in the TPM. A vault stays, and no folder is no error.
pub fn clear_remains(dir: &Path, keys: &mut dyn KeyStore) -> Result<(), VaultError> {
    let container = match Container::open(dir) {
        Ok(container) => container,
        Err(ContainerError::NotFound { .. }) => return Ok(()),
        Err(e) => return Err(e.into()),
    };
    match container.state()? {
        State::Active | State::Resetting => Ok(()),
        // A set-up that was interrupted has no passkeys.
        State::Provisioning if !container.is_empty()? => Err(ContainerError::from(Damage::Header).into()),
        State::Provisioning | State::Wiping => clear(container, keys).map(drop),
    }
}

/// Whether the header that says what to erase is known to be Passhold's own.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Header {
    Authentic,
    Unproven,
}

fn remove(
    container: Container,
    erased: Result<Erased, KeyStoreError>,
    header: Header,
) -> Result<Wiped, VaultError> {
    let wiped = match (erased, header) {
        (Ok(_), Header::Authentic) => Wiped::SecretAndFile,
        (Ok(Erased::Secret), Header::Unproven) => Wiped::SecretItNamed,
        (Ok(Erased::Nothing), Header::Unproven) | (Err(KeyStoreError::KeysGone(_)), _) => Wiped::File,
        (Err(e), _) => return Err(e.into()),
    };
    container.remove()?;
    Ok(wiped)
}
