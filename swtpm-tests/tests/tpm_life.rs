//! What happens to a TPM in its life: power cuts, `TPM2_Clear`, other people's programs, another board.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::as_conversions,
    clippy::print_stdout,
    clippy::pedantic
)]

mod lab;

use std::{sync::Arc, time::Duration};

use lab::{Condition, Lab, Operation, Result, WrongSuccess, chain, of_key_store};
use secrecy::SecretSlice;
use swtpm_tests::{
    TestTpm, pin,
    proxy::{Fault, FaultKind, command_name},
    scale,
};
use tpm_backend::Tpm;
use vault_core::{OpenError, TriesLeft, UnlockError, Vault, keystore::KeyStoreError};

#[test]
fn a_reset_between_any_two_commands_leaves_a_vault_that_works() {
    let mut runs = 0;
    let mut commands = 0;
    let mut wrong = Vec::new();
    for operation in Operation::ALL {
        let mut lab = Lab::ready_for(operation);
        lab.proxy.clear_record();
        let mut keys = lab.key_store();
        lab.perform(operation, &mut keys).unwrap();
        let codes = lab.proxy.codes();
        drop(keys);
        commands += codes.len();
        lab = Lab::empty();
        let step = codes.len().div_ceil(scale(2, usize::MAX).min(codes.len()));
        for at in (0..codes.len()).step_by(step) {
            for orderly in [true, false] {
                lab.prepare(operation);
                let what = format!("{operation:?}[{at}] {} orderly: {orderly}", command_name(codes[at]));
                runs += 1;
                if let Err(e) = reset_before(&mut lab, operation, at, orderly) {
                    wrong.push(format!("{what}: {e}"));
                    lab = Lab::empty();
                }
            }
        }
    }
    println!(
        "resets: {} operations, {commands} commands, {runs} runs, {} violations",
        Operation::ALL.len(),
        wrong.len()
    );
    assert_eq!(wrong, Vec::<String>::new());
}

/// Resets the TPM before a command of `operation`, and proves the vault.
fn reset_before(lab: &mut Lab, operation: Operation, at: usize, orderly: bool) -> Result<(), String> {
    let told = |e: Box<dyn std::error::Error>| chain(e.as_ref());
    let before = (lab.raw().wrong_pins().unwrap_or(0), lab.raw().lockout_counter());
    let (tpm, upstream) = (Arc::clone(&lab.tpm), lab.proxy.upstream());
    let reset = move || {
        let mut tpm = tpm.lock().unwrap();
        if orderly {
            tpm.reboot().unwrap();
        } else {
            tpm.power_cycle().unwrap();
        }
        upstream.set(tpm.port());
    };
    lab.proxy.arm(Fault::once(at, FaultKind::Before(Arc::new(reset))));
    let mut keys = lab.key_store();
    let result = lab.perform(operation, &mut keys);
    let fired = lab.proxy.fired();
    lab.proxy.disarm();
    if fired != 1 {
        return Err(format!("{fired} resets"));
    }
    if let Err(e) = &result {
        if e.downcast_ref::<WrongSuccess>().is_some() {
            return Err(e.to_string());
        }
        if let Some(KeyStoreError::KeysGone(_) | KeyStoreError::Erased) = of_key_store(e.as_ref()) {
            return Err(format!("without proof: {e}"));
        }
    }
    // A power cut after V was used counts one in the TPM's own protection (Part 1 §19.8.5), and so does
    // the unlock that finds a PIN change cut short: which copy of S this PIN masks, only V can tell.
    let spent = (lab.raw().wrong_pins().unwrap_or(0), lab.raw().lockout_counter());
    let allowed = u32::from(!orderly) + u32::from(operation == Operation::Settle);
    if spent.0 > before.0 || spent.1 > before.1 + allowed {
        return Err(format!("counts {before:?} became {spent:?}"));
    }
    let done = result.as_ref().ok();
    let condition = lab.prove(operation, done, &mut keys).map_err(told)?;
    if done.is_some() && operation == Operation::Wipe && !lab.raw().indices().is_empty() {
        return Err("WRONG SUCCESS: a wipe left indices".into());
    }
    if condition == Condition::Vacant {
        lab.perform(Operation::Setup, &mut keys).map_err(told)?;
    }
    drop(keys);
    if !lab.raw().loaded().is_empty() {
        return Err(format!("still loaded: {:x?}", lab.raw().loaded()));
    }
    let mut fresh = lab.key_store();
    lab.accept(operation, condition, &mut fresh).map_err(told)?;
    match lab.prove(Operation::Open, None, &mut fresh).map_err(told)? {
        Condition::Same => Ok(()),
        other => Err(format!("a new key store finds it {other:?}")),
    }
}

