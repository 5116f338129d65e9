//! CTAPHID (CTAP 2.2 §11.2): 64-byte packets to messages and back.
//!
//! [`Hid`] holds one transaction at a time, as §11.2.5.1 asks. It is given packets, the time and replies, and says what to do
//! in [`Output`]s.

mod packet;

pub use packet::{MAX_MESSAGE, PACKET, Packet};

use std::{collections::VecDeque, time::Duration};

use packet::{Body, packets};

/// §11.2.4: for allocating channels.
const BROADCAST: u32 = 0xffff_ffff;

/// How long the rest of a message may take (§11.2.5.2 leaves it to the device; half a second is what devices do).
const PACKET_TIMEOUT: Duration = Duration::from_millis(500);

/// §11.2.9.1.5: at least every 100 ms.
const KEEPALIVE: Duration = Duration::from_millis(80);

/// §11.2.9.1.3: the version of CTAPHID, and what this device can: WINK, CBOR, no CTAP1.
const VERSION: u8 = 2;
const CAPABILITIES: u8 = 0x01 | 0x04 | 0x08;

/// Commands (§11.2.9).
const PING: u8 = 0x01;
const INIT: u8 = 0x06;
const WINK: u8 = 0x08;
const CBOR: u8 = 0x10;
const CANCEL: u8 = 0x11;
const KEEPALIVE_COMMAND: u8 = 0x3b;
const ERROR: u8 = 0x3f;

/// What an ERROR says (§11.2.9.1.6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
enum HidError {
    InvalidCommand = 0x01,
    InvalidLength = 0x03,
    InvalidSequence = 0x04,
    MessageTimeout = 0x05,
    ChannelBusy = 0x06,
    InvalidChannel = 0x0b,
}

/// What a KEEPALIVE says (§11.2.9.1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Waiting {
    /// The authenticator works.
    Processing = 1,
    /// A person is being asked.
    UserPresence = 2,
}

/// Which request a reply is to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transaction(u64);

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this packet.
    Send(Packet),
    /// Answer this CBOR message.
    Request(Transaction, Vec<u8>),
    /// Nobody waits for the answer to that request any more; it is to end soon.
    Cancel(Transaction),
    /// Draw the person's attention to this device.
    Wink,
}

/// A CTAPHID device.
#[derive(Debug, Default)]
pub struct Hid {
    last_channel: u32,
    last_transaction: u64,
    state: State,
    outputs: VecDeque<Output>,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Idle,
    /// The rest of a message is to come.
    Receiving { channel: u32, command: u8, length: usize, data: Vec<u8>, sequence: u8, until: Duration },
    /// A request is being answered.
    Answering { channel: u32, transaction: Transaction, waiting: Waiting, keepalive: Duration },
}

