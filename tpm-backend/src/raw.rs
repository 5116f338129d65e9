//! What tss-esapi 7.7 lacks, through its re-export of libtss2's C interface. The project's only `unsafe`.
#![allow(unsafe_code)]

use std::{
    ffi::CString,
    ptr::{null, null_mut},
};

use secrecy::ExposeSecret;
use tss_esapi::{
    constants::tss::{
        TPM2_ALG_AES, TPM2_ALG_CFB, TPM2_ALG_SHA256, TPM2_RC_AUTH_FAIL, TPM2_RC_BAD_AUTH, TPM2_RC_LOCKOUT,
        TPM2_RC_OBJECT_HANDLES, TPM2_RC_OBJECT_MEMORY, TPM2_RC_SESSION_HANDLES, TPM2_RC_SESSION_MEMORY,
        TPM2_SE_HMAC, TPM2_SE_POLICY, TPMA_SESSION_CONTINUESESSION, TPMA_SESSION_DECRYPT,
    },
    tss2_esys::{
        ESYS_CONTEXT, ESYS_TR, ESYS_TR_NONE, ESYS_TR_PASSWORD, ESYS_TR_RH_LOCKOUT,
        Esys_DictionaryAttackParameters, Esys_Finalize, Esys_FlushContext, Esys_Free,
        Esys_HierarchyChangeAuth, Esys_Initialize, Esys_Load, Esys_NV_ChangeAuth, Esys_PolicyCommandCode,
        Esys_PolicyOR, Esys_PolicySecret, Esys_StartAuthSession, Esys_TR_FromTPMPublic, Esys_TR_GetName,
        Esys_TR_SetAuth, Esys_TRSess_SetAttributes, TPM2_HANDLE, TPM2_SE, TPM2B_AUTH, TPM2B_DIGEST,
        TPM2B_NONCE, TPM2B_PRIVATE, TPM2B_PUBLIC, TPML_DIGEST, TPMT_SYM_DEF, TSS2_RC, TSS2_TCTI_CONTEXT,
        Tss2_TctiLdr_Finalize, Tss2_TctiLdr_Initialize,
    },
};
use vault_core::{
    Secret,
    keystore::{Anchor, KeyStoreError},
};
use zeroize::Zeroize;

use crate::{
    address::Address,
    anchor::{Place, WrappedKey},
    connection::{Leftovers, Route},
    error::Result,
    harden::HardenError,
    pin_change::in_doubt,
    policy::{Name, cc},
    srk,
};

/// Makes a program fit to handle a PIN: no core dumps, no ptrace by other processes of the same user, and what
/// [`prepare_libtss2`] does. Call it first thing in `main`.
pub fn prepare_process() -> std::io::Result<()> {
    use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
    prepare_libtss2();
    setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) })?;
    Ok(set_dumpable_behavior(DumpableBehavior::NotDumpable)?)
}

/// Makes libtss2 fit for it: no messages of its own on stderr, and nothing readable in what it frees. It does not wipe its
/// copies of authValues and decrypted parameters, so glibc is told to overwrite what is freed: blocks over about 1 KiB, such
/// as libtss2 keeps objects, sessions and buffers in. Smaller ones go through a cache that glibc leaves alone. What a key
/// derivation works in goes back to the system at once. Call it first thing in `main`.
pub fn prepare_libtss2() {
    // SAFETY: no pointers; this only changes what `malloc` and `free` do from now on. It fails for unknown options alone.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_PERTURB, 0x5a);
        // Otherwise it grows with the first such block that is freed, and those after it stay.
        libc::mallopt(libc::M_MMAP_THRESHOLD, 1 << 20);
        // One heap for all threads: what one of them frees, another uses again.
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
    // SAFETY: the caller has started no other thread that could read the environment meanwhile.
    unsafe { std::env::set_var("TSS2_LOG", "all+NONE") };
}

