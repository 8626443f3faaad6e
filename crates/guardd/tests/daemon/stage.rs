//! One daemon with a tree, a configuration and directories of its own.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use guard_api::method::{
    Accept, AcceptReply, AcknowledgeAlert, Check, ListAlerts, Lock, Log, ShowAlert, Status, StatusReply,
    Unlock, Watch,
};
use guard_api::wire::{
    Alert, Change, CheckResult, Environment, Finding, LockResult, Record, State, UnlockResult,
};
use guard_api::{CallError, Client, ClientError, Known, Method};
use rustix::process::{Pid, Signal, kill_process};

use crate::{tree, wait};

/// The environment's name in every stage.
pub(crate) const ENV: &str = "site";

/// The daemon's program.
pub(crate) const GUARDD: &str = env!("CARGO_BIN_EXE_guardd");

/// The site's configuration with its seal; it is not read again by itself.
macro_rules! site {
    ($seal:literal) => {
        concat!(
            "\nseal = \"",
            $seal,
            r#""
rehash = "1h"
writable = ["logs/", "media/"]
ignore = ["*.pyc", "__pycache__/"]
sensitive = [".env*"]
"#
        )
    };
}

/// What an environment is configured to be, unless a test says otherwise: not
/// sealed, so that root and others meet the same tree.
pub(crate) const PLAIN: &str = site!("none");

/// As [`PLAIN`], sealed.
pub(crate) const SEALED: &str = site!("read-only");

/// As [`SEALED`], with the immutable flag where it can be set.
pub(crate) const IMMUTABLE: &str = site!("immutable");

/// A daemon's place in the world.
pub(crate) struct Stage {
    dir: tempfile::TempDir,
    daemon: Option<Child>,
    runs: u32,
}

impl Stage {
    /// The sample application, configured by `section`, nothing running.
    pub(crate) fn new(section: &str) -> Self {
        let stage = Self::empty(section);
        tree::sample(&stage.app());
        stage
    }

    /// An empty application directory.
    pub(crate) fn empty(section: &str) -> Self {
        let dir = tempfile::Builder::new().prefix("gd.").tempdir().unwrap();
        // A test's own modes must not depend on who called it with which umask.
        tree::chmod(dir.path(), 0o755);
        let stage = Self { dir, daemon: None, runs: 0 };
        for name in ["app", "log", "etc"] {
            fs::create_dir(stage.path(name)).unwrap();
            tree::chmod(&stage.path(name), 0o755);
        }
        stage.configure(section);
        stage
    }

    /// The sample application, guarded and locked.
    pub(crate) fn locked(section: &str) -> Self {
        let mut stage = Self::new(section);
        stage.start();
        stage.lock();
        stage
    }

    pub(crate) fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The application's root.
    pub(crate) fn app(&self) -> PathBuf {
        self.path("app")
    }

    /// A path in the application.
    pub(crate) fn at(&self, name: impl AsRef<Path>) -> PathBuf {
        self.app().join(name)
    }

    pub(crate) fn state(&self, name: impl AsRef<Path>) -> PathBuf {
        self.path("state").join(name)
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.path("run/control.sock")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.path("etc/guardd.toml")
    }

    pub(crate) fn lock_file(&self) -> PathBuf {
        self.state(format!("locks/{ENV}.lock"))
    }

    /// `[daemon]` with this stage's directories.
    pub(crate) fn daemon_section(&self) -> String {
        format!(
            "version = 1\n[daemon]\nstate_dir = {:?}\nruntime_dir = {:?}\nlog_dir = {:?}\n",
            self.path("state"),
            self.path("run"),
            self.path("log")
        )
    }

    /// `[environments.NAME]` with a root.
    pub(crate) fn environment_section(&self, name: &str, root: &Path, section: &str) -> String {
        format!("[environments.{name}]\nroot = {root:?}\n{section}\n")
    }

    /// Writes the configuration with one environment.
    pub(crate) fn configure(&self, section: &str) {
        let text = self.daemon_section() + &self.environment_section(ENV, &self.app(), section);
        self.write_config(&text);
    }

    pub(crate) fn write_config(&self, text: &str) {
        fs::write(self.config(), text).unwrap();
        tree::chmod(&self.config(), 0o644);
    }

    /// The daemon's command, not started.
    pub(crate) fn command(&self) -> Command {
        let mut command = guardd();
        command.args(["run", "--config"]).arg(self.config());
        command
    }

    /// Starts the daemon and waits until it answers.
    pub(crate) fn start(&mut self) {
        let command = self.command();
        self.start_as(command);
        self.wait_for_answer();
    }

