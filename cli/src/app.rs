use std::{
    io::{self, Write},
    path::PathBuf,
    time::{Duration, Instant},
};

use secrecy::SecretSlice;
use tpm_backend::{
    Address, Tpm,
    swtpm::{Swtpm, SwtpmError},
};
use vault_core::{
    TriesLeft, UnlockError, Unlocked, Vault,
    container::{Container, ContainerError},
    pin::PinPolicy,
    webauthn::UserPresent,
};

use crate::{
    args::Global,
    config::Folders,
    failure::{Exit, Failure, Result, unlock_failure},
    terminal::{PinSource, read_secret},
};

const DEFAULT_TPM: &str = "device:/dev/tpmrm0";
/// Not a TCTI string: a software TPM of this vault's own.
const PRIVATE_SWTPM: &str = "swtpm";

/// How long to wait for another passhold that uses the vault, and how often to look.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// How often a PIN may be typed before the command gives up.
const PROMPTS: usize = 3;

/// What every command works with.
pub(crate) struct App {
    pub(crate) dir: PathBuf,
    pub(crate) json: bool,
    pub(crate) policy: PinPolicy,
    pub(crate) pins: PinSource,
    tpm: String,
    owner_auth_fd: Option<u32>,
}

/// A TPM, and the private software TPM behind it if there is one.
pub(crate) struct Keys {
    // Dropped first: it still flushes what it loaded.
    pub(crate) tpm: Tpm,
    pub(crate) address: String,
    _swtpm: Option<Swtpm>,
}

impl App {
    pub(crate) fn new(global: Global) -> Result<Self> {
        let folders = Folders::find()?;
        let config = folders.read_config()?;
        let min = config.min_pin_length;
        let policy = min.map_or(Some(PinPolicy::default()), PinPolicy::with_min_length).ok_or_else(|| {
            Failure::new(Exit::Usage, "min-pin-length in the config file is not between 4 and 63")
                .next("Set it to 6, or leave it out.")
        })?;
        Ok(Self {
            dir: global.vault.or(config.vault).unwrap_or(folders.data),
            json: global.json,
            policy,
            pins: PinSource::new(global.pin_fd)?,
            tpm: global.tpm.or(config.tpm).unwrap_or_else(|| DEFAULT_TPM.to_owned()),
            owner_auth_fd: global.owner_auth_fd,
        })
    }

    /// The TPM that was asked for and no other: there is no fall-back to software.
    pub(crate) fn keys(&self) -> Result<Keys> {
        if self.tpm == PRIVATE_SWTPM && !self.swtpm_state().exists() {
            return Err(ContainerError::NotFound { dir: self.dir.clone() }.into());
        }
        self.keys_for_setup()
    }

    /// The same, where a private software TPM may be made.
    pub(crate) fn keys_for_setup(&self) -> Result<Keys> {
        let swtpm = if self.tpm == PRIVATE_SWTPM { Some(self.start_swtpm()?) } else { None };
        let address = swtpm.as_ref().map_or_else(|| self.tpm.clone(), Swtpm::tcti);
        let parsed: Address = address.parse().map_err(|e| {
            Failure::new(Exit::Usage, format!("{e}"))
                .next("For a software TPM of this vault's own: --tpm swtpm")
        })?;
        let mut tpm = Tpm::new(parsed);
        if let Some(fd) = self.owner_auth_fd {
            let auth = read_secret(fd, "the owner authorization")?;
            tpm.set_owner_auth(SecretSlice::from(auth.as_bytes().to_vec()));
        }
        Ok(Keys { tpm, address, _swtpm: swtpm })
    }

    fn swtpm_state(&self) -> PathBuf {
        self.dir.join("swtpm")
    }

    fn start_swtpm(&self) -> Result<Swtpm> {
        note(
            "warning: --tpm swtpm is a program, and nothing protects its keys; for development and tests only",
        );
        let state = self.swtpm_state();
        patiently(|| Swtpm::start(&state), |e| matches!(e, SwtpmError::Busy)).map_err(Failure::from)
    }

    /// Opens the vault, waiting for another passhold to finish with it.
    pub(crate) fn open<'k>(&self, keys: &'k mut Keys) -> Result<Vault<'k>> {
        Ok(Vault::open_container(self.container()?, &mut keys.tpm)?)
    }

    /// The vault's container alone.
    pub(crate) fn container(&self) -> Result<Container> {
        let busy = |e: &ContainerError| matches!(e, ContainerError::Busy { .. });
        Ok(patiently(|| Container::open(&self.dir), busy)?)
    }

    /// Asks for the PIN, which confirms what was just shown, and runs `operation` once the TPM has
    /// accepted it.
    pub(crate) fn with_pin<T>(
        &mut self,
        vault: &mut Vault<'_>,
        operation: impl FnOnce(&mut Self, Unlocked<'_>, UserPresent) -> Result<T>,
    ) -> Result<T> {
        if let Some(left) = vault.tries_left_if_fewer()? {
            note(crate::terminal::tries(left));
        }
        let mut attempt = 0;
        loop {
            attempt += 1;
            let pin = self.pins.read("PIN: ")?;
            let refused = match vault.unlock(&pin.material()) {
                Ok(unlocked) => return operation(self, unlocked, UserPresent::confirmed()),
                Err(e) => e,
            };
            // What the TPM said of the PIN is not hidden by a failure to tell the count.
            let left = match refused {
                UnlockError::WrongPin => vault.tries_left().ok(),
                other => return Err(unlock_failure(other, &self.dir)),
            };
            let failure = Failure::wrong_pin(left);
            if left == Some(TriesLeft::ByTpm(0)) || attempt == PROMPTS || !self.pins.is_terminal() {
                return Err(failure);
            }
            note(failure);
        }
    }

    /// Prints a command's result: JSON alone, or text.
    pub(crate) fn print(&self, json: &impl serde::Serialize, text: impl FnOnce() -> String) -> Result<()> {
        let line = if self.json { to_json(json)? } else { text() };
        print(&line)
    }
}

pub(crate) fn to_json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Failure::unexpected("cannot write JSON", e))
}

pub(crate) fn print(text: &str) -> Result<()> {
    writeln!(io::stdout(), "{text}").map_err(|e| Failure::unexpected("cannot write to standard output", e))
}

/// Tells the person something that is not the result.
pub(crate) fn note(text: impl std::fmt::Display) {
    // Nobody to tell that nobody can be told.
    writeln!(io::stderr(), "passhold: {text}").ok();
}

/// Repeats `attempt` while it is refused because another passhold is at work.
pub(crate) fn patiently<T, E>(
    mut attempt: impl FnMut() -> Result<T, E>,
    busy: impl Fn(&E) -> bool,
) -> Result<T, E> {
    let started = Instant::now();
    loop {
        match attempt() {
            Err(e) if busy(&e) && started.elapsed() < PATIENCE => std::thread::sleep(LOOK_EVERY),
            result => return result,
        }
    }
}

/// The operating system's randomness.
pub(crate) fn rng() -> getrandom::rand_core::UnwrapErr<getrandom::SysRng> {
    getrandom::rand_core::UnwrapErr(getrandom::SysRng)
}
