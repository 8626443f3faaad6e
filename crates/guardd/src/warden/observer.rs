//! The warden's eyes: a thread that observes what the warden asks it to, one
//! batch after the other, and reports back by message.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

use guard_model::baseline::BaselineRecord;
use guard_model::{Actor, Entry, Kind, Observed, Policy, RelPath};
use guard_tree::{Content, Root, ScanContent, ScanOptions};

use super::Message;
use super::touches::{Proof, Reach, Touched};
use crate::comparer::{Comparer, Difference, Expectation};
use crate::operations::Work;

/// What to observe, and against what.
#[derive(Clone)]
pub(super) struct View {
    pub(super) root: Arc<Root>,
    pub(super) policy: Arc<Policy>,
    pub(super) expectation: Expectation,
}

enum Job {
    Paths(View, Vec<Touched>),
    Ping(tokio::sync::oneshot::Sender<()>),
}

/// What a batch brought.
#[derive(Default)]
pub(crate) struct Report {
    /// Each with who made it, where known.
    pub(super) differences: Vec<(Difference, Option<Arc<Actor>>)>,
    pub(super) clean: Vec<RelPath>,
    /// Files whose content was read.
    pub(super) read: Vec<RelPath>,
    /// What was looked at so soon after a change that another one need not show: it is looked at again.
    pub(super) unsettled: Vec<RelPath>,
    /// What is below directories that are new, gone or replaced: it is to be observed too. What went with its
    /// directory went by the same hand.
    pub(super) suspects: Vec<(RelPath, Option<Arc<Actor>>)>,
    /// The baseline could not be read.
    pub(super) error: Option<guard_store::StoreError>,
}

/// The handle that the warden keeps.
pub(super) struct Observer {
    jobs: Sender<Job>,
    /// Bytes and entries read: proof of life during a long read.
    pub(super) work: Arc<Work>,
}

impl Observer {
    /// Starts the thread; it ends when the handle is dropped.
    pub(super) fn start(name: &str, reports: Sender<Message>) -> std::io::Result<Self> {
        let (jobs, queue) = channel();
        let work = Work::shared();
        let own = Arc::clone(&work);
        std::thread::Builder::new()
            .name(format!("observe {name}"))
            .spawn(move || run(&queue, &reports, &own))?;
        Ok(Self { jobs, work })
    }

    /// False where the thread has ended.
    pub(super) fn observe(&self, view: View, paths: Vec<Touched>) -> bool {
        self.jobs.send(Job::Paths(view, paths)).is_ok()
    }

    pub(super) fn ping(&self, reply: tokio::sync::oneshot::Sender<()>) -> bool {
        self.jobs.send(Job::Ping(reply)).is_ok()
    }
}

fn run(queue: &Receiver<Job>, reports: &Sender<Message>, work: &Work) {
    while let Ok(job) = queue.recv() {
        match job {
            Job::Ping(reply) => {
                // The asker may have given up waiting: nothing to tell it then.
                reply.send(()).ok();
            }
            Job::Paths(view, paths) => {
                let mut report = Report::default();
                for touched in paths {
                    observe(&view, touched, work, &mut report);
                }
                if reports.send(Message::Observed(Box::new(report))).is_err() {
                    return;
                }
            }
        }
    }
}

fn observe(view: &View, touched: Touched, work: &Work, report: &mut Report) {
    let Touched { path, reach, proof, actor } = touched;
    let known = match view.expectation.get(&path) {
        Ok(record) => record,
        Err(e) => {
            report.error = Some(e);
            return;
        }
    };
    let found = match known {
        Some(record) => {
            let on_disk = view.expectation.on_disk(&record);
            let observed = match proof {
                // What was still changing has been left alone for a moment by now.
                Proof::Metadata => {
                    let content = Content::IfDiffers(&on_disk);
                    view.root.observe_at_once(&path, content, &work.cancel, &work.progress)
                }
                Proof::Device => look(view, &path, Content::ReadFromDevice, work),
            };
            note_unsettled(&path, &observed, report);
            if was_read(&observed) {
                report.read.push(path.clone());
            }
            if reach > Reach::Entry {
                let whole = reach == Reach::Below || is_another_directory(&record.entry, &observed);
                reach_below(view, &record, &observed, whole, (work, actor.as_ref()), report);
            }
            view.expectation.of_record_on(&view.root, &record, observed)
        }
        None => unknown(view, &path, reach, work, report),
    };
    match found {
        Some(difference) => report.differences.push((difference, actor)),
        None => report.clean.push(path),
    }
}

