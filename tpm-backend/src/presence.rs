//! Presence keys: used without the PIN. Their parent's secret lies in the sealed container, so the machine alone can.

use secrecy::ExposeSecret;
use tss_esapi::{
    handles::KeyHandle,
    interface_types::session_handles::AuthSession,
    structures::{Auth, Public},
};
use vault_core::{
    Secret,
    keystore::{CreatedKey, KeyBlob, PresenceParent, Signature},
};
use zeroize::Zeroizing;

use crate::{
    anchor::WrappedKey,
    error::{During, Result},
    keys,
    link::Link,
    pin_change::random,
    templates::{self, Opens},
};

pub(crate) fn create_parent(link: &mut Link) -> Result<PresenceParent> {
    let secret = random()?;
    let auth = Auth::try_from(secret.expose_secret().to_vec()).during("making a parent")?;
    let srk = link.srk;
    let made = keys::create(link, srk, &templates::presence_parent()?, Some(auth))?;
    Ok(PresenceParent { blob: made.to_blob()?, auth: Zeroizing::new(*secret.expose_secret()) })
}

pub(crate) fn create_key(link: &mut Link, parent: &PresenceParent) -> Result<CreatedKey> {
    let key = create(link, parent, &templates::account_key(Opens::Presence)?)?;
    Ok(CreatedKey { public: keys::point(&key.public)?, blob: key.to_blob()? })
}

pub(crate) fn create_prf(link: &mut Link, parent: &PresenceParent) -> Result<KeyBlob> {
    create(link, parent, &templates::prf_key(Opens::Presence)?)?.to_blob()
}

pub(crate) fn sign(
    link: &mut Link,
    parent: &PresenceParent,
    key: &KeyBlob,
    digest: &[u8; 32],
) -> Result<Signature> {
    // Nothing else here would notice that the vault was wiped.
    link.require_secret_index()?;
    let key = load(link, parent, key)?;
    // Its authorization is empty: nothing to hide, so no session. Whoever changes the signature only breaks it.
    let signature = keys::sign(link, AuthSession::Password, key, digest)?;
    link.tpm.flush(key)?;
    Ok(signature)
}

pub(crate) fn prf(
    link: &mut Link,
    parent: &PresenceParent,
    key: &KeyBlob,
    salts: &[Secret],
) -> Result<Vec<Secret>> {
    link.require_secret_index()?;
    let key = load(link, parent, key)?;
    let outputs = keys::prf(link, key, salts, |link| link.hmac())?;
    link.tpm.flush(key)?;
    Ok(outputs)
}

fn create(link: &mut Link, parent: &PresenceParent, template: &Public) -> Result<WrappedKey> {
    let parent = load_parent(link, parent)?;
    let made = keys::create(link, parent, template, None)?;
    unload_parent(link, parent)?;
    Ok(made)
}

fn load(link: &mut Link, parent: &PresenceParent, key: &KeyBlob) -> Result<KeyHandle> {
    let key = WrappedKey::from_blob(key)?;
    let parent = load_parent(link, parent)?;
    let key = keys::load(link, parent, key)?;
    unload_parent(link, parent)?;
    Ok(key)
}

fn load_parent(link: &mut Link, parent: &PresenceParent) -> Result<KeyHandle> {
    let step = "loading the parent of presence keys";
    let WrappedKey { public, private } = WrappedKey::from_blob(&parent.blob)?;
    let srk = link.srk;
    let loaded = link.tpm.load(AuthSession::Password, |c| c.load(srk, private, public)).during(step)?;
    link.set_auth(loaded.into(), &*parent.auth, step)?;
    Ok(loaded)
}

fn unload_parent(link: &mut Link, parent: KeyHandle) -> Result<()> {
    // libtss2 frees its copy without wiping it.
    link.set_auth(parent.into(), &[0xff; 32], "forgetting a secret")?;
    link.tpm.flush(parent)
}
