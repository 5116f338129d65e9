//! The daemon's end of the line to the process that asks. Whatever comes from there but an answer to the question asked is a refusal.

use std::{
    io::{self, ErrorKind, Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use ctap::Declined;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fd::AsFd,
    io::Errno,
};
use zeroize::{Zeroize, Zeroizing};

use passhold::frame::{self, LENGTH};

use super::wire::{self, Answer, LONGEST_ANSWER, LONGEST_QUESTION, Numbered, Question};

pub(crate) struct Line {
    /// None once something came that was no answer: nothing that follows could be told apart any more.
    socket: Option<UnixStream>,
    /// What has come of the next answer. It never grows beyond what it was made for, so no copy of a PIN stays behind.
    received: Zeroizing<Vec<u8>>,
    last: u64,
    patience: Duration,
}

/// Why there is no answer.
enum End {
    TakenBack,
    Late,
    Broken(io::Error),
}

impl Line {
    /// `patience` is how long an answer may take.
    pub(super) fn new(socket: UnixStream, patience: Duration) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        let received = Zeroizing::new(Vec::with_capacity(LENGTH + LONGEST_ANSWER));
        Ok(Self { socket: Some(socket), received, last: 0, patience })
    }

    /// Asks, and waits until there is an answer that `fits`, or `cancelled` is raised.
    pub(super) fn ask<T>(
        &mut self,
        question: Question,
        cancelled: &impl AsFd,
        fits: impl FnOnce(&Answer) -> Option<T>,
    ) -> Result<T, Declined> {
        let Some(socket) = self.socket.take() else { return Err(Declined::No) };
        self.last += 1;
        let question = match wire::encode(&Numbered { number: self.last, body: question }) {
            Ok(question) if question.len() <= LENGTH + LONGEST_QUESTION => question,
            // More accounts than anybody would look through.
            _ => {
                self.socket = Some(socket);
                return Err(Declined::No);
            }
        };
        let end = match self.exchange(&socket, &question, cancelled) {
            Ok(answer) => match (refusal(&answer), fits(&answer)) {
                (Some(declined), _) => {
                    self.socket = Some(socket);
                    return Err(declined);
                }
                (None, Some(answer)) => {
                    self.socket = Some(socket);
                    return Ok(answer);
                }
                (None, None) => End::Broken(ErrorKind::InvalidData.into()),
            },
            Err(end) => end,
        };
        let (declined, taken_back) = match end {
            End::TakenBack => (Declined::Cancelled, self.take_back(&socket)),
            End::Late => (Declined::TimedOut, self.take_back(&socket)),
            End::Broken(e) => (Declined::No, Err(e)),
        };
        match taken_back {
            Ok(()) => self.socket = Some(socket),
            Err(e) => crate::report(&broken(&e)),
        }
        Err(declined)
    }

    fn exchange(
        &mut self,
        socket: &UnixStream,
        question: &[u8],
        cancelled: &impl AsFd,
    ) -> Result<Answer, End> {
        let until = Instant::now() + self.patience;
        self.receive(socket).map_err(End::Broken)?;
        while let Some(answer) = self.next_answer().map_err(End::Broken)? {
            // Nothing has been asked yet by this number.
            if answer.number >= self.last {
                return Err(End::Broken(ErrorKind::InvalidData.into()));
            }
        }
        // A process that reads nothing holds up nobody for longer than one that answers nothing.
        let mut rest = question;
        while !rest.is_empty() {
            match (&*socket).write(rest) {
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {
                    // Half a question cannot be taken back.
                    wait(socket, PollFlags::OUT, cancelled, until).map_err(|_| broken_off())?;
                }
                Err(e) => return Err(End::Broken(e)),
            }
        }
        loop {
            while let Some(answer) = self.next_answer().map_err(End::Broken)? {
                // One that bears an older number answers what was taken back.
                if answer.number == self.last {
                    return Ok(answer.body);
                }
                if answer.number > self.last {
                    return Err(End::Broken(ErrorKind::InvalidData.into()));
                }
            }
            wait(socket, PollFlags::IN, cancelled, until)?;
            self.receive(socket).map_err(End::Broken)?;
        }
    }

    fn take_back(&self, mut socket: &UnixStream) -> io::Result<()> {
        let cancel = wire::encode(&Numbered { number: self.last, body: Question::Cancel })?;
        if socket.write(&cancel)? == cancel.len() { Ok(()) } else { Err(ErrorKind::WriteZero.into()) }
    }

    fn receive(&mut self, mut socket: &UnixStream) -> io::Result<()> {
        let mut some = Zeroizing::new([0; LENGTH + LONGEST_ANSWER]);
        let room = self.received.capacity() - self.received.len();
        let room = some.get_mut(..room.min(LENGTH + LONGEST_ANSWER)).unwrap_or_default();
        match socket.read(room) {
            Ok(0) => Err(ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                self.received.extend(some.iter().take(read));
                Ok(())
            }
            Err(e) if e.kind() == ErrorKind::WouldBlock => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// An answer that has come whole.
    fn next_answer(&mut self) -> io::Result<Option<Numbered<Answer>>> {
        let Some((header, rest)) = self.received.split_first_chunk() else { return Ok(None) };
        let length = frame::length(*header, LONGEST_ANSWER)?;
        let Some((answer, rest)) = rest.split_at_checked(length) else { return Ok(None) };
        let (answer, rest) = (frame::decode(answer)?, Zeroizing::new(rest.to_vec()));
        self.received.zeroize();
        self.received.extend(rest.iter());
        Ok(Some(answer))
    }
}

fn refusal(answer: &Answer) -> Option<Declined> {
    match answer {
        Answer::Confirmed | Answer::Chosen(_) | Answer::Pin(_) => None,
        Answer::No => Some(Declined::No),
        Answer::TimedOut => Some(Declined::TimedOut),
        // Nobody but us takes back, and then does not wait for an answer.
        Answer::TakenBack => Some(Declined::Cancelled),
    }
}

/// Until the socket is ready.
fn wait(socket: &UnixStream, ready: PollFlags, cancelled: &impl AsFd, until: Instant) -> Result<(), End> {
    let mut fds = [PollFd::new(socket, ready), PollFd::new(cancelled, PollFlags::IN)];
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| End::Late)?;
        match poll(&mut fds, Some(&left)) {
            Ok(0) => return Err(End::Late),
            Ok(_) => break,
            Err(Errno::INTR) => {}
            Err(e) => return Err(End::Broken(e.into())),
        }
    }
    let [_, cancelled] = &fds;
    if cancelled.revents().is_empty() { Ok(()) } else { Err(End::TakenBack) }
}

