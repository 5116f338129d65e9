//! A connection to the TPM on which one vault's objects are at hand.

use secrecy::ExposeSecret;
use tss_esapi::{
    constants::{CapabilityType, SessionType, response_code::Tss2ResponseCodeKind as Code},
    handles::{KeyHandle, NvIndexHandle, NvIndexTpmHandle, ObjectHandle},
    interface_types::{
        resource_handles::NvAuth,
        session_handles::{AuthSession, PolicySession},
    },
    structures::{Auth, CapabilityData, Digest, Nonce},
};
use vault_core::{
    Secret,
    keystore::{Anchor, ContainerKey, KeyStoreError, Then},
    pin::PinSecrets,
    secret_from,
};
use zeroize::Zeroizing;

use crate::{
    anchor::Place,
    connection::{Connection, Route, Use},
    error::{During, Result, code, failed, odd_answer},
    policy::{Name, NvIndex},
    srk,
};

pub(crate) struct Link {
    pub(crate) tpm: Connection,
    pub(crate) place: Place,
    anchor: Anchor,
    pub(crate) srk: KeyHandle,
    v: Option<KeyHandle>,
    hmac: Option<AuthSession>,
    policy: Option<PolicySession>,
    pin: Option<NvIndexHandle>,
    sec: Option<NvIndexHandle>,
    rec: Option<NvIndexHandle>,
    /// What the next operation need not ask for again.
    pub(crate) proven: Option<Proven>,
}

/// A PIN that the TPM has accepted, and what that yielded.
pub(crate) struct Proven {
    pub(crate) pin: PinSecrets,
    /// S, V's authValue.
    pub(crate) secret: Secret,
    /// The container generation that the TPM remembers.
    pub(crate) generation: u64,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.forget_secrets();
    }
}

impl Link {
    /// Three commands: finds the SRK, loads V under it, starts the session.
    ///
    /// The session's salt is encrypted to V, whose public area comes from the container. It must not be
    /// encrypted to the SRK: libtss2 takes a persistent key's public area from an unauthenticated
    /// `TPM2_ReadPublic` and never holds it against the Name, so a chip on the bus could put in its own.
    pub(crate) fn open(route: &Route, anchor: &Anchor, owner: Option<&Auth>) -> Result<Self> {
        let place = Place::from_anchor(anchor)?;
        let mut tpm = route.connect()?;
        let srk = srk::find(&mut tpm, &place, owner)?;
        tpm.keeps = route.keeps;
        let mut link = Self {
            tpm,
            place,
            anchor: anchor.clone(),
            srk,
            v: None,
            hmac: None,
            policy: None,
            pin: None,
            sec: None,
            rec: None,
            proven: None,
        };
        link.resume()?;
        Ok(link)
    }

    /// Loads what a link works with, unless it is loaded.
    pub(crate) fn resume(&mut self) -> Result<()> {
        if self.hmac.is_some() {
            return Ok(());
        }
        let (srk, public, private) = (self.srk, self.place.v.public.clone(), self.place.v.private.clone());
        // The SRK's authorization is empty and the blob is wrapped: nothing to hide, so no session.
        let v = self.tpm.load(AuthSession::Password, |c| c.load(srk, private, public)).map_err(
            |e| match code(e) {
                Some(Code::Integrity) => KeyStoreError::Malformed { what: "the vault key" },
                _ => failed("loading the vault key", e),
            },
        )?;
        self.v = Some(v);
        self.hmac = Some(self.tpm.start_session(v, SessionType::Hmac)?);
        Ok(())
    }

    /// Leaves nothing in the TPM and no secret here; what the handles of lasting objects stand for is remembered.
    pub(crate) fn park(&mut self) -> Result<()> {
        self.forget_secrets();
        if let Some(v) = self.v.take() {
            self.tpm.flush(v)?;
        }
        for session in
            [self.policy.take().map(AuthSession::PolicySession), self.hmac.take()].into_iter().flatten()
        {
            self.tpm.flush_session(session)?;
        }
        Ok(())
    }

