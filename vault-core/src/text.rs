/// Text from a relying party, without what could rewrite the line it stands in.
#[must_use]
pub fn printable(text: &str) -> String {
    text.replace(|c: char| c.is_control() || is_bidi_control(c), "\u{fffd}")
}

/// The longest name that is kept, in bytes of UTF-8 (WebAuthn Level 3 §6.4.1: at least 64).
const LONGEST_NAME: usize = 256;

/// A name as it is kept.
pub(crate) fn kept(name: &str) -> String {
    cut(name, LONGEST_NAME)
}

/// As much of a text as so many bytes hold, in whole characters.
#[must_use]
pub fn cut(text: &str, bytes: usize) -> String {
    text.char_indices().take_while(|(at, c)| at + c.len_utf8() <= bytes).map(|(_, c)| c).collect()
}

/// Unicode's explicit directional formatting characters (UAX 9 §2).
fn is_bidi_control(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
