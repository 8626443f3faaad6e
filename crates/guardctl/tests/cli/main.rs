//! The real guardctl against a fake daemon: a thread that listens on a Unix
//! socket. What a user sees is compared with the files in `tests/golden/`;
//! `UPDATE_GOLDEN=1 cargo test -p guardctl` writes them again.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a failed test says where")]

mod commands;
mod deployments;
mod evidence;
mod failures;
mod fixtures;
mod help;
mod hostile;
mod offline;
mod on_terminal;
mod support;
