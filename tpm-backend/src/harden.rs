//! The TPM's dictionary-attack protection, set so that only its administrator can undo it.

use secrecy::{ExposeSecret, SecretSlice};
use tss_esapi::{constants::PropertyTag, structures::Auth};
use vault_core::{
    Secret,
    keystore::{Anchor, KeyStoreError},
};

use crate::{
    anchor::Place,
    raw, srk,
    status::{properties, value},
    tpm::Tpm,
};

/// How many failures the TPM then allows.
pub const LIMIT: u32 = 32;
/// How many seconds until it forgets one.
pub const RECOVERY: u32 = 600;

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HardenError {
    /// The TPM refused the lockout authorization. It takes no other for a time, a day on most.
    #[error("wrong lockout authorization")]
    WrongAuthorization,
    /// Which authorization is in force now is not known: the one before or the new one.
    #[error("the new lockout authorization may be in force, or still the one before")]
    InDoubt(#[source] KeyStoreError),
    /// The TPM, before the authorization was changed.
    #[error(transparent)]
    KeyStore(#[from] KeyStoreError),
}

impl Tpm {
    /// Allows [`LIMIT`] failures, one forgotten every [`RECOVERY`] seconds, and replaces the lockout authorization.
    ///
    /// The session that carries it is salted with the vault's key, which its file vouches for; where there is no vault, with
    /// the SRK as the TPM shows it, which nobody vouches for (docs/adr/0001).
    pub fn harden(
        &mut self,
        anchor: Option<&Anchor>,
        old: Option<&SecretSlice<u8>>,
        new: &Secret,
    ) -> Result<(), HardenError> {
        self.close();
        // Longer than any can be: the TPM would count it as wrong.
        if old.is_some_and(|old| Auth::try_from(old.expose_secret().to_vec()).is_err()) {
            return Err(HardenError::WrongAuthorization);
        }
        let place = anchor.map(Place::from_anchor).transpose()?;
        self.guarded(|tpm| {
            let owner = tpm.owner_auth()?;
            let mut connection = tpm.route.connect()?;
            let changing = properties(&mut connection, PropertyTag::Permanent)?;
            let (srk_name, v) = match place {
                Some(place) => (place.srk_name, Some(place.v)),
                None => (srk::find_or_make(&mut connection, owner.as_ref())?.1, None),
            };
            // Without a resource manager the TPM has one client at a time.
            drop(connection);
            let done = raw::harden(
                &tpm.route,
                &raw::Hardening {
                    srk_name: &srk_name,
                    v: v.as_ref(),
                    old: old.map(ExposeSecret::expose_secret).unwrap_or_default(),
                    new,
                    limits: [LIMIT, RECOVERY, value(&changing, PropertyTag::LockoutRecovery)],
                },
            );
            match done {
                Err(HardenError::KeyStore(e)) => Err(e),
                done => Ok(done),
            }
        })?
    }
}
