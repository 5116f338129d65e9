//! One operation of the command line, again and again from the same state of file and TPM, with something
//! going wrong at a chosen system call (strace's injection); and what must be true afterwards.
#![allow(dead_code)]

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
};

use swtpm_tests::{PIN, Program, creation_options, key_store, pin, request_options, rng};
use tempfile::TempDir;
use tpm_backend::swtpm::Swtpm;
use vault_core::{
    OpenError, RecoveryCode, RuleAction, UnlockError, Vault,
    container::{AccountId, Container, ContainerError, VAULT_FILE},
    webauthn::{CreateRequest, GetRequest, Origin, UserPresent},
};

use super::common::{Facts, Wire};

pub(crate) const NEW_PIN: &str = "314159x";
/// A rule that holds from the beginning.
const RULE: &str = "ask example.net";
pub(crate) const SITE: &str = "example.org";
pub(crate) const ORIGIN: &str = "https://example.org";

/// A changing operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operation {
    Setup,
    Enroll,
    Delete,
    Undelete,
    EmptyBin,
    Rename,
    PinChange,
    PinReset,
    RecoveryRenew,
    AddRule,
    RestoreAccept,
    Wipe,
}

pub(crate) const OPERATIONS: [Operation; 12] = [
    Operation::Setup,
    Operation::Enroll,
    Operation::Delete,
    Operation::Undelete,
    Operation::EmptyBin,
    Operation::Rename,
    Operation::PinChange,
    Operation::PinReset,
    Operation::RecoveryRenew,
    Operation::AddRule,
    Operation::RestoreAccept,
    Operation::Wipe,
];

/// What a person can tell of a vault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct State {
    /// Number, user name, own name.
    pub(crate) accounts: Vec<(String, String, Option<String>)>,
    /// Those in the bin.
    pub(crate) bin: Vec<String>,
    pub(crate) pin: String,
    /// Whether the recovery code from before is in force.
    pub(crate) code: bool,
    pub(crate) rules: Vec<String>,
    /// Whether the file is refused as an old copy.
    pub(crate) is_old: bool,
}

impl Operation {
    fn arguments(self, options: &Path) -> Vec<String> {
        let options = options.display();
        let line = match self {
            Self::Setup => "setup".to_owned(),
            Self::Enroll => format!("enroll --origin {ORIGIN} --options {options}"),
            Self::Delete => "delete 1".to_owned(),
            Self::Undelete => "undelete 1".to_owned(),
            Self::EmptyBin => "empty-bin".to_owned(),
            Self::Rename => "rename 2 Work".to_owned(),
            Self::PinChange => "pin change".to_owned(),
            Self::PinReset => "pin reset".to_owned(),
            Self::RecoveryRenew => "recovery renew".to_owned(),
            Self::AddRule => "rules add never *.example.com".to_owned(),
            Self::RestoreAccept => "restore accept".to_owned(),
            Self::Wipe => "wipe --yes".to_owned(),
        };
        line.split(' ').map(str::to_owned).collect()
    }

    fn starts_with_a_bin(self) -> bool {
        matches!(self, Self::Undelete | Self::EmptyBin)
    }

    /// What the vault is before, if there is one.
    pub(crate) fn before(self) -> Option<State> {
        let account = |id: &str, user: &str| (id.to_owned(), user.to_owned(), None);
        let mut accounts = vec![account("1", "alice"), account("2", "bob")];
        let mut bin = vec![];
        if self.starts_with_a_bin() {
            bin.push(accounts.remove(0).0);
        }
        let rules = vec![RULE.to_owned()];
        let is_old = self == Self::RestoreAccept;
        (self != Self::Setup).then(|| State { accounts, bin, pin: PIN.to_owned(), code: true, rules, is_old })
    }

    pub(crate) fn after(self) -> Option<State> {
        let Some(mut state) = self.before() else {
            let (accounts, bin, rules) = (vec![], vec![], vec![]);
            return Some(State { accounts, bin, pin: PIN.to_owned(), code: false, rules, is_old: false });
        };
        match self {
            Self::Enroll => state.accounts.push(("3".into(), "carol".into(), None)),
            Self::Delete => state.bin.push(state.accounts.remove(0).0),
            Self::Undelete => {
                let id = state.bin.remove(0);
                state.accounts.insert(0, (id, "alice".into(), None));
            }
            Self::EmptyBin => state.bin.clear(),
            Self::Rename => state.accounts[1].2 = Some("Work".into()),
            Self::PinChange => state.pin = NEW_PIN.to_owned(),
            Self::PinReset => (state.pin, state.code) = (NEW_PIN.to_owned(), false),
            Self::RecoveryRenew => state.code = false,
            Self::AddRule => state.rules.push("never *.example.com".to_owned()),
            Self::RestoreAccept => state.is_old = false,
            Self::Wipe => return None,
            Self::Setup => {}
        }
        Some(state)
    }
}

