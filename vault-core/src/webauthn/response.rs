use serde::Serialize;

use super::{Attested, CredentialId, Origin, base64url};
use crate::{keystore::PublicKey, vault::Assertion};

/// `RegistrationResponseJSON` (WebAuthn Level 3 §5.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistrationResponse {
    #[serde(flatten)]
    credential: Credential,
    response: AttestationResponse,
    client_extension_results: ExtensionResults,
}

/// `AuthenticationResponseJSON` (§5.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthenticationResponse {
    #[serde(flatten)]
    credential: Credential,
    response: AssertionResponse,
    client_extension_results: ExtensionResults,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Credential {
    id: String,
    raw_id: String,
    r#type: &'static str,
    authenticator_attachment: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct AttestationResponse {
    #[serde(rename = "clientDataJSON")]
    client_data_json: String,
    authenticator_data: String,
    transports: [&'static str; 1],
    public_key: String,
    public_key_algorithm: i64,
    attestation_object: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct AssertionResponse {
    #[serde(rename = "clientDataJSON")]
    client_data_json: String,
    authenticator_data: String,
    signature: String,
    user_handle: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct ExtensionResults {
    #[serde(skip_serializing_if = "Option::is_none")]
    cred_props: Option<CredProps>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct CredProps {
    rk: bool,
}

/// The collected client data (§5.8.1), its members in the order that §5.8.1.1 fixes.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ClientData {
    r#type: &'static str,
    challenge: String,
    origin: String,
    cross_origin: bool,
}

/// The client data of a `webauthn.create` or `webauthn.get`, serialized.
pub(crate) fn client_data_json(r#type: &'static str, challenge: &[u8], origin: &Origin) -> Vec<u8> {
    let (challenge, origin) = (base64url(challenge), origin.to_string());
    json(&ClientData { r#type, challenge, origin, cross_origin: false })
}

/// What a registration is made of.
pub(crate) struct Registered<'a> {
    pub(crate) id: &'a CredentialId,
    pub(crate) key: &'a PublicKey,
    pub(crate) attested: &'a Attested,
    pub(crate) client_data_json: &'a [u8],
    pub(crate) cred_props: bool,
}

impl From<Registered<'_>> for RegistrationResponse {
    fn from(r: Registered<'_>) -> Self {
        Self {
            credential: Credential::new(r.id),
            response: AttestationResponse {
                client_data_json: base64url(r.client_data_json),
                authenticator_data: base64url(r.attested.data.as_bytes()),
                transports: ["internal"],
                public_key: base64url(&subject_public_key_info(r.key)),
                public_key_algorithm: -7,
                attestation_object: base64url(&r.attested.object()),
            },
            client_extension_results: ExtensionResults {
                cred_props: r.cred_props.then_some(CredProps { rk: true }),
            },
        }
    }
}

impl AuthenticationResponse {
    pub(crate) fn new(assertion: &Assertion, client_data_json: &[u8]) -> Self {
        let Assertion { account, data, signature } = assertion;
        Self {
            credential: Credential::new(&account.credential_id),
            response: AssertionResponse {
                client_data_json: base64url(client_data_json),
                authenticator_data: base64url(data.as_bytes()),
                signature: base64url(signature.to_der().as_bytes()),
                user_handle: base64url(account.user_handle.as_bytes()),
            },
            client_extension_results: ExtensionResults { cred_props: None },
        }
    }
}

impl Credential {
    fn new(id: &CredentialId) -> Self {
        let id = id.to_string();
        Self { raw_id: id.clone(), id, r#type: "public-key", authenticator_attachment: "platform" }
    }
}

/// DER, as `getPublicKey()` gives it (§5.2.1.1).
#[expect(clippy::expect_used, reason = "encoding a valid key to memory")]
fn subject_public_key_info(key: &PublicKey) -> Vec<u8> {
    use p256::pkcs8::EncodePublicKey;
    key.to_public_key_der().expect("a P-256 key").into_vec()
}

#[expect(clippy::expect_used, reason = "encoding plain strings to memory")]
fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("plain strings")
}
