use serde_json::json;
use vault_core::RecoveryCode;

use super::setup::show_code;
use crate::{
    app::{App, now, rng},
    failure::Result,
};

pub(crate) fn run(app: &mut App<'_>) -> Result<()> {
    let mut keys = app.keys()?;
    app.with_pin(
        &mut keys,
        |app, _| {
            app.note("make a new recovery code; the old one will open nothing any more");
            Ok(())
        },
        |app, unlocked, _, ()| {
            let code = RecoveryCode::random(&mut rng());
            let text = code.to_text();
            show_code(app, &json!({"recoveryCode": *text}), &text)?;
            Ok(unlocked.renew_recovery_code(&code, now(), &mut rng())?)
        },
    )?;
    app.end("The new recovery code holds, and the old one opens nothing any more.")
}
