use serde_json::json;
use vault_core::RecoveryCode;

use super::setup::{choose_pin, show_code};
use crate::{
    app::{App, now, rng},
    failure::Result,
};

pub(crate) fn run(app: &mut App<'_>) -> Result<()> {
    let mut keys = app.keys()?;
    app.note("set a new PIN with the recovery code, which is spent by that; you get another one");
    let code = RecoveryCode::parse(&app.console.pin("Recovery code: ")?)?;
    // Before a PIN is thought up for nothing. Others may use the vault while somebody does.
    let (id, policy) = {
        let mut vault = app.open(&mut keys)?;
        vault.check_recovery_code(&code)?;
        (vault.id(), app.policy.at_least(vault.settings()?.min_pin_length))
    };
    let new = choose_pin(app, policy, "New PIN: ")?;
    let next = RecoveryCode::random(&mut rng());
    let text = next.to_text();
    show_code(app, &json!({"reset": "pin", "recoveryCode": *text}), &text)?;
    let mut vault = app.open_again(&mut keys, id)?;
    if vault.reset_pin_by(policy, &code, &new.material(), &next, now(), &mut rng())? {
        app.note("this PIN is one of your last: change it with \"passhold pin change\" before it is needed");
    }
    app.end("The new PIN is set; all passkeys stay. The new recovery code holds.")
}
