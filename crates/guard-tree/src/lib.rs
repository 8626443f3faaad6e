//! Hands on a protected tree: walk, observe, hash, set modes and flags.
//!
//! Everything starts from a [`Root`], a handle on an environment's top
//! directory. [`Root::observe`] looks at one path, [`scan()`] at all of them, and
//! [`Root::set_marks`] and [`Root::give_own_inode`] are what changes something here.
//!
//! Architecture invariant: nothing here ever leaves its root. Paths are resolved
//! beneath the root's handle without following a single symbolic link, so that a
//! path race can make an operation fail and never make it hit another file.
//! Nothing is decided here: what an observation means is guard-model's business.

#![forbid(unsafe_code)]

mod batch;
mod big;
mod content;
mod error;
mod glance;
mod lanes;
mod links;
mod literals;
mod marks;
mod observe;
mod open_file;
mod pace;
mod passage;
pub mod put_back;
mod readers;
mod relink;
pub mod replica;
mod root;
mod scan;
mod stack;
mod tally;
mod telling;
mod walk;

pub use error::TreeError;
pub use glance::{Glance, Glancer, Links};
pub use links::LinkCounts;
pub use marks::{MarksSet, WhyNoFlags};
pub use observe::{Content, has_settled};
pub use pace::Pace;
pub use put_back::{Desk, Keeper, Placed, PutBack, PutBackError};
pub use relink::{Leftover, LinkedName};
pub use root::{Named, Root, RootCheck};
pub use scan::{OpenWriters, Progress, ScanContent, ScanOptions, ScanReport, Visitor, scan};