/// Gives what is free of the heap back to the system: a program that waits for long takes no more than it needs, and a few bytes
/// that libtss2 never frees after a failure hold nothing else back.
pub fn trim_heap() {
    // SAFETY: no pointers; nothing that is in use is touched.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Keeps libtss2's module for this kind of TPM loaded until the program ends. libtss2 loads and unloads it with every connection;
/// afterwards that takes no file any more, and no memory that can be executed.
pub fn hold_tcti(address: &Address) -> std::io::Result<()> {
    let library = CString::new(address.tcti_library())?;
    // SAFETY: the name is NUL-terminated; libtss2 loads the same library, whose initializers are none of ours.
    let handle = unsafe { libc::dlopen(library.as_ptr(), libc::RTLD_NOW | libc::RTLD_NODELETE) };
    if handle.is_null() { Err(std::io::ErrorKind::NotFound.into()) } else { Ok(()) }
}

/// `TPM2_NV_ChangeAuth` of the PIN index, through branch C of its policy: whoever knows S may set a new PIN.
pub(crate) fn change_pin_auth(route: &Route, anchor: &Anchor, secret: &Secret, auth: &Secret) -> Result<()> {
    let place = Place::from_anchor(anchor)?;
    let mut esys = Esys::open(route)?;
    let srk = esys.find(srk::HANDLE, &place.srk_name, "the storage root key")?;
    let pin = esys.find(place.pin.index, &place.pin.written(), "the PIN index")?;
    let v = esys.load(srk, &place.v)?;
    let hmac = esys.start_session(v, TPM2_SE_HMAC)?;
    let policy = esys.start_session(v, TPM2_SE_POLICY)?;
    esys.set_auth(v, secret.expose_secret())?;
    esys.policy_command_code(policy, cc::NV_CHANGE_AUTH)?;
    esys.policy_secret(v, policy, hmac)?;
    esys.policy_or(policy, &place.policies.pin_branches)?;
    // An error reply may hide that it was done.
    esys.nv_change_auth(pin, policy, hmac, auth).map_err(in_doubt)
}

/// A new lockout authorization, and the limits that go with it.
pub(crate) struct Hardening<'a> {
    pub(crate) srk_name: &'a Name,
    /// What salts the session; where there is no vault, the SRK does.
    pub(crate) v: Option<&'a WrappedKey>,
    pub(crate) old: &'a [u8],
    pub(crate) new: &'a Secret,
    /// Failures allowed; seconds until one is forgotten; seconds without a try after a wrong lockout authorization.
    pub(crate) limits: [u32; 3],
}

/// `TPM2_DictionaryAttackParameters`, then `TPM2_HierarchyChangeAuth`: a refusal of the old authorization changes nothing.
pub(crate) fn harden(route: &Route, hardening: &Hardening<'_>) -> std::result::Result<(), HardenError> {
    let mut esys = Esys::open(route)?;
    let srk = esys.find(srk::HANDLE, hardening.srk_name, "the storage root key")?;
    let salt = hardening.v.map_or(Ok(srk), |v| esys.load(srk, v))?;
    let hmac = esys.start_session(salt, TPM2_SE_HMAC)?;
    esys.set_auth(ESYS_TR_RH_LOCKOUT, hardening.old)?;
    match esys.dictionary_attack_parameters(hmac, hardening.limits) {
        rc if [TPM2_RC_AUTH_FAIL, TPM2_RC_BAD_AUTH].contains(&(rc & FORMAT_ONE)) => {
            return Err(HardenError::WrongAuthorization);
        }
        rc => check("setting the lockout's limits", rc)?,
    }
    // An error reply may hide that it was done.
    esys.change_lockout_auth(hmac, hardening.new).map_err(HardenError::InDoubt)
}

/// A response code of format one without the number of what it is about (Part 2 §6.6.3).
const FORMAT_ONE: TSS2_RC = 0xbf;

/// An ESYS context of our own: tss-esapi lends nobody its.
struct Esys {
    context: *mut ESYS_CONTEXT,
    tcti: *mut TSS2_TCTI_CONTEXT,
    /// Loaded objects and sessions, flushed on drop.
    loaded: Vec<ESYS_TR>,
    leftovers: Leftovers,
}

impl Drop for Esys {
    fn drop(&mut self) {
        for &handle in &self.loaded {
            // SAFETY: the context is open, and the handle is one of its own.
            if unsafe { Esys_FlushContext(self.context, handle) } != 0 {
                self.leftovers.suspect();
            }
        }
        // SAFETY: both were made by `open`, are not used after, and null pointers are accepted.
        unsafe {
            Esys_Finalize(&raw mut self.context);
            Tss2_TctiLdr_Finalize(&raw mut self.tcti);
        }
    }
}

impl Esys {
    fn open(route: &Route) -> Result<Self> {
        let conf = CString::new(route.address.as_str()).map_err(|e| failed("connecting", e))?;
        let mut this = Self {
            context: null_mut(),
            tcti: null_mut(),
            loaded: Vec::new(),
            leftovers: route.leftovers.clone(),
        };
        // SAFETY: `conf` is NUL-terminated and outlives the call; the pointers are ours to be filled.
        check("connecting", unsafe { Tss2_TctiLdr_Initialize(conf.as_ptr(), &raw mut this.tcti) })?;
        // SAFETY: the TCTI context was just made; a null ABI version is allowed.
        check("connecting", unsafe { Esys_Initialize(&raw mut this.context, this.tcti, null_mut()) })?;
        Ok(this)
    }

