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
pub(crate) const PACE: Key = key("pace", "number", "25", "10");
pub(crate) const PACE_MAX: Key = key("pace_max", "number", "100", "50");
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

pub(crate) const DEPLOY: Key = key("deploy", "table", "none", "`[environments.NAME.deploy]`");
pub(crate) const RUN_AS: Key = key("run_as", "text", "required", "\"deploy\"");
pub(crate) const STEPS: Key =
    key("steps", "list of tables", "required", "[{ name = \"fetch\", run = \"git pull --ff-only\" }]");
pub(crate) const ROLLBACK: Key =
    key("rollback", "list of tables", "[]", "[{ name = \"up\", run = \"docker compose up -d --wait\" }]");
pub(crate) const HEALTH: Key =
    key("health", "list of tables", "[]", "[{ http = \"http://127.0.0.1:8888/health\" }]");
pub(crate) const STABLE_FOR: Key = key("stable_for", "duration", "\"10s\"", "\"30s\"");
pub(crate) const DEADLINE: Key = key("deadline", "duration", "\"5m\"", "\"15m\"");
pub(crate) const RELOCK: Key = key("relock", "true or false", "true", "false");
pub(crate) const OPENS_WINDOW: Key = key("opens_window", "true or false", "false", "true");
pub(crate) const VARIABLES: Key = key("variables", "table", "none", "`[environments.NAME.deploy.variables]`");
/// One entry of `variables`; its name is a variable's.
pub(crate) const VARIABLE: Key = key("VARIABLE", "text", "none", "\"unix:///run/user/1000/docker.sock\"");
pub(crate) const STEP_NAME: Key = key("name", "text", "required", "\"migrate\"");
pub(crate) const RUN: Key = key("run", "text", "required", "\"docker compose run --rm backend ./migrate\"");
pub(crate) const UNDO: Key = key("undo", "choice", "\"none\"", "\"reversible\"");
pub(crate) const UNDO_RUN: Key =
    key("undo_run", "text", "none", "\"docker compose run --rm backend ./migrate down\"");
pub(crate) const STEP_DEADLINE: Key = key("deadline", "duration", "none", "\"20m\"");
pub(crate) const HTTP: Key = key("http", "text", "none", "\"http://127.0.0.1:8888/health\"");
pub(crate) const EXPECT: Key = key("expect", "number", "200", "204");
pub(crate) const BODY: Key = key("body", "text", "none", "\"ok\"");
pub(crate) const TCP: Key = key("tcp", "text", "none", "\"127.0.0.1:5432\"");
pub(crate) const PROBE_COMMAND: Key = key("command", "text", "none", "\"bin/check-health\"");
pub(crate) const COMPOSE_PROBE: Key = key("compose", "text", "none", "\"healthy\"");

pub(crate) const VALIDATION: Key = key("validate", "table", "none", "`[environments.NAME.validate]`");
pub(crate) const ENV_FILES: Key = key("env_files", "list of text", "[]", "[\".env\", \".env.prod\"]");
pub(crate) const REQUIRED: Key = key("required", "list of text", "[]", "[\"SECRET_KEY\", \"DATABASE_URL\"]");
pub(crate) const DOTENV_READERS: Key =
    key("readers", "list of text", "[\"compose\"]", "[\"compose\", \"python-dotenv\"]");
pub(crate) const UNITS: Key = key("units", "list of text", "[]", "[\"app.service\"]");
pub(crate) const PROBES: Key = key("probes", "list of tables", "[]", "[{ tcp = \"127.0.0.1:5432\" }]");
pub(crate) const PORTS: Key = key("ports", "list of text", "[]", "[\"8080\", \"5353/udp\"]");
pub(crate) const BACKUP_MAX_AGE: Key = key("backup_max_age", "duration", "\"7d\"", "\"1d\"");
pub(crate) const COMPOSE: Key = key("compose", "table", "none", "`[environments.NAME.compose]`");
pub(crate) const FILES: Key = key("files", "list of text", "[]", "[\"docker-compose.yml\"]");
pub(crate) const PROJECT: Key = key("project", "text", "none", "\"app\"");
pub(crate) const SERVICES: Key = key("services", "list of text", "[]", "[\"backend\", \"frontend\"]");

/// A command that `[daemon.allow]` gives to groups.
pub(crate) const fn allow(command: &'static str) -> Key {
    key(command, "list of text", "none", "[\"guardd-deploy\"]")
}
