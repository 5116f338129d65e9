//! Requests that only want to know whether this is the authenticator that the person means.

use vault_core::webauthn::RpId;

use crate::{
    Ask, Env, Status,
    failure::{Failure, Result},
    parameters::PinUvAuth,
};

/// Relying party IDs that platforms make up for it (Chromium, Firefox): none is a domain.
const BLINK: [&str; 2] = [".dummy", "make.me.blink"];

/// CTAP 2.2 §6.1.2 and §6.2.2, their steps 1 and 2: an empty `pinUvAuthParam` asks for a touch, any other is of a protocol.
pub(crate) fn refuse_or_go_on(auth: Option<&PinUvAuth>, rp_id: &RpId, env: &mut Env<'_>) -> Result<()> {
    if auth.is_some_and(|auth| auth.param.is_empty()) || BLINK.contains(&rp_id.as_str()) {
        return Err(answer(env));
    }
    auth.map_or(Ok(()), |auth| auth.protocol().map(drop))
}

fn answer(env: &mut Env<'_>) -> Failure {
    match env.presence(&Ask::Select) {
        Ok(_) if env.vaults.exist() => Status::PinInvalid.into(),
        Ok(_) => Status::PinNotSet.into(),
        Err(refusal) => refusal,
    }
}
