//! Who had which number, when, and what it executed.
//!
//! A number names a process only for a while, and an event of fanotify that is read late has no time in it. So all
//! holders of a number that may have made the event are looked at, and where they are several, or one of them is not known,
//! nobody is named. What was read of `/proc` right after the kernel told of it could be of what came next: that is told,
//! too, and with a time before the end of the reading; then it is not believed. Hence the rule: ask only when
//! everything that waits was heard.

#[cfg(test)]
mod tests;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use guard_model::finding::{Actor, Confidence};
use guard_model::path::escape;
use guard_sys::clock::{boottime_micros, monotonic_nanos};
use guard_sys::identity::Identity;
use guard_sys::process_events::{Event, What};

use crate::attribution;

/// Processes that are remembered, the latest; and of those that ended.
const LIVING: usize = 2048;
const ENDED: usize = 1024;
/// Bytes of a path that are kept: nobody's memory is filled by names.
const LONGEST_PATH: usize = 1024;

/// What is asked of `/proc`.
pub(super) trait Look {
    /// What a process is; `None` where it cannot be told.
    fn program(&mut self, pid: i32) -> Option<Program>;
    /// What it executes, if that is told, and when that had been read.
    fn exe(&mut self, pid: i32) -> Option<(Vec<u8>, u64)>;
}

/// What a process executes, with who it was when that began; of its copies, too.
#[derive(Debug)]
pub(super) struct Program {
    /// Without parents, which are asked for when it matters.
    actor: Actor,
    exe: Vec<u8>,
    parent: i32,
    started_us: u64,
    read_ns: u64,
    /// It may have been read of what the process became next.
    is_doubtful: AtomicBool,
}

impl Program {
    /// What had been read at `read_ns`. `None` for a process without a program: a kernel thread, or one that has ended.
    pub(super) fn of(found: Identity, read_ns: u64) -> Option<Self> {
        let exe = found.exe.clone().filter(|exe| exe.len() <= LONGEST_PATH)?;
        let cgroup = found.cgroup.as_ref().is_none_or(|path| path.len() <= LONGEST_PATH);
        let (parent, started_us) = (found.parent, found.started_us);
        let found = Identity { cgroup: found.cgroup.filter(|_| cgroup), ..found };
        let actor = Actor { confidence: Confidence::Exited, ..attribution::actor(&found, Vec::new()) };
        let is_doubtful = AtomicBool::new(false);
        Some(Self { actor, exe, parent, started_us, read_ns, is_doubtful })
    }

    fn is_doubtful(&self) -> bool {
        self.is_doubtful.load(Ordering::Relaxed)
    }
}

/// Who has a number for a while.
#[derive(Debug)]
struct Holder {
    pid: i32,
    /// Which one it is, to know it among those that had its number.
    order: u64,
    /// When it began and whose child it is; `None` where that was before us, and what it executes says it.
    born: Option<(u64, i32)>,
    ended_ns: Option<u64>,
    program: Option<Arc<Program>>,
    /// When it was compared with the parent whose copy it is.
    compared_ns: Option<u64>,
    /// Where they changed.
    uid: Option<u32>,
    name: Option<String>,
}

impl Holder {
    /// What it executes, as far as that can be believed.
    fn believed(&self) -> Option<&Arc<Program>> {
        self.program.as_ref().filter(|program| !program.is_doubtful())
    }

    fn unknown(pid: i32) -> Self {
        Self {
            pid,
            order: 0,
            born: None,
            ended_ns: None,
            program: None,
            compared_ns: None,
            uid: None,
            name: None,
        }
    }
}

#[derive(Debug)]
pub(super) struct Cache {
    living: HashMap<i32, Holder>,
    /// Of the living, the oldest first; also some that are not any more.
    order: VecDeque<(u64, i32)>,
    next: u64,
    /// The first to end first.
    ended: VecDeque<Holder>,
    /// Everybody who ended since then is in `ended`.
    complete_ns: u64,
}

