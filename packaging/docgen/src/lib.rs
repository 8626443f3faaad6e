//! Man pages and shell completions of `guardd` and `guardctl`, made from the definitions that parse their arguments, so
//! that neither can say something else than the program does.
//!
//! Architecture invariant: nothing is written here by hand about a command; a text that is missing belongs into the
//! command's own definition.

#![forbid(unsafe_code)]

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::Command;
use clap_complete::{Shell, generate};

/// The shells that completions are made for.
pub const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Zsh, Shell::Fish];

/// A program whose pages are made: its definition and the manual's section (man(1), man-pages(7)) it belongs to.
#[derive(Debug, Clone)]
pub struct Program {
    /// The definition with which the program parses its arguments.
    pub command: Command,
    /// `1` for what users run, `8` for daemons and administration.
    pub section: &'static str,
}

/// `guardd` and `guardctl`.
pub fn programs() -> [Program; 2] {
    [
        Program { command: guardd::command(), section: "8" },
        Program { command: guardctl::command(), section: "1" },
    ]
}

/// Why nothing, or not everything, was written.
#[derive(Debug, thiserror::Error)]
pub enum DocgenError {
    /// A directory or file could not be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// What was to be written.
        path: PathBuf,
        /// The system's answer.
        #[source]
        source: io::Error,
    },
}

/// Writes everything below `target`: `man/man8/guardd.8`, `man/man1/guardctl-lock.1`, …, `bash/guardctl`,
/// `zsh/_guardctl`, `fish/guardctl.fish`. Returns the files, in the order of writing.
pub fn write_all(target: &Path) -> Result<Vec<PathBuf>, DocgenError> {
    let mut written = Vec::new();
    for program in programs() {
        for (name, page) in pages(&program).map_err(|source| at(target, source))? {
            let section = program.section;
            let path = target.join(format!("man/man{section}/{name}.{section}"));
            write(&path, &page)?;
            written.push(path);
        }
        for shell in SHELLS {
            let path = completion_path(target, shell, program.command.get_name());
            write(&path, &completion(&program, shell))?;
            written.push(path);
        }
    }
    Ok(written)
}

/// One man page for the program and one for each of its subcommands at every depth (`guardctl-alerts-ack`), as name and
/// roff text.
pub fn pages(program: &Program) -> io::Result<Vec<(String, Vec<u8>)>> {
    // `build` gives subcommands their full names and the arguments they inherit.
    let mut root = program.command.clone().disable_help_subcommand(true);
    root.build();
    let mut found = Vec::new();
    let mut todo = vec![root];
    while let Some(command) = todo.pop() {
        if command.is_hide_set() {
            continue;
        }
        todo.extend(command.get_subcommands().cloned());
        let name = page_name(&command);
        let mut text = Vec::new();
        clap_mangen::Man::new(command)
            .title(name.to_uppercase())
            .section(program.section)
            .source(format!("guardd {}", env!("CARGO_PKG_VERSION")))
            .manual("guardd")
            .date("")
            .render(&mut text)?;
        found.push((name, text));
    }
    found.sort();
    Ok(found)
}

/// The page of `guardctl alerts ack` is `guardctl-alerts-ack`.
pub fn page_name(command: &Command) -> String {
    command.get_display_name().unwrap_or_else(|| command.get_name()).replace(' ', "-")
}

/// The completion script of the program for one shell.
pub fn completion(program: &Program, shell: Shell) -> Vec<u8> {
    let mut text = Vec::new();
    let mut command = program.command.clone();
    let name = command.get_name().to_owned();
    generate(shell, &mut command, name, &mut text);
    text
}

fn completion_path(target: &Path, shell: Shell, program: &str) -> PathBuf {
    match shell {
        Shell::Zsh => target.join(format!("zsh/_{program}")),
        Shell::Fish => target.join(format!("fish/{program}.fish")),
        _ => target.join(format!("bash/{program}")),
    }
}

fn write(path: &Path, content: &[u8]) -> Result<(), DocgenError> {
    if let Some(directory) = path.parent() {
        fs::create_dir_all(directory).map_err(|source| at(directory, source))?;
    }
    fs::write(path, content).map_err(|source| at(path, source))
}

fn at(path: &Path, source: io::Error) -> DocgenError {
    DocgenError::Write { path: path.to_path_buf(), source }
}
