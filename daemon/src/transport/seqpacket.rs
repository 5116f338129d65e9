use std::{
    fs, io,
    path::{Path, PathBuf},
};

use ctap::hid::{PACKET, Packet};
use rustix::{
    event::{PollFd, PollFlags},
    fd::OwnedFd,
    fs::Mode,
    io::Errno,
    net::{RecvFlags, SendFlags, SocketFlags, SocketType, accept_with, recv, send, sockopt::socket_peercred},
    process::Uid,
};

use crate::failure::{Failure, Result};

/// A Unix socket in place of /dev/hidraw: one report a message, and each client sees all reports, as there.
pub(crate) struct Seqpacket {
    path: PathBuf,
    user: Uid,
    listener: OwnedFd,
    clients: Vec<OwnedFd>,
}

impl Seqpacket {
    pub(crate) fn listen(path: &Path, user: Uid) -> Result<Self> {
        let mode = Mode::RUSR | Mode::WUSR;
        let listener = crate::socket::listen(path, SocketType::SEQPACKET, mode)
            .map_err(|e| Failure::Socket { path: path.to_owned(), source: e.into() })?;
        Ok(Self { path: path.to_owned(), user, listener, clients: Vec::new() })
    }

    pub(crate) fn fds(&self) -> Vec<PollFd<'_>> {
        let all = self.clients.iter().chain([&self.listener]);
        all.map(|fd| PollFd::new(fd, PollFlags::IN)).collect()
    }

    pub(crate) fn receive(&mut self) -> io::Result<Option<Packet>> {
        self.accept()?;
        let mut packet = [0; PACKET];
        let mut at = 0;
        while let Some(client) = self.clients.get(at) {
            match recv(client, &mut packet[..], RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
                Ok((_, PACKET)) => return Ok(Some(Packet(packet))),
                Err(Errno::AGAIN) => at += 1,
                // Gone, or not one who speaks in reports.
                Ok(_) | Err(_) => drop(self.clients.swap_remove(at)),
            }
        }
        Ok(None)
    }

    /// To everyone. Whoever does not read loses reports, as with hidraw.
    pub(crate) fn send(&mut self, packet: &Packet) {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        self.clients.retain(|client| matches!(send(client, &packet.0, flags), Ok(_) | Err(Errno::AGAIN)));
    }

    /// Lets in who is waiting, of this user alone.
    fn accept(&mut self) -> io::Result<()> {
        loop {
            match accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(client) => {
                    if socket_peercred(&client)?.uid == self.user {
                        self.clients.push(client);
                    }
                }
                Err(Errno::AGAIN) => return Ok(()),
                // It went before it was let in.
                Err(Errno::CONNABORTED | Errno::INTR) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl Drop for Seqpacket {
    fn drop(&mut self) {
        fs::remove_file(&self.path).ok();
    }
}
