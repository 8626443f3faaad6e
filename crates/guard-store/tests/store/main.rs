//! guard-store against real files, real tools and hostile bytes.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking and says why it skips"
)]

mod backup;
mod baseline;
mod concurrency;
mod documented;
mod full_disk;
mod index;
mod keys;
mod ledger;
mod ledger_crash;
mod ledger_tamper;
mod mount;
mod state;
mod support;
