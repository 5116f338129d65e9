use std::{
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use ctap::Vaults;
use getrandom::{SysRng, rand_core::UnwrapErr};
use tpm_backend::{Address, Tpm, swtpm::Swtpm};
use vault_core::{
    OpenError, Vault, VaultError,
    container::{Container, ContainerError},
    keystore::{KeyStore, KeyStoreError, TpmKind},
    pin::PinMaterial,
};

use crate::{
    args::Args,
    failure::{Failure, Result},
};

/// Not a TCTI string: a software TPM of this vault's own.
const PRIVATE_SWTPM: &str = "swtpm";

/// How long to wait for a passhold that uses the vault, and how often to look.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One folder's vault in one TPM.
pub(crate) struct DirVault {
    dir: PathBuf,
    // Before the software TPM: what is loaded there is flushed first.
    tpm: Tpm,
    kind: TpmKind,
    _swtpm: Option<Swtpm>,
}

impl DirVault {
    pub(crate) fn open(args: &Args) -> Result<Self> {
        let private = args.tpm == PRIVATE_SWTPM;
        let swtpm = if private {
            crate::say(
                &"warning: --tpm swtpm is a program, and nothing protects its keys; for development and tests only",
            );
            Some(Swtpm::start(&args.vault.join(PRIVATE_SWTPM)).map_err(Failure::Swtpm)?)
        } else {
            None
        };
        let address = swtpm.as_ref().map_or_else(|| args.tpm.clone(), Swtpm::tcti);
        let mut tpm = Tpm::new(address.parse().map_err(Failure::Address)?);
        let kind = tpm.status(None).map_err(Failure::Tpm)?.kind;
        Ok(Self { dir: args.vault.clone(), tpm, kind, _swtpm: swtpm })
    }

    /// Where the TPM is.
    pub(crate) fn tpm_address(&self) -> &Address {
        self.tpm.address()
    }

    pub(crate) fn is_software(&self) -> bool {
        self.kind == TpmKind::Software
    }
}

impl Vaults for DirVault {
    fn exist(&self) -> bool {
        // What cannot be looked at is not taken for nothing: that would be an invitation to set up another.
        Container::exists(&self.dir).unwrap_or(true)
    }

    fn open(&mut self) -> Result<Vault<'_>, OpenError> {
        let container = patiently(
            || Container::open(&self.dir),
            |e: &ContainerError| matches!(e, ContainerError::Busy { .. }),
        )?;
        Vault::open_container(container, &mut self.tpm)
    }

    fn set_up(&mut self, pin: &PinMaterial) -> Result<(), VaultError> {
        let (dir, tpm) = (&self.dir, &mut self.tpm);
        patiently(|| vault_core::setup(dir, tpm, pin, &mut UnwrapErr(SysRng)), VaultError::is_busy)
    }

    fn wipe(&mut self) -> Result<(), VaultError> {
        let (dir, tpm) = (&self.dir, &mut self.tpm);
        patiently(|| vault_core::wipe(dir, tpm), VaultError::is_busy).map(drop)
    }

    fn kind(&mut self) -> Result<TpmKind, KeyStoreError> {
        Ok(self.kind)
    }
}

/// Repeats `attempt` while it is refused because another passhold is at work.
fn patiently<T, E>(mut attempt: impl FnMut() -> Result<T, E>, busy: impl Fn(&E) -> bool) -> Result<T, E> {
    let started = Instant::now();
    loop {
        match attempt() {
            Err(e) if busy(&e) && started.elapsed() < PATIENCE => thread::sleep(LOOK_EVERY),
            result => return result,
        }
    }
}
