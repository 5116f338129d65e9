use serde_json::{Value, json};
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
    let text = code.as_ref().map(RecoveryCode::to_text);
    let result = json!({"vault": app.dir, "recoveryCode": text.as_ref().map(|text| text.as_str())});
    if let Some(text) = &text {
        show_code(app, &result, text)?;
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
    let made = format!("Made a vault in {}.", app.dir.display());
    if text.is_some() {
        app.end(&format!("{made} The recovery code holds."))
    } else {
        app.print(&result, || made)
    }
}

/// Shows a recovery code, once and before it holds: whatever ends this program afterwards, nobody is left with one that he never
/// saw. In JSON that is the result, and how the program ends says whether it counts.
pub(super) fn show_code(app: &mut App<'_>, result: &Value, code: &str) -> Result<()> {
    app.print(result, || {
        format!(
            "Recovery code: {code}\nWrite it down and keep it away from this machine; it is not shown again. Whoever has it and this machine can set a new PIN. It holds once this command says so."
        )
    })
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
