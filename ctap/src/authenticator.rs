use std::{error::Error, time::Duration};

use ciborium::Value;
use rand_core::CryptoRng;
use vault_core::{
    OpenError, Rule, TriesLeft, Vault, VaultError,
    container::{Account, Deed, Refusal, Settings, Subject},
    keystore::{KeyStoreError, TpmKind},
    pin::{Pin, PinMaterial, PinPolicy},
    webauthn::{RpId, UserPresent},
};

use crate::{
    Ask, Declined, Person, Status,
    cbor::{self, Map},
    client_pin, config,
    credential_management::{self, Listing},
    failure::Result,
    get_assertion::{self, NextAssertions},
    get_info::{self, Demands},
    large_blobs::{self, Pending},
    make_credential,
    parameters::PinUvAuth,
    pin_protocol::KeyAgreement,
    reset,
    token::Token,
};

/// §6.5.5.6: so many wrong PINs in a row, and this authenticator takes none until it is started anew.
const WRONG_IN_A_ROW: u8 = 3;

/// Where the vault comes from.
pub trait Vaults {
    /// Whether there is one; neither waits nor asks the TPM.
    fn exist(&self) -> bool;

    /// Opens it, waiting for others that use it. It may be kept from them until it is released.
    fn open(&mut self) -> Result<Vault<'_>, OpenError>;

    /// Opens it, unless somebody else uses it right now.
    fn open_at_once(&mut self) -> Result<Vault<'_>, OpenError> {
        self.open()
    }

    /// Lets others use it.
    fn release(&mut self) {}

    /// Makes it.
    fn set_up(&mut self, pin: &PinMaterial) -> Result<(), VaultError>;

    /// Destroys it.
    fn wipe(&mut self) -> Result<(), VaultError>;

    /// The kind of TPM, which decides the AAGUID.
    fn kind(&mut self) -> Result<TpmKind, KeyStoreError>;
}

/// What one request is answered with.
pub struct Env<'e> {
    /// The vault.
    pub vaults: &'e mut dyn Vaults,
    /// Whom to ask.
    pub person: &'e mut dyn Person,
    /// Randomness.
    pub rng: &'e mut dyn CryptoRng,
    /// Tells the time since some moment in the past; it never goes back, and goes on while a person thinks.
    pub clock: &'e dyn Fn() -> Duration,
    /// Seconds since 1970.
    pub unix_time: u64,
    /// Told what a status code cannot say.
    pub report: &'e dyn Fn(&(dyn Error + 'static)),
}

/// An authenticator (CTAP 2.2 §6): what it remembers between two requests.
pub struct Authenticator {
    pub(crate) policy: PinPolicy,
    pub(crate) agreement: KeyAgreement,
    pub(crate) token: Option<Token>,
    pub(crate) last_known: Demands,
    wrong_in_a_row: u8,
    next: Option<Next>,
}

/// What a command of the kind "get next" goes on with.
enum Next {
    Assertions(NextAssertions),
    LargeBlob(Pending),
    Credentials(Listing),
}

impl Authenticator {
    /// One that has just been started.
    pub fn new(policy: PinPolicy, rng: &mut dyn CryptoRng) -> Self {
        let agreement = KeyAgreement::generate(rng);
        Self { policy, agreement, token: None, last_known: Demands::default(), wrong_in_a_row: 0, next: None }
    }

    /// The same, where only its device was taken away and comes again: whoever could do that would have three more tries.
    #[must_use]
    pub fn after(self, wrong_in_a_row: u8) -> Self {
        Self { wrong_in_a_row, ..self }
    }

    /// How many wrong PINs there were since the last right one, and since it was started.
    #[must_use]
    pub fn wrong_in_a_row(&self) -> u8 {
        self.wrong_in_a_row
    }

    /// Answers a request: a command byte and its parameters in, a status byte and what it yields out.
    pub fn answer(&mut self, request: &[u8], env: &mut Env<'_>) -> Vec<u8> {
        self.forget_expired(env.now());
        let (status, value) = match self.dispatch(request, env) {
            Ok(value) => (Status::Ok, value),
            Err(failure) => {
                if let Some(cause) = failure.cause {
                    (env.report)(cause.as_ref());
                    if failure.status == Status::PinAuthInvalid {
                        // The PIN was changed elsewhere: what we hold would cost a try each time.
                        self.lock();
                    }
                }
                (failure.status, None)
            }
        };
        let mut reply = vec![status.code()];
        if let Some(value) = value {
            cbor::encode(&value, &mut reply);
        }
        reply
    }

