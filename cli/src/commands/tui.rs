use serde::{Deserialize, Serialize};
use vault_core::{TriesLeft, keystore::TpmKind};

use crate::{app::App, export::Entry, failure::Result};

/// How a vault stands, beside its passkeys.
#[derive(Debug, Serialize, Deserialize)]
pub struct Standing {
    /// Wrong PINs that are still allowed.
    pub tries: TriesLeft,
    /// What kind of TPM its keys are in.
    pub kind: TpmKind,
    /// That TPM's maker and model, as it names itself.
    pub model: String,
}

/// What the screen shows: the vault is opened once for all of it.
pub(crate) fn run(app: &mut App<'_>) -> Result<()> {
    let mut keys = app.keys()?;
    let mut vault = app.open(&mut keys)?;
    let passkeys = vault.each(|id, account, last| Some(Entry::new(id, account, last)))?;
    let status = vault.status()?;
    let tries = vault.tries_by(&status);
    drop(vault);
    app.console.overview(Standing { tries, kind: status.kind, model: status.model }, passkeys)
}
