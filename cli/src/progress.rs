//! A line on the terminal while nothing else is to be seen there.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

/// How long a command may be silent, and how often the line is rewritten.
const TICK: Duration = Duration::from_secs(1);

/// Shows the line whenever nothing was told and nobody asked for more than a second; by default never.
#[derive(Default)]
pub(crate) struct Progress(Option<Drawing>);

struct Drawing {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Whoever draws on the terminal holds this.
    line: Mutex<Line>,
    ended: Condvar,
}

struct Line {
    silent_since: Instant,
    /// How much of it there is on the terminal.
    width: usize,
    ended: bool,
}

/// While this lives the terminal is somebody else's.
pub(crate) struct Paused<'p>(Option<MutexGuard<'p, Line>>);

impl Progress {
    /// On stderr, if that is a terminal.
    pub(crate) fn start() -> Self {
        Self(if io::stderr().is_terminal() { Drawing::start() } else { None })
    }

    /// Takes the line away until what this returns is dropped; one pause at a time.
    pub(crate) fn pause(&self) -> Paused<'_> {
        Paused(self.0.as_ref().map(|drawing| {
            let mut line = drawing.shared.lock();
            line.erase();
            line
        }))
    }
}

impl Drawing {
    /// Without a thread there is no line, and no harm.
    fn start() -> Option<Self> {
        let shared = Arc::new(Shared::default());
        let draw = {
            let shared = Arc::clone(&shared);
            move || shared.draw()
        };
        let thread = thread::Builder::new().name("progress".to_owned()).spawn(draw).ok()?;
        Some(Self { shared, thread: Some(thread) })
    }
}

impl Drop for Drawing {
    fn drop(&mut self) {
        let mut line = self.shared.lock();
        line.erase();
        line.ended = true;
        drop(line);
        self.shared.ended.notify_one();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        if let Some(line) = &mut self.0 {
            line.silent_since = Instant::now();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// It sleeps as long as there is nothing to draw, and throughout a pause, whose lock it waits for.
    fn draw(&self) {
        let mut line = self.lock();
        while !line.ended {
            let silent = line.silent_since.elapsed();
            if silent >= TICK {
                line.draw(silent.as_secs());
            }
            let next = TICK.saturating_sub(Duration::from_nanos(silent.subsec_nanos().into()));
            (line, _) = self.ended.wait_timeout(line, next).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Default for Line {
    fn default() -> Self {
        Self { silent_since: Instant::now(), width: 0, ended: false }
    }
}

impl Line {
    /// Over the one before, which is no longer. Whether it can be seen is not told to anybody.
    fn draw(&mut self, seconds: u64) {
        let text = format!("\rpasshold: still at work, {seconds} s");
        io::stderr().write_all(text.as_bytes()).ok();
        self.width = text.len() - 1;
    }

    /// With spaces, which every terminal has.
    fn erase(&mut self) {
        if self.width > 0 {
            let spaces = format!("\r{:1$}\r", "", self.width);
            io::stderr().write_all(spaces.as_bytes()).ok();
            self.width = 0;
        }
    }
}
