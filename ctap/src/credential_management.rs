//! authenticatorCredentialManagement (CTAP 2.2 §6.8).

use std::{rc::Rc, time::Duration, vec};

use ciborium::Value;
use vault_core::{
    container::{Account, AccountId, Damage},
    pin::PinSecrets,
    secret_from,
    webauthn::{RpId, cose_key},
};

use crate::{
    Authenticator, Env, Status,
    cbor::{Map, bytes, map, uint},
    failure::Result,
    parameters::{self, PinUvAuth},
};

/// How long the next entry may be asked for; as with assertions (§6.3).
const NEXT_WITHIN: Duration = Duration::from_secs(30);

/// There is no limit of ours. This is what platforms are told at most.
const ROOM: usize = 10_000;

/// What the two "get next" subcommands go on with.
pub(crate) struct Listing {
    rest: Rest,
    until: Duration,
}

enum Rest {
    RelyingParties(vec::IntoIter<Account>),
    Credentials(vec::IntoIter<Account>),
}

type Reply = (Option<Value>, Option<Listing>);

impl Listing {
    pub(crate) fn deadline(&self) -> Duration {
        self.until
    }
}

pub(crate) fn run(
    authenticator: &mut Authenticator,
    mut parameters: Map,
    listing: Option<Listing>,
    env: &mut Env<'_>,
) -> Result<Reply> {
    let subcommand =
        u8::try_from(parameters.required::<u64>(0x01)?).map_err(|_| Status::InvalidSubcommand)?;
    // The two that go on are not proven again (§6.8.3, §6.8.4).
    match (subcommand, listing.map(|listing| listing.rest)) {
        (0x03, Some(Rest::RelyingParties(rest))) => return relying_party(rest, None, env),
        (0x05, Some(Rest::Credentials(rest))) => return credential(rest, None, env),
        (0x03 | 0x05, _) => return Err(Status::NotAllowed.into()),
        (0x01 | 0x02 | 0x04 | 0x06 | 0x07, _) => {}
        _ => return Err(Status::InvalidSubcommand.into()),
    }
    let auth = PinUvAuth::take(&mut parameters, 0x04, 0x03)?;
    let inner: Option<Map> = parameters.optional(0x02)?;
    let message = [&[subcommand][..], &inner.as_ref().map(Map::encoded).unwrap_or_default()].concat();
    let mut inner = inner.unwrap_or_else(Map::empty);
    let prove = |authenticator: &mut Authenticator, rp_id: Option<&RpId>| {
        proven(authenticator, auth.as_ref(), &message, rp_id)
    };
    // Before anything is looked up: without a token nobody is told which credentials are here.
    let prove_any = |authenticator: &mut Authenticator| -> Result<()> {
        let token = authenticator.token_that_proves(auth.as_ref().ok_or(Status::PuatRequired)?, &message)?;
        if token.manages() { Ok(()) } else { Err(Status::PinAuthInvalid.into()) }
    };
    let may_list = |authenticator: &mut Authenticator, rp_id: Option<&RpId>, env: &mut Env<'_>| {
        if proves_persistently(auth.as_ref(), &message, env)? {
            return Ok(());
        }
        prove(authenticator, rp_id).map(drop)
    };
    match subcommand {
        0x01 => {
            may_list(authenticator, None, env)?;
            let count = discoverable(env)?.len();
            let left = uint(ROOM.saturating_sub(count));
            Ok((Some(map([(0x01, uint(count)), (0x02, left)])), None))
        }
        0x02 => {
            may_list(authenticator, None, env)?;
            let mut first_of_each: Vec<Account> = Vec::new();
            for (_, account) in discoverable(env)? {
                if !first_of_each.iter().any(|known| known.rp_id == account.rp_id) {
                    first_of_each.push(account);
                }
            }
            let total = first_of_each.len();
            relying_party(first_of_each.into_iter(), Some(total), env)
        }
        0x04 => {
            let hash: Vec<u8> = inner.required(0x01)?;
            let mut found: Vec<Account> =
                discoverable(env)?.into_iter().map(|(_, account)| account).collect();
            found.retain(|account| account.rp_id.hash() == hash.as_slice());
            may_list(authenticator, found.first().map(|account| &account.rp_id), env)?;
            let total = found.len();
            credential(found.into_iter(), Some(total), env)
        }
        0x06 => {
            let credential = named(&mut inner)?;
            prove_any(authenticator)?;
            let (id, account) = found(&credential, env)?;
            let unlock = prove(authenticator, Some(&account.rp_id))?;
            env.vaults.open()?.unlock_with(&unlock)?.delete(id, env.unix_time, env.rng)?;
            Ok((None, None))
        }
        _ => {
            let credential = named(&mut inner)?;
            let user = parameters::user(inner.required(0x03)?)?;
            prove_any(authenticator)?;
            let (id, account) = found(&credential, env)?;
            prove(authenticator, Some(&account.rp_id))?;
            if user.handle != account.user_handle {
                return Err(Status::InvalidParameter.into());
            }
            env.vaults.open()?.update_user(id, &user, env.rng)?;
            Ok((None, None))
        }
    }
}

