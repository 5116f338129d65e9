use std::{
    fmt,
    fs::OpenOptions,
    io::ErrorKind,
    net::IpAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use tss_esapi::{Context, TctiNameConf};
use vault_core::keystore::KeyStoreError;

use crate::error::{During, Result};

/// Where a TPM is: a TCTI string of libtss2 such as `device:/dev/tpmrm0`, `swtpm:host=127.0.0.1,port=2321`,
/// `mssim:…` or `tabrmd`.
#[derive(Clone, Debug)]
pub struct Address {
    text: String,
    conf: TctiNameConf,
}

/// How a TPM is reached, where libtss2 needs nothing else for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// By a device node.
    Device(PathBuf),
    /// By TCP: commands on the first port, control on the next.
    Tcp([u16; 2]),
}

/// The string is no TCTI string that tss-esapi knows.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is not a TPM address such as device:/dev/tpmrm0 or swtpm:host=127.0.0.1,port=2321")]
pub struct AddressError(String);

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> std::result::Result<Self, AddressError> {
        let conf = TctiNameConf::from_str(text).map_err(|_| AddressError(text.to_owned()))?;
        Ok(Self { text: text.to_owned(), conf })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Address {
    /// The TCTI string.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// How the TPM is reached; `None` where that takes names to be looked up, or other programs.
    #[must_use]
    pub fn reach(&self) -> Option<Reach> {
        if let Some(device) = self.device() {
            return Some(Reach::Device(device));
        }
        let (scheme, conf) = self.text.split_once(':')?;
        let value = |key| conf.split(',').find_map(|part| part.strip_prefix(key)?.strip_prefix('='));
        let port: u16 = value("port").unwrap_or("2321").parse().ok()?;
        let numeric = value("host")?.parse::<IpAddr>().is_ok();
        (["swtpm", "mssim"].contains(&scheme) && numeric).then_some(Reach::Tcp([port, port.checked_add(1)?]))
    }

    /// The file in which libtss2 keeps what speaks to this kind of TPM.
    pub(crate) fn tcti_library(&self) -> String {
        let scheme = self.text.split_once(':').map_or(self.text.as_str(), |(scheme, _)| scheme);
        format!("libtss2-tcti-{scheme}.so.0")
    }

    /// Connects, telling apart why a device cannot be had: libtss2 has one code for all of it.
    pub(crate) fn connect(&self) -> Result<Context> {
        if let Some(device) = self.device() {
            try_open(&device)?;
        }
        Context::new(self.conf.clone()).during("connecting").map_err(|e| match self.device() {
            Some(_) => e,
            None => KeyStoreError::Missing { at: self.text.clone() },
        })
    }

    /// The device, where it is one.
    pub(crate) fn device(&self) -> Option<PathBuf> {
        match self.text.split_once(':') {
            Some(("device", path)) => Some(path.into()),
            None if self.text == "device" => Some("/dev/tpm0".into()),
            _ => None,
        }
    }
}

fn try_open(device: &Path) -> Result<()> {
    let at = || device.display().to_string();
    match OpenOptions::new().read(true).write(true).open(device) {
        Ok(_) => Ok(()),
        Err(e) => Err(match e.kind() {
            ErrorKind::NotFound => KeyStoreError::Missing { at: at() },
            ErrorKind::PermissionDenied => KeyStoreError::NotPermitted { at: at() },
            ErrorKind::ResourceBusy => KeyStoreError::Held { at: at() },
            _ => KeyStoreError::Failed { during: "opening the device", source: e.into() },
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_how_a_tpm_is_reached_or_that_this_takes_more() {
        for (text, reach) in [
            ("device:/dev/tpmrm0", Some(Reach::Device("/dev/tpmrm0".into()))),
            ("device", Some(Reach::Device("/dev/tpm0".into()))),
            ("swtpm:host=127.0.0.1,port=20000", Some(Reach::Tcp([20_000, 20_001]))),
            ("mssim:host=127.0.0.1", Some(Reach::Tcp([2321, 2322]))),
            ("swtpm:host=127.0.0.1,port=65535", None),
            ("swtpm:host=localhost,port=2321", None),
            ("swtpm:port=2321", None),
            ("tabrmd", None),
        ] {
            assert_eq!(text.parse::<Address>().unwrap().reach(), reach, "{text}");
        }
    }
}
