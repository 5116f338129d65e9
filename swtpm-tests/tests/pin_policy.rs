//! PINs that were used before, and PINs that are too old, where the policy minds.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::pedantic
)]

mod platform;

use std::fs;

use platform::site::{Refusal, Site};
use swtpm_tests::{Call, Device, PIN, Passhold, Scene, TestTpm, creation_options, pin, request_options, rng};
use vault_core::{CeremonyError, RecoveryCode, UnlockError, Vault, pin::PinPolicy};

const ORIGIN: &str = "https://example.org";
const DAY: u64 = 24 * 60 * 60;

fn change(scene: &Scene, policy: PinPolicy, old: &str, new: &str) -> Result<(), CeremonyError> {
    let mut keys = scene.tpm.key_store();
    let mut vault = scene.open(&mut keys).unwrap();
    vault.unlock(&pin(old)).unwrap().change_pin_by(policy, &pin(new), 0, &mut rng())
}

#[test]
fn the_last_five_pins_are_refused_and_the_one_before_them_is_not() {
    let scene = Scene::with_vault();
    let policy = PinPolicy::default().with_history(5).unwrap();
    let mut pins = vec![PIN.to_owned()];
    for n in 0..6 {
        let now = pins.last().unwrap().clone();
        for old in pins.iter().rev().take(5) {
            let refused = change(&scene, policy, &now, old).unwrap_err();
            assert!(matches!(refused, CeremonyError::PinUsedBefore), "{old} after {pins:?}: {refused:?}");
        }
        pins.push(format!("4839{n}2x"));
        change(&scene, policy, &now, pins.last().unwrap()).unwrap();
    }
    let (now, first) = (pins.last().unwrap().clone(), pins[0].clone());
    change(&scene, policy, &now, &first).unwrap();
    // Without the policy any is taken.
    change(&scene, PinPolicy::default(), &first, &now).unwrap();
}

#[test]
fn a_history_is_no_help_to_whoever_guesses() {
    let scene = Scene::with_vault();
    let policy = PinPolicy::default().with_history(5).unwrap();
    change(&scene, policy, PIN, "161803x").unwrap();
    let mut keys = scene.tpm.key_store();
    let mut vault = scene.open(&mut keys).unwrap();
    let history = vault.settings().unwrap().pin_history.unwrap();
    assert_eq!(history.tags.len(), 2);
    // Not what could be computed without the TPM.
    for typed in [PIN, "161803x"] {
        let secrets = vault.secrets(&pin(typed));
        for secret in [&secrets.auth, &secrets.mask] {
            assert!(history.tags.iter().all(|tag| **tag != *secrecy::ExposeSecret::expose_secret(secret)));
        }
    }
    // The key that made them takes the PIN, and is not there without it.
    assert!(matches!(vault.unlock(&pin(PIN)).map(drop), Err(UnlockError::WrongPin)));
}

#[test]
fn a_pin_that_ages_is_told_from_one_that_nobody_dated() {
    let policy = PinPolicy::default().with_max_age_days(90.try_into().ok());
    let made = 1_000_000;
    assert!(!policy.is_expired(Some(made), made + 90 * DAY - 1));
    assert!(policy.is_expired(Some(made), made + 90 * DAY));
    assert!(policy.is_expired(None, made) && !PinPolicy::default().is_expired(None, made));

    let scene = Scene::with_vault();
    let mut keys = scene.tpm.key_store();
    let mut vault = scene.open(&mut keys).unwrap();
    assert!(vault.pin_is_expired(policy, made).unwrap(), "nobody dated it");
    vault.unlock(&pin(PIN)).unwrap().begin(None, made, &mut rng()).unwrap();
    assert!(!vault.pin_is_expired(policy, made + DAY).unwrap());
    let code = RecoveryCode::random(&mut rng());
    vault.unlock(&pin(PIN)).unwrap().renew_recovery_code(&code, made + 100 * DAY, &mut rng()).unwrap();
    assert!(vault.pin_is_expired(policy, made + 100 * DAY).unwrap(), "another code is no other PIN");
    let next = RecoveryCode::random(&mut rng());
    vault.reset_pin(&code, &pin("161803x"), &next, made + 100 * DAY, &mut rng()).unwrap();
    assert!(!vault.pin_is_expired(policy, made + 100 * DAY).unwrap());
    vault
        .unlock(&pin("161803x"))
        .unwrap()
        .change_pin_by(policy, &pin(PIN), made + 200 * DAY, &mut rng())
        .unwrap();
    assert!(!vault.pin_is_expired(policy, made + 289 * DAY).unwrap());
}

struct Desk {
    passhold: Passhold,
    // Dropped after the programs that use it.
    tpm: TestTpm,
}

