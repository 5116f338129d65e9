//! Set-up: the one time that ownerAuth is needed and everything is made.

use std::collections::HashSet;

use secrecy::ExposeSecret;
use tss_esapi::{
    constants::{CapabilityType, CommandCode, SessionType},
    handles::NvIndexHandle,
    interface_types::{
        resource_handles::{NvAuth, Provision},
        session_handles::PolicySession,
    },
    structures::{Auth, CapabilityData, MaxNvBuffer},
};
use vault_core::{
    PIN_LIMIT, Secret,
    keystore::{ContainerKey, KeyStoreError, Provisioned, RecordAnchor, Then},
    pin::PinSecrets,
    secret_from,
};

use crate::{
    anchor::{Place, WrappedKey},
    connection::{Connection, Route, Use},
    error::{During, Result, owner},
    link::{Link, find_index},
    pin_change::{random, write_settled},
    policy::NvIndex,
    recovery, srk, status, templates,
};

/// Indices for the owner's use (TCG Registry of Reserved TPM 2.0 Handles §2.2).
const OWNER_INDICES: std::ops::Range<u32> = 0x0180_0000..0x01c0_0000;

pub(crate) fn provision(
    route: &Route,
    owner_auth: Option<&Auth>,
    pin: &PinSecrets,
    key: &ContainerKey,
    record: &mut RecordAnchor<'_>,
) -> Result<Provisioned> {
    let mut tpm = route.connect()?;
    let about = status::describe(&mut tpm)?;
    if !about.counts_pins {
        return Err(KeyStoreError::TooOld);
    }
    let secret = vault_secret()?;
    let place = make_vault_key(&mut tpm, owner_auth, &secret)?;
    let anchor = place.to_anchor()?;
    record(&anchor).map_err(KeyStoreError::NotRecorded)?;
    drop(tpm);

    // From here on as later: over sessions salted with V.
    let mut link = Link::open(route, &anchor, owner_auth)?;
    srk::set_owner_auth(&mut link.tpm, owner_auth)?;
    let limit = [0_u32.to_be_bytes(), PIN_LIMIT.to_be_bytes()].concat();
    let define = |link: &mut Link, index: fn(&Place) -> &NvIndex, auth| {
        define(link, index, auth)?.map_err(owner(owner_auth.is_some(), "defining an index"))
    };
    let key_index = define(&mut link, |p| &p.key, None)?;
    write_once(&mut link, key_index, key.expose_secret(), Branch::Only, Use::EncryptCommand)?;
    link.tpm.forget(key_index.into())?;
    let pin_index = define(&mut link, |p| &p.pin, Some(&pin.auth))?;
    write_once(&mut link, pin_index, &limit, Branch::OneOfThree, Use::Authorize)?;
    let sec_index = define(&mut link, |p| &p.sec, None)?;
    let rec_index = define(&mut link, |p| &p.rec, None)?;
    link.adopt(pin_index, sec_index, rec_index);
    link.set_pin(&pin.auth)?;
    link.prove_pin(Then::Continue)?;
    write_settled(&mut link, &secret, &pin.mask, 0, Then::Continue)?;
    recovery::renew(&mut link, None, owner_auth)?;
    check_names(&mut link)?;
    Ok(Provisioned { anchor, kind: about.kind })
}

/// What is there now is what every later operation will ask for.
fn check_names(link: &mut Link) -> Result<()> {
    let Place { key, pin, sec, rec, .. } = &link.place;
    for (index, what) in [
        (key, "the container key's index"),
        (pin, "the PIN index"),
        (sec, "the secret index"),
        (rec, "the recovery index"),
    ] {
        let handle = find_index(&mut link.tpm, index, what)?;
        link.tpm.forget(handle.into())?;
    }
    Ok(())
}

/// S. A TPM strips trailing zero bytes from an authValue (Part 1 §19.6.4.3), so it has none.
fn vault_secret() -> Result<Secret> {
    let random = random()?;
    Ok(secret_from(|out| {
        out.copy_from_slice(random.expose_secret());
        out[31] |= 1;
    }))
}

