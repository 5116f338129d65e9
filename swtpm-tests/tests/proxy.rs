//! The proxy's promises, each held against a real swtpm.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::pedantic
)]

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    panic::{self, AssertUnwindSafe},
    process::Command,
    sync::{Arc, Mutex},
    thread,
    time::{Duration, Instant},
};

use swtpm_tests::proxy::{Exchange, Fault, FaultKind, Proxy, Span, command_name};
use tempfile::TempDir;
use tpm_backend::swtpm::Swtpm;

const PCR_EXTEND: u32 = 0x182;
const GET_RANDOM: u32 = 0x17b;

/// `TPM2_GetRandom` of eight bytes.
const RANDOM: [u8; 12] = [0x80, 1, 0, 0, 0, 12, 0, 0, 0x01, 0x7b, 0, 8];

/// `TPM2_PCR_Read` of PCR 16, SHA-256.
const READ: [u8; 20] = [0x80, 1, 0, 0, 0, 20, 0, 0, 0x01, 0x7e, 0, 0, 0, 1, 0, 0x0b, 3, 0, 0, 1];

/// A response code without parameters, `TPM_RC_LOCKOUT`.
const LOCKOUT: u32 = 0x921;
const LOCKED_OUT: [u8; 10] = [0x80, 1, 0, 0, 0, 10, 0, 0, 0x09, 0x21];

/// What an empty reply stands for: the connection closed without one.
const NO_REPLY: Vec<u8> = Vec::new();

struct Bench {
    proxy: Proxy,
    tpm: Swtpm,
    _state: TempDir,
}

impl Bench {
    fn new() -> Self {
        let state = TempDir::new().unwrap();
        let tpm = Swtpm::start(state.path()).unwrap();
        Self { proxy: Proxy::start(tpm.port()).unwrap(), tpm, _state: state }
    }

    fn ask(&self, command: &[u8]) -> Vec<u8> {
        ask(self.proxy.port(), command).unwrap()
    }

    /// Sends `GetRandom` this many times; says which of them were answered.
    fn answered(&self, commands: usize) -> Vec<bool> {
        (0..commands).map(|_| !self.ask(&RANDOM).is_empty()).collect()
    }

    /// PCR 16 and the PCR update counter, read past the proxy.
    fn pcr(&self) -> Vec<u8> {
        let mut tpm = TcpStream::connect((Ipv4Addr::LOCALHOST, self.tpm.port())).unwrap();
        tpm.write_all(&READ).unwrap();
        let mut response = vec![0; 4096];
        let len = tpm.read(&mut response).unwrap();
        response.truncate(len);
        response
    }
}

/// One command, and all bytes until the connection closes.
fn ask(port: u16, command: &[u8]) -> io::Result<Vec<u8>> {
    let mut tpm = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    tpm.write_all(command)?;
    let mut reply = Vec::new();
    tpm.read_to_end(&mut reply)?;
    Ok(reply)
}

/// `TPM2_PCR_Extend` of PCR 16 with an empty password: a command that changes the TPM.
fn extend() -> Vec<u8> {
    let mut command = vec![0x80, 2, 0, 0, 0, 65, 0, 0, 0x01, 0x82, 0, 0, 0, 16];
    command.extend([0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0]);
    command.extend([0, 0, 0, 1, 0, 0x0b]);
    command.extend([0x5a; 32]);
    command
}

/// Runs `PCR_Extend` under a fault. Returns the reply, whether the TPM executed it, and the record.
fn extend_under(kind: FaultKind) -> (Vec<u8>, bool, Vec<Exchange>) {
    let bench = Bench::new();
    let before = bench.pcr();
    bench.proxy.arm(Fault::once(0, kind));
    let reply = bench.ask(&extend());
    assert_eq!(bench.proxy.fired(), 1);
    (reply, bench.pcr() != before, bench.proxy.record())
}

