//! Methods that answer in many parts.

use std::future::Future;
use std::io::Read;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use guard_api::method::{
    ExportBaseline, ExportBaselineReply, ExportLog, ExportLogReply, Log, LogReply, Step, Watch, WatchReply,
};
use guard_api::wire::{Head, SignedHead};
use guard_api::{Known, Time};
use guard_model::ledger::{Record, checkpoint_text};
use guard_model::path::escape;
use guard_store::{LedgerReader, RecordFilter};
use tokio::sync::Notify;

use super::connection::{HungUp, Out};
use super::methods::{Daemon, Ended, OnHangup};
use super::reading::failed;
use crate::operations::Work;
use crate::wire as cross;

/// How often progress is told.
const TOLD_EVERY: Duration = Duration::from_millis(200);
/// Records in one reply.
const AT_ONCE: usize = 200;
/// Bytes of a file in one reply; base64 makes four thirds of it.
const PART: u64 = 1024 * 1024;

/// Waits for an operation, telling how far it is to a caller that takes more.
pub(super) async fn with_progress<T>(
    operation: impl Future<Output = Result<T, Known>>,
    work: &Work,
    on_hangup: OnHangup,
    out: &mut Out,
) -> Result<T, Ended> {
    tokio::pin!(operation);
    let mut tick = tokio::time::interval(TOLD_EVERY);
    tick.tick().await;
    let mut listens = true;
    loop {
        let told = tokio::select! {
            result = &mut operation => return Ok(result?),
            () = out.gone(), if listens => Err(HungUp),
            _ = tick.tick(), if listens && out.takes_more() => {
                let (phase, done, total) = work.now();
                let step = Step::<()>::progress(phase.name(), done, (total > 0).then_some(total));
                out.more(&step).await
            }
        };
        match (told, on_hangup) {
            (Ok(()), _) => {}
            // How it ends is recorded, whether or not somebody still wants to hear it.
            (Err(HungUp), OnHangup::GoOn) => listens = false,
            (Err(HungUp), OnHangup::Cancel) => {
                work.cancel.store(true, Ordering::Relaxed);
                return Err(HungUp.into());
            }
        }
    }
}

/// Follows the ledger. Nothing is queued per subscriber: each reads the ledger
/// at its own pace, so that none can hold up another and nothing is lost.
struct Follower {
    reader: LedgerReader,
    grown: Arc<Notify>,
    environment: Option<String>,
}

impl Follower {
    fn new(daemon: &Daemon, from: u64, environment: Option<String>) -> Self {
        let grown = daemon.grown();
        Self { reader: daemon.house.ledger.read_from(from), grown, environment }
    }

    /// The next records, at least one, of this environment or of the daemon itself.
    async fn next(&mut self, out: &Out) -> Result<(Vec<Record>, u64), HungUp> {
        loop {
            // Asked before reading, so that what grows meanwhile wakes us.
            let grown = Arc::clone(&self.grown);
            let notified = grown.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            let (records, lost) = tokio::task::block_in_place(|| self.read());
            if !records.is_empty() || lost > 0 {
                return Ok((records, lost));
            }
            tokio::select! {
                () = notified => {}
                () = out.gone() => return Err(HungUp),
            }
        }
    }

    fn read(&mut self) -> (Vec<Record>, u64) {
        let (mut records, mut lost) = (Vec::new(), 0);
        while let Some(record) = self.reader.next() {
            match record {
                Ok(record) if self.wants(&record) => records.push(record),
                Ok(_) => {}
                Err(e) => {
                    tracing::warn!(error = %crate::failure::chain(&e), "a ledger record cannot be read");
                    lost += 1;
                }
            }
            if records.len() >= AT_ONCE {
                break;
            }
        }
        (records, lost)
    }

    fn wants(&self, record: &Record) -> bool {
        self.environment.is_none() || record.environment.is_none() || record.environment == self.environment
    }
}

pub(super) async fn watch(daemon: &Daemon, asked: &Watch, out: &mut Out) -> Result<(), Ended> {
    let environment = daemon.known_environment(asked.environment.as_deref())?;
    if !out.takes_more() {
        return Err(Known::ExpectedMore {}.into());
    }
    let head = daemon.house.ledger.head();
    let first = Head { seq: head.seq, hash: head.hash.to_string() };
    out.more(&WatchReply { head: Some(first), ..WatchReply::default() }).await?;
    let mut follower = Follower::new(daemon, head.seq + 1, environment);
    loop {
        let (records, lost) = follower.next(out).await?;
        for record in &records {
            out.more(&WatchReply { record: cross::record(record), ..WatchReply::default() }).await?;
        }
        if lost > 0 {
            out.more(&WatchReply { lost: Some(lost), ..WatchReply::default() }).await?;
        }
    }
}

pub(super) async fn log(daemon: &Daemon, asked: &Log, out: &mut Out) -> Result<(), Ended> {
    let environment = daemon.known_environment(asked.environment.as_deref())?;
    let follow = asked.follow.unwrap_or(false);
    if follow && !out.takes_more() {
        return Err(Known::ExpectedMore {}.into());
    }
    let head = daemon.house.ledger.head();
    let filter = RecordFilter { environment: environment.clone(), ..RecordFilter::default() };
    let limit = asked.limit.unwrap_or(100);
    let read = || daemon.house.index().recent(limit.min(100_000), &filter);
    let mut records = tokio::task::block_in_place(read).map_err(failed)?;
    records.reverse();
    let reply = |records: &[Record], lost| LogReply {
        records: records.iter().filter_map(cross::record).collect(),
        lost: (lost > 0).then_some(lost),
    };
    let last = records.last().map_or(head.seq, |r| r.seq.max(head.seq));
    if out.takes_more() {
        for part in records.chunks(AT_ONCE) {
            out.more(&reply(part, 0)).await?;
        }
    } else {
        return Ok(out.last(&reply(&records, 0)).await?);
    }
    if !follow {
        return Ok(out.last(&LogReply::default()).await?);
    }
    let mut follower = Follower::new(daemon, last + 1, environment);
    loop {
        let (records, lost) = follower.next(out).await?;
        out.more(&reply(&records, lost)).await?;
    }
}