fn make_vault_key(tpm: &mut Connection, owner_auth: Option<&Auth>, secret: &Secret) -> Result<Place> {
    let (srk, srk_name) = srk::find_or_make(tpm, owner_auth)?;
    let session = tpm.start_session(srk, SessionType::Hmac)?;
    tpm.prepare(session, Then::End, Use::EncryptCommand)?;
    let (template, auth) = (templates::vault_key()?, Auth::try_from(secret.expose_secret().to_vec()));
    let auth = auth.during("making the vault key")?;
    let made = tpm
        .execute_with_session(Some(session), |c| c.create(srk, template, Some(auth), None, None, None))
        .during("making the vault key")?;
    tpm.ended(session, Then::End);
    let v = WrappedKey { public: made.out_public, private: made.out_private };
    let identity = srk::identity(tpm)?;
    Place::new(srk_name, identity, v, free_indices(tpm)?)
}

/// Indices that nothing uses, at a random place so that two set-ups hardly meet.
fn free_indices(tpm: &mut Connection) -> Result<[u32; 4]> {
    let step = "looking for free indices";
    let mut used = HashSet::new();
    let mut from = OWNER_INDICES.start;
    loop {
        let (capability, more) = tpm
            .execute_without_session(|c| c.get_capability(CapabilityType::Handles, from, 64))
            .during(step)?;
        let CapabilityData::Handles(handles) = capability else { break };
        let handles: Vec<u32> = handles.into_inner().into_iter().map(u32::from).collect();
        let Some(last) = handles.last().copied() else { break };
        used.extend(handles);
        if !more {
            break;
        }
        from = last + 1;
    }
    let random = getrandom::u32()
        .map_err(|e| KeyStoreError::Failed { during: "drawing random bytes", source: e.into() })?;
    let span = OWNER_INDICES.end - OWNER_INDICES.start;
    let mut free = (0..span)
        .map(|n| OWNER_INDICES.start + (random % span + n) % span)
        .filter(|index| !used.contains(index));
    match (free.next(), free.next(), free.next(), free.next()) {
        (Some(a), Some(b), Some(c), Some(d)) => Ok([a, b, c, d]),
        _ => Err(KeyStoreError::NoNvSpace),
    }
}

/// The recovery index anew: where the owner's authorization is empty anyone may undefine it. Cut short, it is there and unwritten.
pub(crate) fn restore_recovery_index(link: &mut Link, owner_auth: Option<&Auth>) -> Result<NvIndexHandle> {
    if let Some((index, _)) = link.look_up(link.place.rec.index)? {
        return Ok(index);
    }
    srk::set_owner_auth(&mut link.tpm, owner_auth)?;
    define(link, |p| &p.rec, None)?.map_err(owner(owner_auth.is_some(), "defining an index"))
}

fn define(
    link: &mut Link,
    index: fn(&Place) -> &NvIndex,
    auth: Option<&Secret>,
) -> Result<tss_esapi::Result<NvIndexHandle>> {
    let public = index(&link.place).to_public()?;
    let auth = match auth {
        Some(auth) => Some(Auth::try_from(auth.expose_secret().to_vec()).during("defining an index")?),
        None => None,
    };
    let hmac = link.hmac()?;
    link.tpm.prepare(hmac, Then::Continue, Use::EncryptCommand)?;
    Ok(link.tpm.execute_with_session(Some(hmac), |c| c.nv_define_space(Provision::Owner, auth, public)))
}

/// Whether an index's policy is [`crate::policy::Policies::write_once`] alone or with others.
#[derive(Clone, Copy)]
enum Branch {
    Only,
    OneOfThree,
}

/// The first write of an index, which its policy allows without any secret.
fn write_once(link: &mut Link, index: NvIndexHandle, data: &[u8], branch: Branch, does: Use) -> Result<()> {
    let step = "writing an index";
    let session = link.policy_session()?;
    let policy = PolicySession::try_from(session).during(step)?;
    let branches = link.place.policies.pin_branch_list()?;
    let data = MaxNvBuffer::try_from(data.to_vec()).during(step)?;
    let satisfy = || {
        link.tpm.policy_command_code(policy, CommandCode::NvWrite)?;
        link.tpm.policy_nv_written(policy, false)?;
        match branch {
            Branch::Only => Ok(()),
            Branch::OneOfThree => link.tpm.policy_or(policy, branches),
        }
    };
    satisfy().during(step)?;
    link.tpm.prepare(session, Then::Continue, does)?;
    link.tpm
        .execute_with_session(Some(session), |c| c.nv_write(NvAuth::NvIndex(index), index, data, 0))
        .during(step)
}
