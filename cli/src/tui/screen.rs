use std::{
    fs::{File, OpenOptions},
    io::{self, IsTerminal, Write},
};

use passhold::{Exit, Failure, Result};
use ratatui::{
    Frame, Terminal,
    backend::TermionBackend,
    termion::{
        cursor,
        screen::{ToAlternateScreen, ToMainScreen},
    },
};
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};

/// The terminal while all of it is ours. It is given back as it was on drop.
pub(super) struct Screen {
    terminal: Terminal<TermionBackend<File>>,
    tty: File,
    before: Termios,
}

impl Screen {
    pub(super) fn enter() -> Result<Self> {
        let refused = |why: &str| {
            Failure::new(Exit::Usage, why)
                .next("Run it in a terminal, or see \"passhold --help\" for the commands.")
        };
        if !io::stdout().is_terminal() {
            return Err(refused("tui needs a terminal, and standard output is none"));
        }
        if std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb") {
            return Err(refused("tui needs a terminal that can be drawn on, and TERM names none"));
        }
        let enter = || {
            let tty = OpenOptions::new().read(true).write(true).open("/dev/tty")?;
            let before = tcgetattr(&tty)?;
            let terminal = Terminal::new(TermionBackend::new(tty.try_clone()?))?;
            let mut screen = Self { terminal, tty, before };
            screen.take()?;
            Ok(screen)
        };
        enter().map_err(lost)
    }

    /// Its keyboard.
    pub(super) fn keyboard(&self) -> Result<File> {
        self.tty.try_clone().map_err(lost)
    }

    pub(super) fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> Result<()> {
        self.terminal.draw(draw).map(drop).map_err(lost)
    }

    /// Gives the terminal back, for as long as `meanwhile` takes.
    pub(super) fn without<T>(&mut self, meanwhile: impl FnOnce() -> T) -> Result<T> {
        self.give_back().map_err(lost)?;
        let result = meanwhile();
        self.take().and_then(|()| self.terminal.clear()).map_err(lost)?;
        Ok(result)
    }

    fn take(&mut self) -> io::Result<()> {
        let mut raw = self.before.clone();
        raw.make_raw();
        tcsetattr(&self.tty, OptionalActions::Flush, &raw)?;
        write!(self.tty, "{ToAlternateScreen}{}", cursor::Hide)
    }

    fn give_back(&mut self) -> io::Result<()> {
        let shown = write!(self.tty, "{}{ToMainScreen}", cursor::Show);
        // What was typed and not read is nothing for a shell.
        tcsetattr(&self.tty, OptionalActions::Flush, &self.before)?;
        shown
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing back.
        self.give_back().ok();
    }
}

pub(super) fn lost(error: io::Error) -> Failure {
    Failure::unexpected("the terminal cannot be used", error)
}
