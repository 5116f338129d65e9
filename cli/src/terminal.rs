//! What is asked of the person, and how things are said.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufRead, BufReader, IsTerminal, Read, Write},
    time::Duration,
};

use jiff::{Timestamp, tz::TimeZone};
use rustix::termios::{self, LocalModes, OptionalActions, SpecialCodeIndex};
use vault_core::{TriesLeft, printable};
use zeroize::Zeroizing;

use crate::{
    failure::{Exit, Failure, Result},
    pinentry,
};

/// A line on a descriptor that is longer than this is no secret of ours.
const LONGEST_LINE: usize = 1024;

/// Where PINs come from.
pub(crate) enum PinSource {
    Terminal,
    Descriptor(File),
}

impl PinSource {
    pub(crate) fn new(fd: Option<u32>) -> Result<Self> {
        fd.map_or(Ok(Self::Terminal), |fd| open_fd(fd).map(Self::Descriptor))
    }

    pub(crate) fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal)
    }

    /// A line as it was typed, hidden. Where there is no terminal but a screen, pinentry asks for it and says what it is
    /// `about`.
    pub(crate) fn read(&mut self, prompt: &str, about: &str) -> Result<Zeroizing<String>> {
        match self {
            Self::Descriptor(file) => read_line(file, "the PIN"),
            Self::Terminal => match open_tty() {
                Ok(tty) => read_hidden(tty, prompt),
                Err(_) if pinentry::has_a_screen() => {
                    Ok(pinentry::pin(about, None, prompt.trim_end(), None)?)
                }
                Err(e) => Err(no_terminal(&e)),
            },
        }
    }
}

/// One line from a descriptor that the caller opened.
pub(crate) fn read_secret(fd: u32, what: &str) -> Result<Zeroizing<String>> {
    read_line(&mut open_fd(fd)?, what)
}

/// A copy of a descriptor of our own, where it stands. Opening /proc/self/fd/N would start a file anew and
/// refuse a socket.
fn open_fd(fd: u32) -> Result<File> {
    use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
    let number = i32::try_from(fd).map_err(|_| rustix::io::Errno::BADF);
    let copy = number.and_then(|number| {
        let this = pidfd_open(getpid(), PidfdFlags::empty())?;
        pidfd_getfd(&this, number, PidfdGetfdFlags::empty())
    });
    copy.map(File::from).map_err(|e| {
        Failure::new(Exit::Usage, format!("cannot read file descriptor {fd} ({e})"))
            .next("Open it for passhold, for example: --pin-fd 3 3<file")
    })
}

/// A line from the terminal, hidden before the prompt appears. Ctrl-C ends the line instead of this process,
/// so that the terminal is given back as it was.
fn read_hidden(mut tty: File, prompt: &str) -> Result<Zeroizing<String>> {
    const CTRL_C: u8 = 3;
    let before = termios::tcgetattr(&tty).map_err(|e| no_terminal(&e.into()))?;
    let mut hidden = before.clone();
    hidden.local_modes.remove(LocalModes::ECHO | LocalModes::ECHONL | LocalModes::ISIG);
    hidden.special_codes[SpecialCodeIndex::VEOL] = CTRL_C;
    termios::tcsetattr(&tty, OptionalActions::Flush, &hidden).map_err(|e| no_terminal(&e.into()))?;
    let line = write!(tty, "{prompt}")
        .map_err(|e| no_terminal(&e))
        .and_then(|()| read_line_until(&mut tty, "the PIN", CTRL_C));
    let restored = termios::tcsetattr(&tty, OptionalActions::Drain, &before);
    writeln!(tty).and(restored.map_err(io::Error::from)).map_err(|e| no_terminal(&e))?;
    line
}

fn no_terminal(error: &io::Error) -> Failure {
    Failure::new(Exit::NotConfirmed, format!("there is no terminal to ask for the PIN on ({error})"))
        .next("Run this in a terminal, or give the PIN on a file descriptor with --pin-fd N.")
}

fn open_tty() -> io::Result<File> {
    OpenOptions::new().read(true).write(true).open("/dev/tty")
}

fn read_line(file: &mut File, what: &str) -> Result<Zeroizing<String>> {
    // No line holds a newline, so this cancels nothing.
    read_line_until(file, what, b'\n')
}

