use serde::{Deserialize, Serialize};
use tss_esapi::{
    structures::{Private, Public},
    traits::{Marshall, UnMarshall},
};
use vault_core::keystore::{Anchor, KeyBlob, KeyStoreError};

use crate::{
    error::{During, Result},
    policy::{Name, NvIndex, Policies, object_name},
    templates,
};

const MALFORMED_ANCHOR: KeyStoreError = KeyStoreError::Malformed { what: "the vault's anchor" };

/// The first one had no recovery index.
const VERSION: u8 = 2;

/// Where a vault's objects are in the TPM, and what they must be.
pub(crate) struct Place {
    pub(crate) srk_name: Name,
    /// What the TPM's endorsement seed makes of a template; where it could not be had, nothing.
    pub(crate) identity: Option<Name>,
    pub(crate) v: WrappedKey,
    pub(crate) pin: NvIndex,
    pub(crate) sec: NvIndex,
    pub(crate) key: NvIndex,
    pub(crate) rec: NvIndex,
    pub(crate) policies: Policies,
}

/// A key that only its parent in this TPM can load.
pub(crate) struct WrappedKey {
    pub(crate) public: Public,
    pub(crate) private: Private,
}

/// The anchor as stored, in CBOR. The Names of the indices follow from their numbers and V's Name.
#[derive(Serialize, Deserialize)]
struct Stored {
    version: u8,
    #[serde(with = "serde_bytes")]
    srk_name: Vec<u8>,
    identity: Option<serde_bytes::ByteBuf>,
    #[serde(with = "serde_bytes")]
    v: Vec<u8>,
    pin_index: u32,
    sec_index: u32,
    key_index: u32,
    rec_index: u32,
}

#[derive(Serialize, Deserialize)]
struct StoredKey(#[serde(with = "serde_bytes")] Vec<u8>, #[serde(with = "serde_bytes")] Vec<u8>);

impl Place {
    pub(crate) fn new(
        srk_name: Name,
        identity: Option<Name>,
        v: WrappedKey,
        [pin, sec, key, rec]: [u32; 4],
    ) -> Result<Self> {
        let policies = Policies::new(&object_name(&v.public)?, pin);
        Ok(Self {
            srk_name,
            identity,
            v,
            pin: templates::nv_pin(pin, policies.pin),
            sec: templates::nv_sec(sec, policies.needs_pin),
            key: templates::nv_key(key, policies.write_once),
            rec: templates::nv_rec(rec, policies.needs_pin),
            policies,
        })
    }

    pub(crate) fn to_anchor(&self) -> Result<Anchor> {
        Ok(Anchor(to_cbor(&Stored {
            version: VERSION,
            srk_name: self.srk_name.clone(),
            identity: self.identity.clone().map(serde_bytes::ByteBuf::from),
            v: self.v.to_blob()?.0,
            pin_index: self.pin.index,
            sec_index: self.sec.index,
            key_index: self.key.index,
            rec_index: self.rec.index,
        })))
    }

    pub(crate) fn from_anchor(anchor: &Anchor) -> Result<Self> {
        let stored: Stored = ciborium::from_reader(anchor.0.as_slice()).map_err(|_| MALFORMED_ANCHOR)?;
        if stored.version != VERSION {
            return Err(MALFORMED_ANCHOR);
        }
        let v = WrappedKey::from_blob(&KeyBlob(stored.v)).map_err(|_| MALFORMED_ANCHOR)?;
        let identity = stored.identity.map(serde_bytes::ByteBuf::into_vec);
        let Stored { pin_index, sec_index, key_index, rec_index, .. } = stored;
        Self::new(stored.srk_name, identity, v, [pin_index, sec_index, key_index, rec_index])
    }
}

impl WrappedKey {
    pub(crate) fn to_blob(&self) -> Result<KeyBlob> {
        let public = self.public.marshall().during("encoding a key")?;
        Ok(KeyBlob(to_cbor(&StoredKey(public, self.private.value().to_vec()))))
    }

    pub(crate) fn from_blob(blob: &KeyBlob) -> Result<Self> {
        let malformed = || KeyStoreError::Malformed { what: "a wrapped key" };
        let StoredKey(public, private) = ciborium::from_reader(blob.0.as_slice()).map_err(|_| malformed())?;
        let public = Public::unmarshall(&public).map_err(|_| malformed())?;
        Ok(Self { public, private: Private::try_from(private).map_err(|_| malformed())? })
    }
}

#[expect(clippy::expect_used, reason = "encoding byte strings to memory")]
fn to_cbor(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("a Vec takes all writes");
    bytes
}
