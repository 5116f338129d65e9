//! The socket that `passhold` and whoever asks the person connect to. Whose vault a connection is about its peer's credentials
//! say, and nothing that it sends.

use std::{
    collections::BTreeMap,
    io::{self, ErrorKind},
    net::Shutdown,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, atomic::AtomicU8},
    thread,
    time::Duration,
};

use passhold::ipc::{self, Hello, Place};
use rustix::{
    event::{PollFd, PollFlags, poll},
    io::Errno,
    net::sockopt::socket_peercred,
    process::{Uid, getuid},
};
use vault_core::pin::PinPolicy;

use crate::{
    args::Hid,
    device::{self, End},
    failure::{Failure, Result},
    prompt::Prompt,
    transport::Transport,
    vaults::DirVault,
    worker::{Locker, Worker},
};

/// How long a peer may leave a question unanswered.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long those at work have to end when the service does.
const ENDING: Duration = Duration::from_secs(10);
/// How many connections a user may have at once, and all users together. Each has a thread.
const CONNECTIONS: usize = 8;
const ALL_CONNECTIONS: usize = 256;
/// How long to wait where nobody can be let in.
const PAUSE: Duration = Duration::from_millis(100);

/// Whose vaults there are.
pub(crate) enum Vaults {
    /// This process's user's own.
    Own(PathBuf),
    /// One for each user, in a folder that has his number for a name; and a device for each whom somebody asks.
    Each(PathBuf, Hid),
}

pub(crate) struct Service {
    pub(crate) vaults: Vaults,
    pub(crate) tpm: String,
    pub(crate) policy: PinPolicy,
    pub(crate) stop: UnixStream,
    peers: Mutex<Peers>,
    /// Told when one has gone.
    gone: Condvar,
}

/// Those who are connected: each user's, and of those the one that asks him.
#[derive(Default)]
struct Peers {
    next: u64,
    streams: BTreeMap<(u32, u64), UnixStream>,
    asking: BTreeMap<u32, u64>,
    lockers: BTreeMap<u32, Locker>,
    /// How many wrong PINs in a row each user's device was given. They stay when it goes.
    wrong_pins: BTreeMap<u32, Arc<AtomicU8>>,
}

/// One connection. Dropping it takes it out of the list.
struct Peer {
    service: Arc<Service>,
    user: Uid,
    number: u64,
}

impl Drop for Peer {
    fn drop(&mut self) {
        let (user, mut peers) = (self.user.as_raw(), self.service.peers());
        peers.streams.remove(&(user, self.number));
        if peers.asking.get(&user) == Some(&self.number) {
            peers.asking.remove(&user);
            peers.lockers.remove(&user);
        }
        self.service.gone.notify_all();
    }
}

impl Service {
    pub(crate) fn new(vaults: Vaults, tpm: String, policy: PinPolicy, stop: UnixStream) -> Arc<Self> {
        Arc::new(Self { vaults, tpm, policy, stop, peers: Mutex::default(), gone: Condvar::new() })
    }

    /// Serves until `stop` is readable.
    pub(crate) fn run(self: &Arc<Self>, listener: &UnixListener) -> Result<()> {
        loop {
            let mut fds = [PollFd::new(&self.stop, PollFlags::IN), PollFd::new(listener, PollFlags::IN)];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return Err(Failure::Device(e.into())),
            }
            if fds.first().is_none_or(|stop| !stop.revents().is_empty()) {
                self.end();
                return Ok(());
            }
            match listener.accept() {
                Ok((stream, _)) => {
                    if let Err(e) = self.admit(stream) {
                        crate::report(&e);
                    }
                }
                // It went before it was let in.
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::ConnectionAborted) => {}
                // No descriptor is left, say: whoever caused that does not end the service of others.
                Err(e) => {
                    crate::report(&e);
                    thread::sleep(PAUSE);
                }
            }
        }
    }

    /// Every user's screen is locked, or the machine goes to sleep.
    pub(crate) fn lock_all(&self) {
        self.peers().lockers.values().for_each(Locker::lock);
    }

    fn peers(&self) -> MutexGuard<'_, Peers> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Commands end at their next question, devices with the request under way.
    fn end(&self) {
        let peers = self.peers();
        for stream in peers.streams.values() {
            stream.shutdown(Shutdown::Both).ok();
        }
        // Whatever is still at work after that is cut, as by a loss of power.
        drop(self.gone.wait_timeout_while(peers, ENDING, |peers| !peers.streams.is_empty()));
    }

    fn admit(self: &Arc<Self>, stream: UnixStream) -> io::Result<()> {
        let user = socket_peercred(&stream)?.uid;
        if matches!(self.vaults, Vaults::Own(_)) && user != getuid() {
            return Ok(());
        }
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let Some(peer) = self.enter(user, &stream)? else { return Ok(()) };
        let serve = move || {
            if let Err(e) = peer.serve(stream) {
                crate::report(&e);
            }
        };
        thread::Builder::new().name(format!("user {}", user.as_raw())).spawn(serve).map(drop)
    }

    /// None if the user has too many.
    fn enter(self: &Arc<Self>, user: Uid, stream: &UnixStream) -> io::Result<Option<Peer>> {
        let (raw, mut peers) = (user.as_raw(), self.peers());
        let own = peers.streams.range((raw, 0)..=(raw, u64::MAX)).count();
        if own >= CONNECTIONS || peers.streams.len() >= ALL_CONNECTIONS {
            return Ok(None);
        }
        let number = peers.next;
        peers.next += 1;
        peers.streams.insert((raw, number), stream.try_clone()?);
        Ok(Some(Peer { service: Arc::clone(self), user, number }))
    }
}

impl Peer {
    fn serve(&self, mut stream: UnixStream) -> Result<()> {
        match ipc::hello(&mut stream) {
            Ok(Hello::Run(call)) => {
                let (tpm, policy) = (self.service.tpm.clone(), self.service.policy);
                // Whoever goes away is not told how it ended.
                call.serve(stream, Place { dir: self.vault(), tpm, policy }).ok();
                Ok(())
            }
            Ok(Hello::Prompt) => self.show_device(stream),
            Ok(Hello::Lock) => {
                self.service.peers().lockers.get(&self.user.as_raw()).into_iter().for_each(Locker::lock);
                Ok(())
            }
            // Somebody who does not speak our language is none of ours.
            Err(_) => Ok(()),
        }
    }

    fn vault(&self) -> PathBuf {
        match &self.service.vaults {
            Vaults::Own(dir) => dir.clone(),
            Vaults::Each(state, _) => state.join(self.user.as_raw().to_string()),
        }
    }

    /// The user has a device for as long as there is somebody who asks him.
    fn show_device(&self, line: UnixStream) -> Result<()> {
        let Vaults::Each(_, hid) = &self.service.vaults else { return Ok(()) };
        if *self.service.peers().asking.entry(self.user.as_raw()).or_insert(self.number) != self.number {
            return Ok(());
        }
        let vaults = DirVault::open(self.vault(), &self.service.tpm)?;
        let transport = Transport::open(&hid.of(self.user), self.user)?;
        let gone = line.try_clone().map_err(Failure::Prompt)?;
        let wrong_pins = Arc::clone(self.service.peers().wrong_pins.entry(self.user.as_raw()).or_default());
        let worker = Worker::start(vaults, Prompt::at(line)?, self.service.policy, wrong_pins)?;
        self.service.peers().lockers.insert(self.user.as_raw(), worker.locker());
        let ends = [End::Readable(&self.service.stop), End::HungUp(&gone)];
        let ended = device::run(transport, &worker, &ends);
        worker.end();
        ended
    }
}
