//! Runs commands on a thread of its own, so that the screen lives while the TPM works. What a command asks of its person comes
//! to the screen as an [`Event`] and waits for an [`Answer`].

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    sync::mpsc::{Receiver, Sender, TryRecvError, channel},
    thread,
};

use passhold::{
    Command, Console, DoctorArgs, Entry, Exit, Failure, Global, Local, Pin, Recovery, Result, Runner,
    Standing,
};
use vault_core::container::AccountId;
use zeroize::Zeroizing;

use super::screen::lost;

/// A command, as the screen wants it run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Job {
    Look,
    Doctor,
    SetUp,
    Rename(AccountId, String),
    Delete(AccountId),
    Undelete(AccountId),
    EmptyBin,
    ChangePin,
    ResetPin,
    RenewCode,
}

/// What a command wants of the screen.
#[derive(Debug)]
pub(super) enum Event {
    Noted(String),
    Asked { prompt: String, hidden: bool },
    Ended(Job, Outcome),
}

/// How a command ended.
#[derive(Debug, Default)]
pub(super) struct Outcome {
    pub(super) code: u8,
    /// A recovery code may be in it.
    pub(super) printed: Zeroizing<String>,
    pub(super) refused: String,
    /// What the screen shows.
    pub(super) overview: Option<(Standing, Vec<Entry>)>,
}

/// None where the person does not want to.
pub(super) type Answer = Option<Zeroizing<String>>;

/// The thread, as the screen sees it. A command that asks something when this is gone ends there, with nothing done.
pub(super) struct Worker {
    jobs: Sender<Job>,
    answers: Sender<Answer>,
    events: Receiver<Event>,
    /// Readable when there are events.
    bell: UnixStream,
}

impl Job {
    /// Whether it changes nothing.
    pub(super) fn reads(&self) -> bool {
        matches!(self, Self::Look | Self::Doctor)
    }

    fn command(&self) -> Command {
        match self {
            Self::Look => Command::Tui,
            Self::Doctor => Command::Doctor(DoctorArgs::default()),
            Self::SetUp => Command::Setup { no_recovery_code: false },
            Self::Rename(id, name) => Command::Rename { id: *id, name: name.clone() },
            Self::Delete(id) => Command::Delete { id: *id },
            Self::Undelete(id) => Command::Undelete { id: *id },
            Self::EmptyBin => Command::EmptyBin,
            Self::ChangePin => Command::Pin(Pin::Change),
            Self::ResetPin => Command::Pin(Pin::Reset),
            Self::RenewCode => Command::Recovery(Recovery::Renew),
        }
    }
}

impl Worker {
    pub(super) fn start(global: Global) -> Result<Self> {
        let local = Local::new(&global)?;
        let as_json = Runner::new(Global { json: true, ..global.clone() })?;
        let in_words = Runner::new(global)?;
        let (jobs, todo) = channel::<Job>();
        let (answers, answered) = channel();
        let (told, events) = channel();
        let (bell, ring) = UnixStream::pair().map_err(lost)?;
        bell.set_nonblocking(true).map_err(lost)?;
        let mut desk = Desk { local, told, ring, answered, outcome: Outcome::default() };
        let work = move || {
            for job in todo {
                let outcome =
                    if job == Job::Doctor { desk.run(&as_json, &job) } else { desk.run(&in_words, &job) };
                if desk.tell(Event::Ended(job, outcome)).is_none() {
                    break;
                }
            }
        };
        thread::Builder::new().name("commands".to_owned()).spawn(work).map_err(lost)?;
        Ok(Self { jobs, answers, events, bell })
    }

    pub(super) fn run(&self, job: Job) -> Result<()> {
        self.jobs.send(job).map_err(died)
    }

    pub(super) fn answer(&self, answer: Answer) -> Result<()> {
        self.answers.send(answer).map_err(died)
    }

    pub(super) fn bell(&self) -> &UnixStream {
        &self.bell
    }

    /// The next event, once the bell has rung.
    pub(super) fn event(&mut self) -> Result<Option<Event>> {
        // However often it was rung: all events are taken.
        let mut rung = [0; 64];
        while matches!(self.bell.read(&mut rung), Ok(1..)) {}
        match self.events.try_recv() {
            Ok(event) => Ok(Some(event)),
            Err(TryRecvError::Empty) => Ok(None),
            Err(e @ TryRecvError::Disconnected) => Err(died(e)),
        }
    }
}

fn died(error: impl std::error::Error + Send + Sync + 'static) -> Failure {
    Failure::unexpected("the thread that runs commands is gone", error)
}

/// The console of a command whose person sits before the screen.
struct Desk {
    /// What was said on the command line of descriptors.
    local: Local,
    told: Sender<Event>,
    ring: UnixStream,
    answered: Receiver<Answer>,
    outcome: Outcome,
}

