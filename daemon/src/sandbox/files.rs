//! Landlock: which files can be opened, and which ports connected to.

use std::{error::Error, path::Path};

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath, PathFd,
    Ruleset, RulesetAttr, RulesetCreatedAttr, Scope, make_bitflags,
};
use tpm_backend::Reach;

/// What every kernel with landlock can do (5.13): all kinds of reading, writing, making and removing.
const REQUIRED: ABI = ABI::V1;

/// What newer ones add is taken where it is there: truncation (6.2), TCP (6.7), ioctls (6.10), abstract sockets (6.12).
const WISHED: ABI = ABI::V10;

pub(super) fn restrict(
    vault: &Path,
    tpm: &Reach,
    socket_dir: Option<&Path>,
) -> Result<(), Box<dyn Error + Send + Sync>> {
    let in_vault: BitFlags<AccessFs> = make_bitflags!(AccessFs::{
        ReadFile | ReadDir | WriteFile | Truncate | MakeReg | RemoveFile
    });
    let mut rules = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(REQUIRED))?
        .set_compatibility(CompatLevel::BestEffort)
        .handle_access(AccessFs::from_all(WISHED))?
        .handle_access(AccessNet::from_all(WISHED))?
        .scope(Scope::AbstractUnixSocket)?
        .create()?
        .add_rule(PathBeneath::new(PathFd::new(vault)?, in_vault))?
        // SQLite seeds its generator there.
        .add_rule(PathBeneath::new(PathFd::new("/dev/urandom")?, AccessFs::ReadFile))?;
    if let Some(dir) = socket_dir {
        rules = rules.add_rule(PathBeneath::new(PathFd::new(dir)?, AccessFs::RemoveFile))?;
    }
    rules = match tpm {
        Reach::Device(path) => {
            let node = PathFd::new(path)?;
            rules.add_rule(PathBeneath::new(node, AccessFs::ReadFile | AccessFs::WriteFile))?
        }
        Reach::Tcp(ports) => rules.add_rules(
            ports.map(|port| Ok::<_, landlock::RulesetError>(NetPort::new(port, AccessNet::ConnectTcp))),
        )?,
    };
    rules.restrict_self()?;
    Ok(())
}
