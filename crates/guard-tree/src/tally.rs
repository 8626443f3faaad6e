//! What one worker counts while it goes, added up at the end.

use std::sync::atomic::Ordering;

use guard_model::baseline::{Role, Totals};
use guard_model::{Kind, Observed, RelPath};

use crate::{LinkCounts, Progress, ScanReport};

#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) skipped: Vec<(RelPath, String)>,
    pub(crate) mounts: Vec<RelPath>,
    totals: Totals,
    links: LinkCounts,
}

impl Tally {
    /// Counts in what is about to be reported.
    pub(crate) fn count(&mut self, role: Role, observed: &Observed, progress: Option<&Progress>) {
        let (Observed::Present(entry) | Observed::Unreadable { entry: Some(entry), .. }) = observed else {
            return;
        };
        self.totals.add(entry);
        let is_dir = entry.kind == Kind::Directory;
        if !is_dir && matches!(role, Role::Protected | Role::Sensitive) {
            self.links.add((entry.dev, entry.ino), entry.nlink);
        }
        if let Some(progress) = progress {
            let counter = if is_dir { &progress.directories } else { &progress.files };
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[cfg(test)]
    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    pub(crate) fn skip(&mut self, path: RelPath, why: String) {
        self.skipped.push((path, why));
    }

    pub(crate) fn add_to(self, report: &mut ScanReport) {
        report.skipped.extend(self.skipped);
        report.mounts.extend(self.mounts);
        report.links.merge(self.links);
        report.totals += self.totals;
    }
}
