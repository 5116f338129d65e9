//! The TPM, as it is for all its users.

use tpm_backend::{Authorization, StorageRootKey, Survey};
use vault_core::keystore::{Anchor, KeyStoreError, TpmKind};

use super::finding::{Finding, Group, Level, Mend};
use crate::{app::Keys, failure::Result, terminal::duration};

fn line(id: &'static str, level: Level, found: impl Into<String>, why: &'static str) -> Finding {
    Finding::new(Group::Tpm, id, level, found, why)
}

/// With the TPM, where the vault's keys can be asked for: while the SRK is missing, asking would put it back.
pub(super) fn findings(keys: Result<Keys>, anchor: Option<&Anchor>) -> (Vec<Finding>, Option<Keys>) {
    let looked = keys.and_then(|mut keys| Ok((keys.tpm.survey()?, keys)));
    let (survey, mut keys) = match looked {
        Ok(looked) => looked,
        Err(failure) => return (vec![Finding::failed(Group::Tpm, "tpm", &failure)], None),
    };
    let mut findings = vec![
        line("tpm", Level::Ok, format!("{} at {}", survey.model, keys.address), "It answers."),
        kind(survey.kind),
        version(&survey),
        owner_auth(survey.owner),
        lockout_auth(survey.lockout_auth),
        lockout(&survey),
        limits(&survey),
        room(&survey),
        nv_space(&survey),
    ];
    let (srk, right) = match keys.tpm.storage_root_key(anchor) {
        Ok(found) => (storage_root_key(found, survey.owner), found == StorageRootKey::Right),
        Err(e) => (unknown_storage_root_key(e), false),
    };
    findings.push(srk);
    (findings, right.then_some(keys))
}

fn kind(kind: TpmKind) -> Finding {
    let (level, found) = match kind {
        TpmKind::Discrete => (Level::Ok, "a chip of its own"),
        TpmKind::Firmware => (Level::Ok, "in the processor's firmware"),
        TpmKind::Software => (Level::Warning, "software"),
    };
    line("tpm-kind", level, found, "A software TPM protects no key: whoever reads its state has them all.")
}

fn version(survey: &Survey) -> Finding {
    let found = format!("specification {}.{:02}", survey.revision / 100, survey.revision % 100);
    let level = if survey.counts_pins { Level::Ok } else { Level::Problem };
    line("tpm-version", level, found, "One before 1.38 cannot count wrong PINs, so no vault can be in it.")
}

fn owner_auth(owner: Authorization) -> Finding {
    let (found, why) = match owner {
        Authorization::Empty => (
            "the owner authorization is empty",
            "Set-up and wipe need nothing more. Whoever reaches the TPM can destroy the vault, not use it.",
        ),
        Authorization::Set => (
            "the owner authorization is set",
            "Set-up and wipe take it from --owner-auth-fd N. Without it the tries left are Passhold's own count.",
        ),
    };
    line("owner-auth", Level::Ok, found, why)
}

fn lockout_auth(lockout: Authorization) -> Finding {
    let why =
        "Who has it resets the count of wrong guesses. While it is empty, that is whoever reaches the TPM.";
    match lockout {
        Authorization::Empty => {
            line("lockout-auth", Level::Warning, "the lockout authorization is empty", why)
                .mended_by(Mend::Harden)
        }
        Authorization::Set => line("lockout-auth", Level::Ok, "the lockout authorization is set", why),
    }
}

fn lockout(survey: &Survey) -> Finding {
    let lockout = &survey.lockout;
    let found = format!(
        "{} of {} failures counted; one is forgotten {}",
        lockout.counter,
        lockout.limit,
        if lockout.counter == 0 {
            format!("every {}", duration(lockout.recovery))
        } else {
            format!("in {} at the latest", duration(lockout.recovery))
        }
    );
    let level = match lockout.counter {
        _ if survey.in_lockout => Level::Problem,
        0 => Level::Ok,
        _ => Level::Warning,
    };
    let finding =
        line("lockout", level, found, "At the limit no vault can be used until a failure is forgotten.");
    match (level, survey.lockout_auth) {
        // With an authorization it takes its owner, and time alone heals it too.
        (Level::Ok, _) | (_, Authorization::Set) => finding,
        _ => finding.mended_by(Mend::tool(&["dictionarylockout --clear-lockout"])),
    }
}

fn limits(survey: &Survey) -> Finding {
    let lockout = &survey.lockout;
    let found = format!("{} failures allowed, one more every {}", lockout.limit, duration(lockout.recovery));
    let why = "Fewer lock the vault after a few cuts of power; more, or faster, help who guesses.";
    let right =
        lockout.limit == tpm_backend::LIMIT && lockout.recovery.as_secs() >= tpm_backend::RECOVERY.into();
    if right {
        line("lockout-limits", Level::Ok, found, why)
    } else {
        let mend = match survey.lockout_auth {
            Authorization::Empty => Mend::Harden,
            Authorization::Set => Mend::HardenAnew,
        };
        line("lockout-limits", Level::Warning, found, why).mended_by(mend)
    }
}

fn room(survey: &Survey) -> Finding {
    let why = "An operation loads two keys and two sessions. Without room for them nothing can be done.";
    if survey.has_room {
        return line("tpm-room", Level::Ok, "room for keys and sessions", why);
    }
    line("tpm-room", Level::Problem, "no room: other programs left keys or sessions loaded", why)
        .mended_by(Mend::tool(&["flushcontext -t", "flushcontext -l", "flushcontext -s"]))
}

fn nv_space(survey: &Survey) -> Finding {
    let why = "A new vault takes four small NV indices. \"tpm2_getcap handles-nv-index\" lists what is there, \"tpm2_nvundefine\" removes what nobody needs.";
    match survey.persistent_left {
        0 => line("nv-space", Level::Warning, "no room for NV indices", why),
        _ => line("nv-space", Level::Ok, "room for NV indices", why),
    }
}

fn storage_root_key(found: StorageRootKey, owner: Authorization) -> Finding {
    let evict = |finding: Finding| match owner {
        // It takes the owner's authorization, which has no place on a command line.
        Authorization::Set => finding,
        Authorization::Empty => finding.mended_by(Mend::Evict),
    };
    let why = "Every vault key hangs under the storage root key at 0x81000001.";
    match found {
        StorageRootKey::Right => line("srk", Level::Ok, "the storage root key is in its place", why),
        StorageRootKey::Missing => {
            line("srk", Level::Warning, "there is no storage root key", why).mended_by(Mend::Srk)
        }
        StorageRootKey::Taken => evict(line(
            "srk",
            Level::Problem,
            "another key is in the place of the vault's storage root key",
            "The vault cannot be used until that key is gone from 0x81000001; whoever put it there may need it.",
        )),
        StorageRootKey::Unfit(reason) => evict(line(
            "srk",
            Level::Problem,
            format!("the key at 0x81000001 is no storage root key: {reason}"),
            "No vault can be made until that key is gone from 0x81000001; whoever put it there may need it.",
        )),
        StorageRootKey::Gone(gone) => super::vault::keys_lost(KeyStoreError::KeysGone(gone)),
    }
}

fn unknown_storage_root_key(error: KeyStoreError) -> Finding {
    match error {
        // Said of the vault.
        KeyStoreError::Malformed { .. } => line(
            "srk",
            Level::Warning,
            "which storage root key is needed cannot be told",
            "The vault's file is damaged.",
        ),
        error => Finding::failed(Group::Tpm, "srk", &error.into()),
    }
}
