use std::collections::HashMap;

use comfy_table::Table;
use serde_json::{Value, json};
use vault_core::{
    container::{Account, AccountId, LastUse, Takes},
    printable,
};

use crate::{
    app::{App, now},
    failure::Result,
    terminal::ago,
};

const DAY: u64 = 24 * 60 * 60;

type Accounts = Vec<(AccountId, Account)>;

pub(crate) fn run(app: &mut App<'_>, text: Option<&str>, unused: bool, stale: Option<u64>) -> Result<()> {
    let mut keys = app.keys()?;
    let (mut accounts, uses) = {
        let vault = app.open(&mut keys)?;
        (vault.accounts()?, vault.last_uses()?)
    };
    let (now, use_of) = (now(), |id| uses.get(&id).copied().unwrap_or(LastUse::Unknown));
    accounts.retain(|(id, account)| {
        let last = use_of(*id).at().unwrap_or(account.created);
        let is_stale = |days: u64| now.saturating_sub(last) >= days.saturating_mul(DAY);
        text.is_none_or(|text| has(account, text))
            && (!unused || use_of(*id) == LastUse::Never)
            && stale.is_none_or(is_stale)
    });
    let json: Vec<_> = accounts.iter().map(|(id, account)| with_use(*id, account, use_of(*id))).collect();
    let table = app.table(&["ID", "SITE", "ACCOUNT", "NAME", "TAKES", "MADE", "USED"]);
    app.print(&json, || match (accounts.is_empty(), text.is_some() || unused || stale.is_some()) {
        (true, false) => "No passkeys yet.".to_owned(),
        (true, true) => "No such passkeys.".to_owned(),
        _ => fill(table, &accounts, &uses, now),
    })
}

/// In upper or lower case alike.
fn has(account: &Account, text: &str) -> bool {
    let text = text.to_lowercase();
    let label = account.label.as_deref().unwrap_or_default();
    [account.rp_id.as_str(), &account.user_name, &account.display_name, label]
        .iter()
        .any(|field| field.to_lowercase().contains(&text))
}

pub(crate) fn bin(app: &mut App<'_>) -> Result<()> {
    let mut keys = app.keys()?;
    let accounts = app.open(&mut keys)?.bin()?;
    let json: Vec<_> = accounts.iter().map(|(id, account)| to_json(*id, account)).collect();
    let table = app.table(&["ID", "SITE", "ACCOUNT", "DELETED"]);
    app.print(&json, || {
        if accounts.is_empty() {
            "The bin is empty.".to_owned()
        } else {
            fill_with_bin(table, &accounts, now())
        }
    })
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
        "binned": account.binned,
    })
}

/// The same with its last use: seconds since 1970, or null if it was never used, or nobody knows, and whether it is
/// known that it was never used.
pub(super) fn with_use(id: AccountId, account: &Account, last: LastUse) -> Value {
    let mut json = to_json(id, account);
    if let Some(members) = json.as_object_mut() {
        members.insert("lastUsed".to_owned(), json!(last.at()));
        members.insert("neverUsed".to_owned(), json!(last == LastUse::Never));
    }
    json
}

pub(super) fn takes(account: &Account) -> &'static str {
    match account.takes {
        Takes::Pin => "the PIN",
        Takes::Presence => "presence",
    }
}

pub(super) fn last_use(last: LastUse, now: u64) -> String {
    match last {
        LastUse::At(at) => ago(at, now),
        LastUse::Never => "never".to_owned(),
        LastUse::Unknown => "?".to_owned(),
    }
}

fn fill(mut table: Table, accounts: &Accounts, uses: &HashMap<AccountId, LastUse>, now: u64) -> String {
    for (id, account) in accounts {
        let name = account.label.as_deref().map(printable).unwrap_or_default();
        let (site, account_name) = (account.rp_id.to_string(), printable(&account.user_name));
        let last = uses.get(id).copied().unwrap_or(LastUse::Unknown);
        let times = [ago(account.created, now), last_use(last, now)];
        let row = [id.to_string(), site, account_name, name, takes(account).to_owned()];
        table.add_row(row.into_iter().chain(times));
    }
    table.trim_fmt()
}

fn fill_with_bin(mut table: Table, accounts: &Accounts, now: u64) -> String {
    for (id, account) in accounts {
        let (site, name) = (account.rp_id.to_string(), printable(account.name()));
        table.add_row([id.to_string(), site, name, ago(account.binned.unwrap_or_default(), now)]);
    }
    table.trim_fmt()
}