impl Desk {
    fn new(config: &str) -> Self {
        let tpm = TestTpm::start().unwrap();
        let passhold = Passhold::with_vault(&tpm);
        let folder = passhold.home().join(".config/passhold");
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("config.toml"), config).unwrap();
        Self { passhold, tpm }
    }

    fn enroll(&self) -> Call {
        let call = self.passhold.call(["enroll", "--origin", ORIGIN]).pin(PIN);
        call.stdin(creation_options("example.org", "alice", "none"))
    }

    fn sign(&self, with_pin: &str) -> Call {
        let call = self.passhold.call(["sign", "--origin", ORIGIN]).pin(with_pin);
        call.stdin(request_options("example.org"))
    }

    fn change(&self, old: &str, new: &str) -> Call {
        self.passhold.call(["pin", "change"]).pin(&format!("{old}\n{new}"))
    }
}

#[test]
fn an_old_pin_is_warned_of_once_and_must_be_changed_at_the_next_use() {
    let desk = Desk::new("pin-max-age-days = 90");
    desk.enroll().run().expect_code(0);
    let fresh = desk.sign(PIN).run().expect_code(0);
    assert!(!fresh.stderr.contains("too old"), "{}", fresh.stderr);
    {
        // Ninety days ago.
        let mut keys = desk.tpm.key_store();
        let mut vault = Vault::open(&desk.passhold.vault(), &mut keys).unwrap();
        let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
        vault.unlock(&pin(PIN)).unwrap().begin(None, now - 90 * DAY, &mut rng()).unwrap();
    }
    let warned = desk.sign(PIN).run().expect_code(0);
    let warning =
        "passhold: this PIN is too old: change it with \"passhold pin change\" before it is needed again\n";
    assert!(warned.stderr.ends_with(warning), "{}", warned.stderr);
    let refused = desk.sign(PIN).run().expect_code(16);
    assert!(refused.stderr.contains("the PIN must be changed to another one first"), "{}", refused.stderr);
    desk.change(PIN, PIN).run().expect_code(16);
    desk.change(PIN, "161803x").run().expect_code(0);
    let good = desk.sign("161803x").run().expect_code(0);
    assert!(!good.stderr.contains("too old"), "{}", good.stderr);
}

#[test]
fn the_config_file_asks_for_a_history() {
    let desk = Desk::new("pin-history = 5");
    desk.change(PIN, "161803x").run().expect_code(0);
    let refused = desk.change("161803x", PIN).run().expect_code(16);
    assert!(
        refused.stderr.contains("this PIN is refused: this PIN was used before\nChoose another one.\n"),
        "{}",
        refused.stderr
    );
    fs::write(desk.passhold.home().join(".config/passhold/config.toml"), "").unwrap();
    desk.change("161803x", PIN).run().expect_code(0);
}

/// Which PINs were used before shows with a PIN alone, and whoever resets it has none: it is set, and good for one thing.
#[test]
fn a_pin_of_the_last_ones_is_no_way_round_the_history() {
    let desk = Desk::new("pin-history = 5");
    let renewed = desk.passhold.call(["recovery", "renew", "--json"]).pin(PIN).run().expect_code(0).json();
    desk.enroll().run().expect_code(0);
    desk.change(PIN, "161803x").run().expect_code(0);
    let reset = |code: &serde_json::Value, new: &str| {
        let typed = format!("{}\n{new}", code["recoveryCode"].as_str().unwrap());
        desk.passhold.call(["pin", "reset", "--json"]).pin(&typed).run().expect_code(0)
    };
    let again = reset(&renewed, PIN);
    assert!(again.stderr.contains("this PIN is one of your last"), "{}", again.stderr);
    desk.sign(PIN).run().expect_code(16);
    desk.change(PIN, "161803x").run().expect_code(16);
    desk.change(PIN, "271828x").run().expect_code(0);
    desk.sign("271828x").run().expect_code(0);
    let fresh = reset(&again.json(), "141421x");
    assert!(!fresh.stderr.contains("last"), "{}", fresh.stderr);
    desk.sign("141421x").run().expect_code(0);
    desk.change("141421x", "271828x").run().expect_code(16);
}

/// CTAP2_ERR_PIN_POLICY_VIOLATION.
const POLICY_VIOLATION: u8 = 0x37;
/// mc and ga.
const PERMISSIONS: u8 = 3;

#[test]
fn the_device_minds_the_same_policy() {
    let scene = Scene::with_vault();
    let policy = ["--pin-history", "5", "--pin-max-age-days", "90"];
    let device = Device::start_with(scene.dir(), &scene.tpm.tcti(), PIN, &policy);
    let site = Site::connect(&device);
    let refused = |answer: Result<_, Refusal>| matches!(answer, Err(Refusal::Status(POLICY_VIOLATION)));
    let demands_change = || {
        let info = site.raw(&[0x04]).unwrap();
        platform::member(&info, 0x0c).cloned().unwrap() == true.into()
    };
    // Nobody dated this PIN.
    assert!(demands_change());
    assert!(refused(site.token(PIN, PERMISSIONS).map(drop)));
    assert!(refused(site.make(None, "alice").map(drop)), "by the prompt of the device itself");
    assert!(refused(site.change_pin(PIN, PIN)));
    site.change_pin(PIN, "161803x").unwrap();
    assert!(!demands_change());
    assert!(refused(site.change_pin("161803x", PIN)));
    let token = site.token("161803x", PERMISSIONS).unwrap();
    site.make(Some(&token), "alice").unwrap();
    device.stop();
}
