//! Other people's libraries.
#![expect(clippy::expect_used, reason = "a test whose libraries cannot be had cannot go on")]

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The folder where the verifiers' pinned libraries are, installed if need be: a Python `venv` and `node_modules`.
///
/// # Panics
/// If they cannot be installed.
#[must_use]
pub fn installed() -> PathBuf {
    let dir = env::var_os("PASSHOLD_VERIFIERS").map_or_else(
        || {
            // target/debug/deps/verifiers-…
            let test = env::current_exe().expect("the test's own path");
            test.ancestors().nth(3).expect("a folder above target/debug/deps").join("verifiers")
        },
        PathBuf::from,
    );
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("verifiers/install.sh");
    let install = Command::new(script).arg(&dir).output().expect("a script of ours");
    let said = String::from_utf8_lossy(&install.stderr);
    assert!(install.status.success(), "install.sh (README.md names what it needs): {said}");
    dir
}
