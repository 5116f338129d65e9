use serde_json::json;

use super::setup::choose_pin;
use crate::{
    app::{App, now, rng},
    failure::Result,
};

pub(crate) fn run(app: &mut App<'_>) -> Result<()> {
    let mut keys = app.keys()?;
    app.with_pin(
        &mut keys,
        |app, vault| {
            app.note("change the vault's PIN; first the old one");
            Ok(app.policy.at_least(vault.settings()?.min_pin_length))
        },
        |app, unlocked, _, policy| {
            let new = choose_pin(app, policy, "New PIN: ")?;
            Ok(unlocked.change_pin_by(policy, &new.material(), now(), &mut rng())?)
        },
    )?;
    app.print(&json!({"changed": "pin"}), || "The PIN is changed; all passkeys stay.".to_owned())
}
