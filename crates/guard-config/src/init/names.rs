//! What names of files and directories tell about their use.

/// What a file is, as far as its name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum FileUse {
    /// A compose file.
    Compose,
    /// Environment variables: `.env`, `.env.prod`, `prod.env`.
    Variables,
    /// A Dockerfile.
    Image,
    /// The configuration of a web server or proxy.
    Proxy,
    /// The dependencies that are asked for.
    Manifest,
    /// The dependencies that were chosen.
    Lock,
    /// A script of a shell.
    Script,
    /// A program's text.
    Source,
    /// A key, a certificate or a password.
    Secret,
    /// A database or other state in a file, which the application writes.
    State,
    /// A log.
    Log,
}

/// What a directory is, as far as its name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum DirectoryUse {
    /// Installed dependencies, which nobody edits but an intruder.
    Dependencies,
    /// Made anew by programs whenever it is gone.
    Cache,
    /// Written by the application; for what, in words.
    Written(&'static str),
    /// Might be either.
    Data,
    /// Secrets.
    Secrets,
    /// Nothing special.
    Plain,
}

const MANIFESTS: [&str; 22] = [
    "package.json",
    "requirements.txt",
    "pyproject.toml",
    "setup.py",
    "setup.cfg",
    "pipfile",
    "cargo.toml",
    "go.mod",
    "composer.json",
    "gemfile",
    "pom.xml",
    "build.gradle",
    "build.gradle.kts",
    "mix.exs",
    "deno.json",
    "bunfig.toml",
    "environment.yml",
    "pubspec.yaml",
    "package.swift",
    "directory.build.props",
    "build.sbt",
    "makefile",
];

const LOCKS: [&str; 17] = [
    "package-lock.json",
    "npm-shrinkwrap.json",
    "yarn.lock",
    "pnpm-lock.yaml",
    "bun.lockb",
    "bun.lock",
    "poetry.lock",
    "uv.lock",
    "pipfile.lock",
    "pdm.lock",
    "cargo.lock",
    "go.sum",
    "composer.lock",
    "gemfile.lock",
    "mix.lock",
    "deno.lock",
    "pubspec.lock",
];

const PROGRAMS: [&str; 33] = [
    "py", "php", "phtml", "rb", "pl", "pm", "js", "mjs", "cjs", "ts", "tsx", "jsx", "vue", "svelte", "go",
    "rs", "java", "kt", "scala", "cs", "c", "cc", "cpp", "h", "ex", "exs", "lua", "swift", "jsp", "asp",
    "aspx", "cgi", "wasm",
];

const SHELLS: [&str; 5] = ["sh", "bash", "zsh", "fish", "ps1"];

const SECRETS: [&str; 12] = [
    ".htpasswd",
    ".pgpass",
    ".netrc",
    ".npmrc",
    ".pypirc",
    ".git-credentials",
    ".vault_pass",
    "id_rsa",
    "id_ecdsa",
    "id_ed25519",
    "auth.json",
    "credentials.json",
];

const SECRET_ENDINGS: [&str; 7] = ["pem", "key", "p12", "pfx", "jks", "keystore", "kdbx"];

const STATES: [&str; 3] = ["acme.json", "celerybeat-schedule", "dump.rdb"];

const STATE_ENDINGS: [&str; 5] = ["sqlite", "sqlite3", "db", "pid", "sock"];

