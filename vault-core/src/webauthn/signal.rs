use serde::Deserialize;

use super::{RpId, User, UserHandle, from_base64url};

/// What a relying party says of its passkeys, unasked (WebAuthn Level 3 §5.1.10). Who says it is for the caller to know: the
/// JSON names a relying party ID, and no origin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signal {
    /// `signalUnknownCredential`: it knows no such credential.
    UnknownCredential {
        /// Who.
        rp_id: RpId,
        /// Which.
        credential_id: Vec<u8>,
    },
    /// `signalAllAcceptedCredentials`: of an account, it takes these and no others.
    AllAcceptedCredentials {
        /// Who.
        rp_id: RpId,
        /// Whose.
        user_handle: UserHandle,
        /// Which.
        credential_ids: Vec<Vec<u8>>,
    },
    /// `signalCurrentUserDetails`: an account has these names now.
    CurrentUserDetails {
        /// Who.
        rp_id: RpId,
        /// Whose, and which.
        user: User,
    },
}

/// Why a signal is none.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SignalError {
    /// Not JSON, or a member is of another kind.
    #[error("the signal is not JSON as WebAuthn has it")]
    Json(#[from] serde_json::Error),
    /// It has the members of none of the three, or of several.
    #[error("it is none of WebAuthn's three signals")]
    NotASignal,
    /// A member is not base64url, or too short or too long to be what it should.
    #[error("{0} is malformed")]
    Malformed(&'static str),
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SignalJson {
    rp_id: String,
    credential_id: Option<String>,
    user_id: Option<String>,
    all_accepted_credential_ids: Option<Vec<String>>,
    name: Option<String>,
    display_name: Option<String>,
}

impl Signal {
    /// Reads the options of one of the three methods; which it is, its members say. Others are ignored.
    pub fn from_json(json: &str) -> Result<Self, SignalError> {
        let json: SignalJson = serde_json::from_str(json)?;
        let rp_id = RpId::vouched_for(json.rp_id).ok_or(SignalError::Malformed("rpId"))?;
        let user_handle = |text: &str| {
            let handle = from_base64url(text).and_then(UserHandle::new);
            handle.ok_or(SignalError::Malformed("userId"))
        };
        match (
            json.credential_id,
            json.user_id,
            json.all_accepted_credential_ids,
            json.name,
            json.display_name,
        ) {
            (Some(id), None, None, None, None) => {
                let credential_id = from_base64url(&id).ok_or(SignalError::Malformed("credentialId"))?;
                Ok(Self::UnknownCredential { rp_id, credential_id })
            }
            (None, Some(user), Some(ids), None, None) => {
                let ids: Option<_> = ids.iter().map(|id| from_base64url(id)).collect();
                let credential_ids = ids.ok_or(SignalError::Malformed("allAcceptedCredentialIds"))?;
                Ok(Self::AllAcceptedCredentials { rp_id, user_handle: user_handle(&user)?, credential_ids })
            }
            (None, Some(user), None, Some(name), Some(display_name)) => {
                let user = User { handle: user_handle(&user)?, name, display_name };
                Ok(Self::CurrentUserDetails { rp_id, user })
            }
            _ => Err(SignalError::NotASignal),
        }
    }

    /// Whose passkeys it is about.
    #[must_use]
    pub fn rp_id(&self) -> &RpId {
        match self {
            Self::UnknownCredential { rp_id, .. }
            | Self::AllAcceptedCredentials { rp_id, .. }
            | Self::CurrentUserDetails { rp_id, .. } => rp_id,
        }
    }
}
