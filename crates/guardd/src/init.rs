//! `guardd init`: a configuration by looking at a directory.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use guard_api::Exit;
use guard_config::{default_config_path, init::propose, init::propose_as};
use guard_model::path::escape;

use crate::Failure;
use crate::cli::Init;

/// Writes a configuration for a directory; never over one that is there.
#[expect(clippy::print_stdout, reason = "the answer is the program's output")]
#[expect(clippy::print_stderr, reason = "what is said beside the answer")]
pub(crate) fn run(asked: &Init) -> Result<Exit, Failure> {
    let proposal = match &asked.name {
        Some(name) => propose_as(&asked.dir, name),
        None => propose(&asked.dir),
    }
    .map_err(|e| Failure::of(Exit::Usage, &e))?;
    let (name, toml) = (&proposal.environment, &proposal.toml);
    let written = match asked.print {
        true => None,
        false => {
            let path = asked.output.clone().unwrap_or_else(|| place(&default_config_path(), name));
            write_new(&path, toml)?;
            Some(escape(path.as_os_str().as_bytes()))
        }
    };
    if asked.json {
        let answer = serde_json::json!({
            "environment": name,
            "root": escape(proposal.root.as_os_str().as_bytes()),
            "file": written,
            "toml": toml,
            "notes": proposal.notes,
        });
        println!("{answer}");
        return Ok(Exit::Done);
    }
    match &written {
        Some(path) => println!("{path}"),
        None => print!("{toml}"),
    }
    for note in &proposal.notes {
        eprintln!("- {note}");
    }
    if written.is_some() {
        eprintln!(
            "\nRead it, change what does not fit, then:\n  guardd check-config\n  systemctl enable --now guardd    (or, where it runs: guardctl reload)\n  guardctl lock {name}"
        );
    }
    Ok(Exit::Done)
}

fn place(main: &Path, name: &str) -> PathBuf {
    match main.exists() {
        true => main.parent().unwrap_or(Path::new("/")).join("environments.d").join(format!("{name}.toml")),
        false => main.to_owned(),
    }
}

fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |what: &str, e: std::io::Error| {
        let failure = Failure::new(Exit::Failed, format!("cannot {what} {}: {e}", path.display()));
        match e.kind() {
            std::io::ErrorKind::PermissionDenied => {
                failure.hint("run it as root, or choose another place with --output")
            }
            _ => failure,
        }
    };
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir).map_err(|e| failed("make the directory of", e))?;
    }
    let created = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o644).open(path);
    let mut file = created.map_err(|e| match e.kind() {
        std::io::ErrorKind::AlreadyExists => Failure::new(
            Exit::Refused,
            format!("{} is there already; nothing was written", path.display()),
        )
        .hint(
            "--output names another place, --print shows the proposal to compare, --name gives another name",
        ),
        _ => failed("write", e),
    })?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|e| failed("write", e))
}
