//! journald as structured entries.

use std::path::Path;

use guard_model::ledger::Record;
use guard_model::path::unescape;
use guard_sys::journal::{Entry, Sender};

use crate::error::OutletError;
use crate::notice::Notice;
use crate::outlet::Outlet;
use crate::render::Renderer;

/// An entry for every line that a log file gets, and for checkpoints.
pub(crate) struct Journald {
    sender: Sender,
    renderer: Renderer,
}

impl Journald {
    pub(crate) fn new(socket: &Path) -> Result<Self, guard_sys::journal::SendError> {
        Ok(Self { sender: Sender::new(socket)?, renderer: Renderer::default() })
    }
}

impl Outlet for Journald {
    type Piece = Notice;

    fn pieces(&mut self, record: &Record) -> Vec<Notice> {
        self.renderer.notices(record)
    }

    fn undurable(&self, record: &Record) -> Vec<Notice> {
        Renderer::undurable(record)
    }

    fn deliver(&mut self, piece: &Notice) -> Result<(), OutletError> {
        Ok(self.sender.send(&entry_of(piece)?)?)
    }
}

/// Every key of a log line is a field `GUARDD_KEY`.
fn entry_of(notice: &Notice) -> Result<Entry, OutletError> {
    let mut entry = Entry::new();
    let message = match &notice.environment {
        Some(environment) => format!("{environment}: {}", notice.message),
        None => notice.message.clone(),
    };
    entry
        .field("MESSAGE", message.as_bytes())?
        .field("MESSAGE_ID", notice.kind.message_id.as_bytes())?
        .field("PRIORITY", notice.level.priority().to_string().as_bytes())?
        .field("SYSLOG_IDENTIFIER", b"guardd")?
        .field("GUARDD_EVENT", notice.kind.name.as_bytes())?
        .field("GUARDD_SEVERITY", notice.level.to_string().as_bytes())?
        .field("GUARDD_AT", notice.at.to_string().as_bytes())?;
    if let Some(environment) = &notice.environment {
        entry.field("GUARDD_ENVIRONMENT", environment.as_bytes())?;
    }
    if notice.undurable {
        entry.field("GUARDD_UNDURABLE", b"yes")?;
    } else {
        entry.field("GUARDD_RECORD", notice.record.to_string().as_bytes())?;
        entry.field("GUARDD_PREVIOUS", notice.previous.to_string().as_bytes())?;
    }
    for (key, value) in &notice.fields {
        let name = format!("GUARDD_{}", key.to_ascii_uppercase());
        match (*key, unescape(value)) {
            // The very bytes of the name, so that a match on them finds it.
            ("path" | "target", Some(bytes)) => entry.field(&name, &bytes)?,
            _ => entry.field(&name, value.as_bytes())?,
        };
    }
    Ok(entry)
}
