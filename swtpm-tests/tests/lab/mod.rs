//! A vault behind a proxy, every operation on it, and the proof that it still works.

#![allow(dead_code, reason = "each test program uses its part")]

pub(crate) mod raw_tpm;
pub(crate) mod relying_party;

use std::{
    error::Error,
    fs,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, Once, PoisonError},
};

use p256::ecdsa::VerifyingKey;
use serde_json::json;
use swtpm_tests::{TestTpm, creation_options, key_store, pin, proxy::Proxy, rng};
use tempfile::TempDir;
use tpm_backend::Tpm;
use vault_core::{
    CeremonyError, OpenError, RecoveryCode, RecoveryError, RuleAction, UnlockError, Vault, VaultError,
    container::{AccountId, ContainerError},
    keystore::{KeyStoreError, TpmStatus},
    webauthn::{CreateRequest, GetRequest, Origin, UserPresent},
};

use self::{
    raw_tpm::RawTpm,
    relying_party::{ORIGIN, RP_ID, challenge, check_assertion, check_registration},
};

/// What a vault can be asked to do. Each starts with a new connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    /// On a TPM without an SRK.
    Setup,
    /// Open and list.
    Open,
    /// Open and list after somebody evicted the SRK, which is put back.
    Heal,
    EnrollNone,
    EnrollPacked,
    Sign,
    Delete,
    ChangePin,
    /// Unlock after a PIN change that was cut off before its last write.
    Settle,
    /// The PIN is forgotten; the recovery code is not.
    ResetPin,
    RenewCode,
    ChangeRule,
    /// From the bin.
    Undelete,
    EmptyBin,
    /// Of an old copy of the container.
    Restore,
    Status,
    Wipe,
}

impl Operation {
    pub(crate) const ALL: [Self; 17] = [
        Self::Setup,
        Self::Open,
        Self::Heal,
        Self::EnrollNone,
        Self::EnrollPacked,
        Self::Sign,
        Self::Delete,
        Self::ChangePin,
        Self::Settle,
        Self::ResetPin,
        Self::RenewCode,
        Self::ChangeRule,
        Self::Undelete,
        Self::EmptyBin,
        Self::Restore,
        Self::Status,
        Self::Wipe,
    ];
}

/// What an operation that succeeded claims to have done.
#[derive(Debug)]
pub(crate) enum Done {
    /// It says nothing to check but the state it leaves.
    Silently,
    Listed(Vec<AccountId>),
    Enrolled(Passkey),
    Status(TpmStatus),
}

#[derive(Clone, Debug)]
pub(crate) struct Passkey {
    pub(crate) id: AccountId,
    pub(crate) public: VerifyingKey,
}

/// A TPM, a proxy before it, a vault, and what the vault is expected to hold.
pub(crate) struct Lab {
    // The proxy goes first: its hooks may hold the TPM.
    pub(crate) proxy: Proxy,
    /// Shared with the hooks that reset it.
    pub(crate) tpm: Arc<Mutex<TestTpm>>,
    dir: TempDir,
    /// Oldest first. The first stays for ever, the last is the one that [`Operation::Delete`] deletes.
    pub(crate) passkeys: Vec<Passkey>,
    /// The PIN in force, and the one that [`Operation::ChangePin`] sets.
    pub(crate) pins: [&'static str; 2],
    /// The recovery code in force, and the one that [`Operation::RenewCode`] and [`Operation::ResetPin`] put in force.
    codes: [RecoveryCode; 2],
    /// What the one rule does, and what [`Operation::ChangeRule`] makes it do.
    rules: [RuleAction; 2],
    /// What [`Operation::Undelete`] takes out of the bin.
    binned: Option<AccountId>,
    challenges: u64,
}

/// Which state the vault is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Condition {
    /// There is none, or set-up or a wipe were cut short: set-up may be run.
    Vacant,
    /// With these passkeys, under the PIN in force.
    Same,
    /// With what the operation was to change changed.
    Changed,
}

pub(crate) type Result<T, E = Box<dyn Error>> = std::result::Result<T, E>;

impl Lab {
    /// No vault yet.
    pub(crate) fn empty() -> Self {
        static SILENCE: Once = Once::new();
        SILENCE.call_once(tpm_backend::prepare_libtss2);
        let tpm = TestTpm::start().unwrap();
        let limits = ["--setup-parameters", "--max-tries=1000000", "--recovery-time=1000000"];
        assert!(tpm.tool("tpm2_dictionarylockout", &limits).unwrap().status.success());
        Self {
            proxy: Proxy::start(tpm.port()).unwrap(),
            tpm: Arc::new(Mutex::new(tpm)),
            // Where syncing costs nothing: no power fails here.
            dir: tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap(),
            passkeys: Vec::new(),
            pins: ["271828", "314159"],
            codes: [(); 2].map(|()| RecoveryCode::random(&mut rng())),
            rules: [RuleAction::Ask, RuleAction::Never],
            binned: None,
            challenges: 0,
        }
    }

