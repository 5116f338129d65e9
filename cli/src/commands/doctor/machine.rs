//! passholdd, the device it shows, and the disk.

use std::{
    fs,
    io::ErrorKind,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
};

use super::{
    finding::{Finding, Group, Level, Mend, quoted},
    node,
};
use crate::{app::App, failure::Failure, ipc, node::of_this_user};

/// passholdd's own, as packages install it.
pub(super) const RULE: &str = include_str!("../../../../dist/udev/72-passhold.rules");
const RULE_FILE: &str = "udev/rules.d/72-passhold.rules";
const UNIT: &str = "systemd/system/passholdd.service";
/// Loads uhid at every start.
const MODULES: &str = "modules-load.d/passhold.conf";
const SYSUSERS: &str = "sysusers.d/passhold.conf";
const PROMPT: &str = "systemd/user/passhold-prompt.service";
/// Where such files are, in the order in which they count.
const PLACES: [&str; 5] = ["/etc", "/run", "/usr/local/lib", "/usr/lib", "/lib"];
/// Where vaults are, as the service keeps them.
const STATE: &str = "/var/lib/passhold";

/// A change to a vault of 100,000 passkeys writes less.
const DISK: u64 = 64 << 20;

fn line(id: &'static str, level: Level, found: impl Into<String>, why: &'static str) -> Finding {
    Finding::new(Group::Device, id, level, found, why)
}

pub(super) fn findings(app: &App<'_>) -> Vec<Finding> {
    let daemon = if app.daemon.is_some() { None } else { Some(daemon(app)) };
    daemon.into_iter().chain([uhid(), group(), udev_rule()]).chain(hidraw(app)).chain(disk(app)).collect()
}

/// passholdd, which has looked at its part or failed to.
pub(super) fn daemon_asked(socket: &Path, failure: Option<&Failure>) -> Finding {
    let answers = || format!("passholdd answers at {}", socket.display());
    failure.map_or_else(
        || line("daemon", Level::Ok, answers(), WHY_DAEMON),
        |failure| Finding::failed(Group::Device, "daemon", failure),
    )
}

const WHY_DAEMON: &str = "Browsers, libfido2 and OpenSSH see passkeys through it alone. \"Installing, and the service\" in the guide sets it up.";

fn daemon(app: &App<'_>) -> Finding {
    let mut silent = None;
    for socket in app.socket.iter().cloned().chain(ipc::sockets()) {
        match UnixStream::connect(&socket) {
            Ok(_) => {
                let found = format!("passholdd listens at {}, and was not asked", socket.display());
                return line("daemon", Level::Ok, found, WHY_DAEMON);
            }
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => {
                silent = silent.or(Some(format!("passholdd does not answer at {}: {e}", socket.display())));
            }
        }
    }
    let finding = match silent {
        Some(found) => line("daemon", Level::Problem, found, WHY_DAEMON),
        None => line("daemon", Level::Warning, "passholdd does not run", WHY_DAEMON),
    };
    if installed(UNIT).is_none() {
        return finding;
    }
    let commands = ["systemctl enable passholdd", "systemctl restart passholdd"];
    finding.mended_by(Mend::Root(commands.map(str::to_owned).to_vec()))
}

fn installed(file: &str) -> Option<PathBuf> {
    PLACES.iter().map(|place| Path::new(place).join(file)).find(|path| path.exists())
}

fn uhid() -> Finding {
    let why = "passholdd shows its devices through it.";
    if Path::new("/dev/uhid").exists() {
        return line("uhid", Level::Ok, "/dev/uhid is there", why);
    }
    let at_each_start = "sh -c 'echo uhid > /etc/modules-load.d/passhold.conf'";
    let load = installed(MODULES).is_none().then_some(at_each_start).into_iter().chain(["modprobe uhid"]);
    line("uhid", Level::Warning, "there is no /dev/uhid", why)
        .mended_by(Mend::Root(load.map(str::to_owned).collect()))
}

fn group() -> Finding {
    let why = "The udev rule gives /dev/tpmrm0 and /dev/uhid to it. It is passholdd's, and whoever works without passholdd joins it.";
    if node::has_group(node::GROUP) {
        return line("group", Level::Ok, "there is a group passhold", why);
    }
    let make = match installed(SYSUSERS) {
        Some(_) => "systemd-sysusers passhold.conf",
        None => "useradd --system --home-dir /var/lib/passhold --shell /usr/sbin/nologin passhold",
    };
    line("group", Level::Warning, "there is no group passhold", why)
        .mended_by(Mend::Root(vec![make.to_owned()]))
}

fn udev_rule() -> Finding {
    let why = "It gives /dev/tpmrm0 and /dev/uhid to passholdd, and each user's device to that user alone.";
    match installed(RULE_FILE) {
        Some(path) if fs::read_to_string(&path).is_ok_and(|text| text == RULE) => {
            line("udev-rule", Level::Ok, path.display().to_string(), why)
        }
        found => {
            let found = found.map_or_else(
                || "passholdd's udev rule is not installed".to_owned(),
                |path| format!("{} is not the one of this Passhold", path.display()),
            );
            line("udev-rule", Level::Warning, found, why).mended_by(Mend::UdevRule)
        }
    }
}

/// This user's devices, which his browsers open. The service shows one for as long as something can ask him.
fn hidraw(app: &App<'_>) -> Vec<Finding> {
    let why = "A browser sees the passkeys if its user can open this.";
    let look = |path: PathBuf| {
        let at = path.display();
        match node::open(&path) {
            Ok(()) => line("hidraw", Level::Ok, format!("{at} can be opened"), why),
            Err(e) => line("hidraw", Level::Problem, format!("{at} cannot be opened: {e}"), why).mended_by(
                Mend::Root(vec![format!("chown {} {at}", quoted(&node::user())), format!("chmod 600 {at}")]),
            ),
        }
    };
    let found: Vec<_> = of_this_user().into_iter().map(look).collect();
    if !found.is_empty() || app.daemon.as_deref() != Some(Path::new(ipc::SYSTEM_SOCKET)) {
        return found;
    }
    let why = "passholdd shows one while passhold-prompt runs in this user's session. Browsers see no passkey without.";
    let none = line("hidraw", Level::Warning, "this user has no device", why);
    let ask = || Mend::Safe("systemctl --user enable --now passhold-prompt".to_owned());
    vec![if installed(PROMPT).is_some() { none.mended_by(ask()) } else { none }]
}

fn disk(app: &App<'_>) -> Option<Finding> {
    let why = "A change that does not fit is refused, and the vault stays as it was.";
    let dir = if app.daemon.is_some() { Path::new(STATE) } else { &app.dir };
    let dir = dir.ancestors().find(|dir| dir.exists())?;
    let about = rustix::fs::statvfs(dir).ok()?;
    let free = about.f_bavail.saturating_mul(about.f_frsize);
    let level = match free {
        0..0x10_0000 => Level::Problem,
        0x10_0000..DISK => Level::Warning,
        _ => Level::Ok,
    };
    Some(Finding {
        group: Group::Vault,
        ..line("disk", level, format!("{} MiB free at {}", free >> 20, dir.display()), why)
    })
}
