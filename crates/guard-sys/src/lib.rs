//! Everything raw about Linux, and all unsafe code there is.
//!
//! Architecture invariant: a thin layer over system calls that knows nothing of
//! guardd. No entry, no policy, no log line; what a call's answer means is
//! decided above. No other crate of the workspace has `unsafe` in it.

pub mod audit;
pub mod clock;
pub mod dir;
pub mod entries;
pub mod fanotify;
pub mod fd_store;
pub mod flags;
pub mod identity;
pub mod journal;
pub mod mounts;
pub mod open;
pub mod peer;
pub mod place;
pub mod priority;
pub mod process;
pub mod process_events;
pub mod procfd;
pub mod read;
pub mod residency;
pub mod rights;
pub mod sessions;
pub mod space;
pub mod stat;
pub mod usage;
pub mod writers;
pub mod xattr;

pub use rustix::io::Errno;
