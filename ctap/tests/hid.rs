//! CTAPHID against a model of it that was written from the specification's text (CTAP 2.2 §11.2) and shares no code with the
//! device: a million random packets over 16 channels, with replies, keepalives and time in between.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::pedantic
)]

use std::{collections::VecDeque, time::Duration};

use ctap::hid::{Hid, Output, Packet, Transaction, Waiting};

const PACKETS: usize = 1_000_000;
const BROADCAST: u32 = u32::MAX;
const CHANNELS: u32 = 16;

/// Numbers that look random and are the same in each run (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }
}

/// What can be observed, whole messages for packets.
#[derive(Clone, Debug, PartialEq)]
enum Event {
    Sent { channel: u32, command: u8, data: Vec<u8> },
    Request(Vec<u8>),
    Cancel,
    Wink,
}

use Event::{Cancel, Request, Sent, Wink};

/// What the platform is owed. The packets of an unfinished message are kept as they came, and read anew each time.
#[derive(Default)]
struct Model {
    given: u32,
    unfinished: Vec<[u8; 64]>,
    until: Duration,
    /// The channel whose request is being answered, what it waits for and when it has to hear of that.
    answering: Option<(u32, u8, Duration)>,
}

fn channel_of(packet: &[u8; 64]) -> u32 {
    u32::from_be_bytes([packet[0], packet[1], packet[2], packet[3]])
}

fn error(channel: u32, code: u8) -> Vec<Event> {
    vec![Sent { channel, command: 0x3f, data: vec![code] }]
}

impl Model {
    fn packet(&mut self, packet: &[u8; 64], now: Duration) -> Vec<Event> {
        let channel = channel_of(packet);
        let talker = self.unfinished.first().map(channel_of);
        if packet[4] & 0x80 == 0 {
            if talker != Some(channel) {
                return vec![];
            }
            if usize::from(packet[4]) != self.unfinished.len() - 1 {
                self.unfinished.clear();
                return error(channel, 4);
            }
            self.unfinished.push(*packet);
            return self.whole(now);
        }
        let (command, length) = (packet[4] & 0x7f, usize::from(packet[5]) << 8 | usize::from(packet[6]));
        let allocated = (1..=self.given).contains(&channel);
        if command == 6 {
            return match (length, channel) {
                (8, BROADCAST) => {
                    self.given += 1;
                    self.welcome(channel, self.given, packet)
                }
                (8, _) if allocated => {
                    let mut events = vec![];
                    if talker == Some(channel) {
                        self.unfinished.clear();
                    }
                    if self.answering.take_if(|(answered, ..)| *answered == channel).is_some() {
                        events.push(Cancel);
                    }
                    events.extend(self.welcome(channel, channel, packet));
                    events
                }
                (8, _) => error(channel, 0x0b),
                _ => error(channel, 3),
            };
        }
        if !allocated {
            return error(channel, 0x0b);
        }
        if let Some((answered, ..)) = self.answering {
            return match (command, answered == channel) {
                (0x11, true) => vec![Cancel],
                (0x11, false) => vec![],
                _ => error(channel, 6),
            };
        }
        if let Some(talker) = talker {
            if talker == channel {
                self.unfinished.clear();
                return error(channel, 4);
            }
            return error(channel, 6);
        }
        match command {
            0x11 => vec![],
            _ if length > 7609 => error(channel, 3),
            _ => {
                self.unfinished.push(*packet);
                self.whole(now)
            }
        }
    }

    fn welcome(&self, on: u32, given: u32, packet: &[u8; 64]) -> Vec<Event> {
        let mut data = packet[7..15].to_vec();
        data.extend(given.to_be_bytes());
        data.extend([2, 0, 1, 0, 0x0d]);
        vec![Sent { channel: on, command: 6, data }]
    }

    /// Acts if the message is all there.
    fn whole(&mut self, now: Duration) -> Vec<Event> {
        self.until = now + Duration::from_millis(500);
        let first = self.unfinished[0];
        let (channel, command) = (channel_of(&first), first[4] & 0x7f);
        let length = usize::from(first[5]) << 8 | usize::from(first[6]);
        let mut data = first[7..].to_vec();
        for packet in &self.unfinished[1..] {
            data.extend(&packet[5..]);
        }
        if data.len() < length {
            return vec![];
        }
        data.truncate(length);
        self.unfinished.clear();
        match command {
            1 => vec![Sent { channel, command, data }],
            8 if length == 0 => vec![Wink, Sent { channel, command, data }],
            0x10 if length > 0 => {
                self.answering = Some((channel, 1, now + Duration::from_millis(80)));
                vec![Request(data)]
            }
            8 | 0x10 => error(channel, 3),
            _ => error(channel, 1),
        }
    }

    fn tick(&mut self, now: Duration) -> Vec<Event> {
        if !self.unfinished.is_empty() && self.until <= now {
            let channel = channel_of(&self.unfinished[0]);
            self.unfinished.clear();
            return error(channel, 5);
        }
        match &mut self.answering {
            Some((channel, waiting, due)) if *due <= now => {
                *due = now + Duration::from_millis(80);
                vec![Sent { channel: *channel, command: 0x3b, data: vec![*waiting] }]
            }
            _ => vec![],
        }
    }

    fn deadline(&self) -> Option<Duration> {
        let until = (!self.unfinished.is_empty()).then_some(self.until);
        until.or(self.answering.map(|(_, _, due)| due))
    }
}

/// The device, with its packets put together again.
#[derive(Default)]
struct Device {
    hid: Hid,
    transactions: Vec<Transaction>,
}