impl Cache {
    /// Knows nobody who ended before that moment.
    pub(super) fn since(complete_ns: u64) -> Self {
        let (living, order, ended) = (HashMap::new(), VecDeque::new(), VecDeque::new());
        Self { living, order, next: 0, ended, complete_ns }
    }

    /// Takes in what a process did; what it executes is looked at here and now.
    pub(super) fn hear(&mut self, event: &Event, look: &mut impl Look) {
        match event.what {
            What::Began { process, parent } => self.begin(process, parent, event.at_ns, look),
            What::Executed { process } => self.execute(process, event.at_ns, look),
            What::Ended { process } => self.end(process, event.at_ns),
            What::User { process, uid } => {
                if let Some(holder) = self.living.get_mut(&process) {
                    holder.uid = Some(uid);
                }
            }
            What::Renamed { process, ref name } => {
                if let Some(holder) = self.living.get_mut(&process) {
                    holder.name = Some(escape(name));
                }
            }
        }
    }

    fn begin(&mut self, pid: i32, parent: i32, at_ns: u64, look: &mut impl Look) {
        // Its end was not told: then it ended with its number's next use.
        self.doubt(pid, at_ns);
        self.end_of(pid, at_ns);
        let of_parent = self.living.get(&parent).filter(|parent| parent.program.is_some());
        let none = Holder { born: Some((at_ns, parent)), ..Holder::unknown(pid) };
        let holder = match of_parent {
            Some(parent) => {
                // A copy of its parent, unless somebody made it his sibling: it executes the same.
                let compared = parent.program.as_ref().zip(look.exe(pid));
                let compared = compared.filter(|(program, (exe, _))| program.exe == *exe);
                let (program, compared_ns) = compared.map(|(p, (_, at_ns))| (Arc::clone(p), at_ns)).unzip();
                Holder { program, compared_ns, uid: parent.uid, name: parent.name.clone(), ..none }
            }
            None => Holder { program: look.program(pid).map(Arc::new), ..none },
        };
        self.insert(holder);
    }

    fn execute(&mut self, pid: i32, at_ns: u64, look: &mut impl Look) {
        self.doubt(pid, at_ns);
        let program = look.program(pid).map(Arc::new);
        let before = self.living.get(&pid).map(|holder| (holder.order, holder.born));
        match before {
            Some((order, born)) => {
                let holder = Holder { order, born, program, ..Holder::unknown(pid) };
                self.living.insert(pid, holder);
            }
            None => self.insert(Holder { program, ..Holder::unknown(pid) }),
        }
    }

    /// What was read of it until now may have been of what it is, or of who has its number, from `at_ns` on.
    fn doubt(&mut self, pid: i32, at_ns: u64) {
        let Some(holder) = self.living.get_mut(&pid) else { return };
        match (&holder.program, holder.compared_ns) {
            // Its parent's is as good as it was.
            (_, Some(compared_ns)) if compared_ns >= at_ns => holder.program = None,
            (Some(program), None) if program.read_ns >= at_ns => {
                program.is_doubtful.store(true, Ordering::Relaxed);
            }
            _ => {}
        }
    }

    fn end(&mut self, pid: i32, at_ns: u64) {
        // What was read later is of whoever had its number next.
        self.doubt(pid, at_ns);
        // Somebody had this number, even if nobody knows who.
        self.living.entry(pid).or_insert_with(|| Holder::unknown(pid));
        self.end_of(pid, at_ns);
    }

    fn end_of(&mut self, pid: i32, at_ns: u64) {
        let Some(holder) = self.living.remove(&pid) else { return };
        if self.ended.len() >= ENDED
            && let Some(oldest) = self.ended.pop_front()
        {
            self.complete_ns = self.complete_ns.max(oldest.ended_ns.unwrap_or(0).saturating_add(1));
        }
        self.ended.push_back(Holder { ended_ns: Some(at_ns), ..holder });
    }

