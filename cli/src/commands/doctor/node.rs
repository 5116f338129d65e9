//! Device nodes, and who may open them.

use std::{
    fs::{self, OpenOptions},
    io::{self, ErrorKind},
    os::unix::fs::MetadataExt,
    path::Path,
};

use rustix::process::geteuid;
use tpm_backend::{Address, Reach};

use super::finding::{Finding, Group, Level, Mend, quoted};
use crate::node;

/// The service's.
pub(super) const GROUP: &str = "passhold";

const WHY_DEVICE: &str = "Without it Passhold does not reach the TPM.";

fn line(level: Level, found: String, why: &'static str) -> Finding {
    Finding::new(Group::Tpm, "tpm-device", level, found, why)
}

/// Where the TPM is reached by a node: driver, node, group, other holder.
pub(super) fn tpm(address: &str) -> Option<Finding> {
    let Reach::Device(path) = address.parse::<Address>().ok()?.reach()? else { return None };
    let at = path.display();
    Some(match open(&path) {
        Ok(()) => line(Level::Ok, format!("{at} can be opened"), WHY_DEVICE),
        Err(e) => match e.kind() {
            ErrorKind::NotFound => missing(&path),
            ErrorKind::PermissionDenied => not_permitted(&path),
            ErrorKind::ResourceBusy => held(&path),
            _ => line(Level::Problem, format!("{at} cannot be opened: {e}"), WHY_DEVICE),
        },
    })
}

/// Whether this user can.
pub(super) fn open(path: &Path) -> io::Result<()> {
    OpenOptions::new().read(true).write(true).open(path).map(drop)
}

fn missing(path: &Path) -> Finding {
    let drives = fs::read_dir("/sys/class/tpm").is_ok_and(|mut tpms| tpms.next().is_some());
    let (found, why) = if drives {
        (
            "the kernel drives a TPM",
            "Name its node with --tpm, or run \"udevadm trigger --subsystem-match=tpmrm\" as root.",
        )
    } else {
        ("the kernel drives no TPM", "Is it switched on in the firmware set-up?")
    };
    line(Level::Problem, format!("there is no {}, and {found}", path.display()), why)
}

/// Our udev rule lets a group of our own in. Without it, distributions give the nodes to a group, mostly tss; where the node is
/// root's alone, no rule of theirs did.
fn not_permitted(path: &Path) -> Finding {
    let why = "Only its group reaches the TPM. What joins it takes effect at the next log-in. passholdd, where it runs, needs nobody to.";
    let denied = line(Level::Problem, format!("no permission to open {}", path.display()), why);
    let node = quoted(&path.display().to_string());
    let join = |group: &str| format!("usermod -aG {} {}", quoted(group), quoted(&user()));
    if has_group(GROUP) {
        return denied.mended_by(Mend::Root(vec![format!("setfacl -m g:{GROUP}:rw {node}"), join(GROUP)]));
    }
    let (group, mode) = fs::metadata(path).map_or((0, 0), |about| (about.gid(), about.mode()));
    let mut commands = Vec::new();
    let open_to_group = group != 0 && mode & 0o060 == 0o060;
    let group = if open_to_group { name_of("/etc/group", group) } else { "tss".to_owned() };
    if !open_to_group {
        if path.starts_with("/dev") {
            let rule = r#"KERNEL==\"tpmrm[0-9]*\", GROUP=\"tss\", MODE=\"0660\""#;
            commands.push(format!("sh -c \"echo '{rule}' > /etc/udev/rules.d/60-tpmrm-tss.rules\""));
        }
        commands.extend([format!("chgrp tss {node}"), format!("chmod 660 {node}")]);
    }
    commands.push(join(&group));
    denied.mended_by(Mend::Root(commands))
}

fn held(path: &Path) -> Finding {
    let why = "A node without resource manager takes one program at a time. /dev/tpmrm0 takes many.";
    let found = |who: &str| line(Level::Problem, format!("{} is held by {who}", path.display()), why);
    match node::holders(path).next() {
        Some((pid, name)) => {
            found(&format!("process {pid} ({name})")).mended_by(Mend::Shell(format!("kill {pid}")))
        }
        None => found("another process"),
    }
}

pub(super) fn user() -> String {
    name_of("/etc/passwd", geteuid().as_raw())
}

pub(super) fn has_group(name: &str) -> bool {
    let lines = fs::read_to_string("/etc/group").unwrap_or_default();
    lines.lines().any(|line| line.split(':').next() == Some(name))
}

/// By its number, which all that takes a name takes too.
fn name_of(file: &str, number: u32) -> String {
    let number = number.to_string();
    let lines = fs::read_to_string(file).unwrap_or_default();
    let named = lines.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == number).then(|| name.to_owned())
    });
    named.unwrap_or(number)
}
