use std::{io::Write, iter};

use comfy_table::Table;
use serde::{Serialize, Serializer, ser::SerializeStruct};
use tabwriter::TabWriter;
use vault_core::{
    container::{Account, AccountId, LastUse, Takes},
    printable,
    webauthn::{CredentialId, RpId},
};

use crate::{
    app::{App, now},
    failure::Result,
    terminal::ago,
};

const DAY: u64 = 24 * 60 * 60;

const HEADER: [&str; 7] = ["ID", "SITE", "ACCOUNT", "NAME", "TAKES", "MADE", "USED"];
/// More rows are not wrapped to the width of a terminal: that takes as long as opening the passkeys.
const MANY: usize = 1000;

/// A passkey as scripts see it.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Passkey {
    binned: Option<u64>,
    created: u64,
    #[serde(serialize_with = "as_text")]
    credential_id: CredentialId,
    display_name: String,
    id: AccountId,
    #[serde(flatten)]
    last: Option<Used>,
    name: Option<String>,
    rp_id: RpId,
    rp_name: String,
    takes: Takes,
    user_name: String,
}

struct Used(LastUse);

/// A last use is null where nobody knows, too.
impl Serialize for Used {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut used = serializer.serialize_struct("Used", 2)?;
        used.serialize_field("lastUsed", &self.0.at())?;
        used.serialize_field("neverUsed", &(self.0 == LastUse::Never))?;
        used.end()
    }
}

pub(crate) fn run(app: &mut App<'_>, text: Option<&str>, unused: bool, stale: Option<u64>) -> Result<()> {
    let (now, is_filtered) = (now(), text.is_some() || unused || stale.is_some());
    let text = text.map(str::to_lowercase);
    let mut keys = app.keys()?;
    let vault = app.open(&mut keys)?;
    let passkeys = vault.each(|id, account, last| {
        let at = last.at().unwrap_or(account.created);
        let is_stale = |days: u64| now.saturating_sub(at) >= days.saturating_mul(DAY);
        let is_wanted = account.binned.is_none()
            && text.as_deref().is_none_or(|text| has(fields(&account), text))
            && (!unused || last == LastUse::Never)
            && stale.is_none_or(is_stale);
        is_wanted.then(|| Passkey::new(id, account).used(last))
    })?;
    drop(vault);
    let table = app.table(&HEADER);
    app.print(&passkeys, || match (passkeys.is_empty(), is_filtered) {
        (true, false) => "No passkeys yet.".to_owned(),
        (true, true) => "No such passkeys.".to_owned(),
        _ => fill(table, &passkeys, now),
    })
}

/// Whether one of these has the text, which is in lower case; they may be in any.
pub fn has<'f>(fields: impl IntoIterator<Item = &'f str>, text: &str) -> bool {
    fields.into_iter().any(|field| field.to_lowercase().contains(text))
}

fn fields(account: &Account) -> [&str; 4] {
    let label = account.label.as_deref().unwrap_or_default();
    [account.rp_id.as_str(), &account.user_name, &account.display_name, label]
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

fn as_text<S: Serializer>(value: &impl ToString, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&value.to_string())
}

impl Passkey {
    fn new(id: AccountId, account: Account) -> Self {
        Self {
            binned: account.binned,
            created: account.created,
            credential_id: account.credential_id,
            display_name: account.display_name,
            id,
            last: None,
            name: account.label,
            rp_id: account.rp_id,
            rp_name: account.rp_name,
            takes: account.takes,
            user_name: account.user_name,
        }
    }

    pub(super) fn used(self, last: LastUse) -> Self {
        Self { last: Some(Used(last)), ..self }
    }
}

/// A passkey whose last use does not matter.
pub(super) fn to_json(id: AccountId, account: &Account) -> Passkey {
    Passkey::new(id, account.clone())
}

pub(super) fn last_use(last: LastUse, now: u64) -> String {
    match last {
        LastUse::At(at) => ago(at, now),
        LastUse::Never => "never".to_owned(),
        LastUse::Unknown => "?".to_owned(),
    }
}

fn fill(mut table: Table, passkeys: &[Passkey], now: u64) -> String {
    let rows = passkeys.iter().map(|passkey| row(passkey, now));
    if passkeys.len() > MANY {
        return columns(rows);
    }
    table.add_rows(rows);
    table.trim_fmt()
}

/// Columns as wide as their widest cells, whatever the terminal's width.
#[expect(clippy::expect_used, reason = "a Vec takes all writes, and what goes in is UTF-8")]
fn columns(rows: impl Iterator<Item = [String; HEADER.len()]>) -> String {
    let header = HEADER.map(str::to_owned);
    let lines: Vec<_> = iter::once(header).chain(rows).map(|row| format!(" {}", row.join("\t"))).collect();
    let mut columns = TabWriter::new(Vec::new());
    columns.write_all(lines.join("\n").as_bytes()).expect("a Vec takes all writes");
    let text = columns.into_inner().expect("a Vec takes all writes");
    String::from_utf8(text).expect("UTF-8")
}

fn row(passkey: &Passkey, now: u64) -> [String; HEADER.len()] {
    let Passkey { id, rp_id, user_name, name, takes, created, last, .. } = passkey;
    let name = name.as_deref().map(printable).unwrap_or_default();
    let used = last.as_ref().map_or_else(String::new, |last| last_use(last.0, now));
    let made = ago(*created, now);
    [id.to_string(), rp_id.to_string(), printable(user_name), name, takes.to_string(), made, used]
}

fn fill_with_bin(mut table: Table, accounts: &[(AccountId, Account)], now: u64) -> String {
    for (id, account) in accounts {
        let (site, name) = (account.rp_id.to_string(), printable(account.name()));
        table.add_row([id.to_string(), site, name, ago(account.binned.unwrap_or_default(), now)]);
    }
    table.trim_fmt()
}

#[cfg(test)]
mod tests {
    use comfy_table::presets;

    use super::*;

    #[test]
    fn many_rows_look_like_few() {
        let row = |id, site: &str, name: &str, used: &str| {
            [id, site, "alice", name, "the PIN", "2 days ago", used].map(str::to_owned)
        };
        let rows = [row("1", "example.org", "", "?"), row("10", "bücher.example", "仕事", "3 months ago")];
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_header(HEADER).add_rows(rows.clone());
        assert_eq!(columns(rows.into_iter()), table.trim_fmt());
    }
}
