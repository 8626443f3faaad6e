//! The kinds of events that go out, with the message id that journald knows
//! each by, and the log files that each goes to.

use guard_model::ledger::Event;

/// A log file below `log_dir`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Log {
    /// Lock, unlock, start, stop, gaps, rehashes, calls.
    Protection,
    /// Alerts and what became of them.
    SecurityAlerts,
    /// Maintenance windows and what changed in them.
    Maintenance,
    /// Deployments.
    Deployments,
}

impl Log {
    pub(crate) const ALL: [Self; 4] =
        [Self::Protection, Self::SecurityAlerts, Self::Maintenance, Self::Deployments];

    pub(crate) fn file_name(self) -> &'static str {
        match self {
            Self::Protection => "protection.log",
            Self::SecurityAlerts => "security-alerts.log",
            Self::Maintenance => "maintenance.log",
            Self::Deployments => "deployments.log",
        }
    }
}

/// A kind of event.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Kind {
    /// As in the ledger.
    pub(crate) name: &'static str,
    /// `MESSAGE_ID`: made once at random, never changed.
    pub(crate) message_id: &'static str,
    /// Where its lines go.
    pub(crate) logs: &'static [Log],
}

const PROTECTION: &[Log] = &[Log::Protection];
const ALERTS: &[Log] = &[Log::SecurityAlerts];
const MAINTENANCE: &[Log] = &[Log::Maintenance];
const DEPLOYMENTS: &[Log] = &[Log::Deployments];
/// A window is an unlock as well.
const BOTH: &[Log] = &[Log::Maintenance, Log::Protection];
/// Checkpoints are no news; journald keeps them as evidence off the ledger.
const NOWHERE: &[Log] = &[];

const fn kind(name: &'static str, message_id: &'static str, logs: &'static [Log]) -> Kind {
    Kind { name, message_id, logs }
}

/// The kind of an event; `None` for one that this version does not know.
pub(crate) fn of(event: &Event) -> Option<&'static Kind> {
    Some(match event {
        Event::DaemonStarted { .. } => &DAEMON_STARTED,
        Event::DaemonStopped { .. } => &DAEMON_STOPPED,
        Event::Configuration { .. } => &CONFIGURATION,
        Event::Call { .. } => &CALL,
        Event::Locked { .. } => &LOCKED,
        Event::LockRepaired { .. } => &LOCK_REPAIRED,
        Event::WindowOpened { .. } => &WINDOW_OPENED,
        Event::WindowChange { .. } => &WINDOW_CHANGE,
        Event::WindowClosed { .. } => &WINDOW_CLOSED,
        Event::AlertOpened { .. } => &ALERT_OPENED,
        Event::AlertGrew { .. } => &ALERT_GREW,
        Event::AlertAcknowledged { .. } => &ALERT_ACKNOWLEDGED,
        Event::AlertSettled { .. } => &ALERT_SETTLED,
        Event::Accepted { .. } => &ACCEPTED,
        Event::Restored { .. } => &RESTORED,
        Event::Quarantined { .. } => &QUARANTINED,
        Event::PutBackStopped(_) => &PUT_BACK_STOPPED,
        Event::Accessed { .. } => &ACCESSED,
        Event::GapOpened { .. } => &GAP_OPENED,
        Event::GapClosed { .. } => &GAP_CLOSED,
        Event::RehashFinished { .. } => &REHASH_FINISHED,
        Event::Recovered { .. } => &RECOVERED,
        Event::BackupCreated { .. } => &BACKUP_CREATED,
        Event::BackupPruned { .. } => &BACKUP_PRUNED,
        Event::BackupVerified { .. } => &BACKUP_VERIFIED,
        Event::BackupPinned { .. } => &BACKUP_PINNED,
        Event::BackupKey { .. } => &BACKUP_KEY,
        Event::DeploymentStarted { .. } => &DEPLOYMENT_STARTED,
        Event::DeploymentPhase { .. } => &DEPLOYMENT_PHASE,
        Event::DeploymentResult { .. } => &DEPLOYMENT_RESULT,
        Event::DeploymentSecured { .. } => &DEPLOYMENT_SECURED,
        Event::DeploymentEnded { .. } => &DEPLOYMENT_ENDED,
        Event::Sink { .. } => &SINK,
        Event::Checkpoint { .. } => &CHECKPOINT,
        Event::Unknown => return None,
    })
}

