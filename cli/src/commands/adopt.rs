use std::path::Path;

use serde_json::json;
use vault_core::{Vault, container::Arrival};

use crate::{
    app::{App, now},
    failure::{Exit, Failure, Result, unlock_failure},
};

/// Its end is told by an empty part. The file goes from where it was once it is safe here.
pub(crate) fn run(app: &mut App<'_>, from: Option<&Path>) -> Result<()> {
    if !app.serves {
        return Err(Failure::new(Exit::Usage, "there is no passholdd to give the vault to")
            .next("Start the service; \"passhold --socket PATH vault adopt\" names another socket."));
    }
    let mut keys = app.keys()?;
    let mut arrival = Arrival::begin(&app.dir)?;
    loop {
        let part = app.console.vault_part(from)?;
        if part.is_empty() {
            break;
        }
        arrival.append(&part)?;
    }
    // A copy of somebody else's file is not enough to have his vault: he who brings it knows its PIN.
    let mut vault = Vault::open_container(arrival.open()?, &mut keys.tpm)?.at(now());
    app.note("give the vault to passholdd");
    let pin = app.pin("PIN: ")?;
    if let Err(refused) = vault.unlock(&pin.material()).map(drop) {
        return Err(unlock_failure(refused, &app.dir));
    }
    drop(vault);
    arrival.settle()?;
    app.console.vault_is_taken()?;
    let dir = app.dir.clone();
    app.print(&json!({"adopted": dir}), || "passholdd keeps the vault now.".to_owned())
}
