//! Wipe: the secret index first, for it alone makes every copy of the container worthless.

use tss_esapi::{interface_types::resource_handles::Provision, structures::Auth};
use vault_core::keystore::{Anchor, KeyStoreError, Then};

use crate::{
    address::Address,
    error::{Result, owner},
    link::{Encrypt, Link, close, read_index},
    policy::NvIndex,
    srk,
};

/// Undefines the vault's indices. Each is held against the Name that set-up gave it, so that an edited
/// container cannot turn this against anyone else's.
pub(crate) fn erase(address: &Address, owner_auth: Option<&Auth>, anchor: &Anchor) -> Result<()> {
    let mut link = Link::open(address, anchor, owner_auth)?;
    srk::set_owner_auth(&mut link.ctx, owner_auth)?;
    for index in [link.place.sec.clone(), link.place.pin.clone(), link.place.key.clone()] {
        undefine(&mut link, &index, owner_auth.is_some())?;
    }
    Ok(())
}

fn undefine(link: &mut Link, index: &NvIndex, owned: bool) -> Result<()> {
    let Some((handle, name)) = read_index(&mut link.ctx, index.index)? else { return Ok(()) };
    if name != index.written() && name != index.unwritten() {
        // Someone else's, or a reply that was changed on the bus: not a wipe that was done.
        close(&mut link.ctx, handle.into())?;
        return Err(KeyStoreError::Replaced { what: "an index of the vault" });
    }
    link.prepare(link.hmac, Then::Continue, Encrypt::Nothing)?;
    let hmac = link.hmac;
    link.ctx
        .execute_with_session(Some(hmac), |c| c.nv_undefine_space(Provision::Owner, handle))
        .map_err(owner(owned, "undefining an index"))
}