/// Byte by byte, so that nothing of the next line is taken.
fn read_line_until(file: &mut File, what: &str, cancel: u8) -> Result<Zeroizing<String>> {
    let again = "Try again, one line of UTF-8.";
    let mut line = Zeroizing::new(Vec::with_capacity(LONGEST_LINE));
    let mut byte = Zeroizing::new([0_u8; 1]);
    loop {
        match file
            .read(byte.as_mut_slice())
            .map_err(|e| Failure::unexpected(format!("cannot read {what}"), e))?
        {
            0 if line.is_empty() => {
                return Err(Failure::new(Exit::NotConfirmed, format!("{what} was not given")).next(again));
            }
            // A helper that dies halfway must not have half of a PIN tried, or set.
            0 => {
                return Err(Failure::new(Exit::NotConfirmed, format!("{what} ended without a newline"))
                    .next("Nothing was done. Give the whole line."));
            }
            _ if *byte == [b'\n'] => break,
            _ if *byte == [cancel] => {
                return Err(Failure::new(Exit::NotConfirmed, "cancelled").next("Nothing was done."));
            }
            _ if line.len() == LONGEST_LINE => {
                return Err(Failure::new(Exit::Usage, format!("{what} is too long")).next(again));
            }
            _ => line.extend(*byte),
        }
    }
    let text = std::str::from_utf8(&line)
        .map_err(|_| Failure::new(Exit::Usage, format!("{what} is not UTF-8")).next(again))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Asks on the terminal, wherever standard input comes from, and returns the answer.
pub(crate) fn ask(question: &str) -> Result<String> {
    let no_terminal = |e: io::Error| {
        Failure::new(Exit::NotConfirmed, format!("there is no terminal to ask on ({e})"))
            .next("Run this in a terminal.")
    };
    let mut tty = open_tty().map_err(no_terminal)?;
    write!(tty, "{question}").map_err(no_terminal)?;
    let mut answer = String::new();
    BufReader::new(tty).read_line(&mut answer).map_err(no_terminal)?;
    Ok(answer.trim().to_owned())
}

/// Text that may be anybody's, in lines that stay lines: whoever took passholdd over, or wrote a file, does not take the
/// terminal over too.
pub(crate) fn plain(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

/// The columns of the terminal that standard output is; some have none that they know of.
pub(crate) fn width() -> Option<u16> {
    termios::tcgetwinsize(io::stdout()).ok().map(|size| size.ws_col).filter(|columns| *columns > 0)
}

/// Whether standard input is a person's keyboard, from which nobody types options.
pub(crate) fn stdin_is_a_terminal() -> bool {
    io::stdin().is_terminal()
}

pub(crate) fn tries(left: TriesLeft) -> String {
    match left {
        TriesLeft::ByTpm(0) => "no tries left".to_owned(),
        TriesLeft::ByTpm(1) => "1 try left, counted by the TPM".to_owned(),
        TriesLeft::ByTpm(n) => format!("{n} tries left, counted by the TPM"),
        TriesLeft::ByPasshold(n) => {
            format!("{n} tries left by Passhold's own count; this TPM shows its own only to its owner")
        }
    }
}

pub(crate) fn duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..120 => format!("{seconds} seconds"),
        120..7200 => format!("{} minutes", seconds.div_ceil(60)),
        _ => format!("{} hours", seconds.div_ceil(3600)),
    }
}

/// So many passkeys.
pub(crate) fn passkeys(count: usize) -> String {
    if count == 1 { "1 passkey".to_owned() } else { format!("{count} passkeys") }
}

/// How long ago a point in time is; both in seconds since 1970.
#[must_use]
pub fn ago(at: u64, now: u64) -> String {
    const UNITS: [(u64, &str); 5] =
        [(365 * 86_400, "year"), (30 * 86_400, "month"), (86_400, "day"), (3600, "hour"), (60, "minute")];
    let seconds = now.saturating_sub(at);
    let unit = UNITS.into_iter().find(|(length, _)| seconds >= *length);
    unit.map_or_else(
        || "just now".to_owned(),
        |(length, unit)| match seconds / length {
            1 => format!("1 {unit} ago"),
            count => format!("{count} {unit}s ago"),
        },
    )
}

/// A point in time, in seconds since 1970, as a person reads it.
#[must_use]
pub fn date(seconds: u64) -> String {
    let at = i64::try_from(seconds).ok().and_then(|s| Timestamp::from_second(s).ok());
    at.map_or_else(
        || "?".to_owned(),
        |at| at.to_zoned_datetime(TimeZone::system()).strftime("%Y-%m-%d %H:%M").to_string(),
    )
}