/// What §6.8.2 to §6.8.6 begin with: a token that proves this very subcommand. Whatever is wrong looks the same.
fn proven(
    authenticator: &mut Authenticator,
    auth: Option<&PinUvAuth>,
    message: &[u8],
    rp_id: Option<&RpId>,
) -> Result<Rc<PinSecrets>> {
    let token = authenticator.token_that_proves(auth.ok_or(Status::PuatRequired)?, message)?;
    token.use_to_manage(rp_id)?;
    Ok(Rc::clone(&token.unlock))
}

/// Whether `auth` is of the persistent token, which lists and does nothing else (§6.8.2 to §6.8.4).
fn proves_persistently(auth: Option<&PinUvAuth>, message: &[u8], env: &mut Env<'_>) -> Result<bool> {
    let (Some(auth), Some(token)) = (auth, env.settings()?.persistent_token) else { return Ok(false) };
    let token = secret_from(|out| out.copy_from_slice(&token.0));
    Ok(auth.protocol()?.verify(&token, message, &auth.param))
}

fn discoverable(env: &mut Env<'_>) -> Result<Vec<(AccountId, Account)>> {
    if !env.vaults.exist() {
        return Ok(Vec::new());
    }
    let mut accounts = env.vaults.open()?.accounts()?;
    accounts.retain(|(_, account)| account.discoverable);
    Ok(accounts)
}

/// The credential ID in the descriptor that is parameter 0x02.
fn named(inner: &mut Map) -> Result<Vec<u8>> {
    let mut descriptor: Map = inner.required(0x02)?;
    Ok(descriptor.required("id")?)
}

fn found(id: &[u8], env: &mut Env<'_>) -> Result<(AccountId, Account)> {
    let mut accounts = discoverable(env)?.into_iter();
    Ok(accounts.find(|(_, account)| account.credential_id.as_bytes() == id).ok_or(Status::NoCredentials)?)
}

/// The next relying party (§6.8.3).
fn relying_party(mut rest: vec::IntoIter<Account>, total: Option<usize>, env: &mut Env<'_>) -> Result<Reply> {
    let Account { rp_id, rp_name, .. } = rest.next().ok_or(Status::NoCredentials)?;
    let name = (!rp_name.is_empty()).then(|| rp_name.into());
    let reply = map([
        (0x03, Some(map([("id", Some(rp_id.as_str().into())), ("name", name)]))),
        (0x04, bytes(rp_id.hash())),
        (0x05, total.and_then(uint)),
    ]);
    Ok((Some(reply), more(Rest::RelyingParties(rest), env.now())))
}

/// The next credential (§6.8.4).
fn credential(mut rest: vec::IntoIter<Account>, total: Option<usize>, env: &mut Env<'_>) -> Result<Reply> {
    let account = rest.next().ok_or(Status::NoCredentials)?;
    let key = account.public_key().ok_or(vault_core::container::ContainerError::from(Damage::File))?;
    let reply = map([
        (0x06, Some(parameters::user_entity(&account))),
        (0x07, Some(parameters::descriptor(account.credential_id.as_bytes()))),
        (0x08, Some(cose_key(&key))),
        (0x09, total.and_then(uint)),
        (0x0a, Some(account.protection.level().into())),
        (0x0b, account.extras.large_blob_key.as_ref().and_then(|key| bytes(key.0))),
        (0x0c, Some(account.extras.third_party_payment.into())),
    ]);
    Ok((Some(reply), more(Rest::Credentials(rest), env.now())))
}

fn more(rest: Rest, now: Duration) -> Option<Listing> {
    let (Rest::RelyingParties(left) | Rest::Credentials(left)) = &rest;
    (left.len() > 0).then(|| Listing { rest, until: now + NEXT_WITHIN })
}
