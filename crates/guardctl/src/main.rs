//! The client of the guard daemon; everything is in the library.

#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    guardctl::run(std::env::args_os())
}
