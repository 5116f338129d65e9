use serde::Deserialize;

use super::{CredentialId, Origin, RpId, RpIdError, UserHandle, from_base64url};
use crate::container::{Account, Takes};

/// COSE's ES256 (RFC 9053 §2.1), the one algorithm of this vault.
const ES256: i64 = -7;

/// A request to make a passkey, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreateRequest {
    /// Who asks.
    pub origin: Origin,
    /// For whom.
    pub rp_id: RpId,
    /// The relying party's name for itself.
    pub rp_name: String,
    /// The account.
    pub user: User,
    /// Whether the passkey should vouch for itself.
    pub attestation: Attestation,
    pub(crate) challenge: Vec<u8>,
    pub(crate) exclude: Vec<Vec<u8>>,
    pub(crate) cred_props: bool,
}

/// The account that a passkey is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The relying party's identifier for the account.
    pub handle: UserHandle,
    /// Such as `alice@example.org`.
    pub name: String,
    /// Such as `Alice`.
    pub display_name: String,
}

/// What the relying party gets to know of the authenticator (WebAuthn Level 3 §5.4.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attestation {
    /// Nothing beyond the AAGUID.
    None,
    /// A packed statement signed by the new key itself (§8.2, self attestation).
    PackedSelf,
}

/// A request to sign in, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GetRequest {
    /// Who asks.
    pub origin: Origin,
    /// For whom.
    pub rp_id: RpId,
    pub(crate) challenge: Vec<u8>,
    pub(crate) allow: Option<Vec<Vec<u8>>>,
}

