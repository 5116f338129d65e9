use std::{io, path::Path};

use tempfile::TempDir;
use tpm_backend::{
    Tpm,
    swtpm::{Swtpm, SwtpmError},
};

/// A software TPM with its own state and ports: power-cycled, cut off and replaced at will, shut down in
/// order and killed on drop.
#[derive(Debug)]
pub struct TestTpm {
    // Dropped before the state it writes.
    running: Option<Swtpm>,
    state: TempDir,
}

impl TestTpm {
    /// A new TPM, with new seeds.
    pub fn start() -> Result<Self, SwtpmError> {
        let state = tempfile::tempdir()?;
        Ok(Self { running: Some(Swtpm::start(state.path())?), state })
    }

    /// The TCTI string that reaches it.
    #[must_use]
    pub fn tcti(&self) -> String {
        self.running.as_ref().map(Swtpm::tcti).unwrap_or_default()
    }

    /// Its command port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.running.as_ref().map_or(0, Swtpm::port)
    }

    /// A key store on it.
    #[must_use]
    pub fn key_store(&self) -> Tpm {
        key_store(&self.tcti())
    }

    /// Its state folder.
    #[must_use]
    pub fn state(&self) -> &Path {
        self.state.path()
    }

    /// Shuts it down in order and starts it again, on another port.
    pub fn reboot(&mut self) -> Result<(), SwtpmError> {
        self.running = None;
        self.running = Some(start(self.state.path())?);
        Ok(())
    }

    /// Cuts its power and starts it again, on another port.
    pub fn power_cycle(&mut self) -> Result<(), SwtpmError> {
        if let Some(running) = self.running.take() {
            running.cut_power()?;
        }
        self.running = Some(start(self.state.path())?);
        Ok(())
    }

    /// Runs a program of tpm2-tools against it and returns what it printed.
    pub fn tool(&self, program: &str, args: &[&str]) -> io::Result<std::process::Output> {
        std::process::Command::new(program).args(args).env("TPM2TOOLS_TCTI", self.tcti()).output()
    }
}

/// A program that another thread is just starting may hold a copy of the old lock until it runs.
fn start(state: &Path) -> Result<Swtpm, SwtpmError> {
    for _ in 0..100 {
        match Swtpm::start(state) {
            Err(SwtpmError::Busy) => std::thread::sleep(std::time::Duration::from_millis(20)),
            result => return result,
        }
    }
    Swtpm::start(state)
}

/// A key store on the TPM behind a TCTI string.
///
/// # Panics
/// If the string is not one.
#[must_use]
#[expect(clippy::expect_used, reason = "a test's own constant")]
pub fn key_store(tcti: &str) -> Tpm {
    Tpm::new(tcti.parse().expect("a TCTI string"))
}
