//! The vault: its folder, its file, and what the TPM holds of it.

use std::{fs, io::ErrorKind, os::unix::fs::MetadataExt, path::Path, time::Duration};

use rustix::process::geteuid;
use vault_core::{
    OpenError, PIN_LIMIT, UnlockError, Vault,
    container::{Container, Settings, State, VAULT_FILE},
    keystore::{Anchor, KeyStoreError, KeysGone},
    pin::PinPolicy,
};

use super::finding::{Finding, Group, Level, Mend, quoted};
use crate::{
    app::{App, Keys, now},
    failure::{Failure, Result, unlock_failure},
    terminal::{date, tries},
};

/// Clocks of two machines that share a disk differ by less.
const SKEW: Duration = Duration::from_secs(300);

fn line(id: &'static str, level: Level, found: impl Into<String>, why: &'static str) -> Finding {
    Finding::new(Group::Vault, id, level, found, why)
}

fn failed(id: &'static str, failure: impl Into<Failure>) -> Finding {
    Finding::failed(Group::Vault, id, &failure.into())
}

/// What makes room for a new vault, asking first, and makes it.
fn anew() -> Mend {
    Mend::passhold(&["wipe", "setup"])
}

/// A PIN that is not given ends it all: whoever asked for that check wants no page without it.
pub(super) fn findings(
    app: &mut App<'_>,
    container: Result<Container>,
    keys: Option<Keys>,
    check_pin: bool,
) -> Result<Vec<Finding>> {
    let mut findings = Vec::new();
    let file = app.dir.join(VAULT_FILE);
    match (fs::metadata(&app.dir), fs::symlink_metadata(&file)) {
        (Ok(folder), Ok(about)) => {
            findings.extend([permissions(app, &folder, &file, &about), clock(&about)]);
        }
        (Ok(folder), Err(e))
            if e.kind() == ErrorKind::PermissionDenied && folder.uid() != geteuid().as_raw() =>
        {
            findings.push(permissions(app, &folder, &file, &folder));
        }
        _ => {}
    }
    let read = container.and_then(|container| Ok((container.state()?, container.anchor()?, container)));
    let (anchor, container) = match read {
        Ok((State::Active, anchor, container)) => {
            let why = "Its passkeys are not all read here: each is checked when it is used.";
            let found = format!("{}, in the format of this Passhold", app.dir.display());
            findings.push(line("vault", Level::Ok, found, why));
            (anchor, container)
        }
        Ok((State::Resetting, anchor, container)) => {
            let why = "Until it is completed, it may be that no PIN opens the vault. The same recovery code completes it.";
            let begun = line("vault", Level::Problem, "a PIN reset was begun and not completed", why);
            findings.push(begun.mended_by(Mend::passhold(&["pin reset"])));
            (anchor, container)
        }
        Ok((State::Provisioning, ..)) => {
            let unfinished = failed("vault", OpenError::Unfinished);
            findings.push(unfinished.mended_by(Mend::passhold(&["setup"])));
            return Ok(findings);
        }
        Ok((State::Wiping, ..)) => {
            let why = "Whether its secret is gone from the TPM is not known until it is completed.";
            let begun = line("vault", Level::Problem, "a wipe of the vault was begun and not completed", why);
            findings.push(begun.mended_by(anew()));
            return Ok(findings);
        }
        Err(failure) if failure.is_no_vault() => {
            let none = Finding { level: Level::Warning, ..failed("vault", failure) };
            findings.push(none.mended_by(Mend::passhold(&["setup"])));
            return Ok(findings);
        }
        Err(failure) => {
            findings.push(failed("vault", failure));
            return Ok(findings);
        }
    };
    if let Some(mut keys) = keys {
        opened(app, (container, &anchor), &mut keys, check_pin, &mut findings)?;
    }
    Ok(findings)
}

