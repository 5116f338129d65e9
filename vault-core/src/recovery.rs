//! The recovery code: on paper, for whoever forgets the PIN.
//!
//! Nothing counts guesses at it: it has 128 random bits.

use hkdf::Hkdf;
use secrecy::{ExposeSecret, SecretBox};
use sha2::Sha256;
use zeroize::Zeroizing;

use crate::{Secret, secret_from, wipe_stack};

/// Crockford's Base32: no letter in it is taken for a digit.
const ALPHABET: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// 26 characters of code and 2 of check digits.
const LENGTH: u32 = 28;
const GROUP: u32 = 4;
/// The largest prime that two characters hold. Any wrong character, and any two that were swapped, leave another remainder.
const CHECK: u128 = 1021;
/// The characters of the code itself.
const BODY: u32 = 26;

/// 16 random bytes that open a vault without its PIN, once.
pub struct RecoveryCode(SecretBox<[u8; 16]>);

/// Why what was typed is no recovery code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotACode {
    /// It has too few characters, or too many.
    #[error("a recovery code has {LENGTH} characters, and this has {found}")]
    Length {
        /// How many were typed, without spaces and hyphens.
        found: usize,
    },
    /// A character that is in no code.
    #[error("{0:?} is in no recovery code")]
    Character(char),
    /// Its check digits are not those of its other characters.
    #[error("a character of it is mistyped")]
    Mistyped,
}

/// What the TPM holds, and is shown, of a code.
#[derive(Debug)]
pub struct RecoverySecrets {
    /// Masks the vault key's secret S.
    pub mask: Secret,
    /// Tells the right code from a wrong one. Not secret: it says nothing that a search through 128 bits would not.
    pub check: [u8; 32],
}

impl RecoveryCode {
    /// A new one.
    #[must_use]
    pub fn random(rng: &mut dyn rand_core::CryptoRng) -> Self {
        Self(SecretBox::init_with_mut(|bytes: &mut [u8; 16]| rng.fill_bytes(bytes)))
    }

    /// As it is written down: seven groups of four characters.
    #[must_use]
    pub fn to_text(&self) -> Zeroizing<String> {
        let code = Zeroizing::new(u128::from_be_bytes(*self.0.expose_secret()));
        let check = *code % CHECK;
        let mut text = Zeroizing::new(String::with_capacity(40));
        for at in 0..LENGTH {
            if at > 0 && at % GROUP == 0 {
                text.push('-');
            }
            let value =
                if at < BODY { *code >> (5 * (BODY - 1 - at)) } else { check >> (5 * (LENGTH - 1 - at)) };
            text.extend(
                ALPHABET.get(usize::try_from(value & 31).unwrap_or_default()).copied().map(char::from),
            );
        }
        text
    }

    /// Reads one, however it is grouped and in upper or lower case.
    pub fn parse(typed: &str) -> Result<Self, NotACode> {
        let typed = || typed.chars().filter(|c| !c.is_whitespace() && *c != '-');
        let found = typed().count();
        let (mut code, mut check) = (Zeroizing::new(0_u128), 0);
        for (at, c) in (0..).zip(typed()) {
            let value = value(c).ok_or(NotACode::Character(c))?;
            match at {
                // The first stands for the highest 3 bits.
                0 if value > 7 => return Err(NotACode::Mistyped),
                0..BODY => *code = *code << 5 | value,
                _ => check = check << 5 | value,
            }
            if at == LENGTH {
                break;
            }
        }
        if u32::try_from(found) != Ok(LENGTH) {
            return Err(NotACode::Length { found });
        }
        if *code % CHECK != check {
            return Err(NotACode::Mistyped);
        }
        Ok(Self(SecretBox::init_with_mut(|bytes: &mut [u8; 16]| bytes.copy_from_slice(&code.to_be_bytes()))))
    }
}

impl std::fmt::Debug for RecoveryCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RecoveryCode([REDACTED])")
    }
}

