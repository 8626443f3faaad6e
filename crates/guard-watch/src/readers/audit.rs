//! The kernel's audit: a rule for each file, by its path, and the records that come of them.
//!
//! A rule follows the path: whatever takes the file's place is followed at once, by whichever name, mount or namespace it
//! is opened. The record itself says who it was, so that one that is gone already has a name, too. The rules are told from
//! everybody else's by their key; what an earlier run left is removed, and these go with [`Rules`].

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use guard_model::RelPath;
use guard_model::access::Access;
use guard_sys::audit::records::Change;
use guard_sys::audit::{Control, Heard, Listener, Rule, records};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::Sink;
use super::gather::Gathered;
use crate::attribution::Attribution;
use crate::listening::Listening;

/// What it does not see.
pub(super) const BLIND: [&str; 4] = [
    "who had a file open, or mapped, before it was followed",
    "what is opened through io_uring",
    "whether what was opened was read, and how often",
    "reads while somebody has removed guardd's rules, until that is noticed",
];

/// The rules stand: looked at this often, and whenever the kernel tells that one went.
const LOOK: Duration = Duration::from_secs(30);
/// How long a record may be under way.
const PROOF: Duration = Duration::from_secs(3);

/// The rules, and the thread that hears of them.
#[derive(Debug)]
pub(super) struct Rules {
    shared: Arc<Shared>,
    listening: Listening,
}

#[derive(Debug)]
struct Shared {
    /// What all our keys begin with.
    prefix: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    control: Control,
    /// By number, which is the end of the rule's key.
    files: Vec<(RelPath, Rule)>,
    numbers: HashMap<RelPath, usize>,
    lost: u32,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path_of(&self, key: &[u8]) -> Option<RelPath> {
        let number = key.strip_prefix(self.prefix.as_bytes())?;
        let number: usize = std::str::from_utf8(number).ok()?.parse().ok()?;
        self.state().files.get(number).map(|(path, _)| path.clone())
    }
}

impl Rules {
    /// Fails, in words, where it would not do.
    pub(super) fn start(name: &str, sink: Sink) -> Result<Self, String> {
        let failed = |what: &'static str| move |e: io::Error| format!("{what}: {e}");
        let mut control = Control::open().map_err(failed("no audit"))?;
        let status = control.status().map_err(failed("no audit"))?;
        match status.enabled {
            0 => return Err("no audit: it is not enabled on this machine (auditd does that)".to_owned()),
            1 => {}
            _ => {
                return Err(
                    "no audit: its rules cannot be changed until the next boot (auditctl -e 2)".to_owned()
                );
            }
        }
        let prefix = format!("guardd-{name}-");
        for rule in control.rules().map_err(failed("the rules of audit"))? {
            if rule.silences_all() {
                return Err("no audit: a rule keeps processes from being audited (never,task)".to_owned());
            }
            if is_ours(&rule, &prefix) {
                control.delete(&rule).map_err(failed("a rule of an earlier start"))?;
            }
        }
        let listener = Listener::open().map_err(failed("no records of audit"))?;
        prove(&mut control, &listener, &prefix)?;
        let state = State { control, files: Vec::new(), numbers: HashMap::new(), lost: status.lost };
        let shared = Arc::new(Shared { prefix, state: Mutex::new(state) });
        let (heard, gathered) = (Arc::clone(&shared), Gathered::new(sink));
        let listening = Listening::start("readers", move |stop| {
            let (attribution, looked) = (Attribution::default(), Instant::now());
            Reader { shared: heard, stop, listener, attribution, gathered, looked }.run();
        });
        Ok(Self { shared, listening: listening.map_err(failed("no thread"))? })
    }

    pub(super) fn follow(&self, path: &RelPath, at: &Path) -> io::Result<()> {
        let mut state = self.shared.state();
        if state.numbers.contains_key(path) {
            return Ok(());
        }
        let number = state.files.len();
        let rule = Rule::reads_of(at, &format!("{}{number}", self.shared.prefix));
        let rule = rule.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidFilename))?;
        state.control.add(&rule)?;
        state.files.push((path.clone(), rule));
        state.numbers.insert(path.clone(), number);
        Ok(())
    }

    pub(super) fn files(&self) -> usize {
        self.shared.state().files.len()
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        self.listening.end();
        let mut state = self.shared.state();
        for (path, rule) in std::mem::take(&mut state.files) {
            match state.control.delete(&rule) {
                Ok(()) => {}
                // Somebody else removed it, or with it the directory that it was about.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(%path, %error, "a rule of audit stays behind until the next start")
                }
            }
        }
    }
}

