use serde_json::json;
use vault_core::RecoveryCode;

use super::setup::shown;
use crate::{
    app::{App, now, rng},
    failure::Result,
};

pub(crate) fn run(app: &mut App<'_>) -> Result<()> {
    let mut keys = app.keys()?;
    let code = app.with_pin(
        &mut keys,
        |app, _| {
            app.note("make a new recovery code; the old one will open nothing any more");
            Ok(())
        },
        |_, unlocked, _, ()| {
            let code = RecoveryCode::random(&mut rng());
            unlocked.renew_recovery_code(&code, now(), &mut rng())?;
            Ok(code.to_text())
        },
    )?;
    app.print(&json!({"recoveryCode": *code}), || shown(&code))
}
