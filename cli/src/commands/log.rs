use serde_json::{Value, json};
use vault_core::{
    container::{Deed, Entry, Log, Refusal},
    printable,
};

use crate::{
    app::App,
    failure::{Exit, Failure, Result},
    terminal::date,
};

pub(crate) fn run(app: &mut App<'_>, last: Option<usize>) -> Result<()> {
    let mut keys = app.keys()?;
    let Log { mut entries, broken } = app.open(&mut keys)?.log()?;
    if let Some(n) = broken {
        app.note(format!("warning: {}", what_is_broken(n)));
    }
    entries.drain(..entries.len().saturating_sub(last.unwrap_or(usize::MAX)));
    let json: Vec<_> = entries.iter().map(|(n, entry)| to_json(*n, entry.as_ref())).collect();
    let mut table = app.table(&["NO", "WHEN", "WHAT", "ID", "SITE", "ACCOUNT"]);
    app.print(&json, || {
        for (n, entry) in &entries {
            table.add_row(row(*n, entry.as_ref()));
        }
        table.trim_fmt()
    })
}

pub(crate) fn verify(app: &mut App<'_>) -> Result<()> {
    let mut keys = app.keys()?;
    // The PIN has the TPM say which copy of the vault is the latest: an older one holds an older log, which is whole.
    let log = app.with_pin(&mut keys, |_, vault| Ok(vault.log()?), |_, _, _, log| Ok(log))?;
    if let Some(n) = log.broken {
        return Err(Failure::new(Exit::Damaged, what_is_broken(n)).next(
            "Somebody or something wrote to the vault's file. \"passhold log\" shows the entries that are left.",
        ));
    }
    let begin = log.entries.iter().find_map(|(n, entry)| Some((n, entry.as_ref()?.at)));
    app.print(&json!({"entries": log.entries.len(), "first": begin.map(|(n, _)| n)}), || match begin {
        Some((n, at)) => {
            format!("The log is whole: {} entries from number {n}, {}, on.", log.entries.len(), date(at))
        }
        None => "The log is whole: it has no entries.".to_owned(),
    })
}

fn what_is_broken(n: u64) -> String {
    format!("entry {n} of the log is missing, or is not what was written there")
}

/// An entry as scripts see it.
fn to_json(n: u64, entry: Option<&Entry>) -> Value {
    let Some(Entry { at, deed, refusal, subject }) = entry else {
        return json!({"number": n, "broken": true});
    };
    json!({
        "number": n,
        "at": at,
        "deed": deed,
        "refusal": refusal,
        "id": subject.as_ref().and_then(|s| s.id),
        "rpId": subject.as_ref().map(|s| &s.rp_id),
        "userName": subject.as_ref().map(|s| &s.user_name),
    })
}

fn row(n: u64, entry: Option<&Entry>) -> Vec<String> {
    let Some(Entry { at, deed, refusal, subject }) = entry else {
        return vec![n.to_string(), String::new(), "missing, or changed".to_owned()];
    };
    let what =
        refusal.map_or_else(|| done(*deed).to_owned(), |why| format!("{}: {}", asked(*deed), because(why)));
    let (id, site, name) = subject.as_ref().map_or_else(Default::default, |subject| {
        let id = subject.id.map(|id| id.to_string()).unwrap_or_default();
        (id, printable(&subject.rp_id), printable(&subject.user_name))
    });
    vec![n.to_string(), date(*at), what, id, site, name]
}

fn done(deed: Deed) -> &'static str {
    match deed {
        Deed::SetUp => "vault made",
        Deed::Enrol => "passkey made",
        Deed::Sign => "signed in",
        Deed::Rename => "passkey renamed",
        Deed::Update => "names updated by the site",
        Deed::Delete => "passkey put into the bin",
        Deed::Undelete => "passkey taken out of the bin",
        Deed::Remove => "passkey removed for good",
        Deed::ProvePin => "PIN accepted",
        Deed::ChangePin => "PIN changed",
        Deed::ResetPin => "PIN reset by the recovery code",
        Deed::RenewCode => "recovery code made",
        Deed::Configure => "settings changed",
        Deed::Restore => "old copy let in",
        Deed::Export => "accounts exported",
        Deed::Unlock => "program let in",
        Deed::Wipe => "vault destroyed",
        Deed::Other => "something that a later Passhold knows",
    }
}

fn asked(deed: Deed) -> &'static str {
    match deed {
        Deed::Enrol => "no passkey made",
        Deed::Sign => "not signed in",
        Deed::ProvePin => "PIN refused",
        Deed::ResetPin => "PIN not reset",
        Deed::Unlock => "program refused",
        Deed::Wipe => "not destroyed",
        _ => "not done",
    }
}

fn because(refusal: Refusal) -> &'static str {
    match refusal {
        Refusal::WrongPin => "it was wrong",
        Refusal::PinLocked => "too many were wrong",
        Refusal::PinChangeDue => "the PIN has to be changed first",
        Refusal::WrongCode => "the code was wrong",
        Refusal::SpentCode => "the code was spent",
        Refusal::Excluded => "the site excludes one that is here",
        Refusal::Declined => "somebody said no",
        Refusal::TimedOut => "nobody answered",
        Refusal::Cancelled => "the program took it back",
        Refusal::Rule => "a rule forbids it",
        Refusal::Other => "for a reason that a later Passhold knows",
    }
}