/// Observes, counting what is read as progress.
fn look(view: &View, path: &RelPath, content: Content<'_>, work: &Work) -> Observed {
    view.root.observe_with(path, content, &work.cancel, &work.progress)
}

fn was_read(observed: &Observed) -> bool {
    matches!(observed, Observed::Present(e) if e.sha256.is_some())
}

fn note_unsettled(path: &RelPath, observed: &Observed, report: &mut Report) {
    if let Observed::Present(entry) = observed
        && !guard_tree::has_settled(entry)
    {
        report.unsettled.push(path.clone());
    }
}

/// Lists what is to be observed below a touched entry that is or was a directory.
fn reach_below(
    view: &View,
    record: &BaselineRecord,
    observed: &Observed,
    whole: bool,
    (work, actor): (&Work, Option<&Arc<Actor>>),
    report: &mut Report,
) {
    let was_dir = record.entry.kind == Kind::Directory;
    let is_dir = matches!(observed, Observed::Present(now) if now.kind == Kind::Directory);
    if was_dir && (whole || !is_dir) {
        gone_below(view, &record.path, actor, report);
    }
    if is_dir && whole {
        below(view, &record.path, work, report);
    }
}

/// A directory where there was none, or another inode than there was.
fn is_another_directory(before: &Entry, observed: &Observed) -> bool {
    matches!(observed, Observed::Present(now)
        if now.kind == Kind::Directory && (before.kind != Kind::Directory || before.ino != now.ino))
}

fn unknown(
    view: &View,
    path: &RelPath,
    reach: Reach,
    work: &Work,
    report: &mut Report,
) -> Option<Difference> {
    let at_once = |content| view.root.observe_at_once(path, content, &work.cancel, &work.progress);
    let looked = at_once(Content::Skip);
    let kind = match &looked {
        Observed::Present(e) | Observed::Unreadable { entry: Some(e), .. } => Some(e.kind),
        _ => None,
    };
    let is_dir = kind == Some(Kind::Directory);
    let class = view.policy.classify(path, is_dir);
    if is_dir && reach > Reach::Entry && view.policy.descends(path, class) {
        below(view, path, work, report);
    }
    if !class.is_protected() {
        return None;
    }
    let observed = match kind {
        Some(Kind::File) => {
            report.read.push(path.clone());
            at_once(Content::Read)
        }
        _ => looked,
    };
    note_unsettled(path, &observed, report);
    view.expectation.of_unknown(path.clone(), class, observed)
}

/// Everything recorded below a directory that is gone or replaced is looked at too.
fn gone_below(view: &View, dir: &RelPath, actor: Option<&Arc<Actor>>, report: &mut Report) {
    match view.expectation.all_below(dir) {
        Ok(records) => report.suspects.extend(records.into_iter().map(|r| (r.path, actor.cloned()))),
        Err(e) => report.error = Some(e),
    }
}

/// What stands below a directory that is new is looked at too.
fn below(view: &View, dir: &RelPath, work: &Work, report: &mut Report) {
    // One worker: this runs beside the application, for a directory or two.
    let options = ScanOptions {
        content: ScanContent::None,
        workers: 1,
        pace: None,
        cancel: &work.cancel,
        progress: &work.progress,
    };
    let comparer = Comparer::new(&view.root, view.expectation.clone(), dir.clone());
    match guard_tree::scan(&view.root, &view.policy, dir, &options, &comparer) {
        Ok(_) => {}
        // It went away again: the next touch tells.
        Err(e) => tracing::debug!(%dir, error = %e, "a touched directory could not be walked"),
    }
    let collected = comparer.into_collected();
    report.error = report.error.take().or(collected.error);
    // Who made the directory need not have made what is in it.
    let found = collected.differences.into_iter().map(|d| d.path).filter(|p| p != dir);
    report.suspects.extend(found.map(|path| (path, None)));
}
