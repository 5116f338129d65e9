#![expect(clippy::expect_used, reason = "a test whose program does not run cannot go on")]

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use tempfile::TempDir;

/// At each question it does what the next line of a file says, and notes what it was told.
const SCRIPT: &str = r#"#!/bin/sh
PATH=/usr/bin:/bin
cd HOME || exit
echo $$ >>pids
echo "OK Pleased to meet you"
while read -r line; do
    echo "$line" >>told
    case $line in
    GETPIN | CONFIRM)
        head -n 1 script >doing
        sed -i 1d script
        sh doing
        ;;
    *) echo OK ;;
    esac
done
"#;

/// A pinentry and the person before it, in a folder of their own.
#[derive(Debug)]
pub struct Pinentry(TempDir);

impl Pinentry {
    /// Nobody says anything yet.
    ///
    /// # Panics
    /// If there is no place for it.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it makes a folder")]
    pub fn new() -> Self {
        let pinentry = Self(tempfile::tempdir().expect("a temporary folder"));
        pinentry.program("pinentry", SCRIPT);
        pinentry
    }

    /// The folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Puts a program beside it; HOME in it is the folder.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn program(&self, name: &str, script: &str) {
        let path = self.path().join(name);
        fs::write(&path, script.replace("HOME", &self.path().display().to_string())).expect("a file of ours");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a file of ours");
    }

    /// Each line answers one question from here on.
    ///
    /// # Panics
    /// If they cannot be written.
    pub fn person(&self, script: &[&str]) {
        fs::write(self.path().join("script"), script.join("\n") + "\n").expect("a file of ours");
        fs::write(self.path().join("told"), "").expect("a file of ours");
    }

    /// What pinentry was told since.
    ///
    /// # Panics
    /// If nobody said anything yet.
    #[must_use]
    pub fn told(&self) -> String {
        fs::read_to_string(self.path().join("told")).expect("a file of ours")
    }
}
