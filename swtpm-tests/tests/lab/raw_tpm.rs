//! The TPM asked directly, in bytes: past the proxy, and without libtss2's help.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpStream},
};

/// The software TPM on this port. It serves one connection at a time: not to be asked while one is open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RawTpm(pub(crate) u16);

const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;

/// `TPM_HT` ranges (Part 2 §7.2).
const NV_INDICES: u32 = 0x0100_0000;
const LOADED_SESSIONS: u32 = 0x0200_0000;
const TRANSIENT: u32 = 0x8000_0000;
const SRK: u32 = 0x8100_0001;
const OWNER: u32 = 0x4000_0001;

/// `TPMS_AUTH_COMMAND` with an empty password, after its size.
const EMPTY_PASSWORD: [u8; 13] = [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0];

impl RawTpm {
    /// One command: the response code, and what follows the response's header.
    pub(crate) fn command(self, tag: u16, code: u32, body: &[u8]) -> (u32, Vec<u8>) {
        let size = u32::try_from(10 + body.len()).unwrap();
        let command = [&tag.to_be_bytes(), size.to_be_bytes().as_slice(), &code.to_be_bytes(), body].concat();
        let mut tpm = TcpStream::connect((Ipv4Addr::LOCALHOST, self.0)).unwrap();
        tpm.write_all(&command).unwrap();
        let mut header = [0; 10];
        tpm.read_exact(&mut header).unwrap();
        let mut rest = vec![0; word(&header, 2) as usize - 10];
        tpm.read_exact(&mut rest).unwrap();
        (word(&header, 6), rest)
    }

    /// What is loaded: transient objects and sessions.
    pub(crate) fn loaded(self) -> Vec<u32> {
        [self.handles(TRANSIENT), self.handles(LOADED_SESSIONS)].concat()
    }

    /// The defined NV indices.
    pub(crate) fn indices(self) -> Vec<u32> {
        self.handles(NV_INDICES)
    }

    /// `TPM_PT_LOCKOUT_COUNTER`.
    pub(crate) fn lockout_counter(self) -> u32 {
        let (rc, body) = self.capability(6, 0x20e, 1);
        assert_eq!((rc, word(&body, 9)), (0, 0x20e));
        word(&body, 13)
    }

    /// pinCount of the only PIN FAIL index, if there is one that was written.
    pub(crate) fn wrong_pins(self) -> Option<u32> {
        let index = self.indices().into_iter().find(|index| {
            let (rc, body) = self.command(NO_SESSIONS, 0x169, &index.to_be_bytes());
            // size, index, nameAlg, attributes; TPM_NT is bits 4 to 7, TPMA_NV_WRITTEN bit 29.
            rc == 0 && word(&body, 8) & (0xf << 4 | 1 << 29) == 8 << 4 | 1 << 29
        })?;
        let body = join(&[&OWNER.to_be_bytes(), &index.to_be_bytes(), &EMPTY_PASSWORD, &[0, 8, 0, 0]]);
        let (rc, body) = self.command(SESSIONS, 0x14e, &body);
        // parameterSize, then the data's size.
        (rc == 0).then(|| word(&body, 6))
    }

    /// The only index with this much room, if there is one.
    pub(crate) fn index_of_size(self, size: u16) -> Option<u32> {
        self.indices().into_iter().find(|index| {
            let (rc, body) = self.command(NO_SESSIONS, 0x169, &index.to_be_bytes());
            // size, index, nameAlg, attributes, policy, dataSize; then the Name's size and the Name.
            let end = 2 + usize::from(u16::from_be_bytes([body[0], body[1]]));
            rc == 0 && body[end - 2..end] == size.to_be_bytes()
        })
    }

    /// Takes the SRK from its persistent handle, if it is there.
    pub(crate) fn evict_srk(self) {
        let body = join(&[&OWNER.to_be_bytes(), &SRK.to_be_bytes(), &EMPTY_PASSWORD, &SRK.to_be_bytes()]);
        self.command(SESSIONS, 0x120, &body);
    }

    /// `TPM2_NV_UndefineSpace` by the owner.
    pub(crate) fn undefine(self, index: u32) -> u32 {
        let body = join(&[&OWNER.to_be_bytes(), &index.to_be_bytes(), &EMPTY_PASSWORD]);
        self.command(SESSIONS, 0x122, &body).0
    }

    /// An unsalted, unbound HMAC session: its handle, or the response code.
    pub(crate) fn start_session(self) -> Result<u32, u32> {
        const NULL: u32 = 0x4000_0007;
        let body = join(&[
            &NULL.to_be_bytes(),
            &NULL.to_be_bytes(),
            &[0, 16],
            &[7; 16],
            &[0, 0],    // no salt
            &[0],       // TPM_SE_HMAC
            &[0, 0x10], // no symmetric cipher
            &[0, 0x0b], // SHA-256
        ]);
        let (rc, body) = self.command(NO_SESSIONS, 0x176, &body);
        if rc == 0 { Ok(word(&body, 0)) } else { Err(rc) }
    }

    /// `TPM2_ContextSave`.
    pub(crate) fn save_context(self, handle: u32) -> Vec<u8> {
        let (rc, context) = self.command(NO_SESSIONS, 0x162, &handle.to_be_bytes());
        assert_eq!(rc, 0, "saving context {handle:#x}");
        context
    }

    /// `TPM2_FlushContext`.
    pub(crate) fn flush(self, handle: u32) -> u32 {
        self.command(NO_SESSIONS, 0x165, &handle.to_be_bytes()).0
    }

    /// `TPM2_LoadExternal` of a bare public P-256 point: a transient object of no use.
    pub(crate) fn load_object(self) -> Result<u32, u32> {
        // The base point of P-256.
        const X: &str = "6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296";
        const Y: &str = "4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5";
        let point = [&[0, 32], hex(X).as_slice(), &[0, 32], &hex(Y)].concat();
        let public = [
            [0, 0x23, 0, 0x0b].as_slice(),  // ECC, SHA-256
            &0x0004_0440_u32.to_be_bytes(), // sign, noDA, userWithAuth
            &[0, 0],
            &[0, 0x10, 0, 0x10, 0, 3, 0, 0x10], // no cipher, no scheme, P-256, no KDF
            &point,
        ]
        .concat();
        let size = u16::try_from(public.len()).unwrap().to_be_bytes();
        let body = [[0, 0].as_slice(), &size, &public, &0x4000_0007_u32.to_be_bytes()].concat();
        let (rc, body) = self.command(NO_SESSIONS, 0x167, &body);
        if rc == 0 { Ok(word(&body, 0)) } else { Err(rc) }
    }

    fn handles(self, first: u32) -> Vec<u32> {
        let (rc, body) = self.capability(1, first, 254);
        assert_eq!(rc, 0, "listing handles from {first:#x}");
        // moreData, capability, count.
        (0..word(&body, 5) as usize).map(|n| word(&body, 9 + 4 * n)).collect()
    }

    fn capability(self, capability: u32, property: u32, count: u32) -> (u32, Vec<u8>) {
        let body: Vec<_> = [capability, property, count].into_iter().flat_map(u32::to_be_bytes).collect();
        self.command(NO_SESSIONS, 0x17a, &body)
    }
}

fn join(parts: &[&[u8]]) -> Vec<u8> {
    parts.concat()
}

fn word(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap())
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}
