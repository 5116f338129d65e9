use vault_core::{container::AccountId, printable};

use super::list;
use crate::{
    app::{App, rng},
    failure::Result,
};

pub(crate) fn run(app: &mut App<'_>, id: AccountId, name: String) -> Result<()> {
    let mut keys = app.keys()?;
    let label = Some(name).filter(|name| !name.is_empty());
    let account = app.open(&mut keys)?.rename(id, label, &mut rng())?;
    app.print(&list::to_json(id, &account), || format!("Passkey {id} is now {}.", printable(account.name())))
}
