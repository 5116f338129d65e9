//! Seccomp: which system calls can be made. What nothing here has any use for ends the process; what a library may try and do
//! without is refused.

use std::env::consts::ARCH;

use rustix::process::getpid;
use seccompiler::{
    BackendError, BpfProgram, Error, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition,
    SeccompFilter, SeccompRule, apply_filter_all_threads,
};
use tpm_backend::Reach;

use super::Sandbox;

type Rules = Vec<(i64, Vec<SeccompRule>)>;

/// What the daemon does, as strace saw it through the tests of the device, whatever the arguments.
const NEEDED: &[i64] = &[
    // Descriptors: the device, its clients, the TPM, the vault's files.
    libc::SYS_read,
    libc::SYS_write,
    libc::SYS_readv,
    libc::SYS_writev,
    libc::SYS_pread64,
    libc::SYS_pwrite64,
    libc::SYS_recvfrom,
    libc::SYS_sendto,
    libc::SYS_accept4,
    libc::SYS_getsockopt,
    libc::SYS_ppoll,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_eventfd2,
    // Files; which ones is landlock's part.
    libc::SYS_openat,
    libc::SYS_fstat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_faccessat,
    libc::SYS_readlinkat,
    libc::SYS_getcwd,
    libc::SYS_flock,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    libc::SYS_mkdirat,
    // Memory that cannot be executed, see below.
    libc::SYS_brk,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    // Threads and time.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_rseq,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_yield,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_restart_syscall,
    libc::SYS_clock_gettime,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_exit,
    libc::SYS_exit_group,
    // Itself and its children.
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getrandom,
    libc::SYS_wait4,
    libc::SYS_waitid,
];

/// Where the same goes by older names too.
#[cfg(target_arch = "x86_64")]
const NEEDED_HERE: &[i64] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_poll,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_mkdir,
];
#[cfg(not(target_arch = "x86_64"))]
const NEEDED_HERE: &[i64] = &[];

/// What only somebody would do who has taken the daemon over.
const FATAL: &[i64] = &[
    // Other programs and processes.
    libc::SYS_execve,
    libc::SYS_execveat,
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_pidfd_getfd,
    libc::SYS_pidfd_send_signal,
    libc::SYS_kcmp,
    // Another view of the system.
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_chroot,
    libc::SYS_pivot_root,
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_open_by_handle_at,
    libc::SYS_personality,
    // Other rights.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    // The kernel.
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_reboot,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_syslog,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
];

#[cfg(target_arch = "x86_64")]
const FATAL_HERE: &[i64] = &[
    libc::SYS_fork,
    libc::SYS_vfork,
    libc::SYS_modify_ldt,
    libc::SYS_iopl,
    libc::SYS_ioperm,
    libc::SYS_kexec_file_load,
];
#[cfg(not(target_arch = "x86_64"))]
const FATAL_HERE: &[i64] = &[];

/// What a service lets a connection be served with: a thread and its stack; time limits of a socket, and its end.
const NEEDED_BY_SERVICE: &[i64] =
    &[libc::SYS_clone, libc::SYS_clone3, libc::SYS_setsockopt, libc::SYS_shutdown];

/// What making a Unix socket takes.
const NEEDED_FOR_SOCKETS: &[i64] =
    &[libc::SYS_bind, libc::SYS_listen, libc::SYS_connect, libc::SYS_fchmodat, libc::SYS_chmod];

pub(super) fn restrict(sandbox: &Sandbox) -> Result<(), Error> {
    let fatal = program(fatal(sandbox.service)?, SeccompAction::Allow, SeccompAction::KillProcess)?;
    let refused = SeccompAction::Errno(word(libc::EPERM));
    let needed = program(needed(sandbox)?, refused, SeccompAction::Allow)?;
    // What clone3 is asked for lies in memory, out of a filter's reach. Without it libc uses clone.
    let unknown = SeccompAction::Errno(word(libc::ENOSYS));
    let unknown = program(whatever(&[&[libc::SYS_clone3]]), SeccompAction::Allow, unknown)?;
    // The first lets the others be installed; of their answers the hardest counts.
    apply_filter_all_threads(&fatal)?;
    if sandbox.service {
        apply_filter_all_threads(&unknown)?;
    }
    apply_filter_all_threads(&needed)
}

fn program(rules: Rules, otherwise: SeccompAction, then: SeccompAction) -> Result<BpfProgram, Error> {
    let arch = ARCH.try_into()?;
    Ok(SeccompFilter::new(rules.into_iter().collect(), otherwise, then, arch)?.try_into()?)
}