#[test]
fn keys_are_gone_after_clear_and_wipe_then_removes_the_vault() {
    let mut lab = Lab::ready_for(Operation::Sign);
    lab.tool("tpm2_clear");
    assert_eq!(open_error(&lab), "KeysGone(Cleared)");
    // Another program makes an SRK of the new seed: that is the proof as well.
    make_ecc_srk(&lab);
    assert_eq!(open_error(&lab), "KeysGone(Cleared)");
    vault_core::wipe(lab.dir(), &mut lab.key_store()).unwrap();
    assert!(!lab.has_vault());
    lab.prepare(Operation::Sign);
    lab.perform(Operation::Sign, &mut lab.key_store()).unwrap();
}

#[test]
fn keys_are_gone_in_another_tpm_and_back_in_the_right_one() {
    let mut lab = Lab::ready_for(Operation::Sign);
    let other = TestTpm::start().unwrap();
    let mut keys = lab.key_store();
    lab.perform(Operation::Sign, &mut keys).unwrap();
    lab.proxy.set_upstream(other.port());
    let error = lab.perform(Operation::Sign, &mut keys).unwrap_err();
    assert_eq!(variant(of_key_store(error.as_ref())), "KeysGone");
    lab.proxy.set_upstream(lab.tpm().port());
    lab.perform(Operation::Sign, &mut keys).unwrap();
}

#[test]
fn an_evicted_srk_is_put_back_and_the_keys_still_sign() {
    let mut lab = Lab::ready_for(Operation::Sign);
    lab.tool("tpm2_evictcontrol -C o -c 0x81000001");
    lab.perform(Operation::Sign, &mut lab.key_store()).unwrap();
    // It lasts: the next run does without.
    lab.proxy.clear_record();
    lab.perform(Operation::Sign, &mut lab.key_store()).unwrap();
    assert!(!lab.proxy.codes().contains(&0x131), "CreatePrimary");
}

#[test]
fn a_foreign_key_in_the_srks_place_is_named_and_never_taken_for_another_tpm() {
    let mut lab = Lab::ready_for(Operation::Sign);
    lab.tool("tpm2_evictcontrol -C o -c 0x81000001");
    make_signing_key_at_the_srks_place(&lab);
    assert_eq!(open_error(&lab), "ForeignSrk");
    let error = vault_core::wipe(lab.dir(), &mut lab.key_store()).unwrap_err();
    assert_eq!(variant(of_key_store(&error)), "ForeignSrk");
    lab.tool("tpm2_evictcontrol -C o -c 0x81000001");
    lab.perform(Operation::Sign, &mut lab.key_store()).unwrap();
}

#[test]
fn set_up_refuses_a_foreign_key_in_the_srks_place() {
    let mut lab = Lab::empty();
    make_signing_key_at_the_srks_place(&lab);
    let error = lab.perform(Operation::Setup, &mut lab.key_store()).unwrap_err();
    assert_eq!(variant(of_key_store(error.as_ref())), "ForeignSrk");
    assert!(!lab.has_vault());
}

#[test]
fn an_rsa_srk_carries_a_vault_through_its_whole_life() {
    let mut lab = Lab::empty();
    lab.tool(&format!(
        "tpm2_createprimary -Q -C o -G rsa2048:aes128cfb -a {SRK_ATTRIBUTES} -c {}",
        context(&lab)
    ));
    lab.tool(&format!("tpm2_evictcontrol -Q -C o -c {} 0x81000001", context(&lab)));
    for operation in Operation::ALL.into_iter().skip(1) {
        // Heal: the RSA SRK is derived again.
        lab.prepare(operation);
        let mut keys = lab.key_store();
        let done = lab
            .perform(operation, &mut keys)
            .unwrap_or_else(|e| panic!("{operation:?}: {}", chain(e.as_ref())));
        let condition = lab.prove(operation, Some(&done), &mut keys).unwrap();
        lab.accept(operation, condition, &mut keys).unwrap();
    }
    assert_eq!((lab.has_vault(), lab.raw().indices()), (false, vec![]));
}

