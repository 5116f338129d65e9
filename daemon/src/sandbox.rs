//! What the daemon can still do once it runs: nothing but its work. Whatever has to be executed is started before; it stays
//! outside.

mod calls;
mod files;
mod memory;

pub(crate) use memory::lock as lock_memory;

use std::{
    fs::{self, DirBuilder},
    io::{self, ErrorKind},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use rustix::process::Pid;
use tpm_backend::{Address, Reach};

use crate::{
    args::Hid,
    failure::{Failure, Result},
};

/// What the daemon is started for.
pub(crate) struct Needs<'a> {
    /// Where the vault lies, or the vaults.
    pub(crate) folder: &'a Path,
    /// The daemon's own sockets, which it removes.
    pub(crate) sockets: [Option<&'a Path>; 2],
    /// The TPM.
    pub(crate) address: &'a Address,
    /// Whether that is a program.
    pub(crate) simulated: bool,
    /// Whether it serves who connects, each on a thread.
    pub(crate) service: bool,
    /// What devices it makes once it runs, with their vaults' folders.
    pub(crate) devices: Option<&'a Hid>,
}

/// What the work takes.
pub(crate) struct Sandbox {
    folder: PathBuf,
    tpm: Reach,
    socket_dirs: Vec<PathBuf>,
    service: bool,
    devices: Option<Hid>,
    /// What it has started and ends: a private software TPM, and the process that asks.
    children: Vec<Pid>,
}

impl Sandbox {
    /// Locks the memory too. Call it when all that is executed has been started, and no other thread has.
    pub(crate) fn new(needs: &Needs<'_>) -> Result<Self> {
        let folder = |source| Failure::Vault { path: needs.folder.to_owned(), source };
        // A folder that is made later could not be allowed.
        DirBuilder::new().recursive(true).mode(0o700).create(needs.folder).map_err(folder)?;
        let tpm = needs.address.reach().ok_or(Failure::Unreachable)?;
        tpm_backend::hold_tcti(needs.address).map_err(Failure::Tcti)?;
        let devices = needs.devices.and_then(Hid::path);
        let sockets = needs.sockets.into_iter().chain([devices]).flatten().filter_map(Path::parent);
        let socket_dirs = sockets.map(|dir| if dir == "" { Path::new(".") } else { dir }.into()).collect();
        let children = children().map_err(Failure::Children)?;
        lock_memory_of(needs)?;
        let (folder, devices) = (needs.folder.to_owned(), needs.devices.cloned());
        Ok(Self { folder, tpm, socket_dirs, service: needs.service, devices, children })
    }

    /// Applies to this thread and those it starts later: call it before there are others.
    pub(crate) fn restrict_files(&self) -> Result<()> {
        files::restrict(self).map_err(Failure::Landlock)
    }

    /// Applies to all threads there are, and to those that a service starts later.
    pub(crate) fn restrict_calls(&self) -> Result<()> {
        calls::restrict(self).map_err(Failure::Seccomp)
    }

    /// Whether it makes Unix sockets once it runs.
    fn makes_sockets(&self) -> bool {
        matches!(self.devices, Some(Hid::Seqpacket(_)))
    }
}

/// Keeps the memory out of the swap. Where the TPM is a program its keys are in that program's memory anyway, and developers
/// often may not lock this much: there it is a warning.
fn lock_memory_of(needs: &Needs<'_>) -> Result<()> {
    match memory::lock() {
        Err(e) if needs.simulated => {
            crate::say(&format!("warning: the memory is not locked ({e}); it may be swapped out"));
            Ok(())
        }
        locked => locked.map_err(Failure::Memory),
    }
}

/// The processes that this thread, the only one, has started and not waited for.
fn children() -> io::Result<Vec<Pid>> {
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::new(ErrorKind::ResourceBusy, "another thread runs already"));
    }
    let pids = fs::read_to_string("/proc/thread-self/children")?;
    Ok(pids.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect())
}
