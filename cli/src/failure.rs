//! What went wrong, what to do next, and the exit code for it.

use std::{
    error::Error as StdError,
    fmt::Write as _,
    io::{self, Write as _},
    path::Path,
    process::ExitCode,
};

use serde_json::json;
use tpm_backend::swtpm::SwtpmError;
use vault_core::{
    CeremonyError, NotACode, OpenError, RecoveryError, RuleError, TriesLeft, UnlockError, VaultError,
    container::ContainerError,
    keystore::{KeyStoreError, KeysGone},
    pin::PinRefused,
    webauthn::{OriginError, RequestError, SignalError},
};

use crate::{pinentry::Unanswered, terminal};

/// What a command comes to.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// Exit codes. Stable: scripts depend on them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[expect(missing_docs, reason = "`EXIT_CODES` says what they are")]
pub enum Exit {
    Unexpected = 1,
    Usage = 2,
    Request = 3,
    NoVault = 4,
    WrongPin = 5,
    PinLocked = 6,
    NoTpm = 7,
    Lockout = 8,
    KeysGone = 9,
    Damaged = 10,
    RolledBack = 11,
    Busy = 12,
    NoPasskey = 13,
    Excluded = 14,
    NotConfirmed = 15,
    PinRefused = 16,
    OwnerAuth = 17,
    Exists = 18,
    Warning = 19,
    Problem = 20,
    WrongCode = 21,
    ByRule = 22,
}

impl Exit {
    #[expect(clippy::as_conversions, reason = "the discriminant of a repr(u8) enum")]
    /// What the process ends with.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }
}

pub(crate) const EXIT_CODES: &str = "\
Exit codes:
   0  done
   1  something unexpected failed
   2  the command line, the config file or an export cannot be understood
   3  the relying party's request cannot be served
   4  there is no vault
   5  wrong PIN
   6  the TPM refuses every PIN: too many were wrong
   7  the TPM cannot be used
   8  the TPM is in lockout
   9  the vault's keys are not in this TPM
  10  the vault's file is damaged
  11  the vault's file is an old copy
  12  the vault is busy
  13  no such passkey
  14  the relying party excludes a passkey that is here
  15  nobody confirmed
  16  the new PIN is refused
  17  the TPM's owner authorization is needed, or wrong
  18  there is a vault already
  19  doctor found nothing worse than a warning
  20  doctor found a problem
  21  it is not the recovery code in force
  22  a rule refuses the passkey";

const DAMAGED: &str = "Nothing was changed. Put back a copy of the newest vault.db. Without one, try \"passhold wipe\"; \
     if that fails too, delete the folder.";

const LOCKED: &str = "\"passhold pin reset\" sets a new PIN with the recovery code. Without the code, the passkeys cannot be used any more, and \"passhold wipe\" makes room for a new vault.";

/// An error as a person or a script meets it.
#[derive(Debug)]
pub struct Failure {
    exit: Exit,
    message: String,
    next: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
    tries_left: Option<u32>,
}

