//! A report for people, for programs, for code scanning and for test reports.

mod junit;
mod sarif;
mod text;

pub use junit::junit;
pub use sarif::sarif;
pub use text::text;
