//! systemd's file descriptor store (systemd.service(5), `FileDescriptorStoreMax=`; sd_notify(3), `FDSTORE=1`): what is
//! handed over outlives this process, and the next one of the service gets it.
#![expect(
    unsafe_code,
    reason = "descriptors that the service manager passes have to be taken over by number"
)]

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::FdFlags;
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};

/// The first descriptor that is passed (sd_listen_fds(3)).
const FIRST: RawFd = 3;
/// More than a service would store; a number beyond is nobody's word.
const MOST: RawFd = 4096;

static TAKEN: AtomicBool = AtomicBool::new(false);

/// What the service manager passed to this process, each with its name, and their close-on-exec flag set. Empty where
/// it passed nothing, and at every call but the first.
///
/// To be called before anything else is opened by number.
#[must_use]
pub fn received() -> Vec<(String, OwnedFd)> {
    let variable = |name| std::env::var(name).ok();
    let is_for_us = variable("LISTEN_PID").and_then(|pid| pid.parse().ok()) == Some(std::process::id());
    let count = variable("LISTEN_FDS").and_then(|n| n.parse::<RawFd>().ok()).unwrap_or(0).clamp(0, MOST);
    if !is_for_us || TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let mut all = Vec::new();
    for number in FIRST..FIRST + count {
        let name = names.next().unwrap_or_default().to_owned();
        // SAFETY: fcntl(2) takes a number, which may be open or not, and touches no memory.
        if unsafe { libc::fcntl(number, libc::F_GETFD) } == -1 {
            continue;
        }
        // SAFETY: `LISTEN_PID` says that the service manager opened these numbers for this very process, the
        // descriptor is open, and `TAKEN` sees to it that it is taken over once.
        let descriptor = unsafe { OwnedFd::from_raw_fd(number) };
        // It fails for no open descriptor.
        rustix::io::fcntl_setfd(&descriptor, FdFlags::CLOEXEC).ok();
        all.push((name, descriptor));
    }
    all
}

/// Hands a descriptor over, to be passed to the next process of this service under this name (no colon, no control
/// characters, at most 255 bytes). False where no service manager listens.
///
/// # Errors
/// What sendmsg(2) says. That the store is full is not told.
pub fn keep(name: &str, descriptor: BorrowedFd<'_>) -> io::Result<bool> {
    send(&format!("FDSTORE=1\nFDNAME={name}\n"), Some(descriptor))
}

/// Takes what has this name out of the store.
///
/// # Errors
/// What sendmsg(2) says.
pub fn forget(name: &str) -> io::Result<bool> {
    send(&format!("FDSTOREREMOVE=1\nFDNAME={name}\n"), None)
}

fn send(message: &str, descriptor: Option<BorrowedFd<'_>>) -> io::Result<bool> {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(false) };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(&path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.connect_addr(&address)?;
    let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut room);
    let descriptors = descriptor.as_slice();
    if !descriptors.is_empty() {
        let pushed = control.push(SendAncillaryMessage::ScmRights(descriptors));
        // There is room for one.
        debug_assert!(pushed);
    }
    sendmsg(&socket, &[IoSlice::new(message.as_bytes())], &mut control, SendFlags::NOSIGNAL)?;
    Ok(true)
}
