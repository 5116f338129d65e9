use std::{
    env,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;
use swtpm_tests::proxy::Proxy;

use crate::Result;

/// The real command line, on a vault and a TPM of its own.
pub(crate) struct Passhold<'a> {
    program: PathBuf,
    vault: &'a Path,
    home: &'a Path,
    tpm: &'a Proxy,
}

/// What one run gave.
pub(crate) struct Ran {
    stdout: String,
    stderr: String,
    exit: Option<i32>,
    pub(crate) took: Duration,
    pub(crate) commands: usize,
}

impl<'a> Passhold<'a> {
    /// Finds `passhold` where cargo puts it: beside this program.
    pub(crate) fn new(vault: &'a Path, tpm: &'a Proxy, home: &'a Path) -> Result<Self> {
        let program = env::current_exe()?.with_file_name("passhold");
        if !program.exists() {
            return Err("passhold is not built; run: cargo build -p passhold".into());
        }
        Ok(Self { program, vault, home, tpm })
    }

    /// Runs it with these PINs on its standard input.
    pub(crate) fn run(&self, args: &[&str], pins: &[&str]) -> Result<Ran> {
        self.tpm.clear_record();
        let started = Instant::now();
        let mut child = Command::new(&self.program)
            .args(["--pin-fd", "0", "--tpm", &self.tpm.tcti(), "--vault"])
            .arg(self.vault)
            .args(args)
            .env("HOME", self.home)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            for pin in pins {
                writeln!(stdin, "{pin}")?;
            }
        }
        let output = child.wait_with_output()?;
        Ok(Ran {
            stdout: String::from_utf8(output.stdout)?,
            stderr: String::from_utf8(output.stderr)?,
            exit: output.status.code(),
            took: started.elapsed(),
            commands: self.tpm.codes().len(),
        })
    }
}

impl Ran {
    pub(crate) fn succeeded(self) -> Result<Self> {
        if self.exit == Some(0) { Ok(self) } else { Err(self.stderr.into()) }
    }

    /// The first line of a refusal, if it is this one.
    pub(crate) fn refused_with(&self, exit: i32) -> Result<String> {
        if self.exit != Some(exit) {
            return Err(format!("expected exit code {exit}, got {:?}: {}", self.exit, self.stderr).into());
        }
        let mut lines = self.stderr.lines().filter_map(|line| line.strip_prefix("passhold: "));
        Ok(lines.next_back().unwrap_or_default().to_owned())
    }

    pub(crate) fn json(&self) -> Result<Value> {
        Ok(serde_json::from_str(&self.stdout)?)
    }
}
