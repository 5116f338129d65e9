use std::{fs, io, path::PathBuf};

use etcetera::BaseStrategy;
use serde::Deserialize;

use crate::failure::{Exit, Failure, Result};

/// `$XDG_CONFIG_HOME/passhold/config.toml`
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Config {
    pub(crate) tpm: Option<String>,
    pub(crate) vault: Option<PathBuf>,
    pub(crate) min_pin_length: Option<usize>,
}

impl Config {
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
                .next("It may set tpm, vault and min-pin-length.")
        })
    }
}

/// `$XDG_DATA_HOME/passhold`
pub(crate) fn default_vault() -> Result<PathBuf> {
    Ok(folders()?.data_dir().join("passhold"))
}

/// Where XDG puts a program's files; both need `$HOME`.
fn folders() -> Result<impl BaseStrategy> {
    etcetera::choose_base_strategy()
        .map_err(|e| Failure::unexpected("cannot tell the home folder", e).next("Set HOME."))
}