impl Hid {
    /// The next thing to do.
    pub fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Hid::tick`] has something to do.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        match self.state {
            State::Idle => None,
            State::Receiving { until, .. } => Some(until),
            State::Answering { keepalive, .. } => Some(keepalive),
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Duration) {
        match &mut self.state {
            State::Receiving { channel, until, .. } if *until <= now => {
                let channel = *channel;
                self.state = State::Idle;
                self.error(channel, HidError::MessageTimeout);
            }
            State::Answering { channel, waiting, keepalive, .. } if *keepalive <= now => {
                let (channel, waiting) = (*channel, *waiting);
                *keepalive = now + KEEPALIVE;
                self.send(channel, KEEPALIVE_COMMAND, &[code(waiting)]);
            }
            _ => {}
        }
    }

    /// What the answering waits for has changed.
    pub fn waits_for(&mut self, transaction: Transaction, for_what: Waiting, now: Duration) {
        if let State::Answering { channel, transaction: current, waiting, keepalive } = &mut self.state
            && *current == transaction
        {
            let channel = *channel;
            *waiting = for_what;
            *keepalive = now + KEEPALIVE;
            self.send(channel, KEEPALIVE_COMMAND, &[code(for_what)]);
        }
    }

    /// Sends the answer to a request. One that nobody waits for any more is dropped.
    pub fn reply(&mut self, transaction: Transaction, message: &[u8]) {
        if let State::Answering { channel, transaction: current, .. } = self.state
            && current == transaction
        {
            self.state = State::Idle;
            self.send(channel, CBOR, message);
        }
    }

    /// A packet has come.
    pub fn receive(&mut self, packet: &Packet, now: Duration) {
        let (channel, body) = packet.parse();
        match body {
            Body::Initialization { command, length, data } => {
                self.initialization(channel, command, length, data, now);
            }
            Body::Continuation { sequence, data } => self.continuation(channel, sequence, data, now),
        }
    }

    fn initialization(&mut self, channel: u32, command: u8, length: usize, data: &[u8], now: Duration) {
        if command == INIT {
            return self.init(channel, length, data);
        }
        if channel == 0 || channel > self.last_channel {
            return self.error(channel, HidError::InvalidChannel);
        }
        match &self.state {
            State::Answering { channel: current, transaction, .. } if command == CANCEL => {
                // §11.2.9.1.5: it has no reply of its own, and elsewhere than in its own request no meaning.
                if *current == channel {
                    self.outputs.push_back(Output::Cancel(*transaction));
                }
                return;
            }
            State::Receiving { channel: current, .. } if *current == channel => {
                self.state = State::Idle;
                return self.error(channel, HidError::InvalidSequence);
            }
            State::Receiving { .. } | State::Answering { .. } => {
                return self.error(channel, HidError::ChannelBusy);
            }
            State::Idle if command == CANCEL => return,
            State::Idle => {}
        }
        if length > MAX_MESSAGE {
            return self.error(channel, HidError::InvalidLength);
        }
        let data = data.get(..length).unwrap_or(data).to_vec();
        let until = now + PACKET_TIMEOUT;
        self.state = State::Receiving { channel, command, length, data, sequence: 0, until };
        self.complete(now);
    }

    fn continuation(&mut self, channel: u32, sequence: u8, payload: &[u8], now: Duration) {
        // §11.2.5.4: one that nothing begins is ignored.
        let State::Receiving { channel: current, length, data, sequence: expected, until, .. } =
            &mut self.state
        else {
            return;
        };
        if *current != channel {
            return;
        }
        if *expected != sequence {
            self.state = State::Idle;
            return self.error(channel, HidError::InvalidSequence);
        }
        *expected += 1;
        *until = now + PACKET_TIMEOUT;
        let missing = *length - data.len();
        data.extend(payload.get(..missing).unwrap_or(payload));
        self.complete(now);
    }

    /// Acts on a message that is all there.
    fn complete(&mut self, now: Duration) {
        match std::mem::take(&mut self.state) {
            State::Receiving { channel, command, length, data, .. } if data.len() == length => {
                self.message(channel, command, data, now);
            }
            state => self.state = state,
        }
    }

    fn message(&mut self, channel: u32, command: u8, data: Vec<u8>, now: Duration) {
        match command {
            PING => self.send(channel, PING, &data),
            WINK if data.is_empty() => {
                self.outputs.push_back(Output::Wink);
                self.send(channel, WINK, &[]);
            }
            CBOR if !data.is_empty() => {
                self.last_transaction += 1;
                let transaction = Transaction(self.last_transaction);
                let keepalive = now + KEEPALIVE;
                self.state =
                    State::Answering { channel, transaction, waiting: Waiting::Processing, keepalive };
                self.outputs.push_back(Output::Request(transaction, data));
            }
            WINK | CBOR => self.error(channel, HidError::InvalidLength),
            // CTAP1 (0x03) too, which the capabilities say.
            _ => self.error(channel, HidError::InvalidCommand),
        }
    }

    /// §11.2.9.1.3. On the broadcast channel it allocates one and disturbs nobody; elsewhere it ends what goes on there.
    fn init(&mut self, channel: u32, length: usize, data: &[u8]) {
        let Some(nonce) = data.get(..8).filter(|_| length == 8) else {
            return self.error(channel, HidError::InvalidLength);
        };
        let given = if channel == BROADCAST {
            let Some(next) = self.last_channel.checked_add(1).filter(|next| *next != BROADCAST) else {
                return self.error(channel, HidError::ChannelBusy);
            };
            self.last_channel = next;
            next
        } else if channel == 0 || channel > self.last_channel {
            return self.error(channel, HidError::InvalidChannel);
        } else {
            match self.state {
                State::Receiving { channel: current, .. } if current == channel => self.state = State::Idle,
                State::Answering { channel: current, transaction, .. } if current == channel => {
                    self.outputs.push_back(Output::Cancel(transaction));
                    self.state = State::Idle;
                }
                _ => {}
            }
            channel
        };
        let version = [VERSION, 0, 1, 0, CAPABILITIES];
        self.send(channel, INIT, &[nonce, &given.to_be_bytes(), &version].concat());
    }

    fn error(&mut self, channel: u32, error: HidError) {
        #[expect(clippy::as_conversions, reason = "a field-less enum of one byte")]
        self.send(channel, ERROR, &[error as u8]);
    }

    fn send(&mut self, channel: u32, command: u8, data: &[u8]) {
        self.outputs.extend(packets(channel, command, data).map(Output::Send));
    }
}

#[expect(clippy::as_conversions, reason = "a field-less enum of one byte")]
fn code(waiting: Waiting) -> u8 {
    waiting as u8
}
