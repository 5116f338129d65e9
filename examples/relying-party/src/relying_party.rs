//! The ceremonies, without HTTP.

use std::collections::HashMap;

use base64ct::{Base64UrlUnpadded, Encoding};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use webauthn_rs::prelude::{
    AuthenticationResult, CreationChallengeResponse, DiscoverableAuthentication, Passkey,
    PasskeyAuthentication, PasskeyRegistration, PublicKeyCredential, RegisterPublicKeyCredential, Url, Uuid,
    Webauthn, WebauthnBuilder, WebauthnError, WebauthnResult,
};
use webauthn_rs_proto::ResidentKeyRequirement;

use crate::{FinishError, OriginError, StartError};

/// A relying party with its accounts in memory. Its RP ID is the host name of its origin; it requires user
/// verification and discoverable credentials.
///
/// One registration and one sign-in per user wait for an answer, and one sign-in without a user. A new start
/// replaces the old one; an answer spends the challenge whether it is right or wrong.
#[derive(Debug)]
pub struct RelyingParty {
    webauthn: Webauthn,
    accounts: HashMap<String, Account>,
    registrations: HashMap<String, Registration>,
    logins: HashMap<String, PasskeyAuthentication>,
    discoverable_login: Option<DiscoverableAuthentication>,
}

impl RelyingParty {
    /// A relying party at `origin`, like `http://localhost:8080`.
    pub fn new(origin: &str) -> Result<Self, OriginError> {
        let no_host_name = || OriginError::NoHostName(origin.to_owned());
        let url = Url::parse(origin).map_err(|_| no_host_name())?;
        let rp_id = url.domain().ok_or_else(no_host_name)?;
        let webauthn = WebauthnBuilder::new(rp_id, &url)
            .and_then(|builder| builder.rp_name("Passhold example").build())
            .map_err(OriginError::Refused)?;
        Ok(Self {
            webauthn,
            accounts: HashMap::new(),
            registrations: HashMap::new(),
            logins: HashMap::new(),
            discoverable_login: None,
        })
    }

    /// `{"publicKey": PublicKeyCredentialCreationOptionsJSON}` for a new passkey of `user`, who need not exist.
    pub fn start_registration(&mut self, user: &str) -> Result<Value, StartError> {
        let account = self.accounts.get(user).cloned().unwrap_or_else(Account::new);
        let registered = account.passkeys.iter().map(|passkey| passkey.cred_id().clone()).collect();
        let (mut options, state) = self
            .webauthn
            .start_passkey_registration(account.user_handle, user, user, Some(registered))
            .map_err(StartError::Options)?;
        require_discoverable(&mut options);
        let json = to_json(&options)?;
        self.registrations.insert(user.to_owned(), Registration { user_handle: account.user_handle, state });
        Ok(json)
    }

    /// Takes the `RegistrationResponseJSON` for the last [`Self::start_registration`] of `user`.
    pub fn finish_registration(&mut self, user: &str, response: &Value) -> Result<(), FinishError> {
        let response = RegisterPublicKeyCredential::deserialize(response).map_err(FinishError::Malformed)?;
        check_envelope(&response.type_, &response.id, &response.raw_id)?;
        let Registration { user_handle, state } =
            self.registrations.remove(user).ok_or(FinishError::NotStarted)?;
        // Before webauthn-rs looks: it names an excluded credential an algorithm mismatch, and it can't know
        // of other users' credentials (WebAuthn L3 §7.1 step 26).
        if self.accounts.values().any(|account| account.passkey(&response.raw_id).is_some()) {
            return Err(FinishError::AlreadyRegistered);
        }
        let passkey =
            self.webauthn.finish_passkey_registration(&response, &state).map_err(FinishError::Refused)?;
        self.accounts
            .entry(user.to_owned())
            .or_insert(Account { user_handle, passkeys: Vec::new() })
            .passkeys
            .push(passkey);
        Ok(())
    }

    /// `{"publicKey": PublicKeyCredentialRequestOptionsJSON}` that allows the passkeys of `user`.
    pub fn start_login(&mut self, user: &str) -> Result<Value, StartError> {
        let account = self.accounts.get(user).ok_or_else(|| StartError::UnknownUser(user.to_owned()))?;
        let (options, state) =
            self.webauthn.start_passkey_authentication(&account.passkeys).map_err(StartError::Options)?;
        let json = to_json(&options)?;
        self.logins.insert(user.to_owned(), state);
        Ok(json)
    }

