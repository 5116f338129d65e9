use vault_core::{container::AccountId, printable};

use super::list;
use crate::{
    app::{App, now},
    failure::Result,
    terminal::date,
};

pub(crate) fn run(app: &mut App<'_>, id: AccountId) -> Result<()> {
    let mut keys = app.keys()?;
    let vault = app.open(&mut keys)?;
    let account = vault.account(id)?;
    let last = vault.last_use(id)?;
    drop(vault);
    app.print(&list::to_json(id, &account).used(last), || {
        [
            ("Passkey", id.to_string()),
            ("Site", format!("{} ({})", account.rp_id, printable(&account.rp_name))),
            ("Account", format!("{} ({})", printable(&account.user_name), printable(&account.display_name))),
            ("Name", account.label.as_deref().map_or_else(|| "-".to_owned(), printable)),
            ("Takes", account.takes.to_string()),
            ("Made", date(account.created)),
            ("Used", list::last_use(last, now())),
            ("Credential ID", account.credential_id.to_string()),
        ]
        .map(|(label, value)| format!("{label:<14}{value}"))
        .join("\n")
    })
}
