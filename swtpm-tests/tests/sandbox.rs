//! What somebody who has taken over a running passholdd can still do: a library loaded into it makes the system calls. And what
//! passholdd does where it cannot lock itself in.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::pedantic
)]

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use swtpm_tests::{
    Device, HidClient, PIN, Program, Scene,
    proxy::{Fault, FaultKind, Proxy},
};
use tempfile::TempDir;

/// An argument that is a place in the order's data.
const DATA: i64 = 0x7e57_0000_0000_0000;
const ORDER: usize = 8 + 8 + 6 * 8 + 1024;

const PATIENCE: Duration = Duration::from_secs(10);

const CWD: i64 = libc::AT_FDCWD as i64;
const EPERM: i64 = -libc::EPERM as i64;
const EACCES: i64 = -libc::EACCES as i64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Returned(i64),
    Killed,
}
use Outcome::{Killed, Returned};

#[derive(Clone, Copy, Debug)]
enum Thread {
    Main,
    Worker,
}

/// A daemon with somebody inside.
struct Inside {
    scene: Scene,
    library: PathBuf,
    folder: TempDir,
    /// Whether it serves who connects, and so starts threads.
    service: bool,
    device: Device,
}

impl Inside {
    fn new() -> Self {
        Self::of(false)
    }

    fn of(service: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("inside.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("clients/inside.c");
        let built = Command::new("cc")
            .args(["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"])
            .args([&library, &source])
            .status();
        assert!(built.unwrap().success());
        fs::write(folder.path().join("order"), "").unwrap();
        fs::write(folder.path().join("outcomes"), "").unwrap();
        let scene = Scene::with_vault();
        let device = Device::infiltrated(scene.dir(), &scene.tpm.tcti(), &library, folder.path(), service);
        Self { scene, library, folder, service, device }.settled()
    }

    fn again(&mut self) {
        let (tpm, folder) = (self.scene.tpm.tcti(), self.folder.path());
        self.device = Device::infiltrated(self.scene.dir(), &tpm, &self.library, folder, self.service);
        settle(&self.device);
    }

    fn settled(self) -> Self {
        settle(&self.device);
        self
    }

    /// Makes the call, `text` being its argument where that is `DATA`.
    fn call(&mut self, on: Thread, number: i64, arguments: &[i64], text: &[u8]) -> Outcome {
        let threads = threads(self.device.pid());
        let thread = match on {
            Thread::Main => i64::from(self.device.pid()),
            Thread::Worker => *threads.iter().find(|t| **t != i64::from(self.device.pid())).unwrap(),
        };
        let mut order: Vec<u8> =
            [thread, number].iter().chain(arguments).flat_map(|word| word.to_ne_bytes()).collect();
        order.resize(ORDER - 1024, 0);
        order.extend(text);
        order.resize(ORDER, 0);
        // In place: the daemon has it open.
        fs::write(self.folder.path().join("order"), order).unwrap();
        let outcomes = self.folder.path().join("outcomes");
        let before = fs::metadata(&outcomes).unwrap().len() as usize;
        let pid = Pid::from_raw(self.device.pid() as i32).unwrap();
        kill_process(pid, Signal::USR2).unwrap();
        let started = Instant::now();
        loop {
            assert!(started.elapsed() < PATIENCE, "call {number} neither returns nor kills");
            let now = fs::read(&outcomes).unwrap();
            if now.len() == before + 8 {
                return Returned(i64::from_ne_bytes(now[before..].try_into().unwrap()));
            }
            if let Some(status) = self.device.ended() {
                assert_eq!(status.signal(), Some(libc::SIGSYS), "call {number}: {status}");
                return Killed;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    fn open(&mut self, on: Thread, path: &Path, flags: i32) -> Outcome {
        let path = [path.as_os_str().as_encoded_bytes(), &[0]].concat();
        self.call(on, libc::SYS_openat, &[CWD, DATA, i64::from(flags), 0o600], &path)
    }

    /// Connects a new socket to a port of this machine.
    fn connect(&mut self, on: Thread, port: u16) -> Outcome {
        let family = i64::from(libc::AF_INET);
        let Returned(socket) = self.call(on, libc::SYS_socket, &[family, libc::SOCK_STREAM.into(), 0], &[])
        else {
            panic!("killed")
        };
        assert!(socket > 0, "{socket}");
        let address = [
            &(libc::AF_INET as u16).to_ne_bytes()[..],
            &port.to_be_bytes(),
            &Ipv4Addr::LOCALHOST.octets(),
            &[0; 8],
        ];
        let connected = self.call(on, libc::SYS_connect, &[socket, DATA, 16], &address.concat());
        assert_eq!(self.call(on, libc::SYS_close, &[socket], &[]), Returned(0));
        connected
    }
}

/// The daemon's socket is there before the daemon has locked itself in; whoever gets an answer comes after.
fn settle(device: &Device) {
    drop(HidClient::connect(&device.socket()));
}

fn threads(pid: u32) -> Vec<i64> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.map(|thread| thread.unwrap().file_name().to_str().unwrap().parse().unwrap()).collect()
}

/// A line of a thread's status.
fn status(pid: u32, thread: i64, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/task/{thread}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("{field} in {status}")).trim().to_owned()
}

#[test]
fn every_thread_is_locked_in_and_the_memory_is_locked() {
    let scene = Scene::with_vault();
    let programs = tempfile::tempdir().unwrap();
    for device in [
        Device::start(scene.dir(), &scene.tpm.tcti(), PIN),
        Device::with_pinentry(scene.dir(), &scene.tpm.tcti(), programs.path()),
    ] {
        settle(&device);
        let threads = threads(device.pid());
        // The device, the authenticator, and the one that waits for SIGUSR1.
        assert_eq!(threads.len(), 3);
        for thread in threads {
            assert_eq!(status(device.pid(), thread, "NoNewPrivs"), "1");
            assert_eq!(status(device.pid(), thread, "Seccomp"), "2");
            let locked = status(device.pid(), thread, "VmLck");
            assert!(locked.strip_suffix(" kB").unwrap().trim().parse::<u32>().unwrap() > 1024, "{locked}");
        }
        device.stop();
    }
}

#[test]
fn what_nobody_here_has_use_for_ends_the_daemon() {
    let number = i64::from;
    let text = b"/bin/true\0";
    let fatal: &[(&str, i64, &[i64])] = &[
        ("execve", libc::SYS_execve, &[DATA, 0, 0]),
        ("execveat", libc::SYS_execveat, &[CWD, DATA, 0, 0, 0]),
        ("fork", libc::SYS_fork, &[]),
        ("vfork", libc::SYS_vfork, &[]),
        ("clone", libc::SYS_clone, &[number(libc::SIGCHLD)]),
        ("a user namespace", libc::SYS_clone, &[number(libc::CLONE_NEWUSER | libc::SIGCHLD)]),
        ("clone3", libc::SYS_clone3, &[DATA, 64]),
        ("unshare", libc::SYS_unshare, &[number(libc::CLONE_NEWUSER)]),
        ("setns", libc::SYS_setns, &[0, 0]),
        ("ptrace", libc::SYS_ptrace, &[number(libc::PTRACE_TRACEME as i32)]),
        ("process_vm_readv", libc::SYS_process_vm_readv, &[1]),
        ("process_vm_writev", libc::SYS_process_vm_writev, &[1]),
        ("pidfd_getfd", libc::SYS_pidfd_getfd, &[-1, 0, 0]),
        ("pidfd_send_signal", libc::SYS_pidfd_send_signal, &[-1, 9, 0, 0]),
        ("mount", libc::SYS_mount, &[DATA, DATA, DATA]),
        ("umount2", libc::SYS_umount2, &[DATA, 0]),
        ("open_tree", libc::SYS_open_tree, &[CWD, DATA, 0]),
        ("fsopen", libc::SYS_fsopen, &[DATA, 0]),
        ("pivot_root", libc::SYS_pivot_root, &[DATA, DATA]),
        ("chroot", libc::SYS_chroot, &[DATA]),
        ("open_by_handle_at", libc::SYS_open_by_handle_at, &[CWD, DATA, 0]),
        ("personality", libc::SYS_personality, &[0xffff_ffff]),
        ("setuid", libc::SYS_setuid, &[0]),
        ("setresuid", libc::SYS_setresuid, &[0, 0, 0]),
        ("setgroups", libc::SYS_setgroups, &[-1, 0]),
        ("capset", libc::SYS_capset, &[0, 0]),
        ("init_module", libc::SYS_init_module, &[DATA, 8, DATA]),
        ("finit_module", libc::SYS_finit_module, &[-1, DATA, 0]),
        ("bpf", libc::SYS_bpf, &[0, DATA, 64]),
        ("perf_event_open", libc::SYS_perf_event_open, &[DATA, 0, -1, -1, 0]),
        ("userfaultfd", libc::SYS_userfaultfd, &[0]),
        ("io_uring_setup", libc::SYS_io_uring_setup, &[1, DATA]),
        ("add_key", libc::SYS_add_key, &[DATA, DATA, DATA, 1, -1]),
        ("keyctl", libc::SYS_keyctl, &[0, -1, 0]),
        ("kexec_load", libc::SYS_kexec_load, &[0, 0, 0, 0xffff]),
        ("reboot", libc::SYS_reboot, &[0, 0, 0]),
        ("packets", libc::SYS_socket, &[number(libc::AF_PACKET), number(libc::SOCK_RAW), 0]),
        ("the kernel's ciphers", libc::SYS_socket, &[number(libc::AF_ALG), number(libc::SOCK_SEQPACKET), 0]),
        ("virtual machines", libc::SYS_socket, &[number(libc::AF_VSOCK), number(libc::SOCK_STREAM), 0]),
        ("Bluetooth", libc::SYS_socket, &[31, number(libc::SOCK_RAW), 0]),
    ];
    let mut inside = Inside::new();
    for (at, (what, call, arguments)) in fatal.iter().enumerate() {
        let on = if at % 2 == 0 { Thread::Main } else { Thread::Worker };
        assert_eq!(inside.call(on, *call, arguments, text), Killed, "{what}");
        inside.again();
    }
}

#[test]
fn a_service_starts_threads_and_no_process() {
    let number = i64::from;
    let mut inside = Inside::of(true);
    let fatal: &[(&str, i64, &[i64])] = &[
        ("execve", libc::SYS_execve, &[DATA, 0, 0]),
        ("fork", libc::SYS_fork, &[]),
        ("clone", libc::SYS_clone, &[number(libc::SIGCHLD)]),
        ("a user namespace", libc::SYS_clone, &[number(libc::CLONE_NEWUSER | libc::SIGCHLD)]),
    ];
    for (what, call, arguments) in fatal {
        assert_eq!(inside.call(Thread::Main, *call, arguments, b"/bin/true\0"), Killed, "{what}");
        inside.again();
    }
    // What clone3 is asked for no filter can see: it is not there.
    let unknown = Returned(-i64::from(libc::ENOSYS));
    assert_eq!(inside.call(Thread::Main, libc::SYS_clone3, &[DATA, 64], &[0; 64]), unknown);
    let executable = number(libc::PROT_READ | libc::PROT_EXEC);
    let private = number(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let mapped = inside.call(Thread::Worker, libc::SYS_mmap, &[0, 4096, executable, private, -1, 0], &[]);
    assert_eq!(mapped, Returned(EPERM));
    for thread in threads(inside.device.pid()) {
        assert_eq!(status(inside.device.pid(), thread, "Seccomp"), "2");
        assert_eq!(status(inside.device.pid(), thread, "NoNewPrivs"), "1");
    }
}

#[test]
fn what_a_library_may_try_is_refused() {
    let number = i64::from;
    let (inet, unix) = (number(libc::AF_INET), number(libc::AF_UNIX));
    let writable = number(libc::PROT_READ | libc::PROT_WRITE);
    let private = number(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
    let mut inside = Inside::new();
    let pid = i64::from(inside.device.pid());
    let ours = i64::from(std::process::id());
    let refused: &[(&str, i64, &[i64])] = &[
        ("a datagram socket", libc::SYS_socket, &[inet, number(libc::SOCK_DGRAM), 0]),
        ("a raw socket", libc::SYS_socket, &[inet, number(libc::SOCK_RAW), 1]),
        ("a Unix socket", libc::SYS_socket, &[unix, number(libc::SOCK_STREAM), 0]),
        ("netlink", libc::SYS_socket, &[number(libc::AF_NETLINK), number(libc::SOCK_RAW), 0]),
        ("socketpair", libc::SYS_socketpair, &[unix, number(libc::SOCK_STREAM), 0, DATA]),
        ("bind", libc::SYS_bind, &[3, DATA, 16]),
        ("listen", libc::SYS_listen, &[3, 1]),
        ("another's signal", libc::SYS_kill, &[ours, 0]),
        ("another's end", libc::SYS_kill, &[ours, number(libc::SIGKILL)]),
        ("a thread of another's", libc::SYS_tgkill, &[ours, ours, 0]),
        ("a queued signal", libc::SYS_rt_sigqueueinfo, &[ours, 0, DATA]),
        ("another pidfd", libc::SYS_pidfd_open, &[ours, 0]),
        ("whom descriptors signal", libc::SYS_fcntl, &[3, number(libc::F_SETOWN), ours]),
        ("being dumpable", libc::SYS_prctl, &[number(libc::PR_SET_DUMPABLE), 1, 0, 0, 0]),
        ("limits", libc::SYS_prlimit64, &[0, 4, DATA, 0]),
        ("unlocking the memory", libc::SYS_munlockall, &[]),
        ("memory to execute", libc::SYS_mmap, &[0, 4096, writable | 4, private, -1, 0]),
        ("a mapping to execute", libc::SYS_mmap, &[0, 4096, 1 | 4, 2, 3, 0]),
        ("executing what was written", libc::SYS_mprotect, &[DATA & !0xfff, 4096, 5]),
        ("a file in memory", libc::SYS_memfd_create, &[DATA, 0]),
        ("chmod", libc::SYS_chmod, &[DATA, 0o777]),
        ("fchmod", libc::SYS_fchmod, &[3, 0o777]),
        ("chown", libc::SYS_chown, &[DATA, 1, 1]),
        ("link", libc::SYS_link, &[DATA, DATA]),
        ("symlink", libc::SYS_symlink, &[DATA, DATA]),
        ("mknod", libc::SYS_mknod, &[DATA, 0o20_666, 0x0101]),
        ("chdir", libc::SYS_chdir, &[DATA]),
        ("an extended attribute", libc::SYS_setxattr, &[DATA, DATA, DATA, 1, 0]),
        ("truncate", libc::SYS_truncate, &[DATA, 0]),
        ("ioctl", libc::SYS_ioctl, &[3, 0x5412, DATA]),
        ("another handler", libc::SYS_rt_sigaction, &[10, 0, 0, 8]),
        ("another filter", libc::SYS_seccomp, &[1, 0, DATA]),
        ("watching files", libc::SYS_inotify_init1, &[0]),
        ("a call of the x32 ABI", 0x4000_0000 | libc::SYS_getpid, &[]),
        ("a call that does not exist", 4000, &[]),
    ];
    for on in [Thread::Main, Thread::Worker] {
        for (what, call, arguments) in refused {
            assert_eq!(inside.call(on, *call, arguments, b"/etc/passwd\0"), Returned(EPERM), "{what}");
        }
        assert_eq!(inside.call(on, libc::SYS_getpid, &[], &[]), Returned(pid));
    }
}

#[test]
fn no_file_is_in_reach_but_the_vaults() {
    let mut inside = Inside::new();
    let somebodys = tempfile::tempdir().unwrap();
    let diary = somebodys.path().join("diary");
    fs::write(&diary, "years of work").unwrap();
    let socket = inside.device.socket();
    let (r, w, rw) = (libc::O_RDONLY, libc::O_WRONLY, libc::O_RDWR);
    let new = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL;
    for on in [Thread::Main, Thread::Worker] {
        for (path, flags) in [
            ("/etc/passwd", r),
            ("/etc/passwd", w),
            ("/etc/shadow", r),
            ("/", r | libc::O_DIRECTORY),
            ("/usr/bin/env", r),
            ("/proc/self/mem", rw),
            ("/proc/1/environ", r),
            ("/dev/null", rw),
            ("/dev/urandom", w),
            ("/tmp/left-by-passholdd", new),
            ("/dev/shm/left-by-passholdd", new),
            (diary.to_str().unwrap(), r),
            (diary.to_str().unwrap(), w),
            (diary.to_str().unwrap(), w | libc::O_TRUNC),
            (somebodys.path().join("new").to_str().unwrap(), new),
            (socket.with_file_name("new").to_str().unwrap(), new),
        ] {
            let opened = inside.open(on, Path::new(path), flags);
            assert_eq!(opened, Returned(EACCES), "{path} with {flags:o}");
        }
        for (what, call, path) in [
            ("removed", libc::SYS_unlink, diary.clone()),
            ("removed", libc::SYS_rmdir, somebodys.path().to_owned()),
            ("made", libc::SYS_mkdir, somebodys.path().join("folder")),
            ("made", libc::SYS_mkdir, inside.scene.dir().join("folder")),
        ] {
            let path = [path.as_os_str().as_encoded_bytes(), &[0]].concat();
            let Returned(done) = inside.call(on, call, &[DATA, 0o700], &path) else { panic!("killed") };
            assert!([EACCES, EPERM].contains(&done), "{what}: {done}");
        }
        // Out of the vault, into it.
        let vault = inside.scene.dir().join("vault.db");
        for (from, to) in [(&vault, &somebodys.path().join("stolen")), (&diary, &vault)] {
            let paths = [from.as_os_str().as_encoded_bytes(), &[0], to.as_os_str().as_encoded_bytes(), &[0]];
            let second = DATA + from.as_os_str().len() as i64 + 1;
            let Returned(done) = inside.call(on, libc::SYS_rename, &[DATA, second], &paths.concat()) else {
                panic!("killed")
            };
            assert!([EACCES, -i64::from(libc::EXDEV)].contains(&done), "{from:?} to {to:?}: {done}");
        }
        // What the work takes.
        for (path, flags) in [(vault, rw), ("/dev/urandom".into(), r)] {
            let Returned(opened) = inside.open(on, &path, flags) else { panic!("killed") };
            assert!(opened > 0, "{}: {opened}", path.display());
        }
    }
    assert_eq!(fs::read_to_string(&diary).unwrap(), "years of work");
    assert!(!Path::new("/tmp/left-by-passholdd").exists());
    inside.device.stop();
}

#[test]
fn no_port_is_in_reach_but_the_tpms() {
    let mut inside = Inside::new();
    let other = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let (other, tpm) = (other.local_addr().unwrap().port(), inside.scene.tpm.port());
    for on in [Thread::Main, Thread::Worker] {
        assert_eq!(inside.connect(on, tpm), Returned(0));
        assert_eq!(inside.connect(on, tpm + 1), Returned(0));
        if landlock_abi() >= 4 {
            assert_eq!(inside.connect(on, other), Returned(EACCES));
        }
    }
}

/// From a kernel's version on the assumption that landlock is not older than it.
fn landlock_abi() -> u32 {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse::<u32>().ok());
    let version = (numbers.next().unwrap(), numbers.next().unwrap());
    if version >= (6, 7) { 4 } else { 1 }
}

/// Runs passholdd where a system call fails, and returns what it says as it ends.
fn refused(scene: &Scene, tpm: &str, inject: &str) -> Output {
    let mut strace = Command::new("strace");
    strace.args(["-f", "-o", "/dev/null", "-e", &format!("inject={inject}")]);
    strace.arg(Program::Passholdd.path()).args(["--tpm", tpm, "--vault"]).arg(scene.dir());
    strace.arg("--hid").arg(format!("seqpacket:{}", scene.dir().join("hid").display()));
    let ended = strace.output().unwrap();
    assert_eq!(ended.status.code(), Some(1), "{inject}: {ended:?}");
    assert!(!scene.dir().join("hid").exists(), "{inject}");
    ended
}

#[test]
fn without_a_sandbox_it_ends_and_says_what_to_do() {
    let scene = Scene::with_vault();
    for (inject, said) in [
        ("landlock_create_ruleset:error=EOPNOTSUPP", "/sys/kernel/security/lsm names landlock"),
        ("landlock_create_ruleset:error=ENOSYS", "use a kernel from 5.13 on"),
        ("landlock_add_rule:error=EINVAL", "cannot be kept from other files"),
        ("landlock_restrict_self:error=E2BIG", "cannot be kept from other files"),
        ("seccomp:error=EINVAL", "use a kernel with CONFIG_SECCOMP_FILTER"),
        ("seccomp:error=EINVAL:when=2", "use a kernel with CONFIG_SECCOMP_FILTER"),
        ("socketpair:error=EMFILE:when=1", "the process that asks cannot be started"),
    ] {
        let ended = refused(&scene, &scene.tpm.tcti(), inject);
        let complaint = String::from_utf8(ended.stderr).unwrap();
        assert!(complaint.contains(said), "{inject}: {complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
    }
}

#[test]
fn a_hardware_tpms_daemon_does_not_run_in_memory_that_may_be_swapped_out() {
    let scene = Scene::with_vault();
    let proxy = Proxy::start(scene.tpm.port()).unwrap();
    let ended = |tcti: &str| {
        let ended = refused(&scene, tcti, "mlockall:error=ENOMEM");
        String::from_utf8(ended.stderr).unwrap()
    };
    for maker in [*b"INTC", *b"????"] {
        proxy.arm(made_by(maker));
        let complaint = ended(&proxy.tcti());
        assert!(complaint.contains("set LimitMEMLOCK=infinity"), "{complaint}");
        assert_eq!(complaint.lines().count(), 1, "{complaint}");
    }
}

#[test]
fn a_tpm_that_is_not_known_to_be_a_program_is_not_used_without_asking() {
    let scene = Scene::with_vault();
    let proxy = Proxy::start(scene.tpm.port()).unwrap();
    for maker in [*b"INTC", *b"IFX\0", *b"????"] {
        proxy.arm(made_by(maker));
        let mut daemon = Command::new("timeout");
        daemon.arg("20").arg(Program::Passholdd.path());
        daemon.args(["--prompt", "auto", "--tpm", &proxy.tcti(), "--vault"]).arg(scene.dir());
        daemon.arg("--hid").arg(format!("seqpacket:{}", scene.dir().join("hid").display()));
        let ended = daemon.output().unwrap();
        let complaint = String::from_utf8(ended.stderr).unwrap();
        assert_eq!(ended.status.code(), Some(1), "{complaint}");
        assert!(complaint.contains("it is for software TPMs only"), "{complaint}");
    }
}

/// The answers to TPM2_GetCapability say that the TPM was made by somebody else.
fn made_by(maker: [u8; 4]) -> Fault {
    let rewrite = move |_: &[u8], mut reply: Vec<u8>| {
        let property = [0, 0, 1, 5, b'I', b'B', b'M', 0];
        if let Some(at) = reply.windows(property.len()).position(|found| found == property) {
            reply[at + 4..at + 8].copy_from_slice(&maker);
        }
        reply
    };
    Fault::continuous(0, FaultKind::Rewrite(Arc::new(rewrite)))
}

#[test]
fn a_software_tpms_daemon_says_that_its_memory_is_not_locked() {
    let scene = Scene::with_vault();
    let socket = scene.dir().join("hid");
    let warnings = scene.dir().join("warnings");
    // Without CAP_IPC_LOCK, as people are.
    let mut daemon = Command::new("setpriv")
        .args(["--bounding-set=-ipc_lock", "prlimit", "--memlock=8388608"])
        .arg(Program::Passholdd.path())
        .args(["--prompt", "auto", "--tpm", &scene.tpm.tcti(), "--vault"])
        .arg(scene.dir())
        .arg("--hid")
        .arg(format!("seqpacket:{}", socket.display()))
        .stderr(fs::File::create(&warnings).unwrap())
        .spawn()
        .unwrap();
    let started = Instant::now();
    while !HidClient::answers(&socket) {
        assert!(started.elapsed() < PATIENCE, "{}", fs::read_to_string(&warnings).unwrap());
        thread::sleep(Duration::from_millis(10));
    }
    drop(HidClient::connect(&socket));
    daemon.kill().unwrap();
    daemon.wait().unwrap();
    let said = fs::read_to_string(&warnings).unwrap();
    assert!(said.contains("warning: the memory is not locked"), "{said}");
}

#[test]
fn a_tpm_that_cannot_be_reached_from_inside_is_refused() {
    let scene = Scene::with_vault();
    let tpm = format!("swtpm:host=localhost,port={}", scene.tpm.port());
    let ended = Command::new(Program::Passholdd.path())
        .args(["--tpm", &tpm, "--vault"])
        .arg(scene.dir())
        .arg("--hid")
        .arg(format!("seqpacket:{}", scene.dir().join("hid").display()))
        .output()
        .unwrap();
    let complaint = String::from_utf8(ended.stderr).unwrap();
    assert!(complaint.contains("swtpm:host=127.0.0.1,port=2321"), "{complaint}");
}
