/// A report's length in bytes.
pub const PACKET: usize = 64;

/// What an initialization packet and a continuation packet carry (§11.2.4).
const FIRST: usize = PACKET - 7;
const NEXT: usize = PACKET - 5;

/// The longest message: one initialization packet and 128 continuation packets (§11.2.4).
pub const MAX_MESSAGE: usize = FIRST + 128 * NEXT;

/// The bit that tells a command from a sequence number.
const INITIALIZATION: u8 = 0x80;

/// A packet (§11.2.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet(pub [u8; PACKET]);

/// What a packet holds.
pub(super) enum Body<'p> {
    Initialization { command: u8, length: usize, data: &'p [u8] },
    Continuation { sequence: u8, data: &'p [u8] },
}

impl Packet {
    /// The channel and the body.
    pub(super) fn parse(&self) -> (u32, Body<'_>) {
        let [a, b, c, d, kind, rest @ ..] = &self.0;
        let channel = u32::from_be_bytes([*a, *b, *c, *d]);
        if kind & INITIALIZATION == 0 {
            return (channel, Body::Continuation { sequence: *kind, data: rest });
        }
        let [high, low, data @ ..] = rest;
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        (channel, Body::Initialization { command: kind & !INITIALIZATION, length, data })
    }

    /// Header and data, filled up with zeros.
    fn new(header: &[u8], data: &[u8]) -> Self {
        let mut packet = [0; PACKET];
        for (to, from) in packet.iter_mut().zip(header.iter().chain(data)) {
            *to = *from;
        }
        Self(packet)
    }
}

/// A message as packets. What is longer than [`MAX_MESSAGE`] is cut off, and no reply of ours is.
pub(super) fn packets(channel: u32, command: u8, data: &[u8]) -> impl Iterator<Item = Packet> + use<'_> {
    let [a, b, c, d] = channel.to_be_bytes();
    let data = data.get(..MAX_MESSAGE).unwrap_or(data);
    let [high, low] = u16::try_from(data.len()).unwrap_or(u16::MAX).to_be_bytes();
    let (first, rest) = data.split_at(data.len().min(FIRST));
    let first = Packet::new(&[a, b, c, d, command | INITIALIZATION, high, low], first);
    let next = (0_u8..).zip(rest.chunks(NEXT)).map(move |(n, data)| Packet::new(&[a, b, c, d, n], data));
    std::iter::once(first).chain(next)
}
