//! The guard daemon's program.

use std::process::ExitCode;

fn main() -> ExitCode {
    guardd::main()
}
