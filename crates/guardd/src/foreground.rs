//! `guardd run --root DIR`: a directory of one's own, guarded in the foreground.

use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use guard_api::Exit;
use guard_config::{Config, Daemon, Environment};
use guard_model::policy::PatternText;
use guard_model::{Policy, Seal};

use crate::{Failure, IsJournal, daemon, run_started, start_logging};

/// The environment's name.
const NAME: &str = "default";

/// Guards `root` until Ctrl-C.
pub(crate) fn run(root: &Path) -> Result<Exit, Failure> {
    start_logging(IsJournal::Never);
    let root = root
        .canonicalize()
        .map_err(|e| Failure::new(Exit::Usage, format!("cannot use {}: {e}", root.display())))?;
    let state_dir = state_home()?.join("guardd").join(short_name(&root));
    let socket = guard_api::user_socket().ok_or_else(no_home)?;
    let runtime_dir = socket.parent().unwrap_or(Path::new("/")).to_owned();
    for dir in [&state_dir, &runtime_dir] {
        make_private(dir)?;
        if dir.starts_with(&root) {
            let text =
                format!("{} lies inside the directory to guard and would change all the time", dir.display());
            return Err(Failure::new(Exit::Usage, text)
                .hint("set XDG_STATE_HOME and XDG_RUNTIME_DIR to directories outside of it"));
        }
    }
    let policy = Policy::new(PatternText::default())
        .map_err(|_| Failure::new(Exit::Failed, "the empty policy is refused"))?;
    let mut environment = Environment::new(NAME.to_owned(), root, policy);
    environment.seal = Seal::None;
    environment.rehash = Duration::from_secs(300);
    let settings = Daemon { log_dir: state_dir.join("log"), state_dir, runtime_dir, ..Daemon::default() };
    make_private(&settings.log_dir)?;
    run_started(daemon::Start {
        config: Config { daemon: settings, environments: vec![environment] },
        sha256: guard_model::ledger::line_hash(b""),
        files: Vec::new(),
        config_path: None,
        refused: None,
        foreground: true,
    })
}

fn no_home() -> Failure {
    Failure::new(Exit::Usage, "there is no place for state: neither XDG_STATE_HOME nor HOME is set")
}

/// The XDG base directory specification: `XDG_STATE_HOME`, else `~/.local/state`.
fn state_home() -> Result<PathBuf, Failure> {
    let absolute = |name| std::env::var_os(name).map(PathBuf::from).filter(|p| p.is_absolute());
    absolute("XDG_STATE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/state")))
        .ok_or_else(no_home)
}

/// A name for a root's own state: its last component and a part of its path's digest.
fn short_name(root: &Path) -> String {
    let digest = guard_model::ledger::line_hash(root.as_os_str().as_bytes()).to_string();
    let plain: String = root
        .file_name()
        .map(|n| n.to_string_lossy().chars().filter(|c| c.is_ascii_alphanumeric()).take(20).collect())
        .unwrap_or_default();
    format!("{plain}-{}", digest.get(..12).unwrap_or_default())
}

fn make_private(dir: &Path) -> Result<(), Failure> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)
        .map_err(|e| Failure::new(Exit::Failed, format!("cannot make {}: {e}", dir.display())))
}
