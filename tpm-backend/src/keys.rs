//! Keys under a parent: made, loaded, used.

use p256::{FieldBytes, Sec1Point};
use secrecy::ExposeSecret;
use tss_esapi::{
    constants::tss::{TPM2_RH_NULL, TPM2_ST_HASHCHECK},
    handles::KeyHandle,
    interface_types::{algorithm::HashingAlgorithm, session_handles::AuthSession},
    structures::{
        Auth, Digest, HashScheme, HashcheckTicket, MaxBuffer, Public, Signature as TpmSignature,
        SignatureScheme,
    },
    tss2_esys::{TPM2B_DIGEST, TPMT_TK_HASHCHECK},
};
use vault_core::{
    Secret,
    keystore::{KeyStoreError, PublicKey, Signature, Then},
    secret_from,
};

use crate::{
    anchor::WrappedKey,
    connection::Use,
    error::{During, Result, code, failed, odd_answer},
    link::{Link, forged},
};

/// Makes a key under `parent`, and makes sure that it is as the template asked: above all that it can never leave this TPM.
pub(crate) fn create(
    link: &mut Link,
    parent: KeyHandle,
    template: &Public,
    auth: Option<Auth>,
) -> Result<WrappedKey> {
    let hmac = link.hmac()?;
    let does = if auth.is_some() { Use::EncryptCommand } else { Use::Authorize };
    link.tpm.prepare(hmac, Then::Continue, does)?;
    let made = link
        .tpm
        .execute_with_session(Some(hmac), |c| c.create(parent, template.clone(), auth, None, None, None))
        .map_err(|e| code(e).and_then(forged).unwrap_or_else(|| failed("making a key", e)))?;
    let mut asked = template.clone();
    match (&mut asked, &made.out_public) {
        (Public::Ecc { unique: asked, .. }, Public::Ecc { unique, .. }) => *asked = unique.clone(),
        (Public::KeyedHash { unique: asked, .. }, Public::KeyedHash { unique, .. }) => {
            *asked = unique.clone();
        }
        _ => {}
    }
    if asked != made.out_public {
        return Err(KeyStoreError::Replaced { what: "the new key" });
    }
    Ok(WrappedKey { public: made.out_public, private: made.out_private })
}

pub(crate) fn point(made: &Public) -> Result<PublicKey> {
    let other = || KeyStoreError::Replaced { what: "the new key" };
    let Public::Ecc { unique, .. } = made else { return Err(other()) };
    let (x, y) = (field(unique.x().value()).ok_or_else(other)?, field(unique.y().value()).ok_or_else(other)?);
    PublicKey::from_sec1_point(&Sec1Point::from_affine_coordinates(&x, &y, false)).map_err(|_| other())
}

pub(crate) fn load(link: &mut Link, parent: KeyHandle, key: WrappedKey) -> Result<KeyHandle> {
    let hmac = link.hmac()?;
    link.tpm.prepare(hmac, Then::Continue, Use::Authorize)?;
    link.tpm
        .load(hmac, |c| c.load(parent, key.private, key.public))
        .map_err(|e| code(e).and_then(forged).unwrap_or_else(|| failed("loading a key", e)))
}

/// HMAC-SHA256 of each salt, each a command of its own, in the session that `authorize` opens for it.
pub(crate) fn prf(
    link: &mut Link,
    key: KeyHandle,
    salts: &[Secret],
    authorize: impl Fn(&mut Link) -> Result<AuthSession>,
) -> Result<Vec<Secret>> {
    let step = "deriving a secret";
    let mut outputs = Vec::new();
    for salt in salts {
        let session = authorize(link)?;
        link.tpm.prepare(session, Then::Continue, Use::Encrypt)?;
        let salt = MaxBuffer::try_from(salt.expose_secret().to_vec()).during(step)?;
        let output = link
            .tpm
            .execute_with_session(Some(session), |c| c.hmac(key.into(), salt, HashingAlgorithm::Sha256))
            .during(step)?;
        let output: &[u8; 32] = output.value().try_into().map_err(|_| odd_answer(step))?;
        outputs.push(secret_from(|out| out.copy_from_slice(output)));
    }
    link.tpm.flush(key)?;
    Ok(outputs)
}

/// Signs in `session`, which is open for it.
pub(crate) fn sign(
    link: &mut Link,
    session: AuthSession,
    key: KeyHandle,
    digest: &[u8; 32],
) -> Result<Signature> {
    let digest = Digest::try_from(digest.to_vec()).during("signing")?;
    let scheme = SignatureScheme::EcDsa { hash_scheme: HashScheme::new(HashingAlgorithm::Sha256) };
    let ticket = no_ticket()?;
    let signature = link
        .tpm
        .execute_with_session(Some(session), |c| c.sign(key, digest, scheme, ticket))
        .during("signing")?;
    let TpmSignature::EcDsa(signature) = signature else { return Err(KeyStoreError::BadSignature) };
    let (r, s) = (field(signature.signature_r().value()), field(signature.signature_s().value()));
    r.zip(s).and_then(|(r, s)| Signature::from_scalars(r, s).ok()).ok_or(KeyStoreError::BadSignature)
}

/// A TPM gives numbers without their leading zeros.
fn field(bytes: &[u8]) -> Option<FieldBytes> {
    let mut field = FieldBytes::default();
    let start = field.len().checked_sub(bytes.len())?;
    field.get_mut(start..)?.copy_from_slice(bytes);
    Some(field)
}

/// The digest was not made by the TPM, which only restricted keys would mind (Part 3 §20.2).
fn no_ticket() -> Result<HashcheckTicket> {
    let ticket = TPMT_TK_HASHCHECK {
        tag: TPM2_ST_HASHCHECK,
        hierarchy: TPM2_RH_NULL,
        digest: TPM2B_DIGEST::default(),
    };
    HashcheckTicket::try_from(ticket).during("signing")
}
