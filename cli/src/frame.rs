//! How two processes of Passhold speak: a length (4 bytes, big-endian), then that much CBOR.

use std::io::{self, ErrorKind, Read};

use serde::{Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

/// Where a message begins.
pub const LENGTH: usize = 4;

/// A message with its length. Where it fits into `room`, it was never copied: it may hold a PIN.
pub fn encode(message: &impl Serialize, room: usize) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(LENGTH + room));
    bytes.extend([0; LENGTH]);
    ciborium::into_writer(message, &mut *bytes).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len() - LENGTH).map_err(|_| ErrorKind::InvalidInput)?;
    bytes.iter_mut().zip(length.to_be_bytes()).for_each(|(to, from)| *to = from);
    Ok(bytes)
}

/// What is left of a message behind its length.
pub fn decode<T: DeserializeOwned>(mut bytes: &[u8]) -> io::Result<T> {
    let mut scratch = Zeroizing::new([0; 4096]);
    let message = ciborium::de::from_reader_with_buffer(&mut bytes, &mut *scratch)
        .map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
    if bytes.is_empty() { Ok(message) } else { Err(ErrorKind::InvalidData.into()) }
}

/// The length that a message begins with, if it is allowed.
pub fn length(bytes: [u8; LENGTH], longest: usize) -> io::Result<usize> {
    let length = usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(usize::MAX);
    if length <= longest { Ok(length) } else { Err(ErrorKind::InvalidData.into()) }
}

/// Waits for a message; `None` where the other end is closed before it begins. Its length is believed only as far as it comes.
pub fn read<T: DeserializeOwned>(from: &mut impl Read, longest: usize) -> io::Result<Option<T>> {
    let mut header = [0; LENGTH];
    match from.read_exact(&mut header) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let length = length(header, longest)?;
    let mut bytes = Zeroizing::new(Vec::with_capacity(length.min(1024)));
    from.take(u64::try_from(length).unwrap_or(u64::MAX)).read_to_end(&mut bytes)?;
    if bytes.len() == length { decode(&bytes).map(Some) } else { Err(ErrorKind::UnexpectedEof.into()) }
}