    /// Whether a proof of the PIN is at hand, so that the vault will soon be used again.
    #[must_use]
    pub fn expects_more(&self) -> bool {
        self.token.is_some() || matches!(self.next, Some(Next::Assertions(_)))
    }

    /// When [`Authenticator::forget_expired`] has something to forget.
    #[must_use]
    pub fn deadline(&self) -> Option<Duration> {
        let token = self.token.as_ref().map(Token::deadline);
        let next = self.next.as_ref().map(Next::deadline);
        token.into_iter().chain(next).min()
    }

    /// Forgets, and zeroizes, what a time limit ends.
    pub fn forget_expired(&mut self, now: Duration) {
        self.token.take_if(|token| token.deadline() <= now);
        self.next.take_if(|next| next.deadline() <= now);
    }

    /// Forgets every proof of the PIN: the screen was locked, or the machine goes to sleep.
    pub fn lock(&mut self) {
        self.token = None;
        self.next = None;
    }

    fn dispatch(&mut self, request: &[u8], env: &mut Env<'_>) -> Result<Option<Value>> {
        let (command, parameters) = request.split_first().ok_or(Status::InvalidLength)?;
        // §6.3, §6.8: any other command ends a series.
        let next = self.next.take();
        match command {
            0x01 => make_credential::run(self, Map::decode(parameters)?, env).map(Some),
            0x02 => {
                let (reply, next) = get_assertion::run(self, Map::decode(parameters)?, env)?;
                self.next = next.map(Next::Assertions);
                Ok(Some(reply))
            }
            0x04 => get_info::run(self, env).map(Some),
            0x06 => client_pin::run(self, Map::decode(parameters)?, env),
            0x07 => reset::run(self, env).map(|()| None),
            0x08 => {
                let Some(Next::Assertions(next)) = next else { return Err(Status::NotAllowed.into()) };
                let (reply, next) = get_assertion::next(self, next, env)?;
                self.next = next.map(Next::Assertions);
                Ok(Some(reply))
            }
            // 0x41 is what libfido2 before 1.14 calls it, from a draft.
            0x0a | 0x41 => {
                let listing = next.and_then(Next::into_listing);
                let (reply, next) = credential_management::run(self, Map::decode(parameters)?, listing, env)?;
                self.next = next.map(Next::Credentials);
                Ok(reply)
            }
            0x0c => {
                let pending = next.and_then(Next::into_large_blob);
                let (reply, next) = large_blobs::run(self, Map::decode(parameters)?, pending, env)?;
                self.next = next.map(Next::LargeBlob);
                Ok(reply)
            }
            0x0d => config::run(self, Map::decode(parameters)?, env).map(|()| None),
            // §6.9: authenticatorSelection.
            0x0b => Ok(env.confirm(&Ask::Select).map(|_| None)?),
            _ => Err(Status::InvalidCommand.into()),
        }
    }

    /// `getUserPresentFlagValue` (§6.5.2.1) of the token in use.
    pub(crate) fn take_presence(&mut self, now: Duration) -> Option<UserPresent> {
        self.token.as_mut().and_then(|token| token.take_presence(now))
    }

    /// What a token was good for ends with a ceremony; but a large blob is written after it (§6.1.2 step 14, §6.2.2 step 9).
    pub(crate) fn presence_was_given(&mut self) {
        self.token = self.token.take().and_then(Token::after_presence);
    }

    /// The token in use, if `auth` shows that the platform has it and means `message`.
    pub(crate) fn token_that_proves(&mut self, auth: &PinUvAuth, message: &[u8]) -> Result<&mut Token> {
        let protocol = auth.protocol()?;
        let token = self.token.as_mut().filter(|token| token.protocol == protocol);
        let proven = token.filter(|token| protocol.verify(&token.value, message, &auth.param));
        Ok(proven.ok_or(Status::PinAuthInvalid)?)
    }

    /// Whether wrong PINs have used up this start's tries (§6.5.5.6).
    pub(crate) fn pin_auth_is_blocked(&self) -> bool {
        self.wrong_in_a_row >= WRONG_IN_A_ROW
    }

    pub(crate) fn pin_was_right(&mut self) {
        self.wrong_in_a_row = 0;
    }

