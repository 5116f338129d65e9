//! authenticatorClientPIN (CTAP 2.2 §6.5.5).

use std::{rc::Rc, slice};

use ciborium::Value;
use vault_core::{
    PIN_LIMIT, Secret, UnlockError, Unlocked,
    container::PersistentToken,
    keystore::KeyStoreError,
    pin::{self, Pin, PinMaterial, PinPolicy, PinSecrets},
    secret_from,
    webauthn::{RpId, UserPresent},
};
use zeroize::Zeroizing;

use crate::{
    Ask, Authenticator, Env, Permissions, Status,
    cbor::{Map, bytes, map},
    failure::{Failure, Result},
    pin_protocol::{PinProtocol, SharedSecret},
    token::Token,
    verification::{self, UvError, Verification},
};

/// §6.5.5.5: a new PIN travels padded with zeros.
const PADDED_PIN: usize = 64;

struct Request(Map);

/// The platform's half of a key agreement.
struct Peer {
    protocol: PinProtocol,
    key: Map,
}

impl Peer {
    fn share(self, authenticator: &Authenticator) -> Result<SharedSecret> {
        Ok(authenticator.agreement.decapsulate(self.protocol, self.key.into())?)
    }
}

impl Request {
    fn protocol(&mut self) -> Result<PinProtocol> {
        Ok(PinProtocol::from_number(self.0.optional(0x01)?.ok_or(Status::MissingParameter)?)?)
    }

    fn key_agreement(&mut self) -> Result<Peer> {
        Ok(Peer { protocol: self.protocol()?, key: self.0.required(0x03)? })
    }

    fn param(&mut self) -> Result<Vec<u8>> {
        Ok(self.0.required(0x04)?)
    }

    fn new_pin(&mut self) -> Result<Vec<u8>> {
        Ok(self.0.required(0x05)?)
    }

    fn pin_hash(&mut self) -> Result<Vec<u8>> {
        Ok(self.0.required(0x06)?)
    }

    fn permissions(&mut self) -> Result<Option<u64>> {
        Ok(self.0.optional(0x09)?)
    }

    fn rp_id(&mut self) -> Result<Option<RpId>> {
        let text: Option<String> = self.0.optional(0x0a)?;
        Ok(text.map(|text| RpId::vouched_for(text).ok_or(Status::InvalidLength)).transpose()?)
    }
}

pub(crate) fn run(
    authenticator: &mut Authenticator,
    parameters: Map,
    env: &mut Env<'_>,
) -> Result<Option<Value>> {
    let mut request = Request(parameters);
    match request.0.required::<u64>(0x02)? {
        0x01 => pin_retries(authenticator, env).map(Some),
        0x02 => {
            request.protocol()?;
            Ok(Some(map([(0x01, Some(authenticator.agreement.public()))])))
        }
        0x03 => set_pin(authenticator, request, env).map(|()| None),
        0x04 => change_pin(authenticator, request, env).map(|()| None),
        0x05 => pin_token(authenticator, request, env).map(Some),
        0x06 => token_using_uv(authenticator, request, env).map(Some),
        0x07 => Ok(Some(map([(0x05, Some(tries(env)?.into()))]))),
        0x09 => token_using_pin(authenticator, request, env).map(Some),
        _ => Err(Status::InvalidSubcommand.into()),
    }
}

/// getPINRetries (§6.5.5.2): the TPM's own count.
fn pin_retries(authenticator: &Authenticator, env: &mut Env<'_>) -> Result<Value> {
    let tries = tries(env)?;
    Ok(map([(0x03, Some(tries.into())), (0x04, Some(authenticator.pin_auth_is_blocked().into()))]))
}

fn tries(env: &mut Env<'_>) -> Result<u32> {
    if env.vaults.exist() { Ok(env.vaults.open()?.tries_left()?.count()) } else { Ok(PIN_LIMIT) }
}

/// setPIN (§6.5.5.5). Where there is no vault, that is set-up.
fn set_pin(authenticator: &mut Authenticator, mut request: Request, env: &mut Env<'_>) -> Result<()> {
    let (peer, new_pin, param) = (request.key_agreement()?, request.new_pin()?, request.param()?);
    if env.vaults.exist() {
        return Err(Status::PinAuthInvalid.into());
    }
    let shared = peer.share(authenticator)?;
    if !shared.verify(&new_pin, &param) {
        return Err(Status::PinAuthInvalid.into());
    }
    let pin = new_pin_of(authenticator.policy, &shared, &new_pin)?;
    Ok(env.vaults.set_up(&pin.material())?)
}

