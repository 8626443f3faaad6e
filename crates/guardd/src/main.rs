//! The guard daemon's program.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    guardd::main()
}
