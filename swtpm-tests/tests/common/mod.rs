//! What an attacker or a stranger has: a TPM client that shares no code with the one under test.
#![allow(dead_code)]

mod facts;
mod scenes;
mod wire;

pub(crate) use facts::{Facts, Policies, Secrets, bytes_of};
pub(crate) use scenes::{
    ORIGIN, RP, accounts, enroll, kind_of, open, same, sign, sign_all, try_sign, unlock_error, works,
};
pub(crate) use wire::{Auth, NvPublic, Session, Wire, b2, cc, kdf_a, kdf_e, key, rc};
