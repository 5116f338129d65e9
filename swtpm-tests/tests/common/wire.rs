//! TPM 2.0 commands and sessions, byte by byte (Part 1 §18-19, Part 3).

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
};

use hmac::{Hmac, KeyInit, Mac};
use p256::{PublicKey, SecretKey, ecdsa::SigningKey, elliptic_curve::point::AffineCoordinates};
use sha2::{Digest, Sha256};

/// Command codes (Part 2 §6.5.2).
pub(crate) mod cc {
    pub(crate) const NV_UNDEFINE: u32 = 0x122;
    pub(crate) const EVICT_CONTROL: u32 = 0x120;
    pub(crate) const NV_DEFINE: u32 = 0x12a;
    pub(crate) const CREATE_PRIMARY: u32 = 0x131;
    pub(crate) const NV_WRITE: u32 = 0x137;
    pub(crate) const NV_CHANGE_AUTH: u32 = 0x13b;
    pub(crate) const NV_READ: u32 = 0x14e;
    pub(crate) const POLICY_SECRET: u32 = 0x151;
    pub(crate) const CREATE: u32 = 0x153;
    pub(crate) const LOAD: u32 = 0x157;
    pub(crate) const SIGN: u32 = 0x15d;
    pub(crate) const FLUSH: u32 = 0x165;
    pub(crate) const NV_READ_PUBLIC: u32 = 0x169;
    pub(crate) const POLICY_AUTH_VALUE: u32 = 0x16b;
    pub(crate) const POLICY_COMMAND_CODE: u32 = 0x16c;
    pub(crate) const POLICY_OR: u32 = 0x171;
    pub(crate) const READ_PUBLIC: u32 = 0x173;
    pub(crate) const START_SESSION: u32 = 0x176;
    pub(crate) const GET_CAPABILITY: u32 = 0x17a;
    pub(crate) const POLICY_GET_DIGEST: u32 = 0x189;
    pub(crate) const POLICY_NV_WRITTEN: u32 = 0x18f;
    pub(crate) const DUPLICATE: u32 = 0x14b;
    pub(crate) const GET_RANDOM: u32 = 0x17b;
    pub(crate) const LOAD_EXTERNAL: u32 = 0x167;
}

/// Response codes (Part 2 §6.6), as the TPM gives them for its first session, handle or parameter.
pub(crate) mod rc {
    pub(crate) const AUTH_FAIL: u32 = 0x98e;
    pub(crate) const BAD_AUTH: u32 = 0x9a2;
    pub(crate) const POLICY_FAIL: u32 = 0x99d;
    pub(crate) const AUTH_UNAVAILABLE: u32 = 0x12f;
    pub(crate) const NV_AUTHORIZATION: u32 = 0x149;
    pub(crate) const LOCKOUT: u32 = 0x921;
    pub(crate) const BIND_HANDLE: u32 = 0x28b;
    pub(crate) const INTEGRITY: u32 = 0x1df;
}

pub(crate) const OWNER: u32 = 0x4000_0001;
pub(crate) const NULL: u32 = 0x4000_0007;
const PASSWORD: u32 = 0x4000_0009;
const CONTINUE: u8 = 1;
const ENCRYPT: u8 = 0x40;
const AUDIT: u8 = 0x80;

/// Session types (Part 2 §6.11).
pub(crate) const HMAC: u8 = 0;
pub(crate) const POLICY: u8 = 1;
pub(crate) const TRIAL: u8 = 3;

pub(crate) struct Wire {
    port: u16,
}

/// A session that this client began.
pub(crate) struct Session {
    pub(crate) handle: u32,
    nonce: Vec<u8>,
    key: Vec<u8>,
}

