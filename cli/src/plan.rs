//! What an export and the passkeys that are here come to. The file may come from anybody.

use std::{collections::HashSet, fs::File, io::Read, path::Path};

use serde::Serialize;
use serde_json::json;
use vault_core::{printable, webauthn::Origin as WebOrigin};

use crate::{
    export::{Entry, Export, KIND, VERSION, harmless_json},
    failure::{Exit, Failure, Result},
    terminal::{date, passkeys},
};

/// What a hundred thousand passkeys take.
const LONGEST_EXPORT: u64 = 64 << 20;

/// What has become of a passkey.
#[derive(Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// It can be used here.
    Here,
    /// Its account has another one here.
    Again,
    /// Its account has none here.
    Missing,
}

#[derive(serde::Deserialize)]
struct Head {
    passhold: String,
    version: u64,
}

/// Reads an export.
fn read(path: &Path) -> Result<Export> {
    let name = path.display();
    let mut json = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LONGEST_EXPORT + 1).read_to_end(&mut json));
    read.map_err(|e| {
        Failure::unexpected(format!("cannot read {name}"), e)
            .next("Name a file that \"passhold export\" wrote.")
    })?;
    let refused = |why: &str| {
        Failure::new(Exit::Usage, format!("{name} {why}")).next("Name a file that \"passhold export\" wrote.")
    };
    if u64::try_from(json.len()).is_ok_and(|length| length > LONGEST_EXPORT) {
        return Err(refused("is longer than 64 MiB"));
    }
    match serde_json::from_slice(&json) {
        Ok(Head { passhold, version: VERSION }) if passhold == KIND => {}
        Ok(Head { passhold, version }) if passhold == KIND => {
            return Err(Failure::new(
                Exit::Usage,
                format!("{name} has version {version}; this Passhold knows {VERSION}"),
            )
            .next("Use the Passhold that wrote it, or a newer one."));
        }
        _ => return Err(refused("is no export")),
    }
    serde_json::from_slice(&json).map_err(|e| refused(&format!("is no whole export: {e}")))
}

/// What is to be done, for each passkey of an export.
pub(crate) fn plan(file: &Path, here: &[Entry], as_json: bool) -> Result<String> {
    let export = read(file)?;
    let same: HashSet<_> = here.iter().map(|entry| &entry.credential_id).collect();
    let accounts: HashSet<_> = here.iter().map(|entry| (&entry.rp_id, &entry.user_handle)).collect();
    let state = |entry: &Entry| {
        if same.contains(&entry.credential_id) {
            State::Here
        } else if accounts.contains(&(&entry.rp_id, &entry.user_handle)) {
            State::Again
        } else {
            State::Missing
        }
    };
    // Nobody misses what was deleted.
    let wanted = export.accounts.iter().filter(|entry| entry.binned.is_none());
    let steps: Vec<_> = wanted.map(|entry| (entry, state(entry))).collect();
    if as_json {
        let step = |(entry, state): &(&Entry, State)| {
            json!({
                "rpId": entry.rp_id,
                "site": site(&entry.rp_id),
                "userName": entry.user_name,
                "name": entry.name,
                "userHandle": entry.user_handle,
                "credentialId": entry.credential_id,
                "created": entry.created,
                "state": state,
            })
        };
        return harmless_json(&steps.iter().map(step).collect::<Vec<_>>());
    }
    let count = |wanted: State| steps.iter().filter(|(_, state)| *state == wanted).count();
    let mut lines = vec![format!(
        "{}: {} to enroll, {} enrolled again, {} still here.",
        passkeys(steps.len()),
        count(State::Missing),
        count(State::Again),
        count(State::Here)
    )];
    lines.extend(steps.iter().map(|(entry, state)| describe(entry, *state)));
    Ok(lines.join("\n"))
}

/// What an old copy of a vault does to the passkeys of a later export, a line each: those that are neither here nor in its bin are
/// gone; those that were deleted before the export and are here come back.
pub(crate) fn gone(file: &Path, vault: &str, here: &[Entry]) -> Result<Vec<String>> {
    let export = read(file)?;
    if export.origin.vault != vault {
        let other = format!("{} is an export of another vault", file.display());
        return Err(Failure::new(Exit::Usage, other).next("Name one of this vault, or leave --export out."));
    }
    let exported: Vec<_> = export.accounts.iter().filter(|entry| entry.binned.is_none()).collect();
    let in_export: HashSet<_> = exported.iter().map(|entry| &entry.credential_id).collect();
    let in_copy: HashSet<_> = here.iter().map(|entry| &entry.credential_id).collect();
    let gone = exported.iter().filter(|entry| !in_copy.contains(&entry.credential_id));
    let was_deleted = |entry: &&Entry| {
        let was_there = entry.binned.is_none() && entry.created <= export.origin.exported;
        was_there && !in_export.contains(&entry.credential_id)
    };
    let back = here.iter().filter(was_deleted);
    let gone = gone.map(|entry| format!("gone: {}", who(entry)));
    Ok(gone.chain(back.map(|entry| format!("comes back: {}", who(entry)))).collect())
}

fn describe(entry: &Entry, state: State) -> String {
    let who = who(entry);
    match state {
        State::Here => format!("[x] {who}: still here"),
        State::Again => format!("[x] {who}: enrolled again; delete the old one there, if it is not done yet"),
        State::Missing => {
            let user = printable(&entry.user_name);
            let how = match site(&entry.rp_id) {
                Some(site) => format!(
                    "sign in at {site} as {user}, by other means; enroll a new one; delete the old one there"
                ),
                None if entry.rp_id.starts_with("ssh:") => {
                    "make another with \"ssh-keygen -t ecdsa-sk\"; put its public key in the old one's place"
                        .to_owned()
                }
                None => format!(
                    "sign in there as {user}, by other means; enroll a new one; delete the old one there"
                ),
            };
            format!("[ ] {who}\n    {how}")
        }
    }
}

fn who(entry: &Entry) -> String {
    let name = printable(entry.name());
    format!("{name} at {}, made {}", printable(&entry.rp_id), date(entry.created))
}

/// Where to sign in. What is no domain has no address, and must not look like one.
fn site(rp_id: &str) -> Option<String> {
    let site = format!("https://{rp_id}");
    let is_domain = |origin: WebOrigin| origin.to_string() == site && !rp_id.contains(':');
    WebOrigin::parse(&site).is_ok_and(is_domain).then_some(site)
}
