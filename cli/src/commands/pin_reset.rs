use serde_json::json;
use vault_core::RecoveryCode;

use super::setup::{choose_pin, shown};
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
    app.open_again(&mut keys, id)?.reset_pin(&code, &new.material(), &next, now(), &mut rng())?;
    let next = next.to_text();
    app.print(&json!({"reset": "pin", "recoveryCode": *next}), || {
        format!("The new PIN is set; all passkeys stay.\n{}", shown(&next))
    })
}
