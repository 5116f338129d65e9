//! What an attacker or a stranger has: a TPM client that shares no code with the one under test.
#![allow(dead_code, unused_imports)]

mod facts;
mod scenes;
pub(crate) mod wire;

pub(crate) use facts::{Facts, Policies, Secrets, bytes_of, created};
pub(crate) use scenes::{
    ORIGIN, RP, accounts, enroll, kind_of, open, same, sign, sign_all, try_open, try_sign, unlock_error,
    unlocked_container, works,
};
pub(crate) use wire::{Auth, NvPublic, Session, Wire, b2, cc, hmac, kdf_a, kdf_e, key, rc, take};