fn opened(
    app: &mut App<'_>,
    (container, anchor): (Container, &Anchor),
    keys: &mut Keys,
    check_pin: bool,
    findings: &mut Vec<Finding>,
) -> Result<()> {
    // An unlock would tell too late: the key that opens the file is another index.
    let found = keys.tpm.find_secret(anchor).map_err(OpenError::from);
    let recovery = keys.tpm.find_recovery(anchor);
    let mut vault = match found.and_then(|()| Vault::open_container(container, &mut keys.tpm)) {
        Ok(vault) => vault,
        Err(OpenError::KeyStore(
            e @ (KeyStoreError::KeysGone(_) | KeyStoreError::Erased | KeyStoreError::Replaced { .. }),
        )) => {
            findings.push(keys_lost(e));
            return Ok(());
        }
        Err(e) => {
            findings.push(failed("vault-file", e));
            return Ok(());
        }
    };
    findings.push(line(
        "vault-keys",
        Level::Ok,
        "this TPM holds the vault's keys",
        "No other TPM can use it.",
    ));
    findings.push(line("vault-file", Level::Ok, "written by Passhold with this TPM's key", why_sealed()));
    let (id, file) = (vault.id(), vault.generation());
    let generation = if check_pin {
        // Others may use the vault while somebody types.
        drop(vault);
        let pin = app.pin("PIN: ")?;
        vault = match app.open_again(keys, id) {
            Ok(vault) => vault,
            Err(failure) => {
                findings.push(failed("generation", failure));
                return Ok(());
            }
        };
        match vault.unlock(&pin.material()).map(drop) {
            Ok(()) => {
                line("generation", Level::Ok, format!("file and TPM are at change {file}"), why_generation())
            }
            Err(UnlockError::WrongPin) => failed("generation", Failure::wrong_pin(vault.tries_left().ok())),
            Err(e @ UnlockError::RolledBack { .. }) => failed("generation", unlock_failure(e, &app.dir))
                .mended_by(Mend::passhold(&["restore accept"])),
            Err(e) => failed("generation", unlock_failure(e, &app.dir)),
        }
    } else {
        let found = format!("the file is at change {file}; --check-pin asks the TPM for its count");
        line("generation", Level::Ok, found, why_generation())
    };
    let settings = match vault.settings() {
        Ok(settings) => settings,
        Err(e) => {
            findings.push(failed("vault-file", e));
            return Ok(());
        }
    };
    let tries = pin_tries(&mut vault, settings.recovery_code.is_some());
    findings.extend([tries, pin_age(&settings, app.policy), recovery_code(&settings, recovery), generation]);
    Ok(())
}

fn recovery_code(settings: &Settings, found: Result<(), KeyStoreError>) -> Finding {
    let why = "A forgotten PIN, or eight wrong ones, cost every passkey without it.";
    let renew = || Mend::passhold(&["recovery renew"]);
    match (found, &settings.recovery_code) {
        (Ok(()), Some(code)) => {
            line("recovery-code", Level::Ok, format!("the one that was made {}", date(code.at)), why)
        }
        (Ok(()) | Err(KeyStoreError::RecoveryGone), None) => {
            line("recovery-code", Level::Warning, "there is no recovery code", why).mended_by(renew())
        }
        (Err(e @ KeyStoreError::RecoveryGone), _) => failed("recovery-code", e).mended_by(renew()),
        (Err(e), _) => failed("recovery-code", e),
    }
}

fn pin_age(settings: &Settings, policy: PinPolicy) -> Finding {
    let why = "Nothing more is signed with a PIN that must be changed.";
    let set = settings.pin_set.map_or_else(|| "nobody noted when".to_owned(), date);
    let due = |found: String| {
        line("pin-age", Level::Warning, found, why).mended_by(Mend::passhold(&["pin change"]))
    };
    if policy.is_expired(settings.pin_set, now()) {
        due(format!("the PIN is older than the policy allows: set {set}"))
    } else if settings.pin_change_due {
        due(format!("the PIN must be changed: set {set}"))
    } else {
        line("pin-age", Level::Ok, format!("set {set}"), why)
    }
}