    fn find(&mut self, handle: TPM2_HANDLE, name: &Name, what: &'static str) -> Result<ESYS_TR> {
        let mut object = ESYS_TR_NONE;
        let (esys, none) = (self.context, ESYS_TR_NONE);
        // SAFETY: the context is open and `object` is ours to be filled.
        check(what, unsafe { Esys_TR_FromTPMPublic(esys, handle, none, none, none, &raw mut object) })?;
        let mut found = null_mut();
        // SAFETY: as above; on success `found` points to a TPM2B_NAME that is ours to free.
        check(what, unsafe { Esys_TR_GetName(esys, object, &raw mut found) })?;
        // SAFETY: libtss2 filled it, with a size within the buffer; it is copied before it is freed.
        let same = unsafe {
            let same = (*found).name.get(..(*found).size.into()) == Some(name.as_slice());
            Esys_Free(found.cast());
            same
        };
        if same { Ok(object) } else { Err(KeyStoreError::Replaced { what }) }
    }

    fn load(&mut self, parent: ESYS_TR, key: &WrappedKey) -> Result<ESYS_TR> {
        let step = "loading the vault key";
        let public = TPM2B_PUBLIC::try_from(key.public.clone()).map_err(|e| failed(step, e))?;
        let private = TPM2B_PRIVATE::from(key.private.clone());
        let mut object = ESYS_TR_NONE;
        let (esys, password, none) = (self.context, ESYS_TR_PASSWORD, ESYS_TR_NONE);
        // SAFETY: the context is open; the two areas outlive the call; `object` is ours to be filled.
        let loaded = unsafe {
            Esys_Load(
                esys,
                parent,
                password,
                none,
                none,
                &raw const private,
                &raw const public,
                &raw mut object,
            )
        };
        self.note(check(step, loaded), object)
    }

    fn start_session(&mut self, salt: ESYS_TR, kind: TPM2_SE) -> Result<ESYS_TR> {
        let mut cipher = TPMT_SYM_DEF { algorithm: TPM2_ALG_AES, ..Default::default() };
        (cipher.keyBits.aes, cipher.mode.aes) = (128, TPM2_ALG_CFB);
        let (mut session, esys, none) = (ESYS_TR_NONE, self.context, ESYS_TR_NONE);
        // SAFETY: the context is open; a null nonce asks libtss2 for one; `cipher` outlives the call.
        let started = unsafe {
            let (no_nonce, hash) = (null(), TPM2_ALG_SHA256);
            Esys_StartAuthSession(
                esys,
                salt,
                none,
                none,
                none,
                none,
                no_nonce,
                kind,
                &raw const cipher,
                hash,
                &raw mut session,
            )
        };
        self.note(check("starting a session", started), session)?;
        self.set_attributes(session, TPMA_SESSION_CONTINUESESSION)?;
        Ok(session)
    }

    /// As [`Connection`](crate::connection::Connection) does.
    fn note(&mut self, result: Result<()>, loaded: ESYS_TR) -> Result<ESYS_TR> {
        match &result {
            Ok(()) => self.loaded.push(loaded),
            Err(KeyStoreError::Exhausted { .. }) => {}
            Err(_) => self.leftovers.suspect(),
        }
        result.map(|()| loaded)
    }

    fn set_attributes(&mut self, session: ESYS_TR, attributes: u8) -> Result<()> {
        // SAFETY: the context is open; no pointers.
        check("preparing a session", unsafe {
            Esys_TRSess_SetAttributes(self.context, session, attributes, 0xff)
        })
    }

    fn set_auth(&mut self, object: ESYS_TR, auth: &[u8]) -> Result<()> {
        // SAFETY: the context is open; libtss2 copies `auth`.
        check(
            "setting an authorization",
            with_auth(auth, |auth| unsafe { Esys_TR_SetAuth(self.context, object, auth) }),
        )
    }

    fn policy_command_code(&mut self, policy: ESYS_TR, code: u32) -> Result<()> {
        let (esys, none) = (self.context, ESYS_TR_NONE);
        // SAFETY: the context is open; no pointers.
        check("satisfying a policy", unsafe { Esys_PolicyCommandCode(esys, policy, none, none, none, code) })
    }

    fn policy_secret(&mut self, entity: ESYS_TR, policy: ESYS_TR, session: ESYS_TR) -> Result<()> {
        let (any, cp_hash, policy_ref) =
            (TPM2B_NONCE::default(), TPM2B_DIGEST::default(), TPM2B_NONCE::default());
        let (esys, none) = (self.context, ESYS_TR_NONE);
        // SAFETY: the context is open; inputs outlive the call; null outputs ask for no ticket.
        let proven = unsafe {
            let (timeout, ticket) = (null_mut(), null_mut());
            Esys_PolicySecret(
                esys,
                entity,
                policy,
                session,
                none,
                none,
                &raw const any,
                &raw const cp_hash,
                &raw const policy_ref,
                0,
                timeout,
                ticket,
            )
        };
        check("using the vault key", proven)
    }

