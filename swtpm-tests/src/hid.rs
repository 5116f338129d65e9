//! A CTAPHID client of the tests' own, which shares no code with the device.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a device that breaks the framing fails the test"
)]

use std::{
    io,
    path::Path,
    time::{Duration, Instant},
};

use ciborium::Value;
use rustix::{
    fd::OwnedFd,
    io::retry_on_intr,
    net::{
        AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketType, connect, recv, send, socket,
        sockopt::{Timeout, set_socket_timeout},
    },
};

/// A device that has not answered by then never will. Prompts give up after a minute.
const PATIENCE: Duration = Duration::from_secs(100);

/// One client with a channel.
#[derive(Debug)]
pub struct HidClient {
    socket: OwnedFd,
    channel: [u8; 4],
}

impl HidClient {
    /// Connects and has a channel allocated.
    ///
    /// # Panics
    /// If the device does not allow it.
    #[must_use]
    pub fn connect(path: &Path) -> Self {
        let socket = open(path).expect("the daemon listens");
        let mut client = Self { socket, channel: [0xff; 4] };
        let (command, answer) = client.call(0x06, b"a nonce!");
        assert_eq!((command, answer.len(), &answer[..8]), (0x06, 17, &b"a nonce!"[..]));
        client.channel.copy_from_slice(&answer[8..12]);
        client
    }

    /// Whether a device is there.
    #[must_use]
    pub fn answers(path: &Path) -> bool {
        open(path).is_ok()
    }

    /// Sends one message and returns the command and data of its answer; keepalives are skipped.
    ///
    /// # Panics
    /// If there is no answer, or it is no message.
    #[must_use]
    pub fn call(&self, command: u8, data: &[u8]) -> (u8, Vec<u8>) {
        self.try_call(command, data).expect("the daemon answers")
    }

    /// The same of a device that may end meanwhile.
    ///
    /// # Panics
    /// If the answer is no message.
    pub fn try_call(&self, command: u8, data: &[u8]) -> io::Result<(u8, Vec<u8>)> {
        self.try_send(command, data)?;
        let sent = Instant::now();
        while sent.elapsed() < PATIENCE {
            let (command, data) = self.try_receive()?;
            if command != 0x3b {
                return Ok((command, data));
            }
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    /// Sends a CTAP command with its parameters and returns the status and what came with it.
    ///
    /// # Panics
    /// If the answer is none.
    #[must_use]
    pub fn ctap(&self, command: u8, parameters: &Value) -> (u8, Value) {
        let mut request = vec![command];
        ciborium::into_writer(parameters, &mut request).expect("to memory");
        let (kind, answer) = self.call(0x10, &request);
        assert_eq!(kind, 0x10, "{answer:02x?}");
        let value =
            if answer.len() > 1 { ciborium::from_reader(&answer[1..]).expect("CBOR") } else { Value::Null };
        (answer[0], value)
    }

    /// Sends one message.
    ///
    /// # Panics
    /// If the device is gone.
    pub fn send(&self, command: u8, data: &[u8]) {
        self.try_send(command, data).expect("the daemon reads");
    }

    fn try_send(&self, command: u8, data: &[u8]) -> io::Result<()> {
        let (first, rest) = data.split_at(data.len().min(57));
        let length = u16::try_from(data.len()).expect("a message").to_be_bytes();
        self.try_packet(&[&self.channel[..], &[command | 0x80], &length, first].concat())?;
        for (n, part) in (0_u8..).zip(rest.chunks(59)) {
            self.try_packet(&[&self.channel[..], &[n], part].concat())?;
        }
        Ok(())
    }

    /// Sends one packet, filled up with zeros.
    ///
    /// # Panics
    /// If the device is gone.
    pub fn packet(&self, bytes: &[u8]) {
        self.try_packet(bytes).expect("the daemon reads");
    }

    fn try_packet(&self, bytes: &[u8]) -> io::Result<()> {
        let mut packet = bytes.to_vec();
        packet.resize(64, 0);
        send(&self.socket, &packet, SendFlags::NOSIGNAL)?;
        Ok(())
    }

    /// The next message on this channel.
    ///
    /// # Panics
    /// If it is none, or the device is gone.
    #[must_use]
    pub fn receive(&self) -> (u8, Vec<u8>) {
        self.try_receive().expect("the daemon answers")
    }

    fn try_receive(&self) -> io::Result<(u8, Vec<u8>)> {
        let first = self.next_packet()?;
        let length = usize::from(u16::from_be_bytes([first[5], first[6]]));
        let mut data = first[7..].to_vec();
        let mut sequence = 0;
        while data.len() < length {
            let packet = self.next_packet()?;
            assert_eq!(packet[4], sequence, "packets come in order");
            sequence += 1;
            data.extend(&packet[5..]);
        }
        data.truncate(length);
        Ok((first[4] & 0x7f, data))
    }

    fn next_packet(&self) -> io::Result<[u8; 64]> {
        loop {
            let mut packet = [0; 64];
            // A machine that was stopped and goes on interrupts a wait that has a limit (signal(7)).
            let (read, _) = retry_on_intr(|| recv(&self.socket, &mut packet[..], RecvFlags::empty()))?;
            if read != 64 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            if packet[..4] == self.channel {
                return Ok(packet);
            }
        }
    }
}

fn open(path: &Path) -> io::Result<OwnedFd> {
    let socket = socket(AddressFamily::UNIX, SocketType::SEQPACKET, None)?;
    set_socket_timeout(&socket, Timeout::Recv, Some(PATIENCE))?;
    connect(&socket, &SocketAddrUnix::new(path)?)?;
    Ok(socket)
}
