//! Making the new entry at its temporary name.

use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use guard_model::{Digest, Entry, Kind, RelPath};
use guard_sys::stat::FileType;
use guard_sys::{entries, place};
use sha2::{Digest as _, Sha256};

use super::attributes::{self, Failed};
use super::{ContentOf, PutBackError};

/// What was made, and attributes that it could not be given.
pub(super) type Made = (OwnedFd, Vec<String>);

/// A failure that leaves something half made at the temporary name.
pub(super) struct HalfMade {
    pub(super) made: Option<OwnedFd>,
    pub(super) error: PutBackError,
}

/// Makes `wanted`, whole and on the disk, as `name` in `dir`: everything but the forbidding flags.
pub(super) fn make(
    dir: BorrowedFd<'_>,
    name: &[u8],
    wanted: &Entry,
    path: &RelPath,
    content: ContentOf<'_>,
    io: &dyn Fn(Failed) -> PutBackError,
) -> Result<Made, HalfMade> {
    let unmade = |error| HalfMade { made: None, error };
    let not_makeable = |why| unmade(PutBackError::NotMakeable { path: path.clone(), why });
    let made = match wanted.kind {
        Kind::File => {
            let Some(digest) = wanted.sha256 else {
                return Err(not_makeable("it could not be read when it was recorded"));
            };
            let file = place::create(dir, name).map_err(|e| unmade(io(("make a copy of", e))))?;
            if let Err(error) = fill(file.as_fd(), wanted, &digest, path, content, io) {
                return Err(HalfMade { made: Some(file), error });
            }
            file
        }
        Kind::Directory => {
            entries::make_directory(dir, name).map_err(|e| unmade(io(("make the directory", e))))?
        }
        Kind::Symlink => {
            let target = wanted.target.as_deref().unwrap_or_default();
            entries::make_symlink(dir, name, target).map_err(|e| unmade(io(("make the link", e))))?
        }
        Kind::Fifo => node(dir, name, FileType::Fifo, 0, io).map_err(unmade)?,
        Kind::CharDevice => node(dir, name, FileType::CharacterDevice, wanted.rdev, io).map_err(unmade)?,
        Kind::BlockDevice => node(dir, name, FileType::BlockDevice, wanted.rdev, io).map_err(unmade)?,
        Kind::Socket => return Err(not_makeable("a socket is made by whoever listens on it")),
    };
    let mut short = Vec::new();
    let done = attributes::give(made.as_fd(), wanted, &mut short).and_then(|()| match wanted.kind {
        Kind::File => place::to_disk(&made).map_err(|e| ("write the copy of", e)),
        _ => Ok(()),
    });
    match done {
        Ok(()) => Ok((made, short)),
        Err(e) => Err(HalfMade { made: Some(made), error: io(e) }),
    }
}

fn node(
    dir: BorrowedFd<'_>,
    name: &[u8],
    kind: FileType,
    device: u64,
    io: &dyn Fn(Failed) -> PutBackError,
) -> Result<OwnedFd, PutBackError> {
    entries::make_node(dir, name, kind, device).map_err(|e| io(("make the node", e)))
}

fn fill(
    file: BorrowedFd<'_>,
    wanted: &Entry,
    digest: &Digest,
    path: &RelPath,
    content: ContentOf<'_>,
    io: &dyn Fn(Failed) -> PutBackError,
) -> Result<(), PutBackError> {
    let mut out = Checked { file, at: 0, most: wanted.size, hash: Sha256::new(), failed: None };
    let got = content(digest, &mut out);
    if let Some(e) = out.failed {
        return Err(io(("write the copy of", e)));
    }
    got.map_err(|source| PutBackError::Content { path: path.clone(), source })?;
    if out.at != wanted.size || Digest(out.hash.finalize().into()) != *digest {
        return Err(PutBackError::OtherContent { path: path.clone(), wanted: *digest });
    }
    // What was not written at the end, because it is zeros, is there all the same.
    place::set_length(file, wanted.size).map_err(|e| io(("write the copy of", e)))
}

/// Writes a file from its beginning and counts a digest; never more than was announced.
struct Checked<'a> {
    file: BorrowedFd<'a>,
    at: u64,
    most: u64,
    hash: Sha256,
    failed: Option<io::Error>,
}

impl Write for Checked<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let end = self.at.saturating_add(bytes.len() as u64);
        if end > self.most {
            return Err(io::Error::other("more bytes than were recorded"));
        }
        self.hash.update(bytes);
        // What is not written stays a hole, as most of the zeros will have been.
        if bytes.iter().any(|&b| b != 0)
            && let Err(e) = place::write_at(self.file, bytes, self.at)
        {
            let told = io::Error::from(e.kind());
            self.failed = Some(e);
            return Err(told);
        }
        self.at = end;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
