use rusqlite::{Connection, OptionalExtension};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{ContainerError, Damage, log::Head, seal::Sealer, tree::Digest};
use crate::keystore::{Anchor, TpmKind};

/// An anchor has about 600 bytes, settings with everything at its longest about 25,000.
const LONGEST_COLUMN: i64 = 32 * 1024;

/// Where a vault is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum State {
    /// Set-up has begun; what it made in the TPM must be erased.
    Provisioning,
    /// Usable.
    Active,
    /// Usable, but a PIN reset has begun: whether the TPM holds the old PIN's secrets or the new one's is not known.
    Resetting,
    /// A wipe has begun and must be completed.
    Wiping,
}

/// The header of a container, as it is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) vault_id: [u8; 16],
    pub(super) state: State,
    pub(super) anchor: Anchor,
    pub(super) kind: TpmKind,
    pub(super) generation: u64,
    pub(super) root: Digest,
    /// Sealed; empty where they are the default.
    pub(super) settings: Vec<u8>,
    /// Where the log ends.
    pub(super) log: Head,
}

impl Header {
    /// Reads the header and its authentication code; nothing is authenticated yet.
    pub(super) fn load(db: &Connection) -> Result<(Self, [u8; 32]), ContainerError> {
        // Before any of it is authentic: what is longer was not written by us, and is not fetched.
        let fits =
            "SELECT max(length(anchor), length(settings), length(state), length(kind)) <= ?1 FROM header";
        let fits: Option<bool> = db.query_row(fits, [LONGEST_COLUMN], |row| row.get(0)).optional()?;
        if fits == Some(false) {
            return Err(Damage::Header.into());
        }
        let columns =
            "SELECT vault_id, state, anchor, kind, generation, root, mac, settings, log FROM header";
        let row = db
            .query_row(columns, [], |row| {
                let texts: (String, String) = (row.get(1)?, row.get(3)?);
                let fields = (row.get(0)?, row.get::<_, Vec<u8>>(2)?, row.get(4)?, row.get(5)?, row.get(6)?);
                Ok((texts, fields, row.get(7)?, row.get(8)?))
            })
            .optional()?;
        let ((state, kind), (vault_id, anchor, generation, root, mac), settings, log) =
            row.ok_or(Damage::Header)?;
        let header = Self {
            vault_id,
            state: State::from_text(&state).ok_or(Damage::Header)?,
            anchor: Anchor(checked(&anchor).ok_or(Damage::Header)?),
            kind: kind_from_text(&kind).ok_or(Damage::Header)?,
            generation,
            root,
            settings,
            log: Head::from_bytes(&log).ok_or(Damage::Header)?,
        };
        Ok((header, mac))
    }

    pub(super) fn store(&self, db: &Connection, mac: [u8; 32]) -> Result<(), ContainerError> {
        db.execute(
            "INSERT OR REPLACE INTO header (id, vault_id, state, anchor, kind, generation, root, mac, settings, log)
             VALUES (0, ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
            (
                self.vault_id,
                self.state.as_text(),
                with_checksum(&self.anchor.0),
                kind_as_text(self.kind),
                self.generation,
                self.root,
                mac,
                &self.settings,
                self.log.to_bytes(),
            ),
        )?;
        Ok(())
    }

    /// Writes where the log ends, and nothing else: the row stays as long as it was, and no page moves.
    pub(super) fn store_log(&self, db: &Connection, mac: [u8; 32]) -> Result<(), ContainerError> {
        db.execute("UPDATE header SET mac = ?1, log = ?2", (mac, self.log.to_bytes()))?;
        Ok(())
    }

    pub(super) fn mac(&self, sealer: &Sealer) -> [u8; 32] {
        let mut message = b"passhold v1 header".to_vec();
        message.extend(self.vault_id);
        for text in [self.state.as_text(), kind_as_text(self.kind)] {
            message.extend(text.as_bytes());
            message.push(0);
        }
        message.extend(self.generation.to_be_bytes());
        message.extend(self.root);
        message.extend(Sha256::digest(&self.settings));
        message.extend(self.log.to_bytes());
        message.extend(&self.anchor.0);
        sealer.header_mac(&message)
    }
}

/// The anchor leads to the key that authenticates everything, so it is used before it can be authenticated. Its plain
/// checksum keeps damage from looking like a TPM without the vault's keys; against edits it does nothing.
fn with_checksum(anchor: &[u8]) -> Vec<u8> {
    [anchor, &Sha256::digest(anchor)].concat()
}

fn checked(stored: &[u8]) -> Option<Vec<u8>> {
    let (anchor, checksum) = stored.split_last_chunk::<32>()?;
    (*checksum == *Sha256::digest(anchor)).then(|| anchor.to_vec())
}

impl State {
    // Whole words, which no flipped bit turns into each other.
    fn as_text(self) -> &'static str {
        match self {
            Self::Provisioning => "provisioning",
            Self::Active => "active",
            Self::Resetting => "resetting",
            Self::Wiping => "wiping",
        }
    }

    fn from_text(text: &str) -> Option<Self> {
        let all = [Self::Provisioning, Self::Active, Self::Resetting, Self::Wiping];
        all.into_iter().find(|s| s.as_text() == text)
    }
}

fn kind_as_text(kind: TpmKind) -> &'static str {
    match kind {
        TpmKind::Discrete => "discrete",
        TpmKind::Firmware => "firmware",
        TpmKind::Software => "software",
    }
}

fn kind_from_text(text: &str) -> Option<TpmKind> {
    [TpmKind::Discrete, TpmKind::Firmware, TpmKind::Software].into_iter().find(|k| kind_as_text(*k) == text)
}