impl Failure {
    /// With this code and message.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), next: None, source: None, tries_left: None }
    }

    /// Something that no code stands for.
    pub fn unexpected(
        message: impl Into<String>,
        source: impl Into<Box<dyn StdError + Send + Sync>>,
    ) -> Self {
        Self::new(Exit::Unexpected, message).caused_by(source)
    }

    pub(crate) fn wrong_pin(left: Option<TriesLeft>) -> Self {
        let tries = left.map_or_else(String::new, |left| format!("; {}", terminal::tries(left)));
        let mut failure = Self::new(Exit::WrongPin, format!("wrong PIN{tries}"));
        failure.tries_left = left.map(TriesLeft::count);
        failure.next(match left {
            Some(TriesLeft::ByTpm(0)) => LOCKED,
            _ => "Try again with the right PIN; a right one sets the count back.",
        })
    }

    /// What to do about it.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }

    /// Whether there is none yet.
    pub(crate) fn is_no_vault(&self) -> bool {
        self.exit == Exit::NoVault
    }

    /// What happened, and what to do about it.
    pub(crate) fn parts(&self) -> (String, String) {
        (self.with_causes(), self.next.clone().unwrap_or_default())
    }

    fn with_causes(&self) -> String {
        let mut message = self.message.clone();
        let mut source = self.source.as_deref().map(|e| -> &dyn StdError { e });
        while let Some(cause) = source {
            write!(message, ": {cause}").ok();
            source = cause.source();
        }
        message
    }

    /// Whether there is a vault that this failure only keeps from being read.
    pub(crate) fn leaves_a_vault(&self) -> bool {
        matches!(self.exit, Exit::Damaged | Exit::KeysGone)
    }

    /// Whether there are no keys here, and no fault that could be mended.
    pub(crate) fn leaves_no_keys(&self) -> bool {
        matches!(self.exit, Exit::NoVault | Exit::KeysGone)
    }

    /// What it says, and what to do about it.
    pub(crate) fn advice(&self) -> String {
        [Some(&self.message), self.next.as_ref()]
            .into_iter()
            .flatten()
            .cloned()
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn caused_by(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// Says it on stderr and gives the exit code.
    #[must_use]
    pub fn report(&self, json: bool) -> ExitCode {
        let (code, text) = self.render(json);
        writeln!(io::stderr(), "{text}").ok();
        ExitCode::from(code)
    }

    /// The exit code, and what to say.
    #[must_use]
    pub fn render(&self, json: bool) -> (u8, String) {
        let message = self.with_causes();
        let code = self.exit.code();
        let text = if json {
            let (name, next, left) = (format!("{:?}", self.exit), &self.next, self.tries_left);
            json!({"error": {"exit": code, "name": name, "message": message, "next": next, "triesLeft": left}})
                .to_string()
        } else {
            let next = self.next.as_ref().map_or_else(String::new, |next| format!("\n{next}"));
            format!("passhold: {message}{next}")
        };
        // Whatever could not be read may be quoted in it.
        (code, terminal::plain(&text))
    }
}

impl From<ContainerError> for Failure {
    fn from(error: ContainerError) -> Self {
        let message = error.to_string();
        let new = |exit, next: &str| Self::new(exit, message.clone()).next(next);
        match error {
            ContainerError::NotFound { .. } => {
                new(Exit::NoVault, "Make one with \"passhold setup\", or name its folder with --vault.")
            }
            ContainerError::Exists { .. } => new(
                Exit::Exists,
                "Use it, name another folder with --vault, or destroy it with \"passhold wipe\".",
            ),
            ContainerError::Busy { .. } => new(Exit::Busy, "Try again when that process is done."),
            ContainerError::NotAVault { .. } => new(
                Exit::Damaged,
                "Nothing was changed. Put back a copy of the newest vault.db, if you have one.",
            ),
            ContainerError::Damaged { .. } => new(Exit::Damaged, DAMAGED),
            ContainerError::NewerFormat { .. } => {
                new(Exit::Damaged, "Use the Passhold that wrote it, or a newer one.")
            }
            ContainerError::InBin { id } => {
                new(Exit::NoPasskey, &format!("\"passhold undelete {id}\" takes it out."))
            }
            ContainerError::NotInBin { .. } => {
                new(Exit::NoPasskey, "\"passhold list --bin\" shows what is there.")
            }
            ContainerError::NoSuchAccount { .. } => {
                new(Exit::NoPasskey, "\"passhold list\" shows the numbers.")
            }
            error => Self::unexpected(message, error.source_of())
                .next("Check the disk and the folder's permissions."),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// The cause without the message that [`Failure`] already carries.
trait SourceOf {
    fn source_of(self) -> Box<dyn StdError + Send + Sync>;
}

impl SourceOf for ContainerError {
    fn source_of(self) -> Box<dyn StdError + Send + Sync> {
        match self {
            Self::Io { source, .. } => source.into(),
            Self::Database(source) => source.into(),
            other => other.into(),
        }
    }
}

impl From<KeyStoreError> for Failure {
    fn from(error: KeyStoreError) -> Self {
        let message = error.to_string();
        let new = |exit, next: String| Self::new(exit, message.clone()).next(next);
        match error {
            KeyStoreError::WrongPin => new(Exit::WrongPin, "Try again with the right PIN.".into()),
            KeyStoreError::PinLocked => {
                new(Exit::PinLocked, LOCKED.into())
            }
            KeyStoreError::Lockout { heals_in } => new(Exit::Lockout, match heals_in {
                Some(time) => format!(
                    "Another program used the TPM with wrong secrets too often. It allows one more try at the latest in {}.",
                    terminal::duration(time)
                ),
                None => "Wait until it heals, or reset it with \"tpm2_dictionarylockout --clear-lockout\".".into(),
            }),
            KeyStoreError::Missing { .. } => new(
                Exit::NoTpm,
                "Is the TPM switched on in the firmware set-up? To try Passhold without one: --tpm swtpm".into(),
            ),
            KeyStoreError::NotPermitted { .. } => {
                new(Exit::NoTpm, "\"passhold doctor\" says which group to join. The service, where it runs, needs nobody to.".into())
            }
            KeyStoreError::Held { .. } => {
                new(Exit::NoTpm, "Use device:/dev/tpmrm0, which several programs can share.".into())
            }
            KeyStoreError::Exhausted { .. } => {
                new(Exit::NoTpm, "Another program left something loaded. Try again; if it stays, run \"tpm2_flushcontext -t\" and \"tpm2_flushcontext -l\", or use device:/dev/tpmrm0.".into())
            }
            KeyStoreError::NoNvSpace => new(
                Exit::NoTpm,
                "\"tpm2_getcap handles-nv-index\" shows what is there, \"tpm2_nvundefine\" removes what nobody needs.".into(),
            ),
            KeyStoreError::TooOld => new(Exit::NoTpm, "A TPM of specification 1.38 or later is needed.".into()),
            KeyStoreError::KeysGone(KeysGone::OtherTpm) => new(
                Exit::KeysGone,
                "Put the vault's own TPM back, or name it with --tpm. If it is lost, \"passhold wipe\" makes room for a new vault.".into(),
            ),
            KeyStoreError::KeysGone(_) | KeyStoreError::Erased => new(
                Exit::KeysGone,
                "These passkeys cannot be brought back. \"passhold wipe\" makes room for a new vault.".into(),
            ),
            KeyStoreError::RecoveryGone => new(
                Exit::KeysGone,
                "All passkeys are there. With the PIN, \"passhold recovery renew\" makes another code; without it they cannot be used any more.".into(),
            ),
            KeyStoreError::Replaced { .. } => new(
                Exit::KeysGone,
                "Somebody with access to the TPM changed it. Nothing was signed. \"passhold wipe\" makes room for a new vault.".into(),
            ),
            KeyStoreError::ForeignSrk { .. } => {
                new(Exit::NoTpm, "Put the storage root key back to 0x81000001 (tpm2_evictcontrol).".into())
            }
            KeyStoreError::OwnerAuthNeeded | KeyStoreError::OwnerAuthWrong => {
                new(Exit::OwnerAuth, "Give it with --owner-auth-fd N.".into())
            }
            KeyStoreError::NotRecorded(source) => match source.downcast::<ContainerError>() {
                Ok(container) => (*container).into(),
                Err(source) => Self::unexpected(message, source),
            },
            KeyStoreError::Failed { source, .. } => {
                Self::unexpected(message, source).next("Try again; if it stays, \"passhold status\" says more.")
            }
            KeyStoreError::Malformed { .. } => new(Exit::Damaged, DAMAGED.into()),
            KeyStoreError::PinInDoubt(cause) => Self::unexpected(message, cause)
                .next("Try the new PIN first, then the old one; the right one settles it."),
            _ => Self::new(Exit::Unexpected, message).next("Nothing was answered to the site. Try again."),
        }
    }
}

impl From<SwtpmError> for Failure {
    fn from(error: SwtpmError) -> Self {
        let next = match &error {
            SwtpmError::NotInstalled(_) => "Install it: sudo apt install swtpm",
            SwtpmError::Busy => {
                return Self::new(Exit::Busy, error.to_string()).next("Try again when it is done.");
            }
            _ => "Check the vault's folder.",
        };
        Self::new(Exit::NoTpm, error.to_string()).next(next)
    }
}

impl From<OpenError> for Failure {
    fn from(error: OpenError) -> Self {
        let message = error.to_string();
        match error {
            OpenError::Container(e) => e.into(),
            OpenError::KeyStore(e) => e.into(),
            OpenError::WipePending(e) => Self::new(Exit::OwnerAuth, message)
                .caused_by(e)
                .next("\"passhold wipe --owner-auth-fd N\" completes it."),
            OpenError::Unfinished => Self::new(Exit::NoVault, message).next("Run \"passhold setup\" again."),
            _ => Self::new(Exit::NoVault, message).next("Make a new vault with \"passhold setup\"."),
        }
    }
}

impl From<VaultError> for Failure {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::Container(e) => e.into(),
            VaultError::KeyStore(e) => e.into(),
            other => Self::new(Exit::Unexpected, other.to_string()),
        }
    }
}

impl From<UnlockError> for Failure {
    fn from(error: UnlockError) -> Self {
        let message = error.to_string();
        match error {
            UnlockError::WrongPin => KeyStoreError::WrongPin.into(),
            UnlockError::Container(e) => e.into(),
            UnlockError::KeyStore(e) => e.into(),
            UnlockError::ResetUnfinished => Self::new(Exit::WrongPin, message)
                .next("Run \"passhold pin reset\" again, with the same code."),
            UnlockError::RolledBack { file, tpm } if file > tpm => Self::new(Exit::RolledBack, message)
                .next("With the PIN, \"passhold restore accept\" has the TPM catch up."),
            _ => Self::new(Exit::RolledBack, message).next(
                "Put back the newest vault.db. If it is lost, \"passhold restore accept\" lets this copy in.",
            ),
        }
    }
}

impl From<RecoveryError> for Failure {
    fn from(error: RecoveryError) -> Self {
        let message = error.to_string();
        let refused = |message, next: &str| Self::new(Exit::WrongCode, message).next(next);
        match error {
            RecoveryError::Container(e) => e.into(),
            RecoveryError::KeyStore(e) => e.into(),
            RecoveryError::NoCode => refused(
                message,
                "Its PIN can only be changed: \"passhold pin change\". With the PIN, \"passhold recovery renew\" makes a code.",
            ),
            RecoveryError::SpentCode { at } => refused(
                format!("{message} on {}", terminal::date(at)),
                "Find the one that was shown then. With the PIN, \"passhold recovery renew\" makes another.",
            ),
            RecoveryError::CutShort(e) => {
                Self::unexpected(message, e).next("Run \"passhold pin reset\" again, with the same code.")
            }
            RecoveryError::Reset(e) => {
                let failure = Self::from(e);
                Self { message: format!("{message}, and {}", failure.message), ..failure }
            }
            _ => refused(message, "Nothing was changed or counted. Look at the code again."),
        }
    }
}

impl From<NotACode> for Failure {
    fn from(error: NotACode) -> Self {
        Self::new(Exit::WrongCode, error.to_string())
            .next("Type the code as \"passhold setup\" showed it. Nothing was counted.")
    }
}

impl From<CeremonyError> for Failure {
    fn from(error: CeremonyError) -> Self {
        let message = error.to_string();
        match error {
            CeremonyError::Container(e) => e.into(),
            CeremonyError::KeyStore(e) => e.into(),
            CeremonyError::Excluded => Self::excluded(),
            CeremonyError::ByRule(_) => Self::by_rule(message),
            CeremonyError::PinUsedBefore => {
                Self::new(Exit::PinRefused, format!("this PIN is refused: {message}"))
                    .next("Choose another one.")
            }
            CeremonyError::PinChangeDue => {
                Self::new(Exit::PinRefused, message).next("Use \"passhold pin change\".")
            }
            _ => Self::new(Exit::NoPasskey, message)
                .next("\"passhold list\" shows which passkey is for which site."),
        }
    }
}

impl Failure {
    pub(crate) fn by_rule(message: impl Into<String>) -> Self {
        Self::new(Exit::ByRule, message)
            .next("Nothing was made. \"passhold rules\" lists the rules, \"passhold rules remove GLOB\" takes one away.")
    }

    pub(crate) fn excluded() -> Self {
        Self::new(Exit::Excluded, CeremonyError::Excluded.to_string())
            .next("You can sign in with it: \"passhold sign\".")
    }
}

impl From<RequestError> for Failure {
    fn from(error: RequestError) -> Self {
        let next = match &error {
            RequestError::Json(_) | RequestError::NotBase64Url(_) | RequestError::EmptyChallenge => {
                "Give the options as the relying party sent them."
            }
            RequestError::RpId(_) => "Give the origin that sent these options with --origin.",
            _ => "Ask the relying party for other options, or use another authenticator.",
        };
        let message = error.to_string();
        match error {
            RequestError::Json(source) => Self::new(Exit::Request, message).caused_by(source),
            _ => Self::new(Exit::Request, message),
        }
        .next(next)
    }
}

impl From<SignalError> for Failure {
    fn from(error: SignalError) -> Self {
        let message = error.to_string();
        match error {
            SignalError::Json(source) => Self::new(Exit::Request, message).caused_by(source),
            _ => Self::new(Exit::Request, message),
        }
        .next("Give the options of signalUnknownCredential, signalAllAcceptedCredentials or signalCurrentUserDetails.")
    }
}

impl From<OriginError> for Failure {
    fn from(error: OriginError) -> Self {
        Self::new(Exit::Request, error.to_string())
            .next("Give --origin as the browser shows it: https://host, or http://localhost:port.")
    }
}

impl From<RuleError> for Failure {
    fn from(error: RuleError) -> Self {
        let next = match error {
            RuleError::TooMany => "\"passhold rules remove GLOB\" makes room.",
            _ => "Give a relying party ID such as example.org, or *.example.org for all below it.",
        };
        Self::new(Exit::Usage, error.to_string()).next(next)
    }
}

impl From<Unanswered> for Failure {
    fn from(error: Unanswered) -> Self {
        let message = error.to_string();
        match error {
            Unanswered::Broken(source) => Self::new(Exit::NotConfirmed, message).caused_by(source).next(
                "Nothing was done. Install pinentry, or name one with PASSHOLD_PINENTRY; or run this in a terminal.",
            ),
            Unanswered::TooLong => {
                Self::new(Exit::NotConfirmed, message).next("Nothing was done. Run this in a terminal.")
            }
            Unanswered::TimedOut => {
                Self::new(Exit::NotConfirmed, message).next("Nothing was done. Try again.")
            }
            Unanswered::No | Unanswered::TakenBack => {
                Self::new(Exit::NotConfirmed, message).next("Nothing was done.")
            }
        }
    }
}

impl From<PinRefused> for Failure {
    fn from(error: PinRefused) -> Self {
        Self::new(Exit::PinRefused, format!("this PIN is refused: {error}")).next("Choose another one.")
    }
}

/// With the vault's folder in the next step.
pub(crate) fn unlock_failure(error: UnlockError, dir: &Path) -> Failure {
    match error {
        UnlockError::RolledBack { file, tpm } if file < tpm => Failure::from(error).next(format!(
            "Put the newest vault.db back into {}. If it is lost, \"passhold restore accept\" lets this copy in.",
            dir.display()
        )),
        other => other.into(),
    }
}