    /// A vault that is ready for `operation`.
    pub(crate) fn ready_for(operation: Operation) -> Self {
        let mut lab = Self::empty();
        lab.prepare(operation);
        lab
    }

    /// A key store on the TPM, through the proxy.
    pub(crate) fn key_store(&self) -> Tpm {
        key_store(&self.proxy.tcti())
    }

    pub(crate) fn raw(&self) -> RawTpm {
        RawTpm(self.tpm().port())
    }

    pub(crate) fn tpm(&self) -> MutexGuard<'_, TestTpm> {
        self.tpm.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs a program of tpm2-tools past the proxy, and flushes the objects that it leaves.
    pub(crate) fn tool(&self, command: &str) {
        let words: Vec<_> = command.split_whitespace().collect();
        let output = self.tpm().tool(words[0], &words[1..]).unwrap();
        self.raw().loaded().into_iter().for_each(|handle| assert_eq!(self.raw().flush(handle), 0));
        assert!(output.status.success(), "{command}: {}", String::from_utf8_lossy(&output.stderr));
    }

    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn has_vault(&self) -> bool {
        self.dir().join("vault.db").exists()
    }

    /// Brings the vault into the state from which `operation` is tried.
    pub(crate) fn prepare(&mut self, operation: Operation) {
        let keys = &mut self.key_store();
        if operation == Operation::Setup {
            if self.has_vault() {
                vault_core::wipe(self.dir(), keys).unwrap();
            }
            self.passkeys.clear();
            self.raw().evict_srk();
            return;
        }
        if !self.has_vault() {
            vault_core::setup(self.dir(), keys, &pin(self.pins[0]), 0, &mut rng()).unwrap();
            self.passkeys.clear();
        }
        let wanted = if operation == Operation::Delete { 2 } else { 1 };
        while self.passkeys.len() < wanted {
            let passkey = self.enroll(keys, "none").unwrap();
            self.passkeys.push(passkey);
        }
        match operation {
            Operation::Heal => self.raw().evict_srk(),
            Operation::Settle => self.cut_pin_change(),
            Operation::ResetPin | Operation::RenewCode => self.renew(keys, 0).unwrap(),
            Operation::ChangeRule => self.rule(keys, 0).unwrap(),
            Operation::Undelete | Operation::EmptyBin => self.fill_bin(keys),
            Operation::Restore => {
                let file = self.dir().join("vault.db");
                let copy = fs::read(&file).unwrap();
                self.rule(keys, 1).unwrap();
                fs::write(&file, copy).unwrap();
            }
            _ => {}
        }
    }

    fn fill_bin(&mut self, keys: &mut Tpm) {
        let passkey = self.enroll(keys, "none").unwrap();
        let mut vault = Vault::open(self.dir(), keys).unwrap();
        vault.unlock(&pin(self.pins[0])).unwrap().delete(passkey.id, 0, &mut rng()).unwrap();
        self.binned = Some(passkey.id);
    }

    /// A PIN change that loses its power before it drops the old PIN's mask.
    fn cut_pin_change(&mut self) {
        use swtpm_tests::proxy::{Fault, FaultKind};
        const NV_CHANGE_AUTH: u32 = 0x13b;
        self.proxy.clear_record();
        let done = self.perform(Operation::ChangePin, &mut self.key_store());
        done.unwrap();
        self.pins.reverse();
        let change = self.proxy.codes().iter().position(|code| *code == NV_CHANGE_AUTH).unwrap();
        self.proxy.arm(Fault::continuous(change + 1, FaultKind::CutBefore));
        let keys = &mut self.key_store();
        self.perform(Operation::ChangePin, keys).unwrap_err();
        self.proxy.disarm();
        // So that the key store clears up; it is not what this prepares.
        keys_status(keys);
        let raw = self.raw();
        raw.loaded().into_iter().for_each(|handle| assert_eq!(raw.flush(handle), 0));
        self.pins.reverse();
    }

