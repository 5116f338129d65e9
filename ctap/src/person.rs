use vault_core::{
    Rule, TriesLeft,
    container::{Account, AccountId},
    pin::Pin,
    webauthn::{RpId, User, UserPresent},
};

use crate::token::Permissions;

/// What a person is asked to agree to.
#[derive(Debug)]
pub enum Ask<'a> {
    /// A new passkey.
    Create {
        /// Whose site it signs in to.
        rp_id: &'a RpId,
        /// The account.
        user: &'a User,
        /// The person's own rule that asks, if one does.
        rule: Option<&'a Rule>,
    },
    /// A sign-in.
    SignIn {
        /// With this passkey.
        account: &'a Account,
    },
    /// A program wants to use passkeys: of one site, or to manage them all.
    Unlock {
        /// The site.
        rp_id: Option<&'a RpId>,
        /// To do what.
        permissions: Permissions,
        /// The site's passkeys, if it is to sign in.
        accounts: &'a [(AccountId, Account)],
    },
    /// Whether this is the authenticator that was meant; nothing is done with it.
    Select,
    /// Everything is to be destroyed.
    Reset {
        /// How many passkeys that is, if they can be read.
        passkeys: Option<usize>,
    },
}

/// Why there is no consent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declined {
    /// The person said no, or the prompt died.
    No,
    /// Nobody answered in time.
    TimedOut,
    /// The platform took its request back.
    Cancelled,
}

/// Whoever sits before the machine.
pub trait Person {
    /// Whether answers come without waiting for anybody.
    fn answers_at_once(&self) -> bool {
        false
    }

    /// Asks for consent.
    fn confirm(&mut self, ask: &Ask<'_>) -> Result<UserPresent, Declined>;

    /// Asks which of several passkeys of one site to sign in with, by its place.
    fn choose(&mut self, accounts: &[&Account]) -> Result<(usize, UserPresent), Declined>;

    /// Asks for the PIN, which is consent as well. `tries` says how many are left, if some were wrong.
    fn pin(&mut self, ask: &Ask<'_>, tries: Option<TriesLeft>) -> Result<(Pin, UserPresent), Declined>;
}
