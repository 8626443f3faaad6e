//! Backups: what goes in comes out, and nothing else does.

mod keep;
mod opened_by_hand;
mod sharing;
mod stage;
mod tamper;
