//! A Debian of a test's own, in a folder, and the package for it.

use std::{env, fs, path::PathBuf, process::Command};

use tempfile::TempDir;

/// What a small Debian does not have: what the package depends on, and swtpm; what it takes to start and to log in; and fido2-token.
const PACKAGES: &str =
    "acl,dbus,fido2-tools,kmod,libpam-systemd,libtss2-esys-3.0.2-0,libtss2-tctildr0,swtpm,systemd-sysv,udev";

/// A Debian with [`PACKAGES`].
pub(crate) struct Debian(pub(crate) TempDir);

impl Debian {
    /// It is fetched once.
    pub(crate) fn new() -> Self {
        let target = env::current_exe().unwrap().ancestors().nth(3).unwrap().join("package-test");
        let kept = target.join(format!("{PACKAGES}.tar"));
        if !kept.exists() {
            fs::create_dir_all(&target).unwrap();
            let draft = target.join("draft.tar");
            let include = format!("--include={PACKAGES}");
            run(Command::new("mmdebstrap").args(["--variant=apt", &include, "bookworm"]).arg(&draft));
            fs::rename(draft, &kept).unwrap();
        }
        let root = tempfile::tempdir().unwrap();
        run(Command::new("tar").arg("--extract").arg("--file").arg(kept).arg("--directory").arg(root.path()));
        Self(root)
    }
}

/// The package, or why it cannot be tested.
pub(crate) fn package() -> Result<PathBuf, String> {
    if !rustix::process::geteuid().is_root() {
        return Err("a Debian of its own takes root".to_owned());
    }
    if let Some(path) =
        ["/usr/bin/mmdebstrap", "/usr/sbin/mkfs.ext4"].into_iter().find(|path| !fs::exists(path).unwrap())
    {
        return Err(format!("{path} is missing"));
    }
    env::var_os("PASSHOLD_DEB").map(PathBuf::from).ok_or_else(|| "PASSHOLD_DEB does not name it".to_owned())
}

pub(crate) fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (said, complaint) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{command:?}\n{said}{complaint}");
    said.into_owned()
}
