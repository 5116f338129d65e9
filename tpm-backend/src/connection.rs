//! A connection to a TPM that knows what it has loaded there.

use std::{
    ops::{Deref, DerefMut},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use tss_esapi::{
    Context,
    attributes::SessionAttributesBuilder,
    constants::SessionType,
    handles::{KeyHandle, ObjectHandle, SessionHandle},
    interface_types::{algorithm::HashingAlgorithm, session_handles::AuthSession},
    structures::SymmetricDefinition,
};
use vault_core::keystore::Then;

use crate::{
    address::Address,
    error::{During, Result, is_exhausted, odd_answer},
};

/// The way to a TPM, and whether something may be loaded there that no connection knows of.
pub(crate) struct Route {
    pub(crate) address: Address,
    pub(crate) leftovers: Leftovers,
    /// Whether what an operation has loaded stays for the next.
    pub(crate) keeps: bool,
}

/// Set when a flush fails or a reply is lost; cleared by whoever has made sure.
#[derive(Clone, Default)]
pub(crate) struct Leftovers(Arc<AtomicBool>);

/// Dropping it flushes all that it has loaded. tss-esapi's context does so too, and tells nobody whether that worked.
pub(crate) struct Connection {
    ctx: Context,
    loaded: Vec<ObjectHandle>,
    leftovers: Leftovers,
    pub(crate) keeps: bool,
}

/// What a session does to the next command besides authorizing it.
#[derive(Clone, Copy)]
pub(crate) enum Use {
    /// Nothing.
    Authorize,
    /// Encrypts the command's first parameter; only first ones can be (Part 1 §21).
    EncryptCommand,
    /// Encrypts the response's first parameter.
    EncryptResponse,
    /// Encrypts both.
    Encrypt,
    /// Authenticates a command that needs no authorization, and its response (Part 1 §17.6.5).
    Audit,
}

impl Leftovers {
    pub(crate) fn may_be(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    pub(crate) fn suspect(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    pub(crate) fn are_cleared(&self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

impl Route {
    pub(crate) fn connect(&self) -> Result<Connection> {
        let (ctx, leftovers) = (self.address.connect()?, self.leftovers.clone());
        Ok(Connection { ctx, loaded: Vec::new(), leftovers, keeps: false })
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        for held in std::mem::take(&mut self.loaded) {
            if self.ctx.flush_context(held).is_err() {
                self.leftovers.suspect();
            }
        }
    }
}

impl Connection {
    /// Runs a command that loads a key, and notes the key.
    pub(crate) fn load(
        &mut self,
        session: AuthSession,
        command: impl FnOnce(&mut Context) -> tss_esapi::Result<KeyHandle>,
    ) -> tss_esapi::Result<KeyHandle> {
        let loaded = self.ctx.execute_with_session(Some(session), command);
        self.note(loaded)
    }

    /// Notes what a command loaded. An error reply is not authenticated: whatever it says, the command may have been done.
    fn note<T: Copy + Into<ObjectHandle>>(&mut self, loaded: tss_esapi::Result<T>) -> tss_esapi::Result<T> {
        match loaded {
            Ok(handle) => self.loaded.push(handle.into()),
            // Whether a TPM that says so is full can be asked.
            Err(e) if is_exhausted(e) => {}
            Err(_) => self.leftovers.suspect(),
        }
        loaded
    }

    /// Starts a session salted with `salt`.
    pub(crate) fn start_session(&mut self, salt: KeyHandle, kind: SessionType) -> Result<AuthSession> {
        let step = "starting a session";
        let (cipher, hash) = (SymmetricDefinition::AES_128_CFB, HashingAlgorithm::Sha256);
        let started = self
            .ctx
            .execute_without_session(|c| c.start_auth_session(Some(salt), None, None, kind, cipher, hash));
        let session = started.map(SessionHandle::from);
        self.note(session).during(step)?;
        started.during(step)?.ok_or_else(|| odd_answer(step))
    }

    /// Whether there is an end to anything, where the next operation goes on with what this one has loaded.
    pub(crate) fn ends(&self, then: Then) -> bool {
        then == Then::End && !self.keeps
    }

    /// Sets what the session does in the next command. The last command of an operation ends it.
    pub(crate) fn prepare(&mut self, session: AuthSession, then: Then, does: Use) -> Result<()> {
        let (attributes, mask) = SessionAttributesBuilder::new()
            .with_continue_session(!self.ends(then))
            .with_decrypt(matches!(does, Use::EncryptCommand | Use::Encrypt))
            .with_encrypt(matches!(does, Use::EncryptResponse | Use::Encrypt))
            .with_audit(matches!(does, Use::Audit))
            .build();
        self.ctx.tr_sess_set_attributes(session, attributes, mask).during("preparing a session")
    }

    /// After a command that ended its session: nothing is left to flush. tss-esapi would do so once more; closing
    /// the handle makes it forget, and its complaint that this one wanted flushing is beside the point.
    pub(crate) fn ended(&mut self, session: AuthSession, then: Then) {
        if self.ends(then) {
            let mut handle = ObjectHandle::from(SessionHandle::from(session));
            self.loaded.retain(|held| *held != handle);
            self.ctx.tr_close(&mut handle).ok();
        }
    }

    pub(crate) fn flush(&mut self, key: KeyHandle) -> Result<()> {
        self.flush_handle(key.into(), "flushing a key")
    }

    pub(crate) fn flush_session(&mut self, session: AuthSession) -> Result<()> {
        self.flush_handle(SessionHandle::from(session).into(), "flushing a session")
    }

    fn flush_handle(&mut self, handle: ObjectHandle, step: &'static str) -> Result<()> {
        self.ctx.flush_context(handle).during(step)?;
        self.loaded.retain(|held| *held != handle);
        Ok(())
    }

    /// Forgets a handle of something that stays in the TPM.
    pub(crate) fn forget(&mut self, handle: ObjectHandle) -> Result<()> {
        let mut handle = handle;
        self.ctx.tr_close(&mut handle).during("closing a handle")
    }
}

impl Deref for Connection {
    type Target = Context;

    fn deref(&self) -> &Context {
        &self.ctx
    }
}

impl DerefMut for Connection {
    fn deref_mut(&mut self) -> &mut Context {
        &mut self.ctx
    }
}
