//! `guardd check --offline`: the tree against its signed baseline.

use std::sync::Arc;
use std::time::Instant;

use guard_api::Exit;
use guard_model::baseline::{Expect, LockState};
use guard_model::{Change, Policy, RelPath};
use guard_tree::ScanContent;

use super::{State, open_root};
use crate::Failure;
use crate::cli::Offline;
use crate::comparer::{Comparer, DeviceMap, Expectation, MountsAtLock, Records};
use crate::operations::{Work, millis};
use crate::warden::finding;

/// Checks an environment; exit 1 where it differs.
#[expect(clippy::print_stdout, reason = "the answer is the program's output")]
#[expect(clippy::print_stderr, reason = "what is said beside the answer")]
pub(crate) fn run(asked: &Offline) -> Result<Exit, Failure> {
    let state = State::open(&asked.state_dir)?;
    let environment = state.chosen(asked.environment.as_deref())?;
    let said = state.lock_file(&environment)?;
    let baseline = Arc::new(state.baseline(&said)?);
    let manifest = baseline.manifest().clone();
    let root = open_root(&manifest, asked.root.as_ref())?;
    let policy = Policy::new(manifest.policy.clone())
        .map_err(|_| Failure::new(Exit::Failed, "the signed policy holds a pattern that is no pattern"))?;
    let expectation = Expectation {
        records: Records::Baseline(baseline),
        overlay: Arc::new(state.overlay(&environment)?),
        expect: if said.state == LockState::Locked { Expect::Sealed } else { Expect::Original },
        device: DeviceMap { at_lock: manifest.root_identity.0, now: root.identity().0 },
        // What is checked offline may be mounted anywhere.
        mounts: MountsAtLock::default(),
    };

    let began = Instant::now();
    let work = Work::default();
    let options = guard_tree::ScanOptions {
        content: if asked.quick { ScanContent::WhereDiffers } else { ScanContent::All },
        workers: crate::operations::lock::workers(),
        pace: None,
        cancel: &work.cancel,
        progress: &work.progress,
    };
    let comparer = Comparer::new(&root, expectation, RelPath::root());
    let report = guard_tree::scan(&root, &policy, &RelPath::root(), &options, &comparer)
        .map_err(|e| Failure::of(Exit::Failed, &e))?;
    let collected = comparer.into_collected();
    if let Some(e) = &collected.error {
        return Err(Failure::of(Exit::Failed, e));
    }
    let bytes = work.progress.bytes.load(std::sync::atomic::Ordering::Relaxed);
    let findings: Vec<_> = collected.differences.into_iter().map(finding).collect();
    // What could not be looked at is never clean.
    let clean = findings.is_empty() && report.skipped.is_empty();
    if asked.json {
        let skipped: Vec<_> = report
            .skipped
            .iter()
            .map(|(path, why)| serde_json::json!({"path": path.to_string(), "why": why}))
            .collect();
        let answer = serde_json::json!({
            "environment": environment,
            "generation": said.generation,
            "quick": asked.quick,
            "clean": clean,
            "files": report.totals.files,
            "bytes": bytes,
            "duration_ms": millis(began.elapsed()),
            "findings": findings,
            "skipped": skipped,
        });
        println!("{answer}");
    } else {
        for f in &findings {
            let words: Vec<String> = f.change.iter().map(Change::to_string).collect();
            println!("{}  {}", words.join(","), f.path);
        }
        for (path, why) in &report.skipped {
            eprintln!("not fully covered: {path}: {why}");
        }
        let verdict = if clean { "clean".to_owned() } else { format!("{} paths differ", findings.len()) };
        eprintln!(
            "{environment}: {verdict}; {} files, {bytes} bytes read, baseline {} of {}",
            report.totals.files, said.generation, manifest.created_at
        );
    }
    Ok(if clean { Exit::Done } else { Exit::Findings })
}
