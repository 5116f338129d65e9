//! Wipe: the two indices that hold the vault key's secret first, for without them every copy of the container is worthless;
//! the container key last, for it alone vouches for the container that says what to erase.

use tss_esapi::{
    constants::response_code::Tss2ResponseCodeKind as Code, handles::NvIndexHandle,
    interface_types::resource_handles::Provision, structures::Auth,
};
use vault_core::keystore::{Erased, KeyStoreError, Mandate, Then};

use crate::{
    anchor::Place,
    connection::Use,
    error::{Result, code, failed, owner},
    link::Link,
    policy::NvIndex,
    srk,
};

/// Undefines the vault's indices. One of another Name than set-up gave it is not the vault's, and stays.
pub(crate) fn erase(link: &mut Link, owner_auth: Option<&Auth>, mandate: Mandate) -> Result<Erased> {
    srk::set_owner_auth(&mut link.tpm, owner_auth)?;
    let Place { sec, rec, pin, key, .. } = &link.place;
    let indices = [sec, rec, pin, key].map(Clone::clone);
    let mut found = [None; 4];
    for (found, index) in found.iter_mut().zip(&indices) {
        *found = vault_index(link, index)?;
    }
    if mandate == Mandate::Missing && !matches!(found, [None, None, None, None | Some((_, Written::No))]) {
        return Err(KeyStoreError::Replaced { what: "the container key's index" });
    }
    let (step, mut begun) = ("undefining an index", false);
    for (index, (handle, _)) in indices.iter().zip(found).filter_map(|(i, found)| Some((i, found?))) {
        if let Err(e) = undefine(link, handle)? {
            // An error reply proves nothing: nothing was destroyed if the index is still there.
            let refused = matches!(code(e), Some(Code::BadAuth | Code::AuthFail));
            return Err(if refused && !begun && vault_index(link, index)?.is_some() {
                owner(owner_auth.is_some(), step)(e)
            } else {
                failed(step, e)
            });
        }
        begun = true;
    }
    Ok(if found.first().is_some_and(Option::is_some) { Erased::Secret } else { Erased::Nothing })
}

/// Whether an index was written since it was defined.
#[derive(Clone, Copy)]
enum Written {
    Yes,
    No,
}

/// An index, if it is the vault's.
fn vault_index(link: &mut Link, index: &NvIndex) -> Result<Option<(NvIndexHandle, Written)>> {
    let Some((handle, name)) = link.look_up(index.index)? else { return Ok(None) };
    if name == index.written() {
        return Ok(Some((handle, Written::Yes)));
    }
    if name == index.unwritten() {
        return Ok(Some((handle, Written::No)));
    }
    link.tpm.forget(handle.into())?;
    Ok(None)
}

fn undefine(link: &mut Link, index: NvIndexHandle) -> Result<tss_esapi::Result<()>> {
    let hmac = link.hmac()?;
    link.tpm.prepare(hmac, Then::Continue, Use::Authorize)?;
    Ok(link.tpm.execute_with_session(Some(hmac), |c| c.nv_undefine_space(Provision::Owner, index)))
}