    /// Starts the daemon by a command of the test's own; does not wait.
    pub(crate) fn start_as(&mut self, mut command: Command) {
        assert!(self.daemon.is_none(), "it runs already");
        self.runs += 1;
        let said = File::create(self.path(format!("said-{}", self.runs))).unwrap();
        let daemon = command.stdin(Stdio::null()).stdout(said.try_clone().unwrap()).stderr(said).spawn();
        self.daemon = Some(daemon.unwrap());
    }

    pub(crate) fn wait_for_answer(&mut self) {
        let socket = self.socket();
        let daemon = self.daemon.as_mut().unwrap();
        wait::until_true("the daemon's answer", || {
            if let Some(status) = daemon.try_wait().unwrap() {
                panic!("the daemon ended at once: {status}");
            }
            Client::connect(&socket).is_ok_and(|mut c| c.call(&Status {}).is_ok())
        });
    }

    /// Starts a daemon that is expected to end by itself.
    pub(crate) fn start_and_fail(&self) -> Output {
        run(&mut self.command())
    }

    pub(crate) fn pid(&self) -> u32 {
        self.daemon.as_ref().unwrap().id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the daemon's end.
    pub(crate) fn ended(&mut self) -> ExitStatus {
        let mut daemon = self.daemon.take().unwrap();
        wait::until("the daemon's end", || daemon.try_wait().unwrap())
    }

    /// Stops the daemon in order.
    pub(crate) fn stop(&mut self) {
        self.signal(Signal::TERM);
        let status = self.ended();
        assert!(status.success(), "an ordered stop ends with {status}");
    }

    /// Ends the daemon at once.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::KILL);
        let status = self.ended();
        assert_eq!(status.signal(), Some(9));
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.daemon.as_mut().is_some_and(|d| d.try_wait().unwrap().is_none())
    }

    /// What the daemon's runs wrote to standard output and error.
    pub(crate) fn said(&self) -> String {
        (1..=self.runs).map(|n| fs::read_to_string(self.path(format!("said-{n}"))).unwrap()).collect()
    }

    /// What the daemon's last run wrote.
    pub(crate) fn last_said(&self) -> String {
        fs::read_to_string(self.path(format!("said-{}", self.runs))).unwrap()
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(&self.socket()).unwrap()
    }

    /// A call on a connection of its own.
    pub(crate) fn try_call<M: Method>(&self, method: &M) -> Result<M::Reply, ClientError> {
        self.client().call(method)
    }

    #[track_caller]
    pub(crate) fn call<M: Method>(&self, method: &M) -> M::Reply {
        self.try_call(method).unwrap_or_else(|e| panic!("{}: {e}", M::NAME))
    }

    /// The error that a call must end with.
    #[track_caller]
    pub(crate) fn refused<M: Method>(&self, method: &M) -> Known
    where
        M::Reply: std::fmt::Debug,
    {
        match self.try_call(method) {
            Err(ClientError::Call(CallError::Known(known))) => known,
            other => panic!("{} was not refused: {other:?}", M::NAME),
        }
    }

    #[track_caller]
    pub(crate) fn lock(&self) -> LockResult {
        self.call(&Lock { reason: Some("test".into()), ..Lock::default() }).result.unwrap()
    }

    #[track_caller]
    pub(crate) fn unlock(&self) -> UnlockResult {
        self.unlock_for(None)
    }

    #[track_caller]
    pub(crate) fn unlock_for(&self, seconds: Option<u64>) -> UnlockResult {
        self.call(&wish(seconds)).result.unwrap()
    }

    #[track_caller]
    pub(crate) fn status(&self) -> StatusReply {
        self.call(&Status {})
    }

    /// How the one environment stands.
    #[track_caller]
    pub(crate) fn site(&self) -> Environment {
        self.status().environments.into_iter().find(|e| e.name == ENV).unwrap()
    }

    /// The daemon's and the environment's troubles.
    #[track_caller]
    pub(crate) fn degraded(&self) -> Vec<String> {
        self.status().daemon.degraded
    }

    #[track_caller]
    pub(crate) fn wait_for_state(&self, state: State) -> Environment {
        wait::until(&format!("the state {state:?}"), || Some(self.site()).filter(|e| e.state == state))
    }

    #[track_caller]
    pub(crate) fn check(&self) -> CheckResult {
        self.call(&Check::default()).result.unwrap()
    }

    /// Every alert of the environment there ever was, with all findings.
    #[track_caller]
    pub(crate) fn all_alerts(&self) -> Vec<Alert> {
        self.alerts(ListAlerts { environment: Some(ENV.into()), all: Some(true) })
    }

    /// The environment's open alerts.
    #[track_caller]
    pub(crate) fn open_alerts(&self) -> Vec<Alert> {
        self.alerts(ListAlerts { environment: Some(ENV.into()), all: None })
    }

