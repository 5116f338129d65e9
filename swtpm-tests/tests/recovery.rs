//! A forgotten PIN: reset by the recovery code, and by nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::pedantic
)]

mod common;

use std::fs;

use common::{Auth, Facts, Wire, cc, enroll, rc};
use secrecy::ExposeSecret;
use swtpm_tests::{
    PIN, Scene, key_store, pin,
    proxy::{Fault, FaultKind, Proxy},
    rng,
};
use vault_core::{
    RecoveryCode, RecoveryError, TriesLeft, UnlockError, VaultError,
    keystore::KeyStoreError,
    webauthn::{GetRequest, Origin, UserPresent},
};

const NEW_PIN: &str = "314159";
const ORIGIN: &str = "https://example.org";

/// A vault with three passkeys and a recovery code.
struct Desk {
    scene: Scene,
    code: RecoveryCode,
}

impl Desk {
    fn new() -> Self {
        let (scene, code) = (Scene::with_vault(), RecoveryCode::random(&mut rng()));
        for user in ["alice", "bob", "carol"] {
            enroll(scene.dir(), &mut scene.tpm.key_store(), PIN, user, "none");
        }
        let desk = Self { scene, code };
        desk.renew(PIN, &desk.code, 1);
        desk
    }

    fn renew(&self, with_pin: &str, code: &RecoveryCode, now: u64) {
        let mut keys = self.scene.tpm.key_store();
        let mut vault = self.scene.open(&mut keys).unwrap();
        vault.unlock(&pin(with_pin)).unwrap().renew_recovery_code(code, now, &mut rng()).unwrap();
    }

    fn reset(&self, code: &RecoveryCode, new: &str, next: &RecoveryCode) -> Result<(), RecoveryError> {
        let mut keys = self.scene.tpm.key_store();
        self.scene.open(&mut keys).unwrap().reset_pin(code, &pin(new), next, 7, &mut rng())
    }

    fn try_pin(&self, text: &str) -> Result<(), UnlockError> {
        let mut keys = self.scene.tpm.key_store();
        self.scene.open(&mut keys).unwrap().unlock(&pin(text)).map(drop)
    }

    /// Signs with every passkey; each signature is verified before it is returned.
    fn sign_with_all(&self, text: &str) -> usize {
        let mut keys = self.scene.tpm.key_store();
        let mut vault = self.scene.open(&mut keys).unwrap();
        let request = swtpm_tests::request_options("example.org");
        let request = GetRequest::from_json(&request, Origin::parse(ORIGIN).unwrap()).unwrap();
        let ids: Vec<_> = vault.matching(&request).unwrap().into_iter().map(|(id, _)| id).collect();
        for id in &ids {
            vault
                .unlock(&pin(text))
                .unwrap()
                .sign(&request, *id, UserPresent::confirmed(), 0, &mut rng())
                .unwrap();
        }
        ids.len()
    }

    fn lock(&self) {
        while !matches!(self.try_pin("999888777x"), Err(UnlockError::KeyStore(KeyStoreError::PinLocked))) {}
    }

    fn lockout_counter(&self) -> u32 {
        Wire::new(self.scene.tpm.port()).lockout_counter()
    }
}

fn another() -> RecoveryCode {
    RecoveryCode::random(&mut rng())
}

#[test]
fn a_locked_vault_is_reset_by_its_code_and_all_keys_sign() {
    let desk = Desk::new();
    desk.lock();
    assert!(matches!(desk.try_pin(PIN), Err(UnlockError::KeyStore(KeyStoreError::PinLocked))));
    desk.reset(&desk.code, NEW_PIN, &another()).unwrap();
    assert_eq!(desk.sign_with_all(NEW_PIN), 3);
    assert!(matches!(desk.try_pin(PIN), Err(UnlockError::WrongPin)));
    let mut keys = desk.scene.tpm.key_store();
    assert_eq!(desk.scene.open(&mut keys).unwrap().tries_left().unwrap(), TriesLeft::ByTpm(7));
    assert_eq!(desk.lockout_counter(), 0);
}

#[test]
fn a_wrong_code_a_spent_one_a_replaced_one_and_none_are_told_apart_and_count_nothing() {
    let bare = Scene::with_vault();
    let refused = bare.open(&mut bare.tpm.key_store()).unwrap().check_recovery_code(&another()).unwrap_err();
    assert!(matches!(refused, RecoveryError::NoCode));

    let desk = Desk::new();
    assert!(matches!(desk.reset(&another(), NEW_PIN, &another()), Err(RecoveryError::WrongCode)));
    let (second, third) = (another(), another());
    desk.renew(PIN, &second, 5);
    assert!(matches!(desk.reset(&desk.code, NEW_PIN, &third), Err(RecoveryError::SpentCode { at: 5 })));
    desk.reset(&second, NEW_PIN, &third).unwrap();
    assert!(matches!(desk.reset(&second, PIN, &another()), Err(RecoveryError::SpentCode { at: 7 })));
    assert_eq!(desk.sign_with_all(NEW_PIN), 3);
    desk.reset(&third, PIN, &another()).unwrap();
    assert_eq!((desk.sign_with_all(PIN), desk.lockout_counter()), (3, 0));
}

