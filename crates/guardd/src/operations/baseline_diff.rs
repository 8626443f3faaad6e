//! What differs between two generations of a baseline.

use std::cmp::Ordering;

use guard_model::baseline::{BaselineRecord, Expect};
use guard_model::put_back::Overlay;
use guard_model::{Finding, Observed, RelPath, Timestamp};
use guard_store::{Baseline, StoreError};

/// Every path that differs, what was `put_back` meanwhile being no difference, by one walk over both records, which are in the same order.
pub(crate) fn between(
    before: &Baseline,
    put_back: &Overlay,
    after: &Baseline,
    at: Timestamp,
) -> Result<Vec<Finding>, StoreError> {
    let mut found = Vec::new();
    let mut olds = before.iter().map(|record| record.map(|record| put_back.over(record)));
    let mut news = after.iter();
    let (mut old, mut new) = (olds.next().transpose()?, news.next().transpose()?);
    loop {
        let order = match (&old, &new) {
            (None, None) => return Ok(found),
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some(o), Some(n)) if o.path == n.path => Ordering::Equal,
            (Some(o), Some(n)) => key(&o.path).cmp(&key(&n.path)),
        };
        match order {
            Ordering::Less => found.extend(finding(old.as_ref(), None, at)),
            Ordering::Greater => found.extend(finding(None, new.as_ref(), at)),
            // Nearly all of them.
            Ordering::Equal if old.as_ref().map(|o| &o.entry) == new.as_ref().map(|n| &n.entry) => {}
            Ordering::Equal => found.extend(finding(old.as_ref(), new.as_ref(), at)),
        }
        if order != Ordering::Greater {
            old = olds.next().transpose()?;
        }
        if order != Ordering::Less {
            new = news.next().transpose()?;
        }
    }
}

/// The order of records in a baseline: directory by directory.
fn key(path: &RelPath) -> (Option<RelPath>, &[u8]) {
    (path.parent(), path.name())
}

fn finding(old: Option<&BaselineRecord>, new: Option<&BaselineRecord>, at: Timestamp) -> Option<Finding> {
    let observed = new.map_or(Observed::Absent, |n| Observed::Present(n.entry.clone()));
    let change = match old {
        Some(old) => old.differences(&observed, Expect::Original),
        None => guard_model::compare(None, &observed),
    };
    let path = old.or(new)?.path.to_string();
    (!change.is_empty()).then(|| Finding {
        path,
        at,
        change,
        before: old.map(|o| o.entry.clone()),
        after: new.map(|n| n.entry.clone()),
        actor: None,
        restored: false,
        note: None,
    })
}
