use std::{
    cell::Cell,
    path::PathBuf,
    time::{Duration, Instant},
};

use comfy_table::{ContentArrangement, Table, presets};
use secrecy::SecretSlice;
use tpm_backend::{
    Address, Tpm,
    swtpm::{Swtpm, SwtpmError},
};
use vault_core::{
    TriesLeft, UnlockError, Unlocked, Vault,
    container::{Container, ContainerError},
    pin::{Pin, PinMaterial, PinPolicy},
    webauthn::UserPresent,
};

use crate::{
    args::Global,
    config::{Config, default_vault},
    console::Console,
    failure::{Exit, Failure, Result, unlock_failure},
    ipc::Place,
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
pub struct App<'c> {
    pub(crate) console: &'c mut dyn Console,
    pub(crate) dir: PathBuf,
    pub(crate) json: bool,
    pub(crate) policy: PinPolicy,
    /// Whether this is passholdd, for somebody else.
    pub(crate) serves: bool,
    pub(crate) tpm: String,
    /// Where passholdd answers, for what is to be told of it.
    pub daemon: Option<PathBuf>,
    /// Where the command line says it is.
    pub(crate) socket: Option<PathBuf>,
    /// What to type for another command on the same vault.
    pub(crate) invocation: String,
}

/// A TPM, and the private software TPM behind it if there is one.
pub(crate) struct Keys {
    // Dropped first: it still flushes what it loaded.
    pub(crate) tpm: Tpm,
    pub(crate) address: String,
    _swtpm: Option<Swtpm>,
}

impl<'c> App<'c> {
    /// As the command line and the config file say.
    pub fn new(global: Global, config: Config, console: &'c mut dyn Console) -> Result<Self> {
        let policy = config.policy()?;
        let invocation = global.invocation();
        Ok(Self {
            console,
            dir: global.vault.or(config.vault).map_or_else(default_vault, Ok)?,
            json: global.json,
            policy,
            serves: false,
            daemon: None,
            socket: global.socket,
            invocation,
            tpm: global.tpm.or(config.tpm).unwrap_or_else(|| DEFAULT_TPM.to_owned()),
        })
    }

    /// For another program, which decides whose vault it is.
    pub fn at(place: Place, json: bool, console: &'c mut dyn Console) -> Self {
        let Place { dir, tpm, policy } = place;
        let (daemon, socket, invocation) = (None, None, "passhold".to_owned());
        Self { console, dir, json, policy, serves: true, tpm, daemon, socket, invocation }
    }

    /// Tells the person something that is not the result.
    pub(crate) fn note(&mut self, text: impl std::fmt::Display) {
        self.console.note(&text.to_string());
    }

    /// The TPM that was asked for and no other: there is no fall-back to software.
    pub(crate) fn keys(&mut self) -> Result<Keys> {
        if self.tpm == PRIVATE_SWTPM && !self.swtpm_state().exists() {
            return Err(ContainerError::NotFound { dir: self.dir.clone() }.into());
        }
        self.keys_for_setup()
    }

    /// The same, where a private software TPM may be made.
    pub(crate) fn keys_for_setup(&mut self) -> Result<Keys> {
        let swtpm = if self.tpm == PRIVATE_SWTPM { Some(self.start_swtpm()?) } else { None };
        let address = swtpm.as_ref().map_or_else(|| self.tpm.clone(), Swtpm::tcti);
        let parsed: Address = address.parse().map_err(|e| {
            Failure::new(Exit::Usage, format!("{e}"))
                .next("For a software TPM of this vault's own: --tpm swtpm")
        })?;
        let mut tpm = Tpm::new(parsed);
        if let Some(auth) = self.console.owner_auth()? {
            tpm.set_owner_auth(SecretSlice::from(auth.as_bytes().to_vec()));
        }
        Ok(Keys { tpm, address, _swtpm: swtpm })
    }

    fn swtpm_state(&self) -> PathBuf {
        self.dir.join("swtpm")
    }

    fn start_swtpm(&mut self) -> Result<Swtpm> {
        self.note(
            "warning: --tpm swtpm is a program, and nothing protects its keys; for development and tests only",
        );
        let state = self.swtpm_state();
        patiently(|| Swtpm::start(&state), |e| matches!(e, SwtpmError::Busy)).map_err(Failure::from)
    }