    #[track_caller]
    fn alerts(&self, list: ListAlerts) -> Vec<Alert> {
        let all = self.call(&list).alerts;
        let whole = |a: Alert| match a.findings_total > a.findings.len() as u64 {
            true => self.call(&ShowAlert { id: a.id }).alert,
            false => a,
        };
        all.into_iter().map(whole).collect()
    }

    /// Every alert about the daemon itself.
    #[track_caller]
    pub(crate) fn own_alerts(&self) -> Vec<Alert> {
        let all = ListAlerts { environment: None, all: Some(true) };
        self.call(&all).alerts.into_iter().filter(|a| a.environment == "guardd").collect()
    }

    /// Waits until there were so many findings.
    #[track_caller]
    pub(crate) fn wait_for_findings(&self, count: usize) {
        wait::until_true(&format!("{count} findings"), || self.findings().len() >= count);
    }

    /// Every finding there ever was, oldest first.
    #[track_caller]
    pub(crate) fn findings(&self) -> Vec<Finding> {
        self.all_alerts().into_iter().flat_map(|a| a.findings).collect()
    }

    /// The paths of all findings, sorted, each once.
    #[track_caller]
    pub(crate) fn found_paths(&self) -> Vec<String> {
        let mut all: Vec<String> = self.findings().into_iter().map(|f| f.path).collect();
        all.sort();
        all.dedup();
        all
    }

    /// Waits for a finding about `path`; the last one there is.
    #[track_caller]
    pub(crate) fn finding(&self, path: &str) -> Finding {
        self.finding_that(path, "", |_| true)
    }

    /// Waits for a finding about `path` with exactly this change.
    #[track_caller]
    pub(crate) fn change(&self, path: &str, change: &[Change]) -> Finding {
        self.finding_that(path, &format!(" ({change:?})"), |f| f.change == change)
    }

    /// Waits for a finding about `path` with this change among others.
    #[track_caller]
    pub(crate) fn finding_that_changes(&self, path: &str, change: Change) -> Finding {
        self.finding_that(path, &format!(" ({change:?})"), |f| f.change.contains(&change))
    }

