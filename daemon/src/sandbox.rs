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
use tpm_backend::Reach;

use crate::{
    args::{Args, Hid},
    failure::{Failure, Result},
    vaults::DirVault,
};

/// What the work takes.
pub(crate) struct Sandbox {
    vault: PathBuf,
    tpm: Reach,
    /// Where the daemon's own socket is, which it removes.
    socket_dir: Option<PathBuf>,
    /// What it has started and ends: a private software TPM, and the process that asks.
    children: Vec<Pid>,
}

impl Sandbox {
    /// Call it when all that is executed has been started, and no other thread has.
    pub(crate) fn new(args: &Args, vaults: &DirVault) -> Result<Self> {
        let vault = |source| Failure::Vault { path: args.vault.clone(), source };
        // A folder that is made later could not be allowed.
        DirBuilder::new().recursive(true).mode(0o700).create(&args.vault).map_err(vault)?;
        let tpm = vaults.tpm_address().reach().ok_or(Failure::Unreachable)?;
        tpm_backend::hold_tcti(vaults.tpm_address()).map_err(Failure::Tcti)?;
        let socket_dir = match &args.hid {
            Hid::Uhid => None,
            Hid::Seqpacket(path) => {
                path.parent().map(|dir| if dir == "" { Path::new(".") } else { dir }.into())
            }
        };
        let children = children().map_err(Failure::Children)?;
        Ok(Self { vault: args.vault.clone(), tpm, socket_dir, children })
    }

    /// Keeps the memory out of the swap. Where the TPM is a program its keys are in that program's memory anyway, and developers
    /// often may not lock this much: there it is a warning.
    pub(crate) fn lock_memory(vaults: &DirVault) -> Result<()> {
        match memory::lock() {
            Err(e) if vaults.is_software() => {
                crate::say(&format!("warning: the memory is not locked ({e}); it may be swapped out"));
                Ok(())
            }
            locked => locked.map_err(Failure::Memory),
        }
    }

    /// Applies to this thread and those it starts later: call it before there are others.
    pub(crate) fn restrict_files(&self) -> Result<()> {
        files::restrict(&self.vault, &self.tpm, self.socket_dir.as_deref()).map_err(Failure::Landlock)
    }

    /// Applies to all threads there are; there will be no more.
    pub(crate) fn restrict_calls(&self) -> Result<()> {
        calls::restrict(&self.tpm, &self.children).map_err(Failure::Seccomp)
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
