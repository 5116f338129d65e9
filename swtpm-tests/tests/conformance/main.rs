//! Every numbered step of CTAP 2.2 §6 that can refuse, as far as this authenticator has the command, is reached by a case that
//! names it. The authenticator runs in this process, over a vault in swtpm, with a person who does as the case says.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::pedantic
)]

mod client_pin;
mod config;
mod credential_management;
mod destructive;
mod extensions;
mod get_assertion;
mod get_info;
mod large_blobs;
mod log;
mod make_credential;
mod messages;
mod persistent_token;
#[path = "../platform/mod.rs"]
mod platform;
mod presence;
mod rules;

use std::{cell::Cell, path::PathBuf, rc::Rc, time::Duration};

use ciborium::Value;
use ctap::{Ask, Authenticator, Declined, Env, Person, Status, Vaults};
use platform::{
    Platform, Token, client_pin, descriptor, encoded, map, member, options, set_min_pin_length, with,
};
use swtpm_tests::{PIN, TestTpm, pin, rng};
use tempfile::TempDir;
use tpm_backend::Tpm;
use vault_core::{
    OpenError, TriesLeft, Vault, VaultError,
    container::{Account, Container, Log, Settings},
    keystore::{KeyStoreError, TpmKind},
    pin::{Pin, PinMaterial, PinPolicy},
    webauthn::UserPresent,
};

const WRONG: &str = "739184205";

/// The one vault of a folder.
struct Folder {
    dir: PathBuf,
    tpm: Tpm,
}

impl Folder {
    fn open_log(&mut self) -> Log {
        self.open().unwrap().log().unwrap()
    }

    fn open_accounts(&mut self) -> Vec<Account> {
        self.open().unwrap().accounts().unwrap().into_iter().map(|(_, account)| account).collect()
    }
}

impl Vaults for Folder {
    fn exist(&self) -> bool {
        Container::exists(&self.dir).unwrap()
    }

    fn open(&mut self) -> Result<Vault<'_>, OpenError> {
        Ok(Vault::open(&self.dir, &mut self.tpm)?.at(1_700_000_000))
    }

    fn set_up(&mut self, pin: &PinMaterial) -> Result<(), VaultError> {
        vault_core::setup(&self.dir, &mut self.tpm, pin, 0, &mut rng())
    }

    fn wipe(&mut self) -> Result<(), VaultError> {
        vault_core::wipe(&self.dir, &mut self.tpm).map(drop)
    }

    fn kind(&mut self) -> Result<TpmKind, KeyStoreError> {
        Ok(TpmKind::Software)
    }
}

/// A person who does as told.
struct Told {
    answer: Result<(), Declined>,
    pin: &'static str,
    choice: usize,
    /// How long each answer takes, and all have taken.
    takes: Duration,
    taken: Rc<Cell<Duration>>,
    asked: Vec<String>,
}

impl Told {
    fn is_asked(&mut self, what: String) {
        self.asked.push(what);
        self.taken.set(self.taken.get() + self.takes);
    }
}

impl Person for Told {
    fn confirm(&mut self, ask: &Ask<'_>) -> Result<UserPresent, Declined> {
        self.is_asked(format!("confirm {ask:?}"));
        self.answer.map(|()| UserPresent::confirmed())
    }

    fn choose(&mut self, accounts: &[&Account]) -> Result<(usize, UserPresent), Declined> {
        self.is_asked(format!("choose among {}", accounts.len()));
        self.answer.map(|()| (self.choice, UserPresent::confirmed()))
    }

    fn pin(&mut self, ask: &Ask<'_>, _: Option<TriesLeft>) -> Result<(Pin, UserPresent), Declined> {
        self.is_asked(format!("PIN {ask:?}"));
        self.answer.map(|()| (Pin::new(self.pin).unwrap(), UserPresent::confirmed()))
    }
}

struct Bench {
    authenticator: Authenticator,
    vault: Folder,
    person: Told,
    now: Duration,
    // Last: the vault lies in them.
    tpm: TestTpm,
    _home: TempDir,
}

impl Bench {
    fn without_vault() -> Self {
        let (tpm, home) = (TestTpm::start().unwrap(), tempfile::tempdir().unwrap());
        Self {
            authenticator: Authenticator::new(PinPolicy::default(), &mut rng()),
            vault: Folder { dir: home.path().join("vault"), tpm: tpm.key_store() },
            person: Told {
                answer: Ok(()),
                pin: PIN,
                choice: 0,
                takes: Duration::ZERO,
                taken: Rc::default(),
                asked: Vec::new(),
            },
            now: Duration::from_secs(1000),
            tpm,
            _home: home,
        }
    }

    fn new() -> Self {
        let mut bench = Self::without_vault();
        bench.vault.set_up(&pin(PIN)).unwrap();
        bench
    }

    fn raw(&mut self, request: &[u8]) -> Vec<u8> {
        let (mut rng, now, taken) = (rng(), self.now, Rc::clone(&self.person.taken));
        self.authenticator.answer(
            request,
            &mut Env {
                vaults: &mut self.vault,
                person: &mut self.person,
                rng: &mut rng,
                clock: &|| now + taken.get(),
                unix_time: 1_700_000_000,
                report: &|error| println!("reported: {error:?}"),
            },
        )
    }

