//! The git work tree: nothing in it that no commit has, and at the commit that the last deployment left.

use std::sync::atomic::AtomicBool;

use guard_deploy::worker::{Line, Look};
use guard_model::deploy::{Gate, Verdict};

use super::{Subject, child, gate};
use crate::work_tree::{self, WorkTree};

/// `None` where the root is no repository.
pub(super) fn work_tree(subject: &Subject, stop: &AtomicBool) -> Option<Gate> {
    if !work_tree::is_at(&subject.root) {
        return None;
    }
    let (verdict, evidence) = match look(subject, stop) {
        Ok(found) => found,
        Err(why) => (Verdict::Unknown, why),
    };
    Some(gate("git", "", verdict, evidence, "git status --short && git rev-parse HEAD".to_owned()))
}

fn look(subject: &Subject, stop: &AtomicBool) -> Result<(Verdict, String), String> {
    let mut looker =
        |user: &str, look: Look, heard: &mut dyn FnMut(Line)| child::run(subject, user, look, stop, heard);
    let mut tree = WorkTree::new(&subject.root, &mut looker)?;
    let head = tree.head()?;
    let differing = tree.differing(&subject.config.policy)?;
    let short = head.get(..12).unwrap_or(&head);
    if !differing.paths.is_empty() {
        let what = format!("at {short}, and differs from that commit: {}", differing.named(1));
        return Ok((Verdict::Fail, what));
    }
    Ok(match &subject.recorded {
        Some(recorded) if *recorded != head => {
            let was = recorded.get(..12).unwrap_or(recorded);
            (Verdict::Fail, format!("clean, but at {short}: the last deployment left it at {was}"))
        }
        Some(_) => (Verdict::Pass, format!("clean, at {short} as the last deployment left it")),
        None => (Verdict::Pass, format!("clean, at {short}")),
    })
}
