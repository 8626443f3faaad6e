//! Whether lines that somebody is about to commit hold a value of a sensitive file.
//!
//! The answer is an oracle: who may ask can guess. So nobody gets to ask much
//! (see [`Budgets`]), short and ordinary values are not looked for, and what is
//! found is in the ledger with who asked. Values are read for the call, made
//! digests of under a key of that call, and forgotten.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use guard_api::method::{FindValues, FindValuesReply};
use guard_api::wire::ValueMatch;
use guard_api::{Known, Method};
use guard_git::values::{self, Known as Values};
use guard_model::baseline::Role;
use guard_model::ledger::Outcome;
use guard_model::{Kind, RelPath};
use guard_sys::peer::Peer;

use super::connection::Out;
use super::methods::{Daemon, Ended, note};
use crate::failure::chain;
use crate::warden::{Command, SensitiveView};

/// A longer sensitive file is no file of settings.
const MOST: u64 = 256 * 1024;
/// Sensitive files that are read for a call.
const FILES: usize = 256;
/// Whose values were found, in the ledger: so many are named.
const NAMED: usize = 10;
/// Matches that are told of one call; whoever has more has more to do first.
const MATCHES: usize = 1000;

/// Bytes that a user may send at once.
const BURST: u64 = 16 << 20;
/// In how many seconds that much may be sent again.
const REFILL_SECONDS: u64 = 3600;
/// What a call costs at least.
const LEAST: u64 = 4096;

/// How much each user may still send.
#[derive(Debug, Default)]
pub(crate) struct Budgets {
    by_uid: Mutex<BTreeMap<u32, Budget>>,
}

#[derive(Debug)]
struct Budget {
    left: u64,
    since: Instant,
    /// It was said in the ledger that there is no more.
    told: bool,
}

/// Whether a call may go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grant {
    Given,
    /// It is the first one that is not.
    UsedUp,
    StillUsedUp,
}

impl Budgets {
    fn take(&self, uid: u32, bytes: u64, now: Instant) -> Grant {
        let mut all = self.by_uid.lock().unwrap_or_else(PoisonError::into_inner);
        // Who has all of it again needs no place here.
        let back = |b: &Budget| {
            let seconds = now.saturating_duration_since(b.since).as_secs();
            b.left.saturating_add(seconds.saturating_mul(BURST) / REFILL_SECONDS)
        };
        all.retain(|_, b| back(b) < BURST);
        let budget = all.entry(uid).or_insert(Budget { left: BURST, since: now, told: false });
        let left = back(budget).min(BURST);
        let cost = bytes.max(LEAST);
        if left < cost {
            return if std::mem::replace(&mut budget.told, true) {
                Grant::StillUsedUp
            } else {
                Grant::UsedUp
            };
        }
        *budget = Budget { left: left - cost, since: now, told: false };
        Grant::Given
    }
}

pub(super) async fn find(
    daemon: &Daemon,
    peer: &Peer,
    asked: FindValues,
    out: &mut Out,
) -> Result<(), Ended> {
    if asked.data.len() > values::PART {
        return Err(Known::InvalidParameter { parameter: "data".to_owned() }.into());
    }
    let warden = daemon.warden(asked.environment.as_deref())?;
    if !daemon.authority().is_owner(peer) {
        match daemon.budgets.take(peer.uid, asked.data.len() as u64, Instant::now()) {
            Grant::Given => {}
            spent => {
                let why = Known::Refused {
                    message: format!(
                        "that is more than one user may have compared: {} MiB, and as much again within {} min",
                        BURST >> 20,
                        REFILL_SECONDS / 60
                    ),
                    hint: None,
                    anyway: false,
                };
                if spent == Grant::UsedUp {
                    let text = serde_json::to_string(&why).unwrap_or_default();
                    note(daemon, peer, FindValues::NAME, Outcome::Refused, Some(text));
                }
                return Err(why.into());
            }
        }
    }
    let view = warden.ask(Command::Sensitive).await?;
    let reply = tokio::task::spawn_blocking(move || compare(&view, &asked.data))
        .await
        .map_err(|e| Known::Failed { message: format!("the comparison ended: {e}"), hint: None })??;
    if !reply.matches.is_empty() {
        // Before the caller hears it: who asks for values by guessing leaves a trace with each that he finds.
        note(daemon, peer, FindValues::NAME, Outcome::Done, Some(found_of(&reply)));
    }
    Ok(out.last(&reply).await?)
}

