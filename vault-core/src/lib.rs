//! What a Passhold vault is: accounts, PIN policy, WebAuthn ceremonies and the sealed container.
//!
//! No TPM, clock, socket or environment in here: keys come through [`keystore::KeyStore`],
//! randomness, time and consent as arguments. `tpm-backend` is the key store that ships.
//!
//! A [`Vault`] is opened without the PIN and lists its passkeys; [`Vault::unlock`] proves the PIN to
//! the TPM and yields an [`Unlocked`] vault, which one operation consumes.

pub mod container;
pub mod keystore;
pub mod pin;
mod recovery;
mod rules;
mod text;
mod vault;
pub mod webauthn;

pub use recovery::{NotACode, RecoveryCode, RecoverySecrets};
pub use rules::{Rule, RuleAction, RuleError, Rules};
pub use text::{cut, printable};
pub use vault::{
    Assertion, CeremonyError, MadeCredential, NewCredential, OpenError, PIN_LIMIT, RecoveryError, Restored,
    Tidying, TriesLeft, UnlockError, Unlocked, Vault, VaultError, WantedAssertion, Wiped, clear_remains,
    setup, wipe,
};

use zeroize::Zeroize;

/// 32 secret bytes: redacted in `Debug`, zeroized on drop, neither `Clone` nor `Serialize`.
pub type Secret = secrecy::SecretBox<[u8; 32]>;

/// Fills a new secret in place.
pub fn secret_from(fill: impl FnOnce(&mut [u8; 32])) -> Secret {
    Secret::init_with_mut(fill)
}

/// Overwrites what returned calls left below on the stack. Crypto libraries hand outputs around by value, and a later move of
/// an enum copies whatever its unused bytes hold.
#[inline(never)]
#[expect(clippy::large_stack_arrays, reason = "it has to be as large as what it overwrites")]
pub fn wipe_stack() {
    [0xff_u8; 64 * 1024].zeroize();
}
