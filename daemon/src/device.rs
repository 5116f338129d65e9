//! The thread that speaks CTAPHID.

use std::{
    io::{self, Read},
    os::unix::net::UnixStream,
    sync::mpsc::TryRecvError,
    thread,
    time::Duration,
};

use ctap::{
    Status,
    hid::{Hid, Output, Transaction},
};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use signal_hook::consts::{SIGINT, SIGTERM, SIGUSR1};

use crate::{
    failure::{Failure, Result},
    transport::Transport,
    worker::{Signal, Told, Worker},
};

/// How many packets are taken before what they lead to is done.
const PACKETS: usize = 64;

/// What ends a device.
pub(crate) enum End<'a> {
    /// There is something to read.
    Readable(&'a UnixStream),
    /// Its other end is closed.
    HungUp(&'a UnixStream),
}

impl End<'_> {
    fn fd(&self) -> PollFd<'_> {
        match self {
            Self::Readable(stream) => PollFd::new(stream, PollFlags::IN),
            Self::HungUp(stream) => PollFd::new(stream, PollFlags::RDHUP),
        }
    }
}

/// Serves until the transport ends, or one of `ends` does.
pub(crate) fn run(mut transport: Transport, worker: &Worker, ends: &[End<'_>]) -> Result<()> {
    let mut hid = Hid::default();
    let mut current: Option<(Transaction, Signal)> = None;
    // A request whose channel was initialized anew meanwhile is answered to nobody, and the next one waits for its end: one
    // at a time, and one in waiting.
    let mut waiting: Option<(Transaction, Vec<u8>)> = None;
    while wait(&transport, worker, ends, &hid)? {
        let now = worker.started.elapsed();
        for _ in 0..PACKETS {
            let Some(packet) = transport.receive().map_err(Failure::Device)? else { break };
            hid.receive(&packet, now);
        }
        worker.news.lower();
        loop {
            match worker.told.try_recv() {
                Ok(Told::Reply(transaction, message)) => {
                    hid.reply(transaction, &message);
                    current = None;
                    if let Some((transaction, request)) = waiting.take() {
                        current = Some((transaction, worker.answer(transaction, request)?));
                    }
                }
                Ok(Told::Waits(transaction, what)) => hid.waits_for(transaction, what, now),
                Err(TryRecvError::Empty) => break,
                // It died; nobody is to wait for it for ever.
                Err(TryRecvError::Disconnected) => {
                    return Err(Failure::Device(io::ErrorKind::BrokenPipe.into()));
                }
            }
        }
        hid.tick(now);
        while let Some(output) = hid.poll() {
            match output {
                Output::Send(packet) => transport.send(&packet).map_err(Failure::Device)?,
                Output::Request(transaction, request) if current.is_some() => {
                    waiting = Some((transaction, request));
                }
                Output::Request(transaction, request) => {
                    current = Some((transaction, worker.answer(transaction, request)?));
                }
                Output::Cancel(transaction) => {
                    if waiting.take_if(|(waits, _)| *waits == transaction).is_some() {
                        hid.reply(transaction, &[Status::KeepaliveCancel.code()]);
                    }
                    if let Some((_, cancelled)) = current.as_ref().filter(|(t, _)| *t == transaction) {
                        cancelled.raise();
                    }
                }
                Output::Wink => worker.wink(),
            }
        }
    }
    if let Some((_, cancelled)) = current {
        // A prompt ends with us.
        cancelled.raise();
    }
    Ok(())
}

/// Readable once SIGTERM or SIGINT has come.
pub(crate) fn stop_signals() -> Result<UnixStream> {
    let register = || {
        let (stop, raised) = UnixStream::pair()?;
        for signal in [SIGTERM, SIGINT] {
            signal_hook::low_level::pipe::register(signal, raised.try_clone()?)?;
        }
        Ok(stop)
    };
    register().map_err(Failure::Device)
}

/// Does this whenever SIGUSR1 comes, on a thread of its own.
pub(crate) fn at_lock_signal(lock: impl Fn() + Send + 'static) -> Result<()> {
    let (mut woken, raised) = UnixStream::pair().map_err(Failure::Device)?;
    signal_hook::low_level::pipe::register(SIGUSR1, raised).map_err(Failure::Device)?;
    let wait = move || {
        while let Ok(1..) = woken.read(&mut [0; 64]) {
            lock();
        }
    };
    thread::Builder::new().name("lock".to_owned()).spawn(wait).map(drop).map_err(Failure::Thread)
}

/// Until there is something to do; false if that is to stop. An idle daemon sleeps.
fn wait(transport: &Transport, worker: &Worker, ends: &[End<'_>], hid: &Hid) -> Result<bool> {
    let left = hid.deadline().map(|at| at.saturating_sub(worker.started.elapsed()));
    // Rounded up, or it would wake too early and find nothing to do.
    let timeout = left.and_then(|left| Timespec::try_from(left + Duration::from_millis(1)).ok());
    let mut fds: Vec<_> = ends.iter().map(End::fd).collect();
    fds.push(PollFd::new(&worker.news, PollFlags::IN));
    fds.extend(transport.fds());
    match poll(&mut fds, timeout.as_ref()) {
        Ok(_) | Err(Errno::INTR) => Ok(fds.iter().take(ends.len()).all(|end| end.revents().is_empty())),
        Err(e) => Err(Failure::Device(e.into())),
    }
}
