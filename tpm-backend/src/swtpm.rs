//! A software TPM of one's own, for development and tests. Nothing protects its keys.

use std::{
    fs::{DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::{
        fs::{DirBuilderExt, OpenOptionsExt},
        process::CommandExt,
    },
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Below the kernel's ephemeral range (32768), where outgoing connections cannot take them.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// `TPM2_Shutdown(TPM_SU_CLEAR)` (TPM 2.0 Part 3 §9.4). Without it the next start counts
/// as a power cut, which adds one to the lockout counter once the vault key was used.
const SHUTDOWN: [u8; 12] = [0x80, 1, 0, 0, 0, 12, 0, 0, 1, 0x45, 0, 0];

/// `TPM2_GetTestResult` (Part 3 §10.4) needs no authorization and changes nothing.
const GET_TEST_RESULT: [u8; 10] = [0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0x7c];

const PORT_ATTEMPTS: usize = 50;
const POLL: Duration = Duration::from_millis(2);

/// How long a stopping swtpm may take to answer before it is killed without an answer.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(5);

/// A running swtpm, shut down in order and killed when dropped.
#[derive(Debug)]
pub struct Swtpm {
    child: Child,
    port: u16,
    // Held while it runs.
    _lock: File,
}

/// Why no software TPM could be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SwtpmError {
    /// The program is not on this machine.
    #[error("the program swtpm (or setpriv) is not installed")]
    NotInstalled(#[source] io::Error),
    /// Another process runs a software TPM on this state.
    #[error("the software TPM is in use by another process")]
    Busy,
    /// It was started and did not come up.
    #[error("swtpm did not start: {log}")]
    Failed {
        /// What swtpm said.
        log: String,
    },
    /// The state folder or the ports could not be had.
    #[error("no place for swtpm's state or ports")]
    Io(#[from] io::Error),
}

impl Swtpm {
    /// Starts swtpm on the state in `state`, a folder that is made (mode 0700) if missing.
    /// It listens on two adjacent loopback ports and dies with the thread that started it.
    pub fn start(state: &Path) -> Result<Self, SwtpmError> {
        DirBuilder::new().recursive(true).mode(0o700).create(state)?;
        let lock = lock(state)?;
        // setpriv's own complaint about a missing program would pass for swtpm's.
        Command::new("swtpm").arg("--version").output().map_err(SwtpmError::NotInstalled)?;
        let mut log = String::new();
        for _ in 0..PORT_ATTEMPTS {
            let Some(port) = free_port_pair()? else { continue };
            let child = spawn(state, port).map_err(SwtpmError::NotInstalled)?;
            let mut swtpm = Self { child, port, _lock: lock.try_clone()? };
            if swtpm.is_up()? {
                return Ok(swtpm);
            }
            log.clear();
            if let Some(stderr) = swtpm.child.stderr.take() {
                stderr.take(4096).read_to_string(&mut log)?;
            }
            // Between our look and swtpm's bind another process may have taken the port.
            if !log.contains("Address already in use") {
                break;
            }
        }
        Err(SwtpmError::Failed { log: log.trim().to_owned() })
    }

    /// Waits until swtpm answers a command (true) or has exited (false).
    fn is_up(&mut self) -> io::Result<bool> {
        while self.child.try_wait()?.is_none() {
            if exchange(self.port, &GET_TEST_RESULT).is_ok() {
                // A stranger may have answered on a port that ours then failed to get.
                return Ok(self.child.try_wait()?.is_none());
            }
            std::thread::sleep(POLL);
        }
        Ok(false)
    }

    /// The TCP port that takes TPM commands; the control channel is the next one.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The TCTI string that reaches this TPM.
    #[must_use]
    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    /// Ends swtpm without `TPM2_Shutdown`, as a power cut ends a chip.
    pub fn cut_power(mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        // Nothing to be done about a failure here: the process is going away either way.
        drop(exchange(self.port, &SHUTDOWN));
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn lock(state: &Path) -> Result<File, SwtpmError> {
    let path = state.join("lock");
    let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(SwtpmError::Busy),
        Err(TryLockError::Error(e)) => Err(e.into()),
    }
}

fn spawn(state: &Path, port: u16) -> io::Result<Child> {
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "swtpm", "socket", "--tpm2"])
        .args(["--flags", "not-need-init,startup-clear"])
        .arg("--server")
        .arg(format!("type=tcp,port={port}"))
        .arg("--ctrl")
        .arg(format!("type=tcp,port={}", port + 1))
        .arg("--tpmstate")
        .arg(format!("dir={},mode=0600", state.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        // A Ctrl-C meant for us must not cut the TPM's power.
        .process_group(0)
        .spawn()
}

fn exchange(port: u16, command: &[u8]) -> io::Result<()> {
    let mut tpm = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    tpm.set_read_timeout(Some(SHUTDOWN_PATIENCE))?;
    tpm.write_all(command)?;
    tpm.read_exact(&mut [0; 10])
}

/// A port that is free now and has a free one after it.
fn free_port_pair() -> io::Result<Option<u16>> {
    let random = u16::try_from(getrandom::u32()? & 0x7fff).unwrap_or_default();
    let port = PORTS.start + random % (PORTS.end - PORTS.start);
    let free = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
    Ok((free(port) && free(port + 1)).then_some(port))
}
