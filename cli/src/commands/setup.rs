use serde_json::json;
use vault_core::{
    container::{Container, ContainerError, State},
    pin::{Pin, PinPolicy},
};
use zeroize::Zeroizing;

use crate::{
    app::{App, patiently, rng},
    failure::{Exit, Failure, Result},
};

pub(crate) fn run(app: &mut App<'_>) -> Result<()> {
    // Before a PIN is thought up for nothing.
    match Container::open(&app.dir) {
        Ok(found) if found.state()? == State::Active => {
            return Err(ContainerError::Exists { dir: app.dir.clone() }.into());
        }
        Ok(_) | Err(ContainerError::NotFound { .. } | ContainerError::Busy { .. }) => {}
        Err(e) => return Err(e.into()),
    }
    let mut keys = app.keys_for_setup()?;
    let policy = app.policy;
    let pin = choose_pin(app, policy, "Choose a PIN: ")?;
    let material = pin.material();
    patiently(
        || vault_core::setup(&app.dir, &mut keys.tpm, &material, &mut rng()),
        vault_core::VaultError::is_busy,
    )?;
    app.note("the TPM allows 8 wrong PINs in a row, then none; keep the PIN safe");
    let dir = app.dir.clone();
    app.print(&json!({"vault": dir}), || format!("Made a vault in {}.", dir.display()))
}

/// A new PIN, typed twice on a terminal, until the policy accepts one.
pub(super) fn choose_pin(app: &mut App<'_>, policy: PinPolicy, prompt: &str) -> Result<Pin> {
    let typed = app.console.pin(prompt)?;
    let pin = policy.accept(&typed)?;
    if app.console.pin_is_typed() {
        let again: Zeroizing<String> = app.console.pin("Once more: ")?;
        if *again != *typed {
            return Err(
                Failure::new(Exit::PinRefused, "the two PINs differ").next("Nothing was changed; try again.")
            );
        }
    }
    Ok(pin)
}