    fn insert(&mut self, holder: Holder) {
        self.next += 1;
        self.order.push_back((self.next, holder.pid));
        self.living.insert(holder.pid, Holder { order: self.next, ..holder });
        // Whoever is forgotten alive ends as somebody unknown. What went by itself is passed over.
        while self.living.len() > LIVING || self.order.len() > 2 * LIVING {
            let Some((order, pid)) = self.order.pop_front() else { return };
            if self.living.get(&pid).is_some_and(|holder| holder.order == order) {
                self.living.remove(&pid);
            }
        }
    }

    /// Of the holders of a number that ended at `since_ns` or later: the only one, if what it executed is known.
    pub(super) fn ended(&self, pid: i32, since_ns: u64) -> Option<Actor> {
        if since_ns < self.complete_ns {
            return None;
        }
        let was_there = |holder: &&Holder| holder.ended_ns.is_some_and(|at| at >= since_ns);
        // They are in the order of their ends, give or take what two processors did at once.
        let mut of_number = self.ended.iter().rev().filter(|holder| holder.pid == pid).filter(was_there);
        let only = of_number.next()?;
        if of_number.next().is_some() {
            return None;
        }
        self.actor(only)
    }

    /// Who has a number or had it last, if what it executes is known.
    pub(super) fn last(&self, pid: i32) -> Option<Actor> {
        self.actor(self.holder(pid)?)
    }

    fn holder(&self, pid: i32) -> Option<&Holder> {
        let ended = || self.ended.iter().rev().find(|holder| holder.pid == pid);
        self.living.get(&pid).or_else(ended)
    }

    fn actor(&self, holder: &Holder) -> Option<Actor> {
        let program = holder.believed()?;
        let clocks = Clocks::now();
        let (started_us, parent) = match holder.born {
            Some((at_ns, parent)) => (clocks.boot_micros(at_ns), parent),
            None => (program.started_us, program.parent),
        };
        let known = &program.actor;
        Some(Actor {
            pid: holder.pid,
            comm: holder.name.clone().or_else(|| known.comm.clone()),
            uid: holder.uid.or(known.uid),
            started_at: Some(attribution::started_at(started_us)),
            parents: self.parents(parent, started_us, clocks),
            ..known.clone()
        })
    }

    /// The chain up to init, as far as it is remembered, then as `/proc` has it.
    fn parents(&self, mut parent: i32, mut born_us: u64, clocks: Clocks) -> Vec<String> {
        let mut chain = Vec::new();
        while parent > 0 && chain.len() < attribution::PARENTS {
            // Of those that are known to have begun no later than the child.
            let holder = self
                .holder(parent)
                .filter(|h| h.born.is_some_and(|(at_ns, _)| clocks.boot_micros(at_ns) <= born_us));
            let remembered = holder.and_then(|h| {
                let program = h.believed()?;
                let name = h.name.as_deref().or(program.actor.comm.as_deref())?;
                Some((format!("{name} ({parent})"), h.born?))
            });
            let Some((name, (at_ns, next))) = remembered else {
                chain.extend(
                    attribution::parents_from(parent, born_us)
                        .into_iter()
                        .take(attribution::PARENTS - chain.len()),
                );
                break;
            };
            chain.push(name);
            (parent, born_us) = (next, clocks.boot_micros(at_ns));
        }
        chain
    }
}

/// How far `CLOCK_BOOTTIME`, which goes on in suspension, is ahead of `CLOCK_MONOTONIC`: asked once for moments that are
/// compared, since we may have to wait between the two questions.
#[derive(Debug, Clone, Copy)]
struct Clocks {
    ahead_us: u64,
}

impl Clocks {
    fn now() -> Self {
        let monotonic_us = monotonic_nanos() / 1000;
        Self { ahead_us: boottime_micros().saturating_sub(monotonic_us) }
    }

    /// A moment of `CLOCK_MONOTONIC` as one of `CLOCK_BOOTTIME`.
    fn boot_micros(self, at_ns: u64) -> u64 {
        (at_ns / 1000).saturating_add(self.ahead_us)
    }
}