    /// Does it. What comes out is checked; a wrong success is [`WrongSuccess`].
    pub(crate) fn perform(&mut self, operation: Operation, keys: &mut Tpm) -> Result<Done> {
        Ok(match operation {
            Operation::Setup => {
                vault_core::setup(self.dir(), keys, &pin(self.pins[0]), 0, &mut rng())?;
                Done::Silently
            }
            Operation::Open | Operation::Heal => Done::Listed(self.list(keys)?),
            Operation::EnrollNone => Done::Enrolled(self.enroll(keys, "none")?),
            Operation::EnrollPacked => Done::Enrolled(self.enroll(keys, "direct")?),
            Operation::Sign | Operation::Settle => {
                self.sign(keys, &self.passkeys[0].clone(), self.pins[0])?;
                Done::Silently
            }
            Operation::Delete => {
                let victim = self.passkeys.last().unwrap().id;
                let mut vault = Vault::open(self.dir(), keys)?;
                vault.unlock(&pin(self.pins[0]))?.delete(victim, 0, &mut rng())?;
                Done::Silently
            }
            Operation::ChangePin => {
                let mut vault = Vault::open(self.dir(), keys)?;
                vault.unlock(&pin(self.pins[0]))?.change_pin(&pin(self.pins[1]), &mut rng())?;
                Done::Silently
            }
            Operation::ResetPin => {
                let (new, [code, next]) = (pin(self.pins[1]), &self.codes);
                Vault::open(self.dir(), keys)?.reset_pin(code, &new, next, 0, &mut rng())?;
                Done::Silently
            }
            Operation::RenewCode => {
                self.renew(keys, 1)?;
                Done::Silently
            }
            Operation::ChangeRule => {
                self.rule(keys, 1)?;
                Done::Silently
            }
            Operation::Undelete => {
                let mut vault = Vault::open(self.dir(), keys)?;
                vault.unlock(&pin(self.pins[0]))?.undelete(self.binned.unwrap(), &mut rng())?;
                Done::Silently
            }
            Operation::EmptyBin => {
                Vault::open(self.dir(), keys)?.unlock(&pin(self.pins[0]))?.empty_bin()?;
                Done::Silently
            }
            Operation::Restore => {
                Vault::open(self.dir(), keys)?.accept_old_copy(&pin(self.pins[0]), &mut rng())?;
                Done::Silently
            }
            Operation::Status => Done::Status(Vault::open(self.dir(), keys)?.status()?),
            Operation::Wipe => {
                vault_core::wipe(self.dir(), keys)?;
                Done::Silently
            }
        })
    }

    fn renew(&self, keys: &mut Tpm, code: usize) -> Result<()> {
        let mut vault = Vault::open(self.dir(), keys)?;
        Ok(vault.unlock(&pin(self.pins[0]))?.renew_recovery_code(&self.codes[code], 0, &mut rng())?)
    }

    fn rule(&self, keys: &mut Tpm, rule: usize) -> Result<()> {
        let mut vault = Vault::open(self.dir(), keys)?;
        let mut settings = vault.settings()?;
        settings.rules.add(self.rules[rule], "*.example.net")?;
        Ok(vault.unlock(&pin(self.pins[0]))?.configure(&settings, &mut rng())?)
    }

    /// Which of the two codes is in force; exactly one is.
    fn code_in_force(&self, vault: &mut Vault<'_>) -> Result<usize> {
        match self.codes.each_ref().map(|code| vault.check_recovery_code(code).map(drop)) {
            [Ok(()), Err(RecoveryError::WrongCode | RecoveryError::SpentCode { .. })] => Ok(0),
            [Err(RecoveryError::WrongCode | RecoveryError::SpentCode { .. }), Ok(())] => Ok(1),
            odd => Err(format!("the codes: {odd:?}").into()),
        }
    }

    pub(crate) fn list(&self, keys: &mut Tpm) -> Result<Vec<AccountId>> {
        let vault = Vault::open(self.dir(), keys)?;
        Ok(vault.accounts()?.into_iter().map(|(id, _)| id).collect())
    }

    pub(crate) fn enroll(&mut self, keys: &mut Tpm, attestation: &str) -> Result<Passkey> {
        let challenge = self.challenge();
        let mut options: serde_json::Value =
            serde_json::from_str(&creation_options(RP_ID, "alice", attestation))?;
        options["challenge"] = json!(challenge);
        let request = CreateRequest::from_json(&options.to_string(), Origin::parse(ORIGIN)?)?;
        let mut vault = Vault::open(self.dir(), keys)?;
        let unlocked = vault.unlock(&pin(self.pins[0]))?;
        let (id, response) = unlocked.enroll(&request, None, UserPresent::confirmed(), 0, &mut rng())?;
        let response = serde_json::to_value(&response)?;
        let public = check_registration(&response, &challenge).map_err(WrongSuccess)?;
        Ok(Passkey { id, public })
    }

