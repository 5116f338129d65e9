use std::{ffi::OsStr, path::PathBuf};

use serde_json::Value;

use crate::{Call, Device, PIN, Passhold, TestTpm, creation_options};

/// A vault, and `passhold` on it: by itself, or through a passholdd.
#[derive(Debug)]
pub struct Desk {
    /// By itself, in any case.
    pub passhold: Passhold,
    /// The daemon, if there is one.
    pub device: Option<Device>,
    socket: PathBuf,
    // Dropped after the programs that use it.
    tpm: TestTpm,
}

impl Desk {
    /// Both ways, each with an empty vault of its own.
    ///
    /// # Panics
    /// If a program does not start.
    #[must_use]
    pub fn both() -> [Self; 2] {
        [Self::direct(), Self::served()]
    }

    /// Without a daemon.
    ///
    /// # Panics
    /// If swtpm does not start.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a test without a TPM cannot go on")]
    pub fn direct() -> Self {
        let tpm = TestTpm::start().expect("swtpm");
        let passhold = Passhold::with_vault(&tpm);
        let socket = passhold.home().join("socket");
        Self { passhold, device: None, socket, tpm }
    }

    /// Through a daemon, which approves what its device is asked.
    ///
    /// # Panics
    /// If a program does not start.
    #[must_use]
    pub fn served() -> Self {
        let mut desk = Self::direct();
        let args = ["--socket", &desk.socket.display().to_string()];
        let device = Device::start_with(&desk.passhold.vault(), &desk.tpm.tcti(), PIN, &args);
        desk.device = Some(device);
        desk
    }

    /// `passhold ARGS` on the vault.
    #[must_use]
    pub fn call<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Call {
        if self.device.is_none() {
            return self.passhold.call(args);
        }
        args.into_iter().fold(self.passhold.bare(["--socket"]).arg(&self.socket), Call::arg)
    }

    /// The same with the PIN.
    #[must_use]
    pub fn with_pin<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Call {
        self.call(args).pin(PIN)
    }

    /// `passhold enroll` for this account.
    #[must_use]
    pub fn enroll(&self, rp_id: &str, user: &str) -> Call {
        let call = self.with_pin(["enroll", "--origin", &format!("https://{rp_id}")]);
        call.stdin(creation_options(rp_id, user, "none"))
    }

    /// What `passhold --json ARGS` prints.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn json(&self, args: &[&str]) -> Value {
        self.call(args).arg("--json").run().expect_code(0).json()
    }

    /// The TPM.
    #[must_use]
    pub fn tpm(&self) -> &TestTpm {
        &self.tpm
    }
}
