//! What operations came to: lock, unlock, check, diff, accept, reload, log verify.

use guard_api::method::{AcceptReply, ReloadReply};
use guard_api::wire::{CheckResult, DiffResult, LockResult, UnlockResult, VerifyResult};

use super::status::totals;
use super::{Look, finding, restore};
use crate::quantity::{both, bytes, count, counted, len, milliseconds, relative};
use crate::safe::{Safe, safe};
use crate::terminal::Tone;

/// After a lock.
pub(crate) fn lock(look: Look, r: &LockResult) -> String {
    let name = safe(&r.environment);
    let took = milliseconds(r.duration_ms);
    let mut out = match r.repaired {
        None => format!(
            "{name} is {}: baseline {}, {} ({took})\n",
            look.paint.tone(Tone::Good, "locked"),
            r.generation,
            totals(&r.protected)
        ),
        Some(0) => format!(
            "{name} was locked already, and its seal is whole: baseline {} stays ({took})\n",
            r.generation
        ),
        Some(n) => format!(
            "{name} was locked already: the seal of {} was put right, baseline {} stays ({took})\n",
            entries(n),
            r.generation
        ),
    };
    if let Some(n) = r.changed {
        out.push_str(&format!("{} from the baseline before\n", differ(n)));
    }
    out.push_str(&format!("seal {}", Safe(&r.seal.done)));
    if r.seal.done != r.seal.asked {
        let why = r.seal.why.as_deref().map(|why| format!(": {}", Safe(why))).unwrap_or_default();
        let less = format!(", though {} was asked for{why}", Safe(&r.seal.asked));
        out.push_str(&look.paint.tone(Tone::Warn, &less));
    }
    out.push('\n');
    out.push_str(&finding::skipped(look, &r.skipped, r.seal.unsealed, "left unsealed"));
    for p in &r.unmatched {
        out.push_str(&look.paint.tone(Tone::Warn, &format!("pattern {} matches nothing", Safe(p))));
        out.push('\n');
    }
    out.push_str(&warnings(look, &r.warnings));
    out
}

fn warnings(look: Look, all: &[String]) -> String {
    all.iter().map(|w| look.paint.tone(Tone::Warn, &format!("warning: {}", Safe(w))) + "\n").collect()
}

fn entries(n: u64) -> String {
    if n == 1 { "1 entry".to_owned() } else { format!("{} entries", count(n)) }
}

fn differ(n: u64) -> String {
    match n {
        0 => "nothing differs".to_owned(),
        1 => "1 path differs".to_owned(),
        n => format!("{} paths differ", count(n)),
    }
}

/// After an unlock.
pub(crate) fn unlock(look: Look, r: &UnlockResult) -> String {
    let mut out = format!(
        "{} is {} until {}\nmaintainer {}, reason: {}\nmodes and flags of {} given back ({})\n",
        Safe(&r.environment),
        look.paint.tone(Tone::Warn, "unlocked"),
        both(r.window.until, look.now),
        Safe(&r.window.maintainer),
        Safe(&r.window.reason),
        entries(r.restored),
        milliseconds(r.duration_ms)
    );
    out.push_str(&finding::skipped(look, &r.skipped, 0, "could not be given back"));
    out.push_str(&warnings(look, &r.warnings));
    out
}

/// What to do after an unlock.
pub(crate) fn unlock_hint(look: Look, r: &UnlockResult) -> String {
    format!(
        "when you are done: guardctl lock {}; guardd locks by itself {}",
        Safe(&r.environment),
        relative(r.window.until, look.now)
    )
}

/// After a check.
pub(crate) fn check(look: Look, r: &CheckResult) -> String {
    let total = r.findings_total.max(len(&r.findings));
    let compared = match r.quick {
        true => format!("metadata of {} compared", counted(r.files, "file")),
        false => format!("{} compared", counted(r.files, "file")),
    };
    let what = format!(
        "{compared}, {} read, baseline {} ({})",
        bytes(r.bytes),
        r.generation,
        milliseconds(r.duration_ms)
    );
    // What could not be checked is not clean, whatever the daemon says of it.
    let verdict = match total {
        0 if r.clean && r.skipped.is_empty() => look.paint.tone(Tone::Good, "clean"),
        0 => look.paint.tone(Tone::Bad, "not all of it could be checked"),
        n => look.paint.tone(Tone::Bad, &counted(n, "difference")),
    };
    let mut out = format!("{}: {verdict}\n{what}\n", Safe(&r.environment));
    out.push_str(&finding::list(look, &r.findings, total));
    out.push_str(&finding::skipped(look, &r.skipped, 0, "could not be checked"));
    out
}

/// A comparison with the baseline.
pub(crate) fn diff(look: Look, r: &DiffResult) -> String {
    let total = r.findings_total.max(len(&r.findings));
    let mut out = format!("{}: {} from baseline {}\n", Safe(&r.environment), differ(total), r.generation);
    out.push_str(&finding::details(look, &r.findings, total));
    out.push_str(&restore::files(look, &r.files));
    out.push_str(&finding::skipped(look, &r.skipped, 0, "could not be compared"));
    out
}

/// After an acceptance.
pub(crate) fn accept(look: Look, r: &AcceptReply) -> String {
    let mut out = format!(
        "{}: {} accepted, baseline {} holds from now on\n",
        Safe(&r.environment),
        counted(len(&r.accepted), "path"),
        r.generation
    );
    for p in &r.accepted {
        out.push_str(&format!("  {}\n", Safe(p)));
    }
    out.push_str(&warnings(look, &r.warnings));
    out
}

/// After a reload.
pub(crate) fn reload(r: &ReloadReply) -> String {
    let names: Vec<String> = r.environments.iter().map(|n| safe(n)).collect();
    let mut out = format!(
        "configuration applied: {}\n",
        if names.is_empty() { "no environments".to_owned() } else { names.join(", ") }
    );
    for c in &r.changed {
        out.push_str(&format!("  {}\n", Safe(c)));
    }
    if r.changed.is_empty() {
        out.push_str("  nothing is different\n");
    }
    out
}

/// After a verification of the ledger.
pub(crate) fn verify(look: Look, r: &VerifyResult) -> String {
    let good = format!("{}, {}", counted(r.records, "record"), counted(r.checkpoints, "signature"));
    let head = format!("head {} {}\n", r.head.seq, Safe(&r.head.hash));
    if r.ok {
        return format!("{}: {good} verified\n{head}", look.paint.tone(Tone::Good, "the ledger is whole"));
    }
    let mut out = format!("{}\n", look.paint.tone(Tone::Bad, "THE LEDGER IS NOT WHOLE"));
    if let Some(broken) = &r.broken {
        out.push_str(&format!("broken: {}\n", Safe(broken)));
    }
    if let Some(truncated) = &r.truncated {
        out.push_str(&format!("cut off: {}\n", Safe(truncated)));
    }
    out + &format!("good before that: {good}\n{head}")
}