pub(super) async fn export_log(daemon: &Daemon, asked: &ExportLog, out: &mut Out) -> Result<(), Ended> {
    let head = signed_head(daemon)?;
    if asked.head_only.unwrap_or(false) {
        return Ok(out.last(&ExportLogReply { lines: Vec::new(), head: Some(head) }).await?);
    }
    if !out.takes_more() {
        return Err(Known::ExpectedMore {}.into());
    }
    let mut files = Vec::new();
    let ledger = daemon.house.state_dir.ledger();
    let names = std::fs::read_dir(&ledger).map_err(|e| io_failed("read", &ledger, &e))?;
    for name in names {
        let path = name.map_err(|e| io_failed("read", &ledger, &e))?.path();
        if path.extension().is_some_and(|e| e == "jsonl") {
            files.push(path);
        }
    }
    files.sort();
    for path in files {
        let file = std::fs::File::open(&path).map_err(|e| io_failed("open", &path, &e))?;
        let mut lines = std::io::BufRead::lines(std::io::BufReader::new(file));
        loop {
            let part: Vec<String> =
                tokio::task::block_in_place(|| lines.by_ref().take(AT_ONCE).collect::<Result<_, _>>())
                    .map_err(|e| io_failed("read", &path, &e))?;
            if part.is_empty() {
                break;
            }
            out.more(&ExportLogReply { lines: part, head: None }).await?;
        }
    }
    Ok(out.last(&ExportLogReply { lines: Vec::new(), head: Some(head) }).await?)
}

fn signed_head(daemon: &Daemon) -> Result<SignedHead, Known> {
    let head = daemon.house.ledger.head();
    let text = checkpoint_text(head.seq, &head.hash);
    let signature =
        daemon.house.key.sign(guard_store::keys::NAMESPACE_LEDGER, text.as_bytes()).map_err(failed)?;
    Ok(SignedHead {
        seq: head.seq,
        hash: head.hash.to_string(),
        at: Time(crate::operations::now().0),
        machine_id: daemon.house.machine_id.clone(),
        signature,
    })
}

fn io_failed(operation: &str, path: &std::path::Path, e: &std::io::Error) -> Known {
    Known::Failed { message: format!("cannot {operation} {}: {e}", path.display()), hint: None }
}

/// The files of a generation that are for everybody.
const OPEN_FILES: [&str; 4] = ["SHA256SUMS", "undo.jsonl", "manifest.json", "manifest.json.sig"];
/// The host's public files, with which the signature is verified.
const PUBLIC_FILES: [&str; 2] = ["host.pub", "allowed_signers"];

pub(super) async fn export_baseline(
    daemon: &Daemon,
    asked: &ExportBaseline,
    out: &mut Out,
) -> Result<(), Ended> {
    use std::os::unix::ffi::OsStrExt;
    let warden = daemon.warden(asked.environment.as_deref())?;
    let state = daemon.house.index().environment_state(&warden.name).map_err(failed)?;
    let none = |generation| Known::NoBaseline { environment: warden.name.clone(), generation };
    let generation = asked.generation.or(state.baseline.map(|b| b.generation)).ok_or_else(|| none(None))?;
    let dir = daemon.house.state_dir.generation(&warden.name, generation).map_err(failed)?;
    if !dir.is_dir() {
        return Err(none(Some(generation)).into());
    }
    if !out.takes_more() {
        return Err(Known::ExpectedMore {}.into());
    }
    let wanted: Vec<&str> = match &asked.file {
        None => OPEN_FILES.into_iter().chain(PUBLIC_FILES).collect(),
        Some(name) => match OPEN_FILES.iter().chain(&PUBLIC_FILES).find(|f| *f == name) {
            Some(file) => vec![file],
            None => return Err(Known::InvalidParameter { parameter: "file".to_owned() }.into()),
        },
    };
    let root = escape(warden.root.as_os_str().as_bytes());
    let public = daemon.house.state_dir.public();
    let last_file = wanted.last().copied();
    for name in wanted {
        let path = if PUBLIC_FILES.contains(&name) { public.join(name) } else { dir.join(name) };
        let mut file = std::fs::File::open(&path).map_err(|e| io_failed("open", &path, &e))?;
        let size = file.metadata().map_err(|e| io_failed("look at", &path, &e))?.len();
        let mut sent = 0;
        loop {
            let mut data = Vec::new();
            tokio::task::block_in_place(|| file.by_ref().take(PART).read_to_end(&mut data))
                .map_err(|e| io_failed("read", &path, &e))?;
            sent += data.len() as u64;
            let is_end = sent >= size || data.is_empty();
            let reply = ExportBaselineReply {
                environment: warden.name.clone(),
                generation,
                root: root.clone(),
                file: name.to_owned(),
                size,
                data,
            };
            if is_end && Some(name) == last_file {
                return Ok(out.last(&reply).await?);
            }
            out.more(&reply).await?;
            if is_end {
                break;
            }
        }
    }
    Ok(())
}
