//! What works without the daemon is guardd's own: found, and run in our place.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use guard_api::Exit;

use crate::ctl::{Ctl, Outcome};
use crate::failure::Failure;

/// `guardd verify --offline --file …`
pub(crate) fn verify(ctl: &mut Ctl, file: PathBuf, key: Option<PathBuf>, head: Option<String>) -> Outcome {
    let mut arguments = vec![OsString::from("--file"), file.into()];
    let key = key.map(PathBuf::into_os_string);
    for (option, value) in [("--key", key), ("--head", head.map(OsString::from))] {
        if let Some(value) = value {
            arguments.extend([OsString::from(option), value]);
        }
    }
    run_guardd(ctl, &["verify", "--offline"], arguments)
}

/// Becomes guardd with these arguments; its exit code is ours.
pub(crate) fn run_guardd(ctl: &mut Ctl, command: &[&str], mut arguments: Vec<OsString>) -> Outcome {
    let json = OsStr::new("--json");
    if ctl.json && !arguments.iter().any(|a| a == json) {
        arguments.push(json.to_owned());
    }
    ctl.flush()?;
    let words = command.join(" ");
    let Some(program) = find() else {
        return Err(Failure::new(
            Exit::Failed,
            format!("cannot run guardd {words}: there is no guardd beside guardctl or in PATH"),
        )
        .hint("it is in the package guardd"));
    };
    let e = Command::new(&program).args(command).args(arguments).exec();
    Err(Failure::new(Exit::Failed, format!("cannot run {} {words}: {e}", program.display())))
}

/// Beside this program first: the same version. Then PATH, then where the package puts it,
/// which is not in everybody's PATH.
fn find() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join("guardd")));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).filter(|d| d.is_absolute()).map(|d| d.join("guardd"));
    beside
        .into_iter()
        .chain(in_path)
        .chain(["/usr/sbin/guardd".into(), "/usr/bin/guardd".into()])
        .find(|p| is_program(p))
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}
