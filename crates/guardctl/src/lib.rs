//! The client of the guard daemon.
