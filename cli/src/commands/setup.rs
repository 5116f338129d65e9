use serde_json::json;
use vault_core::{
    RecoveryCode,
    container::{Container, ContainerError, State},
    pin::{Pin, PinPolicy},
};
use zeroize::Zeroizing;

use crate::{
    app::{App, now, patiently, rng},
    failure::{Exit, Failure, Result},
};

pub(crate) fn run(app: &mut App<'_>, with_recovery_code: bool) -> Result<()> {
    // Before a PIN is thought up for nothing.
    match Container::open(&app.dir) {
        Ok(found) if matches!(found.state()?, State::Active | State::Resetting) => {
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
        || vault_core::setup(&app.dir, &mut keys.tpm, &material, now(), &mut rng()),
        vault_core::VaultError::is_busy,
    )?;
    app.note("the TPM allows 8 wrong PINs in a row, then none; keep the PIN safe");
    let code = with_recovery_code.then(|| RecoveryCode::random(&mut rng()));
    if code.is_none() {
        app.note(
            "without a recovery code, a forgotten PIN costs every passkey; \"passhold recovery renew\" makes one",
        );
    }
    let mut vault = app.open(&mut keys)?;
    let begun = vault
        .unlock(&material)
        .map_err(Failure::from)
        .and_then(|unlocked| Ok(unlocked.begin(code.as_ref(), now(), &mut rng())?));
    drop(vault);
    begun.map_err(|failure| {
        failure.next("The vault is made. Make a recovery code with \"passhold recovery renew\".")
    })?;
    let code = code.map(|code| code.to_text());
    let (dir, code) = (app.dir.clone(), code.as_ref().map(|code| code.as_str()));
    app.print(&json!({"vault": dir, "recoveryCode": code}), || {
        let made = format!("Made a vault in {}.", dir.display());
        code.map_or_else(|| made.clone(), |code| format!("{made}\n{}", shown(code)))
    })
}

/// A recovery code, once.
pub(super) fn shown(code: &str) -> String {
    format!(
        "Recovery code: {code}\nWrite it down and keep it away from this machine; it is not shown again. Whoever has it and this machine can set a new PIN."
    )
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
