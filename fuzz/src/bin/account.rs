//! A passkey as it is sealed in its row: what is read is written the same again.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault_core::container::Account;

fuzz_target!(|input: &[u8]| {
    let Ok(account) = ciborium::from_reader::<Account, _>(input) else { return };
    let mut written = Vec::new();
    ciborium::into_writer(&account, &mut written).expect("to memory");
    assert_eq!(ciborium::from_reader::<Account, _>(written.as_slice()).ok(), Some(account.clone()));
    // Neither panics, whatever was stored.
    drop(account.public_key());
    assert!(account.name().len() <= input.len());
});
