//! Every key of the configuration file.

use crate::section::Key;

const fn key(name: &'static str, kind: &'static str, default: &'static str, example: &'static str) -> Key {
    Key { name, kind, default, example }
}

pub(crate) const VERSION: Key = key("version", "number", "required", "1");
pub(crate) const DAEMON: Key = key("daemon", "table", "none", "`[daemon]`");
pub(crate) const ENVIRONMENTS: Key = key("environments", "table", "none", "`[environments.NAME]`");

pub(crate) const STATE_DIR: Key = key("state_dir", "path", "\"/var/lib/guardd\"", "\"/var/lib/guardd\"");
pub(crate) const RUNTIME_DIR: Key = key("runtime_dir", "path", "\"/run/guardd\"", "\"/run/guardd\"");
pub(crate) const LOG_DIR: Key = key("log_dir", "path", "\"/var/log/guardd\"", "\"/var/log/guardd\"");
pub(crate) const WATCH: Key = key("watch", "choice", "\"auto\"", "\"inotify\"");
pub(crate) const WINDOW_MAX: Key = key("window_max", "duration", "\"8h\"", "\"4h\"");
pub(crate) const ALLOW: Key = key("allow", "table", "none", "`[daemon.allow]`");

pub(crate) const ROOT: Key = key("root", "path", "required", "\"/srv/app\"");
pub(crate) const PROTECT: Key =
    key("protect", "list of text", "[]", "[\"docker-compose.yml\", \"backend/app/\"]");
pub(crate) const IGNORE: Key = key("ignore", "list of text", "[]", "[\"__pycache__/\", \"*.pyc\"]");
pub(crate) const WRITABLE: Key = key("writable", "list of text", "[]", "[\"media/\", \"logs/\"]");
pub(crate) const SENSITIVE: Key = key("sensitive", "list of text", "[]", "[\".env*\", \"*.key\"]");
pub(crate) const SEAL: Key = key("seal", "choice", "\"immutable\"", "\"read-only\"");
pub(crate) const REHASH: Key = key("rehash", "duration", "\"5m\"", "\"15m\"");
pub(crate) const DEEP_REHASH: Key = key("deep_rehash", "duration", "\"1d\"", "\"7d\"");
pub(crate) const ON_TAMPER: Key = key("on_tamper", "choice", "\"alert\"", "\"restore\"");
pub(crate) const BRANCHES: Key = key("branches", "list of text", "[]", "[\"main\", \"production\"]");
pub(crate) const WINDOW_DEFAULT: Key = key("window_default", "duration", "\"30m\"", "\"15m\"");
pub(crate) const BACKUP: Key = key("backup", "table", "none", "`[environments.NAME.backup]`");
pub(crate) const KEEP: Key = key("keep", "number", "10", "30");
pub(crate) const DIR: Key = key("dir", "path", "none", "\"/backup/guardd\"");
pub(crate) const NOTIFY: Key = key("notify", "table", "none", "`[environments.NAME.notify]`");
pub(crate) const COMMAND: Key = key("command", "list of text", "none", "[\"/usr/local/bin/page-me\"]");
pub(crate) const READERS: Key = key("readers", "table", "none", "`[environments.NAME.readers]`");
pub(crate) const EXE: Key = key("exe", "list of text", "none", "[\"/usr/bin/docker\"]");
pub(crate) const UNIT: Key = key("unit", "list of text", "none", "[\"docker.service\", \"app@*.service\"]");
pub(crate) const GIT: Key = key("git", "table", "none", "`[environments.NAME.git]`");
pub(crate) const VALIDATE: Key = key("validate", "table", "none", "`[environments.NAME.git.validate]`");
/// One entry of `validate`; its name is a pattern.
pub(crate) const VALIDATOR: Key = key("PATTERN", "list of text", "none", "[\"/usr/local/bin/check\", \"-\"]");

/// A command that `[daemon.allow]` gives to groups.
pub(crate) const fn allow(command: &'static str) -> Key {
    key(command, "list of text", "none", "[\"guardd-deploy\"]")
}
