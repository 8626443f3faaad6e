//! The ledger: what happened, in order, on the disk before anybody is told.
//!
//! One thread writes. Whoever appends waits until the records are durable;
//! those who come while a write is under way share the next one. After that the
//! index takes the records in, and then subscribers are woken, who pull.

mod append;
mod breaks;
mod lines;
mod offline;
mod pieces;
mod reader;
mod recover;
mod segments;
mod verify;
mod writer;

use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use guard_model::Timestamp;
use guard_model::ledger::{Event, Head, Record};

pub use append::Reserve;
pub use breaks::{BreakCause, LedgerBreak};
pub use offline::each_of;
pub use reader::LedgerReader;
pub use recover::TornTail;
pub use verify::{Verified, VerifyReport, verify_files};

pub(crate) use lines::Lines;
pub(crate) use recover::{Remembered, first_record_hash};
pub(crate) use segments::{MAX_JUMP, Segment};

use crate::error::StoreError;
use crate::index::{Index, IndexOpened, Probe};
use crate::keys::HostKey;
use crate::state_dir::StateDir;
use writer::{Message, Request, Want, Writer};

/// A checkpoint stands at least this often, in records.
pub const CHECKPOINT_EVERY: u64 = 1000;

/// The ledger's writing end; stop it with [`Ledger::stop`].
#[derive(Debug)]
pub struct Ledger {
    handle: LedgerHandle,
    thread: JoinHandle<()>,
}

/// What was found when the ledger was opened.
#[derive(Debug)]
pub struct Opened {
    /// The last record.
    pub head: Head,
    /// What a crash left of an unfinished write; it was cut off and set aside.
    pub torn_tail: Option<TornTail>,
    /// Records whose chain was checked now: those of the last file.
    pub checked: u64,
    /// What became of the index.
    pub index: IndexOpened,
    /// The whole ledger's verification, where the index was made anew: without
    /// it nothing had remembered what the earlier files were.
    pub verified: Option<VerifyReport>,
}

/// How well the ledger does.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LedgerHealth {
    /// Space kept ready for a full disk.
    pub reserve: Reserve,
    /// Why the last write failed; `None` once one has succeeded.
    pub write_error: Option<String>,
    /// Why the index lags behind or is kept in memory; `None` once it is whole on the disk.
    pub index_error: Option<String>,
    /// The ledger file was changed under our hands; a new chain was started.
    pub disturbed: Vec<LedgerBreak>,
}

impl Ledger {
    /// Opens the ledger, checks its last file against what the index and the
    /// lock files remember, cuts off what a crash left half-written, brings the
    /// index up to date and starts the writing thread.
    ///
    /// # Errors
    /// [`StoreError::LedgerBroken`] where it is not what was written: the caller
    /// decides, see [`Ledger::open_after_break`]. [`StoreError::Io`].
    pub fn open(
        state: &StateDir,
        key: HostKey,
        clock: impl Fn() -> Timestamp + Send + 'static,
    ) -> Result<(Self, Opened), StoreError> {
        let (found, probe) = recover::recover(state, &key.public())?;
        Self::start(state, key, Box::new(clock), found, probe)
    }

    /// Opens a broken ledger: every file stays as it is, as evidence, and a new
    /// chain starts in a new file after `broken.resume_after`. The index keeps
    /// what it knows; one that must be rebuilt takes in every record that can be read.
    ///
    /// # Errors
    /// [`StoreError::Io`].
    pub fn open_after_break(
        state: &StateDir,
        key: HostKey,
        clock: impl Fn() -> Timestamp + Send + 'static,
        broken: &LedgerBreak,
    ) -> Result<(Self, Opened), StoreError> {
        let (found, probe) = recover::after_break(state, broken)?;
        Self::start(state, key, Box::new(clock), found, probe)
    }

    fn start(
        state: &StateDir,
        key: HostKey,
        clock: Box<dyn Fn() -> Timestamp + Send>,
        found: recover::Found,
        probe: Probe,
    ) -> Result<(Self, Opened), StoreError> {
        let (index, index_opened) = crate::index::open_for_writing(state, probe, found.head)?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                head: found.head,
                length: found.length,
                segments: found.segments.clone(),
                marks: found.marks.clone(),
                health: LedgerHealth::default(),
                wakes: Vec::new(),
                hooks: Vec::new(),
            }),
        });
        let anew = index_opened.rebuilt.is_some() && found.head.seq > 0;
        let verified = anew.then(|| verify_files(&state.ledger(), &key.public(), None)).transpose()?;
        let opened = Opened {
            verified,
            head: found.head,
            torn_tail: found.torn_tail.clone(),
            checked: found.checked,
            index: index_opened,
        };
        let (sender, receiver) = channel();
        let readers = index.reader();
        let writer = Writer::new(state, key, clock, found, index, Arc::clone(&shared))?;
        let thread = std::thread::Builder::new()
            .name("ledger".to_owned())
            .spawn(move || writer.run(&receiver))
            .map_err(StoreError::Thread)?;
        let handle = LedgerHandle { sender, shared, index: readers };
        Ok((Self { handle, thread }, opened))
    }

    /// A handle to append, read and subscribe with.
    #[must_use]
    pub fn handle(&self) -> LedgerHandle {
        self.handle.clone()
    }

    /// Writes what is waiting and a checkpoint, and ends the thread. Handles
    /// that are left get [`StoreError::LedgerClosed`].
    ///
    /// # Errors
    /// [`StoreError::NotDurable`] where the checkpoint could not be written.
    pub fn stop(self) -> Result<Head, StoreError> {
        let (answer, result) = sync_channel(1);
        let sent = self.handle.sender.send(Message::Stop(answer));
        let head = sent.ok().and_then(|()| result.recv().ok()).unwrap_or(Err(StoreError::LedgerClosed));
        // The thread answers last of all, so this does not wait.
        if self.thread.join().is_err() {
            return Err(StoreError::LedgerClosed);
        }
        head
    }
}

