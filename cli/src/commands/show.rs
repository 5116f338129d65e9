use vault_core::{container::AccountId, printable};

use super::list;
use crate::{app::App, failure::Result, terminal::date};

pub(crate) fn run(app: &mut App<'_>, id: AccountId) -> Result<()> {
    let mut keys = app.keys()?;
    let account = app.open(&mut keys)?.account(id)?;
    app.print(&list::to_json(id, &account), || {
        [
            ("Passkey", id.to_string()),
            ("Site", format!("{} ({})", account.rp_id, printable(&account.rp_name))),
            ("Account", format!("{} ({})", printable(&account.user_name), printable(&account.display_name))),
            ("Name", account.label.as_deref().map_or_else(|| "-".to_owned(), printable)),
            ("Takes", list::takes(&account).to_owned()),
            ("Made", date(account.created)),
            ("Credential ID", account.credential_id.to_string()),
        ]
        .map(|(label, value)| format!("{label:<14}{value}"))
        .join("\n")
    })
}
