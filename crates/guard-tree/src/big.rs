//! Big files, each of which is work of its own, so that those of one directory are not read one after the other by the
//! thread that has the directory.

use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use guard_model::{Class, RelPath};

use crate::walk::Passages;

/// A file of this size or more is put off until its directory was gone through, for whoever is free.
pub(crate) const BIG: u64 = 4 << 20;

/// A directory that was gone through but for its big files.
pub(crate) struct Waiting<D> {
    pub(crate) path: RelPath,
    pub(crate) fd: OwnedFd,
    pub(crate) class: Class,
    pub(crate) passages: Option<Passages>,
    pub(crate) mount: Option<u64>,
    pub(crate) dir: Mutex<D>,
}

/// One of them. Who drops the last leaves the directory.
pub(crate) struct BigFile<D> {
    pub(crate) of: Arc<Waiting<D>>,
    pub(crate) name: Box<[u8]>,
}
