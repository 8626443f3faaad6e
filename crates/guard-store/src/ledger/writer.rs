//! The thread that writes the ledger.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::{Duration, Instant};

use guard_model::ledger::{Event, Head, Record, checkpoint_text, line_hash};
use guard_model::{Digest, Timestamp};

use crate::error::StoreError;
use crate::index::{IndexWriter, Located};
use crate::keys::{HostKey, NAMESPACE_LEDGER};
use crate::ledger::append::Appender;
use crate::ledger::breaks::{BreakCause, LedgerBreak};
use crate::ledger::lines::MAX_LINE;
use crate::ledger::segments::{ROTATE_AT, Segment};
use crate::ledger::{CHECKPOINT_EVERY, Marks, Shared, pieces, recover};
use crate::state_dir::StateDir;

/// Requests that share one write at most.
const GROUP: usize = 256;

/// A record without a checkpoint after it gets one after this time.
const SIGN_AFTER: Duration = Duration::from_secs(3600);

/// Disturbances remembered for `status`; the files tell all of them.
const DISTURBED: usize = 100;

/// How soon a full disk is asked again for a new ledger file.
const ROTATE_AGAIN_AFTER: Duration = Duration::from_secs(60);

/// How soon the index and the reserve are tried again after a failure.
const REPAIR_AFTER: Duration = Duration::from_secs(5);

/// Who is told how a write went.
pub(super) type Done = Box<dyn FnOnce(Result<Vec<Record>, StoreError>) + Send>;

/// What is to be written.
pub(super) struct Want {
    pub(super) environment: Option<String>,
    pub(super) events: Vec<Event>,
}

pub(super) struct Request {
    pub(super) want: Want,
    pub(super) done: Done,
}

pub(super) enum Message {
    Append(Request),
    Stop(SyncSender<Result<Head, StoreError>>),
}

/// The end of the chain, from which the next record is made.
#[derive(Debug, Clone, Copy)]
struct Chain {
    head: Head,
    /// Records since the last checkpoint.
    unsigned: u64,
}

pub(super) struct Writer {
    state: StateDir,
    key: HostKey,
    clock: Box<dyn Fn() -> Timestamp + Send>,
    chain: Chain,
    /// When the first record without a checkpoint was written.
    unsigned_since: Option<Instant>,
    rotation_refused: Option<Instant>,
    index_refused: Option<Instant>,
    file: Appender,
    index: IndexWriter,
    shared: Arc<Shared>,
}

/// Lines about to be written and what each of them says.
struct Batch {
    chain: Chain,
    bytes: Vec<u8>,
    /// Record, and where its line lies in `bytes`.
    records: Vec<(Record, std::ops::Range<usize>)>,
}

impl Batch {
    /// Chains a record on; a checkpoint comes first where one is due.
    fn add(
        &mut self,
        writer: &Writer,
        environment: Option<&String>,
        event: Event,
    ) -> Result<usize, StoreError> {
        if self.chain.unsigned + 1 >= CHECKPOINT_EVERY {
            self.add_checkpoint(writer)?;
        }
        self.chain.unsigned += 1;
        self.push(writer, environment.cloned(), event)
    }

    fn add_checkpoint(&mut self, writer: &Writer) -> Result<(), StoreError> {
        let text = checkpoint_text(self.chain.head.seq + 1, &self.chain.head.hash);
        let signature = writer.key.sign(NAMESPACE_LEDGER, text.as_bytes())?;
        self.chain.unsigned = 0;
        self.push(writer, None, Event::Checkpoint { signature }).map(|_| ())
    }

