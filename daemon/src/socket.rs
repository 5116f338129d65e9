//! Unix sockets.

use std::path::Path;

use rustix::{
    fd::OwnedFd,
    fs::{FileType, Mode, chmod, lstat, rename, unlink},
    io::Errno,
    net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, socket_with},
};

fn socket(kind: SocketType) -> Result<OwnedFd, Errno> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    socket_with(AddressFamily::UNIX, kind, flags, None)
}

/// A socket that is there only once it listens, so that whoever finds it gets through.
pub(crate) fn listen(path: &Path, kind: SocketType, mode: Mode) -> Result<OwnedFd, Errno> {
    let address = SocketAddrUnix::new(path)?;
    match lstat(path) {
        Err(Errno::NOENT) => {}
        Err(e) => return Err(e),
        Ok(found) if FileType::from_raw_mode(found.st_mode) != FileType::Socket => return Err(Errno::EXIST),
        // A daemon that was killed leaves its socket; nobody answers there.
        Ok(_) => match connect(&socket(kind)?, &address) {
            Err(Errno::CONNREFUSED) => {}
            _ => return Err(Errno::ADDRINUSE),
        },
    }
    let draft = path.with_extension("draft");
    match unlink(&draft) {
        Ok(()) | Err(Errno::NOENT) => {}
        Err(e) => return Err(e),
    }
    let listener = socket(kind)?;
    bind(&listener, &SocketAddrUnix::new(&draft)?)?;
    chmod(&draft, mode)?;
    net::listen(&listener, 16)?;
    rename(&draft, path)?;
    Ok(listener)
}