/// Whose values were found.
fn found_of(reply: &FindValuesReply) -> String {
    let names: BTreeSet<String> =
        reply.matches.iter().map(|m| format!("{} {}", m.file, m.key).trim_end().to_owned()).collect();
    let shown: Vec<&str> = names.iter().take(NAMED).map(String::as_str).collect();
    let more = names.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("found: {}{more}", shown.join(", "))
}

fn compare(view: &SensitiveView, data: &[u8]) -> Result<FindValuesReply, Known> {
    let mut known = Values::with_fresh_key()
        .map_err(|e| Known::Failed { message: format!("no random numbers: {e}"), hint: None })?;
    let unread = read_all(view, &mut known)?;
    let mut matches = Vec::new();
    for (line, number) in data.split(|&b| b == b'\n').zip(1..) {
        for (at, name) in known.search(line) {
            let (file, key) = (name.file.clone(), name.key.clone());
            matches.push(ValueMatch { line: number, column: at as u64 + 1, file, key });
        }
        if matches.len() >= MATCHES {
            break;
        }
    }
    matches.truncate(MATCHES);
    Ok(FindValuesReply { matches, values: known.values(), left_out: known.left_out(), unread })
}

/// Reads every sensitive file; what could not be read, and why.
fn read_all(view: &SensitiveView, known: &mut Values) -> Result<Vec<String>, Known> {
    let mut unread = Vec::new();
    let mut read = 0;
    for record in view.expectation.iter() {
        let record = record.map_err(|e| Known::Failed { message: chain(&e), hint: None })?;
        if record.role != Role::Sensitive || record.entry.kind != Kind::File {
            continue;
        }
        read += 1;
        if read > FILES {
            unread.push(format!("more than {FILES} sensitive files: the others were not read"));
            break;
        }
        if let Err(why) = read_one(view, &record.path, known) {
            unread.push(format!("{}: {why}", record.path));
        }
    }
    Ok(unread)
}

fn read_one(view: &SensitiveView, path: &RelPath, known: &mut Values) -> Result<(), String> {
    let content = match view.root.content_of(path, MOST) {
        Ok(Some(content)) => content,
        Ok(None) => return Err(format!("longer than {} KiB, or no file any more", MOST >> 10)),
        Err(e) => return Err(chain(&e)),
    };
    match known.add(&path.to_string(), &content) {
        true => Ok(()),
        false => Err("it is not text".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_user_may_ask_so_much_and_no_more() {
        let budgets = Budgets::default();
        let begin = Instant::now();
        let later = |seconds| begin + Duration::from_secs(seconds);
        assert_eq!(budgets.take(7, BURST, begin), Grant::Given);
        assert_eq!(budgets.take(7, 1, begin), Grant::UsedUp);
        assert_eq!(budgets.take(7, 1, begin), Grant::StillUsedUp, "said once");
        assert_eq!(budgets.take(8, BURST, begin), Grant::Given, "another user has his own");
        assert_eq!(budgets.take(7, BURST / 2, later(REFILL_SECONDS / 2 - 1)), Grant::StillUsedUp);
        assert_eq!(budgets.take(7, BURST / 2, later(REFILL_SECONDS / 2)), Grant::Given);
        assert_eq!(budgets.take(7, 1, later(REFILL_SECONDS / 2)), Grant::UsedUp);
        assert_eq!(budgets.take(7, BURST, later(REFILL_SECONDS * 3)), Grant::Given);
    }

    #[test]
    fn a_call_is_never_free() {
        let budgets = Budgets::default();
        let now = Instant::now();
        let calls = (0..).take_while(|_| budgets.take(7, 0, now) == Grant::Given).count();
        assert_eq!(calls as u64, BURST / LEAST);
    }

    #[test]
    fn users_who_stopped_asking_are_forgotten() {
        let budgets = Budgets::default();
        let now = Instant::now();
        for uid in 0..1000 {
            budgets.take(uid, 1, now);
        }
        budgets.take(5000, 1, now + Duration::from_secs(REFILL_SECONDS));
        assert_eq!(budgets.by_uid.lock().unwrap().len(), 1);
    }
}
