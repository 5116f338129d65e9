//! `passholdd` as it ships, with its device on a Unix socket.
#![expect(clippy::expect_used, clippy::panic, reason = "a test whose program does not run cannot go on")]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::{HidClient, Program};

/// How long a daemon may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running daemon. Killed on drop.
#[derive(Debug)]
pub struct Device {
    command: Command,
    daemon: Child,
    home: TempDir,
}

impl Device {
    /// Shows the vault in `vault`, or the one that will be made there. It approves everything and types a PIN of its own.
    ///
    /// # Panics
    /// If the daemon does not come up.
    #[must_use]
    pub fn start(vault: &Path, tpm: &str, pin: &str) -> Self {
        Self::start_with(vault, tpm, pin, &[])
    }

    /// The same, with these arguments besides.
    ///
    /// # Panics
    /// If the daemon does not come up.
    #[must_use]
    pub fn start_with(vault: &Path, tpm: &str, pin: &str, args: &[&str]) -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        fs::write(home.path().join("pin"), format!("{pin}\n")).expect("a file of ours");
        let mut command = Command::new(Program::Passholdd.path());
        command.args(["--prompt", "auto", "--pin-fd", "0"]).args(args);
        Self::run(command, home, vault, tpm)
    }

    /// The same, asking through the `pinentry` in `programs`.
    ///
    /// # Panics
    /// If the daemon does not come up.
    #[must_use]
    pub fn with_pinentry(vault: &Path, tpm: &str, programs: &Path) -> Self {
        let mut command = Command::new(Program::Passholdd.path());
        command.env("PATH", programs).stderr(Stdio::null());
        Self::run(command, tempfile::tempdir().expect("a temporary folder"), vault, tpm)
    }

    /// The same as [`Device::start`], with a library that is loaded into the daemon and finds its things in `folder`.
    ///
    /// # Panics
    /// If the daemon does not come up.
    #[must_use]
    pub fn infiltrated(vault: &Path, tpm: &str, library: &Path, folder: &Path, service: bool) -> Self {
        let mut command = Command::new(Program::Passholdd.path());
        command.args(["--prompt", "auto"]).env("LD_PRELOAD", library).env("INSIDE", folder);
        if service {
            command.arg("--socket").arg(folder.join("socket"));
        }
        Self::run(command, tempfile::tempdir().expect("a temporary folder"), vault, tpm)
    }

    fn run(mut command: Command, home: TempDir, vault: &Path, tpm: &str) -> Self {
        let socket = home.path().join("hid");
        command.args(["--tpm", tpm, "--hid"]).arg(format!("seqpacket:{}", socket.display()));
        command.arg("--vault").arg(vault);
        let daemon = spawn(&mut command, home.path());
        Self { command, daemon, home }
    }

    /// Kills the daemon and starts it anew.
    ///
    /// # Panics
    /// If it does not come up.
    pub fn restart(&mut self) {
        self.kill();
        self.daemon = spawn(&mut self.command, self.home.path());
    }

    /// Kills the daemon; one that is dead already stays so.
    ///
    /// # Panics
    /// If that cannot be.
    pub fn kill(&mut self) {
        self.daemon.kill().expect("a child of ours");
        self.daemon.wait().expect("a child of ours");
    }

    /// The daemon's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon.id()
    }

    /// How the daemon ended, if it has.
    ///
    /// # Panics
    /// If that cannot be told.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.daemon.try_wait().expect("a child of ours")
    }

    /// Where reports go.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.home.path().join("hid")
    }

    /// Asks the daemon to end, as a service manager does, and waits for it.
    ///
    /// # Panics
    /// If it does not end well.
    pub fn stop(mut self) {
        let pid = rustix::process::Pid::from_child(&self.daemon);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("a child of ours");
        let status = self.daemon.wait().expect("a child of ours");
        assert!(status.success(), "passholdd ended: {status}");
        assert!(!self.socket().exists(), "passholdd leaves its socket");
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.daemon.kill().ok();
        self.daemon.wait().ok();
    }
}

/// Returns when the device answers there.
fn spawn(command: &mut Command, home: &Path) -> Child {
    let pin = File::open(home.join("pin")).map_or(Stdio::null(), Stdio::from);
    let mut daemon = command.stdin(pin).spawn().expect("passholdd starts");
    let started = Instant::now();
    while !HidClient::answers(&home.join("hid")) {
        if let Ok(Some(status)) = daemon.try_wait() {
            panic!("passholdd ended: {status}");
        }
        assert!(started.elapsed() < PATIENCE, "passholdd does not come up");
        thread::sleep(Duration::from_millis(10));
    }
    daemon
}
