//! A PIN change: both masks, the new authValue, the new mask only. Cut short anywhere, either the old PIN
//! works or the new one, and the next unlock settles it. The container is not touched.

use secrecy::ExposeSecret;
use vault_core::{
    Secret,
    keystore::{KeyStoreError, Then},
    pin::PinSecrets,
    secret_from,
};

use crate::{
    connection::Use,
    error::Result,
    link::{Link, Proven},
    raw,
    unlocked::{CHANGING, UnlockedTpm, secret_index, xor},
};

pub(crate) fn change(unlocked: &mut UnlockedTpm<'_>, new: &PinSecrets, then: Then) -> Result<()> {
    let Proven { secret, generation, .. } = &unlocked.tpm.on_link(&unlocked.anchor, |link| {
        // Before anything is written: a PIN index that somebody replaced takes any PIN, and V takes S alone.
        link.try_vault_secret()?;
        link.prove_pin(Then::Continue)?;
        let proven = link.take_proven()?;
        let (old, new) = (masked(&proven.secret, &proven.pin.mask), masked(&proven.secret, &new.mask));
        let both = secret_index(&old, &new, proven.generation | CHANGING);
        link.write_secret_index(&both, 0, Use::EncryptCommand, Then::Continue)?;
        Ok(proven)
    })?;
    // tss-esapi 7.7 lacks NV_ChangeAuth, and a TPM without resource manager has one client at a time.
    unlocked.tpm.close();
    unlocked.tpm.guarded(|tpm| raw::change_pin_auth(&tpm.route, &unlocked.anchor, secret, &new.auth))?;
    let settled = unlocked.tpm.on_link(&unlocked.anchor, |link| {
        link.set_pin(&new.auth)?;
        link.policy_session()?;
        if then == Then::End {
            link.flush_v()?;
        }
        link.prove_pin(then).map_err(|e| match e {
            // The TPM has just taken this PIN; whoever refuses it now is not the TPM that took it.
            KeyStoreError::WrongPin => KeyStoreError::Replaced { what: "the PIN index" },
            other => other,
        })?;
        write_settled(link, secret, &new.mask, *generation, then)
    });
    // The new PIN is in force by now; the next unlock settles the rest.
    settled.map_err(in_doubt)
}

pub(crate) fn in_doubt(error: KeyStoreError) -> KeyStoreError {
    match error {
        KeyStoreError::Replaced { .. } => error,
        other => KeyStoreError::PinInDoubt(Box::new(other)),
    }
}

/// Leaves one masked copy of S; the PIN was proven.
pub(crate) fn write_settled(
    link: &mut Link,
    secret: &Secret,
    mask: &Secret,
    generation: u64,
    then: Then,
) -> Result<()> {
    let data = secret_index(&masked(secret, mask), &random()?, generation);
    link.write_secret_index(&data, 0, Use::EncryptCommand, then)
}

pub(crate) fn masked(secret: &Secret, mask: &Secret) -> Secret {
    xor(secret.expose_secret(), mask)
}

pub(crate) fn random() -> Result<Secret> {
    let mut filled = Ok(());
    let secret = secret_from(|out| filled = getrandom::fill(out));
    filled.map_err(|e| KeyStoreError::Failed { during: "drawing random bytes", source: e.into() })?;
    Ok(secret)
}
