//! `doctor --fix`: mends what costs nothing, each after it was asked.

use std::{
    fs::{self, File, Permissions},
    io::{self, ErrorKind, Write},
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Command, Stdio},
};

use vault_core::printable;

use super::{
    finding::{Finding, Level, Mend},
    machine::RULE,
};
use crate::{
    app::App,
    args::DoctorArgs,
    failure::{Exit, Failure, Result},
};

/// Where the machine's administrator puts rules.
const RULES: &str = "/etc/udev/rules.d";
const RULE_PATH: &str = "/etc/udev/rules.d/72-passhold.rules";

/// Where udevd listens, if it runs.
const UDEVD: &str = "/run/udev/control";
const APPLY_RULE: &str =
    "udevadm control --reload && udevadm trigger --sysname-match=tpmrm0 --sysname-match=uhid";

/// Whether anything was mended.
pub(super) fn run(app: &mut App<'_>, findings: &[Finding], args: &DoctorArgs) -> Result<bool> {
    let root = rustix::process::geteuid().is_root();
    let mut mended = false;
    for finding in findings.iter().filter(|finding| finding.level != Level::Ok) {
        let Some(mend) = &finding.mend else { continue };
        let may = match mend {
            Mend::Safe(_) | Mend::Srk => true,
            Mend::Root(_) | Mend::UdevRule => root,
            Mend::Shell(_)
            | Mend::Tool(_)
            | Mend::Evict
            | Mend::Harden
            | Mend::HardenAnew
            | Mend::Passhold(_) => continue,
        };
        let command = mend.command(app);
        if !(may && finding.ours) {
            app.note(printable(&format!("{}: to be mended with {command}", finding.id)));
            continue;
        }
        app.note(printable(&format!("{}: {}", finding.id, finding.found)));
        if args.yes || agrees(app, mend, &command)? {
            mend_it(app, mend, &command)?;
            mended = true;
        }
    }
    Ok(mended)
}

fn agrees(app: &mut App<'_>, mend: &Mend, command: &str) -> Result<bool> {
    let question = match mend {
        Mend::Srk => "Make the storage root key anew? [y/N] ".to_owned(),
        Mend::UdevRule => format!("Write {RULE_PATH}? [y/N] "),
        _ => format!("Run {command}? [y/N] "),
    };
    let answer = app.console.ask(&question);
    let answer = answer.map_err(|failure| failure.next("Run this in a terminal, or give --yes."))?;
    Ok(["y", "yes"].contains(&answer.to_lowercase().as_str()))
}

/// Whole or not at all, and readable to whoever looks at it next.
fn write_rule() -> io::Result<()> {
    fs::create_dir_all(RULES)?;
    let draft = Path::new(RULES).join("72-passhold.draft");
    fs::remove_file(&draft).or_else(|e| if e.kind() == ErrorKind::NotFound { Ok(()) } else { Err(e) })?;
    let mut file = File::create_new(&draft)?;
    file.set_permissions(Permissions::from_mode(0o644))?;
    file.write_all(RULE.as_bytes())?;
    file.sync_all()?;
    fs::rename(&draft, RULE_PATH)
}

fn mend_it(app: &mut App<'_>, mend: &Mend, command: &str) -> Result<()> {
    if *mend == Mend::Srk {
        let anchor = app.container().and_then(|container| Ok(container.anchor()?)).ok();
        return Ok(app.keys()?.tpm.restore_storage_root_key(anchor.as_ref())?);
    }
    if *mend == Mend::UdevRule {
        write_rule().map_err(|e| Failure::unexpected(format!("cannot write {RULE_PATH}"), e))?;
        if !Path::new(UDEVD).exists() {
            return Ok(());
        }
    }
    let command = if *mend == Mend::UdevRule { APPLY_RULE } else { command };
    // What it prints is not our result.
    let ended =
        Command::new("sh").args(["-c", command]).stdin(Stdio::null()).stdout(std::io::stderr()).status();
    match ended {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(Failure::new(Exit::Unexpected, format!("{command} failed ({status})"))
            .next("What it says is above. What was mended before stays mended.")),
        Err(e) => Err(Failure::unexpected(format!("cannot run {command}"), e)),
    }
}
