//! The files of the baseline. guardd reads them through what it opened once, and needs them again at the next start.

use std::path::Path;
use std::sync::Arc;

use guard_store::baseline::{MANIFEST, RECORDS, SIGNATURE, SUMS, UNDO};
use guard_store::{LockFileSeen, lock_file};

use super::Warden;
use super::troubles::Topic;
use crate::failure::chain;

/// What stands at their names; `None` where no regular file does.
pub(super) type BaselineFiles = [Option<LockFileSeen>; 5];

/// What stands there now. Nothing is read.
pub(super) fn files_in(generation: &Path) -> BaselineFiles {
    [MANIFEST, SIGNATURE, RECORDS, SUMS, UNDO].map(|name| lock_file::seen(&generation.join(name)).ok())
}

impl Warden {
    /// Verifies the files where they are not what was seen last. What can be made anew is; what cannot is told while
    /// guardd still has open what it takes to unlock.
    pub(super) fn check_baseline_files(&mut self) {
        let is_free = self.running.is_none();
        let Some(held) = self.held.as_mut().filter(|_| is_free) else { return };
        let files = files_in(held.baseline.dir());
        if files == held.files {
            return;
        }
        held.files = files;
        let opened = self.ward.house.baseline(&self.ward.name, held.manifest.generation, &held.digest);
        match opened.and_then(|baseline| baseline.verify_open_files().map(|()| baseline)) {
            Ok(baseline) => {
                held.files = files_in(baseline.dir());
                held.baseline = Arc::new(baseline);
                self.troubles.end(Topic::Baseline);
            }
            Err(e) => self.baseline_lost(format!(
                "{}; a restart loses what guardd still has open of it: unlock and lock before that",
                chain(&e)
            )),
        }
    }
}
