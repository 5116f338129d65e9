use std::{
    fs::File,
    io::{self, Read},
};

use ratatui::termion::event::{Event, Key, parse_event};
use zeroize::{Zeroize, Zeroizing};

const ESC: u8 = 0x1b;

/// The terminal's keyboard. A PIN passes through here, so the bytes are wiped as soon as they are keys; no library's reader
/// does that.
pub(super) struct Keyboard {
    tty: File,
    bytes: Zeroizing<[u8; 1024]>,
}

impl Keyboard {
    pub(super) fn new(tty: File) -> Self {
        Self { tty, bytes: Zeroizing::new([0; 1024]) }
    }

    pub(super) fn tty(&self) -> &File {
        &self.tty
    }

    /// Reads what was typed, key by key. No key at all is the terminal's end.
    pub(super) fn read(&mut self, mut each: impl FnMut(Key)) -> io::Result<()> {
        let read = self.tty.read(self.bytes.as_mut_slice())?;
        if read == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut bytes = self.bytes.iter().take(read).copied().map(Ok);
        while let Some(Ok(first)) = bytes.next() {
            let is_alone = bytes.len() == 0;
            match parse_event(first, &mut bytes) {
                Ok(Event::Key(key)) => each(key),
                // Otherwise it begins what a key sends that nobody knows.
                Err(_) if first == ESC && is_alone => each(Key::Esc),
                _ => {}
            }
        }
        self.bytes.zeroize();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn keys(typed: &[u8]) -> Vec<Key> {
        let (from, mut to) = std::os::unix::net::UnixStream::pair().unwrap();
        to.write_all(typed).unwrap();
        let mut keyboard = Keyboard::new(File::from(std::os::fd::OwnedFd::from(from)));
        let mut keys = Vec::new();
        keyboard.read(|key| keys.push(key)).unwrap();
        assert_eq!(*keyboard.bytes, [0; 1024], "wiped");
        keys
    }

    #[test]
    fn bytes_are_keys() {
        for (typed, expected) in [
            (&b"q"[..], &[Key::Char('q')][..]),
            ("é".as_bytes(), &[Key::Char('é')]),
            (b"27\r", &[Key::Char('2'), Key::Char('7'), Key::Char('\n')]),
            (b"\x1b", &[Key::Esc]),
            (b"\x1b[A\x1b[6~", &[Key::Up, Key::PageDown]),
            (b"\x03\x1a\x15", &[Key::Ctrl('c'), Key::Ctrl('z'), Key::Ctrl('u')]),
            (b"\x7f", &[Key::Backspace]),
            // What nobody's keyboard sends is no key, and ends nothing.
            (b"\xff", &[]),
            (b"\x1b[999;999Xq", &[Key::Char('q')]),
        ] {
            assert_eq!(keys(typed), expected, "{typed:?}");
        }
    }

    #[test]
    fn a_terminal_that_is_gone_is_an_error() {
        let (from, to) = std::os::unix::net::UnixStream::pair().unwrap();
        drop(to);
        let mut keyboard = Keyboard::new(File::from(std::os::fd::OwnedFd::from(from)));
        assert_eq!(keyboard.read(|_| ()).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    }
}
