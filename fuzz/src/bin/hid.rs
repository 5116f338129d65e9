//! CTAPHID: the input is packets, each with the time that passed before it.
#![no_main]

use std::time::Duration;

use ctap::hid::{Hid, Output, PACKET, Packet};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut hid = Hid::default();
    let mut now = Duration::ZERO;
    let mut current = None;
    for chunk in input.chunks(PACKET + 1) {
        let (time, packet) = chunk.split_first().unwrap();
        let mut bytes = [0; PACKET];
        bytes[..packet.len()].copy_from_slice(packet);
        now += Duration::from_millis(u64::from(*time) * 4);
        // What is received is kept, and what is sent back is no longer than that.
        fuzz::bounded(&[0; 7609], || hid.receive(&Packet(bytes), now));
        hid.tick(now);
        while let Some(output) = hid.poll() {
            match output {
                Output::Request(transaction, request) => {
                    assert!((1..=7609).contains(&request.len()));
                    current = Some(transaction);
                }
                Output::Cancel(transaction) => assert_eq!(Some(transaction), current),
                Output::Send(_) | Output::Wink => {}
            }
        }
        if *time & 1 == 1
            && let Some(transaction) = current
        {
            hid.reply(transaction, packet);
        }
        assert!(hid.deadline().is_none_or(|at| at > now && at <= now + Duration::from_millis(500)));
    }
});
