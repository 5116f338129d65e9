use serde_json::json;
use vault_core::keystore::{KeyStore, TpmKind};

use crate::{
    app::App,
    failure::Result,
    terminal::{duration, tries},
};

pub(crate) fn run(app: &mut App<'_>) -> Result<()> {
    let mut keys = app.keys()?;
    let address = keys.address.clone();
    // Whether there is a TPM at all is worth knowing before whether there is a vault.
    keys.tpm.status(None)?;
    let mut vault = app.open(&mut keys)?;
    let accounts = vault.accounts()?.len();
    let status = vault.status()?;
    let left = vault.tries_by(&status);
    let lockout = status.lockout;
    let json = json!({
        "vault": app.dir,
        "accounts": accounts,
        "triesLeft": left.count(),
        "triesCountedBy": match left { vault_core::TriesLeft::ByTpm(_) => "tpm", vault_core::TriesLeft::ByPasshold(_) => "passhold" },
        "tpm": {"address": address, "kind": status.kind, "model": status.model},
        "lockout": {"counter": lockout.counter, "limit": lockout.limit, "recoverySeconds": lockout.recovery.as_secs()},
    });
    let dir = app.dir.display().to_string();
    app.print(&json, || {
        let kind = match status.kind {
            TpmKind::Discrete => "a chip of its own",
            TpmKind::Firmware => "in the processor's firmware",
            TpmKind::Software => "software, which protects nothing",
        };
        [
            ("Vault", dir),
            ("Passkeys", accounts.to_string()),
            ("PIN", tries(left)),
            ("TPM", format!("{} at {address}: {kind}", status.model)),
            (
                "Lockout",
                format!(
                    "{} of {} failures counted; one is forgotten every {}",
                    lockout.counter,
                    lockout.limit,
                    duration(lockout.recovery)
                ),
            ),
        ]
        .map(|(label, value)| format!("{label:<10}{value}"))
        .join("\n")
    })
}
