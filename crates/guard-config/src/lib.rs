//! `guardd.toml` and `environments.d/*.toml` to a validated [`Config`].
//!
//! Architecture invariant: what leaves this crate holds no bad state, and no
//! default stands in for something that could not be read. Every mistake is
//! reported in one go, each with its file, line and key and with what to write
//! instead. Nothing here changes anything on disk.

#![forbid(unsafe_code)]

mod blame;
mod config;
mod deploy;
mod draft;
mod duration;
pub mod init;
mod keys;
mod load;
mod parse;
mod patterns;
mod place;
mod problem;
#[cfg(test)]
mod reference;
mod section;
mod suggest;
mod syntax;
mod trust;
mod validation;
mod words;

pub use config::{ALLOWED_COMMANDS, Backup, Config, Daemon, Environment, OnTamper, Readers, Watch};
pub use load::{DEFAULT_PATH, Loaded, PATH_VARIABLE, default_config_path, load};
pub use parse::{SourceFile, parse};
pub use problem::{Problem, Problems};
