//! A TCP proxy between libtss2-tcti-swtpm and swtpm that records commands and fails the n-th one.
//!
//! It serves one connection at a time and one command per connection, as the TCTI uses swtpm. It
//! closes the connection after the reply, so that a client misled about a reply's length sees the
//! end of the stream instead of waiting for ever.

mod exchange;
mod fault;
mod relay;

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    io::{self, ErrorKind},
    mem,
    net::{Ipv4Addr, TcpListener, TcpStream},
    panic,
    sync::{
        Arc,
        atomic::{AtomicU16, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

pub use exchange::{Exchange, command_name};
pub use fault::{Fault, FaultKind, Rewriter, Span};

use fault::Armed;
use relay::Shared;

/// Below the kernel's ephemeral range (32768), where outgoing connections cannot take them.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A running proxy. Dropping it ends open connections, joins its threads and frees its ports.
///
/// A panic in a hook (a failed assertion) ends the proxy's service and resumes in the drop.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

/// Where a proxy finds the TPM. Clones lead the same proxy; hooks keep one.
#[derive(Clone, Debug)]
pub struct Upstream(Arc<AtomicU16>);

impl Proxy {
    /// Starts a proxy in front of the TPM on this loopback port.
    pub fn start(upstream_port: u16) -> io::Result<Self> {
        let (port, commands, control) = bind_pair()?;
        let shared = Arc::new(Shared::new(Upstream(Arc::new(AtomicU16::new(upstream_port)))));
        // Made before the threads, so that its drop stops the first one if the second cannot start.
        let mut proxy = Self { port, shared, threads: Vec::new() };
        proxy.serve("proxy commands", commands, Shared::relay)?;
        proxy.serve("proxy control", control, Shared::control)?;
        Ok(proxy)
    }

    /// The TCTI string that reaches the TPM through this proxy.
    #[must_use]
    pub fn tcti(&self) -> String {
        format!("swtpm:host=127.0.0.1,port={}", self.port)
    }

    /// The TCP port that takes TPM commands; the control channel is the next one.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Leads later commands to the TPM on this port.
    pub fn set_upstream(&self, port: u16) {
        self.shared.upstream.set(port);
    }

    /// A handle that does what [`Proxy::set_upstream`] does, for hooks.
    #[must_use]
    pub fn upstream(&self) -> Upstream {
        self.shared.upstream.clone()
    }

    /// Replaces any fault with this one and counts commands from 0 again.
    pub fn arm(&self, fault: Fault) {
        let replaced = mem::replace(&mut self.shared.state().armed, Armed::new(fault));
        // Only now, with the lock released: a hook's drop may take long or use the proxy.
        drop(replaced);
    }

    /// Lets every command through again. [`Proxy::fired`] keeps its count until the next [`Proxy::arm`].
    pub fn disarm(&self) {
        let disarmed = self.shared.state().armed.fault.take();
        drop(disarmed);
    }

    /// How many commands the last armed fault touched; for `EndOfStream`, how many connections.
    #[must_use]
    pub fn fired(&self) -> usize {
        self.shared.state().armed.fired
    }

    /// Every exchange since the start or [`Proxy::clear_record`], in the TPM's order.
    #[must_use]
    pub fn record(&self) -> Vec<Exchange> {
        self.shared.state().record.clone()
    }

    /// Forgets the exchanges recorded so far.
    pub fn clear_record(&self) {
        let mut state = self.shared.state();
        state.record.clear();
        state.busy = Duration::ZERO;
    }

    /// How long the TPM was at work since [`Proxy::clear_record`], with the way to it from here.
    #[must_use]
    pub fn busy(&self) -> Duration {
        self.shared.state().busy
    }

    /// The command codes of [`Proxy::record`].
    #[must_use]
    pub fn codes(&self) -> Vec<u32> {
        self.shared.state().record.iter().map(Exchange::code).collect()
    }

    /// All recorded bytes, commands and responses, to search for secrets.
    #[must_use]
    pub fn wire(&self) -> Vec<u8> {
        let state = self.shared.state();
        state.record.iter().flat_map(|e| [e.command.as_slice(), &e.response]).flatten().copied().collect()
    }

    fn serve(
        &mut self,
        name: &str,
        listener: TcpListener,
        handle: fn(&Shared, TcpStream) -> io::Result<()>,
    ) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let serve = move || {
            for client in listener.incoming() {
                if shared.state().stopping {
                    return;
                }
                // The client notices a failure: its connection closes without a reply.
                drop(client.and_then(|client| handle(&shared, client)));
            }
        };
        self.threads.push(thread::Builder::new().name(name.into()).spawn(serve)?);
        Ok(())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.stop();
        // Wakes the threads that wait for a connection. A refusal means that they have ended.
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)));
        drop(TcpStream::connect((Ipv4Addr::LOCALHOST, self.port + 1)));
        let ends: Vec<_> = self.threads.drain(..).map(JoinHandle::join).collect();
        if let Some(cause) = ends.into_iter().find_map(Result::err)
            && !thread::panicking()
        {
            panic::resume_unwind(cause);
        }
    }
}

impl Upstream {
    /// Leads the proxy's later commands to the TPM on this port.
    pub fn set(&self, port: u16) {
        self.0.store(port, Ordering::SeqCst);
    }

    fn port(&self) -> u16 {
        self.0.load(Ordering::SeqCst)
    }
}

/// A port and the one after it, both bound.
fn bind_pair() -> io::Result<(u16, TcpListener, TcpListener)> {
    let bind = |port| TcpListener::bind((Ipv4Addr::LOCALHOST, port));
    // Tests start many proxies at once: each looks from a place of its own.
    let random = RandomState::new().build_hasher().finish() % u64::from(PORTS.end - PORTS.start);
    for port in PORTS.cycle().skip(usize::try_from(random).unwrap_or_default()).take(PORTS.len()) {
        match bind(port).and_then(|first| Ok((port, first, bind(port + 1)?))) {
            Err(e) if e.kind() == ErrorKind::AddrInUse => {}
            done => return done,
        }
    }
    Err(ErrorKind::AddrInUse.into())
}
