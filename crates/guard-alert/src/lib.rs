//! An alert's way out: log files, journald, a command.