#[test]
fn a_thousand_wrong_codes_lock_nothing() {
    let desk = Desk::new();
    let mut keys = desk.scene.tpm.key_store();
    let mut vault = desk.scene.open(&mut keys).unwrap();
    for _ in 0..swtpm_tests::scale(100, 1000) {
        assert!(matches!(vault.check_recovery_code(&another()), Err(RecoveryError::WrongCode)));
    }
    drop(vault);
    desk.reset(&desk.code, NEW_PIN, &another()).unwrap();
    assert_eq!((desk.sign_with_all(NEW_PIN), desk.lockout_counter()), (3, 0));
}

#[test]
fn a_spent_code_opens_no_old_copy_of_the_vault_either() {
    let desk = Desk::new();
    let file = desk.scene.dir().join("vault.db");
    let old = fs::read(&file).unwrap();
    desk.renew(PIN, &another(), 5);
    fs::write(&file, old).unwrap();
    // The copy says that this code is the one in force. The TPM does not.
    let refused = desk.reset(&desk.code, NEW_PIN, &another()).unwrap_err();
    assert!(matches!(refused, RecoveryError::SpentCode { .. }), "{refused:?}");
    // By hand, with all that the file and the TPM tell: the masked secret is gone.
    let mut keys = desk.scene.tpm.key_store();
    let (wire, facts) = (Wire::new(desk.scene.tpm.port()), Facts::of(desk.scene.dir(), &mut keys));
    drop(keys);
    let stored = wire.nv_read(facts.rec, facts.rec, 64, Auth::Password(&[])).unwrap();
    let mask = vault_core::RecoverySecrets::derive(&desk.code, &facts.vault_id).mask;
    let s: [u8; 32] = std::array::from_fn(|i| stored[i] ^ mask.expose_secret()[i]);
    let v = facts.load_v(&wire);
    let policy = wire.session(common::wire::POLICY);
    assert_eq!(wire.policy_secret(v, &policy, Auth::Password(&s)).unwrap_err() & 0xff, rc::AUTH_FAIL & 0xff);
}

#[test]
fn an_old_copy_does_not_come_in_by_a_reset() {
    let desk = Desk::new();
    let file = desk.scene.dir().join("vault.db");
    let old = fs::read(&file).unwrap();
    enroll(desk.scene.dir(), &mut desk.scene.tpm.key_store(), PIN, "dave", "none");
    let new = fs::read(&file).unwrap();
    fs::write(&file, old).unwrap();
    let next = another();
    let refused = desk.reset(&desk.code, NEW_PIN, &next).unwrap_err();
    assert!(matches!(refused, RecoveryError::Reset(UnlockError::RolledBack { .. })), "{refused:?}");
    fs::write(&file, new).unwrap();
    assert_eq!(desk.sign_with_all(NEW_PIN), 4);
    // It is not spent: what it was for did not come to its end.
    desk.reset(&desk.code, PIN, &next).unwrap();
    assert_eq!(desk.sign_with_all(PIN), 4);
}