    #[track_caller]
    fn finding_that(&self, path: &str, what: &str, fits: impl Fn(&Finding) -> bool) -> Finding {
        let mut last = Vec::new();
        let deadline = std::time::Instant::now() + Duration::from_secs(120);
        loop {
            let all = self.findings();
            if let Some(f) = all.iter().rev().find(|f| f.path == path && fits(f)) {
                return f.clone();
            }
            if last.len() != all.len() {
                last = all;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "no finding about {path}{what}, only {:?}",
                last.iter().map(|f| (&f.path, &f.change)).collect::<Vec<_>>()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Makes a change whose finding comes after those of all earlier changes
    /// in the same directory, waits for it, and gives every other finding.
    #[track_caller]
    pub(crate) fn findings_beside_a_late_one(&self, dir: &str) -> Vec<Finding> {
        let name = if dir == "." { "zzz-late".to_owned() } else { format!("{dir}/zzz-late") };
        fs::write(self.at(&name), "late").unwrap();
        self.finding(&name);
        self.findings().into_iter().filter(|f| f.path != name && f.path != dir).collect()
    }

    /// Waits for a line in a log file of which `fits` holds.
    #[track_caller]
    pub(crate) fn log_line(&self, file: &str, fits: impl Fn(&str) -> bool) -> String {
        let path = self.path("log").join(file);
        wait::until(&format!("a line in {file}"), || {
            let text = fs::read_to_string(&path).unwrap_or_default();
            text.lines().find(|l| fits(l)).map(str::to_owned)
        })
    }

    /// Every record of the ledger.
    #[track_caller]
    pub(crate) fn records(&self) -> Vec<Record> {
        self.call(&Log { limit: Some(100_000), ..Log::default() }).records
    }

    /// The records of one kind.
    #[track_caller]
    pub(crate) fn events(&self, event: &str) -> Vec<Record> {
        self.records().into_iter().filter(|r| r.event == event).collect()
    }

    pub(crate) fn try_accept(&self, paths: &[&str]) -> Result<AcceptReply, ClientError> {
        self.try_call(&acceptance(paths))
    }

    #[track_caller]
    pub(crate) fn accept(&self, paths: &[&str]) -> AcceptReply {
        self.call(&acceptance(paths))
    }

    #[track_caller]
    pub(crate) fn acknowledge(&self, id: u64) -> Alert {
        self.call(&AcknowledgeAlert { id, note: "looked at".into() }).alert
    }

    /// Follows the daemon's events from now on.
    pub(crate) fn follow(&self) -> Events {
        let (sender, records) = channel();
        let (ready, is_ready) = channel();
        let mut client = self.client();
        client.set_timeout(None);
        std::thread::spawn(move || {
            let Ok(replies) = client.call_more(&Watch::default()) else { return };
            for reply in replies.map_while(Result::ok) {
                let told = match (reply.head, reply.record) {
                    (Some(_), _) => ready.send(()).is_ok(),
                    (None, Some(record)) => sender.send(record).is_ok(),
                    (None, None) => true,
                };
                if !told {
                    return;
                }
            }
        });
        is_ready.recv_timeout(Duration::from_secs(120)).unwrap();
        Events(records)
    }

    /// Runs guardctl against this daemon.
    pub(crate) fn guardctl(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
        run(Command::new(guardctl_program())
            .args(args)
            .env("GUARDD_SOCKET", self.socket())
            .env("LC_ALL", "C"))
    }

    /// Runs a guardd subcommand with this stage's state directory.
    pub(crate) fn offline(&self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Output {
        run(guardd().args(args).arg("--state-dir").arg(self.path("state")))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some(mut daemon) = self.daemon.take() {
            // It may have ended by itself.
            daemon.kill().ok();
            daemon.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("--- what the daemon said:\n{}---", self.said());
        }
        tree::open_up(self.dir.path());
    }
}

/// Events as they come.
pub(crate) struct Events(Receiver<Record>);

impl Events {
    /// Waits for the first event of which `fits` holds.
    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, fits: impl Fn(&Record) -> bool) -> Record {
        loop {
            let record = self.0.recv_timeout(Duration::from_secs(120));
            let record = record.unwrap_or_else(|_| panic!("the stream never told of {what}"));
            if fits(&record) {
                return record;
            }
        }
    }
}

/// An unlock as the tests wish it.
pub(crate) fn wish(seconds: Option<u64>) -> Unlock {
    Unlock {
        environment: None,
        reason: "repair".into(),
        maintainer: "ada".into(),
        for_seconds: seconds,
        anyway: None,
    }
}

/// An acceptance as the tests wish it.
pub(crate) fn acceptance(paths: &[&str]) -> Accept {
    Accept {
        environment: None,
        paths: paths.iter().map(|p| (*p).to_owned()).collect(),
        reason: "meant so".into(),
    }
}

/// The findings that a ledger record carries.
pub(crate) fn findings_of(record: &Record) -> Vec<Finding> {
    record.fields.get("findings").map(|f| serde_json::from_value(f.clone()).unwrap()).unwrap_or_default()
}

/// guardd's program, away from the caller's configuration and systemd.
pub(crate) fn guardd() -> Command {
    let mut command = Command::new(GUARDD);
    for name in ["NOTIFY_SOCKET", "JOURNAL_STREAM", "GUARDD_CONFIG", "GUARDD_DEBUG", "WATCHDOG_USEC"] {
        command.env_remove(name);
    }
    command.env("LC_ALL", "C").env("NO_COLOR", "1");
    command
}

/// Runs a program to its end; fails the test where it does not end.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Output {
    run_from(command, Stdio::null())
}

#[track_caller]
fn run_from(command: &mut Command, stdin: Stdio) -> Output {
    let mut child = command
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"));
    let (stdout, stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let read = |mut from: Box<dyn std::io::Read + Send>| {
        std::thread::spawn(move || {
            let mut bytes = Vec::new();
            from.read_to_end(&mut bytes).unwrap();
            bytes
        })
    };
    let (stdout, stderr) = (read(Box::new(stdout)), read(Box::new(stderr)));
    let status = wait::until(&format!("the end of {command:?}"), || child.try_wait().unwrap());
    Output { status, stdout: stdout.join().unwrap(), stderr: stderr.join().unwrap() }
}

/// Runs a program that reads `input`, which must not be longer than a pipe holds.
#[track_caller]
pub(crate) fn run_with_input(command: &mut Command, input: &[u8]) -> Output {
    let (from, mut to) = std::io::pipe().unwrap();
    std::io::Write::write_all(&mut to, input).unwrap();
    drop(to);
    run_from(command, from.into())
}

/// Standard output and error of a program, one after the other.
pub(crate) fn text_of(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// A guardctl that every user may run, wherever the real one lies.
pub(crate) fn guardctl_for(stage: &Stage) -> PathBuf {
    let copy = stage.path("guardctl");
    fs::copy(guardctl_program(), &copy).unwrap();
    tree::chmod(&copy, 0o755);
    copy
}

/// guardctl, which lies beside guardd; built where it does not.
fn guardctl_program() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        let path = Path::new(GUARDD).with_file_name("guardctl");
        if !path.exists() {
            let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
            let built = Command::new(cargo).args(["build", "--quiet", "--package", "guardctl"]).status();
            assert!(built.is_ok_and(|s| s.success()), "guardctl cannot be built");
        }
        path
    })
}
