use ciborium::Value;
use vault_core::{
    container::{Extras, Settings},
    webauthn::aaguid,
};

use crate::{
    Authenticator, Env,
    cbor::{bytes, map, uint},
    extensions::SUPPORTED,
    failure::Result,
    hid::MAX_MESSAGE,
    parameters::{MAX_CREDENTIALS_IN_LIST, es256},
};

/// Credential IDs are 32 random bytes.
const CREDENTIAL_ID_LENGTH: usize = 32;

/// authenticatorGetInfo (CTAP 2.2 §6.4).
pub(crate) fn run(authenticator: &Authenticator, env: &mut Env<'_>) -> Result<Value> {
    let protected = env.vaults.exist();
    let kind = env.vaults.kind()?;
    // A vault that cannot be opened can still be reset, by a platform that knows what it has before it.
    let settings = env.settings().unwrap_or_else(|failure| {
        if let Some(cause) = failure.cause {
            (env.report)(cause.as_ref());
        }
        Settings::default()
    });
    let options = map([
        ("rk", Some(true.into())),
        ("up", Some(true.into())),
        ("uv", Some(protected.into())),
        // Our own prompt gives tokens for authenticatorConfig too.
        ("uvAcfg", Some(true.into())),
        ("alwaysUv", Some(true.into())),
        ("credMgmt", Some(true.into())),
        ("authnrCfg", Some(true.into())),
        ("clientPin", Some(protected.into())),
        ("largeBlobs", Some(true.into())),
        ("perCredMgmtRO", Some(true.into())),
        ("pinUvAuthToken", Some(true.into())),
        ("setMinPINLength", Some(true.into())),
        // §6.4: false where alwaysUv is true.
        ("makeCredUvNotRqd", Some(false.into())),
    ]);
    Ok(map([
        // All that §9 demands of the latter is here. CTAP 2.2 has no version of its own.
        (0x01, Some(Value::Array(vec!["FIDO_2_0".into(), "FIDO_2_1".into()]))),
        (0x02, Some(Value::Array(SUPPORTED.map(Value::from).to_vec()))),
        (0x03, bytes(aaguid(kind))),
        (0x04, Some(options)),
        (0x05, uint(MAX_MESSAGE)),
        (0x06, Some(Value::Array(vec![2.into(), 1.into()]))),
        (0x07, uint(MAX_CREDENTIALS_IN_LIST)),
        (0x08, uint(CREDENTIAL_ID_LENGTH)),
        (0x09, Some(Value::Array(vec!["usb".into()]))),
        (0x0a, Some(Value::Array(vec![es256()]))),
        (0x0b, uint(Settings::MAX_LARGE_BLOBS)),
        (0x0c, Some(settings.pin_change_due.into())),
        (0x0d, uint(authenticator.policy.at_least(settings.min_pin_length).min_length())),
        (0x0f, uint(Extras::MAX_BLOB)),
        (0x10, uint(Settings::MAX_RP_IDS)),
        // No 0x14, how many more passkeys there is room for: it would tell without a PIN how many there are.
        (0x16, Some(Value::Array(vec!["packed".into()]))),
        // pinComplexityPolicy: sequences, repeats and the commonest PINs are refused.
        (0x1b, Some(true.into())),
    ]))
}