/// changePIN (§6.5.5.6).
fn change_pin(authenticator: &mut Authenticator, mut request: Request, env: &mut Env<'_>) -> Result<()> {
    let (peer, hash) = (request.key_agreement()?, request.pin_hash()?);
    let (new_pin, param) = (request.new_pin()?, request.param()?);
    not_blocked(authenticator, env)?;
    let shared = peer.share(authenticator)?;
    if !shared.verify(&[new_pin.as_slice(), &hash].concat(), &param) {
        return Err(Status::PinAuthInvalid.into());
    }
    let material = pin_hash_of(&shared, &hash)?;
    let min_length = env.settings()?.min_pin_length;
    let now = env.unix_time;
    let new = with_pin(authenticator, &material, env, |authenticator, unlocked, _, rng| {
        let policy = authenticator.policy.at_least(min_length);
        let new = new_pin_of(policy, &shared, &new_pin)?;
        Ok(unlocked.change_pin_by(policy, &new.material(), now, rng)?)
    });
    // §6.5.5.6 step 14: tokens were given out for the old one.
    authenticator.lock();
    new
}

/// getPinToken (§6.5.5.7.1): for platforms that know no permissions.
fn pin_token(authenticator: &mut Authenticator, mut request: Request, env: &mut Env<'_>) -> Result<Value> {
    if request.permissions()?.is_some() || request.rp_id()?.is_some() {
        return Err(Status::InvalidParameter.into());
    }
    let permissions = Permissions::MAKE_CREDENTIAL | Permissions::GET_ASSERTION;
    token_for_pin(authenticator, request, (permissions, None), env).map_err(|failure| match failure.status {
        // Step 11: such platforms know no other way to hear that the PIN must be changed.
        Status::PinPolicyViolation => Status::PinInvalid.into(),
        _ => failure,
    })
}

/// getPinUvAuthTokenUsingPinWithPermissions (§6.5.5.7.2).
fn token_using_pin(
    authenticator: &mut Authenticator,
    mut request: Request,
    env: &mut Env<'_>,
) -> Result<Value> {
    let scope = scope(&mut request)?;
    // Step 7: whoever has the PIN typed elsewhere is not seen doing it. What a ceremony does is asked where it is done.
    if !(Permissions::MAKE_CREDENTIAL | Permissions::GET_ASSERTION).contain(scope.0) {
        not_blocked(authenticator, env)?;
        // Nobody agrees in vain: a PIN that must be changed is good for nothing else.
        if !env.settings()?.demand_pin_change(authenticator.policy, env.unix_time) {
            let (permissions, rp_id) = &scope;
            env.confirm(&Ask::Unlock { rp_id: rp_id.as_ref(), permissions: *permissions, accounts: &[] })?;
        }
    }
    token_for_pin(authenticator, request, scope, env)
}

fn scope(request: &mut Request) -> Result<(Permissions, Option<RpId>)> {
    let permissions = Permissions::from_number(request.permissions()?.ok_or(Status::MissingParameter)?)?;
    let rp_id = request.rp_id()?;
    if permissions.need_rp_id() && rp_id.is_none() {
        return Err(Status::MissingParameter.into());
    }
    Ok((permissions, rp_id))
}

fn token_for_pin(
    authenticator: &mut Authenticator,
    mut request: Request,
    scope: (Permissions, Option<RpId>),
    env: &mut Env<'_>,
) -> Result<Value> {
    let (peer, hash) = (request.key_agreement()?, request.pin_hash()?);
    not_blocked(authenticator, env)?;
    let shared = peer.share(authenticator)?;
    let material = pin_hash_of(&shared, &hash)?;
    let unlock = with_pin(authenticator, &material, env, |_, _, unlock, _| Ok(unlock))?;
    let verification = Verification { unlock: Rc::new(unlock), present: None };
    give_token(authenticator, &shared, verification, scope, env)
}

/// getPinUvAuthTokenUsingUvWithPermissions (§6.5.5.7.3).
fn token_using_uv(
    authenticator: &mut Authenticator,
    mut request: Request,
    env: &mut Env<'_>,
) -> Result<Value> {
    let (permissions, rp_id) = scope(&mut request)?;
    let peer = request.key_agreement()?;
    if !env.vaults.exist() {
        return Err(Status::NotAllowed.into());
    }
    let shared = peer.share(authenticator)?;
    if let Some(rp_id) = rp_id.as_ref().filter(|_| permissions.contain(Permissions::MAKE_CREDENTIAL)) {
        env.rule_on(rp_id)?;
    }
    let signs_in = rp_id.as_ref().filter(|_| permissions.contain(Permissions::GET_ASSERTION));
    let accounts = match signs_in {
        Some(rp_id) => env.vaults.open()?.accounts_of(rp_id)?,
        None => Vec::new(),
    };
    let ask = Ask::Unlock { rp_id: rp_id.as_ref(), permissions, accounts: &accounts };
    let verification =
        verification::by_prompt(&ask, authenticator.policy, env).map_err(|error| match error {
            UvError::Declined(declined) => declined.into(),
            UvError::Blocked => Status::UvBlocked.into(),
            UvError::Wrong => Status::UvInvalid.into(),
            UvError::Failed(failure) => failure,
        })?;
    give_token(authenticator, &shared, verification, (permissions, rp_id), env)
}