    fn call(&mut self, command: u8, parameters: &Value) -> (u8, Value) {
        let reply = self.raw(&[&[command][..], &encoded(parameters)].concat());
        let (status, data) = reply.split_first().unwrap();
        let value = if data.is_empty() { Value::Null } else { ciborium::from_reader(data).unwrap() };
        assert_eq!(encoded(&value).as_slice(), if data.is_empty() { &[0xf6] } else { data });
        is_in_order(&value);
        (*status, value)
    }

    fn ok(&mut self, command: u8, parameters: &Value) -> Value {
        let (status, value) = self.call(command, parameters);
        assert_eq!(status, 0, "{parameters:?}");
        value
    }

    /// The case's step is refused so.
    fn refuses(&mut self, step: &str, command: u8, parameters: &Value, status: Status) {
        assert_eq!(
            self.call(command, parameters),
            (status.code(), Value::Null),
            "step {step}: {parameters:?}"
        );
    }

    /// The same, with a person who answers so.
    fn refuses_if(&mut self, step: &str, answer: Declined, request: (u8, &Value), status: Status) {
        self.person.answer = Err(answer);
        self.refuses(step, request.0, request.1, status);
        self.person.answer = Ok(());
    }

    fn restart(&mut self) {
        self.authenticator = Authenticator::new(PinPolicy::default(), &mut rng());
    }

    fn vault_accounts(&mut self) -> usize {
        self.vault.open().unwrap().accounts().unwrap().len()
    }

    fn another_tpm(&self) -> Tpm {
        self.tpm.key_store()
    }

    fn vault_takes(&mut self) -> Vec<vault_core::container::Takes> {
        self.vault.open_accounts().iter().map(|account| account.takes).collect()
    }

    fn change_pin_at_the_terminal(&mut self, new: &str) {
        self.vault.open().unwrap().unlock(&pin(PIN)).unwrap().change_pin(&pin(new), &mut rng()).unwrap();
    }

    fn platform(&mut self, protocol: u8) -> Platform {
        let reply = self.ok(0x06, &client_pin(protocol, 2));
        Platform::agree(protocol, member(&reply, 1).unwrap())
    }

    /// A token for the PIN, with permissions (§6.5.5.7.2).
    fn token(&mut self, protocol: u8, permissions: u8, rp_id: Option<&str>) -> Token {
        self.token_for(PIN, protocol, permissions, rp_id)
    }

    fn token_for(&mut self, pin: &str, protocol: u8, permissions: u8, rp_id: Option<&str>) -> Token {
        let platform = self.platform(protocol);
        let reply = self.ok(0x06, &platform.token_using_pin(pin, permissions, rp_id));
        platform.token(&reply)
    }

    /// A member of getInfo's reply.
    fn info(&mut self, key: i64) -> Option<Value> {
        member(&self.ok(0x04, &map([])), key).cloned()
    }

    fn settings(&mut self) -> Settings {
        self.vault.open().unwrap().settings().unwrap()
    }

    /// A discoverable passkey at `example.org`: its ID.
    fn passkey(&mut self, user: &str) -> Vec<u8> {
        let request = with(&make_credential::request(), 7, options("rk", true));
        let user = map([("id".into(), Value::Bytes(user.as_bytes().to_vec()))]);
        let made = self.ok(0x01, &with(&request, 3, user));
        member(&made, 2).unwrap().as_bytes().unwrap()[55..87].to_vec()
    }
}

/// CTAP2's canonical order: by major type, length, bytes (§8).
fn is_in_order(value: &Value) {
    match value {
        Value::Array(items) => items.iter().for_each(is_in_order),
        Value::Map(members) => {
            let keys: Vec<_> = members.iter().map(|(key, _)| encoded(key)).collect();
            let order = |key: &Vec<u8>| (key[0] >> 5, key.len(), key.clone());
            assert!(keys.windows(2).all(|pair| order(&pair[0]) < order(&pair[1])), "{value:?}");
            members.iter().for_each(|(_, value)| is_in_order(value));
        }
        _ => {}
    }
}

#[test]
fn selection_is_the_persons_word() {
    let mut bench = Bench::without_vault();
    assert_eq!(bench.raw(&[0x0b]), [0]);
    for (declined, status) in [
        (Declined::No, Status::OperationDenied),
        (Declined::TimedOut, Status::UserActionTimeout),
        (Declined::Cancelled, Status::KeepaliveCancel),
    ] {
        bench.person.answer = Err(declined);
        assert_eq!(bench.raw(&[0x0b]), [status.code()]);
    }
}

#[test]
fn reset_destroys_only_on_the_persons_word_and_then_tokens_too() {
    let mut bench = Bench::new();
    let token = bench.token(2, 0x04, None);
    bench.person.asked.clear();
    for (declined, status) in [
        (Declined::No, Status::OperationDenied),
        (Declined::TimedOut, Status::UserActionTimeout),
        (Declined::Cancelled, Status::KeepaliveCancel),
    ] {
        bench.person.answer = Err(declined);
        assert_eq!(bench.raw(&[0x07]), [status.code()]);
        assert!(bench.vault.exist());
    }
    bench.person.answer = Ok(());
    assert_eq!(bench.raw(&[0x07]), [0]);
    assert!(!bench.vault.exist());
    assert!(bench.person.asked.iter().all(|ask| ask == "confirm Reset { passkeys: Some(0) }"));
    let request = token.prove(&map([(1.into(), 1.into())]), (4, 3), &[1]);
    bench.refuses("6.8.2 step 3", 0x0a, &request, Status::PinAuthInvalid);
}