#[test]
fn foreign_sessions_exhaust_the_tpm_until_they_go() {
    let mut lab = Lab::ready_for(Operation::Sign);
    let mut keys = lab.key_store();
    let mut saved = Vec::new();
    let full = loop {
        match lab.raw().start_session() {
            Ok(session) => {
                lab.raw().save_context(session);
                saved.push(session);
            }
            Err(rc) => break rc,
        }
    };
    assert_eq!((full, saved.len()), (0x905, 64));
    assert_eq!(perform_error(&mut keys, &mut lab, Operation::Sign), "Exhausted");
    saved.into_iter().for_each(|session| assert_eq!(lab.raw().flush(session), 0));
    lab.perform(Operation::Sign, &mut keys).unwrap();
    drop(keys);

    let mut keys = lab.key_store();
    let loaded: Vec<_> = (0..3).map(|_| lab.raw().start_session().unwrap()).collect();
    assert_eq!(perform_error(&mut keys, &mut lab, Operation::Sign), "Exhausted");
    loaded.into_iter().for_each(|session| assert_eq!(lab.raw().flush(session), 0));
    lab.perform(Operation::Sign, &mut keys).unwrap();
}

#[test]
fn foreign_objects_exhaust_the_tpm_until_they_go() {
    let mut lab = Lab::ready_for(Operation::Sign);
    let mut keys = lab.key_store();
    let objects: Vec<_> = (0..3).map(|_| lab.raw().load_object().unwrap()).collect();
    assert_eq!(lab.raw().load_object(), Err(0x902));
    assert_eq!(perform_error(&mut keys, &mut lab, Operation::Sign), "Exhausted");
    // Nobody else's were flushed for it.
    assert_eq!(lab.raw().loaded(), objects);
    objects.into_iter().for_each(|object| assert_eq!(lab.raw().flush(object), 0));
    lab.perform(Operation::Sign, &mut keys).unwrap();
}

#[test]
fn an_owned_tpm_wants_its_owner_for_set_up_and_wipe_only() {
    let mut lab = Lab::empty();
    lab.tool("tpm2_changeauth -c owner secret");
    assert_eq!(perform_error(&mut lab.key_store(), &mut lab, Operation::Setup), "OwnerAuthNeeded");
    assert_eq!(perform_error(&mut owned(&lab, "wrong"), &mut lab, Operation::Setup), "OwnerAuthWrong");
    lab.perform(Operation::Setup, &mut owned(&lab, "secret")).unwrap();
    let passkey = lab.enroll(&mut lab.key_store(), "none").unwrap();
    lab.passkeys.push(passkey);
    for operation in [Operation::Open, Operation::Sign, Operation::EnrollPacked, Operation::Delete] {
        let mut keys = lab.key_store();
        let done = lab.perform(operation, &mut keys).unwrap();
        let condition = lab.prove(operation, Some(&done), &mut keys).unwrap();
        lab.accept(operation, condition, &mut keys).unwrap();
    }
    // The count is the owner's to see: without him it is our own.
    for (mut keys, left) in [
        (lab.key_store(), TriesLeft::ByPasshold(7)),
        (owned(&lab, "wrong"), TriesLeft::ByPasshold(6)),
        (owned(&lab, "secret"), TriesLeft::ByTpm(5)),
    ] {
        let mut vault = Vault::open(lab.dir(), &mut keys).unwrap();
        assert!(matches!(vault.unlock(&pin("000000")), Err(UnlockError::WrongPin)));
        assert_eq!(vault.tries_left_if_fewer().unwrap(), Some(left));
    }
    lab.perform(Operation::Sign, &mut lab.key_store()).unwrap();
    assert_eq!(perform_error(&mut lab.key_store(), &mut lab, Operation::Wipe), "OwnerAuthNeeded");
    assert_eq!(perform_error(&mut owned(&lab, "wrong"), &mut lab, Operation::Wipe), "OwnerAuthWrong");
    vault_core::wipe(lab.dir(), &mut owned(&lab, "secret")).unwrap();
    assert_eq!((lab.has_vault(), lab.raw().indices()), (false, vec![]));
}

#[test]
fn a_foreign_key_in_the_srks_place_of_an_owned_tpm_proves_nothing_without_the_owner() {
    let mut lab = Lab::ready_for(Operation::Sign);
    lab.tool("tpm2_evictcontrol -C o -c 0x81000001");
    make_signing_key_at_the_srks_place(&lab);
    lab.tool("tpm2_changeauth -c owner secret");
    // Only the seed could tell, and only the owner may ask for what it makes.
    assert_eq!(open_error(&lab), "OwnerAuthNeeded");
    vault_core::wipe(lab.dir(), &mut lab.key_store()).unwrap_err();
    assert_eq!((lab.has_vault(), lab.raw().indices().len()), (true, 4));
    assert_eq!(perform_error(&mut owned(&lab, "secret"), &mut lab, Operation::Open), "ForeignSrk");
    lab.tool("tpm2_evictcontrol -C o -P secret -c 0x81000001");
    lab.perform(Operation::Open, &mut owned(&lab, "secret")).unwrap();
    lab.perform(Operation::Sign, &mut lab.key_store()).unwrap();
}

