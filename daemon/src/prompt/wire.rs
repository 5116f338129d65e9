//! What passholdd and the process that asks say to each other.

use std::io::{self, Read};

use passhold::frame;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// The longest question: what a few thousand accounts take.
pub(super) const LONGEST_QUESTION: usize = 1 << 20;

/// The longest answer: a PIN of 63 bytes and what goes around it.
pub(super) const LONGEST_ANSWER: usize = 256;

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
    frame::encode(message, LONGEST_ANSWER)
}

/// Waits for the next question; `None` once the daemon is gone.
pub(super) fn read_question(from: &mut impl Read) -> io::Result<Option<Numbered<Question>>> {
    frame::read(from, LONGEST_QUESTION)
}
