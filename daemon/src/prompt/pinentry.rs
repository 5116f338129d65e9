//! `GnuPG`'s pinentry, by its protocol (Assuan: lines of text on standard input and output).

use std::{
    env,
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use ctap::Declined;
use rustix::event::{PollFd, PollFlags, poll};
use zeroize::Zeroizing;

/// How long a question waits for a person.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);

/// The environment variable that names another pinentry.
pub(super) const PROGRAM: &str = "PASSHOLD_PINENTRY";

/// Assuan's longest line.
const LONGEST_LINE: usize = 1000;

/// The codes of libgpg-error that mean something here; the rest of the number tells who said so.
const TIMEOUT: u32 = 62;
const NOT_CONFIRMED: u32 = 114;

/// A running pinentry. Dropping it ends it, and the prompt with it.
struct Pinentry<'d> {
    child: Child,
    to: ChildStdin,
    from: ChildStdout,
    /// It says something only to take the question back, or by going away.
    daemon: &'d UnixStream,
}

/// How a command ended.
enum Answer {
    Ok(Zeroizing<Vec<u8>>),
    NotConfirmed,
}

pub(super) fn confirm(question: &str, daemon: &UnixStream) -> Result<(), Declined> {
    let mut pinentry = Pinentry::start(question, PATIENCE, daemon)?;
    match pinentry.command("CONFIRM")? {
        Answer::Ok(_) => Ok(()),
        Answer::NotConfirmed => Err(Declined::No),
    }
}

/// One after the other: pinentry has no lists.
pub(super) fn choose(questions: &[String], daemon: &UnixStream) -> Result<usize, Declined> {
    let started = Instant::now();
    for (at, question) in questions.iter().enumerate() {
        let mut pinentry = Pinentry::start(question, PATIENCE.saturating_sub(started.elapsed()), daemon)?;
        pinentry.command("SETNOTOK Another account")?;
        if let Answer::Ok(_) = pinentry.command("CONFIRM")? {
            return Ok(at);
        }
    }
    Err(Declined::No)
}

pub(super) fn pin(
    question: &str,
    tries_left: Option<u32>,
    daemon: &UnixStream,
) -> Result<Zeroizing<String>, Declined> {
    let mut pinentry = Pinentry::start(question, PATIENCE, daemon)?;
    if let Some(tries) = tries_left {
        pinentry.command(&format!("SETERROR {tries} tries left"))?;
    }
    pinentry.command("SETPROMPT PIN:")?;
    let Answer::Ok(typed) = pinentry.command("GETPIN")? else { return Err(Declined::No) };
    std::str::from_utf8(&typed).map(|pin| Zeroizing::new(pin.to_owned())).map_err(|_| Declined::No)
}

impl<'d> Pinentry<'d> {
    fn start(question: &str, patience: Duration, daemon: &'d UnixStream) -> Result<Self, Declined> {
        // For pinentry, 0 is for ever.
        if patience.as_secs() == 0 {
            return Err(Declined::TimedOut);
        }
        let spawn = || -> io::Result<(Child, ChildStdin, ChildStdout)> {
            let program = env::var_os(PROGRAM).unwrap_or_else(|| "pinentry".into());
            let mut child = Command::new(program).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let (to, from) = (child.stdin.take(), child.stdout.take());
            to.zip(from).map(|(to, from)| (child, to, from)).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
        };
        let (child, to, from) = spawn().map_err(|e| died(&e))?;
        let mut pinentry = Self { child, to, from, daemon };
        pinentry.answer()?;
        if let Ok(terminal) = env::var("GPG_TTY") {
            pinentry.command(&format!("OPTION ttyname={terminal}"))?;
        }
        pinentry.command(&format!("SETTIMEOUT {}", patience.as_secs()))?;
        pinentry.command("SETTITLE Passhold")?;
        pinentry.command(&format!("SETDESC {}", escape(question)))?;
        Ok(pinentry)
    }

    fn command(&mut self, line: &str) -> Result<Answer, Declined> {
        writeln!(self.to, "{line}").map_err(|e| died(&e))?;
        self.answer()
    }

    /// Reads up to the line that ends an answer.
    fn answer(&mut self) -> Result<Answer, Declined> {
        let mut data = Zeroizing::new(Vec::with_capacity(LONGEST_LINE));
        loop {
            let line = self.line()?;
            match line.split_first_chunk::<2>() {
                Some((b"OK", _)) => return Ok(Answer::Ok(data)),
                Some((b"D ", escaped)) => unescape(escaped, &mut data),
                Some((b"ER", rest)) => return refusal(rest),
                // Status lines and remarks.
                _ => {}
            }
        }
    }

    fn line(&mut self) -> Result<Zeroizing<Vec<u8>>, Declined> {
        let mut line = Zeroizing::new(Vec::with_capacity(LONGEST_LINE));
        let mut byte = Zeroizing::new([0]);
        while line.len() < LONGEST_LINE {
            self.wait()?;
            match self.from.read(&mut *byte) {
                Ok(1) if *byte == [b'\n'] => return Ok(line),
                Ok(1) => line.extend(*byte),
                Ok(_) => return Err(died(&io::ErrorKind::UnexpectedEof.into())),
                Err(e) => return Err(died(&e)),
            }
        }
        Err(died(&io::ErrorKind::InvalidData.into()))
    }

    /// Until there is something to read, or the question is taken back.
    fn wait(&self) -> Result<(), Declined> {
        let mut fds = [PollFd::new(&self.from, PollFlags::IN), PollFd::new(self.daemon, PollFlags::IN)];
        while poll(&mut fds, None).is_err() {}
        let [_, daemon] = &fds;
        if daemon.revents().is_empty() { Ok(()) } else { Err(Declined::Cancelled) }
    }
}

impl Drop for Pinentry<'_> {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A prompt that cannot be shown, or dies, is a refusal.
fn died(error: &io::Error) -> Declined {
    crate::report(&io::Error::new(error.kind(), format!("pinentry does not answer ({error})")));
    Declined::No
}

/// What is left of `ERR number text`.
fn refusal(rest: &[u8]) -> Result<Answer, Declined> {
    let text = String::from_utf8_lossy(rest);
    let number = text.split_whitespace().nth(1).and_then(|number| number.parse::<u32>().ok());
    match number.map(|number| number & 0xffff) {
        Some(TIMEOUT) => Err(Declined::TimedOut),
        Some(NOT_CONFIRMED) => Ok(Answer::NotConfirmed),
        _ => Err(Declined::No),
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
