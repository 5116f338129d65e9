use std::{rc::Rc, time::Duration};

use ciborium::Value;
use vault_core::{
    WantedAssertion,
    container::{Account, AccountId, Takes},
    pin::PinSecrets,
    webauthn::{ClientDataHash, RpId, UserPresent},
};

use crate::{
    Ask, Authenticator, Declined, Env, Status,
    authenticator::refused,
    cbor::{Map, bytes, map, uint},
    extensions::OnGet,
    failure::{Failure, Result},
    parameters::{self, Options, PinUvAuth},
    token::Permissions,
    touch,
    verification::{self, UvError},
};

/// §6.3: how long the next assertion may be asked for.
const NEXT_WITHIN: Duration = Duration::from_secs(30);

struct Request {
    rp_id: RpId,
    client_data: ClientDataHash,
    allow: Option<Vec<Vec<u8>>>,
    extensions: OnGet,
    options: Options,
    auth: Option<PinUvAuth>,
}

/// What authenticatorGetNextAssertion goes on with (§6.3).
pub(crate) struct NextAssertions {
    /// Those still to be used, the next one last.
    ids: Vec<AccountId>,
    rp_id: RpId,
    client_data: ClientDataHash,
    extensions: OnGet,
    unlock: Option<Rc<PinSecrets>>,
    until: Duration,
}

impl NextAssertions {
    pub(crate) fn deadline(&self) -> Duration {
        self.until
    }
}

impl Request {
    fn read(mut map: Map) -> Result<Self> {
        Ok(Self {
            rp_id: parameters::rp_id(&mut map, 0x01)?,
            client_data: parameters::client_data_hash(&mut map, 0x02)?,
            // Step 7.2: an empty list is none.
            allow: parameters::credential_list(&mut map, 0x03)?.filter(|list| !list.is_empty()),
            extensions: OnGet::take(&mut map)?,
            options: Options::take(&mut map, 0x05)?,
            auth: PinUvAuth::take(&mut map, 0x06, 0x07)?,
        })
    }

    /// Whether the platform has the user verified, or wants us to.
    fn asks_for_uv(&self) -> bool {
        self.auth.is_some() || self.options.uv == Some(true)
    }

    fn up(&self) -> bool {
        self.options.up != Some(false)
    }

    /// Steps 7.1 to 7.4. What takes the PIN is not found by a silent question without it; what takes presence alone is never
    /// discoverable (§6.1.2 step 7) nor of level 3.
    fn allows(&self, account: &Account) -> bool {
        let named = |list: &Vec<Vec<u8>>| list.iter().any(|id| id == account.credential_id.as_bytes());
        let protected = account.takes == Takes::Pin && !self.asks_for_uv() && !self.up();
        !protected && self.allow.as_ref().map_or(account.discoverable, named)
    }
}

/// authenticatorGetAssertion (CTAP 2.2 §6.2.2).
pub(crate) fn run(
    authenticator: &mut Authenticator,
    parameters: Map,
    env: &mut Env<'_>,
) -> Result<(Value, Option<NextAssertions>)> {
    let request = Request::read(parameters)?;
    let protected = env.vaults.exist();
    // Steps 1 and 2.
    touch::refuse_or_go_on(request.auth.as_ref(), &request.rp_id, env)?;
    // Step 4.
    let uv = request.auth.is_none() && request.options.uv == Some(true);
    if uv && !protected {
        return Err(Status::InvalidOption.into());
    }
    if request.options.rk.is_some() {
        return Err(Status::UnsupportedOption.into());
    }
    let up = request.up();
    request.extensions.check(up)?;
    // Step 5: alwaysUv, where 5.4 has our own prompt verify if the platform did not.
    if up && !protected {
        return Err(Status::PuatRequired.into());
    }
    if !protected {
        return Err(Status::NoCredentials.into());
    }
    // Step 6.1.
    let verified = match &request.auth {
        None => None,
        Some(auth) => Some(verification::by_token(
            authenticator,
            auth,
            &request.client_data,
            Permissions::GET_ASSERTION,
            &request.rp_id,
        )?),
    };
    // Step 7 before step 6.2: nobody is asked for a PIN that cannot help.
    let mut found = located(&request, env)?;
    let (selected, chosen) = choose(&request, up, &mut found, env)?;
    let (_, account) = found.first().ok_or(Status::NoCredentials)?;
    let verified = match verified {
        // Step 5: alwaysUv holds for what takes presence alone as well.
        None if uv || account.takes == Takes::Pin || (up && env.settings()?.always_uv) => Some(
            verification::by_prompt(&Ask::SignIn { account }, authenticator.policy, env).map_err(refusal)?,
        ),
        verified => verified,
    };
    let (unlock, confirmed) =
        verified.map_or((None, None), |verified| (Some(verified.unlock), verified.present));
    // Steps 8 and 9.
    let mut present = None;
    if up {
        // A silent question before this one has spent nothing.
        // Who brings no token is not vouched for by somebody else's.
        let by_token = || request.auth.as_ref().and_then(|_| authenticator.take_presence(env.now()));
        present = chosen.or(confirmed).or_else(by_token);
        if present.is_none() {
            present = Some(env.presence(&Ask::SignIn { account })?);
        }
        authenticator.presence_was_given();
    }
    // Steps 11 to 13.
    let number = (found.len() > 1).then_some(found.len());
    let series = NextAssertions {
        ids: found.into_iter().rev().map(|(id, _)| id).collect(),
        rp_id: request.rp_id,
        client_data: request.client_data,
        extensions: request.extensions,
        unlock,
        until: env.now(),
    };
    sign(authenticator, series, present, (number, selected), env)
}

