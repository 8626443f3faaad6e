//! Checks of contents: syntax by type, and secrets. What could not be checked
//! is listed as that, never as passed.

mod compose;
mod dotenv;
mod finding;
mod interpreter;
mod json;
mod kind;
mod nginx;
mod own;
mod set;
mod shell;
mod toml_text;
pub(crate) mod yaml;

pub use finding::{Finding, Level, Report, Unchecked};
pub use kind::{Kind, is_dotenv, is_template};
pub use own::OwnValidator;
pub use set::{Checker, Options};
