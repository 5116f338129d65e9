use std::path::Path;

use serde_json::json;
use vault_core::{Restored, printable};

use super::list;
use crate::{
    app::{App, rng},
    export::{entries, hex},
    failure::Result,
    terminal::passkeys,
};

pub(crate) fn run(app: &mut App<'_>, export: Option<&Path>) -> Result<()> {
    let mut keys = app.keys()?;
    let accounts = app.open(&mut keys)?.accounts()?;
    let restored = app.with_pin_by(
        &mut keys,
        |app, vault| {
            app.note(format!("let this copy of the vault in, with {}", passkeys(accounts.len())));
            for (id, account) in &accounts {
                app.note(format!("{id}: {} at {}", printable(account.name()), account.rp_id));
            }
            if let Some(export) = export {
                let here = [entries(&accounts), entries(&vault.bin()?)].concat();
                app.console.gone(export, &hex(vault.id()), &here)?;
            }
            app.note(
                "passkeys that were made after it are gone, and those that were deleted after it come back",
            );
            Ok(())
        },
        |_, vault, pin| Ok(Ok(vault.accept_old_copy(pin, &mut rng())?)),
    )?;
    let lost = match restored {
        Restored::Accepted { lost } => lost,
        Restored::WasLatest | Restored::TpmCaughtUp => 0,
    };
    let accounts: Vec<_> = accounts.iter().map(|(id, account)| list::to_json(*id, account)).collect();
    app.print(&json!({"lostChanges": lost, "accounts": accounts}), || match restored {
        Restored::Accepted { lost: 1 } => "This copy is the latest now; 1 later change is lost.".to_owned(),
        Restored::Accepted { lost } => format!("This copy is the latest now; {lost} later changes are lost."),
        Restored::TpmCaughtUp => "The file is the latest, and the TPM knows that again.".to_owned(),
        Restored::WasLatest => "It was the latest already; nothing was changed.".to_owned(),
    })
}
