//! Mounts that come and go: no event of inotify tells of them, so the mount
//! table is waited for. Who did it a fanotify group tells, where there is one for mounts.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::OsStr;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use guard_model::finding::Actor;
use guard_sys::clock::monotonic_nanos;
use guard_sys::fanotify::mounts::{MountGroup, all, number_in_table};
use guard_sys::mounts::{Mount, Table, Woken};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::attribution::{Attribution, Named};
use crate::programs::Programs;

/// A thread that waits for the mount table.
#[derive(Debug)]
pub(crate) struct Mounts {
    /// Closing it ends the thread.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<()>>,
}

impl Mounts {
    /// Calls `changed` with each place where something was mounted or unmounted, and who did it, where the kernel
    /// tells.
    pub(crate) fn watch(changed: impl Fn(&Path, Option<&Arc<Actor>>) + Send + 'static) -> io::Result<Self> {
        // In this order: what happens in between is told twice rather than not at all.
        let mut table = Table::open()?;
        let culprits = Culprits::listen();
        let known = table.read()?.into_iter().collect();
        let (reader, stop) = io::pipe()?;
        let thread = std::thread::Builder::new()
            .name("watch-mounts".to_owned())
            .spawn(move || follow(table, known, culprits, &reader, &changed))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the thread that waits for mounts had panicked");
        }
    }
}

fn follow(
    mut table: Table,
    mut known: BTreeSet<Mount>,
    mut culprits: Option<Culprits>,
    stop: &PipeReader,
    changed: &impl Fn(&Path, Option<&Arc<Actor>>),
) {
    loop {
        let group = culprits.as_ref().map(|c| c.group.as_fd());
        let others: Vec<_> = std::iter::once(stop.as_fd()).chain(group).collect();
        let now: io::Result<Vec<Mount>> = match table.wait(&others) {
            Ok(Woken::Other(0)) => return,
            Ok(Woken::Other(_)) => {
                hear(&mut culprits);
                continue;
            }
            Ok(Woken::Changed) => table.read(),
            Err(e) => Err(e),
        };
        let now: BTreeSet<Mount> = match now {
            Ok(mounts) => mounts.into_iter().collect(),
            Err(error) => {
                tracing::error!(%error, "mounts are not followed any more; rehashes find what is mounted over a path");
                return;
            }
        };
        let differ: Vec<&Mount> = known.symmetric_difference(&now).collect();
        await_culprits(&mut culprits, &differ);
        let mut places: BTreeMap<PathBuf, Option<Arc<Actor>>> = BTreeMap::new();
        for mount in differ {
            let by = culprits.as_mut().and_then(|c| c.take(mount.id));
            let place = places.entry(PathBuf::from(OsStr::from_bytes(&mount.point))).or_default();
            *place = by.or(place.take());
        }
        if let Some(culprits) = &mut culprits {
            culprits.unnumbered.clear();
        }
        places.iter().for_each(|(place, by)| changed(place, by.as_ref()));
        known = now;
    }
}

/// Events that are there; the end of whoever tells them is no end of the rest.
fn hear(culprits: &mut Option<Culprits>) {
    let heard = culprits.as_mut().map(Culprits::hear);
    if let Some(Err(error)) = heard {
        tracing::warn!(%error, "who mounts is not told any more");
        *culprits = None;
    }
}

/// The table may say it a moment before the event does.
fn await_culprits(culprits: &mut Option<Culprits>, of: &[&Mount]) {
    let until = Instant::now() + Culprits::PATIENCE;
    loop {
        hear(culprits);
        let Some(c) = culprits.as_ref() else { return };
        let left = until.saturating_duration_since(Instant::now());
        let is_told = |mount: &&Mount| c.by.contains_key(&mount.id) || !c.unnumbered.is_empty();
        if left.is_zero() || of.iter().all(is_told) {
            return;
        }
        let left = Timespec { tv_sec: 0, tv_nsec: i64::from(left.subsec_nanos()) };
        let mut asked = [PollFd::new(&c.group, PollFlags::IN)];
        // A failure shows when it is read.
        if !matches!(poll(&mut asked, Some(&left)), Ok(1..)) {
            return;
        }
    }
}

/// Who mounted and unmounted lately.
struct Culprits {
    group: MountGroup,
    attribution: Attribution,
    /// The table's numbers of mounts, which cannot be asked for once they are gone.
    numbers: HashMap<u64, u64>,
    /// By the table's numbers.
    by: HashMap<u64, Option<Arc<Actor>>>,
    /// Of events whose mounts have no number that could be asked for: before Linux 6.8, or where a filter keeps
    /// statmount(2) from us.
    unnumbered: Vec<Option<Arc<Actor>>>,
    /// Nothing was waiting at this moment (`CLOCK_MONOTONIC`).
    quiet_ns: u64,
}

impl Culprits {
    const PATIENCE: Duration = Duration::from_millis(20);
    /// What is not asked for is forgotten: mounts that came and went before anybody looked.
    const REMEMBERED: usize = 1024;

    /// `None` where this kernel tells nobody, or not us.
    fn listen() -> Option<Self> {
        let quiet_ns = monotonic_nanos();
        let group = MountGroup::open()
            .inspect_err(|error| tracing::info!(%error, "who mounts is not told (Linux 6.14, CAP_SYS_ADMIN)"))
            .ok()?;
        let numbers = all().unwrap_or_default();
        let numbers =
            numbers.into_iter().filter_map(|mount| Some((mount, number_in_table(mount).ok()?))).collect();
        Some(Self {
            group,
            attribution: Attribution::default(),
            numbers,
            by: HashMap::new(),
            unnumbered: Vec::new(),
            quiet_ns,
        })
    }

    fn hear(&mut self) -> io::Result<()> {
        // Mounts alone are not worth being woken by every process of the machine.
        self.attribution.ask(Programs::there_is());
        let heard = self.hear_all();
        self.attribution.ask(None);
        heard
    }

    fn hear_all(&mut self) -> io::Result<()> {
        loop {
            let now_ns = monotonic_nanos();
            let events = self.group.read()?;
            if events.is_empty() {
                self.quiet_ns = now_ns;
                return Ok(());
            }
            for event in events {
                let named = Named::after(self.quiet_ns, event.pid, event.process, event.is_gone);
                let by = self.attribution.of(named);
                let number = match number_in_table(event.mount) {
                    Ok(number) => {
                        self.numbers.insert(event.mount, number);
                        Some(number)
                    }
                    Err(_) => self.numbers.remove(&event.mount),
                };
                if self.by.len() + self.unnumbered.len() >= Self::REMEMBERED {
                    self.by.clear();
                    self.unnumbered.clear();
                }
                match number {
                    Some(number) => drop(self.by.insert(number, by)),
                    None => self.unnumbered.push(by),
                }
            }
        }
    }

    fn take(&mut self, number: u64) -> Option<Arc<Actor>> {
        self.by.remove(&number).flatten().or_else(|| {
            // Whoever did all of it did this.
            let first = self.unnumbered.first()?.clone()?;
            let is_alone = self.unnumbered.iter().all(|by| by.as_ref().is_some_and(|by| by.pid == first.pid));
            is_alone.then_some(first)
        })
    }
}
