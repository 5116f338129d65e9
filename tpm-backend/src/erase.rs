//! Wipe: the secret index first, for it alone makes every copy of the container worthless.

use tss_esapi::{
    constants::CapabilityType,
    interface_types::resource_handles::Provision,
    structures::{Auth, CapabilityData},
};
use vault_core::keystore::{KeyStoreError, Then};

use crate::{
    connection::Use,
    error::{During, Result, failed, owner},
    link::{Link, read_index},
    policy::NvIndex,
    srk,
};

/// Undefines the vault's indices. Each is held against the Name that set-up gave it, so that an edited
/// container cannot turn this against anyone else's.
pub(crate) fn erase(link: &mut Link, owner_auth: Option<&Auth>) -> Result<()> {
    srk::set_owner_auth(&mut link.tpm, owner_auth)?;
    let mut begun = false;
    for index in [link.place.sec.clone(), link.place.pin.clone(), link.place.key.clone()] {
        if is_defined(link, index.index)? {
            undefine(link, &index)?.map_err(|e| {
                let step = "undefining an index";
                if begun { failed(step, e) } else { owner(owner_auth.is_some(), step)(e) }
            })?;
            begun = true;
        }
    }
    Ok(())
}

/// As the TPM itself says: a response code carries no authentication, so a chip on the bus could answer that there
/// is no such index and leave the secret where it is. The response to an audited command is authenticated.
fn is_defined(link: &mut Link, index: u32) -> Result<bool> {
    link.tpm.prepare(link.hmac, Then::Continue, Use::Audit)?;
    let hmac = link.hmac;
    let (capability, _) = link
        .tpm
        .execute_with_session(Some(hmac), |c| c.get_capability(CapabilityType::Handles, index, 1))
        .during("looking for an index")?;
    let CapabilityData::Handles(handles) = capability else {
        return Err(KeyStoreError::Malformed { what: "the TPM's list of indices" });
    };
    Ok(handles.into_inner().first().is_some_and(|first| u32::from(*first) == index))
}

fn undefine(link: &mut Link, index: &NvIndex) -> Result<tss_esapi::Result<()>> {
    let replaced = KeyStoreError::Replaced { what: "an index of the vault" };
    let Some((handle, name)) = read_index(&mut link.tpm, index.index)? else { return Err(replaced) };
    if name != index.written() && name != index.unwritten() {
        link.tpm.forget(handle.into())?;
        return Err(replaced);
    }
    link.tpm.prepare(link.hmac, Then::Continue, Use::Authorize)?;
    let hmac = link.hmac;
    Ok(link.tpm.execute_with_session(Some(hmac), |c| c.nv_undefine_space(Provision::Owner, handle)))
}
