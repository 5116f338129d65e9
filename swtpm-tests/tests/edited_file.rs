//! Whoever can write to the vault's file can break it. He must not get Passhold to destroy what a good copy of the file
//! would bring back, nor make a wipe say that it destroyed what it did not.
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

use std::{collections::BTreeMap, fs, path::PathBuf, sync::Arc};

use ciborium::Value;
use common::{Facts, Wire, enroll, kind_of, sign_all, try_open};
use sha2::{Digest, Sha256};
use swtpm_tests::{
    PIN, Scene, TestTpm, key_store, pin,
    proxy::{Fault, FaultKind, Proxy},
    rng, scale,
};
use vault_core::{Wiped, setup, wipe};

/// As [`kind_of`] shows it.
const HEADER: &str = "Container(Damaged { what: Header }";

struct Desk {
    scene: Scene,
    facts: Facts,
    copy: Vec<u8>,
}

impl Desk {
    fn new() -> Self {
        let scene = Scene::with_vault();
        let mut keys = scene.tpm.key_store();
        enroll(scene.dir(), &mut keys, PIN, "alice", "none");
        let facts = Facts::of(scene.dir(), &mut keys);
        let copy = fs::read(scene.dir().join("vault.db")).unwrap();
        Self { scene, facts, copy }
    }

    fn file(&self) -> PathBuf {
        self.scene.dir().join("vault.db")
    }

    fn sql(&self, sql: &str, blob: &[u8]) {
        let db = rusqlite::Connection::open(self.file()).unwrap();
        db.execute(sql, [blob]).unwrap();
        db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).unwrap();
        db.close().unwrap();
    }

    /// Edits a member of the anchor as whoever knows the format would.
    fn edit_anchor(&self, name: &str, value: Value) {
        let mut fields: Value = ciborium::from_reader(self.facts.anchor.0.as_slice()).unwrap();
        let member = fields.as_map_mut().unwrap().iter_mut().find(|(k, _)| k.as_text() == Some(name));
        member.unwrap().1 = value;
        let mut anchor = Vec::new();
        ciborium::into_writer(&fields, &mut anchor).unwrap();
        let checksum = Sha256::digest(&anchor);
        self.sql("UPDATE header SET anchor = ?1", &[anchor.as_slice(), &checksum].concat());
    }

    fn mark(&self, state: &str) {
        self.sql(&format!("UPDATE header SET state = '{state}' WHERE ?1 = x''"), b"");
    }

    fn open_error(&self) -> String {
        try_open(self.scene.dir(), &mut self.scene.tpm.key_store())
            .map(drop)
            .map_or_else(|e| kind_of(&e), |()| "opened".into())
    }

    fn indices(&self) -> [bool; 3] {
        let tpm = Wire::new(self.scene.tpm.port());
        [self.facts.sec, self.facts.pin, self.facts.key].map(|index| tpm.nv_public(index).is_some())
    }

    /// A good copy brings everything back.
    fn put_back(&self) {
        assert_eq!(self.indices(), [true; 3]);
        fs::write(self.file(), &self.copy).unwrap();
        assert_eq!(sign_all(self.scene.dir(), &mut self.scene.tpm.key_store(), PIN), 1);
    }
}

#[test]
fn a_flipped_bit_in_the_anchor_is_damage_and_no_lost_tpm() {
    let desk = Desk::new();
    let anchor = &desk.facts.anchor.0;
    let at = desk.copy.windows(anchor.len()).position(|w| w == anchor.as_slice()).expect("on one page");
    let mut answers: BTreeMap<String, usize> = BTreeMap::new();
    for bit in (0..(anchor.len() + 32) * 8).step_by(scale(97, 1)) {
        let mut bytes = desk.copy.clone();
        bytes[at + bit / 8] ^= 1 << (bit % 8);
        fs::write(desk.file(), &bytes).unwrap();
        *answers.entry(desk.open_error()).or_default() += 1;
        assert_eq!(kind_of(&wipe(desk.scene.dir(), &mut desk.scene.tpm.key_store()).unwrap_err()), HEADER);
    }
    println!("edited file: flipped bits in the anchor: {answers:?}");
    assert_eq!(answers.keys().collect::<Vec<_>>(), [HEADER]);
    desk.put_back();
}