    /// libtss2 frees its copies of authValues without wiping them.
    fn forget_secrets(&mut self) {
        self.proven = None;
        let handles = [self.pin.map(ObjectHandle::from), self.v.map(ObjectHandle::from)];
        for handle in handles.into_iter().flatten() {
            // It refuses a handle that it has already forgotten.
            self.set_auth(handle, &[0xff; 32], "forgetting a secret").ok();
        }
    }

    /// The session that proves and carries secrets: salted with V and unbound.
    pub(crate) fn hmac(&self) -> Result<AuthSession> {
        self.hmac.ok_or(KeyStoreError::Malformed { what: "the order of vault key uses" })
    }

    pub(crate) fn is_for(&self, anchor: &Anchor) -> bool {
        self.anchor == *anchor
    }

    pub(crate) fn container_key(&mut self) -> Result<ContainerKey> {
        let key = self.find(|place| &place.key, "the container key's index")?;
        let hmac = self.hmac()?;
        self.tpm.prepare(hmac, Then::Continue, Use::EncryptResponse)?;
        let size = self.place.key.size;
        let data = self
            .tpm
            .execute_with_session(Some(hmac), |c| c.nv_read(NvAuth::NvIndex(key), key, size, 0))
            .during("reading the container key")?;
        self.tpm.forget(key.into())?;
        // libtss2 decrypts a response in the buffer that received it, and keeps the buffer. The next response writes over it:
        // that of the PIN index, which an unlock asks for anyway. A wipe must be able to do without that index.
        match self.pin_index() {
            Ok(_) | Err(KeyStoreError::Erased | KeyStoreError::Replaced { .. }) => {}
            Err(e) => return Err(e),
        }
        let data: &[u8; 32] = data
            .value()
            .try_into()
            .map_err(|_| KeyStoreError::Replaced { what: "the container key's index" })?;
        Ok(secret_from(|out| out.copy_from_slice(data)))
    }

    /// An index and its Name, if it is defined, in answers that are authenticated. A reply without a session carries nothing
    /// that vouches for it, an error reply never does: a chip on the bus could say that an index is gone, or another's.
    pub(crate) fn look_up(&mut self, index: u32) -> Result<Option<(NvIndexHandle, Name)>> {
        let (step, hmac) = ("looking for an index", self.hmac()?);
        self.tpm.prepare(hmac, Then::Continue, Use::Audit)?;
        let (capability, _) = self
            .tpm
            .execute_with_session(Some(hmac), |c| c.get_capability(CapabilityType::Handles, index, 1))
            .during(step)?;
        let CapabilityData::Handles(handles) = capability else {
            return Err(odd_answer(step));
        };
        if handles.into_inner().first().is_none_or(|first| u32::from(*first) != index) {
            return Ok(None);
        }
        self.tpm.prepare(hmac, Then::Continue, Use::Audit)?;
        let handle = NvIndexTpmHandle::new(index).during(step)?;
        let found = self
            .tpm
            .execute_with_session(Some(hmac), |c| c.tr_from_tpm_public(handle.into()))
            .during(step)?;
        let name = self.tpm.tr_get_name(found).during(step)?;
        Ok(Some((found.into(), name.value().to_vec())))
    }

    /// Whether the vault was not wiped, in an answer that is authenticated.
    pub(crate) fn require_secret_index(&mut self) -> Result<()> {
        let sec = self.place.sec.clone();
        match self.look_up(sec.index)? {
            None => Err(KeyStoreError::Erased),
            Some((handle, name)) if name == sec.written() => {
                // libtss2 knows an index by one handle only.
                self.sec = Some(handle);
                Ok(())
            }
            Some(_) => Err(KeyStoreError::Replaced { what: "the secret index" }),
        }
    }

    /// Finds an index of the vault. That it is gone, or another's, is only believed of the TPM itself.
    fn find(&mut self, index: fn(&Place) -> &NvIndex, what: &'static str) -> Result<NvIndexHandle> {
        let index = index(&self.place).clone();
        match find_index(&mut self.tpm, &index, what) {
            Err(KeyStoreError::Erased | KeyStoreError::Replaced { .. }) => {}
            found => return found,
        }
        match self.look_up(index.index)? {
            None => Err(KeyStoreError::Erased),
            Some((handle, name)) if name == index.written() => Ok(handle),
            Some(_) => Err(KeyStoreError::Replaced { what }),
        }
    }

