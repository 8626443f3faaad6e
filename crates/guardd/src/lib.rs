//! The guard daemon.
