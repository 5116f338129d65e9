//! A machine of a test's own: programs that run in it see other folders in some places.
#![expect(clippy::expect_used, reason = "a test without a machine cannot go on")]

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// Folders in the place of `/etc` (a copy), `/run`, `/var/lib`, `/sys/class` and, if it is wanted, `/dev`. Takes root.
#[derive(Debug)]
pub struct Machine {
    dir: TempDir,
}

const PLACES: [&str; 4] = ["etc", "run", "var/lib", "sys/class"];
/// What programs do not do without.
const NODES: [&str; 5] = ["null", "zero", "tty", "random", "urandom"];

impl Machine {
    /// Without any device but the usual ones.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn without_devices() -> Self {
        let machine = Self::new();
        let dev = machine.path("dev");
        fs::create_dir(&dev).expect("a folder");
        for node in NODES {
            copy(&Path::new("/dev").join(node), &dev);
        }
        machine
    }

    /// With the devices of this one.
    ///
    /// # Panics
    /// If it cannot be made.
    #[must_use]
    pub fn new() -> Self {
        let machine = Self { dir: tempfile::tempdir().expect("a temporary folder") };
        open_to_all(machine.dir.path());
        copy(Path::new("/etc"), machine.dir.path());
        for place in PLACES {
            fs::create_dir_all(machine.path(place)).expect("a folder");
        }
        let mounts = "for at in etc run var/lib sys/class dev; do \
                      [ ! -d \"$at\" ] || mount --bind \"$at\" \"/$at\" || exit 99; done";
        let inner =
            format!("old=$PWD; cd {}; {mounts}; cd \"$old\"; exec \"$@\"", machine.dir.path().display());
        machine.program(
            "enter",
            &format!("exec unshare --mount --propagation private sh -c '{inner}' sh \"$@\""),
        );
        machine
    }

    /// What stands there for `/` and this.
    #[must_use]
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.path().join(path)
    }

    /// A file there.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn write(&self, path: &str, contents: &str) {
        let path = self.path(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, contents).expect("a file");
    }

    /// A line more in a file there.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn append(&self, path: &str, line: &str) {
        let text = fs::read_to_string(self.path(path)).expect("a file");
        self.write(path, &format!("{text}{line}\n"));
    }

    /// With the group that the package makes.
    #[must_use]
    pub fn with_group(self) -> Self {
        self.append("etc/group", "passhold:x:31000:");
        self
    }

    /// A program in the folder `bin`, which is in no path by itself.
    ///
    /// # Panics
    /// If it cannot be written.
    pub fn program(&self, name: &str, script: &str) {
        self.write(&format!("bin/{name}"), &format!("#!/bin/sh\n{script}\n"));
        open_to_all(&self.path("bin").join(name));
    }

    /// What runs a program there, for [`Call::under`](crate::Call::under).
    #[must_use]
    pub fn runner(&self) -> String {
        self.path("bin/enter").display().to_string()
    }
}

impl Default for Machine {
    fn default() -> Self {
        Self::new()
    }
}

fn open_to_all(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("a mode");
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().expect("cp").success());
}
