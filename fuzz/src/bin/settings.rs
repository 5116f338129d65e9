//! What a vault keeps besides its passkeys, as it is sealed in the header: what is read is written the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault_core::container::Settings;

fuzz_target!(|input: &[u8]| {
    let Ok(settings) = ciborium::from_reader::<Settings, _>(input) else { return };
    let mut written = Vec::new();
    ciborium::into_writer(&settings, &mut written).expect("to memory");
    assert_eq!(ciborium::from_reader::<Settings, _>(written.as_slice()).ok(), Some(settings));
});