#[test]
fn tpm2_tools_work_through_the_proxy() {
    let bench = Bench::new();
    let tcti = bench.proxy.tcti();
    let output = Command::new("tpm2_getrandom").args(["-T", &tcti, "--hex", "8"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    assert_eq!(output.stdout.len(), 16);
    assert_eq!(bench.proxy.codes().last(), Some(&GET_RANDOM));
}

#[test]
fn tpm2_tools_end_with_an_error_under_every_lasting_fault() {
    use FaultKind::{CutAfter, CutBefore, EndOfStream, FlipBit, LoseReply, Refuse, Truncate};
    let bench = Bench::new();
    let tcti = bench.proxy.tcti();
    let kinds = [Refuse(LOCKOUT), LoseReply(LOCKOUT), CutBefore, CutAfter, Truncate(9), Truncate(11)];
    for kind in kinds.into_iter().chain([FlipBit(32), EndOfStream]) {
        bench.proxy.arm(Fault::continuous(0, kind));
        // No code means a signal: a crashed client.
        let code = Command::new("tpm2_getrandom").args(["-T", &tcti, "8"]).output().unwrap().status.code();
        assert!(code.is_some_and(|code| code != 0), "{code:?}");
        assert_ne!(bench.proxy.fired(), 0);
    }
}

#[test]
fn without_a_fault_the_client_gets_what_the_tpm_answered() {
    let bench = Bench::new();
    let reply = bench.ask(&extend());
    let expected = Exchange { command: extend(), response: reply };
    assert_eq!((expected.code(), expected.response_code()), (PCR_EXTEND, 0));
    assert_eq!(bench.proxy.record(), [expected]);
    assert_eq!(bench.proxy.fired(), 0);
}

#[test]
fn a_failed_command_is_recorded_with_its_response_code() {
    let bench = Bench::new();
    bench.ask(&[0x80, 1, 0, 0, 0, 10, 0, 0, 0x01, 0x7b]);
    assert_eq!(bench.proxy.record()[0].response_code(), 0x1da, "TPM_RC_INSUFFICIENT, parameter 1");
}

#[test]
fn the_wire_holds_every_recorded_byte_in_order() {
    let bench = Bench::new();
    let first = bench.ask(&RANDOM);
    let second = bench.ask(&READ);
    assert_eq!(bench.proxy.wire(), [&RANDOM[..], &first, &READ[..], &second].concat());
}

#[test]
fn a_cleared_record_starts_anew() {
    let bench = Bench::new();
    bench.ask(&RANDOM);
    bench.proxy.clear_record();
    bench.ask(&extend());
    assert_eq!(bench.proxy.codes(), [PCR_EXTEND]);
}

#[test]
fn a_refused_command_never_reaches_the_tpm() {
    let (reply, executed, record) = extend_under(FaultKind::Refuse(LOCKOUT));
    assert_eq!((reply, executed, record), (LOCKED_OUT.to_vec(), false, vec![]));
}

#[test]
fn a_command_whose_reply_is_lost_was_executed() {
    let (reply, executed, record) = extend_under(FaultKind::LoseReply(LOCKOUT));
    assert_eq!((reply, executed), (LOCKED_OUT.to_vec(), true));
    assert_eq!((record[0].code(), record[0].response_code()), (PCR_EXTEND, 0));
}

#[test]
fn a_cut_before_leaves_the_tpm_untouched() {
    let (reply, executed, record) = extend_under(FaultKind::CutBefore);
    assert_eq!((reply, executed, record), (NO_REPLY, false, vec![]));
}

#[test]
fn a_cut_after_leaves_the_command_executed() {
    let (reply, executed, record) = extend_under(FaultKind::CutAfter);
    assert_eq!((reply, executed), (NO_REPLY, true));
    assert_eq!(record[0].response_code(), 0);
}

#[test]
fn a_truncated_reply_is_the_beginning_of_the_true_one() {
    let (reply, executed, record) = extend_under(FaultKind::Truncate(7));
    assert_eq!((&reply[..], executed), (&record[0].response[..7], true));
}

#[test]
fn a_truncation_past_the_end_changes_nothing() {
    let (reply, executed, record) = extend_under(FaultKind::Truncate(9999));
    assert_eq!((&reply, executed), (&record[0].response, true));
}

#[test]
fn one_bit_of_the_reply_is_flipped() {
    let (reply, executed, record) = extend_under(FaultKind::FlipBit(75));
    let mut expected = record[0].response.clone();
    expected[9] ^= 0b1000;
    assert_eq!((reply, executed), (expected, true));
}

#[test]
fn a_bit_past_the_end_wraps_around() {
    let (reply, _, record) = extend_under(FaultKind::FlipBit(19 * 8 + 1));
    let mut expected = record[0].response.clone();
    assert_eq!(expected.len(), 19);
    expected[0] ^= 0b10;
    assert_eq!(reply, expected);
}

#[test]
fn a_flipped_size_ends_the_stream_instead_of_hanging_the_client() {
    let bench = Bench::new();
    bench.proxy.arm(Fault::once(0, FaultKind::FlipBit(32)));
    assert_eq!(bench.ask(&RANDOM).len(), 20);
}

#[test]
fn a_rewrite_gets_command_and_reply_and_gives_the_reply() {
    let rewrite = |command: &[u8], reply: Vec<u8>| [command, &reply, b"!"].concat();
    let (reply, executed, record) = extend_under(FaultKind::Rewrite(Arc::new(rewrite)));
    assert_eq!((reply, executed), ([&extend()[..], &record[0].response, b"!"].concat(), true));
}

#[test]
fn a_delayed_command_is_executed_late() {
    let delay = Duration::from_secs(1);
    let bench = Bench::new();
    let before = bench.pcr();
    bench.proxy.arm(Fault::once(0, FaultKind::Delay(delay)));
    thread::scope(|scope| {
        let start = Instant::now();
        let client = scope.spawn(|| bench.ask(&extend()));
        while bench.proxy.fired() == 0 {
            thread::yield_now();
        }
        assert_eq!(bench.pcr(), before, "not yet executed");
        assert_eq!(client.join().unwrap(), bench.proxy.record()[0].response);
        assert!(start.elapsed() >= delay);
    });
    assert_ne!(bench.pcr(), before);
}

#[test]
fn once_is_once() {
    let bench = Bench::new();
    bench.proxy.arm(Fault { at: 1, span: Span::Once, kind: FaultKind::CutBefore });
    assert_eq!(bench.answered(4), [true, false, true, true]);
    assert_eq!((bench.proxy.fired(), bench.proxy.codes().len()), (1, 3));
}

#[test]
fn continuous_goes_on_until_disarmed() {
    let bench = Bench::new();
    bench.proxy.arm(Fault { at: 1, span: Span::Continuous, kind: FaultKind::CutBefore });
    assert_eq!(bench.answered(4), [true, false, false, false]);
    bench.proxy.disarm();
    assert_eq!(bench.answered(2), [true, true]);
    assert_eq!((bench.proxy.fired(), bench.proxy.codes().len()), (3, 3));
}

#[test]
fn commands_count_from_the_arming() {
    let bench = Bench::new();
    bench.answered(2);
    bench.proxy.arm(Fault::once(2, FaultKind::CutBefore));
    assert_eq!(bench.answered(3), [true, true, false]);
}

#[test]
fn arming_again_replaces_the_fault_and_its_counts() {
    let bench = Bench::new();
    bench.proxy.arm(Fault::continuous(0, FaultKind::CutBefore));
    assert_eq!(bench.answered(2), [false, false]);
    bench.proxy.arm(Fault::once(1, FaultKind::CutAfter));
    assert_eq!(bench.proxy.fired(), 0);
    assert_eq!(bench.answered(3), [true, false, true]);
    assert_eq!(bench.proxy.fired(), 1);
}

#[test]
fn the_end_of_stream_closes_every_connection_until_disarmed() {
    let bench = Bench::new();
    bench.proxy.arm(Fault::once(1, FaultKind::EndOfStream));
    assert_eq!(bench.answered(1), [true]);
    for _ in 0..3 {
        // Nothing is sent: the proxy must close without waiting for a command.
        let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, bench.proxy.port())).unwrap();
        client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
    }
    assert_eq!((bench.proxy.fired(), bench.proxy.codes().len()), (3, 1));
    bench.proxy.disarm();
    assert_eq!(bench.answered(1), [true]);
}

