//! A check: the tree compared with its baseline because somebody asks.

use std::sync::Arc;
use std::time::{Duration, Instant};

use guard_api::Known;
use guard_api::wire::{CheckResult, DiffResult};
use guard_model::RelPath;
use guard_store::backup::Unpacking;

use super::commands::{Reply, answer};
use super::findings::finding;
use super::outcomes::refusal;
use super::scans::{ScanKind, Scanned, scan};
use super::{Message, Warden};
use crate::failure::chain;
use crate::operations::file_diff::{Reader, file_diffs};
use crate::operations::restore::Contents;
use crate::operations::{OperationError, Work, millis};
use crate::wire;

impl Warden {
    pub(super) fn check(&mut self, quick: bool, below: RelPath, work: Arc<Work>, reply: Reply<CheckResult>) {
        let environment = self.ward.name.clone();
        let view = match (self.root_in_place(), self.view()) {
            (Err(refusal), _) => return answer(reply, Err(refusal)),
            (_, None) => return answer(reply, Err(self.no_baseline())),
            (Ok(_), Some(view)) => view,
        };
        if let Some(running) = &self.running {
            let operation = running.name.to_owned();
            return answer(reply, Err(Known::Busy { environment, operation }));
        }
        let generation = self.held.as_ref().map_or(0, |h| h.manifest.generation);
        let back = self.myself.clone();
        let kind = if quick { ScanKind::Sweep } else { ScanKind::Rehash };
        let spawned = std::thread::Builder::new().name(format!("check {environment}")).spawn(move || {
            let began = Instant::now();
            work.enter(crate::operations::Phase::Hashing, 0);
            let result = match scan(&view, kind, &below, None, &work) {
                Ok(scanned) => match &scanned.collected.error {
                    Some(e) => Err(Known::Failed { message: chain(e), hint: None }),
                    None => {
                        // The warden looks at every suspect itself, too.
                        for d in &scanned.collected.differences {
                            back.send(Message::Touch(d.path.clone(), None)).ok();
                        }
                        Ok(checked(environment, generation, quick, scanned, began.elapsed()))
                    }
                },
                Err(e) => Err(Known::Failed { message: chain(&e), hint: None }),
            };
            answer(reply, result);
        });
        if let Err(e) = spawned {
            tracing::error!(error = %e, "no thread for a check");
        }
    }
}

impl Warden {
    /// What differs, and how the contents of files do.
    pub(super) fn diff(&mut self, below: RelPath, reader: Reader, work: Arc<Work>, reply: Reply<DiffResult>) {
        let environment = self.ward.name.clone();
        let (root, view) = match (self.root_in_place(), self.view()) {
            (Err(refusal), _) => return answer(reply, Err(refusal)),
            (_, None) => return answer(reply, Err(self.no_baseline())),
            (Ok(root), Some(view)) => (root, view),
        };
        if let Some(running) = &self.running {
            let operation = running.name.to_owned();
            return answer(reply, Err(Known::Busy { environment, operation }));
        }
        match view.expectation.knows(&view.root, &view.policy, &below) {
            Ok(true) => {}
            Ok(false) => {
                return answer(reply, Err(refusal(&environment, &OperationError::NothingKnown(vec![below]))));
            }
            Err(e) => return answer(reply, Err(Known::Failed { message: chain(&e), hint: None })),
        }
        let generation = self.held.as_ref().map_or(0, |h| h.manifest.generation);
        // Without backups there still is what differs; each file says why no more can be shown.
        let backups = self.vault().ok().map(|v| Unpacking::of(v.backups));
        let back = self.myself.clone();
        let spawned = std::thread::Builder::new().name(format!("diff {environment}")).spawn(move || {
            let began = Instant::now();
            work.enter(crate::operations::Phase::Hashing, 0);
            let failed = |message| Err(Known::Failed { message, hint: None });
            let result = match scan(&view, ScanKind::Rehash, &below, None, &work) {
                Ok(scanned) => match &scanned.collected.error {
                    Some(e) => failed(chain(e)),
                    None => {
                        let differences = &scanned.collected.differences;
                        for d in differences {
                            back.send(Message::Touch(d.path.clone(), None)).ok();
                        }
                        let contents = backups.as_ref().map(|b| b as &dyn Contents);
                        let files = file_diffs(&root, contents, differences, reader);
                        let found = checked(environment, generation, false, scanned, began.elapsed());
                        Ok(DiffResult {
                            environment: found.environment,
                            generation: found.generation,
                            findings: found.findings,
                            findings_total: found.findings_total,
                            skipped: found.skipped,
                            files,
                        })
                    }
                },
                Err(e) => failed(chain(&e)),
            };
            answer(reply, result);
        });
        if let Err(e) = spawned {
            tracing::error!(error = %e, "no thread for a diff");
        }
    }
}

/// Findings of one answer; the rest are counted.
const SHOWN: usize = 10_000;

fn checked(
    environment: String,
    generation: u64,
    quick: bool,
    scanned: Scanned,
    took: Duration,
) -> CheckResult {
    let total = scanned.collected.differences.len();
    let findings = scanned
        .collected
        .differences
        .into_iter()
        .take(SHOWN)
        .filter_map(|d| wire::finding(&finding(d)))
        .collect();
    CheckResult {
        environment,
        generation,
        quick,
        // What could not be looked at is never clean.
        clean: total == 0 && scanned.skipped.is_empty(),
        files: scanned.files,
        bytes: scanned.bytes,
        duration_ms: millis(took),
        findings,
        findings_total: total as u64,
        skipped: scanned
            .skipped
            .iter()
            .map(wire::skipped)
            .chain(scanned.mounts.iter().map(wire::mount))
            .collect(),
    }
}