/// What a file of this name is; `None` for nothing special.
pub(super) fn file(name: &[u8], directory: &[u8]) -> Option<FileUse> {
    let exact = String::from_utf8_lossy(name);
    let name = exact.to_lowercase();
    let directory = String::from_utf8_lossy(directory).to_lowercase();
    let ending = name.rsplit_once('.').map_or("", |(_, e)| e);
    let is = |list: &[&str]| list.contains(&name.as_str());
    let yaml = matches!(ending, "yml" | "yaml");
    let settings =
        matches!(ending, "conf" | "cfg" | "template" | "tmpl" | "tpl" | "j2" | "toml" | "yml" | "yaml");
    let proxy =
        |text: &str| ["nginx", "apache", "caddy", "haproxy", "traefik"].iter().any(|p| text.contains(p));

    Some(
        if yaml
            && (name.starts_with("docker-compose")
                || name.starts_with("compose.")
                || name.starts_with("compose-"))
        {
            FileUse::Compose
        } else if name == ".env"
            || name.starts_with(".env.")
            || name.starts_with(".env-")
            || name == ".envrc"
            || ending == "env"
        {
            FileUse::Variables
        } else if ["dockerfile", "containerfile"].contains(&name.as_str())
            || exact.starts_with("Dockerfile.")
            || exact.starts_with("Containerfile.")
            || ending == "dockerfile"
        {
            FileUse::Image
        } else if is(&SECRETS)
            || SECRET_ENDINGS.contains(&ending)
            || (ending == "json" && name.starts_with("service-account"))
        {
            FileUse::Secret
        } else if is(&STATES) || STATE_ENDINGS.contains(&ending) {
            FileUse::State
        } else if ending == "log" {
            FileUse::Log
        } else if name == "caddyfile"
            || name == ".htaccess"
            || settings && (proxy(&name) || proxy(&directory))
        {
            FileUse::Proxy
        } else if is(&LOCKS) {
            FileUse::Lock
        } else if is(&MANIFESTS) || (name.starts_with("requirements") && matches!(ending, "txt" | "in")) {
            FileUse::Manifest
        } else if SHELLS.contains(&ending) {
            FileUse::Script
        } else if PROGRAMS.contains(&ending) {
            FileUse::Source
        } else {
            return None;
        },
    )
}

/// Could a file of this name be run or served as a program?
pub(super) fn is_program(name: &[u8]) -> bool {
    matches!(file(name, b""), Some(FileUse::Source | FileUse::Script))
}

/// What a directory of exactly this name is.
pub(super) fn directory(name: &[u8]) -> DirectoryUse {
    use DirectoryUse::{Cache, Data, Dependencies, Plain, Secrets, Written};
    match str::from_utf8(name).unwrap_or_default() {
        "node_modules" | "bower_components" | "vendor" | "site-packages" | ".venv" | "venv" => Dependencies,
        "__pycache__" | ".pytest_cache" | ".mypy_cache" | ".ruff_cache" | ".tox" | ".nox" | ".sass-cache"
        | ".parcel-cache" | ".turbo" | ".eslintcache" => Cache,
        "media" | "upload" | "uploads" | "user_uploads" | "user-uploads" | "userfiles" | "attachments" => {
            Written("uploads")
        }
        "log" | "logs" => Written("logs"),
        "tmp" | "temp" => Written("temporary files"),
        "cache" | "caches" | ".cache" => Written("a cache"),
        "session" | "sessions" => Written("sessions"),
        "spool" => Written("queued work"),
        "storage" => Written("stored files"),
        "backup" | "backups" | "dumps" => Written("backups"),
        "pgdata" | "pg_data" | "pg-data" | "dbdata" | "db_data" | "db-data" | "postgres-data"
        | "postgres_data" | "mysql-data" | "mysql_data" | "mariadb-data" | "mongo-data" | "mongo_data"
        | "redis-data" | "redis_data" => Written("a database"),
        "data" | "db" | "volumes" | "var" => Data,
        "secrets" | ".secrets" | ".envs" | ".ssh" | ".gnupg" => Secrets,
        _ => Plain,
    }
}

/// How surely a path inside a container is one that programs write to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Target {
    /// By convention nothing but data is there.
    Data,
    /// Its name says so.
    Named,
    /// Code, configuration, or who knows.
    Other,
}

/// What a path inside a container is for.
pub(super) fn target(path: &str) -> Target {
    const DATA: [&str; 12] = [
        "/var/lib/",
        "/var/log",
        "/var/cache",
        "/var/spool",
        "/bitnami",
        "/etc/letsencrypt",
        "/letsencrypt",
        "/acme",
        "/prometheus",
        "/loki",
        "/tmp",
        "/usr/share/elasticsearch/data",
    ];
    let mut parts = path.split('/');
    if DATA.iter().any(|p| path.starts_with(p)) {
        Target::Data
    } else if parts.clone().any(|p| matches!(directory(p.as_bytes()), DirectoryUse::Written(_)))
        || parts.next_back().is_some_and(|p| matches!(directory(p.as_bytes()), DirectoryUse::Data))
    {
        Target::Named
    } else {
        Target::Other
    }
}

