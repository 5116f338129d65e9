//! How a command learns that the TPM accepted the PIN.

use std::rc::Rc;

use vault_core::{
    UnlockError,
    keystore::KeyStoreError,
    pin::{PinPolicy, PinSecrets},
    webauthn::{ClientDataHash, RpId, UserPresent},
};

use crate::{
    Ask, Authenticator, Declined, Env, Status,
    failure::{Failure, Result},
    parameters::PinUvAuth,
    token::Permissions,
};

/// §6.5.3.1 `maxUvAttemptsForInternalRetries`.
const ATTEMPTS: usize = 3;

/// The PIN was proven, and perhaps a person confirmed in doing so.
pub(crate) struct Verification {
    pub(crate) unlock: Rc<PinSecrets>,
    pub(crate) present: Option<UserPresent>,
}

/// Why built-in user verification failed (§6.5.3.1).
pub(crate) enum UvError {
    /// Nobody answered, or somebody refused.
    Declined(Declined),
    /// The TPM takes no PIN any more.
    Blocked,
    /// Too many wrong ones for one request.
    Wrong,
    /// Something else.
    Failed(Failure),
}

impl<E: Into<Failure>> From<E> for UvError {
    fn from(error: E) -> Self {
        Self::Failed(error.into())
    }
}

/// By a token (§6.1.2 step 11.1, §6.2.2 step 6.1). Whether it vouches for presence too is asked where that is spent.
pub(crate) fn by_token(
    authenticator: &mut Authenticator,
    auth: &PinUvAuth,
    client_data: &ClientDataHash,
    permission: Permissions,
    rp_id: &RpId,
) -> Result<Verification> {
    let token = authenticator.token_that_proves(auth, client_data)?;
    token.use_for(permission, rp_id)?;
    Ok(Verification { unlock: Rc::clone(&token.unlock), present: None })
}

/// By our own prompt: `performBuiltInUv` (§6.5.3.1).
pub(crate) fn by_prompt(
    ask: &Ask<'_>,
    policy: PinPolicy,
    env: &mut Env<'_>,
) -> Result<Verification, UvError> {
    // There is one thing that this PIN is still good for (§6.5.5.7), so nobody types it in vain.
    if env.settings()?.demand_pin_change(policy, env.unix_time) {
        return Err(UvError::Failed(Status::PinPolicyViolation.into()));
    }
    for _ in 0..ATTEMPTS {
        let tries = env.vaults.open()?.tries_left_if_fewer()?;
        if tries.is_some_and(|tries| tries.count() == 0) {
            return Err(UvError::Blocked);
        }
        let (pin, present) = env.pin(ask, tries).map_err(UvError::Declined)?;
        let mut vault = env.vaults.open()?;
        let unlock = vault.secrets(&pin.material());
        match vault.unlock_with(&unlock) {
            Ok(_) => {}
            Err(UnlockError::WrongPin) => continue,
            Err(UnlockError::KeyStore(KeyStoreError::PinLocked)) => return Err(UvError::Blocked),
            Err(e) => return Err(e.into()),
        }
        return Ok(Verification { unlock: Rc::new(unlock), present: Some(present) });
    }
    Err(UvError::Wrong)
}
