//! WebAuthn's JSON and origins: a line with the origin, then the options; or a signal.
#![no_main]

use libfuzzer_sys::fuzz_target;
use vault_core::webauthn::{CreateRequest, GetRequest, Origin, Signal};

fuzz_target!(|input: &[u8]| {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if let Ok(signal) = Signal::from_json(text) {
        assert!((1..=255).contains(&signal.rp_id().as_str().len()));
    }
    let (origin, json) = text.split_once('\n').unwrap_or((text, ""));
    let Ok(origin) = Origin::parse(origin) else { return };
    // What is accepted as an origin is written as browsers do, and read again the same.
    assert_eq!(Origin::parse(&origin.to_string()).as_ref(), Ok(&origin));
    if let Ok(request) = CreateRequest::from_json(json, origin.clone()) {
        assert!((1..=64).contains(&request.user.handle.as_bytes().len()));
        assert!(origin.to_string().contains(request.rp_id.as_str()));
    }
    if let Ok(request) = GetRequest::from_json(json, origin.clone()) {
        assert!(origin.to_string().contains(request.rp_id.as_str()));
    }
});
