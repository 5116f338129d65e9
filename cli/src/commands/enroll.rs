use vault_core::{
    Unlocked, Vault, printable,
    webauthn::{CreateRequest, Origin},
};

use crate::{
    app::{App, now, rng, to_json},
    args::Ceremony,
    failure::{Failure, Result},
};

pub(crate) fn run(app: &mut App<'_>, ceremony: &Ceremony) -> Result<()> {
    let origin = Origin::parse(&ceremony.origin)?;
    let request = CreateRequest::from_json(&app.console.options(&ceremony.options)?, origin)?;
    let mut keys = app.keys()?;
    let enroll = |_: &mut App<'_>, unlocked: Unlocked<'_>, present, ()| {
        Ok(unlocked.enroll(&request, present, now(), &mut rng())?)
    };
    let (id, response) = app.with_pin(&mut keys, |app, vault| show(app, vault, &request), enroll)?;
    app.console.print(&to_json(&response)?)?;
    app.note(format!("made passkey {id}"));
    Ok(())
}

fn show(app: &mut App<'_>, vault: &Vault<'_>, request: &CreateRequest) -> Result<()> {
    if vault.excluded(request)?.is_some() {
        return Err(Failure::excluded());
    }
    let (user, rp_id) = (printable(&request.user.name), &request.rp_id);
    app.note(format!("make a passkey for {user} at {rp_id}, asked by {}", request.origin));
    for (id, account) in vault.accounts_of(rp_id)? {
        if account.user_handle == request.user.handle {
            app.note(format!("there is one for this account already (passkey {id}); this will be another"));
        }
    }
    Ok(())
}
