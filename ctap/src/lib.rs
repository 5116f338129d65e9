//! A CTAP 2.2 authenticator over a Passhold vault, and the HID transport that carries it.
//!
//! No device, TPM, clock or prompt in here. [`hid::Hid`] turns 64-byte packets into messages and back. [`Authenticator`]
//! answers messages: the vault comes through [`Vaults`], the person through [`Person`], time and randomness in an [`Env`].

mod authenticator;
mod cbor;
mod client_pin;
mod config;
mod credential_management;
mod extensions;
mod failure;
mod get_assertion;
mod get_info;
pub mod hid;
mod large_blobs;
mod make_credential;
mod parameters;
mod person;
mod pin_protocol;
mod reset;
mod status;
mod token;
mod touch;
mod verification;

pub use authenticator::{Authenticator, Env, Vaults};
pub use person::{Ask, Declined, Person};
pub use status::Status;
pub use token::Permissions;