/// authenticatorGetNextAssertion (§6.3). A series is only had where no presence was asked for.
pub(crate) fn next(
    authenticator: &Authenticator,
    series: NextAssertions,
    env: &mut Env<'_>,
) -> Result<(Value, Option<NextAssertions>)> {
    sign(authenticator, series, None, (None, Selected::ByNobody), env)
}

/// Whether the person chose among several.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Selected {
    ByPerson,
    ByNobody,
}

/// Step 7: the eligible passkeys, newest first; before all, those that take what is asked for.
fn located(request: &Request, env: &mut Env<'_>) -> Result<Vec<(AccountId, Account)>> {
    let mut found = env.vaults.open()?.accounts_of(&request.rp_id)?;
    found.retain(|(_, account)| request.allows(account));
    found.reverse();
    found.sort_by_key(|(_, account)| (account.takes == Takes::Pin) != request.asks_for_uv());
    if found.is_empty() { Err(Status::NoCredentials.into()) } else { Ok(found) }
}

/// Steps 11.1 and 12.2.3: one passkey, unless nobody is to be asked.
fn choose(
    request: &Request,
    up: bool,
    found: &mut Vec<(AccountId, Account)>,
    env: &mut Env<'_>,
) -> Result<(Selected, Option<UserPresent>)> {
    if request.allow.is_some() {
        found.truncate(1);
    }
    if !up || found.len() == 1 {
        return Ok((Selected::ByNobody, None));
    }
    let accounts: Vec<&Account> = found.iter().map(|(_, account)| account).collect();
    let (chosen, present) = refused(env.choose(&accounts))?;
    if chosen >= found.len() {
        return Err(Status::OperationDenied.into());
    }
    *found = vec![found.swap_remove(chosen)];
    Ok((Selected::ByPerson, Some(present)))
}

/// Step 13, with the next passkey of the series.
fn sign(
    authenticator: &Authenticator,
    mut series: NextAssertions,
    present: Option<UserPresent>,
    (number, selected): (Option<usize>, Selected),
    env: &mut Env<'_>,
) -> Result<(Value, Option<NextAssertions>)> {
    let id = series.ids.pop().ok_or(Status::NotAllowed)?;
    let mut vault = env.vaults.open()?;
    let account = vault.account(id)?;
    let NextAssertions { rp_id, client_data, extensions, .. } = &series;
    let made = match account.takes {
        Takes::Presence => {
            let mut prf = |key: &_, salts: &[_]| Ok(vault.prf_by_presence(key, salts)?);
            let outputs = extensions.answer(&account, authenticator, &mut prf, env.rng)?;
            let wanted = WantedAssertion { rp_id, id, client_data, extensions: &outputs };
            vault.get_assertion_by_presence(wanted, present, env.unix_time, env.rng)?
        }
        Takes::Pin => {
            let unlock = series.unlock.as_ref().ok_or(Status::PuatRequired)?;
            let mut unlocked = vault.unlock_with(unlock)?;
            let mut prf = |key: &_, salts: &[_]| Ok(unlocked.prf(Takes::Pin, key, salts)?);
            let outputs = extensions.answer(&account, authenticator, &mut prf, env.rng)?;
            let wanted = WantedAssertion { rp_id, id, client_data, extensions: &outputs };
            unlocked.get_assertion(wanted, present, env.unix_time, env.rng)?
        }
    };
    let reply = map([
        (0x01, Some(parameters::descriptor(made.account.credential_id.as_bytes()))),
        (0x02, bytes(made.data.as_bytes())),
        (0x03, bytes(made.signature.to_der().as_bytes())),
        (0x04, made.account.discoverable.then(|| parameters::user_entity(&made.account))),
        (0x05, number.and_then(uint)),
        (0x06, (selected == Selected::ByPerson).then_some(true.into())),
        (0x07, series.extensions.large_blob_key(&made.account)),
    ]);
    drop(vault);
    series.until = env.now() + NEXT_WITHIN;
    Ok((reply, Some(series).filter(|series| !series.ids.is_empty())))
}

/// Step 6.2.3.
fn refusal(error: UvError) -> Failure {
    match error {
        UvError::Declined(declined @ (Declined::TimedOut | Declined::Cancelled)) => declined.into(),
        UvError::Declined(Declined::No) | UvError::Blocked | UvError::Wrong => Status::PuatRequired.into(),
        UvError::Failed(failure) => failure,
    }
}
