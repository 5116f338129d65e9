//! The kernel's user-space HID (Documentation/hid/uhid.rst, linux/uhid.h). Events are packed structures in native byte order.

use std::{
    fs::{File, OpenOptions},
    io::{self, ErrorKind, Read, Write},
    os::unix::fs::OpenOptionsExt,
};

use ctap::hid::{PACKET, Packet};
use rustix::{
    event::{PollFd, PollFlags},
    fs::OFlags,
    process::Uid,
};

use crate::failure::{Failure, Result};

/// Event types.
const CREATE2: u32 = 11;
const OUTPUT: u32 = 6;
const GET_REPORT: u32 = 9;
const GET_REPORT_REPLY: u32 = 10;
const INPUT2: u32 = 12;
const SET_REPORT: u32 = 13;
const SET_REPORT_REPLY: u32 = 14;

/// The largest: a type and `uhid_create2_req`.
const EVENT: usize = 4 + 128 + 64 + 64 + 2 + 2 + 4 * 4 + REPORT;
const REPORT: usize = 4096;

/// libfido2 lists devices on this bus only.
const BUS_USB: u16 = 0x03;
/// pid.codes' number for tests; no vendor's.
const VENDOR: u32 = 0x1209;
const PRODUCT: u32 = 0x0001;

/// What a FIDO device says of itself (CTAP 2.2 §11.2.8.2): usage page 0xF1D0, 64 bytes in and out, no report numbers.
const DESCRIPTOR: [u8; 34] = [
    0x06, 0xd0, 0xf1, 0x09, 0x01, 0xa1, 0x01, 0x09, 0x20, 0x15, 0x00, 0x26, 0xff, 0x00, 0x75, 0x08, 0x95,
    0x40, 0x81, 0x02, 0x09, 0x21, 0x15, 0x00, 0x26, 0xff, 0x00, 0x75, 0x08, 0x95, 0x40, 0x91, 0x02, 0xc0,
];

/// A HID device in the kernel. It is gone when this is dropped.
pub(crate) struct Uhid {
    file: File,
}

impl Uhid {
    pub(crate) fn create(user: Uid) -> Result<Self> {
        let nonblocking = i32::from_ne_bytes(OFlags::NONBLOCK.bits().to_ne_bytes());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(nonblocking)
            .open("/dev/uhid")
            .map_err(Failure::Uhid)?;
        let mut uhid = Self { file };
        uhid.file.write_all(&create_event(user)).map_err(Failure::Uhid)?;
        Ok(uhid)
    }

    pub(crate) fn fds(&self) -> Vec<PollFd<'_>> {
        vec![PollFd::new(&self.file, PollFlags::IN)]
    }

    pub(crate) fn receive(&mut self) -> io::Result<Option<Packet>> {
        loop {
            let mut event = [0; EVENT];
            match self.file.read(&mut event) {
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(None),
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) => return Err(e),
            }
            let (kind, payload) =
                event.split_first_chunk().map_or((0, &[][..]), |(k, p)| (u32::from_ne_bytes(*k), p));
            match kind {
                OUTPUT => {
                    if let Some(packet) = output_report(payload) {
                        return Ok(Some(packet));
                    }
                }
                GET_REPORT => self.refuse(GET_REPORT_REPLY, payload)?,
                SET_REPORT => self.refuse(SET_REPORT_REPLY, payload)?,
                _ => {}
            }
        }
    }

    pub(crate) fn send(&mut self, packet: &Packet) -> io::Result<()> {
        let size = u16::try_from(PACKET).unwrap_or_default();
        self.file.write_all(&[&INPUT2.to_ne_bytes()[..], &size.to_ne_bytes(), &packet.0].concat())
    }

    /// There are no feature reports. The kernel waits for an answer.
    fn refuse(&mut self, reply: u32, request: &[u8]) -> io::Result<()> {
        const EIO: u16 = 5;
        let id = request.get(..4).unwrap_or(&[0; 4]);
        self.file.write_all(&[&reply.to_ne_bytes()[..], id, &EIO.to_ne_bytes(), &[0; 2]].concat())
    }
}

/// `uhid_output_req`: data, size, type. hidraw puts a report number before the data, which is 0 here.
fn output_report(payload: &[u8]) -> Option<Packet> {
    let (data, rest) = payload.split_at_checked(REPORT)?;
    let size = usize::from(u16::from_ne_bytes(*rest.first_chunk()?));
    let report = data.get(..size)?;
    let report = if size == PACKET + 1 { report.get(1..)? } else { report };
    report.try_into().ok().map(Packet)
}

fn create_event(user: Uid) -> Vec<u8> {
    let text = |text: &str, len: usize| {
        let mut field = text.as_bytes().to_vec();
        field.resize(len, 0);
        field
    };
    let descriptor_size = u16::try_from(DESCRIPTOR.len()).unwrap_or_default();
    let mut descriptor = DESCRIPTOR.to_vec();
    descriptor.resize(REPORT, 0);
    [
        CREATE2.to_ne_bytes().to_vec(),
        text("Passhold", 128),
        text("passholdd", 64),
        // What a udev rule knows the user by whose device this is.
        text(&user.as_raw().to_string(), 64),
        descriptor_size.to_ne_bytes().to_vec(),
        BUS_USB.to_ne_bytes().to_vec(),
        VENDOR.to_ne_bytes().to_vec(),
        PRODUCT.to_ne_bytes().to_vec(),
        0_u32.to_ne_bytes().to_vec(),
        0_u32.to_ne_bytes().to_vec(),
        descriptor,
    ]
    .concat()
}
