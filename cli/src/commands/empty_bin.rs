use serde_json::json;
use vault_core::printable;

use crate::{app::App, failure::Result, terminal::passkeys};

pub(crate) fn run(app: &mut App<'_>) -> Result<()> {
    let mut keys = app.keys()?;
    let gone = app.with_pin(
        &mut keys,
        |app, vault| {
            let bin = vault.bin()?;
            app.note(format!("delete what is in the bin for ever, {}", passkeys(bin.len())));
            for (id, account) in bin {
                app.note(format!("{id}: {} at {}", printable(account.name()), account.rp_id));
            }
            Ok(())
        },
        |_, unlocked, _, ()| Ok(unlocked.empty_bin()?),
    )?;
    let ids: Vec<_> = gone.iter().map(|(id, _)| id).collect();
    app.print(&json!({"deleted": ids}), || format!("Gone for ever: {}.", passkeys(ids.len())))
}
