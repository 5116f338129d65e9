use sha2::{Digest, Sha256};

use crate::{
    Secret,
    container::{
        Account, AccountId, ContainerError, Damage, Deed, Extras, LastUse, Refusal, Settings, Store, Subject,
        Takes,
    },
    keystore::{KeyBlob, KeyStoreError, PresenceParent, PublicKey, Signature, Then, UnlockedKeys},
    pin::PinSecrets,
    text::kept,
    vault::{CeremonyError, VaultError, refused},
    webauthn::{
        Attestation, Attested, AuthenticationResponse, AuthenticatorData, ClientDataHash, CreateRequest,
        CredentialId, GetRequest, Protection, Registered, RegistrationResponse, RpId, User, UserPresent,
        UserVerified, client_data_json,
    },
};

/// What a new passkey is for.
#[derive(Clone, Debug)]
pub struct NewCredential<'a> {
    /// The relying party that it signs in to.
    pub rp_id: &'a RpId,
    /// The relying party's name for itself.
    pub rp_name: &'a str,
    /// The account.
    pub user: &'a User,
    /// Whether it should vouch for itself.
    pub attestation: Attestation,
    /// Whether it is offered where the relying party names no credential.
    pub discoverable: bool,
    /// What the relying party asked of user verification.
    pub protection: Protection,
    /// Authenticator extension outputs (WebAuthn Level 3 §9.4), a map; null for none.
    pub extensions: &'a ciborium::Value,
    /// What is kept with it.
    pub extras: Extras,
    /// What it takes to use it.
    pub takes: Takes,
    /// The passkey whose place it takes (CTAP 2.2 §6.1.2 step 16), if any.
    pub replacing: Option<AccountId>,
}

/// A sign-in that is asked for.
#[derive(Clone, Copy, Debug)]
pub struct WantedAssertion<'a> {
    /// The relying party.
    pub rp_id: &'a RpId,
    /// Which of its passkeys.
    pub id: AccountId,
    /// The client data's hash.
    pub client_data: &'a ClientDataHash,
    /// Authenticator extension outputs (WebAuthn Level 3 §9.4), a map; null for none.
    pub extensions: &'a ciborium::Value,
}

/// A passkey that was just made.
#[derive(Debug)]
pub struct MadeCredential {
    /// Its number in the vault.
    pub id: AccountId,
    /// Its credential ID.
    pub credential_id: CredentialId,
    /// Its public key.
    pub key: PublicKey,
    /// What the relying party gets.
    pub attested: Attested,
}

/// A sign-in.
#[derive(Debug)]
pub struct Assertion {
    /// The passkey.
    pub account: Account,
    /// What was signed, with the client data's hash.
    pub data: AuthenticatorData,
    /// The signature.
    pub signature: Signature,
}

/// A vault whose PIN the TPM has just accepted, for one operation.
pub struct Unlocked<'v> {
    pub(super) store: &'v mut Store,
    pub(super) keys: Box<dyn UnlockedKeys + 'v>,
    pub(super) proven: PinSecrets,
    verified: UserVerified,
}

impl<'v> Unlocked<'v> {
    pub(super) fn new(store: &'v mut Store, keys: Box<dyn UnlockedKeys + 'v>, proven: &PinSecrets) -> Self {
        Self { store, keys, proven: proven.clone(), verified: UserVerified::by_the_tpm() }
    }