#[test]
fn the_end_of_stream_takes_a_connection_already_open() {
    let bench = Bench::new();
    let mut client = TcpStream::connect((Ipv4Addr::LOCALHOST, bench.proxy.port())).unwrap();
    thread::sleep(Duration::from_millis(100)); // until the proxy waits for its command
    bench.proxy.arm(Fault::once(0, FaultKind::EndOfStream));
    client.write_all(&RANDOM).unwrap();
    assert_eq!(client.read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(bench.proxy.codes(), Vec::<u32>::new());
}

#[test]
fn a_hook_replaces_the_tpm_between_two_commands() {
    let state = TempDir::new().unwrap();
    let slot = Arc::new(Mutex::new(Some(Swtpm::start(state.path()).unwrap())));
    let proxy = Proxy::start(slot.lock().unwrap().as_ref().unwrap().port()).unwrap();
    let fresh = ask(proxy.port(), &READ).unwrap();
    ask(proxy.port(), &extend()).unwrap();
    assert_ne!(ask(proxy.port(), &READ).unwrap(), fresh);

    let (upstream, path, tpm) = (proxy.upstream(), state.path().to_owned(), Arc::clone(&slot));
    let restart = move || {
        let mut tpm = tpm.lock().unwrap();
        drop(tpm.take());
        upstream.set(tpm.insert(Swtpm::start(&path).unwrap()).port());
    };
    proxy.arm(Fault::once(1, FaultKind::Before(Arc::new(restart))));
    ask(proxy.port(), &extend()).unwrap();
    assert_eq!(ask(proxy.port(), &READ).unwrap(), fresh, "the restart has reset PCR 16");
    assert_eq!(ask(proxy.port(), &READ).unwrap(), fresh, "the TPM outlives the hook");
    assert_eq!((proxy.fired(), proxy.codes().len()), (1, 6));
}

#[test]
fn a_hook_may_use_the_proxys_record_and_counters() {
    let bench = Bench::new();
    let proxy = Arc::new(Proxy::start(bench.tpm.port()).unwrap());
    let (seen, inner) = (Arc::new(Mutex::new(None)), Arc::downgrade(&proxy));
    let hook = {
        let seen = Arc::clone(&seen);
        move || {
            let proxy = inner.upgrade().unwrap();
            *seen.lock().unwrap() = Some((proxy.fired(), proxy.codes()));
            proxy.disarm();
        }
    };
    proxy.arm(Fault::continuous(1, FaultKind::Before(Arc::new(hook))));
    for _ in 0..3 {
        ask(proxy.port(), &RANDOM).unwrap();
    }
    assert_eq!(*seen.lock().unwrap(), Some((1, vec![GET_RANDOM])));
    assert_eq!(proxy.fired(), 1);
}

#[test]
fn a_panic_in_a_hook_reaches_the_test() {
    let bench = Bench::new();
    bench.proxy.arm(Fault::once(0, FaultKind::Before(Arc::new(|| panic!("as the test wants")))));
    assert_eq!(bench.ask(&RANDOM), NO_REPLY);
    let cause = panic::catch_unwind(AssertUnwindSafe(|| drop(bench.proxy))).unwrap_err();
    assert_eq!(cause.downcast_ref(), Some(&"as the test wants"));
}

#[test]
fn a_restarted_tpm_is_found_by_its_new_port() {
    let state = TempDir::new().unwrap();
    let tpm = Swtpm::start(state.path()).unwrap();
    let proxy = Proxy::start(tpm.port()).unwrap();
    ask(proxy.port(), &RANDOM).unwrap();
    drop(tpm);
    assert_eq!(ask(proxy.port(), &RANDOM).unwrap(), NO_REPLY, "no TPM, no reply");
    let tpm = Swtpm::start(state.path()).unwrap();
    proxy.set_upstream(tpm.port());
    assert_eq!(ask(proxy.port(), &RANDOM).unwrap(), proxy.record()[1].response);
}

#[test]
fn clients_at_the_same_time_all_get_their_own_reply() {
    let bench = Bench::new();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..25 {
                    assert_eq!(bench.ask(&RANDOM).len(), 20);
                    assert_eq!(bench.ask(&READ).len(), 62);
                }
            });
        }
    });
    assert_eq!(bench.proxy.codes().len(), 200);
}

