//! authenticatorConfig (CTAP 2.2 §6.11).

use std::rc::Rc;

use vault_core::{container::Settings, webauthn::RpId};

use crate::{Authenticator, Env, Permissions, Status, cbor::Map, failure::Result, parameters::PinUvAuth};

const COMMAND: u8 = 0x0d;
const TOGGLE_ALWAYS_UV: u8 = 0x02;
const SET_MIN_PIN_LENGTH: u8 = 0x03;

pub(crate) fn run(authenticator: &mut Authenticator, mut parameters: Map, env: &mut Env<'_>) -> Result<()> {
    let asked = u8::try_from(parameters.required::<u64>(0x01)?);
    let Ok(subcommand @ (TOGGLE_ALWAYS_UV | SET_MIN_PIN_LENGTH)) = asked else {
        return Err(Status::InvalidParameter.into());
    };
    let auth = PinUvAuth::take(&mut parameters, 0x04, 0x03)?.ok_or(Status::PuatRequired)?;
    let inner: Option<Map> = parameters.optional(0x02)?;
    let encoded = inner.as_ref().map(Map::encoded).unwrap_or_default();
    let message = [[0xff; 32].as_slice(), &[COMMAND, subcommand], &encoded].concat();
    let token = authenticator.token_that_proves(&auth, &message)?;
    token.use_to(Permissions::CONFIGURE)?;
    let unlock = Rc::clone(&token.unlock);
    let mut inner = inner.unwrap_or_else(Map::empty);
    let mut vault = env.vaults.open()?;
    let before = vault.settings()?;
    if subcommand == TOGGLE_ALWAYS_UV {
        return Ok(vault.unlock_with(&unlock)?.set_always_uv(!before.always_uv, env.rng)?);
    }
    let current = authenticator.policy.at_least(before.min_pin_length).min_length();
    let mut settings = set_min_pin_length(&mut inner, before.clone(), current)?;
    if settings.pin_change_due {
        settings.persistent_token = None;
    }
    if settings != before {
        vault.unlock_with(&unlock)?.configure(&settings, env.rng)?;
    }
    if settings.pin_change_due {
        // §6.11.4 step 7: what the old PIN was good for ends.
        authenticator.lock();
    }
    Ok(())
}

/// §6.11.4. How long the PIN is nobody knows; it was as long as it had to be.
fn set_min_pin_length(parameters: &mut Map, settings: Settings, current: usize) -> Result<Settings> {
    let asked: Option<u64> = parameters.optional(0x01)?;
    let rp_ids: Option<Vec<String>> = parameters.optional(0x02)?;
    let force: Option<bool> = parameters.optional(0x03)?;
    let asked =
        asked.map_or(Ok(current), |asked| usize::try_from(asked).map_err(|_| Status::PinPolicyViolation))?;
    if asked < current || asked > Settings::MAX_MIN_PIN_LENGTH {
        return Err(Status::PinPolicyViolation.into());
    }
    let min_pin_length_rp_ids = match rp_ids {
        None => settings.min_pin_length_rp_ids,
        Some(rp_ids) if rp_ids.len() > Settings::MAX_RP_IDS => return Err(Status::KeyStoreFull.into()),
        Some(rp_ids) => {
            let rp_ids: Option<Vec<_>> = rp_ids.into_iter().map(RpId::vouched_for).collect();
            rp_ids.ok_or(Status::InvalidLength)?
        }
    };
    Ok(Settings {
        min_pin_length: asked,
        min_pin_length_rp_ids,
        pin_change_due: settings.pin_change_due || force == Some(true) || asked > current,
        ..settings
    })
}
