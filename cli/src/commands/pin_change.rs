use serde_json::json;

use super::setup::choose_pin;
use crate::{
    app::{App, note},
    failure::Result,
};

pub(crate) fn run(app: &mut App) -> Result<()> {
    let mut keys = app.keys()?;
    let mut vault = app.open(&mut keys)?;
    note("change the vault's PIN; first the old one");
    app.with_pin(&mut vault, |app, unlocked, _| {
        let new = choose_pin(app, "New PIN: ")?;
        Ok(unlocked.change_pin(&new.material())?)
    })?;
    app.print(&json!({"changed": "pin"}), || "The PIN is changed; all passkeys stay.".to_owned())
}