/// Appends to the ledger, reads it, and tells when it grew.
#[derive(Clone)]
pub struct LedgerHandle {
    sender: Sender<Message>,
    shared: Arc<Shared>,
    index: Index,
}

impl std::fmt::Debug for LedgerHandle {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LedgerHandle").field("head", &self.head()).finish_non_exhaustive()
    }
}

impl LedgerHandle {
    /// Appends events and waits until they are on the disk and in the index.
    ///
    /// The answer has one record for each event, in order. Findings that do not
    /// fit into one line are split off into further records (`alert_grew`,
    /// `window_change`), which are in the ledger but not in the answer.
    ///
    /// # Errors
    /// [`StoreError::NotDurable`]: nothing of it is in the ledger, hand it in again.
    /// [`StoreError::LedgerClosed`] after [`Ledger::stop`].
    pub fn append(&self, environment: Option<String>, events: Vec<Event>) -> Result<Vec<Record>, StoreError> {
        let (answer, result) = sync_channel(1);
        self.append_then(environment, events, move |outcome| {
            // The one who waits is below; it cannot be gone.
            answer.send(outcome).unwrap_or_default();
        });
        result.recv().unwrap_or(Err(StoreError::LedgerClosed))
    }

    /// Appends events and calls `done`, on the ledger's thread, once they are on
    /// the disk and in the index, or could not be. `done` must not block.
    pub fn append_then(
        &self,
        environment: Option<String>,
        events: Vec<Event>,
        done: impl FnOnce(Result<Vec<Record>, StoreError>) + Send + 'static,
    ) {
        let request = Request { want: Want { environment, events }, done: Box::new(done) };
        if let Err(unsent) = self.sender.send(Message::Append(request))
            && let Message::Append(request) = unsent.0
        {
            (request.done)(Err(StoreError::LedgerClosed));
        }
    }

    /// The last durable record.
    #[must_use]
    pub fn head(&self) -> Head {
        self.shared.lock().head
    }

    /// How well the ledger does.
    #[must_use]
    pub fn health(&self) -> LedgerHealth {
        self.shared.lock().health.clone()
    }

    /// Wakes the receiver after records became durable. Wakes that nobody
    /// fetched collapse into one: read until the head after each.
    #[must_use]
    pub fn subscribe(&self) -> Receiver<()> {
        let (sender, receiver) = sync_channel(1);
        self.shared.lock().wakes.push(sender);
        receiver
    }

    /// Calls `hook` with the head, on the ledger's thread, after records became
    /// durable. It must not block.
    pub fn on_commit(&self, hook: impl Fn(Head) + Send + 'static) {
        self.shared.lock().hooks.push(Box::new(hook));
    }

    /// Reads durable records from this number on.
    #[must_use]
    pub fn read_from(&self, seq: u64) -> LedgerReader {
        LedgerReader::new(Arc::clone(&self.shared), seq)
    }

    /// The index, as of the last durable record.
    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }
}

/// What the writing thread and everybody else share.
pub(crate) struct Shared {
    state: Mutex<State>,
}

pub(crate) struct State {
    pub(crate) head: Head,
    /// Durable length of the last segment.
    pub(crate) length: u64,
    pub(crate) segments: Vec<Segment>,
    /// Where some records of the last segment start.
    pub(crate) marks: Marks,
    pub(crate) health: LedgerHealth,
    wakes: Vec<SyncSender<()>>,
    hooks: Vec<Box<dyn Fn(Head) + Send>>,
}

impl Shared {
    pub(crate) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where every 64th record of the last segment starts, to read on from there.
#[derive(Debug, Clone, Default)]
pub(crate) struct Marks(Vec<(u64, u64)>);

impl Marks {
    pub(crate) fn note(&mut self, seq: u64, offset: u64) {
        if self.0.last().is_none_or(|&(last, _)| seq >= last.saturating_add(64)) {
            self.0.push((seq, offset));
        }
    }

    /// The nearest known start at or before a record.
    pub(crate) fn before(&self, seq: u64) -> u64 {
        let after = self.0.partition_point(|&(known, _)| known <= seq);
        after.checked_sub(1).and_then(|i| self.0.get(i)).map_or(0, |&(_, offset)| offset)
    }
}