    /// What the PIN yielded; nothing goes on from it any more unless it is put back.
    pub(crate) fn take_proven(&mut self) -> Result<Proven> {
        self.proven.take().ok_or(KeyStoreError::Malformed { what: "the order of vault key uses" })
    }

    /// What the next proof of the PIN uses; proves nothing yet.
    pub(crate) fn set_pin(&mut self, pin_auth: &Secret) -> Result<()> {
        let pin = self.pin_index()?;
        self.set_auth(pin.into(), pin_auth.expose_secret(), "setting the PIN")
    }

    /// What the next use of V proves.
    pub(crate) fn set_vault_secret(&mut self, secret: &Secret) -> Result<()> {
        let v = self.v()?;
        self.set_auth(v.into(), secret.expose_secret(), "setting the vault secret")
    }

    /// `PolicySecret(NV_pin)`: opens the policy session for one command.
    pub(crate) fn prove_pin(&mut self, then: Then) -> Result<()> {
        let pin = self.pin_index()?;
        self.policy_secret(pin.into(), then, "proving the PIN", |code| match code {
            Code::BadAuth | Code::AuthFail => Some(KeyStoreError::WrongPin),
            Code::AuthUnavailable => Some(KeyStoreError::PinLocked),
            _ => None,
        })
    }

    /// `PolicySecret(V)`, undone at once: whether the vault secret is the right one.
    pub(crate) fn try_vault_secret(&mut self) -> Result<()> {
        let (v, policy) = (self.v()?, self.policy()?);
        self.policy_secret(v.into(), Then::Continue, "using the vault key", forged)?;
        self.tpm.execute_without_session(|c| c.policy_restart(policy)).during("restarting a policy")
    }

    /// Reads `NV_sec`; the PIN was proven.
    pub(crate) fn read_secret_index(&mut self) -> Result<Zeroizing<Vec<u8>>> {
        let (sec, policy) = (self.sec_index()?, self.policy_session()?);
        self.tpm.prepare(policy, Then::Continue, Use::EncryptResponse)?;
        let size = self.place.sec.size;
        let data = self
            .tpm
            .execute_with_session(Some(policy), |c| c.nv_read(NvAuth::NvIndex(sec), sec, size, 0))
            .during("reading the secret index")?;
        Ok(Zeroizing::new(data.value().to_vec()))
    }

    /// Writes into `NV_sec`; the PIN was proven.
    pub(crate) fn write_secret_index(
        &mut self,
        data: &[u8],
        offset: u16,
        does: Use,
        then: Then,
    ) -> Result<()> {
        let sec = self.sec_index()?;
        self.write_index(sec, data, offset, does, then)
    }

    /// Writes into an index that the PIN opens; it was proven.
    pub(crate) fn write_index(
        &mut self,
        index: NvIndexHandle,
        data: &[u8],
        offset: u16,
        does: Use,
        then: Then,
    ) -> Result<()> {
        let policy = self.policy_session()?;
        self.tpm.prepare(policy, then, does)?;
        let data = data.to_vec().try_into().during("writing an index")?;
        self.tpm
            .execute_with_session(Some(policy), |c| c.nv_write(NvAuth::NvIndex(index), index, data, offset))
            .during("writing an index")?;
        self.tpm.ended(policy, then);
        Ok(())
    }

    /// Takes the indices that set-up has just defined; libtss2 follows their Names as they are written.
    pub(crate) fn adopt(&mut self, pin: NvIndexHandle, sec: NvIndexHandle, rec: NvIndexHandle) {
        (self.pin, self.sec, self.rec) = (Some(pin), Some(sec), Some(rec));
    }

    pub(crate) fn v(&self) -> Result<KeyHandle> {
        self.v.ok_or(KeyStoreError::Malformed { what: "the order of vault key uses" })
    }

    /// V is not needed any more in this operation.
    pub(crate) fn flush_v(&mut self) -> Result<()> {
        match self.v.take_if(|_| self.tpm.ends(Then::End)) {
            Some(v) => self.tpm.flush(v),
            None => Ok(()),
        }
    }

