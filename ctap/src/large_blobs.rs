//! authenticatorLargeBlobs (CTAP 2.2 §6.10).

use std::{rc::Rc, time::Duration};

use ciborium::Value;
use sha2::{Digest, Sha256};
use vault_core::container::Settings;

use crate::{
    Authenticator, Env, Permissions, Status,
    cbor::{Map, bytes, map},
    failure::Result,
    hid::MAX_MESSAGE,
    parameters::PinUvAuth,
};

/// §6.10.2.
const MAX_FRAGMENT: usize = MAX_MESSAGE - 64;
/// LEFT(SHA-256(array), 16) follows the array (§6.10.1).
const CHECKSUM: usize = 16;
/// How long the rest of an array may take to come.
const NEXT_WITHIN: Duration = Duration::from_secs(30);

/// An array of which more is to come.
pub(crate) struct Pending {
    so_far: Vec<u8>,
    length: usize,
    until: Duration,
}

type Reply = (Option<Value>, Option<Pending>);

impl Pending {
    pub(crate) fn deadline(&self) -> Duration {
        self.until
    }
}

pub(crate) fn run(
    authenticator: &mut Authenticator,
    mut parameters: Map,
    pending: Option<Pending>,
    env: &mut Env<'_>,
) -> Result<Reply> {
    let get: Option<u64> = parameters.optional(0x01)?;
    let set: Option<Vec<u8>> = parameters.optional(0x02)?;
    let offset: u64 = parameters.optional(0x03)?.ok_or(Status::InvalidParameter)?;
    let length: Option<u64> = parameters.optional(0x04)?;
    let proven = parameters.has(0x05) || parameters.has(0x06);
    let auth = PinUvAuth::take(&mut parameters, 0x05, 0x06)?;
    match (get, set) {
        // Step 4: reading takes no proof, not even half of one.
        (Some(count), None) if length.is_none() && !proven => Ok((Some(read(count, offset, env)?), None)),
        (None, Some(fragment)) => {
            write(authenticator, fragment, (offset, length), auth.as_ref(), pending, env)
        }
        _ => Err(Status::InvalidParameter.into()),
    }
}

fn read(count: u64, offset: u64, env: &mut Env<'_>) -> Result<Value> {
    let count =
        usize::try_from(count).ok().filter(|count| *count <= MAX_FRAGMENT).ok_or(Status::InvalidLength)?;
    let blobs = env.settings()?.large_blobs;
    let rest = usize::try_from(offset).ok().and_then(|offset| blobs.get(offset..));
    let rest = rest.ok_or(Status::InvalidParameter)?;
    Ok(map([(0x01, bytes(rest.get(..count).unwrap_or(rest)))]))
}

fn write(
    authenticator: &mut Authenticator,
    fragment: Vec<u8>,
    (offset, length): (u64, Option<u64>),
    auth: Option<&PinUvAuth>,
    pending: Option<Pending>,
    env: &mut Env<'_>,
) -> Result<Reply> {
    if fragment.len() > MAX_FRAGMENT {
        return Err(Status::InvalidLength.into());
    }
    let mut pending = match (offset, length) {
        (0, Some(length)) => begin(length)?,
        (0, None) | (_, Some(_)) => return Err(Status::InvalidParameter.into()),
        (offset, None) => {
            let next = pending.filter(|pending| usize::try_from(offset) == Ok(pending.so_far.len()));
            next.ok_or(Status::InvalidSeq)?
        }
    };
    let auth = auth.ok_or(Status::PuatRequired)?;
    let offset = u32::try_from(offset).map_err(|_| Status::InvalidParameter)?.to_le_bytes();
    let message = [[0xff; 32].as_slice(), &[0x0c, 0x00], &offset, &Sha256::digest(&fragment)].concat();
    let token = authenticator.token_that_proves(auth, &message)?;
    token.use_to(Permissions::WRITE_LARGE_BLOBS)?;
    let unlock = Rc::clone(&token.unlock);
    pending.so_far.extend(fragment);
    if pending.so_far.len() < pending.length {
        pending.until = env.now() + NEXT_WITHIN;
        return Ok((None, Some(pending)));
    }
    if pending.so_far.len() > pending.length {
        return Err(Status::InvalidParameter.into());
    }
    let large_blobs = whole(pending.so_far)?;
    let mut vault = env.vaults.open()?;
    let settings = Settings { large_blobs, ..vault.settings()? };
    vault.unlock_with(&unlock)?.configure(&settings, env.rng)?;
    Ok((None, None))
}

fn begin(length: u64) -> Result<Pending> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if length > Settings::MAX_LARGE_BLOBS {
        return Err(Status::LargeBlobStorageFull.into());
    }
    // An array of one byte and its checksum.
    if length <= CHECKSUM {
        return Err(Status::InvalidParameter.into());
    }
    Ok(Pending { so_far: Vec::new(), length, until: Duration::ZERO })
}

fn whole(array: Vec<u8>) -> Result<Vec<u8>> {
    let intact = array
        .split_last_chunk::<CHECKSUM>()
        .is_some_and(|(array, checksum)| Sha256::digest(array).starts_with(checksum));
    if intact { Ok(array) } else { Err(Status::IntegrityFailure.into()) }
}
