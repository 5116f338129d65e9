use serde_json::json;

use super::setup::choose_pin;
use crate::{
    app::{App, note, rng},
    failure::Result,
};

pub(crate) fn run(app: &mut App) -> Result<()> {
    let mut keys = app.keys()?;
    let mut vault = app.open(&mut keys)?;
    let policy = app.policy.at_least(vault.settings()?.min_pin_length);
    note("change the vault's PIN; first the old one");
    app.with_pin(&mut vault, |app, unlocked, _| {
        let new = choose_pin(app, policy, "New PIN: ")?;
        Ok(unlocked.change_pin(&new.material(), &mut rng())?)
    })?;
    app.print(&json!({"changed": "pin"}), || "The PIN is changed; all passkeys stay.".to_owned())
}
