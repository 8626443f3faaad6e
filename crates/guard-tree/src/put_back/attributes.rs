//! Giving an inode its attributes: owner, extended attributes, mode, time and flags, in this order, since
//! a new owner takes setuid, setgid and capabilities away, and a flag may forbid all the rest.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use guard_model::{Entry, Kind};
use guard_sys::open::How;
use guard_sys::stat::{self, Stat, Time};
use guard_sys::xattr::XattrReader;
use guard_sys::{entries, flags, procfd};

/// The flags that forbid changes.
pub(crate) const FORBIDDING: u32 = flags::IMMUTABLE | flags::APPEND;

pub(super) fn time_of(entry: &Entry) -> Time {
    Time { sec: entry.mtime.sec, nsec: entry.mtime.nsec }
}

/// A failed step, in words that fit after "cannot".
pub(crate) type Failed = (&'static str, io::Error);

/// Takes the forbidding flags from a file or directory that has some.
pub(super) fn lift(handle: BorrowedFd<'_>, stat: &Stat, kind: Kind) -> io::Result<()> {
    if stat.flags & FORBIDDING != 0 {
        set_flags(handle, kind, FORBIDDING, 0)?;
    }
    Ok(())
}

/// Sets those flags of `mask` to what they are in `value`.
pub(super) fn set_flags(handle: BorrowedFd<'_>, kind: Kind, mask: u32, value: u32) -> io::Result<()> {
    let how = match kind {
        Kind::File => How::Read,
        Kind::Directory => How::List,
        // The others are not opened: there would be a driver, or nobody, at the other end.
        _ => return Ok(()),
    };
    flags::set(procfd::reopen(handle, how)?.as_fd(), mask, value).map(|_| ())
}

/// Gives what `handle` stands on all attributes of `wanted` but the forbidding flags. Owner and mode have to
/// succeed; what else could not be given is added to `short`.
pub(crate) fn give(handle: BorrowedFd<'_>, wanted: &Entry, short: &mut Vec<String>) -> Result<(), Failed> {
    let now = stat::of(handle).map_err(|e| ("stat", e))?;
    if (now.uid, now.gid) != (wanted.uid, wanted.gid) {
        entries::set_owner(handle, wanted.uid, wanted.gid).map_err(|e| ("set the owner of", e))?;
    }
    if let Err(e) = xattrs(handle, wanted) {
        short.push(format!("extended attributes: {e}"));
    }
    // Asked anew: owner and ACL change the mode.
    let mode = stat::of(handle).map_err(|e| ("stat", e))?.mode;
    if wanted.kind != Kind::Symlink && mode != wanted.mode {
        procfd::set_mode(handle, wanted.mode).map_err(|e| ("set the mode of", e))?;
        let got = stat::of(handle).map_err(|e| ("stat", e))?.mode;
        if got != wanted.mode {
            return Err(("set the mode of", io::ErrorKind::PermissionDenied.into()));
        }
    }
    let others = flags::VISIBLE & !FORBIDDING;
    if now.flags & others != wanted.flags & others
        && let Err(e) = set_flags(handle, wanted.kind, others, wanted.flags)
    {
        short.push(format!("inode flags: {e}"));
    }
    if now.mtime != time_of(wanted)
        && let Err(e) = entries::set_mtime(handle, time_of(wanted))
    {
        short.push(format!("time of last change: {e}"));
    }
    Ok(())
}

/// Sets the forbidding flags as `wanted` has them.
pub(super) fn forbid(handle: BorrowedFd<'_>, wanted: &Entry, short: &mut Vec<String>) {
    let now = stat::of(handle).map(|s| s.flags & FORBIDDING);
    if now.is_ok_and(|now| now == wanted.flags & FORBIDDING) {
        return;
    }
    if let Err(e) = set_flags(handle, wanted.kind, FORBIDDING, wanted.flags) {
        short.push(format!("inode flags: {e}"));
    }
}

/// Exactly those of `wanted`: a directory's default ACL gives what is new in it others.
fn xattrs(handle: BorrowedFd<'_>, wanted: &Entry) -> io::Result<()> {
    let mut reader = XattrReader::default();
    let made = reader.of_located(handle).map_err(io::Error::other)?;
    if made == wanted.xattrs {
        return Ok(());
    }
    let c_name = |name: &[u8]| CString::new(name).map_err(io::Error::from);
    for (name, _) in made.iter().filter(|(n, _)| wanted.xattrs.iter().all(|(w, _)| w != n)) {
        entries::remove_xattr(handle, &c_name(name)?)?;
    }
    // An ACL last: it may forbid the others to the owner (xattr(7)).
    let (acls, others): (Vec<_>, Vec<_>) = wanted.xattrs.iter().partition(|(n, _)| n.starts_with(b"system."));
    for pair in others.into_iter().chain(acls).filter(|pair| !made.contains(pair)) {
        entries::set_xattr(handle, &c_name(&pair.0)?, &pair.1)?;
    }
    match reader.of_located(handle).map_err(io::Error::other)? == wanted.xattrs {
        true => Ok(()),
        false => Err(io::Error::other("the file system made others of them")),
    }
}