    /// Takes the `AuthenticationResponseJSON` for the last [`Self::start_login`] of `user`.
    pub fn finish_login(&mut self, user: &str, response: &Value) -> Result<(), FinishError> {
        let response = parse_assertion(response)?;
        let state = self.logins.remove(user).ok_or(FinishError::NotStarted)?;
        let account = self.accounts.get_mut(user).ok_or(FinishError::NotStarted)?;
        // WebAuthn L3 §7.2 step 6: webauthn-rs leaves the user handle to its caller.
        if response.get_user_unique_id().is_some_and(|handle| handle != account.user_handle.as_bytes()) {
            return Err(FinishError::WrongUserHandle);
        }
        let result = self.webauthn.finish_passkey_authentication(&response, &state);
        account.record(result)
    }

    /// `{"publicKey": PublicKeyCredentialRequestOptionsJSON}` with an empty `allowCredentials`: the answer says
    /// who signs in.
    pub fn start_discoverable_login(&mut self) -> Result<Value, StartError> {
        let (mut options, state) =
            self.webauthn.start_discoverable_authentication().map_err(StartError::Options)?;
        // `mediation` is for a page's autofill and no part of the options JSON.
        options.mediation = None;
        let json = to_json(&options)?;
        self.discoverable_login = Some(state);
        Ok(json)
    }

    /// Takes the `AuthenticationResponseJSON` for the last [`Self::start_discoverable_login`]; returns the user
    /// it signs in.
    pub fn finish_discoverable_login(&mut self, response: &Value) -> Result<String, FinishError> {
        let response = parse_assertion(response)?;
        let state = self.discoverable_login.take().ok_or(FinishError::NotStarted)?;
        let handle = response.get_user_unique_id();
        let (user, account) = self
            .accounts
            .iter_mut()
            .find(|(_, account)| handle == Some(account.user_handle.as_bytes().as_slice()))
            .ok_or(FinishError::UnknownUserHandle)?;
        let passkey = account
            .passkey(response.get_credential_id())
            .ok_or(FinishError::Refused(WebauthnError::CredentialNotFound))?;
        let result = self.webauthn.finish_discoverable_authentication_v2(&response, state, passkey);
        account.record(result)?;
        Ok(user.clone())
    }
}

/// A registration that waits for its answer.
#[derive(Debug)]
struct Registration {
    user_handle: Uuid,
    state: PasskeyRegistration,
}

#[derive(Clone, Debug)]
struct Account {
    user_handle: Uuid,
    passkeys: Vec<Passkey>,
}

impl Account {
    fn new() -> Self {
        Self { user_handle: Uuid::new_v4(), passkeys: Vec::new() }
    }

    fn passkey(&self, credential_id: &[u8]) -> Option<&Passkey> {
        self.passkeys.iter().find(|passkey| passkey.cred_id().as_slice() == credential_id)
    }

    /// Keeps the new signature counter, so that a clone of the credential is noticed.
    fn record(&mut self, result: WebauthnResult<AuthenticationResult>) -> Result<(), FinishError> {
        let result = result.map_err(FinishError::Refused)?;
        for passkey in &mut self.passkeys {
            passkey.update_credential(&result);
        }
        Ok(())
    }
}

/// webauthn-rs asks for passkeys with `residentKey: "discouraged"`; sign-in without a user needs the opposite.
fn require_discoverable(options: &mut CreationChallengeResponse) {
    if let Some(selection) = &mut options.public_key.authenticator_selection {
        selection.resident_key = Some(ResidentKeyRequirement::Required);
        selection.require_resident_key = true;
    }
}

fn parse_assertion(response: &Value) -> Result<PublicKeyCredential, FinishError> {
    let response = PublicKeyCredential::deserialize(response).map_err(FinishError::Malformed)?;
    check_envelope(&response.type_, &response.id, &response.raw_id)?;
    Ok(response)
}

/// The members webauthn-rs reads but never checks (WebAuthn L3 §5.1).
fn check_envelope(credential_type: &str, id: &str, raw_id: &[u8]) -> Result<(), FinishError> {
    if credential_type != "public-key" {
        return Err(FinishError::CredentialType(credential_type.to_owned()));
    }
    if id != Base64UrlUnpadded::encode_string(raw_id) {
        return Err(FinishError::IdMismatch);
    }
    Ok(())
}

fn to_json(options: &impl Serialize) -> Result<Value, StartError> {
    serde_json::to_value(options).map_err(StartError::Json)
}
