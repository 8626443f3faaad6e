//! Looking at one entry.

use guard_model::Entry;

/// What to do with a regular file's content.
///
/// However it is looked at, an entry whose ctime is less than 20 ms old is given
/// time to settle first: within that time the kernel may stamp two changes alike.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// Attributes only; `sha256` is `None`.
    Skip,
    /// Read and hash it.
    Read,
    /// Read it where ctime, mtime, size, inode or device differ from this entry's,
    /// or this entry has no `sha256`; else `sha256` is `None`.
    IfDiffers(&'a Entry),
}