/// With an empty owner authorization anyone may undefine the index.
#[test]
fn a_recovery_index_that_somebody_undefined_is_made_anew_by_the_pin() {
    let desk = Desk::new();
    let facts = Facts::of(desk.scene.dir(), &mut desk.scene.tpm.key_store());
    let (index, next) = (format!("{:#x}", facts.rec), another());
    let tool = |program: &str, args: &[&str]| {
        assert!(desk.scene.tpm.tool(program, args).unwrap().status.success(), "{program} {args:?}");
    };
    let undefine = || tool("tpm2_nvundefine", &["-C", "o", &index]);
    let renew =
        |keys: &mut tpm_backend::Tpm, code: &RecoveryCode| -> Result<(), Box<dyn std::error::Error>> {
            Ok(desk.scene.open(keys)?.unlock(&pin(PIN))?.renew_recovery_code(code, 9, &mut rng())?)
        };
    undefine();
    let refused = desk.reset(&desk.code, NEW_PIN, &next).unwrap_err();
    assert!(matches!(refused, RecoveryError::KeyStore(KeyStoreError::RecoveryGone)), "{refused:?}");
    assert_eq!(desk.sign_with_all(PIN), 3);
    // Cut short at any command, it is done again.
    let proxy = Proxy::start(desk.scene.tpm.port()).unwrap();
    for at in 0.. {
        proxy.arm(Fault::once(at, FaultKind::CutAfter));
        let cut = renew(&mut key_store(&proxy.tcti()), &another());
        let fired = proxy.fired() > 0;
        proxy.disarm();
        assert!(fired || cut.is_ok(), "at {at}: {cut:?}");
        renew(&mut key_store(&proxy.tcti()), &next).unwrap();
        undefine();
        if !fired {
            break;
        }
    }
    drop(proxy);
    renew(&mut desk.scene.tpm.key_store(), &next).unwrap();
    desk.reset(&next, NEW_PIN, &another()).unwrap();
    assert_eq!((desk.sign_with_all(NEW_PIN), desk.lockout_counter()), (3, 0));

    // The owner's authorization is asked for where it is set.
    undefine();
    tool("tpm2_changeauth", &["-c", "owner", "secret"]);
    let with_owner = |auth: Option<&str>| {
        let mut keys = desk.scene.tpm.key_store();
        if let Some(auth) = auth {
            keys.set_owner_auth(secrecy::SecretSlice::from(auth.as_bytes().to_vec()));
        }
        let mut vault = desk.scene.open(&mut keys).unwrap();
        vault.unlock(&pin(NEW_PIN)).unwrap().renew_recovery_code(&next, 10, &mut rng())
    };
    let refused = |auth| with_owner(auth).unwrap_err();
    assert!(matches!(refused(None), VaultError::KeyStore(KeyStoreError::OwnerAuthNeeded)));
    assert!(matches!(refused(Some("wrong")), VaultError::KeyStore(KeyStoreError::OwnerAuthWrong)));
    with_owner(Some("secret")).unwrap();
}

#[test]
fn nobody_writes_the_recovery_index_without_the_pin() {
    let desk = Desk::new();
    let mut keys = desk.scene.tpm.key_store();
    let (wire, facts) = (Wire::new(desk.scene.tpm.port()), Facts::of(desk.scene.dir(), &mut keys));
    drop(keys);
    for auth in [Auth::Password(&[]), Auth::Password(&facts.container_key)] {
        assert!(wire.nv_write(facts.rec, facts.rec, &[0; 64], auth).is_err());
    }
    let mut policy = wire.session(common::wire::POLICY);
    assert!(wire.nv_write(facts.rec, facts.rec, &[0; 64], Auth::Policy(&mut policy)).is_err());
    wire.command_code(&policy, cc::NV_WRITE);
    assert!(wire.nv_write(facts.rec, facts.rec, &[0; 64], Auth::Policy(&mut policy)).is_err());
    wire.flush(policy.handle);
    desk.reset(&desk.code, NEW_PIN, &another()).unwrap();
}

#[test]
fn a_reset_in_a_tpm_in_lockout_changes_nothing() {
    let desk = Desk::new();
    let (wire, v) = (Wire::new(desk.scene.tpm.port()), {
        let mut keys = desk.scene.tpm.key_store();
        Facts::of(desk.scene.dir(), &mut keys)
    });
    let handle = v.load_v(&wire);
    let policy = wire.session(common::wire::POLICY);
    while wire.policy_secret(handle, &policy, Auth::Password(b"wrong")).unwrap_err() != rc::LOCKOUT {}
    wire.flush(handle);
    wire.flush(policy.handle);
    let refused = desk.reset(&desk.code, NEW_PIN, &another()).unwrap_err();
    assert!(matches!(refused, RecoveryError::KeyStore(KeyStoreError::Lockout { .. })), "{refused:?}");
    let lift = desk.scene.tpm.tool("tpm2_dictionarylockout", &["--clear-lockout"]).unwrap();
    assert!(lift.status.success());
    assert_eq!(desk.sign_with_all(PIN), 3);
}

#[test]
fn the_code_does_not_lie_in_the_file_and_neither_does_its_mask() {
    let desk = Desk::new();
    let file = fs::read(desk.scene.dir().join("vault.db")).unwrap();
    let mut keys = desk.scene.tpm.key_store();
    let facts = Facts::of(desk.scene.dir(), &mut keys);
    drop(keys);
    let secrets = vault_core::RecoverySecrets::derive(&desk.code, &facts.vault_id);
    for secret in [secrets.mask.expose_secret().as_slice(), &secrets.check] {
        assert!(!file.windows(secret.len()).any(|window| window == secret));
    }
}
