//! The Debian package: installed in a Debian of its own, used there on a software TPM, and removed without a trace.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr, clippy::pedantic)]

mod debian;

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::Value;
use snapbox::{Assert, Data};
use swtpm_tests::{PIN, creation_options, request_options};

use crate::debian::{Debian, run};

/// The package has no address to write to; SECURITY.md tells one.
const NO_ADDRESS: &str = "bogus-mail-host,bogus-mail-host-in-debian-changelog";

#[test]
fn it_is_installed_used_and_removed_without_a_trace() {
    let Some(package) = package() else { return };
    let debian = Debian::new();
    debian.root("useradd --create-home --user-group alice");
    let before = debian.files();
    fs::copy(package, debian.0.path().join("run/package.deb")).unwrap();
    debian.root("dpkg --install /run/package.deb");

    let installed: Vec<_> = debian.files().difference(&before).cloned().collect();
    let reviewed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/package/installed.txt");
    Assert::new().action_env("SNAPSHOTS").eq(installed.join("\n") + "\n", Data::read_from(&reviewed, None));
    let passhold = debian.root("getent passwd passhold | cut -d: -f5-; getent group passhold | cut -d: -f4");
    assert_eq!(
        passhold, "Passkeys in the TPM:/var/lib/passhold:/usr/sbin/nologin\n\n",
        "nobody else is in it"
    );
    debian.root("systemd-analyze verify passholdd.service");
    debian.root("XDG_RUNTIME_DIR=/run systemd-analyze verify --user passhold-prompt.service");
    assert_eq!(debian.root("systemctl is-enabled passholdd"), "enabled\n");
    assert_eq!(debian.root("systemctl --global is-enabled passhold-prompt"), "enabled\n");

    debian.alice(&format!("passhold --tpm swtpm --pin-fd 3 setup 3<<<{PIN}"));
    let json = |command: &str, options: String| -> Value {
        let run = format!("passhold --tpm swtpm --pin-fd 3 {command} --origin https://example.org");
        serde_json::from_str(&debian.alice(&format!("{run} 3<<<{PIN} <<<'{options}'"))).unwrap()
    };
    let made = json("enroll", creation_options("example.org", "alice", "none"));
    let signed = json("sign", request_options("example.org"));
    assert_eq!(made.get("id").unwrap(), signed.get("id").unwrap());
    let offered = debian.alice(
        "source /usr/share/bash-completion/completions/passhold
        COMP_WORDS=(passhold --tpm swtpm show '') COMP_CWORD=4 COMP_TYPE=9
        _clap_complete_passhold passhold '' show
        echo ${COMPREPLY[0]}",
    );
    assert_eq!(offered, "1\n");

    debian.root("dpkg --purge passhold");
    assert_eq!(debian.files(), before);
}

#[test]
fn lintian_finds_no_error() {
    let Some(package) = package() else { return };
    let lintian = Command::new("lintian")
        .args(["--allow-root", "--fail-on", "error", "--suppress-tags", NO_ADDRESS])
        .arg(package)
        .output()
        .unwrap();
    assert!(lintian.status.success(), "{}", String::from_utf8_lossy(&lintian.stdout));
}

/// The package, where it can be tested.
fn package() -> Option<PathBuf> {
    let lintian = Path::new("/usr/bin/lintian");
    let package = debian::package()
        .and_then(|package| lintian.exists().then_some(package).ok_or("lintian is missing".to_owned()));
    if let Err(why) = &package {
        assert_ne!(
            env::var("PASSHOLD_LAB").as_deref(),
            Ok("required"),
            "the package cannot be tested: {why}"
        );
        eprintln!(
            "\n*** SKIPPED: the package cannot be tested: {why}. `make test` builds it, and tests it as root. ***\n"
        );
    }
    package.ok()
}

impl Debian {
    fn root(&self, script: &str) -> String {
        self.run("root", script)
    }

    fn alice(&self, script: &str) -> String {
        self.run("alice", script)
    }

    fn run(&self, user: &str, script: &str) -> String {
        let mut inside = Command::new("unshare");
        inside
            .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "--root"])
            .arg(self.0.path());
        inside.args(["setpriv", "--reuid", user, "--regid", user, "--clear-groups", "--"]);
        inside.args([
            "env",
            "--chdir=/tmp",
            "-i",
            "PATH=/usr/bin:/usr/sbin",
            "DEBIAN_FRONTEND=noninteractive",
        ]);
        run(inside.arg(format!("HOME=/home/{user}")).args(["bash", "-e", "-c", script]))
    }

    /// Mode, owner, path and target of each, but for what dpkg and the list of users keep of themselves.
    fn files(&self) -> BTreeSet<String> {
        let listed = self.root(
            r"find / -xdev \( -path /proc -o -path /run -o -path /tmp -o -path /home -o -path /var/log -o -path /var/cache \
                -o -path /var/lib/dpkg -o -path '/etc/passwd*' -o -path '/etc/shadow*' -o -path '/etc/group*' \
                -o -path '/etc/gshadow*' -o -path /etc/.pwd.lock \) -prune -o -printf '%M %u:%g %p %l\n'",
        );
        listed.lines().map(|line| line.trim_end().to_owned()).collect()
    }
}