/// Why a relying party's options cannot be served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// Not the JSON of WebAuthn Level 3 §5.1.8.
    #[error("the options are not WebAuthn options JSON")]
    Json(#[from] serde_json::Error),
    /// A member that must be base64url is not.
    #[error("{0} is not base64url")]
    NotBase64Url(&'static str),
    /// The challenge is empty.
    #[error("the challenge is empty")]
    EmptyChallenge,
    /// The user handle is not 1 to 64 bytes.
    #[error("user.id is not 1 to 64 bytes long")]
    UserHandleLength,
    /// The relying party does not take ES256.
    #[error("the relying party does not accept ES256 (-7), the one algorithm of this vault")]
    NoCommonAlgorithm,
    /// The relying party wants a roaming authenticator.
    #[error("the relying party wants a cross-platform authenticator; this vault is a platform one")]
    CrossPlatform,
    /// The origin may not use the relying party ID.
    #[error(transparent)]
    RpId(#[from] RpIdError),
}

impl CreateRequest {
    /// Reads `PublicKeyCredentialCreationOptionsJSON`, bare or as `{"publicKey": …}`.
    /// Unknown members are ignored, as §5.1.8 says.
    pub fn from_json(json: &str, origin: Origin) -> Result<Self, RequestError> {
        let json: CreationOptionsJson = unwrap_public_key(json)?;
        // §5.1.3 step 10: an empty list means ES256 and RS256.
        let algs = &json.pub_key_cred_params;
        if !algs.is_empty() && !algs.iter().any(|p| p.is_public_key() && p.alg == ES256) {
            return Err(RequestError::NoCommonAlgorithm);
        }
        let selection = json.authenticator_selection.unwrap_or_default();
        if selection.authenticator_attachment.as_deref() == Some("cross-platform") {
            return Err(RequestError::CrossPlatform);
        }
        let handle = decode("user.id", &json.user.id)?;
        Ok(Self {
            rp_id: RpId::for_origin(json.rp.id.as_deref(), &origin)?,
            rp_name: json.rp.name,
            user: User {
                handle: UserHandle::new(handle).ok_or(RequestError::UserHandleLength)?,
                name: json.user.name,
                display_name: json.user.display_name,
            },
            attestation: match json.attestation.as_deref() {
                Some("direct" | "indirect" | "enterprise") => Attestation::PackedSelf,
                _ => Attestation::None,
            },
            challenge: decode_challenge(&json.challenge)?,
            exclude: decode_ids("excludeCredentials", &json.exclude_credentials)?,
            cred_props: json.extensions.cred_props == Some(true),
            origin,
        })
    }

    pub(crate) fn excludes(&self, id: &CredentialId) -> bool {
        self.exclude.iter().any(|excluded| excluded == id.as_bytes())
    }
}

impl GetRequest {
    /// Reads `PublicKeyCredentialRequestOptionsJSON`, bare or as `{"publicKey": …}`.
    pub fn from_json(json: &str, origin: Origin) -> Result<Self, RequestError> {
        let json: RequestOptionsJson = unwrap_public_key(json)?;
        Ok(Self {
            rp_id: RpId::for_origin(json.rp_id.as_deref(), &origin)?,
            challenge: decode_challenge(&json.challenge)?,
            allow: match json.allow_credentials.as_slice() {
                [] => None,
                list => Some(decode_ids("allowCredentials", list)?),
            },
            origin,
        })
    }

    /// No list allows every discoverable credential. One that names only types that we do not know allows none
    /// (Level 3 §5.1.4.2). Here the user is verified, so what takes presence alone does not answer.
    pub(crate) fn allows(&self, account: &Account) -> bool {
        let Account { rp_id, credential_id, discoverable, takes, .. } = account;
        let named = |list: &Vec<Vec<u8>>| list.iter().any(|allowed| allowed == credential_id.as_bytes());
        *rp_id == self.rp_id && *takes == Takes::Pin && self.allow.as_ref().map_or(*discoverable, named)
    }
}

fn unwrap_public_key<T: serde::de::DeserializeOwned>(json: &str) -> Result<T, serde_json::Error> {
    let mut value: serde_json::Value = serde_json::from_str(json)?;
    let inner = value.get_mut("publicKey").map(serde_json::Value::take);
    serde_json::from_value(inner.unwrap_or(value))
}

fn decode(what: &'static str, text: &str) -> Result<Vec<u8>, RequestError> {
    from_base64url(text).ok_or(RequestError::NotBase64Url(what))
}

fn decode_challenge(text: &str) -> Result<Vec<u8>, RequestError> {
    let challenge = decode("challenge", text)?;
    if challenge.is_empty() { Err(RequestError::EmptyChallenge) } else { Ok(challenge) }
}

/// Descriptors of another type than public-key are ignored (§5.1.3 step 20).
fn decode_ids(what: &'static str, list: &[Descriptor]) -> Result<Vec<Vec<u8>>, RequestError> {
    list.iter().filter(|d| d.r#type == "public-key").map(|d| decode(what, &d.id)).collect()
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct CreationOptionsJson {
    rp: RpJson,
    user: UserJson,
    challenge: String,
    pub_key_cred_params: Vec<Parameters>,
    #[serde(default)]
    exclude_credentials: Vec<Descriptor>,
    authenticator_selection: Option<Selection>,
    attestation: Option<String>,
    #[serde(default)]
    extensions: Extensions,
}

#[derive(Deserialize)]
struct RpJson {
    id: Option<String>,
    name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct UserJson {
    id: String,
    name: String,
    display_name: String,
}

#[derive(Deserialize)]
struct Parameters {
    r#type: String,
    alg: i64,
}

impl Parameters {
    fn is_public_key(&self) -> bool {
        self.r#type == "public-key"
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Selection {
    authenticator_attachment: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Extensions {
    cred_props: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RequestOptionsJson {
    challenge: String,
    rp_id: Option<String>,
    #[serde(default)]
    allow_credentials: Vec<Descriptor>,
}

#[derive(Deserialize)]
struct Descriptor {
    r#type: String,
    id: String,
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;
    use crate::{keystore::KeyBlob, webauthn::Protection};
    use serde_json::{Value, json};

    fn creation() -> Value {
        json!({
            "rp": {"id": "example.org", "name": "Example"},
            "user": {"id": "dXNlcg", "name": "alice", "displayName": "Alice"},
            "challenge": "Y2hhbGxlbmdl",
            "pubKeyCredParams": [{"type": "public-key", "alg": -257}, {"type": "public-key", "alg": -7}]
        })
    }

    fn create(edit: impl Fn(&mut Value)) -> Result<CreateRequest, RequestError> {
        let mut json = creation();
        edit(&mut json);
        CreateRequest::from_json(&json.to_string(), Origin::parse("https://login.example.org").unwrap())
    }

    #[test]
    fn each_bad_member_is_refused_by_name() {
        let refused = |edit: fn(&mut Value)| create(edit).unwrap_err();
        assert!(matches!(refused(|j| j["challenge"] = json!(null)), RequestError::Json(_)));
        assert!(matches!(refused(|j| j["rp"] = json!("x")), RequestError::Json(_)));
        assert!(matches!(
            refused(|j| j["challenge"] = json!("a b")),
            RequestError::NotBase64Url("challenge")
        ));
        assert!(matches!(refused(|j| j["challenge"] = json!("")), RequestError::EmptyChallenge));
        assert!(matches!(refused(|j| j["user"]["id"] = json!("")), RequestError::UserHandleLength));
        assert!(matches!(
            refused(|j| j["user"]["id"] = json!("A".repeat(87))),
            RequestError::UserHandleLength
        ));
        assert!(matches!(refused(|j| j["user"]["id"] = json!("+/")), RequestError::NotBase64Url("user.id")));
        let rs256 = |j: &mut Value| j["pubKeyCredParams"] = json!([{"type": "public-key", "alg": -257}]);
        assert!(matches!(create(rs256), Err(RequestError::NoCommonAlgorithm)));
        let other_type = |j: &mut Value| j["pubKeyCredParams"] = json!([{"type": "other", "alg": -7}]);
        assert!(matches!(create(other_type), Err(RequestError::NoCommonAlgorithm)));
        let roaming = |j: &mut Value| {
            j["authenticatorSelection"] = json!({"authenticatorAttachment": "cross-platform"});
        };
        assert!(matches!(create(roaming), Err(RequestError::CrossPlatform)));
        let exclude = |j: &mut Value| j["excludeCredentials"] = json!([{"type": "public-key", "id": "!"}]);
        assert!(matches!(create(exclude), Err(RequestError::NotBase64Url("excludeCredentials"))));
        assert!(matches!(refused(|j| j["rp"]["id"] = json!("example.com")), RequestError::RpId(_)));
    }

    #[test]
    fn unknown_members_and_descriptor_types_are_ignored() {
        let request = create(|j| {
            j["timeout"] = json!(1);
            j["hints"] = json!(["security-key"]);
            j["extensions"] = json!({"credProps": true, "prf": {}});
            j["excludeCredentials"] =
                json!([{"type": "other", "id": "!"}, {"type": "public-key", "id": "AQI"}]);
        })
        .unwrap();
        assert_eq!(request.exclude, [vec![1, 2]]);
        assert!(request.cred_props);
    }

    #[test]
    fn bare_options_and_wrapped_ones_are_the_same() {
        let origin = || Origin::parse("https://example.org").unwrap();
        let bare = CreateRequest::from_json(&creation().to_string(), origin()).unwrap();
        let wrapped = json!({"publicKey": creation()}).to_string();
        assert_eq!(CreateRequest::from_json(&wrapped, origin()).unwrap(), bare);
    }

    #[test]
    fn conveyance_decides_the_attestation() {
        let attestation = |text: &str| create(|j| j["attestation"] = json!(text)).unwrap().attestation;
        assert_eq!(attestation("none"), Attestation::None);
        assert_eq!(attestation("something-new"), Attestation::None);
        assert_eq!(attestation("direct"), Attestation::PackedSelf);
    }

    #[test]
    fn an_empty_parameter_list_means_es256_too() {
        assert!(create(|j| j["pubKeyCredParams"] = json!([])).is_ok());
    }

    #[test]
    fn no_list_allows_what_is_discoverable_and_a_list_what_it_names() {
        let ours = |discoverable| Account {
            rp_id: RpId::vouched_for("example.org".into()).unwrap(),
            rp_name: String::new(),
            user_handle: UserHandle::new(vec![1]).unwrap(),
            user_name: String::new(),
            display_name: String::new(),
            label: None,
            credential_id: CredentialId::random(&mut getrandom::rand_core::UnwrapErr(getrandom::SysRng)),
            discoverable,
            protection: Protection::Required,
            key: KeyBlob(Vec::new()),
            public_key: Vec::new(),
            created: 0,
            extras: crate::container::Extras::default(),
            takes: Takes::Pin,
            binned: None,
        };
        let request = |origin: &str, list: &Value| {
            let json = json!({"challenge": "AA", "allowCredentials": list}).to_string();
            GetRequest::from_json(&json, Origin::parse(origin).unwrap()).unwrap()
        };
        let allowed = |account: &Account, list: &Value| request("https://example.org", list).allows(account);
        for account in [ours(true), ours(false)] {
            let id = account.credential_id.to_string();
            let naming = json!([{"type": "public-key", "id": id}]);
            assert_eq!(allowed(&account, &json!([])), account.discoverable);
            assert!(allowed(&account, &naming));
            assert!(!request("https://example.com", &naming).allows(&account));
            assert!(!allowed(&account, &json!([{"type": "public-key", "id": "AQM"}])));
            // A list of types that we do not know is not the same as none.
            assert!(!allowed(&account, &json!([{"type": "other", "id": id}])));
        }
    }

    #[test]
    fn request_options_default_to_the_origins_domain() {
        let origin = Origin::parse("https://login.example.org").unwrap();
        let request = GetRequest::from_json(r#"{"challenge":"AA=="}"#, origin).unwrap();
        assert_eq!(
            (request.rp_id.as_str(), request.challenge.as_slice()),
            ("login.example.org", [0].as_slice())
        );
    }
}