    pub(crate) fn sign(&mut self, keys: &mut Tpm, passkey: &Passkey, with_pin: &str) -> Result<()> {
        let challenge = self.challenge();
        let mut vault = Vault::open(self.dir(), keys)?;
        Ok(assert_in(&mut vault, passkey, with_pin, &challenge)?)
    }

    fn challenge(&mut self) -> String {
        self.challenges += 1;
        challenge(self.challenges)
    }

    /// Uses the vault for all it is worth, and says in which state it is. `done` narrows what is right.
    pub(crate) fn prove(
        &mut self,
        operation: Operation,
        done: Option<&Done>,
        keys: &mut Tpm,
    ) -> Result<Condition> {
        let challenge = self.challenge();
        let vault = Vault::open(self.dir(), keys);
        let ends = matches!(operation, Operation::Setup | Operation::Wipe);
        let mut vault = match vault {
            Err(
                OpenError::Unfinished
                | OpenError::Wiped(_)
                | OpenError::Container(ContainerError::NotFound { .. }),
            ) if ends => return Ok(Condition::Vacant),
            other => other?,
        };
        if let Some(n) = vault.log()?.broken {
            return Err(format!("entry {n} of the log is broken").into());
        }
        let listed = vault.accounts()?;
        let ids: Vec<_> = listed.iter().map(|(id, _)| *id).collect();
        let expected: Vec<_> = self.passkeys.iter().map(|p| p.id).collect();
        let mut condition = match operation {
            _ if ids == expected => Condition::Same,
            Operation::Undelete if [&expected[..], self.binned.as_slice()].concat() == ids => {
                Condition::Changed
            }
            Operation::EnrollNone | Operation::EnrollPacked
                if ids[..ids.len() - 1] == expected && ids.len() == expected.len() + 1 =>
            {
                Condition::Changed
            }
            Operation::Delete if ids == expected[..expected.len() - 1] => Condition::Changed,
            _ => return Err(format!("passkeys {ids:?}, not {expected:?}").into()),
        };
        for (known, (_, account)) in self.passkeys.iter().zip(&listed) {
            if account.public_key() != Some(known.public) {
                return Err(format!("passkey {} has another key", known.id).into());
            }
        }
        let pins = match (operation, done) {
            (Operation::ChangePin | Operation::ResetPin, Some(_)) => vec![self.pins[1]],
            (Operation::ChangePin | Operation::ResetPin, None) => self.pins.to_vec(),
            _ => vec![self.pins[0]],
        };
        let Some((id, account)) = listed.last() else {
            drop(vault.unlock(&pin(pins[0]))?);
            return Ok(condition);
        };
        let newest = Passkey { id: *id, public: account.public_key().ok_or("no public key")? };
        for (attempt, with_pin) in pins.iter().enumerate() {
            match assert_in(&mut vault, &newest, with_pin, &challenge) {
                Err(CeremonyOrUnlock::Unlock(UnlockError::WrongPin)) if attempt + 1 < pins.len() => {}
                // Whoever began it has the code.
                Err(CeremonyOrUnlock::Unlock(UnlockError::ResetUnfinished))
                    if operation == Operation::ResetPin && done.is_none() =>
                {
                    let (new, [code, next]) = (pin(self.pins[1]), &self.codes);
                    vault.reset_pin(code, &new, next, 0, &mut rng())?;
                    assert_in(&mut vault, &newest, self.pins[1], &challenge)?;
                    condition = Condition::Changed;
                    break;
                }
                Err(CeremonyOrUnlock::Unlock(UnlockError::RolledBack { .. }))
                    if operation == Operation::Restore && done.is_none() =>
                {
                    vault.accept_old_copy(&pin(with_pin), &mut rng())?;
                    assert_in(&mut vault, &newest, with_pin, &challenge)?;
                    break;
                }
                other => {
                    other?;
                    if *with_pin == self.pins[1] || operation == Operation::Restore {
                        condition = Condition::Changed;
                    }
                    break;
                }
            }
        }
        if matches!(operation, Operation::RenewCode | Operation::ResetPin) {
            let renewed = self.code_in_force(&mut vault)? == 1;
            if done.is_some() && !renewed {
                return Err("the new recovery code is not in force".into());
            }
            if operation == Operation::RenewCode && renewed {
                condition = Condition::Changed;
            }
        }
        if operation == Operation::ChangeRule {
            let rules = vault.settings()?.rules;
            let [rule] = rules.all() else { return Err(format!("{rules:?}").into()) };
            match self.rules.iter().position(|action| *action == rule.action) {
                Some(1) => condition = Condition::Changed,
                _ if done.is_some() => return Err("the rule was not changed".into()),
                _ => {}
            }
        }
        if operation == Operation::EmptyBin && vault.bin()?.is_empty() {
            condition = Condition::Changed;
        }
        if let Some(Done::Enrolled(passkey)) = done
            && (passkey.id, passkey.public) != (newest.id, newest.public)
        {
            return Err("the passkey that was answered for is not the one in the vault".into());
        }
        Ok(condition)
    }

