//! The thread that answers requests: the TPM takes its time, and so do people.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, Ordering},
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use ctap::{
    Ask, Authenticator, Declined, Env, Person, Vaults,
    hid::{Transaction, Waiting},
};
use getrandom::{SysRng, rand_core::UnwrapErr};
use rustix::{
    event::{EventfdFlags, eventfd},
    fd::{AsFd, BorrowedFd, OwnedFd},
};
use vault_core::{
    TriesLeft,
    container::Account,
    pin::{Pin, PinPolicy},
    webauthn::UserPresent,
};

use crate::{
    failure::{Failure, Result},
    prompt::Prompt,
    vaults::DirVault,
};

/// How long a vault whose PIN was proven is kept ready for the next request.
const READY: Duration = Duration::from_secs(2);

/// How long others then have to get hold of it: a passhold that waits looks every 50 ms.
const TURN: Duration = Duration::from_millis(100);

/// Something that another thread can wait for.
#[derive(Clone)]
pub(crate) struct Signal(Arc<OwnedFd>);

/// A request, and the way to take it back.
struct Job {
    transaction: Transaction,
    request: Vec<u8>,
    cancelled: Signal,
}

/// What the worker is given.
enum Task {
    Answer(Job),
    /// Somebody wants to see which authenticator this is.
    Wink,
    /// The screen is locked, or the machine goes to sleep.
    Lock,
    /// There will be no more. Lockers may outlive the worker.
    End,
}

/// A way to have every proof of the PIN forgotten.
#[derive(Clone)]
pub(crate) struct Locker(Sender<Task>);

/// What the worker tells.
pub(crate) enum Told {
    Reply(Transaction, Vec<u8>),
    Waits(Transaction, Waiting),
}

/// The other threads' end of it.
pub(crate) struct Worker {
    tasks: Sender<Task>,
    /// Whether it will wink already.
    winks: Arc<AtomicBool>,
    pub(crate) told: Receiver<Told>,
    /// Raised when there is something in `told`.
    pub(crate) news: Signal,
    pub(crate) started: Instant,
    thread: JoinHandle<()>,
}

/// The worker's own end.
struct Desk {
    told: Sender<Told>,
    winks: Arc<AtomicBool>,
    news: Signal,
}

/// The person, for one request.
struct Asked<'a> {
    prompt: &'a mut Prompt,
    desk: &'a Desk,
    job: &'a Job,
}

impl Signal {
    pub(crate) fn new() -> Result<Self> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
        Ok(Self(Arc::new(fd.map_err(|e| Failure::Thread(e.into()))?)))
    }

    pub(crate) fn raise(&self) {
        // It fails only where it is raised already.
        rustix::io::write(&*self.0, &1_u64.to_ne_bytes()).ok();
    }

    pub(crate) fn lower(&self) {
        rustix::io::read(&*self.0, &mut [0; 8]).ok();
    }
}

impl AsFd for Signal {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Worker {
    /// `wrong_pins` is how many there were in a row, which outlives the device.
    pub(crate) fn start(
        vaults: DirVault,
        prompt: Prompt,
        policy: PinPolicy,
        wrong_pins: Arc<AtomicU8>,
    ) -> Result<Self> {
        let (tasks, todo) = channel();
        let (tell, told) = channel();
        let (news, started) = (Signal::new()?, Instant::now());
        let winks = Arc::default();
        let desk = Desk { told: tell, winks: Arc::clone(&winks), news: news.clone() };
        let thread = thread::Builder::new()
            .name("authenticator".to_owned())
            .spawn(move || work(vaults, prompt, policy, &wrong_pins, &todo, &desk, started))
            .map_err(Failure::Thread)?;
        Ok(Self { tasks, winks, told, news, started, thread })
    }

    /// Waits for the request under way, so that nothing is left half done, or loaded in the TPM.
    pub(crate) fn end(self) {
        self.tasks.send(Task::End).ok();
        // A thread that panicked has said so itself.
        self.thread.join().ok();
    }

    /// Once the request under way is answered.
    pub(crate) fn wink(&self) {
        // However often it is asked for.
        if !self.winks.swap(true, Ordering::Relaxed) {
            self.tasks.send(Task::Wink).ok();
        }
    }

    pub(crate) fn locker(&self) -> Locker {
        Locker(self.tasks.clone())
    }

