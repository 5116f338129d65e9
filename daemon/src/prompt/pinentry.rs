//! `GnuPG`'s pinentry, by its protocol (Assuan: lines of text on standard input and output).

use std::{
    io::{self, Read, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use ctap::Declined;
use rustix::event::{PollFd, PollFlags, poll};
use vault_core::{TriesLeft, container::Account, pin::Pin, webauthn::UserPresent};
use zeroize::Zeroizing;

use super::texts;
use crate::worker::Signal;

/// How long a prompt waits for a person, in seconds.
const PATIENCE: &str = "SETTIMEOUT 60";

/// Assuan's longest line.
const LONGEST_LINE: usize = 1000;

/// The codes of libgpg-error that mean something here; the rest of the number tells who said so.
const TIMEOUT: u32 = 62;
const NOT_CONFIRMED: u32 = 114;

/// A running pinentry. Dropping it ends it, and the prompt with it.
struct Pinentry<'c> {
    child: Child,
    to: ChildStdin,
    from: ChildStdout,
    cancelled: &'c Signal,
}

/// How a command ended.
enum Answer {
    Ok(Zeroizing<Vec<u8>>),
    NotConfirmed,
}

pub(super) fn confirm(question: &str, cancelled: &Signal) -> Result<UserPresent, Declined> {
    let mut pinentry = Pinentry::start(question, cancelled)?;
    match pinentry.command("CONFIRM")? {
        Answer::Ok(_) => Ok(UserPresent::confirmed()),
        Answer::NotConfirmed => Err(Declined::No),
    }
}

/// One after the other: pinentry has no lists.
pub(super) fn choose(accounts: &[&Account], cancelled: &Signal) -> Result<(usize, UserPresent), Declined> {
    for (at, account) in accounts.iter().enumerate() {
        let mut pinentry = Pinentry::start(&texts::sign_in(account), cancelled)?;
        pinentry.command("SETNOTOK Another account")?;
        if let Answer::Ok(_) = pinentry.command("CONFIRM")? {
            return Ok((at, UserPresent::confirmed()));
        }
    }
    Err(Declined::No)
}

pub(super) fn pin(
    question: &str,
    tries: Option<TriesLeft>,
    cancelled: &Signal,
) -> Result<(Pin, UserPresent), Declined> {
    let mut pinentry = Pinentry::start(question, cancelled)?;
    if let Some(tries) = tries {
        pinentry.command(&format!("SETERROR {} tries left", tries.count()))?;
    }
    pinentry.command("SETPROMPT PIN:")?;
    let Answer::Ok(typed) = pinentry.command("GETPIN")? else { return Err(Declined::No) };
    let pin = std::str::from_utf8(&typed).ok().and_then(Pin::new).ok_or(Declined::No)?;
    Ok((pin, UserPresent::confirmed()))
}

impl<'c> Pinentry<'c> {
    fn start(question: &str, cancelled: &'c Signal) -> Result<Self, Declined> {
        let spawn = || -> io::Result<(Child, ChildStdin, ChildStdout)> {
            let mut child = Command::new("pinentry").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
            let (to, from) = (child.stdin.take(), child.stdout.take());
            to.zip(from).map(|(to, from)| (child, to, from)).ok_or_else(|| io::ErrorKind::BrokenPipe.into())
        };
        let (child, to, from) = spawn().map_err(|e| died(&e))?;
        let mut pinentry = Self { child, to, from, cancelled };
        pinentry.answer()?;
        if let Ok(terminal) = std::env::var("GPG_TTY") {
            pinentry.command(&format!("OPTION ttyname={terminal}"))?;
        }
        pinentry.command(PATIENCE)?;
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

    /// Until there is something to read, or the request is taken back.
    fn wait(&self) -> Result<(), Declined> {
        let mut fds = [PollFd::new(&self.from, PollFlags::IN), PollFd::new(self.cancelled, PollFlags::IN)];
        while poll(&mut fds, None).is_err() {}
        let [_, cancelled] = &fds;
        if cancelled.revents().is_empty() { Ok(()) } else { Err(Declined::Cancelled) }
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