    fn policy_or(&mut self, policy: ESYS_TR, branches: &[[u8; 32]]) -> Result<()> {
        let mut list = TPML_DIGEST::default();
        for (slot, branch) in list.digests.iter_mut().zip(branches) {
            slot.size = 32;
            slot.buffer.iter_mut().zip(branch).for_each(|(to, from)| *to = *from);
            list.count += 1;
        }
        let (esys, none) = (self.context, ESYS_TR_NONE);
        // SAFETY: the context is open; `list` outlives the call and counts what it holds.
        check("satisfying a policy", unsafe {
            Esys_PolicyOR(esys, policy, none, none, none, &raw const list)
        })
    }

    /// The new authValue is encrypted in `hmac`, which authorizes nothing here. In `policy` the TPM would mix
    /// the index's old authValue into the key (Part 1 §21.2), and a client that does not know it would
    /// set garbage without noticing.
    fn nv_change_auth(
        &mut self,
        index: ESYS_TR,
        policy: ESYS_TR,
        hmac: ESYS_TR,
        auth: &Secret,
    ) -> Result<()> {
        self.set_attributes(hmac, TPMA_SESSION_DECRYPT | TPMA_SESSION_CONTINUESESSION)?;
        let (esys, none) = (self.context, ESYS_TR_NONE);
        // SAFETY: the context is open; `auth` outlives the call.
        let changed = with_auth(auth.expose_secret(), |auth| unsafe {
            Esys_NV_ChangeAuth(esys, index, policy, hmac, none, auth)
        });
        check("changing the PIN", changed)
    }

    fn dictionary_attack_parameters(
        &mut self,
        hmac: ESYS_TR,
        [tries, recovery, lockout_recovery]: [u32; 3],
    ) -> TSS2_RC {
        let (esys, lockout, none) = (self.context, ESYS_TR_RH_LOCKOUT, ESYS_TR_NONE);
        // SAFETY: the context is open; no pointers.
        unsafe {
            Esys_DictionaryAttackParameters(
                esys,
                lockout,
                hmac,
                none,
                none,
                tries,
                recovery,
                lockout_recovery,
            )
        }
    }

    /// The new authValue is encrypted under a key that takes the salt and the old one.
    fn change_lockout_auth(&mut self, hmac: ESYS_TR, auth: &Secret) -> Result<()> {
        self.set_attributes(hmac, TPMA_SESSION_DECRYPT | TPMA_SESSION_CONTINUESESSION)?;
        let (esys, lockout, none) = (self.context, ESYS_TR_RH_LOCKOUT, ESYS_TR_NONE);
        // SAFETY: the context is open; `auth` outlives the call.
        let changed = with_auth(auth.expose_secret(), |auth| unsafe {
            Esys_HierarchyChangeAuth(esys, lockout, hmac, none, none, auth)
        });
        check("changing the lockout authorization", changed)
    }
}

/// Lends `auth` in libtss2's shape, and wipes that copy.
fn with_auth<T>(auth: &[u8], call: impl FnOnce(&TPM2B_AUTH) -> T) -> T {
    let mut copy = TPM2B_AUTH::default();
    for (to, from) in copy.buffer.iter_mut().zip(auth) {
        *to = *from;
        copy.size += 1;
    }
    let result = call(&copy);
    copy.buffer.zeroize();
    result
}

fn check(during: &'static str, rc: TSS2_RC) -> Result<()> {
    match rc {
        0 => Ok(()),
        TPM2_RC_LOCKOUT => Err(KeyStoreError::Lockout { heals_in: None }),
        TPM2_RC_OBJECT_MEMORY | TPM2_RC_OBJECT_HANDLES => Err(KeyStoreError::Exhausted { what: "objects" }),
        TPM2_RC_SESSION_MEMORY | TPM2_RC_SESSION_HANDLES => {
            Err(KeyStoreError::Exhausted { what: "sessions" })
        }
        _ => Err(failed(during, ResponseCode(rc))),
    }
}

fn failed(during: &'static str, source: impl std::error::Error + Send + Sync + 'static) -> KeyStoreError {
    KeyStoreError::Failed { during, source: Box::new(source) }
}

/// A response code as libtss2 gives it: layer and code.
#[derive(Debug, thiserror::Error)]
#[error("response code 0x{0:08x}")]
struct ResponseCode(TSS2_RC);
