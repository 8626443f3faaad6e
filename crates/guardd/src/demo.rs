//! `guardd demo`: the whole cycle on a sample application, with nothing to
//! install and nothing left behind.
//!
//! It runs the real daemon as a child process with a private configuration and
//! talks to it over its socket like any client. Every step checks what really
//! happened; the first that did not ends the demonstration with an error.

mod sample;
mod steps;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use guard_api::{Client, Exit};

use crate::Failure;

/// The running demonstration: its directory and its daemon, both gone in the end.
struct Stage {
    dir: PathBuf,
    daemon: Child,
}

impl Drop for Stage {
    fn drop(&mut self) {
        // It may have ended already.
        self.daemon.kill().ok();
        self.daemon.wait().ok();
        // Sealed directories have to be opened before they can be removed.
        sample::make_writable(&self.dir);
        if let Err(e) = std::fs::remove_dir_all(&self.dir) {
            tell(&format!("{} is left behind: {e}", self.dir.display()));
        }
    }
}

/// Shows everything; exit 0 only if every step really happened.
pub(crate) fn run() -> Result<Exit, Failure> {
    let began = Instant::now();
    let dir = private_dir()?;
    let app = dir.join("shop");
    let made = sample::make(&app).map_err(|e| failed("make the sample application", &e))?;
    title(&format!("A sample application of {made} files in {}", app.display()));
    let mut stage = Stage { daemon: start_daemon(&dir, &app)?, dir };
    let socket = stage.dir.join("run/control.sock");
    let mut client = connect(&socket, &mut stage.daemon)?;
    steps::all(&mut client, &socket, &app, &stage.dir)?;
    title(&format!("Done: every step happened, in {:.1} seconds", began.elapsed().as_secs_f64()));
    Ok(Exit::Done)
}

fn failed(what: &str, error: &dyn std::error::Error) -> Failure {
    Failure::new(Exit::Failed, format!("cannot {what}: {}", crate::failure::chain(error)))
}

fn private_dir() -> Result<PathBuf, Failure> {
    use std::os::unix::fs::DirBuilderExt;
    let dir = std::env::temp_dir().join(format!("guardd-demo-{}", std::process::id()));
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&dir)
        .map_err(|e| failed(&format!("make {}", dir.display()), &e))?;
    Ok(dir)
}

fn start_daemon(dir: &Path, app: &Path) -> Result<Child, Failure> {
    let text = format!(
        "version = 1\n[daemon]\nstate_dir = {state:?}\nruntime_dir = {run:?}\nlog_dir = {log:?}\n\
         [environments.demo]\nroot = {app:?}\nwritable = [\"media/\", \"logs/\"]\nignore = [\"__pycache__/\"]\n\
         sensitive = [\".env*\"]\nseal = \"read-only\"\n",
        state = dir.join("state"),
        run = dir.join("run"),
        log = dir.join("log"),
    );
    let config = dir.join("guardd.toml");
    std::fs::write(&config, text).map_err(|e| failed("write a configuration", &e))?;
    for name in ["run", "log"] {
        std::fs::create_dir(dir.join(name)).map_err(|e| failed("make a directory", &e))?;
    }
    let own = std::env::current_exe().map_err(|e| failed("find this program", &e))?;
    let diagnostics =
        std::fs::File::create(dir.join("daemon.log")).map_err(|e| failed("make a log file", &e))?;
    Command::new(own)
        .args(["run", "--config"])
        .arg(&config)
        .env_remove("NOTIFY_SOCKET")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(diagnostics)
        .spawn()
        .map_err(|e| failed("start the daemon", &e))
}

fn connect(socket: &Path, daemon: &mut Child) -> Result<Client, Failure> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        match Client::connect(socket) {
            Ok(client) => return Ok(client),
            Err(e) if Instant::now() > deadline => return Err(failed("reach the daemon", &e)),
            Err(_) => {}
        }
        if let Ok(Some(status)) = daemon.try_wait() {
            return Err(Failure::new(Exit::Failed, format!("the daemon ended at once ({status})")));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn title(line: &str) {
    tell(&format!("\n== {line}"));
}

#[expect(clippy::print_stdout, reason = "a demonstration is there to be read")]
fn tell(line: &str) {
    println!("{line}");
}
