//! What commands tell as JSON, as much of it as is shown.

use passhold::Level;
use serde::{Deserialize, de::DeserializeOwned};
use vault_core::container::{AccountId, Takes};

/// A passkey, as `list --json` tells it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Passkey {
    pub(super) id: AccountId,
    pub(super) rp_id: String,
    pub(super) rp_name: String,
    pub(super) user_name: String,
    pub(super) display_name: String,
    pub(super) name: Option<String>,
    pub(super) credential_id: String,
    pub(super) takes: Takes,
    pub(super) created: u64,
    #[serde(default)]
    pub(super) last_used: Option<u64>,
    /// Told where it is known.
    #[serde(default)]
    pub(super) never_used: bool,
    pub(super) binned: Option<u64>,
}

impl Passkey {
    /// The person's own name for it, or the site's.
    pub(super) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.user_name)
    }

    /// Whether it has this text, which is in lower case.
    pub(super) fn has(&self, text: &str) -> bool {
        let name = self.name.as_deref().unwrap_or_default();
        passhold::has([self.rp_id.as_str(), &self.user_name, &self.display_name, name], text)
    }
}

/// As `status --json` tells it.
#[derive(Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Status {
    pub(super) tries_left: u32,
    pub(super) tries_counted_by: String,
    pub(super) tpm: Tpm,
}

#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Tpm {
    pub(super) kind: String,
    pub(super) model: String,
}

/// A line of `doctor --json`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub(super) struct Finding {
    pub(super) id: String,
    pub(super) level: Level,
    pub(super) found: String,
    pub(super) why: String,
    pub(super) mend: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Page {
    pub(super) findings: Vec<Finding>,
}

/// Why a command with `--json` was refused, as a command without it says so.
pub(super) fn refusal(text: &str) -> String {
    #[derive(Deserialize)]
    struct Refused {
        error: Why,
    }
    #[derive(Deserialize)]
    struct Why {
        message: String,
        next: Option<String>,
    }
    match serde_json::from_str(text) {
        Ok(Refused { error: Why { message, next } }) => {
            [Some(message), next].into_iter().flatten().collect::<Vec<_>>().join("\n")
        }
        // Not of our making.
        Err(_) => text.to_owned(),
    }
}

/// What a command printed; a passholdd of another version may tell it otherwise.
pub(super) fn read<T: DeserializeOwned>(printed: &str) -> Result<T, String> {
    serde_json::from_str(printed).map_err(|e| format!("what was told makes no sense: {e}"))
}
