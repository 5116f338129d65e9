use std::{io, path::PathBuf};

use tpm_backend::{AddressError, swtpm::SwtpmError};
use vault_core::keystore::KeyStoreError;

pub(crate) type Result<T, E = Failure> = std::result::Result<T, E>;

/// Why the daemon does not run. Each says what to do next.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error("--pin-history is above 10")]
    PinHistory,
    #[error("--min-pin-length is not between 4 and 63")]
    MinPinLength,
    #[error("this user has no home folder; name the vault's with --vault, or set HOME")]
    Home,
    #[error("core dumps cannot be turned off")]
    Exposed(#[source] io::Error),
    #[error("the TPM's address cannot be understood; for a software TPM of this vault's own: --tpm swtpm")]
    Address(#[source] AddressError),
    #[error("the private software TPM does not start; if another passhold runs it, end that first")]
    Swtpm(#[source] SwtpmError),
    #[error("the TPM cannot be used; passhold status says more")]
    Tpm(#[source] KeyStoreError),
    #[error("--prompt auto approves everything, and this TPM is a real one; it is for software TPMs only")]
    AutoWithRealTpm,
    #[error("the PIN cannot be read from --pin-fd; give one line")]
    PinFd(#[source] io::Error),
    #[error("the process that asks cannot be started; it is this program again, by /proc/self/exe")]
    Prompt(#[source] io::Error),
    #[error("/dev/uhid cannot be used; load the module uhid, and run as a user who may write to it")]
    Uhid(#[source] io::Error),
    #[error("the socket {path} cannot be made; is there a passholdd that uses it?")]
    Socket { path: PathBuf, source: io::Error },
    #[error(
        "the vault's folder {path} cannot be made; make it, with mode 0700, or name another with --vault"
    )]
    Vault { path: PathBuf, source: io::Error },
    #[error(
        "passholdd locks itself in, and this TPM cannot be reached from there; use device:PATH, or swtpm: or mssim: with a number \
         for the host, as in swtpm:host=127.0.0.1,port=2321"
    )]
    Unreachable,
    #[error("libtss2's module for this TPM cannot be kept loaded; install it (in Debian, libtss2-tcti-…)")]
    Tcti(#[source] io::Error),
    #[error(
        "passholdd cannot tell what it has started; it needs /proc, from a kernel with CONFIG_PROC_CHILDREN"
    )]
    Children(#[source] io::Error),
    #[error(
        "the memory cannot be locked, and a key could reach the swap; set LimitMEMLOCK=infinity in the unit, or as root \
         `prlimit --memlock=unlimited` for the shell that starts it"
    )]
    Memory(#[source] io::Error),
    #[error(
        "passholdd cannot be kept from other files, and does not run without; use a kernel from 5.13 on in which \
         /sys/kernel/security/lsm names landlock (lsm= on its command line turns it on)"
    )]
    Landlock(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error(
        "passholdd cannot give up system calls, and does not run without; use a kernel with CONFIG_SECCOMP_FILTER"
    )]
    Seccomp(#[source] seccompiler::Error),
    #[error("the device ended")]
    Device(#[source] io::Error),
    #[error("a thread cannot be started")]
    Thread(#[source] io::Error),
}
