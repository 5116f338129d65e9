use std::io;

use rustix::{
    mm::{MlockAllFlags, mlockall},
    process::{Resource, Rlimit, getrlimit, setrlimit},
};

/// Keeps what is in memory now and later from being swapped out, as soon as it is there: `ONFAULT`, or every reserve would be
/// filled and the daemon would take several times what it needs.
pub(crate) fn lock() -> io::Result<()> {
    let maximum = getrlimit(Resource::Memlock).maximum;
    setrlimit(Resource::Memlock, Rlimit { current: maximum, maximum })?;
    Ok(mlockall(MlockAllFlags::CURRENT | MlockAllFlags::FUTURE | MlockAllFlags::ONFAULT)?)
}
