use vault_core::container::AccountId;

use super::list;
use crate::{
    app::App,
    failure::Result,
    terminal::{date, plain},
};

pub(crate) fn run(app: &mut App, id: AccountId) -> Result<()> {
    let mut keys = app.keys()?;
    let account = app.open(&mut keys)?.account(id)?;
    app.print(&list::to_json(id, &account), || {
        [
            ("Passkey", id.to_string()),
            ("Site", format!("{} ({})", account.rp_id, plain(&account.rp_name))),
            ("Account", format!("{} ({})", plain(&account.user_name), plain(&account.display_name))),
            ("Name", account.label.as_deref().map_or_else(|| "-".to_owned(), plain)),
            ("Made", date(account.created)),
            ("Credential ID", account.credential_id.to_string()),
        ]
        .map(|(label, value)| format!("{label:<14}{value}"))
        .join("\n")
    })
}
