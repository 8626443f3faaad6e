//! One warden per environment: the only owner of that environment's state.
//!
//! It handles one message at a time: hints, reports of its observer, ends of
//! long work, commands. Long work (a scan, a lock) runs on a thread of its own
//! and comes back as a message; a conflicting command is refused with the name
//! of the one that runs.

mod backups;
mod baseline_files;
mod check;
mod commands;
mod deploying;
mod explained;
mod findings;
mod gaps;
mod guard;
mod handle;
mod observer;
mod outcomes;
mod raise;
mod reads;
mod repository;
mod restore;
mod scans;
mod seal_rounds;
mod sensitive;
mod status;
mod tamper;
mod told_commands;
mod touches;
mod troubles;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use guard_config::Environment;
use guard_model::baseline::{Expect, LockState, Manifest};
use guard_model::ledger::{Event, GapCause, Record};
use guard_model::put_back::Overlay;
use guard_model::state::EnvironmentState;
use guard_model::{Actor, Alert, Digest, Policy, RelPath};
use guard_store::Baseline;
use guard_store::index::AlertScope;
use guard_tree::Root;
use guard_watch::EnvId;

pub(crate) use backups::BackupView;
pub(crate) use commands::{AcceptWish, Command, LockOrder, UnlockWish};
pub(crate) use deploying::DeploymentWish;
pub(crate) use findings::finding;
pub(crate) use handle::{WardenHandle, put};
pub(crate) use observer::Report;
pub(crate) use restore::RestoreWish;
pub(crate) use scans::ScanEnd;
pub(crate) use sensitive::SensitiveView;
pub(crate) use status::WatchReport;

use self::baseline_files::BaselineFiles;
use crate::comparer::{DeviceMap, Expectation, MountsAtLock, Records};
use crate::daemon::DownGap;
use crate::operations::Work;
use crate::ward::Ward;
use crate::watching::Watching;
use gaps::Gaps;
use observer::{Observer, View};
use raise::Raised;
use touches::{Reach, Touches};
use troubles::{Topic, Troubles};

/// What a warden hears.
pub(crate) enum Message {
    /// A path may have changed.
    /// With who did it, where known.
    Touch(RelPath, Option<Arc<Actor>>),
    /// The same, and it may be changing still.
    Stir(RelPath, Option<Arc<Actor>>),
    /// A directory whose watch newly stands.
    Tree(RelPath),
    /// Something was mounted over the root, or above it, with who did it, where known.
    Mounted(Option<Arc<Actor>>),
    /// Hints may have been lost.
    Gap(GapCause, String),
    /// Sensitive files were opened or read.
    Reads(guard_watch::ReadHint),
    /// The observer is done with a batch.
    Observed(Box<Report>),
    /// A scan ended.
    Scanned(Box<ScanEnd>),
    /// A lock, unlock or acceptance ended.
    Finished(Box<outcomes::Finished>),
    /// Events of this environment that somebody else wrote.
    Recorded(Vec<Record>),
    /// Somebody asks for something.
    Command(Box<Command>),
    /// Is everything alive? Answered through the observer.
    Ping(tokio::sync::oneshot::Sender<()>),
    /// The configuration was replaced.
    Configure(Box<Environment>),
    /// READY was sent: background work may begin.
    Begin,
    /// The daemon stops.
    Stop,
}

/// The baseline that holds, with what it is compared against.
struct Held {
    baseline: Arc<Baseline>,
    files: BaselineFiles,
    digest: Digest,
    /// The policy that the lock signed.
    policy: Arc<Policy>,
    manifest: Manifest,
    mounts: MountsAtLock,
}

/// The operation that runs, of which there is at most one.
struct Running {
    name: &'static str,
    work: Arc<Work>,
}

