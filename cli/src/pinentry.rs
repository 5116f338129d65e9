//! `GnuPG`'s pinentry, by its protocol (Assuan: lines of text on standard input and output). passholdd asks through it, and
//! `passhold` where it has no terminal.

use std::{
    env,
    io::{self, ErrorKind, Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::BorrowedFd,
};
use thiserror::Error;
use zeroize::Zeroizing;

/// How long a question waits for a person.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The environment variable that names another pinentry.
pub const PROGRAM: &str = "PASSHOLD_PINENTRY";

/// Assuan's longest line.
const LONGEST_LINE: usize = 1000;

/// The codes of libgpg-error that mean something here; the rest of the number tells who said so.
const TIMEOUT: u32 = 62;
const NOT_CONFIRMED: u32 = 114;

/// Why there is no answer.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Unanswered {
    /// The person said no.
    #[error("cancelled")]
    No,
    /// Nobody said anything.
    #[error("nobody answered")]
    TimedOut,
    /// It is not to be asked any more.
    #[error("the question was taken back")]
    TakenBack,
    /// Not asked: what does not fit would be agreed to unseen.
    #[error("there is more to show than pinentry takes")]
    TooLong,
    /// It is not installed, died, or makes no sense.
    #[error("pinentry does not answer")]
    Broken(#[source] io::Error),
}

/// A running pinentry. Dropping it ends it, and the prompt with it.
struct Pinentry<'a> {
    child: Child,
    to: ChildStdin,
    from: ChildStdout,
    /// Readable once the question is taken back. None where nobody does that.
    canceller: Option<BorrowedFd<'a>>,
}

/// How a command ended.
enum Answer {
    Ok(Zeroizing<Vec<u8>>),
    NotConfirmed,
}

/// Whether there may be a screen for it, though there is no terminal.
pub(crate) fn has_a_screen() -> bool {
    let is_set = |name| env::var_os(name).is_some_and(|value| !value.is_empty());
    ["DISPLAY", "WAYLAND_DISPLAY", PROGRAM].into_iter().any(is_set)
}

/// Asks for a yes. Whatever becomes readable at `canceller` takes the question back; so it does below.
pub fn confirm(question: &str, canceller: Option<BorrowedFd<'_>>) -> Result<(), Unanswered> {
    let mut pinentry = Pinentry::start(question, PATIENCE, canceller)?;
    match pinentry.command("CONFIRM")? {
        Answer::Ok(_) => Ok(()),
        Answer::NotConfirmed => Err(Unanswered::No),
    }
}

/// Which of these is confirmed. One after the other: pinentry has no lists.
pub fn choose(questions: &[String], canceller: Option<BorrowedFd<'_>>) -> Result<usize, Unanswered> {
    let started = Instant::now();
    for (at, question) in questions.iter().enumerate() {
        let mut pinentry = Pinentry::start(question, PATIENCE.saturating_sub(started.elapsed()), canceller)?;
        pinentry.command("SETNOTOK Another account")?;
        if let Answer::Ok(_) = pinentry.command("CONFIRM")? {
            return Ok(at);
        }
    }
    Err(Unanswered::No)
}

/// Asks for a PIN; `error` is what was wrong with the last one.
pub fn pin(
    question: &str,
    error: Option<&str>,
    prompt: &str,
    canceller: Option<BorrowedFd<'_>>,
) -> Result<Zeroizing<String>, Unanswered> {
    let mut pinentry = Pinentry::start(question, PATIENCE, canceller)?;
    if let Some(error) = error {
        pinentry.command(&format!("SETERROR {}", escape(error)))?;
    }
    pinentry.command(&format!("SETPROMPT {}", escape(prompt)))?;
    let Answer::Ok(typed) = pinentry.command("GETPIN")? else { return Err(Unanswered::No) };
    let pin = std::str::from_utf8(&typed).map_err(|_| garbage())?;
    Ok(Zeroizing::new(pin.to_owned()))
}

