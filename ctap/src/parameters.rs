//! Parameters that several commands have.

use ciborium::Value;
use vault_core::{
    container::Account,
    webauthn::{ClientDataHash, RpId, User, UserHandle},
};

use crate::{
    Status,
    cbor::{Map, bytes, map},
    failure::Result,
    pin_protocol::PinProtocol,
};

/// What getInfo announces; a longer list is refused.
pub(crate) const MAX_CREDENTIALS_IN_LIST: usize = 64;

/// The options of makeCredential and getAssertion, as far as they are there (CTAP 2.2 §6.1, §6.2).
pub(crate) struct Options {
    pub(crate) rk: Option<bool>,
    pub(crate) up: Option<bool>,
    pub(crate) uv: Option<bool>,
}

/// `pinUvAuthParam`, and the protocol that it is of.
pub(crate) struct PinUvAuth {
    pub(crate) param: Vec<u8>,
    protocol: Option<u64>,
}

impl Options {
    pub(crate) fn take(map: &mut Map, key: u8) -> Result<Self> {
        let mut options = map.optional(key)?.unwrap_or_else(Map::empty);
        Ok(Self { rk: options.optional("rk")?, up: options.optional("up")?, uv: options.optional("uv")? })
    }
}

impl PinUvAuth {
    pub(crate) fn take(map: &mut Map, param: u8, protocol: u8) -> Result<Option<Self>> {
        let protocol = map.optional(protocol)?;
        Ok(map.optional(param)?.map(|param| Self { param, protocol }))
    }

    /// §6.1.2 step 2, §6.2.2 step 2.
    pub(crate) fn protocol(&self) -> Result<PinProtocol> {
        Ok(PinProtocol::from_number(self.protocol.ok_or(Status::MissingParameter)?)?)
    }
}

/// `clientDataHash`: 32 bytes.
pub(crate) fn client_data_hash(map: &mut Map, key: u8) -> Result<ClientDataHash> {
    let hash: Vec<u8> = map.required(key)?;
    Ok(hash.try_into().map_err(|_| Status::InvalidLength)?)
}

/// A relying party ID.
pub(crate) fn rp_id(map: &mut Map, key: impl Into<Value>) -> Result<RpId> {
    Ok(RpId::vouched_for(map.required(key)?).ok_or(Status::InvalidLength)?)
}

/// A `PublicKeyCredentialUserEntity`.
pub(crate) fn user(mut map: Map) -> Result<User> {
    Ok(User {
        handle: UserHandle::new(map.required("id")?).ok_or(Status::InvalidLength)?,
        name: map.optional("name")?.unwrap_or_default(),
        display_name: map.optional("displayName")?.unwrap_or_default(),
    })
}

/// The IDs of a list of `PublicKeyCredentialDescriptor`s; those of a type that is not known are left out.
pub(crate) fn credential_list(map: &mut Map, key: u8) -> Result<Option<Vec<Vec<u8>>>> {
    let Some(list) = map.optional::<Vec<Map>>(key)? else { return Ok(None) };
    if list.len() > MAX_CREDENTIALS_IN_LIST {
        return Err(Status::LimitExceeded.into());
    }
    let mut ids = Vec::new();
    for mut descriptor in list {
        let (r#type, id): (String, _) = (descriptor.required("type")?, descriptor.required("id")?);
        if r#type == "public-key" {
            ids.push(id);
        }
    }
    Ok(Some(ids))
}

/// A `PublicKeyCredentialDescriptor`.
pub(crate) fn descriptor(id: &[u8]) -> Value {
    map([("id", Some(Value::Bytes(id.to_vec()))), ("type", Some("public-key".into()))])
}

/// The `PublicKeyCredentialParameters` of the one algorithm there is.
pub(crate) fn es256() -> Value {
    map([("alg", Some((-7).into())), ("type", Some("public-key".into()))])
}

/// A `PublicKeyCredentialUserEntity`. The names are only told once the PIN was proven, and here it always was.
pub(crate) fn user_entity(account: &Account) -> Value {
    let text = |text: &str| (!text.is_empty()).then(|| text.into());
    map([
        ("id", bytes(account.user_handle.as_bytes())),
        ("name", text(&account.user_name)),
        ("displayName", text(&account.display_name)),
    ])
}
