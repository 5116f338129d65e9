use secrecy::{ExposeSecret, SecretSlice};
use tss_esapi::{
    WrapperErrorKind,
    constants::{CapabilityType, PropertyTag},
    handles::TpmHandle,
    structures::{Auth, CapabilityData},
};
use vault_core::{
    RecoverySecrets, Secret,
    keystore::{
        Anchor, ContainerKey, Erased, KeyBlob, KeyStore, KeyStoreError, Mandate, PresenceParent, Provisioned,
        RecordAnchor, Signature, TpmStatus, UnlockedKeys,
    },
    pin::PinSecrets,
    secret_from, wipe_stack,
};

use crate::{
    address::Address,
    connection::{Leftovers, Route},
    erase,
    error::{During, Result, lost_a_reply, with_recovery},
    link::Link,
    presence, provision, recovery, status,
    unlocked::UnlockedTpm,
};

/// `TPM2_GetCapability(TPM_CAP_HANDLES)` from these on (Part 2 §6.12): what is loaded in the TPM now.
const LOADED: [u32; 2] = [0x8000_0000, 0x0200_0000];

/// A TPM that holds vaults.
///
/// A connection is made when the first command needs it and dropped, with everything it holds in the TPM,
/// when an operation ends or fails.
pub struct Tpm {
    pub(crate) route: Route,
    owner_auth: Option<SecretSlice<u8>>,
    link: Option<Link>,
    /// Of the vault last opened, where it is kept.
    container_key: Option<(Anchor, ContainerKey)>,
}

impl Tpm {
    /// A TPM at `address`; nothing is sent to it yet.
    #[must_use]
    pub fn new(address: Address) -> Self {
        let route = Route { address, leftovers: Leftovers::default(), keeps: false };
        Self { route, owner_auth: None, link: None, container_key: None }
    }

    /// For a process that goes on: what an operation has loaded and proven is kept for the next one, across vaults being
    /// opened and closed, until [`Tpm::park`]. Who keeps others out of the TPM meanwhile is up to the caller.
    #[must_use]
    pub fn keeping(mut self) -> Self {
        self.route.keeps = true;
        self
    }

    /// Unloads what was kept, and forgets the PIN. What needs no PIN is still remembered: where the vault's objects are, and
    /// the container key.
    pub fn park(&mut self) {
        if self.link.as_mut().is_some_and(|link| link.park().is_err()) {
            self.route.leftovers.suspect();
            self.close();
        }
    }

    /// Where it is.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.route.address
    }

    /// Gives the TPM's owner authorization, where it is set: set-up and wipe need it, and the count of
    /// wrong PINs is only shown with it.
    pub fn set_owner_auth(&mut self, auth: SecretSlice<u8>) {
        self.owner_auth = Some(auth);
        self.close();
    }

    pub(crate) fn owner_auth(&self) -> Result<Option<Auth>> {
        let Some(auth) = &self.owner_auth else { return Ok(None) };
        Auth::try_from(auth.expose_secret().to_vec()).map(Some).map_err(|_| KeyStoreError::OwnerAuthWrong)
    }

    /// Runs `operation` on the vault's link, made if need be.
    pub(crate) fn on_link<T>(
        &mut self,
        anchor: &Anchor,
        operation: impl FnOnce(&mut Link) -> Result<T>,
    ) -> Result<T> {
        self.guarded(|tpm| match tpm.link.take() {
            Some(link) if link.is_for(anchor) => {
                let link = tpm.link.insert(link);
                link.resume()?;
                operation(link)
            }
            other => {
                drop(other);
                let owner = tpm.owner_auth()?;
                let link = Link::open(&tpm.route, anchor, owner.as_ref())?;
                operation(tpm.link.insert(link))
            }
        })
    }

    /// Runs `operation` so that nothing stays in the TPM if it fails.
    pub(crate) fn guarded<T>(&mut self, operation: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.route.leftovers.may_be() {
            // What it holds would be swept away with the rest.
            self.link = None;
            self.sweep()?;
        }
        let result = operation(self);
        wipe_stack();
        let Err(error) = result else { return result };
        (self.link, self.container_key) = (None, None);
        if lost_a_reply(&error) || self.may_be_cleared(&error) {
            self.route.leftovers.suspect();
        }
        self.close();
        Err(with_recovery(error, || status::lockout_recovery(&self.route)))
    }

    /// Whether what is loaded may be cleared away in a TPM that says it is full.
    fn may_be_cleared(&self, error: &KeyStoreError) -> bool {
        let KeyStoreError::Exhausted { .. } = error else { return false };
        // The kernel lets one program at a time open a device that has no resource manager: what fills it was left by
        // programs that are dead. A simulator has many clients, and no way to tell whose is what.
        // One that is not full, or cannot even be asked, did not say so.
        self.route.address.device().is_some() || self.has_room().unwrap_or(true)
    }

    fn has_room(&self) -> Result<bool> {
        let changing = status::properties(&mut self.route.connect()?, PropertyTag::Permanent)?;
        Ok(status::has_room(&changing))
    }

    /// Ends the link and flushes what it holds.
    pub(crate) fn close(&mut self) {
        self.link = None;
        if self.route.leftovers.may_be() {
            // If the TPM cannot be reached even for this, the next operation tries again first.
            drop(self.sweep());
        }
    }

    /// Flushes everything that is loaded where we can see it. Behind a resource manager that is only what
    /// is ours; without one, the TPM has no other user than us.
    fn sweep(&mut self) -> Result<()> {
        let step = "clearing up after a failure";
        let mut tpm = self.route.connect()?;
        for first in LOADED {
            let (loaded, _) = tpm
                .execute_without_session(|c| c.get_capability(CapabilityType::Handles, first, 64))
                .during(step)?;
            let CapabilityData::Handles(handles) = loaded else { continue };
            for handle in handles.into_inner() {
                flush(&mut tpm, handle).during(step)?;
            }
        }
        self.route.leftovers.are_cleared();
        Ok(())
    }
}

