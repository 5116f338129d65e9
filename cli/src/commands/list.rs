use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};
use vault_core::{
    container::{Account, AccountId, Takes},
    printable,
};

use crate::{app::App, failure::Result, terminal::date};

pub(crate) fn run(app: &mut App<'_>) -> Result<()> {
    let mut keys = app.keys()?;
    let accounts = app.open(&mut keys)?.accounts()?;
    let json: Vec<_> = accounts.iter().map(|(id, account)| to_json(*id, account)).collect();
    app.print(&json, || if accounts.is_empty() { "No passkeys yet.".to_owned() } else { table(&accounts) })
}

/// A passkey as scripts see it.
pub(super) fn to_json(id: AccountId, account: &Account) -> Value {
    json!({
        "id": id,
        "rpId": account.rp_id,
        "rpName": account.rp_name,
        "userName": account.user_name,
        "displayName": account.display_name,
        "name": account.label,
        "credentialId": account.credential_id.to_string(),
        "takes": account.takes,
        "created": account.created,
    })
}

pub(super) fn takes(account: &Account) -> &'static str {
    match account.takes {
        Takes::Pin => "the PIN",
        Takes::Presence => "presence",
    }
}

fn table(accounts: &[(AccountId, Account)]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(["ID", "SITE", "ACCOUNT", "NAME", "TAKES", "MADE"]);
    for (id, account) in accounts {
        let name = account.label.as_deref().map(printable).unwrap_or_default();
        let (site, user) = (account.rp_id.to_string(), printable(&account.user_name));
        table.add_row([id.to_string(), site, user, name, takes(account).to_owned(), date(account.created)]);
    }
    table.trim_fmt()
}
