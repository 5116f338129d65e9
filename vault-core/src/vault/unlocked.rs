use crate::{
    container::{Account, AccountId, ContainerError, Damage, Store},
    keystore::{CreatedKey, KeyStoreError, PublicKey, Signature, Then, UnlockedKeys},
    pin::{PinMaterial, PinSecrets},
    vault::{CeremonyError, VaultError},
    webauthn::{
        Attestation, AuthenticationResponse, AuthenticatorData, CreateRequest, CredentialId, GetRequest,
        Registered, RegistrationResponse, UserPresent, UserVerified, attestation_object, client_data_json,
        digest_to_sign, none_statement, packed_self_statement,
    },
};

/// A vault whose PIN the TPM has just accepted, for one operation.
pub struct Unlocked<'v> {
    store: &'v mut Store,
    keys: Box<dyn UnlockedKeys + 'v>,
    verified: UserVerified,
}

impl<'v> Unlocked<'v> {
    pub(super) fn new(store: &'v mut Store, keys: Box<dyn UnlockedKeys + 'v>) -> Self {
        Self { store, keys, verified: UserVerified::by_the_tpm() }
    }

    /// Makes a passkey (WebAuthn Level 3 §6.3.2). It is stored, and the TPM knows of it, before the
    /// response is returned. `now` is in seconds since 1970.
    pub fn enroll(
        self,
        request: &CreateRequest,
        present: UserPresent,
        now: u64,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<(AccountId, RegistrationResponse), CeremonyError> {
        let Self { store, mut keys, verified } = self;
        if store.accounts_of(&request.rp_id)?.iter().any(|(_, a)| request.excludes(&a.credential_id)) {
            return Err(CeremonyError::Excluded);
        }
        let key = keys.create_key()?;
        let id = CredentialId::random(rng);
        let kind = store.kind();
        let data =
            AuthenticatorData::for_registration(&request.rp_id, kind, &id, &key.public, verified, present);
        let client_data_json = client_data_json("webauthn.create", &request.challenge, &request.origin);
        let statement = match request.attestation {
            Attestation::None => none_statement(),
            Attestation::PackedSelf => {
                let digest = digest_to_sign(&data, &client_data_json);
                packed_self_statement(&sign(keys.as_mut(), &key, &digest)?)
            }
        };
        let account = Account {
            rp_id: request.rp_id.clone(),
            rp_name: request.rp_name.clone(),
            user_handle: request.user.handle.clone(),
            user_name: request.user.name.clone(),
            display_name: request.user.display_name.clone(),
            label: None,
            credential_id: id,
            key: key.blob,
            public_key: key.public.to_sec1_point(true).as_bytes().to_vec(),
            created: now,
        };
        let account_id = store.insert(&account, rng)?;
        keys.commit_generation(store.generation(), Then::End)?;
        let response = Registered {
            id: &account.credential_id,
            key: &key.public,
            data: &data,
            attestation_object: &attestation_object(&data, statement),
            client_data_json: &client_data_json,
            cred_props: request.cred_props,
        };
        Ok((account_id, response.into()))
    }

    /// Signs in with one passkey (§6.3.3).
    pub fn sign(
        self,
        request: &GetRequest,
        id: AccountId,
        present: UserPresent,
    ) -> Result<AuthenticationResponse, CeremonyError> {
        let Self { store, mut keys, verified } = self;
        let account = store.account(id)?;
        if account.rp_id != request.rp_id || !request.allows(&account.credential_id) {
            return Err(CeremonyError::NotAllowed);
        }
        let data = AuthenticatorData::for_assertion(&request.rp_id, verified, present);
        let client_data_json = client_data_json("webauthn.get", &request.challenge, &request.origin);
        let digest = digest_to_sign(&data, &client_data_json);
        let signature = keys.sign(&account.key, &digest, Then::End)?;
        let public = account.public_key().ok_or(ContainerError::from(Damage::Row(id)))?;
        check(&public, &digest, &signature)?;
        let (id, user) = (&account.credential_id, &account.user_handle);
        Ok(AuthenticationResponse::new(id, user, &data, &client_data_json, &signature))
    }

    /// Deletes a passkey.
    pub fn delete(mut self, id: AccountId) -> Result<(), VaultError> {
        // Nothing else here uses the vault key, and without it a PIN index that somebody replaced would do.
        self.keys.confirm()?;
        self.store.remove(id)?;
        Ok(self.keys.commit_generation(self.store.generation(), Then::End)?)
    }

    /// Replaces the PIN. The container is not touched.
    pub fn change_pin(self, new: &PinMaterial) -> Result<(), VaultError> {
        Ok(self.keys.change_pin(&PinSecrets::derive(new, self.store.vault_id()))?)
    }
}

fn sign(
    keys: &mut dyn UnlockedKeys,
    key: &CreatedKey,
    digest: &[u8; 32],
) -> Result<Signature, KeyStoreError> {
    let signature = keys.sign(&key.blob, digest, Then::Continue)?;
    check(&key.public, digest, &signature)?;
    Ok(signature)
}

/// No signature leaves that its key did not make: whatever happened on the bus, or to a stored blob.
fn check(key: &PublicKey, digest: &[u8; 32], signature: &Signature) -> Result<(), KeyStoreError> {
    use p256::ecdsa::signature::hazmat::PrehashVerifier;
    key.verify_prehash(digest, signature).map_err(|_| KeyStoreError::BadSignature)
}