impl Drop for Tpm {
    fn drop(&mut self) {
        self.close();
    }
}

fn copy(key: &ContainerKey) -> ContainerKey {
    secret_from(|out| out.copy_from_slice(key.expose_secret()))
}

fn flush(ctx: &mut tss_esapi::Context, handle: TpmHandle) -> tss_esapi::Result<()> {
    let object = ctx.execute_without_session(|c| c.tr_from_tpm_public(handle))?;
    match ctx.flush_context(object) {
        // tss-esapi takes a session found by its handle for one to be closed; it is flushed by now.
        Err(tss_esapi::Error::WrapperError(WrapperErrorKind::InvalidHandleState)) => Ok(()),
        result => result,
    }
}

impl KeyStore for Tpm {
    fn provision(
        &mut self,
        pin: &PinSecrets,
        key: &ContainerKey,
        record: &mut RecordAnchor<'_>,
    ) -> Result<Provisioned> {
        self.close();
        self.guarded(|tpm| provision::provision(&tpm.route, tpm.owner_auth()?.as_ref(), pin, key, record))
    }

    fn container_key(&mut self, anchor: &Anchor) -> Result<ContainerKey> {
        if let Some((of, key)) = &self.container_key
            && of == anchor
        {
            return Ok(copy(key));
        }
        let key = self.on_link(anchor, Link::container_key)?;
        if self.route.keeps {
            self.container_key = Some((anchor.clone(), copy(&key)));
        }
        Ok(key)
    }

    fn unlock<'a>(&'a mut self, anchor: &Anchor, pin: &PinSecrets) -> Result<Box<dyn UnlockedKeys + 'a>> {
        Ok(Box::new(UnlockedTpm::unlock(self, anchor, pin)?))
    }

    fn check_recovery(&mut self, anchor: &Anchor, code: &RecoverySecrets) -> Result<()> {
        self.on_link(anchor, |link| recovery::redeem(link, code).map(drop))
    }

    fn reset_pin<'a>(
        &'a mut self,
        anchor: &Anchor,
        code: &RecoverySecrets,
        new: &PinSecrets,
    ) -> Result<Box<dyn UnlockedKeys + 'a>> {
        recovery::reset(self, anchor, code, new)?;
        self.unlock(anchor, new)
    }

    fn sign_present(
        &mut self,
        anchor: &Anchor,
        parent: &PresenceParent,
        key: &KeyBlob,
        digest: &[u8; 32],
    ) -> Result<Signature> {
        self.on_link(anchor, |link| presence::sign(link, parent, key, digest))
    }

    fn prf_present(
        &mut self,
        anchor: &Anchor,
        parent: &PresenceParent,
        key: &KeyBlob,
        salts: &[Secret],
    ) -> Result<Vec<Secret>> {
        self.on_link(anchor, |link| presence::prf(link, parent, key, salts))
    }

    fn status(&mut self, anchor: Option<&Anchor>) -> Result<TpmStatus> {
        // A device without a resource manager is opened once at a time, so a vault's link is used if there is one.
        if let Some(anchor) = anchor {
            let owner = self.owner_auth()?;
            return self.on_link(anchor, |link| status::status(link, owner.as_ref()));
        }
        self.close();
        self.guarded(|tpm| Ok(status::describe(&mut tpm.route.connect()?)?.into()))
    }

    fn release(&mut self) {
        if !self.route.keeps {
            self.close();
        }
    }

    fn erase(&mut self, anchor: &Anchor, mandate: Mandate) -> Result<Erased> {
        // A link may have found indices that are not there any more.
        self.close();
        let owner = self.owner_auth()?;
        let erased = self.on_link(anchor, |link| erase::erase(link, owner.as_ref(), mandate));
        self.container_key = None;
        self.close();
        erased
    }
}