impl Desk {
    fn run(&mut self, runner: &Runner, job: &Job) -> Outcome {
        match runner.run(job.command(), self) {
            Ok(code) => self.outcome.code = code,
            Err(failure) => (self.outcome.code, self.outcome.refused) = failure.render(false),
        }
        std::mem::take(&mut self.outcome)
    }

    /// None where the screen is gone.
    fn tell(&mut self, event: Event) -> Option<()> {
        self.told.send(event).ok()?;
        self.ring.write_all(&[0]).ok();
        Some(())
    }

    fn question(&mut self, prompt: &str, hidden: bool) -> Result<Zeroizing<String>> {
        let cancelled = || Failure::new(Exit::NotConfirmed, "cancelled").next("Nothing was done.");
        let prompt = prompt.to_owned();
        self.tell(Event::Asked { prompt, hidden }).ok_or_else(cancelled)?;
        self.answered.recv().ok().flatten().ok_or_else(cancelled)
    }
}

impl Console for Desk {
    fn note(&mut self, text: &str) {
        // That nobody hears it any more, the next question finds out.
        self.tell(Event::Noted(text.to_owned()));
    }

    fn print(&mut self, text: &str) -> Result<()> {
        let before = std::mem::take(&mut self.outcome.printed);
        let both = if before.is_empty() { text.to_owned() } else { format!("{}\n{text}", *before) };
        self.outcome.printed = Zeroizing::new(both);
        Ok(())
    }

    fn overview(&mut self, standing: Standing, passkeys: Vec<Entry>) -> Result<()> {
        self.outcome.overview = Some((standing, passkeys));
        Ok(())
    }

    fn refused(&mut self, text: &str) {
        text.clone_into(&mut self.outcome.refused);
    }

    /// What is printed here is wrapped when it is shown.
    fn width(&self) -> Option<u16> {
        None
    }

    fn ask(&mut self, question: &str) -> Result<String> {
        self.question(question, false).map(|line| line.trim().to_owned())
    }

    fn pin(&mut self, prompt: &str) -> Result<Zeroizing<String>> {
        self.question(prompt, true)
    }

    fn pin_is_typed(&self) -> bool {
        true
    }

    fn gives_owner_auth(&self) -> bool {
        self.local.gives_owner_auth()
    }

    fn owner_auth(&mut self) -> Result<Option<Zeroizing<String>>> {
        self.local.owner_auth()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use clap::Parser;
    use passhold::Args;
    use vault_core::{TriesLeft, keystore::TpmKind};

    use super::*;

    #[test]
    fn only_a_screen_shows_all_at_once() {
        let mut local = Local::new(&Args::parse_from(["passhold", "tui"]).global).unwrap();
        let standing = Standing { tries: TriesLeft::ByTpm(8), kind: TpmKind::Software, model: String::new() };
        let text = local.overview(standing, Vec::new()).unwrap_err().render(false).1;
        assert!(text.starts_with("passhold: tui takes a terminal of its own\n"), "{text}");
    }

    fn desk() -> (Desk, Receiver<Event>, Sender<Answer>) {
        let global = Args::parse_from(["passhold", "tui"]).global;
        let ((told, events), (answers, answered)) = (channel(), channel());
        let (ring, _) = UnixStream::pair().unwrap();
        let local = Local::new(&global).unwrap();
        (Desk { local, told, ring, answered, outcome: Outcome::default() }, events, answers)
    }

    #[test]
    fn a_question_whose_screen_is_gone_is_a_refusal() {
        let (mut desk, events, answers) = desk();
        answers.send(Some("271828".to_owned().into())).unwrap();
        assert_eq!(desk.pin("PIN: ").unwrap().as_str(), "271828");
        answers.send(None).unwrap();
        assert_eq!(desk.pin("PIN: ").unwrap_err().render(false).0, Exit::NotConfirmed.code());
        drop(answers);
        assert_eq!(desk.pin("PIN: ").unwrap_err().render(false).0, Exit::NotConfirmed.code());
        drop(events);
        assert_eq!(desk.ask("?").unwrap_err().render(false).0, Exit::NotConfirmed.code());
    }

    #[test]
    fn there_are_no_files_behind_a_screen() {
        let (mut desk, ..) = desk();
        let refusals = [
            desk.input(Path::new("-")).map(drop),
            desk.vault_part(None).map(drop),
            desk.vault_is_taken(),
            desk.plan(Path::new("/dev/null"), &[], false),
            desk.gone(Path::new("/dev/null"), "", &[]),
        ];
        for refused in refusals {
            let text = refused.unwrap_err().render(false).1;
            assert!(text.starts_with("passhold: a file is wanted where there are none\n"), "{text}");
        }
    }
}