impl RecoverySecrets {
    /// HKDF outputs of the code, salted with the vault's id. It needs no stretching.
    #[must_use]
    pub fn derive(code: &RecoveryCode, vault_id: &[u8; 16]) -> Self {
        let hkdf = Hkdf::<Sha256>::new(Some(vault_id), code.0.expose_secret());
        let mut check = [0; 32];
        expand(&hkdf, "passhold v1 recovery check", &mut check);
        let mask = secret_from(|out| expand(&hkdf, "passhold v1 recovery mask", out));
        wipe_stack();
        Self { mask, check }
    }
}

#[expect(clippy::expect_used, reason = "one block of output")]
fn expand(hkdf: &Hkdf<Sha256>, label: &str, out: &mut [u8; 32]) {
    hkdf.expand(label.as_bytes(), out).expect("a length that HKDF has");
}

/// What a character stands for; those that are taken for others count as those.
fn value(c: char) -> Option<u128> {
    let c = match c.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        c => c,
    };
    let at = ALPHABET.iter().position(|known| char::from(*known) == c)?;
    u128::try_from(at).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn code(bytes: [u8; 16]) -> RecoveryCode {
        RecoveryCode(SecretBox::init_with_mut(|code: &mut [u8; 16]| *code = bytes))
    }

    const BYTES: [u8; 16] = *b"\x9e\x37\x79\xb9\x7f\x4a\x7c\x15\xf3\x9c\xc0\x60\x5c\xed\xc8\x34";
    const TEXT: &str = "4Y6X-WVJZ-TAFG-AZ77-60C1-EEVJ-1MV0";

    #[test]
    fn a_code_is_read_as_it_was_written() {
        for bytes in [BYTES, [0; 16], [0xff; 16]] {
            let text = code(bytes).to_text();
            assert_eq!(RecoveryCode::parse(&text).unwrap().0.expose_secret(), &bytes, "{}", *text);
            assert_eq!(text.len(), 34);
        }
        assert_eq!(*code(BYTES).to_text(), TEXT);
    }

    #[test]
    fn spaces_case_and_letters_that_look_like_digits_do_not_matter() {
        let text = code([0; 16]).to_text().replace('0', "o").replace('-', "  ");
        assert_eq!(RecoveryCode::parse(&text).unwrap().0.expose_secret(), &[0; 16]);
        let text = TEXT.to_lowercase().replace('1', "l");
        assert_eq!(RecoveryCode::parse(&text).unwrap().0.expose_secret(), &BYTES);
    }

    #[test]
    fn every_wrong_character_and_every_swap_is_found() {
        let text: Vec<char> = TEXT.chars().filter(|c| *c != '-').collect();
        let read = |text: &[char]| RecoveryCode::parse(&text.iter().collect::<String>()).map(drop);
        for at in 0..text.len() {
            for wrong in ALPHABET.iter().map(|c| char::from(*c)).filter(|c| *c != text[at]) {
                let mut text = text.clone();
                text[at] = wrong;
                assert_eq!(read(&text), Err(NotACode::Mistyped), "{text:?}");
            }
            for other in 0..at {
                if text[at] != text[other] {
                    let mut text = text.clone();
                    text.swap(at, other);
                    assert_eq!(read(&text), Err(NotACode::Mistyped), "{text:?}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_code_is_told_apart() {
        assert_eq!(RecoveryCode::parse("").map(drop), Err(NotACode::Length { found: 0 }));
        assert_eq!(RecoveryCode::parse(&TEXT[..30]).map(drop), Err(NotACode::Length { found: 24 }));
        assert_eq!(
            RecoveryCode::parse(&format!("{TEXT}{TEXT}")).map(drop),
            Err(NotACode::Length { found: 56 })
        );
        assert_eq!(RecoveryCode::parse(&TEXT.replace('4', "U")).map(drop), Err(NotACode::Character('U')));
    }
}
