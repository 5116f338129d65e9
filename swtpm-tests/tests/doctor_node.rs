//! `passhold doctor` on a TPM behind a device node: a terminal's, which passes every command on to a software TPM. It can be anyone's,
//! and held by one program at a time, as a TPM's without resource manager.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing, clippy::pedantic)]

mod clinic;

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
    os::unix::fs::{MetadataExt, PermissionsExt, chown},
    path::PathBuf,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use clinic::{lines, path};
use rustix::{
    fs::{Mode, OFlags},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{OptionalActions, ioctl_tiocexcl, ioctl_tiocnxcl, tcgetattr, tcsetattr},
};
use swtpm_tests::{Machine, Passhold, TestTpm};

const ALICE: u32 = 31_001;
const PASSHOLD: u32 = 31_000;

struct Node {
    path: PathBuf,
    _tpm: TestTpm,
}

impl Node {
    fn new() -> Self {
        let tpm = TestTpm::start().unwrap();
        let device = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&device).and_then(|()| unlockpt(&device)).unwrap();
        let path = PathBuf::from(ptsname(&device, Vec::new()).unwrap().into_string().unwrap());
        let mut raw = tcgetattr(&device).unwrap();
        raw.make_raw();
        tcsetattr(&device, OptionalActions::Now, &raw).unwrap();
        // It ends with the test's process: while somebody has the node open, it waits for him.
        thread::spawn({
            let (mut device, port) = (File::from(device), tpm.port());
            move || {
                let mut bytes = [0; 4096];
                loop {
                    // An error while nobody has it open.
                    match device.read(&mut bytes) {
                        Ok(length) => device.write_all(&answer(port, &bytes[..length])).unwrap(),
                        Err(_) => thread::sleep(Duration::from_millis(2)),
                    }
                }
            }
        });
        Self { path, _tpm: tpm }
    }

    fn belongs_to(&self, group: u32, mode: u32) {
        chown(&self.path, Some(0), Some(group)).unwrap();
        fs::set_permissions(&self.path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn tcti(&self) -> String {
        format!("device:{}", self.path.display())
    }
}

fn answer(port: u16, command: &[u8]) -> Vec<u8> {
    let mut tpm = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    tpm.write_all(command).unwrap();
    let mut reply = vec![0; 10];
    tpm.read_exact(&mut reply).unwrap();
    let length = u32::from_be_bytes(reply[2..6].try_into().unwrap());
    reply.resize(length.try_into().unwrap(), 0);
    tpm.read_exact(&mut reply[10..]).unwrap();
    reply
}

/// A machine on which Alice has an account, and sudo asks for nothing.
fn machine() -> Machine {
    let machine = Machine::new();
    machine.program("sudo", "exec \"$@\"");
    machine.append("etc/passwd", &format!("alice:x:{ALICE}:{ALICE}::/home/alice:/bin/sh"));
    machine.append("etc/group", &format!("alice:x:{ALICE}:"));
    machine
}

#[test]
fn a_node_that_is_not_there_is_told_from_a_kernel_without_a_driver() {
    let (machine, passhold) = (machine(), Passhold::new("device:/dev/no-tpm"));
    let look = || {
        let line = lines(passhold.call(["doctor", "--json"]).under(&machine.runner())).remove("tpm-device");
        let line = line.unwrap();
        assert_eq!((line.level.as_str(), line.mend), ("problem", None));
        line.found
    };
    assert_eq!(look(), "there is no /dev/no-tpm, and the kernel drives no TPM");
    machine.write("sys/class/tpm/tpm0/tpm_version_major", "2\n");
    assert_eq!(look(), "there is no /dev/no-tpm, and the kernel drives a TPM");
    let folder = Passhold::new("device:/etc");
    let line = lines(folder.call(["doctor", "--json"])).remove("tpm-device").unwrap();
    assert_eq!(line.found, "/etc cannot be opened: Is a directory (os error 21)");
}

/// Group and mode of a node, before it is mended.
#[test]
fn whoever_is_not_in_the_nodes_group_joins_it_and_a_node_without_one_gets_tss() {
    let tss = fs::read_to_string("/etc/group").unwrap();
    let tss = tss.lines().find_map(|line| line.strip_prefix("tss:x:")).unwrap();
    let tss: u32 = tss.split(':').next().unwrap().parse().unwrap();
    // With the package's group, and without.
    for (group, mode, joins) in
        [(tss, 0o660, tss), (0, 0o600, tss), (0, 0o660, tss), (tss, 0o660, PASSHOLD), (0, 0o600, PASSHOLD)]
    {
        let (node, mut machine) = (Node::new(), machine());
        if joins == PASSHOLD {
            machine = machine.with_group();
            // A terminal's node takes no list of who may use it, so here it is the group's own.
            machine.program(
                "setfacl",
                "[ \"$1 $2\" = '-m g:passhold:rw' ] && chgrp passhold $3 && chmod 660 $3",
            );
        }
        node.belongs_to(group, mode);
        let passhold = Passhold::new(&node.tcti());
        chown(passhold.home(), Some(ALICE), Some(ALICE)).unwrap();
        // As at a log-in.
        let alice = format!("{} setpriv --reuid alice --regid alice --init-groups", machine.runner());
        let look = || lines(passhold.call(["doctor", "--json"]).under(&alice));
        let line = look().remove("tpm-device").unwrap();
        let found = format!("no permission to open {}", node.path.display());
        assert_eq!((line.level.as_str(), line.found), ("problem", found));
        let mend = line.mend.unwrap();
        let sh = format!("exec {} sh -c \"$MEND\"", machine.runner());
        let path = format!("{}:{}", machine.path("bin").display(), path());
        let mended =
            Command::new("sh").args(["-c", &sh]).env("MEND", &mend).env("PATH", path).status().unwrap();
        assert!(mended.success(), "{mend}");
        let found = look();
        assert_eq!((found["tpm-device"].level.as_str(), found["tpm"].level.as_str()), ("ok", "ok"), "{mend}");
        let about = fs::metadata(&node.path).unwrap();
        assert_eq!((about.gid(), about.mode() & 0o777), (joins, 0o660));
        let rule = fs::read_to_string(machine.path("etc/udev/rules.d/60-tpmrm-tss.rules")).ok();
        let written = "KERNEL==\"tpmrm[0-9]*\", GROUP=\"tss\", MODE=\"0660\"\n";
        assert_eq!(rule.as_deref(), (group != tss && joins == tss).then_some(written));
    }
}

/// Killed on drop.
struct Holder(Child);

impl Drop for Holder {
    fn drop(&mut self) {
        // It may have been killed already.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn whoever_holds_a_node_is_named() {
    let node = Node::new();
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let open = || rustix::fs::open(&node.path, flags, Mode::empty()).unwrap();
    let held = open();
    ioctl_tiocexcl(&held).unwrap();
    let mut holder = Command::new("sleep").arg("600").stdin(Stdio::from(held)).spawn().map(Holder).unwrap();
    let passhold = Passhold::new(&node.tcti());
    // Whoever may not look into that process is told less.
    chown(&node.path, Some(ALICE), None).unwrap();
    let alice = passhold.call(["doctor", "--json"]).under(&format!("setpriv --reuid {ALICE} --clear-groups"));
    let line = lines(alice).remove("tpm-device").unwrap();
    let found = format!("{} is held by another process", node.path.display());
    assert_eq!((line.level.as_str(), line.found, line.mend), ("problem", found, None));
    // Who administers terminals may open them all the same.
    let look = || {
        let call = passhold.call(["doctor", "--json"]).under("setpriv --bounding-set -sys_admin");
        lines(call).remove("tpm-device").unwrap()
    };
    let line = look();
    let found = format!("{} is held by process {} (sleep)", node.path.display(), holder.0.id());
    assert_eq!((line.level.as_str(), line.found), ("problem", found));
    assert!(Command::new("sh").args(["-c", &line.mend.unwrap()]).status().unwrap().success());
    holder.0.wait().unwrap();
    // A TPM's driver lets the next one in by itself.
    ioctl_tiocnxcl(open()).unwrap();
    assert_eq!(look().level, "ok");
}
