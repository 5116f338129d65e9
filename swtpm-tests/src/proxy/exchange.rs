//! What client and TPM say to each other (TPM 2.0 Part 1 §18).

/// Tag, size and code: how every command and response begins.
const HEADER: usize = 10;

/// swtpm's own limit. A larger size is not a TPM frame.
const MAX_FRAME: usize = 4096;

/// A command that reached the TPM, and the TPM's answer to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exchange {
    /// The command as the TPM saw it.
    pub command: Vec<u8>,
    /// The response as the TPM gave it, before any fault touched it.
    pub response: Vec<u8>,
}

impl Exchange {
    /// The command code.
    #[must_use]
    pub fn code(&self) -> u32 {
        code(&self.command)
    }

    /// The response code; 0 is success.
    #[must_use]
    pub fn response_code(&self) -> u32 {
        code(&self.response)
    }
}

/// A command code's name without `TPM2_`, or "unknown" (TPM 2.0 Part 2 §6.5.2).
#[must_use]
pub fn command_name(code: u32) -> &'static str {
    match code {
        0x11f => "NV_UndefineSpaceSpecial",
        0x120 => "EvictControl",
        0x122 => "NV_UndefineSpace",
        0x126 => "Clear",
        0x129 => "HierarchyChangeAuth",
        0x12a => "NV_DefineSpace",
        0x131 => "CreatePrimary",
        0x134 => "NV_Increment",
        0x137 => "NV_Write",
        0x139 => "DictionaryAttackLockReset",
        0x13a => "DictionaryAttackParameters",
        0x13b => "NV_ChangeAuth",
        0x144 => "Startup",
        0x145 => "Shutdown",
        0x149 => "PolicyNV",
        0x14e => "NV_Read",
        0x150 => "ObjectChangeAuth",
        0x151 => "PolicySecret",
        0x153 => "Create",
        0x157 => "Load",
        0x15d => "Sign",
        0x15e => "Unseal",
        0x161 => "ContextLoad",
        0x162 => "ContextSave",
        0x165 => "FlushContext",
        0x167 => "LoadExternal",
        0x169 => "NV_ReadPublic",
        0x16b => "PolicyAuthValue",
        0x16c => "PolicyCommandCode",
        0x171 => "PolicyOR",
        0x173 => "ReadPublic",
        0x176 => "StartAuthSession",
        0x17a => "GetCapability",
        0x17b => "GetRandom",
        0x17c => "GetTestResult",
        0x17e => "PCR_Read",
        0x180 => "PolicyRestart",
        0x182 => "PCR_Extend",
        0x189 => "PolicyGetDigest",
        _ => "unknown",
    }
}

/// A whole frame's size, if that is possible.
pub(super) fn frame_size(header: [u8; HEADER]) -> Option<usize> {
    let [_, _, size @ .., _, _, _, _] = header;
    let size = usize::try_from(u32::from_be_bytes(size)).ok()?;
    (HEADER..=MAX_FRAME).contains(&size).then_some(size)
}

/// A response without sessions and parameters: `TPM_ST_NO_SESSIONS`, its size, the response code.
pub(super) fn refusal(code: u32) -> Vec<u8> {
    [[0x80, 0x01, 0, 0, 0, 10].as_slice(), &code.to_be_bytes()].concat()
}

/// Follows tag and size. Recorded frames always have one.
fn code(frame: &[u8]) -> u32 {
    frame.get(6..).and_then(<[u8]>::first_chunk).map_or(0, |code| u32::from_be_bytes(*code))
}
