use ratatui::termion::event::Key;
use zeroize::Zeroizing;

use super::worker::Job;

/// No name and no secret is longer, in bytes.
const LONGEST_TYPED: usize = 256;

/// What lies above a view, and takes the keys.
#[derive(Debug)]
pub(super) enum Dialog {
    /// A command asks.
    Question { prompt: String, hidden: bool, typed: Typed },
    /// Another name for the chosen passkey.
    Rename { job: Job, name: String, typed: Typed },
    /// What the passkeys that are shown have in them.
    Filter,
    /// To be read before anything else.
    Said { text: Zeroizing<String>, scroll: usize },
    /// All about what is chosen.
    Details { scroll: usize },
}

/// A line that is being typed. It never grows beyond what it was made for, so no copy of a PIN stays behind.
#[derive(Debug)]
pub(super) struct Typed(Zeroizing<String>);

impl Typed {
    pub(super) fn new(text: &str) -> Self {
        let mut typed = Self(Zeroizing::new(String::with_capacity(LONGEST_TYPED)));
        text.chars().for_each(|c| typed.push(c));
        typed
    }

    fn push(&mut self, c: char) {
        if self.0.len() + c.len_utf8() <= LONGEST_TYPED {
            self.0.push(c);
        }
    }

    pub(super) fn key(&mut self, key: Key) {
        match key {
            Key::Char(c) if c != '\n' && c != '\t' => self.push(c),
            Key::Backspace => drop(self.0.pop()),
            Key::Ctrl('u') => self.0.clear(),
            _ => {}
        }
    }

    pub(super) fn text(&self) -> &str {
        &self.0
    }

    pub(super) fn take(&mut self) -> Zeroizing<String> {
        std::mem::replace(self, Self(Zeroizing::default())).0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_typed_never_moves_to_other_memory() {
        let mut typed = Typed::new("");
        let at = typed.text().as_ptr();
        for _ in 0..1000 {
            typed.key(Key::Char('é'));
        }
        assert_eq!(typed.text().len(), LONGEST_TYPED);
        assert_eq!(typed.text().as_ptr(), at);
    }
}