impl Device {
    fn events(&mut self) -> Vec<Event> {
        let mut events = vec![];
        let mut outputs = VecDeque::new();
        while let Some(output) = self.hid.poll() {
            outputs.push_back(output);
        }
        while let Some(output) = outputs.pop_front() {
            events.push(match output {
                Output::Request(transaction, data) => {
                    self.transactions.push(transaction);
                    Request(data)
                }
                Output::Cancel(transaction) => {
                    assert_eq!(Some(&transaction), self.transactions.last());
                    Cancel
                }
                Output::Wink => Wink,
                Output::Send(Packet(first)) => {
                    let length = usize::from(first[5]) << 8 | usize::from(first[6]);
                    let mut data = first[7..].to_vec();
                    let mut sequence = 0;
                    while data.len() < length {
                        let Some(Output::Send(Packet(next))) = outputs.pop_front() else {
                            panic!("cut short")
                        };
                        assert_eq!((&next[..4], next[4]), (&first[..4], sequence));
                        sequence += 1;
                        data.extend(&next[5..]);
                    }
                    assert!(data[length..].iter().all(|fill| *fill == 0), "filled with zeros");
                    data.truncate(length);
                    Sent { channel: channel_of(&first), command: first[4] & 0x7f, data }
                }
            });
        }
        events
    }
}

/// A packet that has a point: mostly of the channel and in the order that go on.
fn packet(random: &mut Random, model: &Model) -> [u8; 64] {
    let mut packet = [0; 64];
    packet.iter_mut().for_each(|byte| *byte = random.next() as u8);
    let talker = model.unfinished.first().map(channel_of).or(model.answering.map(|(channel, ..)| channel));
    let channel = match random.below(20) {
        0 => random.next() as u32,
        1 => BROADCAST,
        2 => 0,
        3 => model.given + 1,
        4..8 => 1 + random.below(u64::from(CHANNELS)) as u32,
        _ => talker.unwrap_or(1 + random.below(u64::from(CHANNELS)) as u32),
    };
    packet[..4].copy_from_slice(&channel.to_be_bytes());
    let expected = model.unfinished.len().saturating_sub(1) as u8;
    if !model.unfinished.is_empty() && random.below(8) > 0 {
        packet[4] = if random.below(60) == 0 { random.next() as u8 & 0x7f } else { expected };
        return packet;
    }
    packet[4] = 0x80
        | match random.below(10) {
            0 => random.next() as u8,
            1 | 2 => 6,
            3 => 8,
            4 => 0x11,
            5 | 6 => 1,
            7 => 3,
            _ => 0x10,
        };
    let length = match random.below(10) {
        0 => random.next() as u16,
        1 => 7609,
        2 => 7610,
        3 | 4 => 0,
        5 | 6 => 8,
        7 => 57 + random.below(3) as u16,
        _ => random.below(400) as u16,
    };
    packet[5..7].copy_from_slice(&length.to_be_bytes());
    packet
}

#[test]
fn a_million_packets_are_answered_as_the_model_says() {
    let (mut random, mut model, mut device) = (Random(1), Model::default(), Device::default());
    let mut now = Duration::ZERO;
    let (mut requests, mut errors, mut cancels) = (0, 0, 0);
    for n in 0..PACKETS {
        let mut expected = vec![];
        if model.given < CHANNELS {
            let mut init = [0; 64];
            init[..7].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0x86, 0, 8]);
            expected.extend(model.packet(&init, now));
            device.hid.receive(&Packet(init), now);
        }
        let packet = packet(&mut random, &model);
        expected.extend(model.packet(&packet, now));
        device.hid.receive(&Packet(packet), now);
        match random.below(12) {
            0 => now += Duration::from_millis(random.below(600)),
            1 => now += Duration::from_millis(random.below(90)),
            2 | 3 => {
                // An answer, perhaps to a request that nobody waits for any more.
                let late = random.below(4) == 0;
                let known = device.transactions.len();
                let behind = if late { 1 + random.below(3) as usize } else { 1 };
                let before = device.events();
                assert_eq!(before, expected, "packet {n}");
                count(&before, &mut requests, &mut errors, &mut cancels);
                expected.clear();
                if let Some(transaction) =
                    known.checked_sub(behind).and_then(|at| device.transactions.get(at))
                {
                    let message = vec![n as u8; random.below(7610) as usize];
                    let current = device.transactions.last() == Some(transaction);
                    if let Some((channel, ..)) = model.answering.take_if(|_| current) {
                        expected.push(Sent { channel, command: 0x10, data: message.clone() });
                    }
                    device.hid.reply(*transaction, &message);
                }
            }
            4 => {
                let before = device.events();
                assert_eq!(before, expected, "packet {n}");
                count(&before, &mut requests, &mut errors, &mut cancels);
                expected.clear();
                if let Some(transaction) = device.transactions.last() {
                    if let Some((channel, waiting, due)) = &mut model.answering {
                        (*waiting, *due) = (2, now + Duration::from_millis(80));
                        expected.push(Sent { channel: *channel, command: 0x3b, data: vec![2] });
                    }
                    device.hid.waits_for(*transaction, Waiting::UserPresence, now);
                }
            }
            _ => {}
        }
        assert_eq!(device.hid.deadline(), model.deadline(), "packet {n}");
        expected.extend(model.tick(now));
        device.hid.tick(now);
        let events = device.events();
        assert_eq!(events, expected, "packet {n}");
        count(&events, &mut requests, &mut errors, &mut cancels);
    }
    // A run in which hardly anything happens would prove nothing.
    assert!(requests > 10_000 && errors > 10_000 && cancels > 1_000, "{requests} {errors} {cancels}");
}

fn count(events: &[Event], requests: &mut usize, errors: &mut usize, cancels: &mut usize) {
    for event in events {
        match event {
            Request(_) => *requests += 1,
            Sent { command: 0x3f, .. } => *errors += 1,
            Cancel => *cancels += 1,
            _ => {}
        }
    }
}
