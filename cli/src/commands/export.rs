use serde_json::json;
use vault_core::webauthn::aaguid;

use crate::{
    app::{App, now},
    args::Output,
    export::{Entry, Export, Origin},
    failure::Result,
    terminal::passkeys,
};

pub(crate) fn run(app: &mut App<'_>, output: &Output) -> Result<()> {
    let mut keys = app.keys()?;
    let export = app.with_pin(
        &mut keys,
        |app, vault| {
            app.note("export what the passkeys are; no key can leave this machine's TPM");
            Ok(Origin::new(vault.id(), aaguid(vault.kind()), now()))
        },
        |_, unlocked, _, origin| {
            let passkeys = unlocked.inventory(Entry::new)?;
            Ok(Export::new(origin, passkeys))
        },
    )?;
    let count = export.accounts.len();
    app.console.export(output, export)?;
    let Some(file) = output.file() else { return Ok(()) };
    app.print(&json!({"exported": file, "accounts": count}), || {
        format!("Described {} in {}. No key is in it.", passkeys(count), file.display())
    })
}
