//! `passhold tui`: the passkeys in one screen. All that it does is done by the commands that have other names.

mod dialog;
mod json;
mod keys;
mod model;
mod screen;
mod view;
mod worker;

use std::{
    ffi::c_int,
    io::{self, Read},
    os::unix::net::UnixStream,
    process::ExitCode,
    time::{Duration, Instant},
};

use anstream::{AutoStream, ColorChoice};
use passhold::{Exit, Failure, Global, Result, now};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    process::{Signal, getpid, kill_process},
};
use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGWINCH},
    low_level::{emulate_default_handler, pipe},
};

use self::{
    keys::Keyboard,
    model::{Effect, Model},
    screen::{Screen, lost},
    view::Look,
    worker::Worker,
};

const TICK: Duration = Duration::from_secs(1);

/// Returns when the person leaves.
pub(crate) fn run(global: Global) -> Result<ExitCode> {
    if global.pin_fd.is_some() || global.json {
        return Err(Failure::new(Exit::Usage, "tui asks and tells on the screen")
            .next("Leave --pin-fd and --json out."));
    }
    let worker = Worker::start(global)?;
    let [resized, hup, int, term] = [SIGWINCH, SIGHUP, SIGINT, SIGTERM].map(Caught::new);
    let signals = [resized?, hup?, int?, term?];
    let screen = Screen::enter()?;
    let keyboard = Keyboard::new(screen.keyboard()?);
    let signal = Desk { screen, keyboard, worker, signals }.attend()?;
    if let Some(signal) = signal {
        emulate_default_handler(signal).map_err(lost)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A signal as something to wait for.
struct Caught {
    signal: c_int,
    raised: UnixStream,
}

impl Caught {
    fn new(signal: c_int) -> Result<Self> {
        let catch = || {
            let (raised, handler) = UnixStream::pair()?;
            raised.set_nonblocking(true)?;
            pipe::register(signal, handler)?;
            Ok(Self { signal, raised })
        };
        catch().map_err(lost)
    }

    fn was_raised(&mut self) -> bool {
        let mut raised = false;
        while matches!(self.raised.read(&mut [0; 64]), Ok(1..)) {
            raised = true;
        }
        raised
    }
}

struct Desk {
    screen: Screen,
    keyboard: Keyboard,
    worker: Worker,
    signals: [Caught; 4],
}

impl Desk {
    /// Until the person leaves, or a signal ends it. Then the terminal is as it was.
    fn attend(mut self) -> Result<Option<c_int>> {
        // By the rules that hold for what is printed (NO_COLOR among them).
        let look = Look { colour: AutoStream::choice(&io::stdout()) != ColorChoice::Never };
        let (mut model, first) = Model::new();
        let mut effects = vec![first];
        let mut since = Instant::now();
        loop {
            for effect in effects.drain(..) {
                since = Instant::now();
                match effect {
                    Effect::Run(job) => self.worker.run(job)?,
                    Effect::Answer(answer) => self.worker.answer(answer)?,
                    Effect::Suspend => {
                        let stopped = self.screen.without(|| kill_process(getpid(), Signal::TSTP))?;
                        stopped.map_err(|e| lost(e.into()))?;
                    }
                    Effect::Quit => return Ok(None),
                }
            }
            // Nobody is woken to see that nothing happens.
            let waits = model.running.is_some() && model.dialog.is_none();
            let waited = if waits { since.elapsed().as_secs() } else { 0 };
            self.screen.draw(|frame| view::draw(frame, &mut model, look, now(), waited))?;
            let is_typed = self.wait(waits.then_some(TICK))?;
            for caught in &mut self.signals {
                // That the screen has another size is found out when it is drawn.
                if caught.was_raised() && caught.signal != SIGWINCH {
                    return Ok(Some(caught.signal));
                }
            }
            if is_typed {
                self.keyboard.read(|key| effects.extend(model.key(key))).map_err(lost)?;
            }
            while let Some(event) = self.worker.event()? {
                effects.extend(model.event(event));
            }
        }
    }

    /// Until something is to be done. Returns whether a key was typed.
    fn wait(&self, at_most: Option<Duration>) -> Result<bool> {
        let keyboard = PollFd::new(self.keyboard.tty(), PollFlags::IN);
        let bell = PollFd::new(self.worker.bell(), PollFlags::IN);
        let signals = self.signals.iter().map(|caught| PollFd::new(&caught.raised, PollFlags::IN));
        let mut fds: Vec<_> = [keyboard, bell].into_iter().chain(signals).collect();
        let at_most = at_most.map(Timespec::try_from).transpose().ok().flatten();
        match poll(&mut fds, at_most.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(e) => return Err(lost(e.into())),
        }
        Ok(fds.first().is_some_and(|keyboard| !keyboard.revents().is_empty()))
    }
}
