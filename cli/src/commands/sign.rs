use vault_core::{
    Vault,
    container::{Account, AccountId, ContainerError},
    printable,
    webauthn::{GetRequest, Origin},
};

use crate::{
    app::{App, Keys, now, rng, to_json},
    args::Ceremony,
    failure::{Exit, Failure, Result},
};

pub(crate) fn run(app: &mut App<'_>, ceremony: &Ceremony, account: Option<AccountId>) -> Result<()> {
    let origin = Origin::parse(&ceremony.origin)?;
    let request = GetRequest::from_json(&app.console.input(&ceremony.options)?, origin)?;
    let mut keys = app.keys()?;
    // Others may use the vault while somebody chooses.
    let wanted = match account {
        None => choose(app, &mut keys, &request)?,
        wanted => wanted,
    };
    let response = app.with_pin(
        &mut keys,
        |app, vault| {
            let (id, account) = matching(vault, &request, wanted)?;
            let (name, rp_id) = (printable(account.name()), &request.rp_id);
            app.note(format!("sign in as {name} at {rp_id}, asked by {}", request.origin));
            Ok(id)
        },
        |_, unlocked, present, id| Ok(unlocked.sign(&request, id, present, now(), &mut rng())?),
    )?;
    app.console.print(&to_json(&response)?)
}

/// The one that is wanted, or the only one.
fn matching(
    vault: &Vault<'_>,
    request: &GetRequest,
    wanted: Option<AccountId>,
) -> Result<(AccountId, Account)> {
    let mut matching = vault.matching(request)?;
    let at = match wanted {
        None => (matching.len() == 1).then_some(0),
        Some(wanted) => matching.iter().position(|(id, _)| *id == wanted),
    };
    if let Some(at) = at {
        return Ok(matching.swap_remove(at));
    }
    if let Some(wanted) = wanted {
        vault.account(wanted)?;
        return Err(vault_core::CeremonyError::NotAllowed.into());
    }
    let none = format!("there is no passkey for {} that it accepts", request.rp_id);
    Err(Failure::new(Exit::NoPasskey, none)
        .next("\"passhold list\" shows the passkeys; make one with \"passhold enroll\"."))
}

/// Which of several; nobody is asked about one, or none.
fn choose(app: &mut App<'_>, keys: &mut Keys, request: &GetRequest) -> Result<Option<AccountId>> {
    let matching = app.open(keys)?.matching(request)?;
    if matching.len() < 2 {
        return Ok(None);
    }
    for (id, account) in &matching {
        app.note(format!("{id}: {}", printable(account.name())));
    }
    let ids: Vec<_> = matching.iter().map(|(id, _)| id.to_string()).collect();
    let which = format!("one of {}", ids.join(", "));
    let answer = app
        .console
        .ask(&format!("Which passkey ({which})? "))
        .map_err(|failure| failure.next(format!("Name the passkey with --account ID: {which}.")))?;
    match matching.iter().find(|(id, _)| id.to_string() == answer) {
        Some((id, _)) => Ok(Some(*id)),
        None => Err(answer.parse().map_or_else(
            |_| {
                Failure::new(Exit::NotConfirmed, "no passkey was chosen")
                    .next(format!("Answer with {which}."))
            },
            |id| ContainerError::NoSuchAccount { id }.into(),
        )),
    }
}
