//! What can go wrong, and when.

use std::{sync::Arc, time::Duration};

/// What goes wrong, and when.
#[derive(Clone)]
pub struct Fault {
    /// Index of the first command touched; the first one after [`Proxy::arm`](super::Proxy::arm) is 0.
    pub at: usize,
    /// Whether later commands are touched too.
    pub span: Span,
    /// What happens to a touched command.
    pub kind: FaultKind,
}

/// How long a fault lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// One command.
    Once,
    /// Every command from the first one on.
    Continuous,
}

/// Makes the reply to send from the command and the TPM's reply.
pub type Rewriter = Arc<dyn Fn(&[u8], Vec<u8>) -> Vec<u8> + Send + Sync>;

/// What happens to a touched command. A response code travels in a reply of ten bytes without sessions.
#[derive(Clone)]
pub enum FaultKind {
    /// The TPM never sees the command; the client gets this response code.
    Refuse(u32),
    /// The TPM executes the command; the client gets this response code instead of the reply.
    LoseReply(u32),
    /// The TPM never sees the command; the connection closes without a reply.
    CutBefore,
    /// The TPM executes the command; the connection closes without a reply.
    CutAfter,
    /// The TPM executes the command; only this many bytes of the reply are sent.
    Truncate(usize),
    /// The TPM executes the command; this bit of the reply (modulo its bits) is inverted.
    /// Bit 0 is the lowest of the first byte, bit 8 the lowest of the second.
    FlipBit(usize),
    /// Every connection closes at once, unread, whatever the span, until
    /// [`Proxy::disarm`](super::Proxy::disarm).
    EndOfStream,
    /// The command reaches the TPM only after this time.
    Delay(Duration),
    /// The TPM executes the command; the client gets what this makes of the reply.
    Rewrite(Rewriter),
    /// Runs before the command is forwarded, and may replace the TPM with the help of
    /// [`Proxy::upstream`](super::Proxy::upstream).
    ///
    /// It runs on a thread that lives as long as the proxy, so a
    /// [`Swtpm`](tpm_backend::swtpm::Swtpm) started here loses power when the proxy is dropped.
    /// It must not send commands through the proxy, which serves nothing else meanwhile.
    Before(Arc<dyn Fn() + Send + Sync>),
}

impl Fault {
    /// A fault that touches the command at this index only.
    #[must_use]
    pub fn once(at: usize, kind: FaultKind) -> Self {
        Self { at, span: Span::Once, kind }
    }

    /// A fault that touches the command at this index and all that follow.
    #[must_use]
    pub fn continuous(at: usize, kind: FaultKind) -> Self {
        Self { at, span: Span::Continuous, kind }
    }

    fn touches(&self, index: usize) -> bool {
        match self.span {
            Span::Once if !self.ends_stream() => index == self.at,
            _ => index >= self.at,
        }
    }

    fn ends_stream(&self) -> bool {
        matches!(self.kind, FaultKind::EndOfStream)
    }
}

/// The fault in force, with its counters.
#[derive(Default)]
pub(super) struct Armed {
    pub(super) fault: Option<Fault>,
    pub(super) fired: usize,
    seen: usize,
}

impl Armed {
    pub(super) fn new(fault: Fault) -> Self {
        Self { fault: Some(fault), ..Self::default() }
    }

    /// Counts a command and says what happens to it.
    pub(super) fn next_command(&mut self) -> Option<FaultKind> {
        let index = self.seen;
        self.seen += 1;
        let fault = self.fault.as_ref().filter(|fault| fault.touches(index))?;
        self.fired += 1;
        Some(fault.kind.clone())
    }

    /// Whether a new connection is to be closed unread, which counts as a touched command.
    pub(super) fn closes_connection(&mut self) -> bool {
        let closes = self.fault.as_ref().is_some_and(|f| f.ends_stream() && f.touches(self.seen));
        self.fired += usize::from(closes);
        closes
    }
}