#[test]
fn control_messages_are_answered_and_never_forwarded() {
    let bench = Bench::new();
    bench.ask(&extend());
    let before = bench.pcr();
    let mut control = TcpStream::connect((Ipv4Addr::LOCALHOST, bench.proxy.port() + 1)).unwrap();
    // CMD_INIT, CMD_SET_LOCALITY, CMD_SHUTDOWN, CMD_GET_CAPABILITY
    control.write_all(&[0, 0, 0, 2, 0, 0, 0, 1]).unwrap();
    control.write_all(&[0, 0, 0, 5, 3, 0, 0, 0, 3, 0, 0, 0, 1]).unwrap();
    let mut answers = [1; 24];
    control.read_exact(&mut answers).unwrap();
    assert_eq!(answers, [0; 24]);
    assert_eq!(bench.pcr(), before, "CMD_INIT would have reset PCR 16");
}

#[test]
fn bytes_that_are_no_tpm_frame_close_the_connection() {
    let bench = Bench::new();
    for size in [[0, 0, 0, 9], [0, 0, 0x10, 1], [0xff; 4]] {
        let frame = [&[0x80, 1][..], &size, &[0, 0, 0x01, 0x7b]].concat();
        assert_eq!(bench.ask(&frame), NO_REPLY);
    }
    assert_eq!(bench.answered(1), [true]);
    assert_eq!(bench.proxy.codes(), [GET_RANDOM]);
}