/// One environment's owner.
pub(crate) struct Warden {
    ward: Ward,
    id: EnvId,
    config: Environment,
    watching: Arc<Watching>,
    state: EnvironmentState,
    root: Option<Arc<Root>>,
    held: Option<Held>,
    /// What was put back since the baseline was made.
    overlay: Arc<Overlay>,
    tamper: tamper::Tamper,
    troubles: Troubles,
    observer: Observer,
    observing: bool,
    touches: Touches,
    raised: Raised,
    gaps: Gaps,
    reads: reads::Reads,
    running: Option<Running>,
    scans: scans::Scans,
    seal_rounds: Option<seal_rounds::SealRounds>,
    guard: guard::Guard,
    /// Events that could not be made durable yet, oldest first.
    unwritten: VecDeque<Event>,
    /// Commands that wait for an observation under way.
    deferred: VecDeque<Command>,
    /// What tells the processes of the deployment that runs from others.
    deploying: Option<deploying::Deploying>,
    /// What the last lock could not seal, read or match.
    left_out: status::LeftOut,
    watch_report: status::WatchReport,
    backups: backups::Opened,
    inbox: Receiver<Message>,
    myself: Sender<Message>,
    stopping: bool,
    begun: bool,
}

/// What a warden is made from.
pub(crate) struct Commission {
    pub(crate) ward: Ward,
    pub(crate) id: EnvId,
    pub(crate) config: Environment,
    pub(crate) watching: Arc<Watching>,
    /// Since when nobody watched.
    pub(crate) down: Option<DownGap>,
}

impl Warden {
    /// Takes up an environment as the ledger left it: recovers what was cut
    /// short, sets the watches, compares metadata. When this returns the
    /// environment is guarded.
    pub(crate) fn take_up(from: Commission) -> std::io::Result<(Self, WardenHandle)> {
        let (myself, inbox) = channel();
        let observer = Observer::start(&from.config.name, myself.clone())?;
        let name = from.ward.name.clone();
        let index = from.ward.house.index();
        let unresolved = index.alerts(Some(&name), AlertScope::Unresolved);
        let mut troubles = Troubles::default();
        let (state, open) = match (index.environment_state(&name), unresolved) {
            (Ok(state), Ok(open)) => (state, open),
            (Err(e), _) | (_, Err(e)) => {
                troubles
                    .begin(Topic::Index, format!("its state cannot be read: {}", crate::failure::chain(&e)));
                (EnvironmentState::default(), Vec::<Alert>::new())
            }
        };
        let overlay = match tamper::overlay_of(index, &name) {
            Ok(overlay) => Arc::new(overlay),
            Err(e) => {
                let why = crate::failure::chain(&e);
                troubles.begin(Topic::Index, format!("what was put back cannot be read: {why}"));
                Arc::default()
            }
        };
        let handle = WardenHandle {
            name,
            id: from.id,
            root: from.config.root.clone(),
            sender: myself.clone(),
            observing: Arc::clone(&observer.work),
        };
        from.watching.introduce(handle.clone());
        let mut warden = Self {
            gaps: Gaps::from_state(&state),
            ward: from.ward,
            id: from.id,
            config: from.config,
            watching: from.watching,
            state,
            root: None,
            held: None,
            overlay,
            tamper: tamper::Tamper::default(),
            troubles,
            observer,
            observing: false,
            touches: Touches::default(),
            raised: Raised::from_alerts(&open),
            reads: reads::Reads::from_alerts(&open),
            running: None,
            scans: scans::Scans::default(),
            seal_rounds: None,
            guard: guard::Guard::default(),
            unwritten: VecDeque::new(),
            deferred: VecDeque::new(),
            deploying: None,
            left_out: status::LeftOut::default(),
            watch_report: status::WatchReport::default(),
            backups: None,
            inbox,
            myself,
            stopping: false,
            begun: false,
        };
        warden.start(from.down);
        Ok((warden, handle))
    }