    pub(crate) fn policy_session(&mut self) -> Result<AuthSession> {
        self.policy().map(AuthSession::PolicySession)
    }

    fn policy(&mut self) -> Result<PolicySession> {
        if let Some(policy) = self.policy {
            return Ok(policy);
        }
        let v = self.v()?;
        let session = self.tpm.start_session(v, SessionType::Policy)?;
        let policy = PolicySession::try_from(session).during("starting a session")?;
        Ok(*self.policy.insert(policy))
    }

    pub(crate) fn policy_secret(
        &mut self,
        entity: ObjectHandle,
        then: Then,
        step: &'static str,
        refused: impl Fn(Code) -> Option<KeyStoreError>,
    ) -> Result<()> {
        let (policy, hmac) = (self.policy()?, self.hmac()?);
        self.tpm.prepare(hmac, then, Use::Authorize)?;
        let (nonce, cp_hash, policy_ref) = (Nonce::default(), Digest::default(), Nonce::default());
        self.tpm
            .execute_with_session(Some(hmac), |c| {
                c.policy_secret(policy, entity.into(), nonce, cp_hash, policy_ref, None)
            })
            .map_err(|e| code(e).and_then(refused).unwrap_or_else(|| failed(step, e)))?;
        self.tpm.ended(hmac, then);
        Ok(())
    }

    pub(crate) fn pin_index(&mut self) -> Result<NvIndexHandle> {
        if let Some(pin) = self.pin {
            return Ok(pin);
        }
        let pin = self.find(|place| &place.pin, "the PIN index")?;
        Ok(*self.pin.insert(pin))
    }

    fn sec_index(&mut self) -> Result<NvIndexHandle> {
        if let Some(sec) = self.sec {
            return Ok(sec);
        }
        let sec = self.find(|place| &place.sec, "the secret index")?;
        Ok(*self.sec.insert(sec))
    }

    pub(crate) fn rec_index(&mut self) -> Result<NvIndexHandle> {
        if let Some(rec) = self.rec {
            return Ok(rec);
        }
        let rec = match self.find(|place| &place.rec, "the recovery index") {
            Err(KeyStoreError::Erased) => return Err(KeyStoreError::RecoveryGone),
            Err(e @ KeyStoreError::Replaced { .. }) => {
                // One that is being made anew.
                let unwritten = self.place.rec.unwritten();
                let found = self.look_up(self.place.rec.index)?;
                let is_new = found.is_some_and(|(_, name)| name == unwritten);
                return Err(if is_new { KeyStoreError::RecoveryGone } else { e });
            }
            found => found?,
        };
        Ok(*self.rec.insert(rec))
    }

    pub(crate) fn set_auth(&mut self, handle: ObjectHandle, auth: &[u8], step: &'static str) -> Result<()> {
        let auth = Auth::try_from(auth.to_vec()).during(step)?;
        self.tpm.tr_set_auth(handle, auth).during(step)
    }
}

/// V refused the secret that the PIN unmasked: the PIN index accepted a PIN that set-up never knew.
pub(crate) fn forged(code: Code) -> Option<KeyStoreError> {
    matches!(code, Code::AuthFail | Code::BadAuth)
        .then_some(KeyStoreError::Replaced { what: "the PIN index" })
}

/// Finds an index and holds its Name against what set-up made. Nothing vouches for a bad answer.
pub(crate) fn find_index(tpm: &mut Connection, index: &NvIndex, what: &'static str) -> Result<NvIndexHandle> {
    let step = "finding an index";
    let handle = NvIndexTpmHandle::new(index.index).during(step)?;
    let object = match tpm.execute_without_session(|c| c.tr_from_tpm_public(handle.into())) {
        Ok(object) => object,
        Err(e) if matches!(code(e), Some(Code::Handle)) => return Err(KeyStoreError::Erased),
        Err(e) => return Err(failed(step, e)),
    };
    if tpm.tr_get_name(object).during(step)?.value() == index.written().as_slice() {
        return Ok(object.into());
    }
    tpm.forget(object)?;
    Err(KeyStoreError::Replaced { what })
}
