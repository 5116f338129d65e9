use std::path::PathBuf;

use ctap::Vaults;
use getrandom::{SysRng, rand_core::UnwrapErr};
use passhold::patiently;
use tpm_backend::{Address, Tpm, swtpm::Swtpm};
use vault_core::{
    OpenError, Vault, VaultError,
    container::{Container, ContainerError, Lock},
    keystore::{KeyStore, KeyStoreError, TpmKind, TpmStatus},
    pin::PinMaterial,
};

use crate::failure::{Failure, Result};

/// Not a TCTI string: a software TPM of this vault's own.
const PRIVATE_SWTPM: &str = "swtpm";

/// One folder's vault in one TPM.
pub(crate) struct DirVault {
    dir: PathBuf,
    // Before the software TPM: what is loaded there is flushed first.
    tpm: Tpm,
    kind: TpmKind,
    simulated: bool,
    /// Keeps others out while something is kept loaded in the TPM.
    lock: Option<Lock>,
    _swtpm: Option<Swtpm>,
}

impl DirVault {
    pub(crate) fn open(dir: PathBuf, tpm: &str) -> Result<Self> {
        let private = tpm == PRIVATE_SWTPM;
        let swtpm = if private {
            crate::say(
                &"warning: --tpm swtpm is a program, and nothing protects its keys; for development and tests only",
            );
            Some(Swtpm::start(&dir.join(PRIVATE_SWTPM)).map_err(Failure::Swtpm)?)
        } else {
            None
        };
        let address = swtpm.as_ref().map_or_else(|| tpm.to_owned(), Swtpm::tcti);
        let mut tpm = Tpm::new(address.parse().map_err(Failure::Address)?).keeping();
        let TpmStatus { kind, simulated, .. } = tpm.status(None).map_err(Failure::Tpm)?;
        match vault_core::clear_remains(&dir, &mut tpm) {
            // A passhold that is at work there leaves no remains.
            Err(e) if !e.is_busy() => crate::report(&e),
            _ => {}
        }
        tpm.park();
        Ok(Self { dir, tpm, kind, simulated, lock: None, _swtpm: swtpm })
    }

    /// Where the TPM is.
    pub(crate) fn tpm_address(&self) -> &Address {
        self.tpm.address()
    }

    /// Whether the TPM is known to be a program.
    pub(crate) fn is_simulated(&self) -> bool {
        self.simulated
    }

    fn container(&self) -> Result<Container, ContainerError> {
        match self.lock.clone() {
            Some(lock) => Container::open_locked(&self.dir, lock),
            None => Container::open(&self.dir),
        }
    }

    fn opened(&mut self, container: Container) -> Result<Vault<'_>, OpenError> {
        self.lock = Some(container.lock());
        Ok(Vault::open_container(container, &mut self.tpm)?.at(passhold::now()))
    }
}

impl Vaults for DirVault {
    fn exist(&self) -> bool {
        // What cannot be looked at is not taken for nothing: that would be an invitation to set up another.
        Container::exists(&self.dir).unwrap_or(true)
    }

    fn open(&mut self) -> Result<Vault<'_>, OpenError> {
        let busy = |e: &ContainerError| matches!(e, ContainerError::Busy { .. });
        let container = patiently(|| self.container(), busy)?;
        self.opened(container)
    }

    fn open_at_once(&mut self) -> Result<Vault<'_>, OpenError> {
        let container = self.container()?;
        self.opened(container)
    }

    fn release(&mut self) {
        // In this order: whoever is let in finds the TPM's few places free.
        self.tpm.park();
        self.lock = None;
        tpm_backend::trim_heap();
    }

    fn set_up(&mut self, pin: &PinMaterial) -> Result<(), VaultError> {
        self.release();
        let (dir, tpm) = (&self.dir, &mut self.tpm);
        patiently(
            || vault_core::setup(dir, tpm, pin, passhold::now(), &mut UnwrapErr(SysRng)),
            VaultError::is_busy,
        )
    }

    fn wipe(&mut self) -> Result<(), VaultError> {
        self.release();
        let (dir, tpm) = (&self.dir, &mut self.tpm);
        patiently(|| vault_core::wipe(dir, tpm), VaultError::is_busy).map(drop)
    }

    fn kind(&mut self) -> Result<TpmKind, KeyStoreError> {
        Ok(self.kind)
    }
}
