//! Looks at everything that a vault depends on. Takes no PIN unless asked to, counts no try, changes nothing unless asked to.

mod browsers;
mod finding;
mod fix;
mod harden;
mod machine;
mod node;
mod tpm;
mod vault;

pub use finding::Level;
pub(crate) use finding::quoted;

use std::path::Path;

use finding::{Finding, page};
use serde_json::json;

use crate::{
    app::App,
    args::{Command, Doctor, DoctorArgs},
    failure::{Exit, Failure, Result},
    ipc::{self, Call},
};

const DIFFERS: &str = "Is it of the same version as this passhold? Start it again.";

/// passholdd looks at the TPM and at its user's vault, `passhold` at the rest, and at those too where no passholdd answers.
pub(crate) fn run(app: &mut App<'_>, args: &DoctorArgs) -> Result<()> {
    if let Some(Doctor::Harden { yes, lockout_auth_fd }) = args.then {
        return harden::run(app, yes, lockout_auth_fd);
    }
    if app.serves {
        let findings = keys_and_vault(app, args)?;
        return app.console.print(&crate::app::to_json(&findings)?);
    }
    let mut findings = look(app, args)?;
    if args.fix && fix::run(app, &findings, args)? {
        findings = look(app, args)?;
    }
    let json: Vec<_> = findings.iter().map(|finding| finding.to_json(app)).collect();
    let text = page(&findings, app);
    app.print(&json!({"findings": json}), || text)?;
    let count = |level| findings.iter().filter(|finding| finding.level == level).count();
    let (warnings, problems) = (count(Level::Warning), count(Level::Problem));
    let exit = match (warnings, problems) {
        (0, 0) => return Ok(()),
        (_, 0) => Exit::Warning,
        _ => Exit::Problem,
    };
    Err(Failure::new(exit, format!("{}, {}", counted(problems, "problem"), counted(warnings, "warning")))
        .next("Each says above why it matters, and what mends it if a command can."))
}

fn counted(number: usize, what: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {what}{s}")
}

fn look(app: &mut App<'_>, args: &DoctorArgs) -> Result<Vec<Finding>> {
    let mut findings = match app.daemon.clone() {
        Some(socket) => through_the_daemon(app, args, &socket),
        None => node::tpm(&app.tpm).into_iter().chain(keys_and_vault(app, args)?).collect(),
    };
    findings.extend(machine::findings(app));
    findings.extend(browsers::findings());
    Ok(findings)
}

fn keys_and_vault(app: &mut App<'_>, args: &DoctorArgs) -> Result<Vec<Finding>> {
    let keys = app.keys();
    // Once: another process that uses the vault is waited for.
    let container = app.container();
    let anchor = container.as_ref().ok().and_then(|container| container.anchor().ok());
    let (mut findings, keys) = tpm::findings(keys, anchor.as_ref());
    findings.extend(vault::findings(app, container, keys, args.check_pin)?);
    Ok(findings)
}

fn through_the_daemon(app: &mut App<'_>, args: &DoctorArgs, socket: &Path) -> Vec<Finding> {
    let look = DoctorArgs { check_pin: args.check_pin, ..DoctorArgs::default() };
    let call = Call::new(Command::Doctor(look), app.json, app.console);
    let answer = ipc::connect(socket).and_then(|stream| call.ask(stream, app.console));
    let findings = answer.and_then(|text| {
        serde_json::from_str::<Vec<Finding>>(&text)
            .map_err(|e| Failure::unexpected("passholdd's answer makes no sense", e).next(DIFFERS))
    });
    let (mut findings, failure) = match findings {
        Ok(findings) => (findings, None),
        Err(failure) => (Vec::new(), Some(failure)),
    };
    findings.push(machine::daemon_asked(socket, failure.as_ref()));
    findings
}
