//! The recovery index, and the PIN reset that it allows: S, masked by the recovery code, for whom branches C and X of the PIN
//! index's policy are there. It lies in the TPM and not in the container, so that a code that was replaced opens no old copy
//! of the container either.

use secrecy::ExposeSecret;
use tss_esapi::{
    constants::CommandCode,
    interface_types::{resource_handles::NvAuth, session_handles::PolicySession},
    structures::{Auth, MaxNvBuffer},
};
use vault_core::{
    PIN_LIMIT, RecoverySecrets, Secret,
    keystore::{Anchor, KeyStoreError, Then},
    pin::PinSecrets,
};
use zeroize::Zeroizing;

use crate::{
    connection::Use,
    error::{During, Result},
    link::{Link, Proven, forged},
    pin_change::{masked, random, write_settled},
    provision::restore_recovery_index,
    raw,
    templates::MASKED,
    tpm::Tpm,
    unlocked::{generation_of, xor},
};

const REPLACED: KeyStoreError = KeyStoreError::Replaced { what: "the recovery index" };

/// S, if this is the code in force and V takes what it unmasks.
pub(crate) fn redeem(link: &mut Link, code: &RecoverySecrets) -> Result<Secret> {
    let (step, rec, hmac) = ("reading the recovery index", link.rec_index()?, link.hmac()?);
    link.tpm.prepare(hmac, Then::Continue, Use::EncryptResponse)?;
    let size = link.place.rec.size;
    let data = link
        .tpm
        .execute_with_session(Some(hmac), |c| c.nv_read(NvAuth::NvIndex(rec), rec, size, 0))
        .during(step)?;
    let (secret, check) = data.value().split_first_chunk::<MASKED>().ok_or(REPLACED)?;
    if check != code.check {
        return Err(KeyStoreError::WrongCode);
    }
    let secret = xor(secret, &code.mask);
    link.set_vault_secret(&secret)?;
    match link.try_vault_secret() {
        Err(KeyStoreError::Replaced { .. }) => Err(REPLACED),
        tried => tried.map(|()| secret),
    }
}

/// Puts a code in force, or none; the PIN is proven by this, and was before. What is missing for it is made anew.
pub(crate) fn renew(
    link: &mut Link,
    code: Option<(&Secret, &RecoverySecrets)>,
    owner_auth: Option<&Auth>,
) -> Result<()> {
    let mut data = Zeroizing::new(Vec::with_capacity(link.place.rec.size.into()));
    match code {
        Some((secret, code)) => {
            data.extend(masked(secret, &code.mask).expose_secret());
            data.extend(code.check);
        }
        // Nobody knows what would unmask this.
        None => data.extend([random()?, random()?].iter().flat_map(|half| *half.expose_secret())),
    }
    let rec = match link.rec_index() {
        Err(KeyStoreError::RecoveryGone) => restore_recovery_index(link, owner_auth)?,
        found => found?,
    };
    link.prove_pin(Then::Continue)?;
    link.write_index(rec, &data, 0, Use::EncryptCommand, Then::Continue)
}

/// The new authValue, then the count, then the mask. The count comes second: the old PIN gets no new tries. Between the last two
/// the TPM accepts a PIN whose mask is not the one that `NV_sec` was written with; whoever calls this has noted that.
pub(crate) fn reset(tpm: &mut Tpm, anchor: &Anchor, code: &RecoverySecrets, new: &PinSecrets) -> Result<()> {
    let secret = tpm.on_link(anchor, |link| redeem(link, code))?;
    // tss-esapi 7.7 lacks NV_ChangeAuth, and a TPM without resource manager has one client at a time.
    tpm.close();
    tpm.guarded(|tpm| raw::change_pin_auth(&tpm.route, anchor, &secret, &new.auth)).map_err(|e| match e {
        KeyStoreError::PinInDoubt(cause) => *cause,
        other => other,
    })?;
    tpm.on_link(anchor, |link| {
        link.set_vault_secret(&secret)?;
        zero_the_count(link)?;
        link.set_pin(&new.auth)?;
        link.prove_pin(Then::Continue)?;
        let generation = generation_of(&link.read_secret_index()?)?;
        link.prove_pin(Then::Continue)?;
        write_settled(link, &secret, &new.mask, generation, Then::Continue)?;
        link.proven = Some(Proven { pin: new.clone(), secret, generation });
        Ok(())
    })
}

/// Branch X: whoever knows S may write the count.
fn zero_the_count(link: &mut Link) -> Result<()> {
    let step = "setting the count of wrong PINs back";
    let (pin, v) = (link.pin_index()?, link.v()?);
    let session = link.policy_session()?;
    let policy = PolicySession::try_from(session).during(step)?;
    link.tpm.policy_command_code(policy, CommandCode::NvWrite).during(step)?;
    link.policy_secret(v.into(), Then::Continue, step, forged)?;
    link.tpm.policy_or(policy, link.place.policies.pin_branch_list()?).during(step)?;
    let data = [0_u32.to_be_bytes(), PIN_LIMIT.to_be_bytes()].concat();
    let data = MaxNvBuffer::try_from(data).during(step)?;
    link.tpm.prepare(session, Then::Continue, Use::Authorize)?;
    link.tpm
        .execute_with_session(Some(session), |c| c.nv_write(NvAuth::NvIndex(pin), pin, data, 0))
        .during(step)
}