fn why_sealed() -> &'static str {
    "One that was edited is refused."
}

fn why_generation() -> &'static str {
    "An old copy of the file is refused when the PIN is given: the TPM tells its count for nothing less."
}

/// The vault's keys are not in this TPM.
pub(super) fn keys_lost(error: KeyStoreError) -> Finding {
    let elsewhere = matches!(error, KeyStoreError::KeysGone(KeysGone::OtherTpm | KeysGone::Unknown));
    let finding = failed("vault-keys", error);
    if elsewhere { finding } else { finding.mended_by(anew()) }
}

fn pin_tries(vault: &mut Vault<'_>, has_code: bool) -> Finding {
    let why = "At none the TPM refuses even the right PIN. A right one sets the count back.";
    match vault.tries_left() {
        Err(UnlockError::KeyStore(e @ (KeyStoreError::Erased | KeyStoreError::Replaced { .. }))) => {
            Finding { id: "pin-tries".into(), ..keys_lost(e) }
        }
        Err(e) => failed("pin-tries", e),
        Ok(left) => match left.count() {
            0 => line("pin-tries", Level::Problem, tries(left), why).mended_by(if has_code {
                Mend::passhold(&["pin reset"])
            } else {
                anew()
            }),
            PIN_LIMIT => line("pin-tries", Level::Ok, tries(left), why),
            _ => line("pin-tries", Level::Warning, tries(left), why)
                .mended_by(Mend::passhold(&["doctor --check-pin"])),
        },
    }
}

fn permissions(app: &App<'_>, folder: &fs::Metadata, file: &Path, about: &fs::Metadata) -> Finding {
    let why =
        "The vault's file is sealed, but whoever writes to it can replace it by an old copy or destroy it.";
    let line = |level, found: String| line("vault-permissions", level, found, why);
    let (user, owners) = (geteuid().as_raw(), [folder.uid(), about.uid()]);
    let modes = [folder.mode() & 0o777, about.mode() & 0o777];
    let path = file.display();
    let [dir, file] = [&app.dir, file].map(|path| quoted(&path.display().to_string()));
    if let Some(other) = owners.into_iter().find(|owner| *owner != user) {
        let found = line(Level::Problem, format!("it belongs to user {other}"));
        // A sudo too many, which the user takes back. Somebody else's vault is left to him, and most of all by root.
        let is_roots = owners.iter().all(|owner| [user, 0].contains(owner));
        return if user != 0 && is_roots {
            found.mended_by(Mend::Root(vec![format!("chown -R {user} {dir}")]))
        } else {
            found
        };
    }
    if !about.is_file() {
        return line(Level::Problem, format!("{path} is no file but a link or a folder"));
    }
    if modes == [0o700, 0o600] {
        return line(Level::Ok, "only its owner can reach it".to_owned());
    }
    let [folder, about] = modes;
    let found = line(Level::Warning, format!("folder {folder:04o}, file {about:04o}"));
    // Once nobody else writes to the folder, what is no link stays none.
    let close = [format!("chmod 700 {dir}"), format!("test ! -L {file}"), format!("chmod 600 {file}")];
    found.mended_by(if app.serves { Mend::Root(close.to_vec()) } else { Mend::Safe(close.join(" && ")) })
}

/// The one clock that tells on another: what was written yesterday was not written tomorrow.
fn clock(about: &fs::Metadata) -> Finding {
    let why = "Passkeys are dated by it, and sites are not reached with a wrong one. \"timedatectl\" shows and sets it.";
    let ahead = about.modified().ok().and_then(|written| written.elapsed().err()).map(|e| e.duration());
    match ahead {
        Some(ahead) if ahead > SKEW => {
            let written = u64::try_from(about.mtime()).unwrap_or_default();
            let found =
                format!("the clock is behind the vault's file, which was written at {}", date(written));
            line("clock", Level::Warning, found, why)
        }
        _ => line("clock", Level::Ok, "not behind the vault's file", why),
    }
}
