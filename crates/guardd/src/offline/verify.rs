//! `guardd verify --offline`: everything that is signed or chained.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use guard_api::Exit;
use guard_model::Digest;
use guard_model::ledger::{Head, checkpoint_text};
use guard_store::keys::NAMESPACE_LEDGER;
use guard_store::{PublicKey, StatePaths, verify_files};

use super::State;
use crate::Failure;
use crate::cli::Verify;

/// The most of a file of kept heads that is read, in bytes.
const LONGEST_HEADS: u64 = 16 << 20;

/// One line of the answer.
struct Checked {
    what: String,
    /// Why it is not good.
    bad: Option<String>,
    detail: String,
}

/// Verifies; exit 1 where anything is not as it was written.
#[expect(clippy::print_stdout, reason = "the answer is the program's output")]
pub(crate) fn run(asked: &Verify) -> Result<Exit, Failure> {
    let key = match &asked.key {
        Some(path) => PublicKey::load_file(path).map_err(|e| Failure::of(Exit::Failed, &e))?,
        None => State::open(&asked.state_dir)?.key,
    };
    let remembered = asked.head.as_deref().map(|head| kept_head(head, &key)).transpose()?;
    let mut all = Vec::new();
    match &asked.file {
        Some(file) => all.push(ledger(file, &key, remembered)?),
        None => {
            let paths = StatePaths::new(&asked.state_dir);
            let by_index = guard_store::Index::head_on_disk(&paths);
            let mut newest = remembered.into_iter().chain(by_index).max_by_key(|h| h.seq);
            let state = State { paths, key };
            for environment in state.environments()? {
                all.extend(lock_and_baseline(&state, &environment, &mut newest));
            }
            all.insert(0, ledger(&state.paths.ledger(), &state.key, newest)?);
        }
    }
    let good = all.iter().all(|c| c.bad.is_none());
    if asked.json {
        let checks: Vec<_> = all
            .iter()
            .map(|c| serde_json::json!({"what": c.what, "ok": c.bad.is_none(), "detail": c.detail, "error": c.bad}))
            .collect();
        println!("{}", serde_json::json!({"ok": good, "checks": checks}));
    } else {
        for c in &all {
            match &c.bad {
                None => println!("good    {}: {}", c.what, c.detail),
                Some(why) => println!("BROKEN  {}: {why}", c.what),
            }
        }
    }
    Ok(if good { Exit::Done } else { Exit::Findings })
}

/// A head that was kept: as it was printed, or a file whose last line is one.
fn kept_head(given: &str, key: &PublicKey) -> Result<Head, Failure> {
    if let Some(head) = parse_head(given, key)? {
        return Ok(head);
    }
    let bad = |why: &str| {
        let said = "a head is `SEQ HASH`, or the JSON that `guardctl log export --head` prints, or a file that ends in one";
        Failure::new(Exit::Usage, format!("{said}: {given:?} {why}"))
    };
    let file = File::open(given).map_err(|e| bad(&format!("is none, and cannot be opened: {e}")))?;
    let mut text = String::new();
    file.take(LONGEST_HEADS).read_to_string(&mut text).map_err(|e| bad(&format!("cannot be read: {e}")))?;
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default();
    parse_head(last, key)?.ok_or_else(|| bad("is a file, and its last line is no head"))
}

/// The head on one line, as text or as JSON; `None` where it is neither. A signature beside it must be good.
fn parse_head(text: &str, key: &PublicKey) -> Result<Option<Head>, Failure> {
    #[derive(serde::Deserialize)]
    struct Signed {
        seq: u64,
        hash: Digest,
        signature: Option<String>,
    }
    if let Ok(Signed { seq, hash, signature }) = serde_json::from_str(text) {
        if let Some(signature) = signature {
            key.verify(NAMESPACE_LEDGER, checkpoint_text(seq, &hash).as_bytes(), &signature)
                .map_err(|e| Failure::of(Exit::Findings, &e))?;
        }
        return Ok(Some(Head { seq, hash }));
    }
    let Some((seq, hash)) = text.trim().split_once([' ', ':']) else { return Ok(None) };
    let hash: Result<Digest, _> = serde_json::from_value(hash.trim().into());
    Ok(seq.trim().parse().ok().zip(hash.ok()).map(|(seq, hash)| Head { seq, hash }))
}

fn ledger(path: &Path, key: &PublicKey, remembered: Option<Head>) -> Result<Checked, Failure> {
    let report = verify_files(path, key, remembered).map_err(|e| Failure::of(Exit::Failed, &e))?;
    Ok(Checked {
        what: "ledger".to_owned(),
        bad: report.first_broken().map(|first| {
            let more = report.breaks_total.saturating_sub(1);
            if more > 0 { format!("{first} (and {more} more)") } else { first.to_string() }
        }),
        detail: format!(
            "{} records in {} files, {} signed checkpoints up to record {}, head {} {}",
            report.records,
            report.files,
            report.checkpoints_good,
            report.signed_up_to,
            report.head.seq,
            report.head.hash
        ),
    })
}

/// A lock file and the baseline it names. The newest head that a good lock file
/// remembers is what the ledger must still hold.
fn lock_and_baseline(state: &State, environment: &str, newest: &mut Option<Head>) -> Vec<Checked> {
    let what = format!("lock file of {environment}");
    let said = match state.lock_file(environment) {
        Ok(said) => said,
        Err(e) => return vec![Checked { what, bad: Some(e.text), detail: String::new() }],
    };
    if newest.is_none_or(|h| h.seq < said.ledger.seq) {
        *newest = Some(said.ledger);
    }
    let lock = Checked {
        what,
        bad: None,
        detail: format!("{} since {}, by {}", state_word(&said), said.since, said.by),
    };
    let what = format!("baseline {} of {environment}", said.generation);
    let baseline = match state.baseline(&said).map(|b| (b.verify_open_files(), b.len())) {
        Ok((Ok(()), records)) => Checked { what, bad: None, detail: format!("{records} entries") },
        Ok((Err(e), _)) => Checked { what, bad: Some(crate::failure::chain(&e)), detail: String::new() },
        Err(e) => Checked { what, bad: Some(e.text), detail: String::new() },
    };
    vec![lock, baseline]
}

fn state_word(said: &guard_model::baseline::LockFile) -> &'static str {
    match said.state {
        guard_model::baseline::LockState::Locked => "locked",
        guard_model::baseline::LockState::Unlocked => "unlocked",
    }
}