/// What of it says that the operation is done: a recovery code is shown before it holds.
pub(crate) fn acknowledged(stdout: &[u8]) -> String {
    let lines = String::from_utf8_lossy(stdout);
    let is_code = |line: &&str| line.starts_with("Recovery code: ") || line.starts_with("Write it down ");
    lines.lines().filter(|line| !is_code(line)).collect()
}

/// How the TPM ends between an operation and the look at what is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ending {
    Shutdown,
    PowerCut,
}

static ALONE: Mutex<()> = Mutex::new(());

/// A state of file and TPM to come back to.
pub(crate) struct Bench {
    /// One at a time: a test that is just starting a program holds this process's locks too, between
    /// fork and exec.
    _alone: MutexGuard<'static, ()>,
    root: TempDir,
    pub(crate) operation: Operation,
    code: RecoveryCode,
    /// Whether a PIN reset that was cut short had to be done again, with the same code.
    pub(crate) redone: bool,
    /// Where the operation was disturbed, for messages.
    pub(crate) point: String,
    /// Whether files that could not be removed may be left beside the vault.
    pub(crate) leftovers: bool,
    /// How often file and TPM were one step apart, before an unlock that brought them together.
    pub(crate) healed: usize,
}

impl Bench {
    pub(crate) fn new(operation: Operation) -> Self {
        let root = tempfile::tempdir().unwrap();
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let point = format!("{operation:?}");
        let code = RecoveryCode::random(&mut rng());
        let bench =
            Self { _alone: alone, root, operation, code, redone: false, point, leftovers: false, healed: 0 };
        fs::create_dir(bench.path("tpm.0")).unwrap();
        fs::create_dir(bench.path("vault.0")).unwrap();
        let tpm = Swtpm::start(&bench.path("tpm.0")).unwrap();
        // Power cuts count as failures, and swtpm's own limit is 3.
        let limits = ["-s", "-n", "1000", "-t", "1000", "-l", "1000"];
        let mut tool = Command::new("tpm2_dictionarylockout");
        assert!(tool.args(limits).env("TPM2TOOLS_TCTI", tpm.tcti()).output().unwrap().status.success());
        if operation != Operation::Setup {
            let (dir, mut keys) = (bench.path("vault.0"), key_store(&tpm.tcti()));
            vault_core::setup(&dir, &mut keys, &pin(PIN), 0, &mut rng()).unwrap();
            for user in ["alice", "bob"] {
                let request = create_request(user);
                let mut vault = Vault::open(&dir, &mut keys).unwrap();
                let unlocked = vault.unlock(&pin(PIN)).unwrap();
                unlocked.enroll(&request, None, UserPresent::confirmed(), 0, &mut rng()).unwrap();
            }
            let mut vault = Vault::open(&dir, &mut keys).unwrap();
            let unlocked = vault.unlock(&pin(PIN)).unwrap();
            unlocked.renew_recovery_code(&bench.code, 0, &mut rng()).unwrap();
            let mut settings = vault.settings().unwrap();
            settings.rules.add(RuleAction::Ask, RULE.trim_start_matches("ask ")).unwrap();
            vault.unlock(&pin(PIN)).unwrap().configure(&settings, &mut rng()).unwrap();
            if operation.starts_with_a_bin() {
                let alice = vault.accounts().unwrap()[0].0;
                vault.unlock(&pin(PIN)).unwrap().delete(alice, 0, &mut rng()).unwrap();
            }
            drop(vault);
            if operation == Operation::RestoreAccept {
                let file = dir.join(VAULT_FILE);
                let copy = fs::read(&file).unwrap();
                let mut vault = Vault::open(&dir, &mut keys).unwrap();
                let alice = vault.accounts().unwrap()[0].0;
                vault.unlock(&pin(PIN)).unwrap().delete(alice, 0, &mut rng()).unwrap();
                drop(vault);
                fs::write(&file, copy).unwrap();
            }
        }
        fs::write(bench.path("options"), creation_options(SITE, "carol", "none")).unwrap();
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub(crate) fn vault(&self) -> PathBuf {
        self.path("vault")
    }

    /// Puts file and TPM back, and starts the TPM.
    pub(crate) fn restore(&self) -> Swtpm {
        for name in ["vault", "tpm"] {
            drop(fs::remove_dir_all(self.path(name)));
            copy(&self.path(&format!("{name}.0")), &self.path(name));
        }
        Swtpm::start(&self.path("tpm")).unwrap()
    }

    /// The command line, under strace with these arguments if there are any.
    pub(crate) fn command(&self, tpm: &Swtpm, strace: &[&str]) -> Command {
        let mut command = if strace.is_empty() {
            Command::new(Program::Passhold.path())
        } else {
            let mut command = Command::new("strace");
            command.arg("-o").arg(self.path("trace")).args(strace).arg("--").arg(Program::Passhold.path());
            command
        };
        command
            .args(["--pin-fd", "0", "--tpm", &tpm.tcti(), "--vault"])
            .arg(self.vault())
            .args(self.operation.arguments(&self.path("options")))
            .env("HOME", self.root.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    pub(crate) fn run(&self, tpm: &Swtpm, strace: &[&str]) -> Output {
        let mut child = self.command(tpm, strace).spawn().unwrap();
        // It may be dead before it reads.
        drop(child.stdin.take().unwrap().write_all(self.typed().as_bytes()));
        child.wait_with_output().unwrap()
    }

    pub(crate) fn typed(&self) -> String {
        match self.operation {
            Operation::PinChange => format!("{PIN}\n{NEW_PIN}\n"),
            Operation::PinReset => format!("{}\n{NEW_PIN}\n", *self.code.to_text()),
            Operation::Rename | Operation::Wipe => String::new(),
            _ => format!("{PIN}\n"),
        }
    }

    /// How often the operation makes each of these system calls; for `openat`, which of them are in the
    /// vault's folder.
    pub(crate) fn calls(&self, names: &[&str]) -> BTreeMap<String, Vec<usize>> {
        let tpm = self.restore();
        let output = self.run(&tpm, &["-e", &format!("trace={}", names.join(","))]);
        assert!(output.status.success(), "{:?}: {}", self.operation, String::from_utf8_lossy(&output.stderr));
        let trace = fs::read_to_string(self.path("trace")).unwrap();
        let vault = self.vault().display().to_string();
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        let mut calls: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for line in trace.lines() {
            let Some((name, rest)) = line.split_once('(') else { continue };
            let count = counts.entry(name.to_owned()).or_default();
            *count += 1;
            if name != "openat" || rest.contains(&vault) {
                calls.entry(name.to_owned()).or_default().push(*count);
            }
        }
        calls
    }

    /// Which of the operation's `write`s carry a TPM command (tag 0x8001 or 0x8002, as strace shows it), after
    /// [`Bench::calls`] has traced them.
    pub(crate) fn writes_to_tpm(&self) -> Vec<usize> {
        let trace = fs::read_to_string(self.path("trace")).unwrap();
        let writes = trace.lines().filter(|line| line.starts_with("write("));
        let numbered = writes.enumerate().filter(|(_, line)| line.contains(r#", "\200\"#));
        numbered.map(|(n, _)| n + 1).collect()
    }

    /// What is there after a restart of the TPM. Everything that is there must work, and nothing else may be.
    pub(crate) fn look(&mut self, tpm: Swtpm, ending: Ending) -> Option<State> {
        match ending {
            Ending::Shutdown => drop(tpm),
            Ending::PowerCut => tpm.cut_power().unwrap(),
        }
        let tpm = Swtpm::start(&self.path("tpm")).unwrap();
        let (dir, mut keys) = (self.vault(), key_store(&tpm.tcti()));
        let found = match Vault::open(&dir, &mut keys) {
            Ok(vault) => {
                assert_eq!(vault.log().unwrap().broken, None, "{}: the log", self.point);
                let accounts = vault.accounts().unwrap().into_iter();
                let accounts: Vec<_> =
                    accounts.map(|(id, a)| (id.to_string(), a.user_name.clone(), a.label.clone())).collect();
                let bin = vault.bin().unwrap().iter().map(|(id, _)| id.to_string()).collect();
                let rules = vault.settings().unwrap().rules.all().iter().map(ToString::to_string).collect();
                Some((accounts, bin, rules))
            }
            Err(OpenError::Unfinished | OpenError::Wiped(_)) => None,
            Err(OpenError::Container(ContainerError::NotFound { .. })) => None,
            Err(e) => panic!("{}: the vault does not open: {e:?}", self.point),
        };
        let state = found.map(|(accounts, bin, rules)| {
            let facts = Facts::of(&dir, &mut keys);
            let wire = Wire::new(tpm.port());
            let in_file = || {
                let container = Container::open(&dir).unwrap();
                let key = secrecy::SecretBox::new(Box::new(facts.container_key));
                container.unseal(&key).unwrap().generation()
            };
            let in_tpm = || {
                let mut pins = [PIN, NEW_PIN].into_iter();
                let stored = pins.find_map(|pin| facts.read_sec(&wire, &facts.derive(pin).0).ok()).unwrap();
                u64::from_be_bytes(stored[64..].try_into().unwrap())
            };
            let (file, before) = (in_file(), in_tpm());
            // The highest bit says that a PIN change was cut short.
            let in_force = before & !(1 << 63);
            assert!(file <= in_force + 1, "{}: the TPM is more than a generation behind", self.point);
            let is_old = file < in_force;
            let mut vault = Vault::open(&dir, &mut keys).unwrap();
            if is_old {
                let refusal = vault.unlock(&pin(PIN)).map(drop).unwrap_err();
                assert!(matches!(refusal, UnlockError::RolledBack { .. }), "{}: {refusal:?}", self.point);
                vault.accept_old_copy(&pin(PIN), &mut rng()).unwrap();
            } else {
                self.healed += usize::from(file != before);
            }
            let pin_now = match vault.unlock(&pin(PIN)) {
                Ok(_) => PIN,
                Err(UnlockError::WrongPin) => NEW_PIN,
                Err(UnlockError::ResetUnfinished) if self.operation == Operation::PinReset => NEW_PIN,
                Err(e) => panic!("{}: {e:?}", self.point),
            };
            let mut in_force = || vault.check_recovery_code(&self.code).is_ok();
            let mut code = in_force();
            self.redone = code && pin_now == NEW_PIN && self.operation == Operation::PinReset;
            if self.redone {
                let next = RecoveryCode::random(&mut rng());
                vault.reset_pin(&self.code, &pin(NEW_PIN), &next, 0, &mut rng()).unwrap();
                code = false;
            }
            let json = request_options(SITE);
            let request = GetRequest::from_json(&json, Origin::parse(ORIGIN).unwrap()).unwrap();
            let ids: Vec<AccountId> = vault.matching(&request).unwrap().iter().map(|(id, _)| *id).collect();
            assert_eq!(ids.len(), accounts.len());
            for id in ids {
                let unlocked = vault.unlock(&pin(pin_now)).unwrap();
                unlocked.sign(&request, id, UserPresent::confirmed(), 0, &mut rng()).unwrap();
            }
            drop(vault);
            assert_eq!(in_tpm(), in_file(), "{}: file and TPM agree after an unlock", self.point);
            State { accounts, bin, pin: pin_now.to_owned(), code, rules, is_old }
        });
        if state.is_none() {
            // Whatever was left, there is room for a vault now.
            vault_core::setup(&dir, &mut keys, &pin(NEW_PIN), 0, &mut rng())
                .unwrap_or_else(|e| panic!("{}: set-up afterwards: {e:?}", self.point));
            drop(Vault::open(&dir, &mut keys).unwrap().unlock(&pin(NEW_PIN)).unwrap());
        }
        drop(keys);
        assert_eq!(Wire::new(tpm.port()).loaded(), [0_u32; 0], "{}: loaded in the TPM", self.point);
        let indices = Command::new("tpm2_getcap")
            .arg("handles-nv-index")
            .env("TPM2TOOLS_TCTI", tpm.tcti())
            .output()
            .unwrap();
        let indices = String::from_utf8(indices.stdout).unwrap();
        assert_eq!(indices.lines().count(), 4, "{}: NV indices {indices}", self.point);
        let mut files: Vec<_> =
            fs::read_dir(&dir).unwrap().map(|f| f.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        if self.leftovers {
            files.retain(|name| name == "lock" || name == VAULT_FILE);
        }
        assert_eq!(files, ["lock", VAULT_FILE], "{}: files", self.point);
        state
    }
}

fn create_request(user: &str) -> CreateRequest {
    CreateRequest::from_json(&creation_options(SITE, user, "none"), Origin::parse(ORIGIN).unwrap()).unwrap()
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        fs::copy(file.path(), to.join(file.file_name())).unwrap();
    }
}
