use std::{num::NonZeroU32, time::Duration};

use super::{MAX_BYTES, Pin};

/// The commonest PINs and short passwords of published leaks, one a line, in the order of their
/// frequency. Those that the other rules catch are left out.
const COMMON: &str = include_str!("common.txt");

/// Rows of a keyboard and a keypad's columns, along which PINs are drawn rather than chosen.
const ROWS: [&str; 7] = ["qwertyuiop", "qwertzuiop", "azertyuiop", "asdfghjkl", "zxcvbnm", "147", "2580"];

/// Which new PINs are accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PinPolicy {
    min_length: usize,
    history: usize,
    max_age: Option<Duration>,
}

/// Why a new PIN was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PinRefused {
    /// Fewer characters than the policy's minimum.
    #[error("it is shorter than {min} characters")]
    TooShort {
        /// The minimum.
        min: usize,
    },
    /// More than [`MAX_BYTES`].
    #[error("it is longer than {MAX_BYTES} bytes of UTF-8")]
    TooLong,
    /// A character that cannot be typed everywhere.
    #[error("it holds a control character")]
    ControlCharacter,
    /// One character, or one short group of them, over and over.
    #[error("it repeats itself")]
    Repeats,
    /// Up or down the digits, the alphabet or the keyboard in even steps.
    #[error("it is a sequence")]
    Sequence,
    /// Among the first that anyone tries.
    #[error("it is among the commonest PINs")]
    Common,
}

impl Default for PinPolicy {
    /// At least 6 characters; any other, for as long as one likes.
    fn default() -> Self {
        Self { min_length: 6, history: 0, max_age: None }
    }
}

impl PinPolicy {
    /// The lowest minimum that can be configured (CTAP 2.2 §6.5.1).
    pub const LOWEST_MINIMUM: usize = 4;

    /// A policy with another minimum, in Unicode code points as CTAP counts them.
    /// `None` below [`Self::LOWEST_MINIMUM`] or above [`MAX_BYTES`].
    #[must_use]
    pub fn with_min_length(min_length: usize) -> Option<Self> {
        let fits = (Self::LOWEST_MINIMUM..=MAX_BYTES).contains(&min_length);
        fits.then_some(Self { min_length, ..Self::default() })
    }

    /// The most PINs that can be remembered.
    pub const LONGEST_HISTORY: usize = 10;

    /// The same, and a new PIN must be none of the last `history` ones. `None` above [`Self::LONGEST_HISTORY`].
    #[must_use]
    pub fn with_history(self, history: usize) -> Option<Self> {
        (history <= Self::LONGEST_HISTORY).then_some(Self { history, ..self })
    }

    /// The same, and a PIN must be changed after so many days, if any.
    #[must_use]
    pub fn with_max_age_days(self, days: Option<NonZeroU32>) -> Self {
        let max_age = days.map(|days| Duration::from_secs(u64::from(days.get()) * 24 * 60 * 60));
        Self { max_age, ..self }
    }

    /// How many PINs are remembered.
    #[must_use]
    pub fn history(self) -> usize {
        self.history
    }

    /// Whether a PIN must be changed after some time.
    #[must_use]
    pub fn expires(self) -> bool {
        self.max_age.is_some()
    }

    /// Whether a PIN that was set at `set` is too old at `now`, both in seconds since 1970. One whose age nobody knows is.
    #[must_use]
    pub fn is_expired(self, set: Option<u64>, now: u64) -> bool {
        self.max_age.is_some_and(|most| set.is_none_or(|set| now.saturating_sub(set) >= most.as_secs()))
    }

    /// The same, or a stricter one: a minimum that was raised (CTAP 2.2 §6.11.4).
    #[must_use]
    pub fn at_least(self, min_length: usize) -> Self {
        Self { min_length: self.min_length.max(min_length), ..self }
    }

    /// The minimum.
    #[must_use]
    pub fn min_length(self) -> usize {
        self.min_length
    }

    /// Accepts a typed new PIN or says why not.
    pub fn accept(self, typed: &str) -> Result<Pin, PinRefused> {
        let Some(pin) = Pin::new(typed) else {
            let too_long = !typed.is_empty();
            return Err(if too_long { PinRefused::TooLong } else { self.too_short() });
        };
        let chars: Vec<char> = pin.as_str().chars().flat_map(char::to_lowercase).collect();
        let chars = zeroize::Zeroizing::new(chars);
        let refused = if pin.as_str().chars().count() < self.min_length {
            Some(self.too_short())
        } else if chars.iter().any(|c| c.is_control()) {
            Some(PinRefused::ControlCharacter)
        } else if repeats(&chars) {
            Some(PinRefused::Repeats)
        } else if is_sequence(&chars) {
            Some(PinRefused::Sequence)
        } else if is_common(&chars) {
            Some(PinRefused::Common)
        } else {
            None
        };
        refused.map_or(Ok(pin), Err)
    }

