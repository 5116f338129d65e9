use ciborium::Value;
use vault_core::{
    OpenError,
    container::{ContainerError, Extras, Settings},
    pin::PinPolicy,
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

/// What the vault demands, as it was last read.
#[derive(Clone, Copy)]
pub(crate) struct Demands {
    always_uv: bool,
    min_length: usize,
    change_due: bool,
}

impl Demands {
    fn of(settings: &Settings, policy: PinPolicy, now: u64) -> Self {
        let change_due = settings.demand_pin_change(policy, now);
        Self { always_uv: settings.always_uv, min_length: settings.min_pin_length, change_due }
    }
}

impl Default for Demands {
    fn default() -> Self {
        Self::of(&Settings::default(), PinPolicy::default(), 0)
    }
}

/// authenticatorGetInfo (CTAP 2.2 §6.4). It waits for nobody, and a vault that cannot be opened can still be reset, by a platform
/// that knows what it has before it.
pub(crate) fn run(authenticator: &mut Authenticator, env: &mut Env<'_>) -> Result<Value> {
    let protected = env.vaults.exist();
    let kind = env.vaults.kind()?;
    let demands = if protected { demands(authenticator.policy, env) } else { Some(Demands::default()) };
    authenticator.last_known = demands.unwrap_or(authenticator.last_known);
    let Demands { always_uv, min_length, change_due } = authenticator.last_known;
    let options = map([
        ("rk", Some(true.into())),
        ("up", Some(true.into())),
        ("uv", Some(protected.into())),
        // Our own prompt gives tokens for authenticatorConfig too.
        ("uvAcfg", Some(true.into())),
        ("alwaysUv", Some(always_uv.into())),
        ("credMgmt", Some(true.into())),
        ("authnrCfg", Some(true.into())),
        ("clientPin", Some(protected.into())),
        ("largeBlobs", Some(true.into())),
        ("perCredMgmtRO", Some(true.into())),
        ("pinUvAuthToken", Some(true.into())),
        ("setMinPINLength", Some(true.into())),
        // Whether the platform may leave it to us where the passkey is not discoverable: our own prompt has the PIN then, and the
        // passkey takes presence alone.
        ("makeCredUvNotRqd", Some((!always_uv).into())),
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
        (0x0c, Some(change_due.into())),
        (0x0d, uint(authenticator.policy.at_least(min_length).min_length())),
        (0x0f, uint(Extras::MAX_BLOB)),
        (0x10, uint(Settings::MAX_RP_IDS)),
        // No 0x14, how many more passkeys there is room for: it would tell without a PIN how many there are.
        (0x16, Some(Value::Array(vec!["packed".into()]))),
        // pinComplexityPolicy: sequences, repeats and the commonest PINs are refused.
        (0x1b, Some(true.into())),
    ]))
}

/// What the vault says of it, if it can be asked.
fn demands(policy: PinPolicy, env: &mut Env<'_>) -> Option<Demands> {
    let now = env.unix_time;
    match env.vaults.open_at_once() {
        Ok(vault) => {
            let settings = vault.settings().map_err(|e| (env.report)(&e)).ok()?;
            Some(Demands::of(&settings, policy, now))
        }
        Err(OpenError::Container(ContainerError::Busy { .. })) => None,
        Err(e) => {
            (env.report)(&e);
            None
        }
    }
}
