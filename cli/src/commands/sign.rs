use vault_core::{
    Vault,
    container::{Account, AccountId, ContainerError},
    printable,
    webauthn::{GetRequest, Origin},
};

use super::read_options;
use crate::{
    app::{App, note, print, to_json},
    args::Ceremony,
    failure::{Exit, Failure, Result},
    terminal::ask,
};

pub(crate) fn run(app: &mut App, ceremony: &Ceremony, account: Option<AccountId>) -> Result<()> {
    let origin = Origin::parse(&ceremony.origin)?;
    let request = GetRequest::from_json(&read_options(&ceremony.options)?, origin)?;
    let mut keys = app.keys()?;
    let mut vault = app.open(&mut keys)?;
    let (id, account) = choose(&vault, &request, account)?;
    note(format!(
        "sign in as {} at {}, asked by {}",
        printable(account.name()),
        request.rp_id,
        request.origin
    ));
    let response =
        app.with_pin(&mut vault, |_, unlocked, present| Ok(unlocked.sign(&request, id, present)?))?;
    print(&to_json(&response)?)
}

fn choose(
    vault: &Vault<'_>,
    request: &GetRequest,
    wanted: Option<AccountId>,
) -> Result<(AccountId, Account)> {
    let mut matching = vault.matching(request)?;
    if let Some(wanted) = wanted {
        let Some(at) = matching.iter().position(|(id, _)| *id == wanted) else {
            vault.account(wanted)?;
            return Err(vault_core::CeremonyError::NotAllowed.into());
        };
        return Ok(matching.swap_remove(at));
    }
    let ids: Vec<_> = matching.iter().map(|(id, _)| id.to_string()).collect();
    match matching.len() {
        0 => Err(Failure::new(
            Exit::NoPasskey,
            format!("there is no passkey for {} that it accepts", request.rp_id),
        )
        .next("\"passhold list\" shows the passkeys; make one with \"passhold enroll\".")),
        1 => Ok(matching.swap_remove(0)),
        _ => {
            for (id, account) in &matching {
                note(format!("{id}: {}", printable(account.name())));
            }
            let which = format!("one of {}", ids.join(", "));
            let answer = ask(&format!("Which passkey ({which})? "))
                .map_err(|failure| failure.next(format!("Name the passkey with --account ID: {which}.")))?;
            let at = ids.iter().position(|id| *id == answer).ok_or_else(|| {
                let id = answer.parse();
                id.map_or_else(
                    |_| {
                        Failure::new(Exit::NotConfirmed, "no passkey was chosen")
                            .next(format!("Answer with {which}."))
                    },
                    |id| ContainerError::NoSuchAccount { id }.into(),
                )
            })?;
            Ok(matching.swap_remove(at))
        }
    }
}
