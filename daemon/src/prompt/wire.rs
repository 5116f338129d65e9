//! What passholdd and the process that asks say to each other: a length (4 bytes, big-endian), then that much CBOR.

use std::io::{self, ErrorKind, Read};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeroize::Zeroizing;

/// The longest question: what a few thousand accounts take.
pub(super) const LONGEST_QUESTION: usize = 1 << 20;

/// The longest answer: a PIN of 63 bytes and what goes around it.
pub(super) const LONGEST_ANSWER: usize = 256;

/// Where a message begins.
pub(super) const LENGTH: usize = 4;

/// A question or its answer; both bear the same number.
#[derive(Deserialize, Serialize)]
pub(super) struct Numbered<T> {
    pub(super) number: u64,
    pub(super) body: T,
}

#[derive(Deserialize, Serialize)]
pub(super) enum Question {
    /// Yes or no.
    Confirm { text: String },
    /// Which of these; a text for each.
    Choose { texts: Vec<String> },
    /// The PIN, which is consent too.
    Pin { text: String, tries_left: Option<u32> },
    /// No question, and confirmed at once: something to show.
    Note { text: String },
    /// The question of this number is taken back.
    Cancel,
}

#[derive(Deserialize, Serialize)]
pub(super) enum Answer {
    Confirmed,
    /// Counted from 0.
    Chosen(usize),
    Pin(Zeroizing<String>),
    No,
    TimedOut,
    TakenBack,
}

/// A message with its length. An answer is no longer than what is reserved for it, so that no copy of a PIN stays behind.
pub(super) fn encode<T: Serialize>(message: &Numbered<T>) -> io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(LENGTH + LONGEST_ANSWER));
    bytes.extend([0; LENGTH]);
    ciborium::into_writer(message, &mut *bytes).map_err(io::Error::other)?;
    let length = u32::try_from(bytes.len() - LENGTH).map_err(|_| ErrorKind::InvalidInput)?;
    bytes.iter_mut().zip(length.to_be_bytes()).for_each(|(to, from)| *to = from);
    Ok(bytes)
}

/// What is left of a message behind its length.
pub(super) fn decode<T: DeserializeOwned>(mut bytes: &[u8]) -> io::Result<Numbered<T>> {
    let mut scratch = Zeroizing::new([0; LONGEST_ANSWER]);
    let message = ciborium::de::from_reader_with_buffer(&mut bytes, &mut *scratch)
        .map_err(|_| io::Error::from(ErrorKind::InvalidData))?;
    if bytes.is_empty() { Ok(message) } else { Err(ErrorKind::InvalidData.into()) }
}

/// The length that a message begins with, if it is allowed.
pub(super) fn length(bytes: [u8; LENGTH], longest: usize) -> io::Result<usize> {
    let length = usize::try_from(u32::from_be_bytes(bytes)).unwrap_or(usize::MAX);
    if length <= longest { Ok(length) } else { Err(ErrorKind::InvalidData.into()) }
}

/// Waits for the next question; `None` once the daemon is gone.
pub(super) fn read_question(from: &mut impl Read) -> io::Result<Option<Numbered<Question>>> {
    let mut header = [0; LENGTH];
    match from.read_exact(&mut header) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Ok(None),
        read => read?,
    }
    let mut bytes = vec![0; length(header, LONGEST_QUESTION)?];
    from.read_exact(&mut bytes)?;
    decode(&bytes).map(Some)
}