#[test]
fn a_tpm_in_lockout_says_when_it_heals_and_works_once_it_is_reset() {
    let mut lab = Lab::ready_for(Operation::Sign);
    let mut keys = lab.key_store();
    lab.tool("tpm2_dictionarylockout --setup-parameters --max-tries=1 --recovery-time=1000 --lockout-recovery-time=0");
    lab.tool("tpm2_nvdefine -Q -C o -s 8 -a authread|authwrite -p right 0x1800000");
    let wrong = lab.tpm().tool("tpm2_nvread", &["-P", "wrong", "0x1800000"]).unwrap();
    assert!(!wrong.status.success());
    let error = lab.perform(Operation::Sign, &mut keys).unwrap_err();
    let Some(KeyStoreError::Lockout { heals_in }) = of_key_store(error.as_ref()) else {
        panic!("{}", chain(error.as_ref()))
    };
    assert_eq!(*heals_in, Some(Duration::from_secs(1000)));
    // The lockout is the TPM's, and no PIN was tried against it.
    let error = lab.perform(Operation::ChangePin, &mut keys).unwrap_err();
    assert_eq!(variant(of_key_store(error.as_ref())), "Lockout");
    lab.tool("tpm2_dictionarylockout -c");
    lab.perform(Operation::Sign, &mut keys).unwrap();
    assert_eq!(lab.raw().lockout_counter(), 0);
}

#[test]
fn an_index_undefined_by_a_stranger_is_an_erased_vault() {
    for (what, size) in [("the PIN index", 8), ("the secret index", 72), ("the key index", 32)] {
        let mut lab = Lab::ready_for(Operation::Sign);
        let index = lab.raw().index_of_size(size).unwrap();
        assert_eq!(lab.raw().undefine(index), 0);
        let mut keys = lab.key_store();
        assert_eq!(perform_error(&mut keys, &mut lab, Operation::Sign), "Erased", "{what}");
        vault_core::wipe(lab.dir(), &mut keys).unwrap_or_else(|e| panic!("{what}: {}", chain(&e)));
        assert_eq!((lab.has_vault(), lab.raw().indices()), (false, vec![]), "{what}");
    }
}

const SRK_ATTRIBUTES: &str = "restricted|decrypt|fixedtpm|fixedparent|sensitivedataorigin|userwithauth|noda";

fn make_ecc_srk(lab: &Lab) {
    lab.tool(&format!(
        "tpm2_createprimary -Q -C o -G ecc256:aes128cfb -a {SRK_ATTRIBUTES} -c {}",
        context(lab)
    ));
    lab.tool(&format!("tpm2_evictcontrol -Q -C o -c {} 0x81000001", context(lab)));
}

fn make_signing_key_at_the_srks_place(lab: &Lab) {
    let attributes = "sign|fixedtpm|fixedparent|sensitivedataorigin|userwithauth";
    lab.tool(&format!("tpm2_createprimary -Q -C o -G ecc256 -a {attributes} -c {}", context(lab)));
    lab.tool(&format!("tpm2_evictcontrol -Q -C o -c {} 0x81000001", context(lab)));
}

fn context(lab: &Lab) -> String {
    lab.tpm().state().join("primary.ctx").display().to_string()
}

fn owned(lab: &Lab, auth: &str) -> Tpm {
    let mut keys = lab.key_store();
    keys.set_owner_auth(SecretSlice::from(auth.as_bytes().to_vec()));
    keys
}

fn open_error(lab: &Lab) -> String {
    let mut keys = lab.key_store();
    match Vault::open(lab.dir(), &mut keys) {
        Ok(_) => "opened".to_owned(),
        Err(OpenError::KeyStore(e @ KeyStoreError::KeysGone(_))) => format!("{e:?}"),
        Err(OpenError::KeyStore(e)) => variant(Some(&e)),
        Err(e) => e.to_string(),
    }
}

fn perform_error(keys: &mut Tpm, lab: &mut Lab, operation: Operation) -> String {
    match lab.perform(operation, keys) {
        Ok(done) => format!("{done:?}"),
        Err(e) if of_key_store(e.as_ref()).is_some() => variant(of_key_store(e.as_ref())),
        Err(e) => chain(e.as_ref()),
    }
}

/// A variant's name.
fn variant(error: Option<&KeyStoreError>) -> String {
    let debug = format!("{error:?}");
    let name = debug.trim_start_matches("Some(");
    name.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default().to_owned()
}
