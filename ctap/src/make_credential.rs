use ciborium::Value;
use vault_core::{
    NewCredential,
    container::{Deed, Refusal, Subject, Takes},
    webauthn::{Attestation, ClientDataHash, Protection, RpId, User},
};

use crate::{
    Ask, Authenticator, Env, Status,
    cbor::{Map, bytes, map},
    extensions::{Made, OnMake},
    failure::Result,
    parameters::{self, Options, PinUvAuth},
    token::Permissions,
    touch,
    verification::{self, UvError, Verification},
};

struct Request {
    client_data: ClientDataHash,
    rp_id: RpId,
    rp_name: String,
    user: User,
    takes_es256: bool,
    exclude: Vec<Vec<u8>>,
    options: Options,
    auth: Option<PinUvAuth>,
    extensions: OnMake,
    enterprise: bool,
    attestation: Attestation,
}

impl Request {
    fn read(mut map: Map) -> Result<Self> {
        let client_data = parameters::client_data_hash(&mut map, 0x01)?;
        let mut rp: Map = map.required(0x02)?;
        let formats: Option<Vec<String>> = map.optional(0x0b)?;
        Ok(Self {
            client_data,
            rp_id: parameters::rp_id(&mut rp, "id")?,
            rp_name: rp.optional("name")?.unwrap_or_default(),
            user: parameters::user(map.required(0x03)?)?,
            takes_es256: takes_es256(map.required(0x04)?)?,
            exclude: parameters::credential_list(&mut map, 0x05)?.unwrap_or_default(),
            options: Options::take(&mut map, 0x07)?,
            auth: PinUvAuth::take(&mut map, 0x08, 0x09)?,
            extensions: OnMake::take(&mut map)?,
            enterprise: map.optional::<Value>(0x0a)?.is_some(),
            // §6.1: a list of "none" alone asks for no attestation.
            attestation: match formats.as_deref() {
                Some([only]) if only == "none" => Attestation::None,
                _ => Attestation::PackedSelf,
            },
        })
    }
}

