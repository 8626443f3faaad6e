//! The client of the guard daemon: arguments in, one call on the control
//! socket, rendering out. A library only so that manual pages and completions
//! can be made from [`command()`].
//!
//! Architecture invariant: nothing is decided here and nothing of guardd's own
//! files is read; whatever another program could not learn by the control
//! socket, guardctl does not know either. No text of the daemon reaches a
//! terminal before `safe` has made it harmless.

#![forbid(unsafe_code)]

mod arguments;
mod ask;
mod command;
mod ctl;
mod failure;
mod place;
mod progress;
mod quantity;
mod reach;
mod refusal;
mod safe;
mod table;
mod terminal;
mod users;
mod view;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, FromArgMatches};

use crate::arguments::Arguments;
use crate::ctl::Ctl;

/// The command line's definition, for manual pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Does what the arguments say, the program's name first.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let parsed = command().try_get_matches_from(args).and_then(|m| Arguments::from_arg_matches(&m));
    let arguments = match parsed {
        Ok(arguments) => arguments,
        Err(e) => {
            // Help and version are asked for; everything else is a usage error, 2.
            let code = u8::try_from(e.exit_code()).unwrap_or(2);
            return match e.print() {
                Ok(()) => ExitCode::from(code),
                Err(_) => ExitCode::from(2),
            };
        }
    };
    let mut ctl = Ctl::new(&arguments.globals);
    let outcome = command::dispatch(&mut ctl, arguments.command);
    ctl.finish(outcome)
}