static DAEMON_STARTED: Kind = kind("daemon_started", "6297292b8013447e857fdab7d31251aa", PROTECTION);
static DAEMON_STOPPED: Kind = kind("daemon_stopped", "c4b72d121ca84076a3e599302de1e618", PROTECTION);
static CONFIGURATION: Kind = kind("configuration", "23f204b77ef246a0a78950c55388a207", PROTECTION);
static CALL: Kind = kind("call", "8bc1c62d49bc4e7082c8ad6cb036aa60", PROTECTION);
static LOCKED: Kind = kind("locked", "784597aa95b240d2907ccc65a21e8a49", PROTECTION);
static LOCK_REPAIRED: Kind = kind("lock_repaired", "40a7f26b31c74c449d15339afca406e9", PROTECTION);
static WINDOW_OPENED: Kind = kind("window_opened", "f817d0006da045c8ba911d9a55dabfe4", BOTH);
static WINDOW_CHANGE: Kind = kind("window_change", "d876788f3468471f85ce0fc44b15f517", MAINTENANCE);
static WINDOW_CLOSED: Kind = kind("window_closed", "cfbd178c3ac7471c9dc448af531f96e1", BOTH);
static ALERT_OPENED: Kind = kind("alert_opened", "13ae518b98f142b09d5b56aa2babe257", ALERTS);
static ALERT_GREW: Kind = kind("alert_grew", "72d59c1ae1ea4bc7a008d80c7eca5b6f", ALERTS);
static ALERT_ACKNOWLEDGED: Kind = kind("alert_acknowledged", "50f0837f07aa40ecb22f47160590b65b", ALERTS);
static ALERT_SETTLED: Kind = kind("alert_settled", "1bcdb02a9a6b46c49a0b2e9ebbbdc447", ALERTS);
static ACCEPTED: Kind = kind("accepted", "26fb976ea45246d98af97de3042ed89b", PROTECTION);
static RESTORED: Kind = kind("restored", "88bbd5a7f2d844f191bb31eba30e32fe", PROTECTION);
static QUARANTINED: Kind = kind("quarantined", "af24981c40604caea9766d3b3ed0951a", PROTECTION);
static PUT_BACK_STOPPED: Kind = kind("put_back_stopped", "11e583310d184a0daa0c313441fc079b", ALERTS);
static ACCESSED: Kind = kind("accessed", "fb46023083d336b952c8653532d016aa", PROTECTION);
static GAP_OPENED: Kind = kind("gap_opened", "3bdc331267414207b14ea28f5799f2d9", PROTECTION);
static GAP_CLOSED: Kind = kind("gap_closed", "6bb087946cc54fb08a48059e482934f3", PROTECTION);
static REHASH_FINISHED: Kind = kind("rehash_finished", "c3223486423f4330b63ea97533b600a3", PROTECTION);
static RECOVERED: Kind = kind("recovered", "679a02751a1343d0a5ab3a5cf5e37999", PROTECTION);
static BACKUP_CREATED: Kind = kind("backup_created", "18238b34073e444f9aa091ff99a3ab5a", PROTECTION);
static BACKUP_PRUNED: Kind = kind("backup_pruned", "c3a30f5f13924b669ad1c4e1d334effa", PROTECTION);
static BACKUP_VERIFIED: Kind = kind("backup_verified", "9c394956f41a46148d1e9d0099406abe", PROTECTION);
static BACKUP_PINNED: Kind = kind("backup_pinned", "3e81be130e594eb491089917eb2814fc", PROTECTION);
static BACKUP_KEY: Kind = kind("backup_key", "efaf42cd19cf4da599d3bdc69473cd26", PROTECTION);
static DEPLOYMENT_STARTED: Kind = kind("deployment_started", "e51c84cfaa8342bdae256b3aee180936", DEPLOYMENTS);
static DEPLOYMENT_PHASE: Kind = kind("deployment_phase", "781d59820fc44fdba5a53ab72ec92cf7", DEPLOYMENTS);
static DEPLOYMENT_RESULT: Kind = kind("deployment_result", "0df016faf5f347ffa91b4d2ba1d94c11", DEPLOYMENTS);
static DEPLOYMENT_SECURED: Kind = kind("deployment_secured", "dcdd706acd734fffa66107b1404bd417", DEPLOYMENTS);
static DEPLOYMENT_ENDED: Kind = kind("deployment_ended", "1924953feb5f42f1a0d7dcb3142b08ba", DEPLOYMENTS);
static SINK: Kind = kind("sink", "99bb634bf14e4fa6bd2ae2be44020e8a", PROTECTION);
static CHECKPOINT: Kind = kind("checkpoint", "16f38a8d493243899c382a5377bb4b63", NOWHERE);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    const KINDS: [&Kind; 34] = [
        &DAEMON_STARTED,
        &DAEMON_STOPPED,
        &CONFIGURATION,
        &CALL,
        &LOCKED,
        &LOCK_REPAIRED,
        &WINDOW_OPENED,
        &WINDOW_CHANGE,
        &WINDOW_CLOSED,
        &ALERT_OPENED,
        &ALERT_GREW,
        &ALERT_ACKNOWLEDGED,
        &ALERT_SETTLED,
        &ACCEPTED,
        &ACCESSED,
        &GAP_OPENED,
        &GAP_CLOSED,
        &REHASH_FINISHED,
        &RECOVERED,
        &BACKUP_CREATED,
        &BACKUP_PRUNED,
        &BACKUP_VERIFIED,
        &BACKUP_PINNED,
        &BACKUP_KEY,
        &RESTORED,
        &QUARANTINED,
        &PUT_BACK_STOPPED,
        &DEPLOYMENT_STARTED,
        &DEPLOYMENT_PHASE,
        &DEPLOYMENT_RESULT,
        &DEPLOYMENT_SECURED,
        &DEPLOYMENT_ENDED,
        &SINK,
        &CHECKPOINT,
    ];

    #[test]
    fn message_ids_are_what_journald_takes_and_differ() {
        let ids: BTreeSet<&str> = KINDS.iter().map(|k| k.message_id).collect();
        assert_eq!(ids.len(), KINDS.len());
        for id in ids {
            assert!(id.len() == 32 && id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')), "{id}");
        }
    }

    #[test]
    fn names_are_those_of_the_ledger() {
        for kind in KINDS {
            let text = format!(r#"{{"event":"{}"}}"#, kind.name);
            // Every known tag asks for its fields (or needs none); only a foreign one is Unknown.
            let event = serde_json::from_str::<Event>(&text);
            assert!(!matches!(event, Ok(Event::Unknown)), "{}", kind.name);
        }
    }

    #[test]
    fn each_is_documented() {
        let page = include_str!("../../../docs/alerts.md");
        for kind in KINDS {
            let row = page.lines().find(|l| l.contains(kind.message_id));
            assert!(row.is_some_and(|l| l.contains(&format!("`{}`", kind.name))), "{}", kind.name);
        }
    }
}
