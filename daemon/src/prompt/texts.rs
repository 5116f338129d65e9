//! What prompts say.

use ctap::{Ask, Permissions};
use vault_core::{
    container::{Account, AccountId},
    cut, printable,
    webauthn::RpId,
};

/// How much of a name that a site gave is shown, in bytes.
const SHOWN: usize = 64;

/// How many accounts are named where one of them will be signed in to.
const NAMED: usize = 3;

/// The question that goes with `ask`.
pub(super) fn question(ask: &Ask<'_>) -> String {
    match ask {
        Ask::Create { rp_id, user, rule } => {
            let by_rule = rule.map(|rule| format!(" Your rule \"{rule}\" asks.")).unwrap_or_default();
            format!("Create a passkey at {rp_id} for {}?{by_rule}", named(&user.name))
        }
        Ask::SignIn { account } => sign_in(account),
        Ask::Unlock { rp_id, permissions, accounts } => {
            format!("A program wants to {}.", wishes(*rp_id, *permissions, accounts))
        }
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

/// All that the token would be good for: what is not said was not agreed to (CTAP 2.2 §6.5.5.7.3 step 8).
fn wishes(rp_id: Option<&RpId>, permissions: Permissions, accounts: &[(AccountId, Account)]) -> String {
    let at = rp_id.map(|rp_id| format!(" at {rp_id}")).unwrap_or_default();
    let all = [
        (Permissions::MAKE_CREDENTIAL, format!("create a passkey{at}")),
        (Permissions::GET_ASSERTION, format!("sign in{at}{}", as_whom(accounts))),
        (Permissions::MANAGE_CREDENTIALS, format!("list, rename and delete passkeys{at}")),
        (Permissions::WRITE_LARGE_BLOBS, "replace what sites keep in Passhold".to_owned()),
        (Permissions::CONFIGURE, "change Passhold's settings".to_owned()),
        (Permissions::LIST_CREDENTIALS, "list all passkeys, until the PIN is changed".to_owned()),
    ];
    let asked = all.into_iter().filter(|(permission, _)| permissions.contain(*permission));
    let wishes: Vec<_> = asked.map(|(_, wish)| wish).collect();
    if wishes.is_empty() { "do nothing".to_owned() } else { wishes.join(", and ") }
}

fn as_whom(accounts: &[(AccountId, Account)]) -> String {
    let names: Vec<_> = accounts.iter().map(|(_, account)| named(account.name())).collect();
    match names.len() {
        0 => String::new(),
        1..=NAMED => format!(" as {}", names.join(" or ")),
        many => format!(" with one of {many} passkeys"),
    }
}

pub(super) fn sign_in(account: &Account) -> String {
    format!("Sign in to {} as {}?", account.rp_id, named(account.name()))
}

pub(super) fn named(name: &str) -> String {
    // In quotes, and not so long that it could say anything beyond a name.
    let name = cut(&printable(name), SHOWN).replace('"', "'");
    if name.is_empty() { "an account without a name".to_owned() } else { format!("\"{name}\"") }
}