/// Marked as if a wipe or a set-up had been cut short, with an anchor that leads past the key that would tell.
#[test]
fn a_mark_that_nothing_vouches_for_destroys_nothing() {
    for state in ["wiping", "provisioning"] {
        for edit in ["nothing", "key_index", "srk_name", "pin_index"] {
            let desk = Desk::new();
            match edit {
                "key_index" => desk.edit_anchor(edit, Value::from(desk.facts.key ^ 0x10_0000)),
                // The key's index is the vault's, and the secret's is not where the anchor says.
                "pin_index" => desk.edit_anchor(edit, Value::from(desk.facts.pin ^ 0x10_0000)),
                "srk_name" => desk.edit_anchor(edit, Value::Bytes(vec![7; 34])),
                _ => {}
            }
            desk.sql("DELETE FROM passkey WHERE ?1 = x''", b"");
            desk.mark(state);
            let opened = desk.open_error();
            let made =
                setup(desk.scene.dir(), &mut desk.scene.tpm.key_store(), &pin("161803x"), 0, &mut rng());
            println!(
                "edited file: {state}, {edit}: {opened}; set-up: {:?}",
                made.as_ref().map_err(|e| kind_of(e))
            );
            assert_eq!(desk.indices(), [true; 3], "{state}, {edit}");
            desk.put_back();
        }
    }
}

#[test]
fn a_wipe_in_another_tpm_does_not_claim_that_copies_are_dead() {
    let desk = Desk::new();
    let other = TestTpm::start().unwrap();
    assert_eq!(wipe(desk.scene.dir(), &mut other.key_store()).unwrap(), Wiped::File);
    assert!(!desk.file().exists());
    desk.put_back();
}

/// Begun in one TPM, it is not completed in another: only the first can forget the secret.
#[test]
fn a_wipe_that_is_pending_stays_so_in_another_tpm() {
    let desk = Desk::new();
    let proxy = Proxy::start(desk.scene.tpm.port()).unwrap();
    let undefine = FaultKind::Rewrite(Arc::new(|command, reply| {
        // NV_UndefineSpace is refused.
        if command[6..10] == [0, 0, 1, 0x22] { vec![0x80, 1, 0, 0, 0, 10, 0, 0, 1, 1] } else { reply }
    }));
    proxy.arm(Fault::continuous(0, undefine));
    wipe(desk.scene.dir(), &mut key_store(&proxy.tcti())).unwrap_err();
    let other = TestTpm::start().unwrap();
    let opened = try_open(desk.scene.dir(), &mut other.key_store()).map(drop).unwrap_err();
    assert_eq!(kind_of(&opened), "KeysGone(OtherTpm");
    assert!(setup(desk.scene.dir(), &mut other.key_store(), &pin(PIN), 0, &mut rng()).is_err());
    assert!(desk.file().exists());
    assert_eq!(desk.open_error(), "Wiped(SecretAndFile");
    assert_eq!(desk.indices(), [false; 3]);
}

/// Two vaults in one TPM, and the anchor of the one in the file of the other.
#[test]
fn a_wipe_with_anothers_anchor_does_not_claim_that_the_vaults_own_copies_are_dead() {
    let desk = Desk::new();
    let decoy = tempfile::tempdir().unwrap();
    let mut keys = desk.scene.tpm.key_store();
    setup(decoy.path(), &mut keys, &pin("161803x"), 0, &mut rng()).unwrap();
    let anchor = Facts::of(decoy.path(), &mut keys).anchor.0;
    let checksum = Sha256::digest(&anchor);
    desk.sql("UPDATE header SET anchor = ?1", &[anchor.as_slice(), &checksum].concat());
    assert_eq!(wipe(desk.scene.dir(), &mut keys).unwrap(), Wiped::SecretItNamed);
    desk.put_back();
}

#[test]
fn a_wipe_that_is_led_past_the_secret_does_not_claim_it() {
    let desk = Desk::new();
    desk.edit_anchor("sec_index", Value::from(desk.facts.sec ^ 0x10_0000));
    assert_eq!(wipe(desk.scene.dir(), &mut desk.scene.tpm.key_store()).unwrap(), Wiped::File);
    assert_eq!(desk.indices(), [true, false, false]);
}

/// The PIN index is undefined by a stranger, who defines one of his own in its place.
#[test]
fn a_wipe_destroys_the_secret_though_an_index_was_replaced_and_leaves_the_strangers() {
    for victim in ["PIN", "key"] {
        let desk = Desk::new();
        let tpm = Wire::new(desk.scene.tpm.port());
        let index = if victim == "PIN" { desk.facts.pin } else { desk.facts.key };
        tpm.undefine(index).unwrap();
        // AUTHREAD, AUTHWRITE.
        tpm.define(index, 0x0004_0004, &[], 8, b"his");
        assert_eq!(desk.open_error() == "opened", victim == "PIN");
        let wiped = wipe(desk.scene.dir(), &mut desk.scene.tpm.key_store()).unwrap();
        // Without the key, nothing vouches for what the file says.
        let expected = if victim == "PIN" { Wiped::SecretAndFile } else { Wiped::SecretItNamed };
        assert_eq!(wiped, expected, "{victim}");
        assert_eq!(desk.indices(), [false, victim == "PIN", victim == "key"], "{victim}");
    }
}