fn broken_off() -> End {
    End::Broken(ErrorKind::TimedOut.into())
}

fn broken(error: &io::Error) -> io::Error {
    let text = format!(
        "the process that asks cannot be relied on ({error}); everything is refused until passholdd is restarted"
    );
    io::Error::new(error.kind(), text)
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;
    use crate::worker::Signal;

    const SOON: Duration = Duration::from_millis(100);
    const LONG: Duration = Duration::from_secs(60);

    fn line(patience: Duration) -> (Line, UnixStream) {
        let (ours, its) = UnixStream::pair().unwrap();
        (Line::new(ours, patience).unwrap(), its)
    }

    fn confirm(line: &mut Line) -> Result<(), Declined> {
        confirm_unless(line, &Signal::new().unwrap())
    }

    fn confirm_unless(line: &mut Line, cancelled: &Signal) -> Result<(), Declined> {
        let question = Question::Confirm { text: "Create a passkey?".to_owned() };
        line.ask(question, cancelled, |answer| matches!(answer, Answer::Confirmed).then_some(()))
    }

    fn answer(number: u64, body: Answer) -> Vec<u8> {
        wire::encode(&Numbered { number, body }).unwrap().to_vec()
    }

    /// What a confirmation and the one after it come to if `said` is answered to the first, and then nothing more.
    fn outcomes(said: &[u8]) -> [Result<(), Declined>; 2] {
        let (mut line, mut process) = line(LONG);
        thread::scope(|scope| {
            scope.spawn(move || {
                wire::read_question(&mut process).unwrap();
                process.write_all(said).unwrap();
            });
            [confirm(&mut line), confirm(&mut line)]
        })
    }

    #[test]
    fn what_is_no_answer_is_a_refusal_now_and_from_then_on() {
        let mut with_more = answer(1, Answer::Confirmed);
        with_more.push(0);
        with_more[LENGTH - 1] += 1;
        let half = &answer(1, Answer::Confirmed)[..8];
        let nested = [&[0, 0, 1, 0][..], &[0x81; 256]].concat();
        let boundless = [0, 0, 0, 12, 0xa1, 0x66, b'n', b'u', b'm', b'b', b'e', b'r', 0x7b, 0xff, 0xff, 0xff];
        for (case, said) in [
            ("it ends", &[][..]),
            ("half a length", &[0, 0]),
            ("half an answer", half),
            ("an empty one", &[0; 4]),
            ("no CBOR", &[0, 0, 0, 2, 0xff, 0xff]),
            ("text", b"OK\nOK\nOK\n"),
            ("arrays in arrays", &nested),
            ("a length without end", &boundless),
            ("too long", &[0xff; 4096]),
            ("more than an answer", &with_more),
            ("another question's answer", &answer(1, Answer::Chosen(0))),
            ("a PIN nobody asked for", &answer(1, Answer::Pin("271828".to_owned().into()))),
            ("the answer of a later question", &answer(2, Answer::Confirmed)),
            ("the answer of an earlier question", &answer(0, Answer::Confirmed)),
        ] {
            assert_eq!(outcomes(said), [Err(Declined::No), Err(Declined::No)], "{case}");
        }
    }

    #[test]
    fn an_answer_ahead_of_its_question_is_none() {
        let both = [answer(1, Answer::Confirmed), answer(2, Answer::Confirmed)].concat();
        assert_eq!(outcomes(&both), [Ok(()), Err(Declined::No)]);
    }

    #[test]
    fn an_answer_in_pieces_is_one() {
        let (mut line, mut process) = line(LONG);
        let confirmed = thread::scope(|scope| {
            scope.spawn(move || {
                wire::read_question(&mut process).unwrap();
                for byte in answer(1, Answer::Confirmed) {
                    process.write_all(&[byte]).unwrap();
                    thread::sleep(Duration::from_millis(1));
                }
            });
            confirm(&mut line)
        });
        assert_eq!(confirmed, Ok(()));
    }

    #[test]
    fn how_it_was_refused_is_told_and_the_line_stays() {
        let (mut line, mut process) = line(LONG);
        let refusals = [
            (Answer::No, Declined::No),
            (Answer::TimedOut, Declined::TimedOut),
            (Answer::TakenBack, Declined::Cancelled),
        ];
        for (number, (said, declined)) in (1..).zip(refusals) {
            let outcome = thread::scope(|scope| {
                let process = &mut process;
                scope.spawn(move || {
                    wire::read_question(process).unwrap();
                    process.write_all(&answer(number, said)).unwrap();
                });
                confirm(&mut line)
            });
            assert_eq!(outcome, Err(declined));
        }
    }

    #[test]
    fn an_answer_that_comes_too_late_consents_to_nothing() {
        let cancelled = Signal::new().unwrap();
        cancelled.raise();
        for (patience, cancelled, declined) in
            [(LONG, cancelled, Declined::Cancelled), (SOON, Signal::new().unwrap(), Declined::TimedOut)]
        {
            let (mut line, mut process) = line(patience);
            assert_eq!(confirm_unless(&mut line, &cancelled), Err(declined));
            let asked = [(); 2].map(|()| wire::read_question(&mut process).unwrap().unwrap());
            assert!(matches!(
                asked,
                [
                    Numbered { number: 1, body: Question::Confirm { .. } },
                    Numbered { number: 1, body: Question::Cancel }
                ]
            ));
            // Half of it before the next question, half of it after.
            let late = answer(1, Answer::Confirmed);
            process.write_all(&late[..7]).unwrap();
            let outcome = thread::scope(|scope| {
                scope.spawn(move || {
                    wire::read_question(&mut process).unwrap();
                    process.write_all(&[&late[7..], &answer(2, Answer::No)].concat()).unwrap();
                });
                confirm(&mut line)
            });
            assert_eq!(outcome, Err(Declined::No));
        }
    }

    #[test]
    fn a_process_that_reads_nothing_holds_up_nobody() {
        let (mut line, _process) = line(SOON);
        let texts = vec!["Sign in?".repeat(10); 10_000];
        let never = Signal::new().unwrap();
        assert_eq!(line.ask(Question::Choose { texts }, &never, |_| Some(())), Err(Declined::No));
        assert_eq!(confirm(&mut line), Err(Declined::No));
    }

    #[test]
    fn a_question_that_is_too_long_is_not_asked_and_the_next_one_is() {
        let (mut line, mut process) = line(LONG);
        let texts = vec!["Sign in?".repeat(10); 100_000];
        let never = Signal::new().unwrap();
        assert_eq!(line.ask(Question::Choose { texts }, &never, |_| Some(())), Err(Declined::No));
        let outcome = thread::scope(|scope| {
            scope.spawn(move || {
                wire::read_question(&mut process).unwrap();
                process.write_all(&answer(2, Answer::Confirmed)).unwrap();
            });
            confirm(&mut line)
        });
        assert_eq!(outcome, Ok(()));
    }
}
