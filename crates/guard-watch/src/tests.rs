//! What a backend can do to us that inotify does only rarely.

use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use guard_model::RelPath;
use guard_model::ledger::GapCause;
use guard_model::policy::{PatternText, Policy};

use crate::backend::{Backend, Interest, Kind, Refusal, Start};
use crate::error::WatchError;
use crate::inbox::{Inbox, News};
use crate::{EnvId, Hint, WatchReport, Watcher};

/// Does as the names in the tree tell it.
struct Puppet {
    inbox: Arc<Inbox>,
    generation: u64,
}

fn puppet(inbox: &Arc<Inbox>, generation: u64, interest: Interest) -> Result<Box<dyn Backend>, WatchError> {
    if generation > 1 && interest.root.join("no-second").exists() {
        return Err(WatchError::Relative(PathBuf::new()));
    }
    inbox.started(generation);
    Ok(Box::new(Puppet { inbox: Arc::clone(inbox), generation }))
}

impl Backend for Puppet {
    fn watch(&self, directory: &Path, _: Option<BorrowedFd<'_>>) -> Result<(), Refusal> {
        let first = self.generation == 1;
        match directory.file_name().and_then(|n| n.to_str()) {
            Some("limit") => Err(Refusal::Limit),
            Some("odd") => Err(Refusal::Other("odd".to_owned())),
            Some("overflow") if first => {
                self.inbox.overflow();
                Ok(())
            }
            Some("error") if first => {
                self.inbox.error("read: EIO".to_owned());
                Ok(())
            }
            Some("mortal") if first => {
                self.inbox.ended(1);
                Err(Refusal::Ended)
            }
            _ => Ok(()),
        }
    }

    fn watch_itself(&self, _: &Path) -> Result<(), Refusal> {
        Ok(())
    }

    fn unwatch(&self, _: &Path) {}

    fn watch_canaries(&mut self) -> Result<(), Refusal> {
        Ok(())
    }

    fn readers(&self) -> u32 {
        1
    }

    fn kind(&self) -> Kind {
        Kind::Fanotify
    }
}

impl Drop for Puppet {
    fn drop(&mut self) {
        self.inbox.ended(self.generation);
    }
}

struct Stage {
    _dir: tempfile::TempDir,
    root: PathBuf,
    watcher: Watcher,
    hints: Receiver<Hint>,
    report: WatchReport,
}

fn stage(directories: &[&str], start: Start) -> Stage {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().canonicalize().unwrap().join("root");
    std::fs::create_dir(&root).unwrap();
    for d in directories {
        std::fs::create_dir_all(root.join(d)).unwrap();
    }
    let (sender, hints): (Sender<Hint>, _) = channel();
    let sender = Mutex::new(sender);
    let sink = Arc::new(move |hint| sender.lock().unwrap().send(hint).unwrap_or_default());
    let watcher = Watcher::start_by(&dir.path().join("canary"), sink, start).unwrap();
    let policy = Arc::new(Policy::new(PatternText::default()).unwrap());
    let report = watcher.add_environment(EnvId(1), &root, policy).unwrap();
    Stage { _dir: dir, root, watcher, hints, report }
}

impl Stage {
    fn next(&self) -> Hint {
        self.hints.recv_timeout(Duration::from_secs(120)).unwrap()
    }

    fn gap(&self) -> (GapCause, String) {
        match self.next() {
            Hint::Gap { env: Some(EnvId(1)), cause, detail } => (cause, detail),
            other => panic!("not a gap: {other:?}"),
        }
    }

    fn quiet(&self) {
        assert_eq!(self.hints.recv_timeout(Duration::from_millis(50)).ok(), None);
    }
}

fn rel(text: &str) -> RelPath {
    RelPath::from_text(text).unwrap()
}

#[test]
fn directories_without_a_watch_are_reported_and_told_once() {
    let s = stage(&["a/limit/below", "a/good", "odd"], puppet);
    assert_eq!(s.report.directories, 3);
    let failed: Vec<&RelPath> = s.report.failed.iter().map(|(p, _)| p).collect();
    assert_eq!(failed, [&rel("a/limit"), &rel("odd")]);
    let (cause, detail) = s.gap();
    assert_eq!(cause, GapCause::Backend);
    assert!(detail.contains("/proc/sys/fs/inotify/max_user_watches"), "{detail}");
    assert!(detail.contains("a/limit and 1 more"), "{detail}");
    assert_eq!(s.watcher.rebuild(EnvId(1)).unwrap(), s.report);
    s.quiet();
}

