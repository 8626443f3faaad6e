//! What guardd itself does: found beside guardctl or in PATH, and run in its place.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support;

/// guardctl alone in a directory, and a `guardd` that tells its arguments.
struct Place {
    dir: tempfile::TempDir,
}

impl Place {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("bin")).unwrap();
        std::fs::create_dir_all(dir.path().join("path")).unwrap();
        support::copy_program(Path::new(env!("CARGO_BIN_EXE_guardctl")), &dir.path().join("bin/guardctl"));
        Self { dir }
    }

    fn guardd_in(&self, place: &str) {
        let path = self.dir.path().join(place).join("guardd");
        let script = self.dir.path().join("script");
        std::fs::write(&script, format!("#!/bin/sh\necho {place}; printf '<%s>' \"$@\"; exit 6\n")).unwrap();
        std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
        support::copy_program(&script, &path);
    }

    fn run(&self, args: &[&str]) -> (Option<i32>, String, String) {
        let path = PathBuf::from("relative").join(":").display().to_string();
        let path = format!("{path}:{}:/usr/bin:/bin", self.dir.path().join("path").display());
        let mut command = Command::new(self.dir.path().join("bin/guardctl"));
        let output =
            command.args(args).env_clear().env("PATH", path).current_dir(Path::new("/")).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }
}

#[test]
fn the_one_beside_comes_first_and_its_exit_code_is_ours() {
    let place = Place::new();
    place.guardd_in("path");
    let (code, out, err) = place.run(&["init", "/srv/app", "--force", "-x"]);
    assert_eq!((code, out.as_str()), (Some(6), "path\n<init></srv/app><--force><-x>"), "{err}");
    place.guardd_in("bin");
    let (code, out, _) = place.run(&["check-config", "--help"]);
    assert_eq!((code, out.as_str()), (Some(6), "bin\n<check-config><--help>"));
    let (_, out, _) = place.run(&["--json", "check-config"]);
    assert_eq!(out, "bin\n<check-config><--json>");
    let (_, out, _) = place.run(&["log", "verify", "--file", "a b", "--key", "k", "--head", "h", "--json"]);
    assert_eq!(out, "bin\n<verify><--offline><--file><a b><--key><k><--head><h><--json>");
}

#[test]
fn none_at_all() {
    let place = Place::new();
    // On a machine with guardd installed there is one.
    if Path::new("/usr/sbin/guardd").exists() || Path::new("/usr/bin/guardd").exists() {
        return;
    }
    let (code, out, err) = place.run(&["init", "/srv/app"]);
    assert_eq!((code, out.as_str()), (Some(5), ""));
    assert!(
        err.starts_with(
            "error: cannot run guardd init: there is no guardd beside guardctl or in PATH\n\nhint: "
        ),
        "{err}"
    );
    // Neither a directory nor a file that is no program will do.
    std::fs::create_dir(place.dir.path().join("bin/guardd")).unwrap();
    std::fs::write(place.dir.path().join("path/guardd"), "").unwrap();
    assert_eq!(place.run(&["init", "/srv/app"]).0, Some(5));
}
