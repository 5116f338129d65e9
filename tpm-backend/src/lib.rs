//! Passhold's keys in a TPM 2.0. The only crate that names tss-esapi.

pub mod swtpm;
