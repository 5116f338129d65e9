//! Where reports come from and go to.

mod seqpacket;
mod uhid;

use std::io;

use ctap::hid::Packet;
use rustix::{event::PollFd, process::Uid};

use crate::{args::Hid, failure::Result};

/// A way to the platform.
pub(crate) enum Transport {
    Uhid(uhid::Uhid),
    Seqpacket(seqpacket::Seqpacket),
}

impl Transport {
    /// For this user alone.
    pub(crate) fn open(hid: &Hid, user: Uid) -> Result<Self> {
        match hid {
            Hid::Uhid => Ok(Self::Uhid(uhid::Uhid::create(user)?)),
            Hid::Seqpacket(path) => Ok(Self::Seqpacket(seqpacket::Seqpacket::listen(path, user)?)),
        }
    }

    /// What to wait for.
    pub(crate) fn fds(&self) -> Vec<PollFd<'_>> {
        match self {
            Self::Uhid(uhid) => uhid.fds(),
            Self::Seqpacket(socket) => socket.fds(),
        }
    }

    /// The next packet that is there; does not wait.
    pub(crate) fn receive(&mut self) -> io::Result<Option<Packet>> {
        match self {
            Self::Uhid(uhid) => uhid.receive(),
            Self::Seqpacket(socket) => socket.receive(),
        }
    }

    pub(crate) fn send(&mut self, packet: &Packet) -> io::Result<()> {
        match self {
            Self::Uhid(uhid) => uhid.send(packet),
            Self::Seqpacket(socket) => {
                socket.send(packet);
                Ok(())
            }
        }
    }
}