    fn push(
        &mut self,
        writer: &Writer,
        environment: Option<String>,
        event: Event,
    ) -> Result<usize, StoreError> {
        let record = Record {
            seq: self.chain.head.seq + 1,
            at: (writer.clock)(),
            prev: self.chain.head.hash,
            environment,
            event,
        };
        let start = self.bytes.len();
        serde_json::to_writer(&mut self.bytes, &record)
            .map_err(|source| StoreError::Json { what: "a ledger record", source })?;
        let end = self.bytes.len();
        if end - start > MAX_LINE {
            return Err(StoreError::RecordTooLarge { event: record.event.name(), bytes: end - start });
        }
        self.chain.head =
            Head { seq: record.seq, hash: line_hash(self.bytes.get(start..end).unwrap_or_default()) };
        self.bytes.push(b'\n');
        self.records.push((record, start..end));
        Ok(self.records.len() - 1)
    }
}

impl Writer {
    pub(super) fn new(
        state: &StateDir,
        key: HostKey,
        clock: Box<dyn Fn() -> Timestamp + Send>,
        found: recover::Found,
        index: IndexWriter,
        shared: Arc<Shared>,
    ) -> Result<Self, StoreError> {
        let file = match found.segments.last() {
            Some(last) if !found.new_segment => Appender::resume(last.clone(), found.length)?,
            _ => Appender::create(&state.ledger(), found.head.seq + 1)?,
        };
        let writer = Self {
            state: state.clone(),
            key,
            clock,
            chain: Chain { head: found.head, unsigned: found.unsigned },
            unsigned_since: (found.unsigned > 0).then(Instant::now),
            rotation_refused: None,
            index_refused: None,
            file,
            index,
            shared,
        };
        if found.new_segment || found.segments.is_empty() {
            writer.tell_new_segment();
        }
        {
            let mut state = writer.shared.lock();
            state.health.reserve = writer.file.reserve_state();
            state.health.index_error = writer.index.in_memory().map(str::to_owned);
        }
        Ok(writer)
    }

    pub(super) fn run(mut self, inbox: &Receiver<Message>) {
        loop {
            let first = match self.wait() {
                Some(wait) => inbox.recv_timeout(wait),
                None => inbox.recv().map_err(|_| RecvTimeoutError::Disconnected),
            };
            let mut group = Vec::new();
            let mut next = match first {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => {
                    self.tend();
                    continue;
                }
                Err(RecvTimeoutError::Disconnected) => return,
            };
            let stop = loop {
                match next {
                    Some(Message::Append(request)) => group.push(request),
                    Some(Message::Stop(answer)) => break Some(answer),
                    None => break None,
                }
                if group.len() >= GROUP {
                    break None;
                }
                next = inbox.try_recv().ok();
            };
            self.commit(group);
            if let Some(answer) = stop {
                let result = self.checkpoint().map(|()| self.chain.head);
                self.file.finish();
                self.index.close();
                // Whoever asked may have gone; the ledger is closed all the same.
                answer.send(result).unwrap_or_default();
                return;
            }
        }
    }

    /// How long nothing needs to be done by itself.
    fn wait(&self) -> Option<Duration> {
        let ailing = {
            let index_lags = self.shared.lock().health.index_error.is_some();
            index_lags || (self.file.can_reserve() && !self.file.has_reserve())
        };
        let sign = self.unsigned_since.map(|t| SIGN_AFTER.saturating_sub(t.elapsed()));
        if ailing { Some(sign.map_or(REPAIR_AFTER, |s| s.min(REPAIR_AFTER))) } else { sign }
    }

    /// What is to be done without anybody asking.
    fn tend(&mut self) {
        if self.unsigned_since.is_some_and(|t| t.elapsed() >= SIGN_AFTER)
            && let Err(error) = self.checkpoint()
        {
            tracing::error!(error = error.with_causes(), "cannot write a ledger checkpoint");
            // Tried again after the same time, not at once and for ever.
            self.unsigned_since = Some(Instant::now());
        }
        self.file.refill();
        if self.file.has_reserve() || !self.file.can_reserve() {
            self.index.leave_memory(&self.state, self.chain.head);
        }
        self.index_on(&[]);
        self.shared.lock().health.reserve = self.file.reserve_state();
    }

