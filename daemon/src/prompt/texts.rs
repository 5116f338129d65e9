//! What prompts say.

use ctap::{Ask, Permissions};
use vault_core::{container::Account, printable};

/// The question that goes with `ask`.
pub(super) fn question(ask: &Ask<'_>) -> String {
    match ask {
        Ask::Create { rp_id, user } => {
            format!("Create a passkey for {} at {}?", named(&user.name), rp_id)
        }
        Ask::SignIn { account } => sign_in(account),
        Ask::Unlock { rp_id: Some(rp_id), permissions } => {
            let what = if permissions.contain(Permissions::MAKE_CREDENTIAL) {
                "create a passkey"
            } else {
                "sign in"
            };
            format!("A program wants to {what} at {rp_id}.")
        }
        Ask::Unlock { rp_id: None, .. } => "A program wants to use your passkeys.".to_owned(),
        Ask::Select => "A program looks for a security key. Use Passhold?".to_owned(),
        Ask::Reset { passkeys: Some(0) } => "Reset Passhold? It holds no passkeys.".to_owned(),
        Ask::Reset { passkeys: Some(1) } => "Delete the one passkey in Passhold, for ever?".to_owned(),
        Ask::Reset { passkeys: Some(n) } => format!("Delete all {n} passkeys in Passhold, for ever?"),
        Ask::Reset { passkeys: None } => {
            "Delete all passkeys in Passhold, for ever? They cannot be counted: the vault is damaged, or its TPM is not there."
                .to_owned()
        }
    }
}

pub(super) fn sign_in(account: &Account) -> String {
    format!("Sign in to {} as {}?", account.rp_id, named(account.name()))
}

fn named(name: &str) -> String {
    if name.is_empty() { "an account without a name".to_owned() } else { printable(name) }
}
