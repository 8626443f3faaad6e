//! What every backend has to do, by fanotify; by inotify where this user may not have it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code, in a file of its own")]

mod rows;
mod support;

const SOURCE: guard_watch::Source = guard_watch::Source::Best;