impl<'a> Pinentry<'a> {
    fn start(
        question: &str,
        patience: Duration,
        canceller: Option<BorrowedFd<'a>>,
    ) -> Result<Self, Unanswered> {
        // For pinentry, 0 is for ever.
        if patience.as_secs() == 0 {
            return Err(Unanswered::TimedOut);
        }
        let spawn = || -> io::Result<(Child, ChildStdin, ChildStdout)> {
            let program = env::var_os(PROGRAM).unwrap_or_else(|| "pinentry".into());
            let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let (to, from) = (child.stdin.take(), child.stdout.take());
            to.zip(from).map(|(to, from)| (child, to, from)).ok_or_else(|| ErrorKind::BrokenPipe.into())
        };
        let (child, to, from) = spawn().map_err(Unanswered::Broken)?;
        let mut pinentry = Self { child, to, from, canceller };
        pinentry.answer()?;
        if let Ok(terminal) = env::var("GPG_TTY") {
            pinentry.command(&format!("OPTION ttyname={terminal}"))?;
        }
        pinentry.command(&format!("SETTIMEOUT {}", patience.as_secs()))?;
        pinentry.command("SETTITLE Passhold")?;
        pinentry.command(&format!("SETDESC {}", escape(question)))?;
        Ok(pinentry)
    }

    fn command(&mut self, line: &str) -> Result<Answer, Unanswered> {
        if line.len() >= LONGEST_LINE {
            return Err(Unanswered::TooLong);
        }
        writeln!(self.to, "{line}").map_err(Unanswered::Broken)?;
        self.answer()
    }

    /// Reads up to the line that ends an answer.
    fn answer(&mut self) -> Result<Answer, Unanswered> {
        let mut data = Zeroizing::new(Vec::with_capacity(LONGEST_LINE));
        loop {
            let line = self.line()?;
            match line.split_first_chunk::<2>() {
                Some((b"OK", _)) => return Ok(Answer::Ok(data)),
                // It never grows, so no copy of a PIN stays behind.
                Some((b"D ", escaped)) if data.len() + escaped.len() > LONGEST_LINE => return Err(garbage()),
                Some((b"D ", escaped)) => unescape(escaped, &mut data),
                Some((b"ER", rest)) => return refusal(rest),
                // Status lines and remarks.
                _ => {}
            }
        }
    }

    fn line(&mut self) -> Result<Zeroizing<Vec<u8>>, Unanswered> {
        let mut line = Zeroizing::new(Vec::with_capacity(LONGEST_LINE));
        let mut byte = Zeroizing::new([0]);
        while line.len() < LONGEST_LINE {
            self.wait()?;
            match self.from.read(&mut *byte) {
                Ok(1) if *byte == [b'\n'] => return Ok(line),
                Ok(1) => line.extend(*byte),
                Ok(_) => return Err(Unanswered::Broken(ErrorKind::UnexpectedEof.into())),
                Err(e) => return Err(Unanswered::Broken(e)),
            }
        }
        Err(garbage())
    }

    /// Until there is something to read, or the question is taken back.
    fn wait(&self) -> Result<(), Unanswered> {
        let Some(canceller) = self.canceller else { return Ok(()) };
        let mut fds = [PollFd::new(&self.from, PollFlags::IN), PollFd::new(&canceller, PollFlags::IN)];
        while poll(&mut fds, None).is_err() {}
        let [_, canceller] = &fds;
        if canceller.revents().is_empty() { Ok(()) } else { Err(Unanswered::TakenBack) }
    }
}

impl Drop for Pinentry<'_> {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

fn garbage() -> Unanswered {
    Unanswered::Broken(ErrorKind::InvalidData.into())
}

/// What is left of `ERR number text`.
fn refusal(rest: &[u8]) -> Result<Answer, Unanswered> {
    let text = String::from_utf8_lossy(rest);
    let number = text.split_whitespace().nth(1).and_then(|number| number.parse::<u32>().ok());
    match number.map(|number| number & 0xffff) {
        Some(TIMEOUT) => Err(Unanswered::TimedOut),
        Some(NOT_CONFIRMED) => Ok(Answer::NotConfirmed),
        _ => Err(Unanswered::No),
    }
}

/// Percent-encoding of what would end a line or begin an escape.
fn escape(text: &str) -> String {
    text.replace('%', "%25").replace('\n', "%0A").replace('\r', "%0D")
}

fn unescape(escaped: &[u8], into: &mut Vec<u8>) {
    let hex = |byte: &u8| char::from(*byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut rest = escaped;
    while let [first, others @ ..] = rest {
        rest = others;
        match (first, others) {
            (b'%', [high, low, after @ ..]) if hex(high).is_some() && hex(low).is_some() => {
                into.extend(hex(high).zip(hex(low)).map(|(high, low)| high * 16 + low));
                rest = after;
            }
            _ => into.push(*first),
        }
    }
}
