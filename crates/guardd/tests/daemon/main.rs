//! The real guardd, and guardctl where a person would use it, against private
//! directories: no systemd, no fixed places, root or not.
//!
//! Architecture invariant: every test has a stage of its own and waits for what
//! it expects, never for time to pass. That nothing happened is proved by
//! something later that did.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a failed test says where, and one that is left out says why"
)]

mod accepting;
mod actors;
mod attack;
mod backups;
mod baselines;
mod changes;
mod clients;
mod configurations;
mod deploying;
mod held_open;
mod hostile_state;
mod kept;
mod ledgers;
mod links;
mod lock_files;
mod mounts;
mod random_trees;
mod raw;
mod reads;
mod repositories;
mod restarts;
mod restoring;
mod roots;
mod seals;
mod secret_values;
mod stage;
mod tree;
mod wait;
mod windows;
mod writers;
