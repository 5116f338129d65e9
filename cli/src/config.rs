use std::{fs, io, path::PathBuf};

use etcetera::BaseStrategy;
use serde::Deserialize;

use crate::failure::{Exit, Failure};

/// `$XDG_CONFIG_HOME/passhold/config.toml`
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub(crate) struct Config {
    pub(crate) tpm: Option<String>,
    pub(crate) vault: Option<PathBuf>,
    pub(crate) min_pin_length: Option<usize>,
}

/// Where XDG puts a program's files; both need `$HOME`.
pub(crate) struct Folders {
    pub(crate) data: PathBuf,
    config: PathBuf,
}

impl Folders {
    pub(crate) fn find() -> Result<Self, Failure> {
        let xdg = etcetera::choose_base_strategy()
            .map_err(|e| Failure::unexpected("cannot tell the home folder", e).next("Set HOME."))?;
        Ok(Self { data: xdg.data_dir().join("passhold"), config: xdg.config_dir().join("passhold") })
    }

    pub(crate) fn read_config(&self) -> Result<Config, Failure> {
        let path = self.config.join("config.toml");
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Config::default()),
            Err(e) => return Err(Failure::unexpected(format!("cannot read {}", path.display()), e)),
        };
        toml::from_str(&text).map_err(|e| {
            Failure::new(Exit::Usage, format!("{} cannot be understood: {}", path.display(), e.message()))
                .next("It may set tpm, vault and min-pin-length.")
        })
    }
}