    /// §6.5.5.6: what a wrong PIN is answered with, and a new key agreement key.
    pub(crate) fn pin_was_wrong(&mut self, rng: &mut dyn CryptoRng) -> Status {
        self.agreement = KeyAgreement::generate(rng);
        self.wrong_in_a_row = self.wrong_in_a_row.saturating_add(1);
        if self.pin_auth_is_blocked() { Status::PinAuthBlocked } else { Status::PinInvalid }
    }
}

impl Env<'_> {
    /// The time.
    pub(crate) fn now(&self) -> Duration {
        (self.clock)()
    }

    /// Whom to ask. Nobody else waits for the vault while a person thinks.
    fn asking(&mut self) -> &mut dyn Person {
        if !self.person.answers_at_once() {
            self.vaults.release();
        }
        self.person
    }

    /// What the vault keeps besides its passkeys.
    pub(crate) fn settings(&mut self) -> Result<Settings> {
        if self.vaults.exist() { Ok(self.vaults.open()?.settings()?) } else { Ok(Settings::default()) }
    }

    /// The rule that has the person asked about a new passkey at `rp_id`, if one does. Where there is never to be one, nobody is
    /// asked.
    pub(crate) fn rule_on(&mut self, rp_id: &RpId) -> Result<Option<Rule>> {
        Ok(self.settings()?.rules.allow(rp_id)?.cloned())
    }

    /// Asks for presence within a ceremony, where nobody answering is a refusal (§6.1.2 steps 1 and 14, §6.2.2 steps 1 and 9).
    pub(crate) fn presence(&mut self, ask: &Ask<'_>) -> Result<UserPresent> {
        refused(self.confirm(ask))
    }

    /// Asks for consent.
    pub(crate) fn confirm(&mut self, ask: &Ask<'_>) -> Result<UserPresent, Declined> {
        let answer = self.asking().confirm(ask);
        answer.inspect_err(|declined| self.log(ask, *declined))
    }

    /// Asks for the PIN.
    pub(crate) fn pin(
        &mut self,
        ask: &Ask<'_>,
        tries: Option<TriesLeft>,
    ) -> Result<(Pin, UserPresent), Declined> {
        let answer = self.asking().pin(ask, tries);
        answer.inspect_err(|declined| self.log(ask, *declined))
    }

    /// Asks which passkey to sign in with.
    pub(crate) fn choose(&mut self, accounts: &[&Account]) -> Result<(usize, UserPresent), Declined> {
        let answer = self.asking().choose(accounts);
        if let (Err(declined), Some(account)) = (&answer, accounts.first()) {
            self.log(&Ask::SignIn { account }, *declined);
        }
        answer
    }

    /// Writes into the vault's log that there was no consent, if there is a vault and nobody else uses it right now.
    fn log(&mut self, ask: &Ask<'_>, declined: Declined) {
        let site = |rp_id, user| Subject::new(None, rp_id, user);
        let (deed, subject) = match ask {
            Ask::Create { rp_id, user, .. } => (Deed::Enrol, Some(site(rp_id, user.name.as_str()))),
            Ask::SignIn { account } => (Deed::Sign, Some(site(&account.rp_id, &account.user_name))),
            Ask::Unlock { rp_id, .. } => (Deed::Unlock, rp_id.map(|rp_id| site(rp_id, ""))),
            Ask::Reset { .. } => (Deed::Wipe, None),
            Ask::Select => return,
        };
        let refusal = match declined {
            Declined::No => Refusal::Declined,
            Declined::TimedOut => Refusal::TimedOut,
            Declined::Cancelled => Refusal::Cancelled,
        };
        if let Ok(mut vault) = self.vaults.open_at_once() {
            vault.note_refusal(deed, refusal, subject).ok();
        }
    }
}

/// The same, of another way to ask.
pub(crate) fn refused<T>(answer: Result<T, Declined>) -> Result<T> {
    answer.map_err(|declined| match declined {
        Declined::TimedOut => Declined::No.into(),
        other => other.into(),
    })
}

impl Next {
    fn deadline(&self) -> Duration {
        match self {
            Self::Assertions(next) => next.deadline(),
            Self::LargeBlob(pending) => pending.deadline(),
            Self::Credentials(listing) => listing.deadline(),
        }
    }

    fn into_listing(self) -> Option<Listing> {
        if let Self::Credentials(listing) = self { Some(listing) } else { None }
    }

    fn into_large_blob(self) -> Option<Pending> {
        if let Self::LargeBlob(pending) = self { Some(pending) } else { None }
    }
}