/// Directories in which a `media`, `cache` or `log` belongs to the program itself.
pub(super) fn holds_programs_own(name: &[u8]) -> bool {
    matches!(
        name,
        b"src"
            | b"build"
            | b"dist"
            | b"assets"
            | b"node_modules"
            | b"vendor"
            | b"site-packages"
            | b"templates"
            | b"tests"
            | b"test"
            | b"docs"
            | b"doc"
            | b"target"
            | b"locale"
            | b"migrations"
            | b".venv"
            | b"venv"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        let cases: [(&str, &str, Option<FileUse>); 38] = [
            ("docker-compose.unified.yml", "", Some(FileUse::Compose)),
            ("compose.yaml", "", Some(FileUse::Compose)),
            ("compose-prod.yml", "", Some(FileUse::Compose)),
            ("composer.json", "", Some(FileUse::Manifest)),
            ("compose.py", "", Some(FileUse::Source)),
            (".env", "", Some(FileUse::Variables)),
            (".env.prod", "", Some(FileUse::Variables)),
            ("prod.env", "", Some(FileUse::Variables)),
            (".environment", "", None),
            ("Dockerfile.backend", "", Some(FileUse::Image)),
            ("backend.Dockerfile", "", Some(FileUse::Image)),
            ("nginx.conf.template", "deployment", Some(FileUse::Proxy)),
            ("default.conf", "nginx", Some(FileUse::Proxy)),
            ("default.conf", "x", None),
            ("nginx", "x", None),
            ("apache2.pm", "x", Some(FileUse::Source)),
            ("Apache-2.0", "licenses", None),
            ("traefik.yml", "", Some(FileUse::Proxy)),
            ("dockerfile.vim", "syntax", None),
            ("Caddyfile", "", Some(FileUse::Proxy)),
            ("package.json", "", Some(FileUse::Manifest)),
            ("requirements-dev.txt", "", Some(FileUse::Manifest)),
            ("pyproject.toml", "", Some(FileUse::Manifest)),
            ("Cargo.toml", "", Some(FileUse::Manifest)),
            ("go.mod", "", Some(FileUse::Manifest)),
            ("Gemfile", "", Some(FileUse::Manifest)),
            ("Gemfile.lock", "", Some(FileUse::Lock)),
            ("yarn.lock", "", Some(FileUse::Lock)),
            ("deploy.sh", "", Some(FileUse::Script)),
            ("App.tsx", "", Some(FileUse::Source)),
            ("tls.key", "", Some(FileUse::Secret)),
            ("id_ed25519", "", Some(FileUse::Secret)),
            ("service-account-x.json", "", Some(FileUse::Secret)),
            ("db.sqlite3", "", Some(FileUse::State)),
            ("acme.json", "", Some(FileUse::State)),
            ("a.log", "", Some(FileUse::Log)),
            ("README.md", "", None),
            ("", "", None),
        ];
        for (name, directory, wanted) in cases {
            assert_eq!(file(name.as_bytes(), directory.as_bytes()), wanted, "{name}");
        }
        assert_eq!(file(b"\xff\xfe.py", b""), Some(FileUse::Source));
    }

    #[test]
    fn targets() {
        for data in ["/var/lib/postgresql/data", "/var/log/nginx", "/letsencrypt/acme.json"] {
            assert_eq!(target(data), Target::Data, "{data}");
        }
        for named in ["/data", "/app/media", "/x/uploads/y", "/data/db"] {
            assert_eq!(target(named), Target::Named, "{named}");
        }
        for other in
            ["/app", "/etc/nginx/nginx.conf", "/usr/share/nginx/html", "/var/www/html", "/data/x", ""]
        {
            assert_eq!(target(other), Target::Other, "{other}");
        }
    }
}
