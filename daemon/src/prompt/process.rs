//! The process that asks: this program once more, outside the sandbox, because it runs pinentry. Its standard input is its line
//! to the daemon, and it ends with it.

use std::{
    collections::BTreeSet,
    ffi::OsStr,
    io::{self, Write},
    os::unix::{ffi::OsStrExt, net::UnixStream, process::CommandExt},
    process::{Child, Command, Stdio},
    time::Duration,
};

use passhold::{
    node,
    pinentry::{self, Unanswered},
};
use rustix::{
    fd::AsFd,
    process::{Signal, getppid, kill_process},
    termios::ttyname,
};

use super::{
    line::Line,
    notification, screen, texts,
    wire::{self, Answer, Numbered, Question},
};
use crate::{
    failure::{Failure, Result},
    sandbox,
};

/// What this program is called with to ask.
pub(crate) const COMMAND: &str = "prompt";

/// pinentry gives up earlier; this is for a process that does not answer at all.
const PATIENCE: Duration = Duration::from_secs(pinentry::PATIENCE.as_secs() + 5);

/// The process. It is killed on drop.
pub(crate) struct PromptProcess {
    child: Child,
}

/// A line to whoever asks at its other end.
pub(super) fn line_to(socket: UnixStream) -> Result<Line> {
    Line::new(socket, PATIENCE).map_err(Failure::Prompt)
}

impl PromptProcess {
    /// On this terminal, or wherever pinentry finds the person.
    pub(super) fn start(on_terminal: bool) -> Result<(Line, Self)> {
        let start = || {
            let (ours, its) = UnixStream::pair()?;
            let line = Line::new(ours, PATIENCE)?;
            let mut command = Command::new("/proc/self/exe");
            command.arg0("passholdd").arg(COMMAND).stdin(Stdio::from(rustix::fd::OwnedFd::from(its)));
            if on_terminal {
                let terminal = ttyname(io::stdin(), Vec::new())?;
                command.env("GPG_TTY", OsStr::from_bytes(terminal.as_bytes()));
                command.env(pinentry::PROGRAM, "pinentry-curses");
            }
            Ok((line, Self { child: command.stdout(Stdio::null()).spawn()? }))
        };
        start().map_err(Failure::Prompt)
    }
}

impl Drop for PromptProcess {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Asks what the daemon wants asked, until it is gone: the one that started this, or the one behind `socket`.
pub(crate) fn serve(socket: Option<&OsStr>) -> Result<()> {
    tpm_backend::prepare_process().map_err(Failure::Exposed)?;
    // A session often may not lock as much as this program is; pinentry locks what it keeps a PIN in.
    sandbox::lock_memory().ok();
    let line = || match socket {
        None => Ok(io::stdin().as_fd().try_clone_to_owned()?.into()),
        Some(path) => {
            let mut line = UnixStream::connect(path)?;
            passhold::ipc::offer_to_prompt(&mut line)?;
            Ok(line)
        }
    };
    let line = line().map_err(Failure::Prompt)?;
    let socket = socket.map(OsStr::to_owned);
    screen::watch(move || {
        if let Err(e) = lock(socket.as_deref()) {
            crate::report(&io::Error::new(
                e.kind(),
                format!("passholdd is not told that the screen is locked ({e})"),
            ));
        }
    })
    .map_err(Failure::Thread)?;
    serve_on(&line).map_err(Failure::Prompt)
}

fn lock(socket: Option<&OsStr>) -> io::Result<()> {
    match (socket, getppid()) {
        (Some(path), _) => passhold::ipc::lock(&mut UnixStream::connect(path)?),
        (None, Some(daemon)) => Ok(kill_process(daemon, Signal::USR1)?),
        (None, None) => Ok(()),
    }
}

fn serve_on(mut line: &UnixStream) -> io::Result<()> {
    // The daemon says something meanwhile only to take the question back, or by going away.
    let taken_back = Some(line.as_fd());
    while let Some(Numbered { number, body }) = wire::read_question(&mut line)? {
        let answer = match body {
            Question::Confirm { text } => {
                let text = text + &asked_by();
                notification::show(&text);
                pinentry::confirm(&text, taken_back).map(|()| Answer::Confirmed)
            }
            Question::Choose { texts } => {
                notification::show("A site wants to know which passkey.");
                pinentry::choose(&texts, taken_back).map(Answer::Chosen)
            }
            Question::Pin { text, tries_left } => {
                let text = text + &asked_by();
                notification::show(&text);
                let error = tries_left.map(|tries| format!("{tries} tries left"));
                pinentry::pin(&text, error.as_deref(), "PIN:", taken_back).map(Answer::Pin)
            }
            Question::Note { text } => {
                notification::show(&text);
                Ok(Answer::Confirmed)
            }
            // It was answered meanwhile.
            Question::Cancel => continue,
        };
        let body = answer.unwrap_or_else(|e| refusal(&e));
        line.write_all(&wire::encode(&Numbered { number, body })?)?;
    }
    Ok(())
}

/// Which programs have the person's device open, where there is one that the kernel knows. Any of his programs may call itself
/// what it likes, so this helps whoever is asked by mistake, and not against one that deceives him.
fn asked_by() -> String {
    let nodes = node::of_this_user();
    let names: BTreeSet<_> =
        nodes.iter().flat_map(|node| node::holders(node)).map(|(_, name)| name).collect();
    let names: Vec<_> = names.iter().filter(|name| !name.is_empty()).map(|name| texts::named(name)).collect();
    if names.is_empty() { String::new() } else { format!(" The device is open in {}.", names.join(", ")) }
}

/// A prompt that cannot be shown, or dies, is a refusal.
fn refusal(unanswered: &Unanswered) -> Answer {
    match unanswered {
        Unanswered::TimedOut => Answer::TimedOut,
        Unanswered::TakenBack => Answer::TakenBack,
        Unanswered::Broken(e) => {
            crate::report(&io::Error::new(e.kind(), format!("{unanswered} ({e})")));
            Answer::No
        }
        _ => Answer::No,
    }
}
