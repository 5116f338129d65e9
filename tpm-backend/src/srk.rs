//! The storage root key: found, made, or proven to be another TPM's.

use tss_esapi::{
    attributes::ObjectAttributes,
    constants::response_code::Tss2ResponseCodeKind as Code,
    handles::{KeyHandle, ObjectHandle, PersistentTpmHandle},
    interface_types::{
        algorithm::HashingAlgorithm,
        dynamic_handles::Persistent,
        ecc::EccCurve,
        key_bits::RsaKeyBits,
        resource_handles::{Hierarchy, Provision},
        session_handles::AuthSession,
    },
    structures::{
        Auth, Public, PublicBuilder, PublicKeyRsa, PublicRsaParametersBuilder, RsaExponent,
        SymmetricDefinitionObject,
    },
};
use vault_core::keystore::{KeyStoreError, KeysGone};

use crate::{
    anchor::Place,
    connection::Connection,
    error::{During, Result, code, failed, odd_answer, owner},
    policy::{Name, object_name},
    templates::{self, SRK_ATTRIBUTES},
};

/// Where the TCG's provisioning guidance puts the SRK.
pub(crate) const HANDLE: u32 = 0x8100_0001;

/// Finds the SRK that a vault was made under. If something else is there, or nothing, derives the SRK anew
/// from the TPM's seed: the same Name puts it back where it was, another Name proves that the keys are gone. Whether by
/// `TPM2_Clear` or because this is another TPM, the endorsement seed tells, which a clear leaves as it is (Part 3 §24.6).
pub(crate) fn find(tpm: &mut Connection, place: &Place, owner_auth: Option<&Auth>) -> Result<KeyHandle> {
    let name = &place.srk_name;
    let found = persistent(tpm)?;
    if let Some(srk) = found
        && tpm.tr_get_name(srk.into()).during("finding the SRK")?.value() == name.as_slice()
    {
        return Ok(srk);
    }
    let Some(derived) = derive(tpm, name, owner_auth)? else {
        return Err(KeyStoreError::KeysGone(what_became(tpm, place)?));
    };
    if found.is_some() {
        tpm.flush(derived)?;
        return Err(KeyStoreError::ForeignSrk {
            why: "this TPM's own SRK, under which the vault was made, was moved away",
        });
    }
    persist(tpm, derived, owner_auth)
}

/// Of the keys of a vault whose SRK this TPM's seed does not make.
pub(crate) fn what_became(tpm: &mut Connection, place: &Place) -> Result<KeysGone> {
    let now = if place.identity.is_some() { identity(tpm)? } else { None };
    Ok(match now {
        None => KeysGone::Unknown,
        same if same == place.identity => KeysGone::Cleared,
        Some(_) => KeysGone::OtherTpm,
    })
}

/// What this TPM is known by: the Name of the key that its endorsement seed makes of the SRK's template. `None` where the
/// endorsement hierarchy wants an authorization.
pub(crate) fn identity(tpm: &mut Connection) -> Result<Option<Name>> {
    let step = "asking the TPM who it is";
    let template = templates::srk()?;
    let made = tpm.load(AuthSession::Password, |c| {
        let made = c.create_primary(Hierarchy::Endorsement, template, None, None, None, None)?;
        Ok(made.key_handle)
    });
    let key = match made {
        Ok(key) => key,
        Err(e) if matches!(code(e), Some(Code::BadAuth | Code::AuthFail | Code::Hierarchy)) => {
            return Ok(None);
        }
        Err(e) => return Err(failed(step, e)),
    };
    let name = tpm.tr_get_name(key.into()).during(step)?.value().to_vec();
    tpm.flush(key)?;
    Ok(Some(name))
}

/// Finds the SRK for a new vault, or makes it. Returns its Name too.
pub(crate) fn find_or_make(tpm: &mut Connection, owner_auth: Option<&Auth>) -> Result<(KeyHandle, Name)> {
    let srk = if let Some(srk) = persistent(tpm)? {
        srk
    } else {
        let made = create(tpm, templates::srk()?, owner_auth)?;
        persist(tpm, made, owner_auth)?
    };
    let (public, _, _) = tpm.execute_without_session(|c| c.read_public(srk)).during("reading the SRK")?;
    if let Some(why) = unfit(&public) {
        return Err(KeyStoreError::ForeignSrk { why });
    }
    let name = object_name(&public)?;
    // Neither reading is authenticated. What the vault pins must at least not rest on one damaged reply.
    if tpm.tr_get_name(srk.into()).during("reading the SRK")?.value() != name.as_slice() {
        return Err(odd_answer("reading the SRK"));
    }
    Ok((srk, name))
}

