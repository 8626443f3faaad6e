//! Asks the daemon whether new lines hold a value of a sensitive file.

use std::time::Duration;

use guard_api::method::FindValues;
use guard_api::{CallError, Client, ClientError, Known, default_socket};
use guard_git::values::{Compare, Found, Match};

/// A commit does not wait longer for an answer.
const PATIENCE: Duration = Duration::from_secs(5);

/// The daemon, once there is something to ask.
pub(super) struct Daemon {
    environment: String,
    client: Option<Client>,
}

impl Daemon {
    pub(super) fn of(environment: &str) -> Self {
        Self { environment: environment.to_owned(), client: None }
    }

    fn client(&mut self) -> Result<&mut Client, ClientError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => Client::connect_within(&default_socket(), Some(PATIENCE))?,
        };
        Ok(self.client.insert(client))
    }
}

impl Compare for Daemon {
    fn compare(&mut self, lines: &[u8]) -> Result<Found, String> {
        let asked = FindValues { environment: Some(self.environment.clone()), data: lines.to_vec() };
        let reply = self.client().and_then(|client| client.call(&asked)).map_err(|e| why(&e))?;
        let matches = reply.matches.into_iter().map(|m| {
            let (line, column, file, key) = (m.line, m.column, m.file, m.key);
            Match { line, column, file, key }
        });
        Ok(Found {
            matches: matches.collect(),
            values: reply.values,
            left_out: reply.left_out,
            unread: reply.unread,
        })
    }
}

/// Why nothing could be compared, for whoever commits.
fn why(error: &ClientError) -> String {
    match error {
        ClientError::Connect { source, .. } if source.kind() == std::io::ErrorKind::PermissionDenied => {
            "this user may not ask guardd: only members of the group guardd may".to_owned()
        }
        ClientError::Connect { .. } => "guardd does not run here".to_owned(),
        ClientError::Call(CallError::Known(Known::PermissionDenied {})) => {
            "this user may not ask guardd: only members of the group guardd may".to_owned()
        }
        ClientError::Call(CallError::Known(Known::NoBaseline { .. })) => {
            "the environment was never locked".to_owned()
        }
        ClientError::Call(CallError::Known(Known::Refused { message, .. })) => message.clone(),
        e => e.to_string(),
    }
}