/// Rules are heard of, so that what comes of them will be, too.
fn prove(control: &mut Control, listener: &Listener, prefix: &str) -> Result<(), String> {
    let key = format!("{prefix}canary");
    let rule = Rule::reads_of(Path::new(&format!("/{key}")), &key);
    let rule = rule.ok_or_else(|| "no audit: the name is too long".to_owned())?;
    control.add(&rule).map_err(|e| format!("no rule of audit: {e}"))?;
    let heard = is_heard(listener, key.as_bytes());
    control.delete(&rule).map_err(|e| format!("a rule of audit: {e}"))?;
    match heard {
        Ok(true) => Ok(()),
        Ok(false) => Err("no audit: its records do not come here (another network namespace?)".to_owned()),
        Err(e) => Err(format!("no records of audit: {e}")),
    }
}

fn is_heard(listener: &Listener, key: &[u8]) -> io::Result<bool> {
    let until = Instant::now() + PROOF;
    loop {
        match listener.next()? {
            Some(Heard::Configuration(text)) if records::change(&text, key) == Some(Change::Added) => {
                return Ok(true);
            }
            Some(_) => continue,
            None => {}
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let left = Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
        poll(&mut [PollFd::new(listener, PollFlags::IN)], Some(&left))?;
    }
}

fn is_ours(rule: &Rule, prefix: &str) -> bool {
    rule.key().is_some_and(|key| key.starts_with(prefix.as_bytes()))
}

struct Reader {
    shared: Arc<Shared>,
    stop: Arc<OwnedFd>,
    listener: Listener,
    attribution: Attribution,
    gathered: Gathered,
    looked: Instant,
}

impl Reader {
    fn run(mut self) {
        loop {
            let mut asked =
                [PollFd::new(&self.listener, PollFlags::IN), PollFd::new(&self.stop, PollFlags::IN)];
            let left = LOOK.saturating_sub(self.looked.elapsed());
            let until_look =
                Timespec { tv_sec: left.as_secs().cast_signed(), tv_nsec: i64::from(left.subsec_nanos()) };
            let wait = self.gathered.until_told().unwrap_or(until_look);
            match poll(&mut asked, Some(&wait)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => return self.gathered.end(format!("waiting for audit: {e}")),
            }
            if asked.last().is_some_and(|stop| !stop.revents().is_empty()) {
                return self.gathered.tell();
            }
            if let Err(e) = self.hear() {
                return self.gathered.end(format!("hearing audit: {e}"));
            }
            if self.looked.elapsed() >= LOOK
                && let Err(why) = self.look()
            {
                return self.gathered.end(why);
            }
            self.gathered.tell_in_time();
        }
    }

    fn hear(&mut self) -> io::Result<()> {
        // Not for ever: what is heard is to be told, too.
        for _ in 0..1024 {
            match self.listener.next()? {
                None => return Ok(()),
                Some(Heard::Lost) => self.gathered.miss("audit told faster than it could be heard"),
                Some(Heard::SystemCall(text)) => self.take(&text),
                Some(Heard::Configuration(text)) => {
                    let change = records::change(&text, self.shared.prefix.as_bytes());
                    if change == Some(Change::Removed) {
                        self.look_soon();
                    }
                }
            }
        }
        Ok(())
    }

    fn take(&mut self, text: &[u8]) {
        let Some(call) = records::system_call(text).filter(|call| call.success) else { return };
        let Some(path) = self.shared.path_of(&call.key) else { return };
        let access = if call.executed { Access::Executed } else { Access::Opened };
        let attribution = &mut self.attribution;
        self.gathered.add(path, Some(call.pid), [access], 1, || attribution.audited(&call));
    }

    /// Not at once for each of many.
    fn look_soon(&mut self) {
        let since = LOOK.saturating_sub(Duration::from_millis(200));
        let at = Instant::now().checked_sub(since);
        self.looked = at.map_or(self.looked, |at| at.min(self.looked));
    }

    /// Do the rules stand, and is auditing on? What is missing is put up again, and said.
    fn look(&mut self) -> Result<(), String> {
        self.looked = Instant::now();
        let mut state = self.shared.state();
        let State { control, files, lost, .. } = &mut *state;
        let failed = |e: io::Error| format!("audit does not answer: {e}");
        let status = control.status().map_err(failed)?;
        if status.enabled == 0 {
            return Err("audit was switched off".to_owned());
        }
        if status.lost != *lost {
            *lost = status.lost;
            self.gathered.miss("the kernel lost records of audit");
        }
        let standing = control.rules().map_err(failed)?;
        let ours: Vec<&Rule> = standing.iter().filter(|rule| is_ours(rule, &self.shared.prefix)).collect();
        let has = |rule: &Rule| ours.iter().any(|standing| standing.key() == rule.key());
        let gone: Vec<&(RelPath, Rule)> = files.iter().filter(|(_, rule)| !has(rule)).collect();
        let mut missed = None;
        for (path, rule) in gone {
            match control.add(rule) {
                Ok(()) => missed = Some(format!("a rule of audit had gone: that of {path}")),
                // Its directory is not there: nothing to read either, which is somebody else's finding.
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(format!("the rule of audit about {path} cannot be put up again: {e}")),
            }
        }
        if let Some(why) = missed {
            self.gathered.miss(&why);
        }
        Ok(())
    }
}
