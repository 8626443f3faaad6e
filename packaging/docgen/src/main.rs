//! `guard-docgen DIRECTORY`: writes man pages and completions below the directory.

#![forbid(unsafe_code)]

use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut arguments = env::args_os().skip(1);
    let (Some(target), None) = (arguments.next().map(PathBuf::from), arguments.next()) else {
        return say("usage: guard-docgen DIRECTORY", ExitCode::from(2));
    };
    match guard_docgen::write_all(&target) {
        Ok(files) => say(&format!("{} files", files.len()), ExitCode::SUCCESS),
        Err(error) => {
            let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
            say(&format!("error: {error}{cause}"), ExitCode::from(5))
        }
    }
}

/// Says it on stderr; where that is closed, the exit code has to do.
fn say(text: &str, code: ExitCode) -> ExitCode {
    match writeln!(io::stderr(), "{text}") {
        Ok(()) | Err(_) => code,
    }
}
