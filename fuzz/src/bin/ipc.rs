//! What somebody says who connects to passholdd's socket.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let mut rest = input;
    // Any user's program may say anything; nothing of it is trusted, and it is kept from taking memory.
    drop(fuzz::bounded(input, || passhold::ipc::hello(&mut rest)));
});
