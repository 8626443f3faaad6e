//! Changes while a deployment runs: whose they are, and what becomes of them.

use guard_model::Severity;
use guard_model::ledger::{Event, Explained};
use guard_model::whose::Whose;

use super::Warden;
use super::raise::Weighed;

impl Warden {
    /// Records what changed in a window. What an outsider changed while a deployment runs is an alert, too.
    pub(super) fn record_in_window(&mut self, window: u64, new: &[Weighed]) {
        let Some(marks) = self.deploying.as_ref().map(|d| d.marks.clone()) else {
            let findings = new.iter().map(|(f, _)| f.clone()).collect();
            self.record(vec![Event::WindowChange { window, deployment: None, findings }]);
            return self.raised.remember(None, new);
        };
        let Some(deployment) = self.state.deployments.running.as_ref().map(|d| d.id) else { return };
        let mut by_whom = [Whose::Own, Whose::Assumed, Whose::Outsider].map(|whose| (whose, Vec::new()));
        for one in new {
            let whose = marks.whose(one.0.actor.as_ref());
            by_whom.iter_mut().filter(|(w, _)| *w == whose).for_each(|(_, all)| all.push(one.clone()));
        }
        for (whose, changes) in by_whom.into_iter().filter(|(_, changes)| !changes.is_empty()) {
            let findings = changes.iter().map(|(f, _)| f.clone()).collect();
            let explained = |assumed| Some(Explained { deployment, assumed });
            match whose {
                Whose::Own | Whose::Assumed => {
                    let deployment = explained(whose == Whose::Assumed);
                    self.record(vec![Event::WindowChange { window, deployment, findings }]);
                    self.raised.remember(None, &changes);
                }
                Whose::Outsider => {
                    let title = outsider_title(deployment, &changes);
                    let alert = self.raise_apart(Severity::High, title, findings);
                    self.raised.remember(alert, &changes);
                }
            }
        }
    }
}

fn outsider_title(deployment: u64, changes: &[Weighed]) -> String {
    let first = changes.first().map(|(f, _)| f);
    let path = first.map_or("", |f| f.path.as_str());
    let exe = first.and_then(|f| f.actor.as_ref()?.exe.clone()).unwrap_or_default();
    let more = match changes.len() {
        0 | 1 => String::new(),
        n => format!(" and {} more", n - 1),
    };
    format!("changed by somebody else during deployment {deployment}: {path}{more}, by {exe}")
}