    fn start(&mut self, down: Option<DownGap>) {
        // The baseline first: its policy says what of a locked root is watched.
        self.load_baseline();
        self.find_root();
        // A failure is a trouble that `status` shows; it does not keep the guard from starting.
        self.vault().ok();
        // What was watched all the while has no gap: what happened is among the touches already.
        let unwatched = down.filter(|_| !self.watch_report.adopted);
        if let (Some(down), true) = (unwatched, self.held.is_some()) {
            self.open_gap(GapCause::Down, down.since, down.how.to_owned());
        }
        self.relock_if_window_ended_while_down();
        if self.held.is_some() && self.root.is_some() {
            self.sweep_now();
        }
        self.check_lock_file();
        self.check_root();
        self.reconsider_tampering();
        self.know_running_deployment(crate::deploying::Start::Resume);
    }

    /// Handles messages until told to stop.
    pub(crate) fn run(mut self) {
        while !self.stopping {
            let wait = self.until_next_timer();
            match self.inbox.recv_timeout(wait) {
                Ok(message) => self.handle(message),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.drain();
            self.timers();
        }
        self.stop_work();
    }

    /// Takes in what else is waiting, so that a burst of hints becomes one batch.
    fn drain(&mut self) {
        for _ in 0..10_000 {
            match self.inbox.try_recv() {
                Ok(message) => self.handle(message),
                Err(_) => return,
            }
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Touch(path, actor) => self.touches.add(path, Reach::IfReplaced, actor),
            Message::Stir(path, actor) => {
                self.touches.await_rest(path, actor, guard_sys::clock::boottime_micros());
            }
            Message::Tree(path) => self.touches.add(path, Reach::Below, None),
            Message::Mounted(actor) => self.guard.mounted(actor),
            Message::Gap(cause, detail) => self.hints_lost(cause, detail),
            Message::Reads(hint) => self.heard_of_reads(hint),
            Message::Observed(report) => self.take_report(*report),
            Message::Scanned(end) => self.scan_ended(*end),
            Message::Finished(finished) => self.operation_ended(*finished),
            Message::Recorded(records) => self.take_in(&records),
            Message::Command(command) => self.obey(*command),
            Message::Ping(reply) => {
                // A dead observer drops the reply, which the heartbeat takes for a stall.
                self.observer.ping(reply);
            }
            Message::Configure(config) => self.configure(*config),
            Message::Begin => {
                self.begun = true;
                self.resume_deployment();
            }
            Message::Stop => self.stopping = true,
        }
    }

    /// Never longer than this between two looks at the root and the window.
    const TICK: Duration = Duration::from_secs(1);

    fn until_next_timer(&self) -> Duration {
        let now = guard_sys::clock::boottime_micros();
        let due = match self.observing || self.running.is_some() {
            true => None,
            false => self.touches.next_due(now).into_iter().chain(self.tamper.next_due()).min(),
        };
        due.map_or(Self::TICK, |at| Duration::from_micros(at.saturating_sub(now)).min(Self::TICK))
    }

    fn timers(&mut self) {
        // Before the next look at anything: what differs is put right first.
        self.put_back_in_time();
        self.observe_touched();
        if self.guard.tick_due() {
            self.write_what_waits();
            self.check_root();
            self.check_lock_file();
            self.check_baseline_files();
            self.end_window_in_time();
            self.see_acknowledged_stops();
            self.scan_in_time();
            self.look_after_seal();
            self.tell_reads_in_time();
        }
        self.close_gaps();
    }

    /// What should be on disk, while there is a baseline and a root.
    fn expectation(&self) -> Option<Expectation> {
        let held = self.held.as_ref()?;
        let root = self.root.as_ref()?;
        let expect = match self.state.state {
            LockState::Locked => Expect::Sealed,
            LockState::Unlocked => Expect::Original,
        };
        Some(Expectation {
            records: Records::Baseline(Arc::clone(&held.baseline)),
            overlay: Arc::clone(&self.overlay),
            expect,
            device: DeviceMap { at_lock: held.manifest.root_identity.0, now: root.identity().0 },
            mounts: held.mounts.clone(),
        })
    }

    fn view(&self) -> Option<View> {
        Some(View {
            root: Arc::clone(self.root.as_ref()?),
            policy: Arc::clone(&self.held.as_ref()?.policy),
            expectation: self.expectation()?,
        })
    }

    /// The policy that holds: the signed one while there is a baseline that is locked.
    fn policy(&self) -> Arc<Policy> {
        match &self.held {
            Some(held) if Ward::is_locked(&self.state) => Arc::clone(&held.policy),
            _ => Arc::clone(&self.config.policy),
        }
    }

    /// Makes events durable and takes them into the state. What cannot be made
    /// durable now goes out marked as such, and is written when it can be.
    fn record(&mut self, events: Vec<Event>) -> Vec<Record> {
        if events.is_empty() {
            return Vec::new();
        }
        if self.unwritten.is_empty() {
            match self.ward.append(events.clone()) {
                Ok(records) => {
                    self.take_in(&records);
                    return records;
                }
                // `status` says so for as long as anything waits.
                Err(e) => {
                    tracing::error!(error = %crate::failure::chain(&e), "the ledger cannot be written");
                }
            }
        }
        let records = self.unrecorded(&events);
        // What guardd put back stands, written down or not: it is nobody's change.
        for record in records.iter().filter(|r| matches!(r.event, Event::Restored { .. })) {
            Arc::make_mut(&mut self.overlay).apply(record);
        }
        self.ward.house.sinks.undurable(records);
        self.unwritten.extend(events);
        Vec::new()
    }

    /// Events as records that are in no ledger: number 0.
    fn unrecorded(&self, events: &[Event]) -> Vec<Record> {
        let record = |event: &Event| Record {
            seq: 0,
            at: crate::operations::now(),
            prev: Digest([0; 32]),
            environment: Some(self.ward.name.clone()),
            event: event.clone(),
        };
        events.iter().map(record).collect()
    }

    fn take_in(&mut self, records: &[Record]) {
        for record in records {
            self.state.apply(record);
            Arc::make_mut(&mut self.overlay).apply(record);
        }
        self.forget_ended_deployment();
    }

    fn write_what_waits(&mut self) {
        if self.unwritten.is_empty() {
            return;
        }
        let waiting: Vec<Event> = self.unwritten.iter().cloned().collect();
        if let Ok(records) = self.ward.append(waiting) {
            self.unwritten.clear();
            self.take_in(&records);
            // What these alerts hold is known again by reading it back.
            if let Ok(open) = self.ward.house.index().alerts(Some(&self.ward.name), AlertScope::Unresolved) {
                self.raised = Raised::from_alerts(&open);
                self.reads.know(&open);
                // Nothing is put back before its alert is durable: now it is.
                self.reconsider_tampering();
            }
        }
    }

    pub(super) fn observe_touched(&mut self) {
        if self.observing || self.running.is_some() {
            return;
        }
        let Some(view) = self.view() else {
            // Nothing to compare with: an environment that was never locked.
            self.touches = Touches::default();
            return;
        };
        let due = self.touches.take(guard_sys::clock::boottime_micros());
        if !due.is_empty() {
            self.observing = self.observer.observe(view, due);
        }
    }

    fn stop_work(&mut self) {
        use std::sync::atomic::Ordering;
        self.tell_all_reads();
        if let Some(running) = &self.running {
            running.work.cancel.store(true, Ordering::Relaxed);
            // It undoes what it began, or has committed: either way it reports.
            let deadline = std::time::Instant::now() + Duration::from_secs(20);
            while self.running.is_some() && std::time::Instant::now() < deadline {
                match self.inbox.recv_timeout(Duration::from_millis(100)) {
                    Ok(Message::Finished(finished)) => self.operation_ended(*finished),
                    Ok(_) | Err(RecvTimeoutError::Timeout) => {}
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        }
        self.scans.cancel();
    }
}
