//! The bare work of a scan: list, statx, extended attributes, open, read, SHA-256, compare with what was recorded.
//!
//! ```text
//! floor record|check|sweep|stat|seal|unseal TREE RECORDS [THREADS]
//! ```
//!
//! `record` reads everything and writes RECORDS; `check` reads everything and compares; `sweep` compares all but content;
//! `stat` only lists and calls statx; `seal` takes write permission from every entry and sets the immutable flag, `unseal` gives both
//! back. Nothing is checked twice and nobody is protected from: what guardd takes beyond
//! this is the price of being certain.

#![forbid(unsafe_code)]
#![allow(clippy::print_stdout, reason = "its answer, as JSON")]

mod records;
mod stack;
mod walk;

use std::error::Error;
use std::path::PathBuf;
use std::process::ExitCode;

use records::{Reader, Writer};
use walk::{Floor, Work};

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<ExitCode, Failure> {
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    let (work, tree, records, threads) = match arguments.as_slice() {
        [work, tree, records] => (work, tree, records, 2),
        [work, tree, records, threads] => {
            (work, tree, records, threads.to_str().ok_or("how many threads?")?.parse()?)
        }
        _ => return Err("floor record|check|sweep|stat|seal|unseal TREE RECORDS [THREADS]".into()),
    };
    let (tree, records) = (PathBuf::from(tree), PathBuf::from(records));
    let work = match work.to_str() {
        Some("record") => Work::Record(Writer::create(&records)?),
        Some("check") => Work::Check(Reader::open(&records)?),
        Some("sweep") => Work::Sweep(Reader::open(&records)?),
        Some("stat") => Work::Stat,
        Some("seal") => Work::Marks { sealed: true },
        Some("unseal") => Work::Marks { sealed: false },
        _ => return Err("the work is record, check, sweep, stat, seal or unseal".into()),
    };
    let done = Floor::run(&tree, work, threads)?;
    println!(
        "{{\"entries\":{},\"bytes\":{},\"directories_that_differ\":{}}}",
        done.entries, done.bytes, done.differing
    );
    Ok(ExitCode::from(u8::from(done.differing > 0)))
}
