use jiff::Timestamp;
use vault_core::{
    printable,
    webauthn::{CreateRequest, Origin},
};

use super::read_options;
use crate::{
    app::{App, note, print, rng, to_json},
    args::Ceremony,
    failure::{Failure, Result},
};

pub(crate) fn run(app: &mut App, ceremony: &Ceremony) -> Result<()> {
    let origin = Origin::parse(&ceremony.origin)?;
    let request = CreateRequest::from_json(&read_options(&ceremony.options)?, origin)?;
    let mut keys = app.keys()?;
    let mut vault = app.open(&mut keys)?;
    if vault.excluded(&request)?.is_some() {
        return Err(Failure::excluded());
    }
    let (user, rp_id) = (printable(&request.user.name), &request.rp_id);
    note(format!("make a passkey for {user} at {rp_id}, asked by {}", request.origin));
    for (id, account) in vault.accounts_of(rp_id)? {
        if account.user_handle == request.user.handle {
            note(format!("there is one for this account already (passkey {id}); this will be another"));
        }
    }
    let now = u64::try_from(Timestamp::now().as_second()).unwrap_or_default();
    let (id, response) = app.with_pin(&mut vault, |_, unlocked, present| {
        Ok(unlocked.enroll(&request, present, now, &mut rng())?)
    })?;
    print(&to_json(&response)?)?;
    note(format!("made passkey {id}"));
    Ok(())
}
