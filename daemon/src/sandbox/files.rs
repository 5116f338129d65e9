//! Landlock: which files can be opened, and which ports connected to.

use std::error::Error;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreatedAttr, Scope, make_bitflags,
};
use tpm_backend::Reach;

use super::Sandbox;
use crate::args::Hid;

/// What every kernel with landlock can do (5.13): all kinds of reading, writing, making and removing.
const REQUIRED: ABI = ABI::V1;

/// What newer ones add is taken where it is there: truncation (6.2), TCP (6.7), ioctls (6.10), abstract sockets (6.12).
const WISHED: ABI = ABI::V10;

/// What says what time it is here, for those who are shown when a passkey was made.
const TIME_ZONE: [&str; 2] = ["/etc/localtime", "/usr/share/zoneinfo"];

pub(super) fn restrict(sandbox: &Sandbox) -> Result<(), Box<dyn Error + Send + Sync>> {
    let mut in_folder: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
        ReadFile | ReadDir | WriteFile | Truncate | MakeReg | RemoveFile
    });
    let mut in_socket_dirs: BitFlags<AccessFs> = AccessFs::RemoveFile.into();
    if sandbox.devices.is_some() {
        // Each user's.
        in_folder |= AccessFs::MakeDir;
    }
    if sandbox.makes_sockets() {
        in_socket_dirs |= AccessFs::MakeSock;
    }
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(REQUIRED))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WISHED))?
        .handle_access(AccessNet::from_all(WISHED))?
        .scope(Scope::AbstractUnixSocket)?
        .create()?
        .add_rule(PathBeneath::new(PathFd::new(&sandbox.folder)?, in_folder))?
        // SQLite seeds its generator there.
        .add_rule(PathBeneath::new(PathFd::new("/dev/urandom")?, AccessFs::ReadFile))?;
    for dir in &sandbox.socket_dirs {
        rules = rules.add_rule(PathBeneath::new(PathFd::new(dir)?, in_socket_dirs))?;
    }
    if let Some(Hid::Uhid) = &sandbox.devices {
        let uhid = PathFd::new("/dev/uhid")?;
        rules = rules.add_rule(PathBeneath::new(uhid, AccessFs::ReadFile | AccessFs::WriteFile))?;
    }
    if sandbox.service {
        for path in TIME_ZONE.into_iter().filter_map(|path| PathFd::new(path).ok()) {
            rules = rules.add_rule(PathBeneath::new(path, AccessFs::ReadFile))?;
        }
    }
    rules = match &sandbox.tpm {
        Reach::Device(path) => {
            let node = PathFd::new(path)?;
            rules.add_rule(PathBeneath::new(node, AccessFs::ReadFile | AccessFs::WriteFile))?
        }
        Reach::Tcp(ports) => rules.add_rules(
            ports
                .iter()
                .map(|port| Ok::<_, landlock::RulesetError>(NetPort::new(*port, AccessNet::ConnectTcp))),
        )?,
    };
    rules.restrict_self()?;
    Ok(())
}
