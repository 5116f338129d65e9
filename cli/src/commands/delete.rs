use vault_core::{container::AccountId, printable};

use super::list;
use crate::{
    app::{App, note},
    failure::Result,
};

pub(crate) fn run(app: &mut App, id: AccountId) -> Result<()> {
    let mut keys = app.keys()?;
    let mut vault = app.open(&mut keys)?;
    let account = vault.account(id)?;
    let (name, site) = (printable(account.name()), &account.rp_id);
    note(format!("delete the passkey for {name} at {site} for ever; remove it at the site too"));
    app.with_pin(&mut vault, |_, unlocked, _| Ok(unlocked.delete(id)?))?;
    app.print(&list::to_json(id, &account), || format!("Deleted passkey {id}, {name} at {site}."))
}
