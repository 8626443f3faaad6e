//! What every backend has to do, by inotify.

#![allow(clippy::unwrap_used, clippy::panic, reason = "this is test code, in a file of its own")]

mod rows;
mod support;

const SOURCE: guard_watch::Source = guard_watch::Source::Inotify;
