//! What a TPM says of itself, for whoever looks for what is wrong with it. Takes no PIN and counts no try.

use tss_esapi::constants::PropertyTag;
use vault_core::keystore::{Anchor, KeysGone, Lockout, TpmKind};

use crate::{
    anchor::Place,
    connection::Connection,
    error::{During, Result},
    link::Link,
    srk,
    status::{about, has_room, properties, value},
    tpm::Tpm,
};

/// `TPMA_PERMANENT` (Part 2 §8.6).
mod permanent {
    pub(super) const OWNER_AUTH_SET: u32 = 1;
    pub(super) const LOCKOUT_AUTH_SET: u32 = 1 << 2;
    pub(super) const IN_LOCKOUT: u32 = 1 << 9;
}

/// A TPM's state, as far as it is the same for all its users.
#[derive(Clone, Debug)]
pub struct Survey {
    /// What kind of TPM this is.
    pub kind: TpmKind,
    /// Its maker and model, as it names itself.
    pub model: String,
    /// The revision of the specification, times 100.
    pub revision: u32,
    /// Whether it knows PIN FAIL indices.
    pub counts_pins: bool,
    /// The owner's authorization.
    pub owner: Authorization,
    /// The authorization that resets the count of failures, and sets its limits.
    pub lockout_auth: Authorization,
    /// Its dictionary-attack protection.
    pub lockout: Lockout,
    /// Whether that refuses everything it protects now.
    pub in_lockout: bool,
    /// Whether there is room for what an operation loads at a time.
    pub has_room: bool,
    /// How many more persistent keys it has room for, besides the few it keeps room for whatever else is stored. NV indices
    /// take the same room.
    pub persistent_left: u32,
}

/// Whether a hierarchy's authorization is what it was when the TPM was new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authorization {
    /// Whoever reaches the TPM has it.
    Empty,
    /// It takes knowing it.
    Set,
}

/// What is at the storage root key's handle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageRootKey {
    /// The vault's; without a vault one that can be.
    Right,
    /// Nothing, and the TPM can make it anew.
    Missing,
    /// Another key, and the TPM can make the vault's anew.
    Taken,
    /// A key that cannot be one.
    Unfit(&'static str),
    /// The TPM cannot make the vault's any more.
    Gone(KeysGone),
}

impl Tpm {
    /// What the TPM says of itself.
    pub fn survey(&mut self) -> Result<Survey> {
        self.close();
        self.guarded(|tpm| survey(&mut tpm.route.connect()?))
    }

    /// What became of the storage root key, of this vault where one is named. Changes nothing, unlike opening a vault, which
    /// puts back a key that is missing.
    pub fn storage_root_key(&mut self, anchor: Option<&Anchor>) -> Result<StorageRootKey> {
        self.close();
        let place = anchor.map(Place::from_anchor).transpose()?;
        self.guarded(|tpm| {
            let owner = tpm.owner_auth()?;
            let mut tpm = tpm.route.connect()?;
            let found = srk::persistent(&mut tpm)?;
            let step = "reading the SRK";
            match (found, place) {
                (None, None) => Ok(StorageRootKey::Missing),
                (Some(key), None) => {
                    let (public, _, _) = tpm.execute_without_session(|c| c.read_public(key)).during(step)?;
                    Ok(srk::unfit(&public).map_or(StorageRootKey::Right, StorageRootKey::Unfit))
                }
                (Some(key), Some(place))
                    if tpm.tr_get_name(key.into()).during(step)?.value() == place.srk_name.as_slice() =>
                {
                    Ok(StorageRootKey::Right)
                }
                (found, Some(place)) => match srk::derive(&mut tpm, &place.srk_name, owner.as_ref())? {
                    Some(made) => {
                        tpm.flush(made)?;
                        Ok(found.map_or(StorageRootKey::Missing, |_| StorageRootKey::Taken))
                    }
                    None => srk::what_became(&mut tpm, &place).map(StorageRootKey::Gone),
                },
            }
        })
    }

    /// Whether the secret that the PIN guards is still there.
    pub fn find_secret(&mut self, anchor: &Anchor) -> Result<()> {
        self.on_link(anchor, Link::require_secret_index)
    }

    /// Whether what the recovery code unmasks is still there.
    pub fn find_recovery(&mut self, anchor: &Anchor) -> Result<()> {
        self.on_link(anchor, |link| link.rec_index().map(drop))
    }

    /// Puts the storage root key where it belongs, if nothing is there: this vault's, or a new one.
    pub fn restore_storage_root_key(&mut self, anchor: Option<&Anchor>) -> Result<()> {
        self.close();
        let place = anchor.map(Place::from_anchor).transpose()?;
        self.guarded(|tpm| {
            let owner = tpm.owner_auth()?;
            let mut tpm = tpm.route.connect()?;
            match place {
                Some(place) => srk::find(&mut tpm, &place, owner.as_ref()).map(drop),
                None => srk::find_or_make(&mut tpm, owner.as_ref()).map(drop),
            }
        })
    }
}

fn survey(tpm: &mut Connection) -> Result<Survey> {
    let fixed = properties(tpm, PropertyTag::FamilyIndicator)?;
    let changing = properties(tpm, PropertyTag::Permanent)?;
    let about = about(&fixed, &changing);
    let of = |tag| value(&changing, tag);
    let permanent = of(PropertyTag::Permanent);
    let authorization = |bit| if permanent & bit == 0 { Authorization::Empty } else { Authorization::Set };
    let kept = value(&fixed, PropertyTag::HrPersistentMin).saturating_sub(of(PropertyTag::HrPersistent));
    Ok(Survey {
        kind: about.kind,
        model: about.model,
        revision: value(&fixed, PropertyTag::Revision),
        counts_pins: about.counts_pins,
        owner: authorization(permanent::OWNER_AUTH_SET),
        lockout_auth: authorization(permanent::LOCKOUT_AUTH_SET),
        lockout: about.lockout,
        in_lockout: permanent & permanent::IN_LOCKOUT != 0,
        has_room: has_room(&changing),
        persistent_left: of(PropertyTag::HrPersistentAvail).saturating_sub(kept),
    })
}
