//! Paths as a configuration may write them.

use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};

use crate::config::Daemon;
use crate::parse::Places;
use crate::problem::quoted;
use crate::section::{At, Report};

/// File systems that the kernel makes up: nothing there can be protected or kept.
const KERNELS_OWN: [&str; 3] = ["/proc", "/sys", "/dev"];

/// `PATH_MAX` of linux/limits.h, with its ending NUL.
const LONGEST: usize = 4096;

/// An absolute path that can be a root or a directory of the daemon's, without
/// doubled and trailing slashes. Reports what it is not.
pub(crate) fn absolute(report: &Report, text: &At<String>) -> Option<At<PathBuf>> {
    let path = Path::new(&text.value);
    let problem = |what: &str, fix: String| {
        report.push(text.place.problem(format!("{} {what}", quoted(&text.value)), fix));
        None
    };
    if text.value.is_empty() {
        report.push(text.place.problem("the path is empty", "write an absolute path such as \"/srv/app\""));
        return None;
    }
    if text.value.contains('\0') {
        return problem("holds a NUL byte, which no path can", "remove the `\\u0000`".to_owned());
    }
    if text.value.len() >= LONGEST {
        return problem("is longer than Linux allows", format!("keep it under {LONGEST} bytes"));
    }
    if text.value.starts_with(['~', '$']) {
        return problem("is not absolute: `~` and `$` are not expanded", "write the whole path".to_owned());
    }
    if !path.is_absolute() {
        return problem("is not absolute", "write the whole path, beginning with `/`".to_owned());
    }
    if text.value.split('/').any(|c| matches!(c, "." | "..")) {
        let fix = format!("write {}", quoted(&normal(path).to_string_lossy()));
        return problem("has `.` or `..` in it", fix);
    }
    let value = normal(path);
    if value == Path::new("/") {
        return problem("is the whole system", "name a directory below it, such as \"/srv/app\"".to_owned());
    }
    if let Some(own) = KERNELS_OWN.iter().find(|own| value.starts_with(own)) {
        return problem(
            &format!("lies in {own}, which the kernel makes up"),
            "name a directory on a real file system".to_owned(),
        );
    }
    Some(At { value, place: text.place.clone() })
}

/// The path by its text alone: single slashes, `.` and `..` resolved.
fn normal(path: &Path) -> PathBuf {
    let mut out = PathBuf::from("/");
    for c in path.components() {
        match c {
            Component::Normal(name) => out.push(name),
            Component::ParentDir => {
                out.pop();
            }
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
    out
}

/// Room for the path of a Unix socket: `sun_path` of unix(7) without its NUL.
const SOCKET_PATH: usize = 107;

/// The socket's name below `runtime_dir`.
const SOCKET: &str = "control.sock";

/// Refuses a `runtime_dir` in which no socket can be made.
pub(crate) fn socket_fits(report: &Report, daemon: &Daemon, places: &Places) {
    let length = daemon.runtime_dir.as_os_str().len() + 1 + SOCKET.len();
    if length <= SOCKET_PATH {
        return;
    }
    let here = places.own_dirs.iter().find(|d| d.value == daemon.runtime_dir);
    if let Some(at) = here {
        report.push(at.place.problem(
            format!("with /{SOCKET} below it this is {length} bytes long, and a Unix socket's path ends at {SOCKET_PATH}"),
            "name a directory with a shorter path",
        ));
    }
}

/// Refuses roots that overlap, and the daemon's own directories where they
/// would be watched as part of a root or would hold one. `real` says which
/// directory a path leads to.
pub(crate) fn compare(report: &Report, places: &Places, real: impl Fn(&Path) -> PathBuf) {
    let roots: Vec<_> = places.roots.iter().map(|(name, at)| (name, at, real(&at.value))).collect();
    for (i, (name, at, path)) in roots.iter().enumerate() {
        for (other_name, other_at, other) in roots.iter().take(i) {
            // Names are unique; the same name twice is reported as that.
            if name == other_name {
                continue;
            }
            let what = if path == other {
                format!("this is the root of `{other_name}` too")
            } else if path.starts_with(other) {
                format!("this root lies in that of `{other_name}`, {}", quoted_path(&other_at.value))
            } else if other.starts_with(path) {
                format!("the root of `{other_name}`, {}, lies in this one", quoted_path(&other_at.value))
            } else {
                continue;
            };
            report.push(at.place.problem(
                format!("{what}{}", alias(&at.value, path)),
                "keep one environment for the whole tree, or give them directories apart",
            ));
        }
    }
    for dir in &places.own_dirs {
        let path = real(&dir.value);
        for (name, at, root) in &roots {
            let root_is = format!("the root of `{name}`, {}", quoted_path(&at.value));
            let what = if path.starts_with(root) {
                format!("{} lies in {root_is}", quoted_path(&dir.value))
            } else if root.starts_with(&path) {
                format!("{} holds {root_is}", quoted_path(&dir.value))
            } else {
                continue;
            };
            let fix = "guardd writes there, so name a directory outside of every root";
            report.push(dir.place.problem(format!("{what}{}", alias(&dir.value, &path)), fix));
        }
    }
    for (i, dir) in places.own_dirs.iter().enumerate() {
        let path = real(&dir.value);
        if let Some(other) = places.own_dirs.iter().take(i).find(|o| real(&o.value) == path) {
            report.push(dir.place.problem(
                format!("{} serves `{}` already", quoted_path(&dir.value), other.place.key),
                "give each a directory of its own",
            ));
        }
    }
}

fn quoted_path(path: &Path) -> String {
    quoted(&path.to_string_lossy())
}

/// Says so where a path is not what it looks like.
fn alias(written: &Path, real: &Path) -> String {
    if written == real {
        String::new()
    } else {
        format!(" ({} leads to {})", quoted_path(written), quoted_path(real))
    }
}

/// Refuses roots that are one directory under two names, or one in the other,
/// though their paths have nothing to do with each other: bind mounts.
pub(crate) fn compare_identities(report: &Report, places: &Places) {
    let found: Vec<_> =
        places.roots.iter().map(|(name, at)| (name, at, real(&at.value), identities(&at.value))).collect();
    for (i, (name, at, path, way)) in found.iter().enumerate() {
        for (other_name, other_at, other, other_way) in found.iter().take(i) {
            if name == other_name || path.starts_with(other) || other.starts_with(path) {
                continue;
            }
            let what = match (way.first(), other_way.first()) {
                (Some(this), Some(other)) if this == other => "is the same directory as",
                (Some(this), _) if other_way.contains(this) => "holds",
                (_, Some(other)) if way.contains(other) => "lies in",
                _ => continue,
            };
            let root = quoted_path(&other_at.value);
            report.push(at.place.problem(
                format!("by a mount, this {what} the root of `{other_name}`, {root}"),
                "keep one environment for the whole tree, or give them directories apart",
            ));
        }
    }
}

/// Device and inode of a directory and of those above it; empty where it does not exist.
fn identities(path: &Path) -> Vec<(u64, u64)> {
    let Ok(canonical) = path.canonicalize() else { return Vec::new() };
    canonical.ancestors().filter_map(|p| p.metadata().ok()).map(|m| (m.dev(), m.ino())).collect()
}

/// Where a path really leads: canonical as far as it exists, as written below that.
pub(crate) fn real(path: &Path) -> PathBuf {
    for ancestor in path.ancestors() {
        if let Ok(canonical) = ancestor.canonicalize() {
            return match path.strip_prefix(ancestor) {
                Ok(rest) if !rest.as_os_str().is_empty() => canonical.join(rest),
                _ => canonical,
            };
        }
    }
    path.to_owned()
}
