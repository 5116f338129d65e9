use std::path::Path;

use serde_json::json;
use vault_core::{
    Tidying,
    container::{Account, AccountId},
    printable,
    webauthn::{Signal, User},
};

use crate::{
    app::{App, Keys, now, rng},
    failure::{Exit, Failure, Result},
};

pub(crate) fn run(app: &mut App<'_>, file: &Path, yes: bool) -> Result<()> {
    let signal = Signal::from_json(&app.console.input(file)?)?;
    let mut keys = app.keys()?;
    let nothing = app.open(&mut keys)?.tidying(&signal)?.is_empty();
    let done = match &signal {
        _ if nothing => Tidying::default(),
        Signal::CurrentUserDetails { user, .. } => rename(app, &mut keys, &signal, user, yes)?,
        _ => sort_out(app, &mut keys, &signal)?,
    };
    let Tidying { to_bin, from_bin, to_rename } = &done;
    let json = json!({"toBin": ids(to_bin), "fromBin": ids(from_bin), "renamed": ids(to_rename)});
    app.print(&json, || if nothing { "There is nothing to do." } else { "Done." }.to_owned())
}

fn sort_out(app: &mut App<'_>, keys: &mut Keys, signal: &Signal) -> Result<Tidying> {
    app.with_pin(
        keys,
        |app, vault| {
            let tidying = vault.tidying(signal)?;
            whose(app, signal);
            for (id, account) in &tidying.to_bin {
                app.note(format!("{id}: {} goes to the bin", printable(account.name())));
            }
            for (id, account) in &tidying.from_bin {
                app.note(format!("{id}: {} comes out of the bin", printable(account.name())));
            }
            Ok(tidying)
        },
        |_, unlocked, _, tidying| {
            // What was shown, and nothing that came since.
            unlocked.sort_out(&ids(&tidying.to_bin), &ids(&tidying.from_bin), now(), &mut rng())?;
            Ok(tidying)
        },
    )
}

/// As `rename`, it takes no PIN; but it is not the person who has chosen the names.
fn rename(app: &mut App<'_>, keys: &mut Keys, signal: &Signal, user: &User, yes: bool) -> Result<Tidying> {
    let vault = app.open(keys)?;
    let (id, tidying) = (vault.id(), vault.tidying(signal)?);
    drop(vault);
    whose(app, signal);
    let [name, display_name] = [&user.name, &user.display_name].map(|name| printable(name));
    for (id, account) in &tidying.to_rename {
        let [old, old_display] = [&account.user_name, &account.display_name].map(|name| printable(name));
        app.note(format!("{id}: {old} ({old_display}) becomes {name} ({display_name})"));
    }
    if !yes {
        let answer = app.console.ask("Give them these names (yes, no)? ");
        if answer.map_err(|failure| failure.next("Run this in a terminal, or give --yes."))? != "yes" {
            return Err(Failure::new(Exit::NotConfirmed, "nothing was renamed")
                .next("To rename them, answer \"yes\"."));
        }
    }
    let mut vault = app.open_again(keys, id)?;
    for (id, _) in &tidying.to_rename {
        vault.update_user(*id, user, &mut rng())?;
    }
    Ok(tidying)
}

/// A browser would know who sent it.
fn whose(app: &mut App<'_>, signal: &Signal) {
    app.note(format!("go on only if this is from {}: a file does not show who sent it", signal.rp_id()));
}

fn ids(list: &[(AccountId, Account)]) -> Vec<AccountId> {
    list.iter().map(|(id, _)| *id).collect()
}
