//! Requests that only want to know whether this is the authenticator that the person means.

use vault_core::webauthn::RpId;

use crate::{Ask, Env, Status, failure::Failure};

/// Relying party IDs that platforms make up for it (Chromium, Firefox): none is a domain.
const BLINK: [&str; 2] = [".dummy", "make.me.blink"];

pub(crate) fn is_blink(rp_id: &RpId) -> bool {
    BLINK.contains(&rp_id.as_str())
}

/// What an empty `pinUvAuthParam` is answered with (CTAP 2.2 §6.1.2 step 1, §6.2.2 step 1).
pub(crate) fn answer(env: &mut Env<'_>) -> Failure {
    match env.presence(&Ask::Select) {
        Ok(_) if env.vaults.exist() => Status::PinInvalid.into(),
        Ok(_) => Status::PinNotSet.into(),
        Err(refusal) => refusal,
    }
}
