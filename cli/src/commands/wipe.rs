use serde_json::json;
use vault_core::{VaultError, Wiped, container::State, printable};

use crate::{
    app::{App, Keys, patiently},
    failure::{Exit, Failure, Result},
};

/// What has to be typed.
const WORD: &str = "wipe";

pub(crate) fn run(app: &mut App<'_>, yes: bool) -> Result<()> {
    let mut keys = app.keys()?;
    tell_what_is_lost(app, &mut keys)?;
    if !yes {
        let question = format!("Type \"{WORD}\" to destroy the vault in {}: ", app.dir.display());
        let answer = app
            .console
            .ask(&question)
            .map_err(|failure| failure.next("Run this in a terminal, or give --yes."))?;
        if answer != WORD {
            return Err(Failure::new(Exit::NotConfirmed, "nothing was destroyed")
                .next("To destroy the vault, type the word."));
        }
    }
    let (tpm, text) = match patiently(|| vault_core::wipe(&app.dir, &mut keys.tpm), VaultError::is_busy)? {
        Wiped::SecretAndFile => (
            "erased",
            "The vault is destroyed. The TPM has forgotten its secret: no copy of the file can sign again.",
        ),
        Wiped::SecretItNamed => (
            "erased what the file named",
            "The vault's file is removed, and the secret that it named is destroyed. The file was not as Passhold wrote it: a good copy may name another secret, and sign.",
        ),
        Wiped::File => (
            "holds nothing",
            "The vault's file is removed. This TPM holds no secret of it; if another one made it, a copy still signs there.",
        ),
    };
    let json = json!({"wiped": app.dir, "tpm": tpm});
    app.print(&json, || text.to_owned())
}

fn tell_what_is_lost(app: &mut App<'_>, keys: &mut Keys) -> Result<()> {
    let container = app.container()?;
    match container.state()? {
        State::Provisioning if container.is_empty()? => {
            app.note("its set-up was interrupted: it holds no passkeys");
            return Ok(());
        }
        State::Provisioning => {
            app.note("its file says that set-up was interrupted, and holds passkeys all the same");
            return Ok(());
        }
        State::Wiping => {
            app.note("a wipe of it was interrupted, and will be completed");
            return Ok(());
        }
        State::Active | State::Resetting => drop(container),
    }
    match app.open(keys).and_then(|vault| Ok(vault.accounts()?)) {
        Ok(accounts) => {
            app.note(format!("{} passkeys will be lost:", accounts.len()));
            for (id, account) in accounts {
                app.note(format!("{id}: {} at {}", printable(account.name()), account.rp_id));
            }
            Ok(())
        }
        // A vault that cannot be read can still be wiped.
        Err(failure) if failure.leaves_a_vault() => {
            app.note(format!("the passkeys that will be lost cannot be listed: {failure}"));
            Ok(())
        }
        Err(failure) => Err(failure),
    }
}
