//! `doctor harden`: the TPM's lockout as it should be, and nobody's to reset but its administrator's.

use secrecy::{ExposeSecret, SecretSlice};
use serde_json::json;
use tpm_backend::{Authorization, HardenError, LIMIT, RECOVERY};
use vault_core::{Secret, secret_from};
use zeroize::Zeroizing;

use crate::{
    app::App,
    failure::{Exit, Failure, Result},
    terminal::read_secret,
};

pub(crate) fn run(app: &mut App<'_>, yes: bool, old: Option<u32>) -> Result<()> {
    if app.serves || app.daemon.is_some() {
        return Err(Failure::new(
            Exit::Usage,
            "passholdd lets nobody change what all users of the TPM share",
        )
        .next("Its administrator does: \"sudo passhold --direct doctor harden\"."));
    }
    let anchor = app.container().and_then(|container| Ok(container.anchor()?)).ok();
    let mut keys = app.keys()?;
    let old = match (old, keys.tpm.survey()?.lockout_auth) {
        (Some(fd), _) => {
            Some(SecretSlice::from(read_secret(fd, "the lockout authorization")?.as_bytes().to_vec()))
        }
        (None, Authorization::Empty) => None,
        (None, Authorization::Set) => {
            return Err(Failure::new(Exit::OwnerAuth, "the TPM's lockout authorization is set already")
                .next("To replace it, give it with --lockout-auth-fd N."));
        }
    };
    let new = random()?;
    let text = Zeroizing::new(new.expose_secret().iter().copied().map(char::from).collect::<String>());
    app.note(format!(
        "the TPM will allow {LIMIT} failures and forget one every {} minutes; only this lockout authorization resets the count:",
        RECOVERY / 60
    ));
    app.print(&json!({"lockoutAuth": *text}), || text.to_string())?;
    if !yes {
        let answer = app.console.ask("It is not shown again. Type \"written down\" once it is: ");
        let answer = answer.map_err(|failure| failure.next("Run this in a terminal, or give --yes."))?;
        if answer != "written down" {
            return Err(
                Failure::new(Exit::NotConfirmed, "nothing was changed").next("To go on, type the words.")
            );
        }
    }
    match keys.tpm.harden(anchor.as_ref(), old.as_ref(), &new) {
        Ok(()) => {
            app.note("the TPM's lockout is hardened");
            Ok(())
        }
        Err(HardenError::KeyStore(e)) => Err(e.into()),
        Err(HardenError::InDoubt(cause)) => Err(Failure::unexpected(
            "the lockout authorization that was shown may be in force, or still the one before",
            cause,
        )
        .next("Keep both. \"passhold doctor\" tells whether one is set; run this again, with the one that was shown first.")),
        Err(e) => Err(Failure::new(Exit::OwnerAuth, e.to_string()).next(
            "Nothing was changed. The TPM takes no other for a time, on most a day or until the next start.",
        )),
    }
}

/// 128 bits in 32 characters that tpm2-tools take as they are.
fn random() -> Result<Secret> {
    let mut bytes = Zeroizing::new([0_u8; 16]);
    getrandom::fill(&mut *bytes).map_err(|e| Failure::unexpected("cannot draw random bytes", e))?;
    Ok(secret_from(|out| {
        for (pair, byte) in out.chunks_exact_mut(2).zip(*bytes) {
            for (digit, half) in pair.iter_mut().zip([byte >> 4, byte & 15]) {
                *digit = if half < 10 { b'0' + half } else { b'a' + half - 10 };
            }
        }
    }))
}
