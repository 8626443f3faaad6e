//! The kernel's hints, merged into one stream of touches and gaps.
//!
//! Each environment has its own inotify instance (a large one several), reader and worker
//! threads, so a storm in one tree neither delays nor overflows another. The
//! reader's callback only drops access events and adds a path to a set; the
//! worker adds and removes watches and hands [`Hint`]s on. One more thread waits
//! for the mount table, which no inotify event tells of. Who merely reads is told
//! by [`Readers`], apart from all that.
//!
//! Architecture invariant: nothing here compares, hashes or believes anything.
//! A hint says where to look; an observation made elsewhere decides. Whatever
//! may have been missed is said as a [`Hint::Gap`] or a [`Hint::Tree`], never
//! passed over.

#![forbid(unsafe_code)]

mod attribution;
mod backend;
mod canary;
mod cover;
mod environment;
mod error;
mod fanotify;
mod hint;
mod inbox;
mod inotify;
mod keeper;
mod listening;
mod mounts;
mod programs;
mod readers;
mod tree;
mod watcher;

#[cfg(test)]
mod tests;

pub use error::WatchError;
pub use hint::{EnvId, Hint, WatchReport};
pub use keeper::Keeper;
pub use programs::Memory;
pub use readers::{Accessed, By as ReadBy, ReadHint, Readers};
pub use watcher::{Source, Watcher};