pub(crate) fn persistent(tpm: &mut Connection) -> Result<Option<KeyHandle>> {
    let handle = PersistentTpmHandle::new(HANDLE).during("finding the SRK")?;
    match tpm.execute_without_session(|c| c.tr_from_tpm_public(handle.into())) {
        Ok(object) => Ok(Some(object.into())),
        Err(e) if matches!(code(e), Some(Code::Handle | Code::Value)) => Ok(None),
        Err(e) => Err(failed("finding the SRK", e)),
    }
}

/// The key that this TPM's seed makes of one of the templates, if one has this Name.
pub(crate) fn derive(
    tpm: &mut Connection,
    name: &Name,
    owner_auth: Option<&Auth>,
) -> Result<Option<KeyHandle>> {
    for template in [templates::srk()?, rsa_template()?] {
        let key = create(tpm, template, owner_auth)?;
        if tpm.tr_get_name(key.into()).during("deriving the SRK")?.value() == name.as_slice() {
            return Ok(Some(key));
        }
        tpm.flush(key)?;
    }
    Ok(None)
}

fn create(tpm: &mut Connection, template: Public, owner_auth: Option<&Auth>) -> Result<KeyHandle> {
    set_owner_auth(tpm, owner_auth)?;
    tpm.load(AuthSession::Password, |c| {
        let made = c.create_primary(Hierarchy::Owner, template, None, None, None, None)?;
        Ok(made.key_handle)
    })
    .map_err(owner(owner_auth.is_some(), "making the SRK"))
}

fn persist(tpm: &mut Connection, key: KeyHandle, owner_auth: Option<&Auth>) -> Result<KeyHandle> {
    let handle = PersistentTpmHandle::new(HANDLE).during("persisting the SRK")?;
    let persisted = tpm
        .execute_with_session(Some(AuthSession::Password), |c| {
            c.evict_control(Provision::Owner, key.into(), Persistent::Persistent(handle))
        })
        .map_err(owner(owner_auth.is_some(), "persisting the SRK"))?;
    tpm.flush(key)?;
    Ok(KeyHandle::from(persisted))
}

pub(crate) fn set_owner_auth(tpm: &mut Connection, owner_auth: Option<&Auth>) -> Result<()> {
    let Some(auth) = owner_auth else { return Ok(()) };
    tpm.tr_set_auth(ObjectHandle::Owner, auth.clone()).during("setting the owner authorization")
}

/// Why a key cannot be a storage root key by the TCG's templates (EK Credential Profile §B.3.3, §B.3.4
/// for the shapes), if it cannot.
pub(crate) fn unfit(public: &Public) -> Option<&'static str> {
    if public.object_attributes() != ObjectAttributes::from(SRK_ATTRIBUTES) {
        return Some("its attributes are not 0x00030472");
    }
    if public.name_hashing_algorithm() != HashingAlgorithm::Sha256 || !public.auth_policy().is_empty() {
        return Some("its name algorithm is not SHA-256, or it has a policy");
    }
    if public.symmetric_algorithm() != Some(SymmetricDefinitionObject::AES_128_CFB) {
        return Some("its symmetric algorithm is not AES-128-CFB");
    }
    match public {
        Public::Ecc { parameters, .. } if parameters.ecc_curve() == EccCurve::NistP256 => None,
        Public::Rsa { parameters, .. } if parameters.key_bits() == RsaKeyBits::Rsa2048 => None,
        _ => Some("it is neither P-256 nor RSA-2048"),
    }
}

/// The template that Windows and older tools persist.
fn rsa_template() -> Result<Public> {
    let build = || {
        PublicBuilder::new()
            .with_public_algorithm(tss_esapi::interface_types::algorithm::PublicAlgorithm::Rsa)
            .with_name_hashing_algorithm(HashingAlgorithm::Sha256)
            .with_object_attributes(ObjectAttributes::from(SRK_ATTRIBUTES))
            .with_rsa_parameters(
                PublicRsaParametersBuilder::new_restricted_decryption_key(
                    SymmetricDefinitionObject::AES_128_CFB,
                    RsaKeyBits::Rsa2048,
                    RsaExponent::default(),
                )
                .build()?,
            )
            .with_rsa_unique_identifier(PublicKeyRsa::default())
            .build()
    };
    build().during("building a key template")
}