#[test]
fn a_drop_frees_both_ports() {
    let bench = Bench::new();
    bench.answered(3);
    let port = bench.proxy.port();
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).map(drop).map_err(|e| e.kind());
    assert_eq!([bind(port), bind(port + 1)], [Err(ErrorKind::AddrInUse); 2]);
    drop(bench.proxy);
    assert_eq!([bind(port), bind(port + 1)], [Ok(()); 2]);
}

#[test]
fn a_drop_waits_neither_for_idle_clients_nor_for_a_delay() {
    let bench = Bench::new();
    let port = bench.proxy.port();
    let mut idle_control = TcpStream::connect((Ipv4Addr::LOCALHOST, port + 1)).unwrap();
    bench.proxy.arm(Fault::once(0, FaultKind::Delay(Duration::from_secs(600))));
    let delayed = thread::spawn(move || ask(port, &RANDOM));
    while bench.proxy.fired() == 0 {
        thread::yield_now();
    }
    let start = Instant::now();
    drop(bench.proxy);
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(delayed.join().unwrap().unwrap(), NO_REPLY);
    assert_eq!(idle_control.read(&mut [0]).unwrap(), 0);
}

#[test]
fn proxies_side_by_side_have_their_own_ports() {
    let proxies: Vec<_> = (0..20).map(|_| Proxy::start(1).unwrap()).collect();
    let mut ports: Vec<_> = proxies.iter().flat_map(|p| [p.port(), p.port() + 1]).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 40);
    assert!(ports.iter().all(|port| (20_000..=32_000).contains(port)));
}

#[test]
fn commands_have_the_names_of_the_specification() {
    let names = [0x176, 0x151, 0x14e, 0x15d, 0x120, 0x16b, 0].map(command_name);
    let expected = ["StartAuthSession", "PolicySecret", "NV_Read", "Sign", "EvictControl", "PolicyAuthValue"];
    assert_eq!(names[..6], expected);
    assert_eq!(names[6], "unknown");
}