    /// Makes a passkey (WebAuthn Level 3 §6.3.2) for the client data that `client_data` is the hash of. It is stored, and the
    /// TPM knows of it, before this returns. `now` is in seconds since 1970.
    pub fn make_credential(
        self,
        new: NewCredential<'_>,
        client_data: &ClientDataHash,
        present: UserPresent,
        now: u64,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<MadeCredential, CeremonyError> {
        let Self { store, mut keys, verified, .. } = self;
        no_pin_change_due(store, Deed::Enrol, || Subject::new(None, new.rp_id, &new.user.name))?;
        // Whichever way it came, and whatever was looked at before the PIN.
        if let Err(forbidden) = store.settings()?.rules.allow(new.rp_id) {
            refused(store, Deed::Enrol, Refusal::Rule, Some(Subject::new(None, new.rp_id, &new.user.name)));
            return Err(forbidden);
        }
        let parent = parent(store, new.takes)?;
        let key = keys.create_key(parent.as_ref())?;
        let id = CredentialId::random(rng);
        let (rp_id, kind, public) = (new.rp_id, store.kind(), &key.public);
        // Whoever uses such a passkey is not verified, so whoever makes it is not said to be.
        let verified = Some(verified).filter(|_| parent.is_none());
        let data =
            AuthenticatorData::for_registration(rp_id, kind, &id, public, new.extensions, verified, present);
        let digest = data.digest_to_sign(client_data);
        let signature = match new.attestation {
            Attestation::None => None,
            Attestation::PackedSelf => Some(match &parent {
                None => keys.sign(&key.blob, &digest, Then::Continue)?,
                Some(parent) => keys.sign_present(parent, &key.blob, &digest)?,
            }),
        };
        if let Some(signature) = &signature {
            verify(&key.public, &digest, signature)?;
        }
        let account = Account {
            rp_id: new.rp_id.clone(),
            rp_name: kept(new.rp_name),
            user_handle: new.user.handle.clone(),
            user_name: kept(&new.user.name),
            display_name: kept(&new.user.display_name),
            label: None,
            credential_id: id,
            discoverable: new.discoverable,
            protection: new.protection,
            key: key.blob,
            public_key: key.public.to_sec1_point(true).as_bytes().to_vec(),
            created: now,
            extras: new.extras,
            takes: new.takes,
            binned: None,
        };
        let id = store.replace(new.replacing, &account, rng)?;
        keys.commit_generation(store.generation(), Then::End)?;
        let Account { credential_id, .. } = account;
        Ok(MadeCredential { id, credential_id, key: key.public, attested: Attested { data, signature } })
    }

    /// Makes an HMAC key for [`Extras::prf`].
    pub fn create_prf(&mut self, takes: Takes) -> Result<KeyBlob, CeremonyError> {
        let parent = parent(self.store, takes)?;
        Ok(self.keys.create_prf(parent.as_ref())?)
    }

    /// HMAC-SHA256 of each salt under such a key (CTAP 2.2 §12.7).
    pub fn prf(
        &mut self,
        takes: Takes,
        key: &KeyBlob,
        salts: &[Secret],
    ) -> Result<Vec<Secret>, CeremonyError> {
        if self.store.settings()?.pin_change_due {
            return Err(CeremonyError::PinChangeDue);
        }
        let parent = parent(self.store, takes)?;
        Ok(self.keys.prf(parent.as_ref(), key, salts)?)
    }

    /// Signs in with a passkey (§6.3.3). Without `present` the assertion says that nobody confirmed. `now` is in seconds since
    /// 1970.
    pub fn get_assertion(
        self,
        wanted: WantedAssertion<'_>,
        present: Option<UserPresent>,
        now: u64,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<Assertion, CeremonyError> {
        let Self { store, mut keys, verified, .. } = self;
        let WantedAssertion { rp_id, id, client_data, extensions } = wanted;
        let account = store.account(id)?;
        no_pin_change_due(store, Deed::Sign, || Subject::of(id, &account))?;
        if account.rp_id != *rp_id || account.takes != Takes::Pin {
            return Err(CeremonyError::NotAllowed);
        }
        let data = AuthenticatorData::for_assertion(rp_id, extensions, Some(verified), present);
        let digest = data.digest_to_sign(client_data);
        let signature = keys.sign(&account.key, &digest, Then::End)?;
        let made = Assertion::verified(id, account, data, signature, &digest)?;
        note_use(store, id, &made.account, now, rng);
        Ok(made)
    }

    /// Makes a passkey as `request` asks, in the place of `replacing` if there is one, and answers it as a WebAuthn client does.
    pub fn enroll(
        self,
        request: &CreateRequest,
        replacing: Option<AccountId>,
        present: UserPresent,
        now: u64,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<(AccountId, RegistrationResponse), CeremonyError> {
        if self.store.accounts_of(&request.rp_id)?.iter().any(|(_, a)| request.excludes(&a.credential_id)) {
            let subject = Subject::new(None, &request.rp_id, &request.user.name);
            refused(self.store, Deed::Enrol, Refusal::Excluded, Some(subject));
            return Err(CeremonyError::Excluded);
        }
        let client_data_json = client_data_json("webauthn.create", &request.challenge, &request.origin);
        let new = NewCredential {
            rp_id: &request.rp_id,
            rp_name: &request.rp_name,
            user: &request.user,
            attestation: request.attestation,
            discoverable: true,
            protection: Protection::Required,
            extensions: &ciborium::Value::Null,
            extras: Extras::default(),
            takes: Takes::Pin,
            replacing,
        };
        let made = self.make_credential(new, &Sha256::digest(&client_data_json).into(), present, now, rng)?;
        let response = Registered {
            id: &made.credential_id,
            key: &made.key,
            attested: &made.attested,
            client_data_json: &client_data_json,
            cred_props: request.cred_props,
        };
        Ok((made.id, response.into()))
    }

    /// Signs in as `request` asks, and answers it as a WebAuthn client does.
    pub fn sign(
        self,
        request: &GetRequest,
        id: AccountId,
        present: UserPresent,
        now: u64,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<AuthenticationResponse, CeremonyError> {
        if !request.allows(&self.store.account(id)?) {
            return Err(CeremonyError::NotAllowed);
        }
        let client_data_json = client_data_json("webauthn.get", &request.challenge, &request.origin);
        let client_data = Sha256::digest(&client_data_json).into();
        let extensions = &ciborium::Value::Null;
        let wanted = WantedAssertion { rp_id: &request.rp_id, id, client_data: &client_data, extensions };
        let made = self.get_assertion(wanted, Some(present), now, rng)?;
        Ok(AuthenticationResponse::new(&made, &client_data_json))
    }

    /// What `told` makes of each passkey, those in the bin too, and its last use, oldest first; of a file that the TPM says is
    /// the newest.
    pub fn inventory<T>(self, told: impl Fn(AccountId, Account, LastUse) -> T) -> Result<Vec<T>, VaultError> {
        // Nothing leaves unseen, and no older file hides it.
        self.store.note(Deed::Export, None);
        self.change(|store| {
            let all = store.each(|id, account, last| Some(told(id, account, last)))?;
            store.commit_log()?;
            Ok(all)
        })
    }

    /// Moves a passkey to the bin, where it cannot be used. `now` is in seconds since 1970: what has been there for
    /// [`BIN_KEEPS`](crate::container::BIN_KEEPS) is removed for good.
    pub fn delete(
        self,
        id: AccountId,
        now: u64,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<Account, VaultError> {
        self.change(|store| store.move_to_bin(id, now, rng))
    }

    /// Takes a passkey out of the bin.
    pub fn undelete(self, id: AccountId, rng: &mut dyn rand_core::CryptoRng) -> Result<Account, VaultError> {
        self.change(|store| store.take_from_bin(id, rng))
    }

    /// Removes what is in the bin for good.
    pub fn empty_bin(self) -> Result<Vec<(AccountId, Account)>, VaultError> {
        self.change(Store::empty_bin)
    }

    /// Lets passkeys be made that take no PIN, or no more of them (CTAP 2.2 §6.11.3). Those that are there stay what they are.
    pub fn set_always_uv(
        mut self,
        always_uv: bool,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<(), VaultError> {
        let mut settings = self.store.settings()?;
        settings.always_uv = always_uv;
        if !always_uv && settings.presence_parent.is_none() {
            settings.presence_parent = Some(self.keys.create_presence_parent()?);
        }
        self.configure(&settings, rng)
    }

    /// What the vault keeps besides its passkeys.
    pub fn settings(&self) -> Result<Settings, ContainerError> {
        self.store.settings()
    }

    /// Replaces what the vault keeps besides its passkeys.
    pub fn configure(
        self,
        settings: &Settings,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<(), VaultError> {
        self.store.note(Deed::Configure, None);
        self.change(|store| store.set_settings(settings, rng))
    }

    /// A change in the file that the TPM is told of.
    pub(super) fn change<T>(
        mut self,
        change: impl FnOnce(&mut Store) -> Result<T, ContainerError>,
    ) -> Result<T, VaultError> {
        // Nothing else here uses the vault key, and without it a PIN index that somebody replaced would do.
        self.keys.confirm()?;
        let done = change(self.store)?;
        self.keys.commit_generation(self.store.generation(), Then::End)?;
        Ok(done)
    }
}

/// Before the signature is given out. A full disk must not keep anybody from signing in.
pub(super) fn note_use(
    store: &mut Store,
    id: AccountId,
    account: &Account,
    now: u64,
    rng: &mut dyn rand_core::CryptoRng,
) {
    store.note(Deed::Sign, Some(Subject::of(id, account)));
    store.note_use(id, now, rng).ok();
}

fn no_pin_change_due(
    store: &mut Store,
    deed: Deed,
    subject: impl FnOnce() -> Subject,
) -> Result<(), CeremonyError> {
    if !store.settings()?.pin_change_due {
        return Ok(());
    }
    refused(store, deed, Refusal::PinChangeDue, Some(subject()));
    Err(CeremonyError::PinChangeDue)
}

fn parent(store: &Store, takes: Takes) -> Result<Option<PresenceParent>, CeremonyError> {
    match takes {
        Takes::Pin => Ok(None),
        Takes::Presence => presence_parent(store).map(Some),
    }
}

pub(super) fn presence_parent(store: &Store) -> Result<PresenceParent, CeremonyError> {
    store.settings()?.presence_parent.ok_or(CeremonyError::NotAllowed)
}

impl Assertion {
    pub(super) fn verified(
        id: AccountId,
        account: Account,
        data: AuthenticatorData,
        signature: Signature,
        digest: &[u8; 32],
    ) -> Result<Self, CeremonyError> {
        let public = account.public_key().ok_or(ContainerError::from(Damage::Row(id)))?;
        verify(&public, digest, &signature)?;
        Ok(Self { account, data, signature })
    }
}

/// No signature leaves that its key did not make: whatever happened on the bus, or to a stored blob.
fn verify(public: &PublicKey, digest: &[u8; 32], signature: &Signature) -> Result<(), KeyStoreError> {
    use p256::ecdsa::signature::hazmat::PrehashVerifier;
    public.verify_prehash(digest, signature).map_err(|_| KeyStoreError::BadSignature)
}
