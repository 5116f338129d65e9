//! The programs as they ship: `passhold`, run as a person or a script runs it, and the relying party.
#![expect(clippy::expect_used, clippy::panic, reason = "a test whose program does not run cannot go on")]

mod call;
mod terminal;

pub(crate) use call::comes_true;
pub use call::{Call, Run, Running};
pub use terminal::Terminal;

use std::{
    env,
    ffi::OsStr,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::{PIN, TestTpm};

/// A program of this workspace, beside the test's own executable: cargo tells only a package's own tests
/// where its binaries are.
#[derive(Clone, Copy, Debug)]
pub enum Program {
    /// The command line.
    Passhold,
    /// The device.
    Passholdd,
    /// The example to sign in to.
    RelyingParty,
}

impl Program {
    /// Where it is.
    ///
    /// # Panics
    /// If it has not been built.
    #[must_use]
    pub fn path(self) -> PathBuf {
        let name = match self {
            Self::Passhold => "passhold",
            Self::Passholdd => "passholdd",
            Self::RelyingParty => "relying-party",
        };
        let path = target_dir().join(name);
        assert!(path.exists(), "{} is missing; build it first: cargo build --bin {name}", path.display());
        path
    }
}

/// `target/debug` or `target/release`: programs lie there, tests in its `deps`.
fn target_dir() -> PathBuf {
    let this = env::current_exe().expect("our own path");
    let folder = this.parent().expect("a folder");
    let folder =
        if folder.ends_with("deps") { folder.parent().expect("a folder above deps") } else { folder };
    folder.to_owned()
}

/// The `passhold` binary with a home folder and a TPM of its own.
#[derive(Debug)]
pub struct Passhold {
    home: TempDir,
    tpm: String,
}

impl Passhold {
    /// Nothing set up yet.
    ///
    /// # Panics
    /// If there is no place for the home folder.
    #[must_use]
    pub fn new(tpm: &str) -> Self {
        Self { home: tempfile::tempdir().expect("a temporary folder"), tpm: tpm.to_owned() }
    }

    /// With a vault that the binary set up with [`PIN`].
    ///
    /// # Panics
    /// If set-up fails.
    #[must_use]
    pub fn with_vault(tpm: &TestTpm) -> Self {
        let passhold = Self::new(&tpm.tcti());
        passhold.call(["setup"]).pin(PIN).run().expect_code(0);
        passhold
    }

    /// The home folder, which is the working directory too.
    #[must_use]
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The vault's folder.
    #[must_use]
    pub fn vault(&self) -> PathBuf {
        self.home().join("vault")
    }

    /// The TPM that [`Passhold::call`] names.
    #[must_use]
    pub fn tpm(&self) -> &str {
        &self.tpm
    }

    /// From here on another TPM.
    pub fn set_tpm(&mut self, tpm: &str) {
        tpm.clone_into(&mut self.tpm);
    }

    /// `passhold --vault VAULT --tpm TPM ARGS`
    #[must_use]
    pub fn call<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Call {
        let [vault, tpm] = ["--vault".as_ref(), "--tpm".as_ref()].map(OsStr::to_owned);
        let global = [vault, self.vault().into(), tpm, self.tpm.clone().into()];
        Call::new(self.home(), global.into_iter().chain(args.into_iter().map(|a| a.as_ref().to_owned())))
    }

    /// `passhold ARGS`: vault and TPM are found as the program finds them.
    #[must_use]
    pub fn bare<A: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = A>) -> Call {
        Call::new(self.home(), args.into_iter().map(|a| a.as_ref().to_owned()))
    }
}