/// How a handle is authorized.
pub(crate) enum Auth<'a> {
    Password(&'a [u8]),
    /// An HMAC session, or a policy session with `PolicyAuthValue`.
    Value(&'a mut Session, &'a [u8]),
    Policy(&'a mut Session),
    /// A policy session that asks for an encrypted response.
    Encrypted(&'a mut Session),
    /// An HMAC session that authorizes nothing.
    Audit(&'a mut Session),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NvPublic {
    pub(crate) attributes: u32,
    pub(crate) policy: Vec<u8>,
    pub(crate) size: u16,
    pub(crate) name: Vec<u8>,
}

pub(crate) struct Reply {
    pub(crate) handle: u32,
    pub(crate) params: Vec<u8>,
}

impl Wire {
    pub(crate) fn new(port: u16) -> Self {
        Self { port }
    }

    pub(crate) fn send(&self, command: &[u8]) -> Vec<u8> {
        let mut tpm = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).unwrap();
        tpm.write_all(command).unwrap();
        let mut reply = vec![0; 10];
        tpm.read_exact(&mut reply).unwrap();
        let size = u32::from_be_bytes(reply[2..6].try_into().unwrap()) as usize;
        reply.resize(size, 0);
        tpm.read_exact(&mut reply[10..]).unwrap();
        reply
    }

    pub(crate) fn call(
        &self,
        code: u32,
        handles: &[u32],
        auths: &mut [Auth<'_>],
        params: &[u8],
    ) -> Result<Reply, u32> {
        let mut body: Vec<u8> = handles.iter().flat_map(|h| h.to_be_bytes()).collect();
        if !auths.is_empty() {
            let names: Vec<u8> = handles.iter().flat_map(|h| self.name(*h)).collect();
            let cp = Sha256::new()
                .chain_update(code.to_be_bytes())
                .chain_update(names)
                .chain_update(params)
                .finalize();
            let area: Vec<u8> = auths.iter().flat_map(|a| a.encode(&cp)).collect();
            body.extend(u32::try_from(area.len()).unwrap().to_be_bytes());
            body.extend(area);
        }
        body.extend(params);
        let tag: [u8; 2] = if auths.is_empty() { [0x80, 1] } else { [0x80, 2] };
        let size = u32::try_from(body.len() + 10).unwrap();
        let reply = self.send(&[tag.as_slice(), &size.to_be_bytes(), &code.to_be_bytes(), &body].concat());
        let answer = u32::from_be_bytes(reply[6..10].try_into().unwrap());
        if answer != 0 {
            return Err(answer);
        }
        let mut at = 10;
        let mut handle = 0;
        if matches!(code, cc::LOAD | cc::START_SESSION | cc::CREATE_PRIMARY) {
            handle = u32::from_be_bytes(reply[at..at + 4].try_into().unwrap());
            at += 4;
        }
        if auths.is_empty() {
            return Ok(Reply { handle, params: reply[at..].to_vec() });
        }
        let len = u32::from_be_bytes(reply[at..at + 4].try_into().unwrap()) as usize;
        let params = reply[at + 4..at + 4 + len].to_vec();
        let mut rest = &reply[at + 4 + len..];
        for auth in auths {
            let nonce = take(&mut rest);
            rest = &rest[1..];
            take(&mut rest);
            match auth {
                Auth::Password(_) => {}
                Auth::Value(s, _) | Auth::Policy(s) | Auth::Encrypted(s) | Auth::Audit(s) => s.nonce = nonce,
            }
        }
        Ok(Reply { handle, params })
    }

    pub(crate) fn name(&self, handle: u32) -> Vec<u8> {
        match handle >> 24 {
            0x01 => self.nv_public(handle).map(|p| p.name).unwrap_or_default(),
            0x80 | 0x81 => self.read_public(handle).map(|(_, name)| name).unwrap_or_default(),
            _ => handle.to_be_bytes().to_vec(),
        }
    }

    pub(crate) fn nv_public(&self, index: u32) -> Option<NvPublic> {
        let reply = self.call(cc::NV_READ_PUBLIC, &[index], &mut [], &[]).ok()?;
        let mut rest = reply.params.as_slice();
        let public = take(&mut rest);
        let name = take(&mut rest);
        assert_eq!(public[..4], index.to_be_bytes());
        assert_eq!(public[4..6], [0, 0x0b], "nameAlg");
        let mut tail = &public[10..];
        let policy = take(&mut tail);
        Some(NvPublic {
            attributes: u32::from_be_bytes(public[6..10].try_into().unwrap()),
            policy,
            size: u16::from_be_bytes(tail.try_into().unwrap()),
            name,
        })
    }

    /// A loaded object's `TPMT_PUBLIC` and Name.
    pub(crate) fn read_public(&self, handle: u32) -> Option<(Vec<u8>, Vec<u8>)> {
        let reply = self.call(cc::READ_PUBLIC, &[handle], &mut [], &[]).ok()?;
        let mut rest = reply.params.as_slice();
        Some((take(&mut rest), take(&mut rest)))
    }

    pub(crate) fn session(&self, kind: u8) -> Session {
        self.start(kind, NULL, &[], &[])
    }

    /// Bound to an entity whose authValue the caller believes to know (Part 1 §19.6.10). Anyone may start one.
    pub(crate) fn bound(&self, entity: u32, believed: &[u8]) -> Result<Session, u32> {
        let caller = [0x5a; 32];
        let params = [b2(&caller), b2(&[]), vec![HMAC], vec![0, 6, 0, 0x80, 0, 0x43], vec![0, 0x0b]].concat();
        let reply = self.call(cc::START_SESSION, &[NULL, entity], &mut [], &params)?;
        let nonce = take(&mut reply.params.as_slice());
        let key = kdf_a(believed, "ATH", &nonce, &caller).to_vec();
        Ok(Session { handle: reply.handle, nonce, key })
    }

    /// A command that needs no authorization, audited in a session.
    pub(crate) fn get_random(&self, session: &mut Session) -> Result<(), u32> {
        self.call(cc::GET_RANDOM, &[], &mut [Auth::Audit(session)], &[0, 8]).map(drop)
    }

    /// Salted with the ECC key at `handle`, whose public area the TPM is asked for, as libtss2 does.
    pub(crate) fn salted(&self, kind: u8, handle: u32) -> Session {
        let (public, _) = self.read_public(handle).unwrap();
        let (x, y) = key::point(&public);
        let theirs = PublicKey::from_sec1_bytes(&[[4].as_slice(), &x, &y].concat()).unwrap();
        let mine = key::random();
        let (my_x, my_y) = key::coordinates(&mine);
        let shared = (theirs.to_projective() * *mine.to_nonzero_scalar()).to_affine().x();
        let salt = kdf_e(&shared, &my_x, &x);
        let point = [b2(&my_x), b2(&my_y)].concat();
        self.start(kind, handle, &point, &salt)
    }

    fn start(&self, kind: u8, salt_key: u32, encrypted: &[u8], salt: &[u8]) -> Session {
        let caller = [0x5a; 32];
        let params =
            [b2(&caller), b2(encrypted), vec![kind], vec![0, 6, 0, 0x80, 0, 0x43], vec![0, 0x0b]].concat();
        let reply = self.call(cc::START_SESSION, &[salt_key, NULL], &mut [], &params).unwrap();
        let nonce = take(&mut reply.params.as_slice());
        let key = if salt.is_empty() { Vec::new() } else { kdf_a(salt, "ATH", &nonce, &caller).to_vec() };
        Session { handle: reply.handle, nonce, key }
    }

    pub(crate) fn flush(&self, handle: u32) {
        self.call(cc::FLUSH, &[], &mut [], &handle.to_be_bytes()).unwrap();
    }

    pub(crate) fn command_code(&self, policy: &Session, code: u32) {
        self.call(cc::POLICY_COMMAND_CODE, &[policy.handle], &mut [], &code.to_be_bytes()).unwrap();
    }

    pub(crate) fn not_written(&self, policy: &Session) {
        self.call(cc::POLICY_NV_WRITTEN, &[policy.handle], &mut [], &[0]).unwrap();
    }

    pub(crate) fn auth_value(&self, policy: &Session) {
        self.call(cc::POLICY_AUTH_VALUE, &[policy.handle], &mut [], &[]).unwrap();
    }

    pub(crate) fn or(&self, policy: &Session, branches: &[[u8; 32]]) -> Result<(), u32> {
        let count = u32::try_from(branches.len()).unwrap();
        let mut params = count.to_be_bytes().to_vec();
        params.extend(branches.iter().flat_map(|b| b2(b)));
        self.call(cc::POLICY_OR, &[policy.handle], &mut [], &params).map(drop)
    }

    pub(crate) fn digest(&self, policy: &Session) -> Vec<u8> {
        let reply = self.call(cc::POLICY_GET_DIGEST, &[policy.handle], &mut [], &[]).unwrap();
        take(&mut reply.params.as_slice())
    }

    /// `PolicySecret(entity)` into `policy`.
    pub(crate) fn policy_secret(&self, entity: u32, policy: &Session, auth: Auth<'_>) -> Result<(), u32> {
        let params = [0; 10];
        self.call(cc::POLICY_SECRET, &[entity, policy.handle], &mut [auth], &params).map(drop)
    }

    pub(crate) fn nv_read(&self, by: u32, index: u32, size: u16, auth: Auth<'_>) -> Result<Vec<u8>, u32> {
        let params = [size.to_be_bytes(), [0, 0]].concat();
        let reply = self.call(cc::NV_READ, &[by, index], &mut [auth], &params)?;
        Ok(take(&mut reply.params.as_slice()))
    }

    pub(crate) fn nv_write(&self, by: u32, index: u32, data: &[u8], auth: Auth<'_>) -> Result<(), u32> {
        let params = [b2(data), vec![0, 0]].concat();
        self.call(cc::NV_WRITE, &[by, index], &mut [auth], &params).map(drop)
    }

    pub(crate) fn nv_change_auth(&self, index: u32, new: &[u8], auth: Auth<'_>) -> Result<(), u32> {
        self.call(cc::NV_CHANGE_AUTH, &[index], &mut [auth], &b2(new)).map(drop)
    }

    /// With an empty ownerAuth anyone may.
    pub(crate) fn undefine(&self, index: u32) -> Result<(), u32> {
        self.call(cc::NV_UNDEFINE, &[OWNER, index], &mut [Auth::Password(&[])], &[]).map(drop)
    }

    pub(crate) fn define(&self, index: u32, attributes: u32, policy: &[u8], size: u16, auth: &[u8]) {
        let public = [
            index.to_be_bytes().as_slice(),
            &[0, 0x0b],
            &attributes.to_be_bytes(),
            &b2(policy),
            &size.to_be_bytes(),
        ]
        .concat();
        let params = [b2(auth), b2(&public)].concat();
        self.call(cc::NV_DEFINE, &[OWNER], &mut [Auth::Password(&[])], &params).unwrap();
    }

    /// Under a parent with an empty authorization or this one.
    pub(crate) fn load(&self, parent: u32, auth: &[u8], public: &[u8], private: &[u8]) -> Result<u32, u32> {
        let params = [b2(private), b2(public)].concat();
        Ok(self.call(cc::LOAD, &[parent], &mut [Auth::Password(auth)], &params)?.handle)
    }

    /// A storage key of the owner's, like the SRK but for its `unique`.
    pub(crate) fn other_storage_key(&self) -> u32 {
        let public = [
            [0, 0x23, 0, 0x0b].as_slice(),
            &0x0003_0472_u32.to_be_bytes(),
            &[0, 0],
            &[0, 6, 0, 0x80, 0, 0x43, 0, 0x10, 0, 3, 0, 0x10],
            &b2(&[7; 32]),
            &b2(&[]),
        ]
        .concat();
        let params = [b2(&[0, 0, 0, 0]), b2(&public), b2(&[]), vec![0; 4]].concat();
        self.call(cc::CREATE_PRIMARY, &[OWNER], &mut [Auth::Password(&[])], &params).unwrap().handle
    }

    /// `TPMS_NV_PIN_COUNTER_PARAMETERS`, read as the owner.
    pub(crate) fn pin_count(&self, index: u32) -> (u32, u32) {
        let data = self.nv_read(OWNER, index, 8, Auth::Password(&[])).unwrap();
        let word = |at: usize| u32::from_be_bytes(data[at..at + 4].try_into().unwrap());
        (word(0), word(4))
    }

    /// `TPM_PT_LOCKOUT_COUNTER`.
    pub(crate) fn lockout_counter(&self) -> u32 {
        let params = [6_u32, 0x20e, 1].map(u32::to_be_bytes).concat();
        let reply = self.call(cc::GET_CAPABILITY, &[], &mut [], &params).unwrap();
        assert_eq!(reply.params[9..13], 0x20e_u32.to_be_bytes());
        u32::from_be_bytes(reply.params[13..17].try_into().unwrap())
    }

    /// Transient objects, loaded sessions and saved sessions.
    pub(crate) fn loaded(&self) -> Vec<u32> {
        let mut all = Vec::new();
        // Policy sessions are listed among the loaded sessions, as 0x03...
        for (first, types) in [(0x8000_0000_u32, [0x80, 0x80]), (0x0200_0000, [0x02, 0x03])] {
            let params = [1_u32, first, 64].map(u32::to_be_bytes).concat();
            let reply = self.call(cc::GET_CAPABILITY, &[], &mut [], &params).unwrap();
            let handles = reply.params[9..].chunks(4).map(|h| u32::from_be_bytes(h.try_into().unwrap()));
            all.extend(handles.filter(|h| types.contains(&(h >> 24))));
        }
        all
    }
}

impl Auth<'_> {
    fn encode(&self, cp: &[u8]) -> Vec<u8> {
        let (handle, attributes, hmac) = match self {
            Self::Password(auth) => (PASSWORD, CONTINUE, auth.to_vec()),
            Self::Value(s, auth) => (s.handle, CONTINUE, s.hmac(auth, cp, CONTINUE)),
            Self::Policy(s) => (s.handle, CONTINUE, s.hmac(&[], cp, CONTINUE)),
            Self::Audit(s) => (s.handle, CONTINUE | AUDIT, s.hmac(&[], cp, CONTINUE | AUDIT)),
            Self::Encrypted(s) => (s.handle, CONTINUE | ENCRYPT, s.hmac(&[], cp, CONTINUE | ENCRYPT)),
        };
        let nonce = if handle == PASSWORD { Vec::new() } else { vec![0xa5; 32] };
        [handle.to_be_bytes().as_slice(), &b2(&nonce), &[attributes], &b2(&hmac)].concat()
    }
}

impl Session {
    fn hmac(&self, auth: &[u8], cp: &[u8], attributes: u8) -> Vec<u8> {
        let key = [self.key.as_slice(), auth].concat();
        if key.is_empty() && self.handle >> 24 == 3 {
            return Vec::new();
        }
        hmac(&key, &[cp, &[0xa5; 32], &self.nonce, &[attributes]])
    }
}

pub(crate) fn hmac(key: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap();
    for part in parts {
        mac.update(part);
    }
    mac.finalize().into_bytes().to_vec()
}

/// Part 1 §11.4.10.2, one block.
pub(crate) fn kdf_a(key: &[u8], label: &str, u: &[u8], v: &[u8]) -> [u8; 32] {
    let (one, bits) = (1_u32.to_be_bytes(), 256_u32.to_be_bytes());
    hmac(key, &[&one, label.as_bytes(), &[0], u, v, &bits]).try_into().unwrap()
}

/// Part 1 §11.4.10.3 with the label of a session's salt (§B.6... Annex C.6.1).
pub(crate) fn kdf_e(z: &[u8], u: &[u8], v: &[u8]) -> [u8; 32] {
    Sha256::new()
        .chain_update(1_u32.to_be_bytes())
        .chain_update(z)
        .chain_update(b"SECRET\0")
        .chain_update(u)
        .chain_update(v)
        .finalize()
        .into()
}

/// A TPM2B.
pub(crate) fn b2(bytes: &[u8]) -> Vec<u8> {
    [u16::try_from(bytes.len()).unwrap().to_be_bytes().as_slice(), bytes].concat()
}

/// Takes a TPM2B off the front.
pub(crate) fn take(rest: &mut &[u8]) -> Vec<u8> {
    let len = usize::from(u16::from_be_bytes(rest[..2].try_into().unwrap()));
    let taken = rest[2..2 + len].to_vec();
    *rest = &rest[2 + len..];
    taken
}

/// P-256 keys.
pub(crate) mod key {
    use super::*;

    pub(crate) fn random() -> SecretKey {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).unwrap();
        bytes[0] = 0;
        SecretKey::from_slice(&bytes).unwrap()
    }

    pub(crate) fn coordinates(key: &SecretKey) -> ([u8; 32], [u8; 32]) {
        let point = SigningKey::from(key).verifying_key().to_sec1_point(false);
        let bytes = point.as_bytes();
        (bytes[1..33].try_into().unwrap(), bytes[33..].try_into().unwrap())
    }

    /// x and y of an ECC `TPMT_PUBLIC`: its last two TPM2Bs.
    pub(crate) fn point(public: &[u8]) -> ([u8; 32], [u8; 32]) {
        let mut rest = &public[8..];
        take(&mut rest);
        let symmetric = if rest[..2] == [0, 0x10] { 2 } else { 6 };
        rest = &rest[symmetric..];
        assert_eq!(rest[..6], [0, 0x10, 0, 3, 0, 0x10], "scheme NULL, P-256, KDF NULL");
        rest = &rest[6..];
        let (x, y) = (take(&mut rest), take(&mut rest));
        (padded(&x), padded(&y))
    }

    /// What `secret` and the point `x`, `y` agree on.
    pub(crate) fn agree(secret: &SecretKey, x: &[u8], y: &[u8]) -> [u8; 32] {
        let point = PublicKey::from_sec1_bytes(&[[4].as_slice(), &padded(x), &padded(y)].concat()).unwrap();
        (point.to_projective() * *secret.to_nonzero_scalar()).to_affine().x().into()
    }

    fn padded(bytes: &[u8]) -> [u8; 32] {
        let mut out = [0; 32];
        out[32 - bytes.len()..].copy_from_slice(bytes);
        out
    }
}
