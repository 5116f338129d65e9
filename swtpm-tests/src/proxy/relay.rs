//! The proxy's side of the wire: what its threads do with a connection.

use std::{
    io::{self, ErrorKind, Read, Write},
    net::{Ipv4Addr, TcpStream},
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::{
    Exchange, FaultKind, Upstream,
    exchange::{frame_size, refusal},
    fault::Armed,
};

/// How soon a thread that waits for bytes notices that the proxy stops.
const POLL: Duration = Duration::from_millis(20);

/// What the proxy and its threads share.
pub(super) struct Shared {
    pub(super) upstream: Upstream,
    state: Mutex<State>,
    stopped: Condvar,
}

#[derive(Default)]
pub(super) struct State {
    pub(super) armed: Armed,
    pub(super) record: Vec<Exchange>,
    pub(super) busy: Duration,
    pub(super) stopping: bool,
}

impl Shared {
    pub(super) fn new(upstream: Upstream) -> Self {
        Self { upstream, state: Mutex::default(), stopped: Condvar::new() }
    }

    /// To be held for moments only, never while a hook runs or a socket waits.
    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends every wait of the threads but the one for a connection.
    pub(super) fn stop(&self) {
        self.state().stopping = true;
        self.stopped.notify_all();
    }

    /// Serves one connection of the command port.
    pub(super) fn relay(&self, client: TcpStream) -> io::Result<()> {
        if self.state().armed.closes_connection() {
            return Ok(());
        }
        let mut client = Link::new(client, self)?;
        let command = client.read_frame()?;
        let started = Instant::now();
        let reply = self.answer(command)?;
        // Before the client can go on.
        self.state().busy += started.elapsed();
        client.stream.write_all(&reply)
    }

    /// Serves one connection of the control port (swtpm's `tpm_ioctl.h`). Nothing is forwarded:
    /// a client must not reset or stop the TPM under the test.
    pub(super) fn control(&self, client: TcpStream) -> io::Result<()> {
        let mut client = Link::new(client, self)?;
        loop {
            let mut message = [0; 4];
            client.read_exact(&mut message)?;
            let (payload, answer) = match u32::from_be_bytes(message) {
                1 => (0, 12), // CMD_GET_CAPABILITY
                2 => (4, 4),  // CMD_INIT
                5 => (1, 4),  // CMD_SET_LOCALITY
                _ => (0, 4),
            };
            client.read_exact(&mut vec![0; payload])?;
            client.stream.write_all(&vec![0; answer])?;
        }
    }

    /// The bytes to send before the connection closes.
    fn answer(&self, command: Vec<u8>) -> io::Result<Vec<u8>> {
        let fault = self.state().armed.next_command();
        match fault {
            None => self.execute(command),
            Some(FaultKind::Refuse(code)) => Ok(refusal(code)),
            Some(FaultKind::LoseReply(code)) => self.execute(command).map(|_| refusal(code)),
            Some(FaultKind::CutBefore | FaultKind::EndOfStream) => Ok(Vec::new()),
            Some(FaultKind::CutAfter) => self.execute(command).map(|_| Vec::new()),
            Some(FaultKind::Truncate(len)) => self.execute(command).map(|reply| truncate(reply, len)),
            Some(FaultKind::FlipBit(index)) => self.execute(command).map(|reply| flip_bit(reply, index)),
            Some(FaultKind::Delay(time)) => {
                self.pause(time)?;
                self.execute(command)
            }
            Some(FaultKind::Rewrite(rewrite)) => {
                self.execute(command.clone()).map(|reply| rewrite(&command, reply))
            }
            Some(FaultKind::Before(hook)) => {
                hook();
                self.execute(command)
            }
        }
    }

    fn execute(&self, command: Vec<u8>) -> io::Result<Vec<u8>> {
        let mut tpm = Link::new(TcpStream::connect((Ipv4Addr::LOCALHOST, self.upstream.port()))?, self)?;
        tpm.stream.write_all(&command)?;
        let response = tpm.read_frame()?;
        self.state().record.push(Exchange { command, response: response.clone() });
        Ok(response)
    }

    fn pause(&self, time: Duration) -> io::Result<()> {
        let wait = self.stopped.wait_timeout_while(self.state(), time, |state| !state.stopping);
        let (state, _) = wait.unwrap_or_else(PoisonError::into_inner);
        if state.stopping { Err(ErrorKind::ConnectionAborted.into()) } else { Ok(()) }
    }
}

/// A connection whose reads end when the proxy stops.
struct Link<'a> {
    stream: TcpStream,
    shared: &'a Shared,
}

impl<'a> Link<'a> {
    fn new(stream: TcpStream, shared: &'a Shared) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(POLL))?;
        Ok(Self { stream, shared })
    }

    fn read_frame(&mut self) -> io::Result<Vec<u8>> {
        let mut header = [0; 10];
        self.read_exact(&mut header)?;
        let size = frame_size(header).ok_or(ErrorKind::InvalidData)?;
        let mut frame = header.to_vec();
        frame.resize(size, 0);
        self.read_exact(frame.split_at_mut(header.len()).1)?;
        Ok(frame)
    }
}

impl Read for Link<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buf) {
                Err(e) if e.kind() == ErrorKind::WouldBlock && !self.shared.state().stopping => {}
                done => return done,
            }
        }
    }
}

fn truncate(mut reply: Vec<u8>, len: usize) -> Vec<u8> {
    reply.truncate(len);
    reply
}

fn flip_bit(mut reply: Vec<u8>, index: usize) -> Vec<u8> {
    let index = index % (reply.len() * 8);
    if let Some(byte) = reply.get_mut(index / 8) {
        *byte ^= 1 << (index % 8);
    }
    reply
}
