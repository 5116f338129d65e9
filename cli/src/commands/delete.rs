use vault_core::{container::AccountId, printable};

use super::list;
use crate::{app::App, failure::Result};

pub(crate) fn run(app: &mut App<'_>, id: AccountId) -> Result<()> {
    let mut keys = app.keys()?;
    let account = app.with_pin(
        &mut keys,
        |app, vault| {
            let account = vault.account(id)?;
            let (name, site) = (printable(account.name()), &account.rp_id);
            app.note(format!("delete the passkey for {name} at {site} for ever; remove it at the site too"));
            Ok(account)
        },
        |_, unlocked, _, account| {
            unlocked.delete(id)?;
            Ok(account)
        },
    )?;
    let (name, site) = (printable(account.name()), &account.rp_id);
    app.print(&list::to_json(id, &account), || format!("Deleted passkey {id}, {name} at {site}."))
}
