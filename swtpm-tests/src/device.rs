//! `passholdd` as it ships, with its device on a Unix socket.
#![expect(clippy::expect_used, clippy::panic, reason = "a test whose program does not run cannot go on")]

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;

use crate::Program;

/// How long a daemon may take to start or to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// A running daemon, which approves everything and types a PIN of its own. Killed on drop.
#[derive(Debug)]
pub struct Device {
    daemon: Child,
    home: TempDir,
}

impl Device {
    /// Shows the vault in `vault`, or the one that will be made there.
    ///
    /// # Panics
    /// If the daemon does not come up.
    #[must_use]
    pub fn start(vault: &Path, tpm: &str, pin: &str) -> Self {
        let home = tempfile::tempdir().expect("a temporary folder");
        let pin_file = home.path().join("pin");
        fs::write(&pin_file, format!("{pin}\n")).expect("a file of ours");
        let mut daemon = Command::new(Program::Passholdd.path());
        daemon.args(["--prompt", "auto", "--pin-fd", "0"]);
        daemon.stdin(Stdio::from(File::open(&pin_file).expect("just written")));
        Self::run(daemon, home, vault, tpm)
    }

    /// The same, asking through the `pinentry` in `programs`.
    ///
    /// # Panics
    /// If the daemon does not come up.
    #[must_use]
    pub fn with_pinentry(vault: &Path, tpm: &str, programs: &Path) -> Self {
        let mut daemon = Command::new(Program::Passholdd.path());
        daemon.env("PATH", programs).stderr(Stdio::null());
        Self::run(daemon, tempfile::tempdir().expect("a temporary folder"), vault, tpm)
    }

    fn run(mut daemon: Command, home: TempDir, vault: &Path, tpm: &str) -> Self {
        let daemon = daemon
            .args(["--tpm", tpm, "--hid"])
            .arg(format!("seqpacket:{}", home.path().join("hid").display()))
            .arg("--vault")
            .arg(vault)
            .spawn()
            .expect("passholdd starts");
        let mut device = Self { daemon, home };
        let started = Instant::now();
        while !device.socket().exists() {
            if let Ok(Some(status)) = device.daemon.try_wait() {
                panic!("passholdd ended: {status}");
            }
            assert!(started.elapsed() < PATIENCE, "passholdd does not come up");
            thread::sleep(Duration::from_millis(10));
        }
        device
    }

    /// The daemon's process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.daemon.id()
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