    /// Has a request answered. What is returned takes it back when it is raised.
    pub(crate) fn answer(&self, transaction: Transaction, request: Vec<u8>) -> Result<Signal> {
        let cancelled = Signal::new()?;
        let job = Job { transaction, request, cancelled: cancelled.clone() };
        let gone = |_| Failure::Thread(std::io::ErrorKind::BrokenPipe.into());
        self.tasks.send(Task::Answer(job)).map(|()| cancelled).map_err(gone)
    }
}

fn work(
    mut vaults: DirVault,
    mut prompt: Prompt,
    policy: PinPolicy,
    wrong_pins: &AtomicU8,
    todo: &Receiver<Task>,
    desk: &Desk,
    started: Instant,
) {
    let mut rng = UnwrapErr(SysRng);
    let mut authenticator = Authenticator::new(policy, &mut rng).after(wrong_pins.load(Ordering::Relaxed));
    let mut ready_until = None;
    loop {
        let deadline = authenticator.deadline().into_iter().chain(ready_until).min();
        let idle = deadline.map(|at| at.saturating_sub(started.elapsed()));
        let task = match idle {
            None => todo.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(idle) => todo.recv_timeout(idle),
        };
        let job = match task {
            Ok(Task::Answer(job)) => job,
            Ok(Task::Wink) => {
                desk.winks.store(false, Ordering::Relaxed);
                if let Ok(never) = Signal::new() {
                    prompt.wink(&never);
                }
                continue;
            }
            Ok(Task::Lock) => {
                authenticator.lock();
                vaults.release();
                ready_until = None;
                continue;
            }
            Err(RecvTimeoutError::Timeout) => {
                let now = started.elapsed();
                authenticator.forget_expired(now);
                if ready_until.take_if(|at| *at <= now).is_some() {
                    vaults.release();
                    // The next request may be a moment away.
                    thread::sleep(TURN);
                }
                continue;
            }
            Ok(Task::End) | Err(RecvTimeoutError::Disconnected) => return,
        };
        let reply = authenticator.answer(
            &job.request,
            &mut Env {
                vaults: &mut vaults,
                person: &mut Asked { prompt: &mut prompt, desk, job: &job },
                rng: &mut rng,
                clock: &|| started.elapsed(),
                unix_time: SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()),
                report: &crate::report,
            },
        );
        wrong_pins.store(authenticator.wrong_in_a_row(), Ordering::Relaxed);
        desk.tell(Told::Reply(job.transaction, reply));
        let now = started.elapsed();
        ready_until = authenticator.expects_more().then(|| ready_until.unwrap_or(now + READY));
        match ready_until {
            None => vaults.release(),
            // However much it is used: whoever waits for the vault has his turn.
            Some(at) if at <= now => {
                vaults.release();
                ready_until = None;
                thread::sleep(TURN);
            }
            Some(_) => {}
        }
    }
}

impl Locker {
    /// Once the request under way is answered.
    pub(crate) fn lock(&self) {
        // One that is gone knows nothing any more.
        self.0.send(Task::Lock).ok();
    }
}

impl Desk {
    fn tell(&self, what: Told) {
        // Nobody listens any more when the daemon ends.
        if self.told.send(what).is_ok() {
            self.news.raise();
        }
    }
}

impl Asked<'_> {
    /// The platform is told that a person is being asked, and when that is over.
    fn while_asking<T>(
        &mut self,
        ask: impl FnOnce(&mut Prompt, &Signal) -> Result<T, Declined>,
    ) -> Result<T, Declined> {
        self.desk.tell(Told::Waits(self.job.transaction, Waiting::UserPresence));
        let answer = ask(self.prompt, &self.job.cancelled);
        self.desk.tell(Told::Waits(self.job.transaction, Waiting::Processing));
        answer
    }
}

impl Person for Asked<'_> {
    fn answers_at_once(&self) -> bool {
        matches!(self.prompt, Prompt::Auto(_))
    }

    fn confirm(&mut self, ask: &Ask<'_>) -> Result<UserPresent, Declined> {
        self.while_asking(|prompt, cancelled| prompt.confirm(ask, cancelled))
    }

    fn choose(&mut self, accounts: &[&Account]) -> Result<(usize, UserPresent), Declined> {
        self.while_asking(|prompt, cancelled| prompt.choose(accounts, cancelled))
    }

    fn pin(&mut self, ask: &Ask<'_>, tries: Option<TriesLeft>) -> Result<(Pin, UserPresent), Declined> {
        self.while_asking(|prompt, cancelled| prompt.pin(ask, tries, cancelled))
    }
}
