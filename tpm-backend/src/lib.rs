//! Passhold's keys in a TPM 2.0. The only crate that names tss-esapi.
//!
//! [`Tpm`] is the [`KeyStore`](vault_core::keystore::KeyStore) that ships. What a vault is made of in the
//! TPM, and why, is told in `docs/architecture.md`; the modules here follow its table.

mod address;
mod anchor;
mod connection;
mod erase;
mod error;
mod harden;
mod keys;
mod link;
mod pin_change;
mod policy;
mod presence;
mod provision;
mod raw;
mod recovery;
mod srk;
mod status;
mod survey;
pub mod swtpm;
mod templates;
mod tpm;
mod unlocked;

pub use address::{Address, AddressError, Reach};
pub use harden::{HardenError, LIMIT, RECOVERY};
pub use raw::{hold_tcti, prepare_libtss2, prepare_process, trim_heap};
pub use survey::{Authorization, StorageRootKey, Survey};
pub use tpm::Tpm;
