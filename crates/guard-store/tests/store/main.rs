//! guard-store against real files, real tools and hostile bytes.

mod baseline;
mod concurrency;
mod index;
mod keys;
mod ledger;
mod ledger_crash;
mod ledger_tamper;
mod state;
mod support;
