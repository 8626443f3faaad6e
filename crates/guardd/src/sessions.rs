//! Who is logged in, as an alert keeps it.

use guard_model::alert::Session;
use guard_model::ledger::Event;
use guard_model::path::escape;
use guard_model::{Finding, Severity, Timestamp};

/// Sessions that one alert names.
const NAMED: usize = 50;

/// Who is logged in right now; nobody where it cannot be told, which is logged.
pub(crate) fn logged_in() -> Vec<Session> {
    match guard_sys::sessions::logged_in() {
        Ok(all) => all
            .into_iter()
            .take(NAMED)
            .map(|s| Session {
                user: escape(&s.user),
                tty: escape(&s.tty),
                host: escape(&s.host),
                since: s.since_micros.map(Timestamp),
            })
            .collect(),
        Err(e) => {
            tracing::debug!(error = %crate::failure::chain(&e), "it cannot be told who is logged in");
            Vec::new()
        }
    }
}

/// A new alert, with who is logged in at this moment.
pub(crate) fn alert(severity: Severity, title: String, findings: Vec<Finding>) -> Event {
    Event::AlertOpened { severity, title, findings, sessions: logged_in() }
}