    fn too_short(self) -> PinRefused {
        PinRefused::TooShort { min: self.min_length }
    }
}

/// A group of at most half the PIN repeated throughout it (the last time perhaps cut short), or
/// every character doubled or tripled (112233).
fn repeats(pin: &[char]) -> bool {
    let periodic = (1..=pin.len() / 2).any(|n| pin.iter().zip(pin.iter().skip(n)).all(|(a, b)| a == b));
    let stuttered = [2, 3].iter().any(|&n| {
        pin.len().is_multiple_of(n) && pin.chunks(n).all(|c| c.iter().all(|x| Some(x) == c.first()))
    });
    periodic || stuttered
}

/// Even steps of 1 to 4 through the digits (mod 10), of 1 through the alphabet, or along a keyboard row.
fn is_sequence(pin: &[char]) -> bool {
    let stepped = |modulus: i64, steps: std::ops::RangeInclusive<i64>, value: fn(char) -> Option<i64>| {
        let values: Option<Vec<i64>> = pin.iter().map(|&c| value(c)).collect();
        values.is_some_and(|v| {
            steps.into_iter().any(|step| {
                let up = v.windows(2).all(|w| matches!(w, [a, b] if (b - a - step).rem_euclid(modulus) == 0));
                let down =
                    v.windows(2).all(|w| matches!(w, [a, b] if (a - b - step).rem_euclid(modulus) == 0));
                up || down
            })
        })
    };
    let along_row = || {
        let pin: String = pin.iter().collect();
        let reversed: String = pin.chars().rev().collect();
        ROWS.iter().any(|row| row.contains(&pin) || row.contains(&reversed))
    };
    stepped(10, 1..=4, |c| c.to_digit(10).map(i64::from))
        || stepped(26, 1..=1, |c| c.is_ascii_lowercase().then(|| i64::from(u32::from(c))))
        || along_row()
}

fn is_common(pin: &[char]) -> bool {
    COMMON.lines().any(|common| common.chars().eq(pin.iter().copied()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn refusal(pin: &str) -> Option<PinRefused> {
        PinPolicy::default().accept(pin).err()
    }

    #[test]
    fn short_long_and_control_characters_are_refused() {
        assert_eq!(refusal(""), Some(PinRefused::TooShort { min: 6 }));
        assert_eq!(refusal("59271"), Some(PinRefused::TooShort { min: 6 }));
        assert_eq!(refusal(&"ab3x".repeat(16)), Some(PinRefused::TooLong));
        assert_eq!(refusal("5927\u{7}81"), Some(PinRefused::ControlCharacter));
    }

    #[test]
    fn sequences_are_refused() {
        for pin in ["123456", "654321", "135791", "789012", "abcdefg", "FEDCBA", "qwertz", "poiuyt", "024680"]
        {
            assert_eq!(refusal(pin), Some(PinRefused::Sequence), "{pin}");
        }
    }

    #[test]
    fn repeats_are_refused() {
        for pin in ["000000", "121212", "123123", "aaaaaaa", "112233", "445566", "ababa4ababa4", "1231231"] {
            assert_eq!(refusal(pin), Some(PinRefused::Repeats), "{pin}");
        }
    }

    #[test]
    fn the_commonest_are_refused_whatever_their_case() {
        for pin in ["password", "PassWord", "iloveyou", "159753", "696969", "102030"] {
            assert!(matches!(refusal(pin), Some(PinRefused::Common | PinRefused::Repeats)), "{pin}");
        }
    }

    #[test]
    fn ordinary_pins_are_accepted() {
        for pin in ["483920", "271828", "correct horse", "пароль-7", "9d!kQz"] {
            assert_eq!(refusal(pin), None, "{pin}");
        }
    }

    #[test]
    fn the_minimum_counts_characters_and_goes_down_to_four() {
        assert_eq!(PinPolicy::with_min_length(3), None);
        assert_eq!(PinPolicy::with_min_length(64), None);
        let four = PinPolicy::with_min_length(4).unwrap();
        assert!(four.accept("4839").is_ok());
        assert_eq!(four.accept("éèà").err(), Some(PinRefused::TooShort { min: 4 }));
    }

    #[test]
    fn composed_and_decomposed_forms_are_one_pin() {
        let (a, b) = (Pin::new("caf\u{e9}-59").unwrap(), Pin::new("cafe\u{301}-59").unwrap());
        assert_eq!(a.as_str(), b.as_str());
        assert_eq!(a.as_str().len(), 8);
    }
}
