//! An alert's way out: log files, journald, the terminal, a command.
//!
//! Every sink has a thread, a place in the ledger up to which it has delivered,
//! and nothing else in common with the others. It pulls records from the ledger,
//! so what it sends is durable already; one that is dead or hangs is behind, and
//! goes on where it was when it works again.
//!
//! Architecture invariant: nothing here decides what is an alert, and nothing
//! here can be waited for by whoever detects one. A sink never skips a record,
//! and its failure is shown, never swallowed.

#![forbid(unsafe_code)]

mod bell;
mod command;
mod cursor;
mod error;
mod feed;
mod health;
mod journald;
mod kinds;
mod ledger;
mod log_file;
mod notice;
mod outlet;
mod render;
mod sinks;
mod terminal;
mod text;
mod worker;

pub use error::{AlertError, OutletError};
pub use feed::{Records, Source, SourceError};
pub use health::SinkHealth;
pub use sinks::{NotifyPatience, SinkConfig, Sinks};