fn fatal(service: bool) -> Result<Rules, BackendError> {
    let mut rules = whatever(&[FATAL, FATAL_HERE]);
    if service {
        let thread = u64::from(word(libc::CLONE_THREAD));
        let no_thread = argument(0, SeccompCmpOp::MaskedEq(thread), 0)?;
        rules.push((libc::SYS_clone, vec![SeccompRule::new(vec![no_thread])?]));
    } else {
        rules.extend(whatever(&[&[libc::SYS_clone, libc::SYS_clone3]]));
    }
    // Those of Unix and the internet, and the one that getaddrinfo asks for addresses, are libraries' business.
    let families = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];
    let other = families.into_iter().map(|family| argument(0, SeccompCmpOp::Ne, word(family)));
    rules.push((libc::SYS_socket, vec![SeccompRule::new(other.collect::<Result<_, _>>()?)?]));
    Ok(rules)
}

fn needed(sandbox: &Sandbox) -> Result<Rules, BackendError> {
    let Sandbox { tpm, children, .. } = sandbox;
    let mut rules = whatever(&[NEEDED, NEEDED_HERE]);
    let never_executable =
        || SeccompRule::new(vec![argument(2, SeccompCmpOp::MaskedEq(word(libc::PROT_EXEC).into()), 0)?]);
    let is = |at, value| argument(at, SeccompCmpOp::Eq, word(value));
    rules.push((libc::SYS_mmap, vec![never_executable()?]));
    rules.push((libc::SYS_mprotect, vec![never_executable()?]));
    // Locks, and copies of descriptors; not whom to send signals.
    let commands = [
        libc::F_GETFD,
        libc::F_SETFD,
        libc::F_GETFL,
        libc::F_SETFL,
        libc::F_GETLK,
        libc::F_SETLK,
        libc::F_DUPFD_CLOEXEC,
    ];
    let commands = commands.into_iter().map(|command| SeccompRule::new(vec![is(1, command)?]));
    rules.push((libc::SYS_fcntl, commands.collect::<Result<_, _>>()?));
    // A thread's name is set by itself.
    rules.push((libc::SYS_prctl, vec![SeccompRule::new(vec![is(0, libc::PR_SET_NAME)?])?]));
    // To abort.
    rules.push((libc::SYS_tgkill, vec![SeccompRule::new(vec![is(0, getpid().as_raw_pid())?])?]));
    if !children.is_empty() {
        let ends = children
            .iter()
            .map(|child| SeccompRule::new(vec![is(0, child.as_raw_pid())?, is(1, libc::SIGKILL)?]));
        rules.push((libc::SYS_kill, ends.collect::<Result<_, _>>()?));
    }
    let mut sockets = Vec::new();
    if let Reach::Tcp(_) = tpm {
        rules.extend(whatever(&[&[libc::SYS_connect, libc::SYS_setsockopt, libc::SYS_shutdown]]));
        let stream = |family| {
            let kind = SeccompCmpOp::MaskedEq(0xf);
            SeccompRule::new(vec![is(0, family)?, argument(1, kind, word(libc::SOCK_STREAM))?])
        };
        sockets.extend([stream(libc::AF_INET)?, stream(libc::AF_INET6)?]);
    }
    if sandbox.service {
        rules.extend(whatever(&[NEEDED_BY_SERVICE]));
        // So that whoever asks does not keep us waiting.
        let nonblocking = argument(1, SeccompCmpOp::Eq, libc::FIONBIO.try_into().unwrap_or_default())?;
        rules.push((libc::SYS_ioctl, vec![SeccompRule::new(vec![nonblocking])?]));
    }
    if sandbox.makes_sockets() {
        rules.extend(whatever(&[NEEDED_FOR_SOCKETS]));
        sockets.push(SeccompRule::new(vec![is(0, libc::AF_UNIX)?])?);
    }
    if !sockets.is_empty() {
        rules.push((libc::SYS_socket, sockets));
    }
    Ok(rules)
}

fn whatever(calls: &[&[i64]]) -> Rules {
    calls.iter().copied().flatten().map(|call| (*call, Vec::new())).collect()
}

fn argument(at: u8, operator: SeccompCmpOp, value: u32) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(at, SeccompCmpArgLen::Dword, operator, value.into())
}

/// A C int as the kernel compares it.
fn word(value: i32) -> u32 {
    value.cast_unsigned()
}