    /// Opens the vault, waiting for another passhold to finish with it.
    pub(crate) fn open<'k>(&self, keys: &'k mut Keys) -> Result<Vault<'k>> {
        Ok(Vault::open_container(self.container()?, &mut keys.tpm)?.at(now()))
    }

    /// Opens the vault after somebody has typed; it must still be this one.
    pub(crate) fn open_again<'k>(&self, keys: &'k mut Keys, id: [u8; 16]) -> Result<Vault<'k>> {
        let vault = self.open(keys)?;
        if vault.id() == id {
            return Ok(vault);
        }
        Err(Failure::new(Exit::Busy, "the vault was replaced by another one meanwhile")
            .next("Nothing was done; look at the new one with \"passhold list\"."))
    }

    /// The vault's container alone.
    pub(crate) fn container(&self) -> Result<Container> {
        let busy = |e: &ContainerError| matches!(e, ContainerError::Busy { .. });
        Ok(patiently(|| Container::open(&self.dir), busy)?)
    }

    /// Shows what is going to be done, asks for the PIN, which confirms it, and does it once the TPM has accepted that.
    /// Others may use the vault while somebody types.
    pub(crate) fn with_pin<P, T>(
        &mut self,
        keys: &mut Keys,
        show: impl FnOnce(&mut Self, &mut Vault<'_>) -> Result<P>,
        operation: impl FnOnce(&mut Self, Unlocked<'_>, UserPresent, P) -> Result<T>,
    ) -> Result<T> {
        // A right PIN ends the asking.
        let (shown, mut operation) = (Cell::new(None), Some(operation));
        let show = |app: &mut Self, vault: &mut Vault<'_>| {
            shown.set(Some(show(app, vault)?));
            Ok(())
        };
        self.with_pin_by(keys, show, |app, vault, pin| {
            let unlocked = vault.unlock(pin)?;
            Ok(match (operation.take(), shown.take()) {
                (Some(operation), Some(shown)) => operation(app, unlocked, UserPresent::confirmed(), shown),
                _ => Err(Failure::new(Exit::Unexpected, "a PIN was asked for twice")),
            })
        })
    }

    /// The same where it is not unlocking that takes the PIN.
    pub(crate) fn with_pin_by<T>(
        &mut self,
        keys: &mut Keys,
        show: impl FnOnce(&mut Self, &mut Vault<'_>) -> Result<()>,
        mut attempt: impl FnMut(&mut Self, &mut Vault<'_>, &PinMaterial) -> Result<Result<T>, UnlockError>,
    ) -> Result<T> {
        let mut vault = self.open(keys)?;
        let id = vault.id();
        show(self, &mut vault)?;
        if let Some(left) = vault.tries_left_if_fewer()? {
            self.note(crate::terminal::tries(left));
        }
        let mut prompts = 0;
        loop {
            prompts += 1;
            let pin = if self.console.pin_is_typed() {
                drop(vault);
                let pin = self.pin("PIN: ")?;
                vault = self.open_again(keys, id)?;
                pin
            } else {
                self.pin("PIN: ")?
            };
            let refused = match attempt(self, &mut vault, &pin.material()) {
                Ok(done) => {
                    let done = done?;
                    if let Err(failure) = self.expire(&mut vault, &pin.material()) {
                        // What was done is not hidden by it.
                        self.note(failure);
                    }
                    return Ok(done);
                }
                Err(e) => e,
            };
            // What the TPM said of the PIN is not hidden by a failure to tell the count.
            let left = match refused {
                UnlockError::WrongPin => vault.tries_left().ok(),
                other => return Err(unlock_failure(other, &self.dir)),
            };
            let failure = Failure::wrong_pin(left);
            if left == Some(TriesLeft::ByTpm(0)) || prompts == PROMPTS || !self.console.pin_is_typed() {
                return Err(failure);
            }
            self.note(failure);
        }
    }

    /// Says that the PIN is too old, once; the next time it is asked for it must be changed.
    fn expire(&mut self, vault: &mut Vault<'_>, pin: &PinMaterial) -> Result<()> {
        if vault.settings()?.pin_change_due || !vault.pin_is_expired(self.policy, now())? {
            return Ok(());
        }
        vault.unlock(pin)?.require_pin_change(&mut rng())?;
        self.note("this PIN is too old: change it with \"passhold pin change\" before it is needed again");
        Ok(())
    }

    /// A PIN that is to be proven.
    pub(crate) fn pin(&mut self, prompt: &str) -> Result<Pin> {
        // One that can be no vault's PIN is not shown to the TPM, which would count it.
        Pin::new(&self.console.pin(prompt)?).ok_or_else(|| {
            Failure::new(Exit::WrongPin, "that is no PIN: a PIN has 1 to 63 bytes")
                .next("Nothing was counted.")
        })
    }

    /// To be filled, as wide as the person's terminal.
    pub(crate) fn table(&self, header: &[&str]) -> Table {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
        table.set_header(header.to_vec());
        if let Some(width) = self.console.width() {
            table.set_width(width);
        }
        table
    }

    /// Says that it is done, where the result was printed before.
    pub(crate) fn end(&mut self, text: &str) -> Result<()> {
        if self.json { Ok(()) } else { self.console.print(text) }
    }

    /// Prints a command's result: JSON alone, or text.
    pub(crate) fn print(
        &mut self,
        json: &impl serde::Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<()> {
        let line = if self.json { to_json(json)? } else { text() };
        self.console.print(&line)
    }
}

pub(crate) fn to_json(value: &impl serde::Serialize) -> Result<String> {
    serde_json::to_string(value).map_err(|e| Failure::unexpected("cannot write JSON", e))
}

/// Repeats `attempt` while it is refused because another program is at work.
pub fn patiently<T, E>(mut attempt: impl FnMut() -> Result<T, E>, busy: impl Fn(&E) -> bool) -> Result<T, E> {
    let started = Instant::now();
    loop {
        match attempt() {
            Err(e) if busy(&e) && started.elapsed() < PATIENCE => std::thread::sleep(LOOK_EVERY),
            result => return result,
        }
    }
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    u64::try_from(jiff::Timestamp::now().as_second()).unwrap_or_default()
}

/// The operating system's randomness.
pub(crate) fn rng() -> getrandom::rand_core::UnwrapErr<getrandom::SysRng> {
    getrandom::rand_core::UnwrapErr(getrandom::SysRng)
}
