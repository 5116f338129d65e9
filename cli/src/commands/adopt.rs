use std::path::Path;

use serde_json::json;
use vault_core::container::{Arrival, Arrived, Container};

use crate::{
    app::App,
    failure::{Exit, Failure, Result},
};

/// Its end is told by an empty part. The file goes from where it was once it is safe here.
pub(crate) fn run(app: &mut App<'_>, from: Option<&Path>) -> Result<()> {
    if !app.serves {
        return Err(Failure::new(Exit::Usage, "there is no passholdd to give the vault to")
            .next("Start the service; \"passhold --socket PATH vault adopt\" names another socket."));
    }
    let mut arrival = Arrival::begin(&app.dir)?;
    loop {
        let part = app.console.vault_part(from)?;
        if part.is_empty() {
            break;
        }
        arrival.append(&part)?;
    }
    let (container, arrived) = arrival.settle()?;
    drop(container);
    let mut keys = app.keys()?;
    if let Err(failure) = app.open(&mut keys).map(drop) {
        // Whatever it is, this TPM cannot open it. It stays where it came from.
        if arrived == Arrived::Now {
            Container::open(&app.dir)?.remove()?;
        }
        return Err(failure);
    }
    app.console.vault_is_taken()?;
    let dir = app.dir.clone();
    app.print(&json!({"adopted": dir}), || "passholdd keeps the vault now.".to_owned())
}
