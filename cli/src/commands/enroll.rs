use vault_core::{
    Rule, Vault,
    container::{Account, AccountId, Deed, Refusal, Subject},
    printable,
    webauthn::{CreateRequest, Origin},
};

use crate::{
    app::{App, Keys, now, rng, to_json},
    args::Ceremony,
    failure::{Exit, Failure, Result},
};

/// What is done about a passkey that the account has already.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Beside {
    Ask,
    Replace,
    Another,
}

impl Beside {
    pub(super) fn new(replace: bool, another: bool) -> Self {
        match (replace, another) {
            (true, _) => Self::Replace,
            (_, true) => Self::Another,
            _ => Self::Ask,
        }
    }
}

pub(crate) fn run(app: &mut App<'_>, ceremony: &Ceremony, beside: Beside) -> Result<()> {
    let origin = Origin::parse(&ceremony.origin)?;
    let request = CreateRequest::from_json(&app.console.input(&ceremony.options)?, origin)?;
    let mut keys = app.keys()?;
    // Others may use the vault while somebody chooses.
    let replacing = choose(app, &mut keys, &request, beside)?;
    let (id, response) = app.with_pin(
        &mut keys,
        |app, vault| show(app, vault, &request, replacing),
        |_, unlocked, present, ()| Ok(unlocked.enroll(&request, replacing, present, now(), &mut rng())?),
    )?;
    app.console.print(&to_json(&response)?)?;
    app.note(format!("made passkey {id}"));
    Ok(())
}

fn show(
    app: &mut App<'_>,
    vault: &Vault<'_>,
    request: &CreateRequest,
    replacing: Option<AccountId>,
) -> Result<()> {
    let (user, rp_id) = (printable(&request.user.name), &request.rp_id);
    app.note(format!("make a passkey for {user} at {rp_id}, asked by {}", request.origin));
    if let Some(id) = replacing {
        vault.account(id)?;
        app.note(format!("passkey {id} goes to the bin for it"));
    }
    Ok(())
}

/// Which passkey the new one replaces, if any: nobody gets two by accident.
fn choose(
    app: &mut App<'_>,
    keys: &mut Keys,
    request: &CreateRequest,
    beside: Beside,
) -> Result<Option<AccountId>> {
    let mut vault = app.open(keys)?;
    let id = vault.id();
    let rules = vault.settings()?.rules;
    let rule = rules.allow(&request.rp_id).inspect_err(|_| log(&mut vault, Refusal::Rule, request))?;
    if vault.excluded(request)?.is_some() {
        log(&mut vault, Refusal::Excluded, request);
        return Err(Failure::excluded());
    }
    let known = vault.accounts_of(&request.rp_id)?;
    drop(vault);
    rule.map_or(Ok(()), |rule| ask_by(rule, app, request))
        .and_then(|()| beside_which(app, known, request, beside))
        .inspect_err(|_| {
            if let Ok(mut vault) = app.open_again(keys, id) {
                log(&mut vault, Refusal::Declined, request);
            }
        })
}

/// A log that cannot be written does not hide why something was refused.
fn log(vault: &mut Vault<'_>, why: Refusal, request: &CreateRequest) {
    let subject = Subject::new(None, &request.rp_id, &request.user.name);
    vault.note_refusal(Deed::Enrol, why, Some(subject)).ok();
}

/// Which of these the new one replaces, as the person says.
fn beside_which(
    app: &mut App<'_>,
    mut known: Vec<(AccountId, Account)>,
    request: &CreateRequest,
    beside: Beside,
) -> Result<Option<AccountId>> {
    known.retain(|(_, account)| account.user_handle == request.user.handle);
    let Some((id, account)) = known.pop() else { return Ok(None) };
    match beside {
        Beside::Replace => return Ok(Some(id)),
        Beside::Another => return Ok(None),
        Beside::Ask => {}
    }
    let there =
        format!("there is passkey {id} for {} at {} already", printable(&account.user_name), request.rp_id);
    let stop = || {
        Failure::new(Exit::NotConfirmed, there.clone()).next(
            "Nothing was made. --replace puts it into the bin, --another makes one beside it; \"passhold sign\" uses it.",
        )
    };
    // Whoever gives the PIN on a descriptor is not there to be asked.
    if !app.console.pin_is_typed() {
        return Err(stop());
    }
    app.note(&there);
    match app.console.ask("Replace it, or make another (replace, another)? ")?.as_str() {
        "replace" => Ok(Some(id)),
        "another" => Ok(None),
        _ => Err(stop()),
    }
}

/// Whoever gives the PIN on a descriptor is not there to be asked.
fn ask_by(rule: &Rule, app: &mut App<'_>, request: &CreateRequest) -> Result<()> {
    if !app.console.pin_is_typed() {
        return Err(Failure::by_rule(format!(
            "the rule \"{rule}\" wants somebody asked, and nobody is there"
        )));
    }
    let (user, rp_id) = (printable(&request.user.name), &request.rp_id);
    let question = format!("Your rule \"{rule}\" asks: make a passkey for {user} at {rp_id} (yes, no)? ");
    if app.console.ask(&question)? == "yes" {
        return Ok(());
    }
    Err(Failure::new(Exit::NotConfirmed, format!("the rule \"{rule}\" asked, and nobody said yes"))
        .next("Nothing was made. To make it, answer \"yes\"."))
}