fn give_token(
    authenticator: &mut Authenticator,
    shared: &SharedSecret,
    verification: Verification,
    scope: (Permissions, Option<RpId>),
    env: &mut Env<'_>,
) -> Result<Value> {
    let Verification { unlock, present } = verification;
    // §6.5.5.7: there is one thing that this PIN is still good for.
    if env.settings()?.demand_pin_change(authenticator.policy, env.unix_time) {
        return Err(Status::PinPolicyViolation.into());
    }
    if scope.0 == Permissions::LIST_CREDENTIALS {
        let token = persistent_token(&unlock, env)?;
        return Ok(map([(0x02, bytes(shared.encrypt(&[token], env.rng)))]));
    }
    // A new passkey is confirmed with its account's name, which nobody has said yet.
    let present: Option<UserPresent> = present.filter(|_| !scope.0.contain(Permissions::MAKE_CREDENTIAL));
    let token = Token::begin(shared.protocol(), unlock, scope, present, env.now(), env.rng);
    let encrypted = shared.encrypt(slice::from_ref(&token.value), env.rng);
    authenticator.token = Some(token);
    Ok(map([(0x02, bytes(encrypted))]))
}

/// The persistentPinUvAuthToken (§6.5.2.2), made when it is first asked for.
fn persistent_token(unlock: &PinSecrets, env: &mut Env<'_>) -> Result<Secret> {
    // Read where it is written: nobody else's change comes between.
    let mut vault = env.vaults.open()?;
    let mut settings = vault.settings()?;
    let token = if let Some(token) = &settings.persistent_token {
        token.clone()
    } else {
        let mut token = PersistentToken([0; 32]);
        env.rng.fill_bytes(&mut token.0);
        settings.persistent_token = Some(token.clone());
        vault.unlock_with(unlock)?.configure(&settings, env.rng)?;
        token
    };
    Ok(secret_from(|out| out.copy_from_slice(&token.0)))
}

/// No try is spent where none is left (§6.5.5.6 and §6.5.5.7, their steps about retries).
fn not_blocked(authenticator: &Authenticator, env: &mut Env<'_>) -> Result<()> {
    if !env.vaults.exist() {
        return Err(Status::PinNotSet.into());
    }
    if authenticator.pin_auth_is_blocked() {
        return Err(Status::PinAuthBlocked.into());
    }
    Ok(())
}

/// Proves the PIN to the TPM, and runs `operation` once it has accepted it.
fn with_pin<T>(
    authenticator: &mut Authenticator,
    material: &PinMaterial,
    env: &mut Env<'_>,
    operation: impl FnOnce(
        &mut Authenticator,
        Unlocked<'_>,
        PinSecrets,
        &mut dyn rand_core::CryptoRng,
    ) -> Result<T>,
) -> Result<T> {
    let mut vault = env.vaults.open()?;
    let secrets = vault.secrets(material);
    let error = match vault.unlock_with(&secrets) {
        Ok(unlocked) => {
            authenticator.pin_was_right();
            return operation(authenticator, unlocked, secrets, env.rng);
        }
        Err(error) => error,
    };
    match error {
        UnlockError::WrongPin => {
            let left = vault.tries_left().map(vault_core::TriesLeft::count);
            drop(vault);
            let status = authenticator.pin_was_wrong(env.rng);
            Err(Failure::from(if matches!(left, Ok(0)) { Status::PinBlocked } else { status }))
        }
        UnlockError::KeyStore(e @ KeyStoreError::PinLocked) => Err(e.into()),
        e => Err(e.into()),
    }
}

/// `LEFT(SHA-256(PIN), 16)`.
fn pin_hash_of(shared: &SharedSecret, encrypted: &[u8]) -> Result<PinMaterial> {
    let hash = shared.decrypt(encrypted).ok_or(Status::PinAuthInvalid)?;
    let hash = Zeroizing::new(<[u8; 16]>::try_from(hash.as_slice()).map_err(|_| Status::PinAuthInvalid)?);
    Ok(PinMaterial::from_bytes(&hash))
}

/// §6.5.5.5 steps 5 to 7, and the vault's own policy.
fn new_pin_of(policy: PinPolicy, shared: &SharedSecret, encrypted: &[u8]) -> Result<Pin> {
    let padded = shared.decrypt(encrypted).ok_or(Status::PinAuthInvalid)?;
    if padded.len() != PADDED_PIN {
        return Err(Status::InvalidParameter.into());
    }
    let end = padded.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let text = padded.get(..end).and_then(|pin| std::str::from_utf8(pin).ok());
    // Platforms hash what they send, so what is not normalized would never be right again.
    let text = text.filter(|text| pin::is_normalized(text)).ok_or(Status::PinPolicyViolation)?;
    Ok(policy.accept(text).map_err(|_| Status::PinPolicyViolation)?)
}