#[test]
fn an_overflow_is_a_gap_told_after_all_watches_stand_anew() {
    let s = stage(&["overflow/x"], puppet);
    assert_eq!(s.gap().0, GapCause::Overflow);
    s.quiet();
}

#[test]
fn an_error_of_the_backend_is_a_gap() {
    let s = stage(&["error"], puppet);
    assert_eq!(s.gap(), (GapCause::Backend, "read: EIO".to_owned()));
    s.quiet();
}

#[test]
fn a_thread_that_ends_is_a_gap_and_another_is_started() {
    let s = stage(&["mortal"], puppet);
    let (cause, detail) = s.gap();
    assert_eq!(cause, GapCause::Backend);
    assert!(detail.contains("mortal cannot be watched: the reader of events has ended"), "{detail}");
    assert_eq!(s.gap(), (GapCause::Backend, "a reader of events had ended".to_owned()));
    s.quiet();
    assert_eq!(s.watcher.rebuild(EnvId(1)).unwrap().failed, []);
}

#[test]
fn a_backend_that_cannot_be_started_again_is_said_and_tried_until_it_can() {
    let s = stage(&["no-second", "overflow"], puppet);
    let (cause, detail) = s.gap();
    assert_eq!(cause, GapCause::Backend);
    assert!(detail.contains("nothing is watched"), "{detail}");
    s.quiet();
    std::fs::remove_dir(s.root.join("no-second")).unwrap();
    assert_eq!(s.gap().0, GapCause::Overflow);
    assert_eq!(s.gap(), (GapCause::Backend, "nothing was watched for a while".to_owned()));
    s.quiet();
}

#[test]
fn a_set_of_paths_that_nobody_takes_stays_bounded() {
    let inbox = Inbox::default();
    for i in 0..=Inbox::PATHS {
        inbox.path(PathBuf::from(format!("/{i}")), News::Changed, None);
    }
    let batch = inbox.take(None);
    assert!(batch.overflow);
    assert_eq!(batch.paths.len(), 1);
    for _ in 0..1000 {
        inbox.path(PathBuf::from("/same"), News::Changed, None);
        inbox.error("again".to_owned());
    }
    inbox.path(PathBuf::from("/same"), News::Structure, None);
    inbox.path(PathBuf::from("/same"), News::File, None);
    let batch = inbox.take(None);
    assert_eq!(
        batch.paths.into_iter().map(|(p, told)| (p, told.news)).collect::<Vec<_>>(),
        [(PathBuf::from("/same"), News::Structure)]
    );
    assert!(!batch.overflow && batch.errors.len() < 1000);
}

/// inotify, with a reader that waits for a lock which the test holds.
fn held_up(inbox: &Arc<Inbox>, generation: u64, interest: Interest) -> Result<Box<dyn Backend>, WatchError> {
    *LAST.lock().unwrap() = Some(Arc::clone(inbox));
    crate::inotify::start(inbox, generation, interest)
}

static LAST: Mutex<Option<Arc<Inbox>>> = Mutex::new(None);

#[test]
fn an_overflow_of_the_kernels_queue_is_a_gap_and_everything_is_watched_after() {
    let s = stage(&["d"], held_up);
    let inbox = LAST.lock().unwrap().take().unwrap();
    let limit = std::fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    inbox.while_held(|| {
        std::fs::create_dir(s.root.join("unseen")).unwrap();
        // Renames: two events each, none of which merges with another.
        std::fs::write(s.root.join("d/a"), "").unwrap();
        for _ in 0..limit / 4 + 100 {
            std::fs::rename(s.root.join("d/a"), s.root.join("d/b")).unwrap();
            std::fs::rename(s.root.join("d/b"), s.root.join("d/a")).unwrap();
        }
        // The directory that is made while the queue is full: notify alone never learns of it.
        std::fs::create_dir_all(s.root.join("late/deep")).unwrap();
    });
    loop {
        if let Hint::Gap { cause, .. } = s.next() {
            assert_eq!(cause, GapCause::Overflow);
            break;
        }
    }
    let file = s.root.join("late/deep/file");
    std::fs::write(&file, "x").unwrap();
    let deep = rel("late/deep/file");
    while !matches!(s.next(), Hint::Touch { path, actor: None, .. } if path == deep) {}
}