    fn commit(&mut self, group: Vec<Request>) {
        if group.is_empty() {
            return;
        }
        let (wants, dones): (Vec<Want>, Vec<Done>) = group.into_iter().map(|r| (r.want, r.done)).unzip();
        match self.write(&wants) {
            Ok(answers) => {
                for (done, records) in dones.into_iter().zip(answers) {
                    done(Ok(records));
                }
            }
            Err(_) if wants.len() > 1 => {
                // One that is too large for what is left of the disk must not take the others down.
                for (want, done) in wants.iter().zip(dones) {
                    let answer = self.write(std::slice::from_ref(want));
                    done(answer.map(|mut a| a.pop().unwrap_or_default()).map_err(not_durable));
                }
            }
            Err(e) => {
                if let Some(done) = dones.into_iter().next() {
                    done(Err(not_durable(e)));
                }
            }
        }
    }

    fn checkpoint(&mut self) -> Result<(), StoreError> {
        if self.chain.unsigned == 0 {
            return Ok(());
        }
        self.look_after_file().map_err(not_durable)?;
        let mut batch = self.batch();
        batch.add_checkpoint(self)?;
        self.write_batch(batch).map(|_| ()).map_err(not_durable)
    }

    fn batch(&self) -> Batch {
        Batch { chain: self.chain, bytes: Vec::new(), records: Vec::new() }
    }

    /// Writes what several callers want; answers with each caller's records.
    fn write(&mut self, wants: &[Want]) -> Result<Vec<Vec<Record>>, StoreError> {
        self.look_after_file().inspect_err(|e| self.note_failure(e))?;
        let mut batch = self.batch();
        // For each caller, which records of the batch are the answer.
        let mut places = Vec::with_capacity(wants.len());
        for want in wants {
            let mut own = Vec::with_capacity(want.events.len());
            for event in &want.events {
                let split = pieces::split(event.clone());
                let place = batch.add(self, want.environment.as_ref(), split.first)?;
                let seq = batch.records.get(place).map_or(0, |(r, _)| r.seq);
                own.push(place);
                for rest in split.rest {
                    batch.add(self, want.environment.as_ref(), rest.into_event(seq))?;
                }
            }
            places.push(own);
        }
        let mut records = self.write_batch(batch)?.into_iter().enumerate();
        let mut pick = |place: usize| records.find(|(i, _)| *i == place).map(|(_, r)| r);
        Ok(places.into_iter().map(|own| own.into_iter().filter_map(&mut pick).collect()).collect())
    }

    /// On the disk, then in the index, then told.
    fn write_batch(&mut self, batch: Batch) -> Result<Vec<Record>, StoreError> {
        if batch.records.is_empty() {
            return Ok(Vec::new());
        }
        self.rotate();
        let at = self.file.length();
        self.file.append(&batch.bytes).inspect_err(|e| self.note_failure(e))?;
        self.chain = batch.chain;
        match (self.chain.unsigned, self.unsigned_since) {
            (0, _) => self.unsigned_since = None,
            (_, None) => self.unsigned_since = Some(Instant::now()),
            _ => {}
        }
        let segment = self.file.segment().first;
        let located: Vec<Located> = batch
            .records
            .into_iter()
            .map(|(record, place)| Located {
                segment,
                offset: at + place.start as u64,
                length: place.len() as u64,
                record,
            })
            .collect();
        {
            let mut state = self.shared.lock();
            state.head = self.chain.head;
            state.length = self.file.length();
            for one in &located {
                state.marks.note(one.record.seq, one.offset);
            }
            state.health.write_error = None;
            state.health.reserve = self.file.reserve_state();
        }
        self.index_on(&located);
        self.wake();
        Ok(located.into_iter().map(|l| l.record).collect())
    }

    fn note_failure(&self, e: &StoreError) {
        let mut state = self.shared.lock();
        state.health.write_error = Some(e.with_causes());
        state.health.reserve = self.file.reserve_state();
    }