/// authenticatorMakeCredential (CTAP 2.2 §6.1.2).
pub(crate) fn run(authenticator: &mut Authenticator, parameters: Map, env: &mut Env<'_>) -> Result<Value> {
    let request = Request::read(parameters)?;
    let protected = env.vaults.exist();
    // Steps 1 and 2.
    touch::refuse_or_go_on(request.auth.as_ref(), &request.rp_id, env)?;
    // Step 3.
    if !request.takes_es256 {
        return Err(Status::UnsupportedAlgorithm.into());
    }
    // Step 5: rk is supported, and user verification built in where there is a vault.
    let uv = request.auth.is_none() && request.options.uv == Some(true);
    if (uv && !protected) || request.options.up == Some(false) {
        return Err(Status::InvalidOption.into());
    }
    let discoverable = request.options.rk == Some(true);
    request.extensions.check(discoverable)?;
    // Step 6: alwaysUv, where 6.3 has our own prompt verify if the platform did not.
    if !protected {
        return Err(Status::PuatRequired.into());
    }
    // Step 7: what nobody verified is not discoverable.
    if discoverable && request.auth.is_none() && !uv && !env.settings()?.always_uv {
        return Err(Status::PuatRequired.into());
    }
    // Step 9.
    if request.enterprise {
        return Err(Status::InvalidParameter.into());
    }
    // Step 11.
    let token = request.auth.as_ref().map(|auth| {
        let (client_data, rp_id) = (&request.client_data, &request.rp_id);
        verification::by_token(authenticator, auth, client_data, Permissions::MAKE_CREDENTIAL, rp_id)
    });
    let token = token.transpose()?;
    // After the token, whose refusal tells nothing of the rules; before the list of step 12, of which such a site learns nothing.
    let rule = match env.rule_on(&request.rp_id) {
        Err(failure) if token.is_some() => {
            log(Refusal::Rule, &request, env)?;
            return Err(failure);
        }
        rule => rule?,
    };
    let ask = Ask::Create { rp_id: &request.rp_id, user: &request.user, rule: rule.as_ref() };
    let Verification { unlock, present } = match token {
        Some(verification) => verification,
        None => verification::by_prompt(&ask, authenticator.policy, env).map_err(refusal)?,
    };
    let by_token = || request.auth.as_ref().and_then(|_| authenticator.take_presence(env.now()));
    let present = present.or_else(by_token);
    // Step 12.
    let known = env.vaults.open()?.accounts_of(&request.rp_id)?;
    let excluded =
        known.iter().any(|(_, a)| request.exclude.iter().any(|id| id == a.credential_id.as_bytes()));
    if excluded {
        log(Refusal::Excluded, &request, env)?;
        // Whether or not the person is there.
        present.map_or_else(|| env.presence(&Ask::Select).map(drop), |_| Ok(())).ok();
        return Err(Status::CredentialExcluded.into());
    }
    // Steps 13 and 14.
    let present = match present {
        Some(present) => present,
        None => env.presence(&ask)?,
    };
    authenticator.presence_was_given();
    // Steps 15 to 18.
    let same = |(id, a): &(_, vault_core::container::Account)| {
        (discoverable && a.discoverable && a.user_handle == request.user.handle).then_some(*id)
    };
    let mut vault = env.vaults.open()?;
    let settings = vault.settings()?;
    let mut unlocked = vault.unlock_with(&unlock)?;
    // The PIN is asked for in any case: nobody makes passkeys by accident. What they take is as the site would have it.
    let asks_for_uv =
        request.auth.is_some() || uv || request.extensions.protection == Some(Protection::Required);
    let takes = if settings.always_uv || asks_for_uv { Takes::Pin } else { Takes::Presence };
    // Without the extension a site gets what its key is.
    let protection = request.extensions.protection.unwrap_or(match takes {
        Takes::Pin => Protection::Required,
        Takes::Presence => Protection::Optional,
    });
    let asked = (&request.rp_id, discoverable, takes);
    let Made { extras, outputs } =
        request.extensions.answer(asked, &settings, authenticator, &mut unlocked, env.rng)?;
    let large_blob_key = extras.large_blob_key.clone();
    let new = NewCredential {
        rp_id: &request.rp_id,
        rp_name: &request.rp_name,
        user: &request.user,
        attestation: request.attestation,
        discoverable,
        protection,
        extensions: &outputs,
        extras,
        takes,
        replacing: known.iter().find_map(same),
    };
    let made = unlocked.make_credential(new, &request.client_data, present, env.unix_time, env.rng)?;
    Ok(map([
        (0x01, Some(made.attested.format().into())),
        (0x02, bytes(made.attested.data.as_bytes())),
        (0x03, Some(made.attested.statement())),
        (0x05, large_blob_key.and_then(|key| bytes(key.0))),
    ]))
}

/// A log that cannot be written does not hide why something was refused.
fn log(why: Refusal, request: &Request, env: &mut Env<'_>) -> Result<()> {
    let subject = Subject::new(None, &request.rp_id, &request.user.name);
    env.vaults.open()?.note_refusal(Deed::Enrol, why, Some(subject)).ok();
    Ok(())
}

/// Step 3: the list is read to its end, so that what is malformed is refused.
fn takes_es256(list: Vec<Map>) -> Result<bool> {
    let mut found = false;
    for mut parameters in list {
        let alg: i64 = parameters.required("alg")?;
        let r#type: String = parameters.required("type")?;
        found |= r#type == "public-key" && alg == -7;
    }
    Ok(found)
}

/// Step 11.2.3.
fn refusal(error: UvError) -> crate::failure::Failure {
    match error {
        UvError::Declined(declined) => declined.into(),
        UvError::Blocked => Status::PinBlocked.into(),
        UvError::Wrong => Status::OperationDenied.into(),
        UvError::Failed(failure) => failure,
    }
}
