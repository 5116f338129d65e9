use vault_core::{container::AccountId, printable};

use super::list;
use crate::{
    app::{App, rng},
    failure::Result,
};

pub(crate) fn run(app: &mut App<'_>, id: AccountId) -> Result<()> {
    let mut keys = app.keys()?;
    let account = app.with_pin(
        &mut keys,
        |app, _| {
            app.note(format!("take passkey {id} out of the bin"));
            Ok(())
        },
        |_, unlocked, _, ()| Ok(unlocked.undelete(id, &mut rng())?),
    )?;
    let (name, site) = (printable(account.name()), &account.rp_id);
    app.print(&list::to_json(id, &account), || format!("Passkey {id}, {name} at {site}, can be used again."))
}