    /// Takes the change in, so that the next [`Lab::prove`] expects it.
    pub(crate) fn accept(
        &mut self,
        operation: Operation,
        condition: Condition,
        keys: &mut Tpm,
    ) -> Result<()> {
        match (operation, condition) {
            (_, Condition::Same) => {}
            (_, Condition::Vacant) | (Operation::Setup, _) => self.passkeys.clear(),
            (Operation::EmptyBin | Operation::Restore, _) => {}
            (Operation::EnrollNone | Operation::EnrollPacked | Operation::Undelete, _) => {
                let vault = Vault::open(self.dir(), keys)?;
                let (id, account) = vault.accounts()?.pop().ok_or("the new passkey is gone")?;
                let public = account.public_key().ok_or("no public key")?;
                self.passkeys.push(Passkey { id, public });
            }
            (Operation::Delete, _) => drop(self.passkeys.pop()),
            (Operation::ChangePin, _) => self.pins.reverse(),
            (Operation::RenewCode, _) => self.codes.reverse(),
            (Operation::ChangeRule, _) => self.rules.reverse(),
            (Operation::ResetPin, _) => {
                self.pins.reverse();
                let in_force = self.code_in_force(&mut Vault::open(self.dir(), keys)?)?;
                self.codes.rotate_left(in_force);
            }
            _ => return Err("nothing could have changed".into()),
        }
        Ok(())
    }
}

/// An operation that succeeded and did not do what it says.
#[derive(Debug, thiserror::Error)]
#[error("WRONG SUCCESS: {0}")]
pub(crate) struct WrongSuccess(pub(crate) String);

#[derive(Debug, thiserror::Error)]
pub(crate) enum CeremonyOrUnlock {
    #[error(transparent)]
    Unlock(#[from] UnlockError),
    #[error(transparent)]
    Ceremony(#[from] CeremonyError),
    #[error(transparent)]
    WrongSuccess(#[from] WrongSuccess),
}

fn assert_in(
    vault: &mut Vault<'_>,
    passkey: &Passkey,
    with_pin: &str,
    challenge: &str,
) -> Result<(), CeremonyOrUnlock> {
    let options = json!({"rpId": RP_ID, "challenge": challenge}).to_string();
    let request = GetRequest::from_json(&options, Origin::parse(ORIGIN).unwrap()).unwrap();
    let unlocked = vault.unlock(&pin(with_pin))?;
    let response = unlocked.sign(&request, passkey.id, UserPresent::confirmed(), 0, &mut rng())?;
    let response = serde_json::to_value(&response).unwrap();
    Ok(check_assertion(&response, challenge, &passkey.public).map_err(WrongSuccess)?)
}

fn keys_status(keys: &mut Tpm) {
    use vault_core::keystore::KeyStore;
    drop(keys.status(None));
    drop(keys.status(None));
}

/// The key store's part in an error of [`Lab::perform`].
pub(crate) fn of_key_store<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e KeyStoreError> {
    if let Some(e) = error.downcast_ref::<VaultError>() {
        return if let VaultError::KeyStore(e) = e { Some(e) } else { None };
    }
    if let Some(e) = error.downcast_ref::<OpenError>() {
        return if let OpenError::KeyStore(e) = e { Some(e) } else { None };
    }
    if let Some(e) = error.downcast_ref::<UnlockError>() {
        return if let UnlockError::KeyStore(e) = e { Some(e) } else { None };
    }
    if let Some(e) = error.downcast_ref::<RecoveryError>() {
        return match e {
            RecoveryError::KeyStore(e)
            | RecoveryError::CutShort(e)
            | RecoveryError::Reset(UnlockError::KeyStore(e)) => Some(e),
            _ => None,
        };
    }
    if let Some(e) = error.downcast_ref::<CeremonyError>() {
        return if let CeremonyError::KeyStore(e) = e { Some(e) } else { None };
    }
    if let Some(e) = error.downcast_ref::<CeremonyOrUnlock>() {
        return match e {
            CeremonyOrUnlock::Unlock(UnlockError::KeyStore(e))
            | CeremonyOrUnlock::Ceremony(CeremonyError::KeyStore(e)) => Some(e),
            _ => None,
        };
    }
    error.downcast_ref()
}

/// An error with its causes, for reports.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    text
}
