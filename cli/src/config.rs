use std::{fs, io, num::NonZeroU32, path::PathBuf};

use etcetera::BaseStrategy;
use serde::Deserialize;
use vault_core::pin::PinPolicy;

use crate::failure::{Exit, Failure, Result};

/// `$XDG_CONFIG_HOME/passhold/config.toml`
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    pub(crate) tpm: Option<String>,
    pub(crate) vault: Option<PathBuf>,
    pub(crate) min_pin_length: Option<usize>,
    pub(crate) pin_history: Option<usize>,
    pub(crate) pin_max_age_days: Option<NonZeroU32>,
}

impl Config {
    pub(crate) fn policy(&self) -> Result<PinPolicy> {
        let refused = |what: &str| Failure::new(Exit::Usage, format!("{what} in the config file"));
        let policy = self.min_pin_length.map_or(Some(PinPolicy::default()), PinPolicy::with_min_length);
        let policy = policy.ok_or_else(|| {
            refused("min-pin-length is not between 4 and 63").next("Set it to 6, or leave it out.")
        })?;
        let policy = policy
            .with_history(self.pin_history.unwrap_or_default())
            .ok_or_else(|| refused("pin-history is above 10").next("Set it to 5, or leave it out."))?;
        Ok(policy.with_max_age_days(self.pin_max_age_days))
    }

    /// Nothing is set where there is no file.
    pub fn read() -> Result<Self> {
        let path = folders()?.config_dir().join("passhold/config.toml");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Self::default()),
            Err(e) => return Err(Failure::unexpected(format!("cannot read {}", path.display()), e)),
        };
        toml::from_str(&text).map_err(|e| {
            Failure::new(Exit::Usage, format!("{} cannot be understood: {}", path.display(), e.message()))
                .next("It may set tpm, vault, min-pin-length, pin-history and pin-max-age-days.")
        })
    }
}

/// Where a person's vault lies: `$XDG_DATA_HOME/passhold`
pub fn default_vault() -> Result<PathBuf> {
    Ok(folders()?.data_dir().join("passhold"))
}

/// Where XDG puts a program's files; both need `$HOME`.
fn folders() -> Result<impl BaseStrategy> {
    etcetera::choose_base_strategy()
        .map_err(|e| Failure::unexpected("cannot tell the home folder", e).next("Set HOME."))
}