    fn index_on(&mut self, located: &[Located]) {
        let head = self.chain.head;
        // Where it could not keep up, one try in a while is enough: each reads the ledger.
        if self.index_refused.is_some_and(|t| t.elapsed() < REPAIR_AFTER) {
            return;
        }
        let outcome = self.index.catch_up(&self.state, located, head);
        self.index_refused = outcome.is_err().then(Instant::now);
        let error = match &outcome {
            Ok(_) => self.index.in_memory().map(str::to_owned),
            Err(e) => {
                tracing::error!(error = e.with_causes(), "the index lags behind the ledger");
                Some(e.with_causes())
            }
        };
        self.shared.lock().health.index_error = error;
    }

    fn wake(&self) {
        let mut state = self.shared.lock();
        state
            .wakes
            .retain(|s| !matches!(s.try_send(()), Err(std::sync::mpsc::TrySendError::Disconnected(()))));
        let hooks = std::mem::take(&mut state.hooks);
        drop(state);
        // Outside the lock: a hook may well ask for the head.
        for hook in &hooks {
            hook(self.chain.head);
        }
        let mut state = self.shared.lock();
        let added = std::mem::replace(&mut state.hooks, hooks);
        state.hooks.extend(added);
    }

    /// Goes on in a new file once this one is long; not while the disk is full,
    /// because the reserve belongs to this one.
    fn rotate(&mut self) {
        let early = self.rotation_refused.is_some_and(|t| t.elapsed() < ROTATE_AGAIN_AFTER);
        if self.file.length() < ROTATE_AT || early {
            return;
        }
        match Appender::create(&self.state.ledger(), self.chain.head.seq + 1) {
            Ok(new) if new.has_reserve() || !new.can_reserve() => {
                self.file.finish();
                self.file = new;
                self.tell_new_segment();
            }
            Ok(new) => {
                self.rotation_refused = Some(Instant::now());
                if let Err(error) = crate::durable::remove_if_there(&new.segment().path) {
                    tracing::warn!(%error, "cannot remove an unused ledger file");
                }
            }
            Err(error) => {
                self.rotation_refused = Some(Instant::now());
                tracing::warn!(error = error.with_causes(), "cannot begin a new ledger file");
            }
        }
    }

    /// Starts a new chain in a new file where somebody changed this one: what is
    /// written to a file that has no name any more would be lost.
    fn look_after_file(&mut self) -> Result<(), StoreError> {
        let Some(how) = self.file.disturbed() else { return Ok(()) };
        let after = self.chain.head.seq;
        let broken = LedgerBreak {
            file: self.file.segment().path.clone(),
            line: 0,
            offset: self.file.length(),
            cause: BreakCause::Disturbed { how, after },
            resume_after: after,
        };
        tracing::error!(%broken, "the ledger was tampered with");
        crate::state_dir::make_dir(&self.state.ledger(), 0o700)?;
        self.file = Appender::create(&self.state.ledger(), after + 1)?;
        self.chain = Chain { head: Head { seq: after, hash: Digest([0; 32]) }, unsigned: 0 };
        self.tell_new_segment();
        let mut state = self.shared.lock();
        state.health.disturbed.push(broken);
        // Somebody who does it again and again must not fill our memory.
        let many = state.health.disturbed.len().saturating_sub(DISTURBED);
        state.health.disturbed.drain(..many);
        drop(state);
        Ok(())
    }

    fn tell_new_segment(&self) {
        let mut state = self.shared.lock();
        let segment: Segment = self.file.segment().clone();
        state.segments.retain(|s| s.first < segment.first);
        state.segments.push(segment);
        state.marks = Marks::default();
        state.length = self.file.length();
    }
}

/// What the caller is told: whether handing the events in again can help.
fn not_durable(e: StoreError) -> StoreError {
    match e {
        StoreError::RecordTooLarge { .. } => e,
        e => StoreError::NotDurable { source: Box::new(e) },
    }
}
