//! What a relying party's signal comes to.

use std::collections::HashSet;

use super::{Unlocked, Vault, VaultError};
use crate::{
    container::{Account, AccountId, ContainerError},
    text::kept,
    webauthn::Signal,
};

/// The passkeys that a signal is about, as they are; nothing of it is done yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tidying {
    /// The relying party does not take these any more.
    pub to_bin: Vec<(AccountId, Account)>,
    /// These are in the bin, and the relying party takes them.
    pub from_bin: Vec<(AccountId, Account)>,
    /// Their accounts have other names now.
    pub to_rename: Vec<(AccountId, Account)>,
}

impl Tidying {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        [&self.to_bin, &self.from_bin, &self.to_rename].iter().all(|list| list.is_empty())
    }
}

impl Vault<'_> {
    /// What `signal` is about here (WebAuthn Level 3 §5.1.10). What it has removed goes to the bin, and what it has hidden no
    /// longer comes out of it.
    pub fn tidying(&self, signal: &Signal) -> Result<Tidying, ContainerError> {
        let mut tidying = Tidying::default();
        let mut live = self.accounts_of(signal.rp_id())?;
        match signal {
            Signal::UnknownCredential { credential_id, .. } => {
                live.retain(|(_, account)| account.credential_id.as_bytes() == credential_id);
                tidying.to_bin = live;
            }
            Signal::AllAcceptedCredentials { rp_id, user_handle, credential_ids } => {
                let accepted: HashSet<&[u8]> = credential_ids.iter().map(Vec::as_slice).collect();
                let is_accepted = |account: &Account| accepted.contains(account.credential_id.as_bytes());
                live.retain(|(_, a)| a.user_handle == *user_handle && !is_accepted(a));
                tidying.to_bin = live;
                tidying.from_bin = self.bin()?;
                let is_theirs = |a: &Account| a.rp_id == *rp_id && a.user_handle == *user_handle;
                tidying.from_bin.retain(|(_, a)| is_theirs(a) && is_accepted(a));
            }
            Signal::CurrentUserDetails { user, .. } => {
                let names = (kept(&user.name), kept(&user.display_name));
                let is_new = |a: &Account| (&a.user_name, &a.display_name) != (&names.0, &names.1);
                live.retain(|(_, a)| a.user_handle == user.handle && is_new(a));
                tidying.to_rename = live;
            }
        }
        Ok(tidying)
    }
}

impl Unlocked<'_> {
    /// Moves passkeys to the bin and others out of it, all or none. `now` is in seconds since 1970: what has been in the bin for
    /// [`BIN_KEEPS`](crate::container::BIN_KEEPS) is removed for good.
    pub fn sort_out(
        self,
        to_bin: &[AccountId],
        from_bin: &[AccountId],
        now: u64,
        rng: &mut dyn rand_core::CryptoRng,
    ) -> Result<(), VaultError> {
        self.change(|store| store.sort_out(to_bin, from_bin, now, rng))
    }
}
