use vault_core::{container::AccountId, printable};

use super::list;
use crate::{
    app::{App, now, rng},
    failure::Result,
};

pub(crate) fn run(app: &mut App<'_>, id: AccountId) -> Result<()> {
    let mut keys = app.keys()?;
    let account = app.with_pin(
        &mut keys,
        |app, vault| {
            let account = vault.account(id)?;
            let (name, site) = (printable(account.name()), &account.rp_id);
            app.note(format!(
                "move the passkey for {name} at {site} to the bin, which keeps it for 30 days; remove it at the site too"
            ));
            Ok(())
        },
        |_, unlocked, _, ()| Ok(unlocked.delete(id, now(), &mut rng())?),
    )?;
    let (name, site) = (printable(account.name()), &account.rp_id);
    app.print(&list::to_json(id, &account), || {
        format!(
            "Passkey {id}, {name} at {site}, is in the bin. \"passhold undelete {id}\" takes it out again."
        )
    })
}
