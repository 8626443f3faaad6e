//! Proposals for the kinds of trees that users have, and for hostile ones: each
//! must load as it is written, and protect what it should.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use guard_config::init::{InitError, Proposal, propose, propose_as};
use guard_config::{Config, SourceFile, parse};
use guard_model::{Class, RelPath};
use proptest::prelude::*;

struct Tree {
    _dir: tempfile::TempDir,
    root: PathBuf,
}

impl Tree {
    /// A tree of these paths: a slash at the end makes a directory, `=` gives a file its text.
    fn new(paths: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap().join("app");
        fs::create_dir(&root).unwrap();
        let tree = Self { _dir: dir, root };
        for p in paths {
            let (path, text) = p.split_once('=').unwrap_or((p, ""));
            tree.put(path.as_bytes(), text);
        }
        tree
    }

    fn put(&self, path: &[u8], text: &str) {
        let full = self.root.join(OsStr::from_bytes(path));
        if path.ends_with(b"/") {
            fs::create_dir_all(full).unwrap();
        } else {
            fs::create_dir_all(full.parent().unwrap()).unwrap();
            fs::write(full, text).unwrap();
        }
    }

    fn propose(&self) -> Looked {
        let proposal = propose(&self.root).unwrap();
        let config = loaded(&proposal.toml);
        loaded(&uncommented(&proposal.toml));
        for note in &proposal.notes {
            assert!(!note.chars().any(char::is_control), "{note}");
        }
        assert_eq!(config.environments.len(), 1);
        assert_eq!(config.environments[0].root, self.root);
        Looked { proposal, config }
    }
}

/// A proposal and what it says when it is loaded.
struct Looked {
    proposal: Proposal,
    config: Config,
}

impl Looked {
    fn class(&self, path: &str) -> Class {
        let rel = RelPath::from_text(path.trim_end_matches('/')).unwrap();
        self.config.environments[0].policy.classify(&rel, path.ends_with('/'))
    }

    fn writable(&self, path: &str) -> bool {
        matches!(self.class(path), Class::Writable | Class::WritableTop)
    }

    fn noted(&self, part: &str) -> bool {
        self.proposal.notes.iter().any(|n| n.contains(part))
    }

    #[track_caller]
    fn assert(&self, protected: &[&str], sensitive: &[&str], writable: &[&str], ignored: &[&str]) {
        let toml = &self.proposal.toml;
        for p in protected {
            assert_eq!(self.class(p), Class::Protected { sensitive: false }, "{p}\n{toml}");
        }
        for p in sensitive {
            assert_eq!(self.class(p), Class::Protected { sensitive: true }, "{p}\n{toml}");
        }
        for p in writable {
            assert!(self.writable(p), "{p}\n{toml}");
        }
        for p in ignored {
            assert_eq!(self.class(p), Class::Ignored, "{p}\n{toml}");
        }
    }
}

fn loaded(toml: &str) -> Config {
    parse(&[SourceFile::new("/etc/guardd/guardd.toml".into(), toml.to_owned())])
        .unwrap_or_else(|e| panic!("{e}\n{toml}"))
}

/// The proposal with every example taken out of its comment.
fn uncommented(toml: &str) -> String {
    toml.lines()
        .map(|l| match l.strip_prefix('#') {
            Some(rest) if !rest.is_empty() && (!rest.starts_with(' ') || rest.starts_with("  ")) => rest,
            _ => l,
        })
        .flat_map(|l| [l, "\n"])
        .collect()
}

const COMPOSE: &str = "
services:
  db:
    image: postgres
    volumes: ['./data/postgres:/var/lib/postgresql/data']
  backend:
    build: ./backend
    env_file: [.env.prod, backend/settings.env]
    volumes:
      - ./media:/app/media
      - ./backend:/code
      - ./later:/var/log/app
  nginx:
    volumes:
      - ./deployment/nginx.conf.template:/etc/nginx/templates/default.conf.template:ro
      - ./certbot/conf:/etc/letsencrypt
      - ./html:/usr/share/nginx/html
secrets:
  key:
    file: ./private/django_secret
";

#[test]
fn a_compose_application() {
    let compose = format!("docker-compose.unified.yml={COMPOSE}");
    let tree = Tree::new(&[
        &compose,
        ".env.prod",
        ".env.example",
        "backend/settings.env",
        "backend/Dockerfile",
        "backend/requirements.txt",
        "backend/app/main.py",
        "backend/app/__pycache__/main.pyc",
        "backend/app/cache/__init__.py",
        "backend/vendor/django/x.py",
        "frontend/package.json",
        "frontend/package-lock.json",
        "frontend/src/App.tsx",
        "frontend/src/media/logo.png",
        "frontend/node_modules/react/index.js",
        "frontend/node_modules/x/logs/x.txt",
        "deployment/nginx.conf.template",
        "deployment/ssl/tls.key",
        "scripts/deploy.sh",
        "media/u/photo.jpg",
        "logs/app.log",
        "html/index.html",
        "data/postgres/PG_VERSION",
        "certbot/conf/live/x/privkey.pem",
        "private/django_secret",
        ".git/HEAD=ref: refs/heads/release/7\n",
        ".git/config",
        ".git/hooks/pre-commit",
        ".git/objects/aa/bb",
    ]);
    let p = tree.propose();
    assert_eq!(p.proposal.environment, "production");
    p.assert(
        &[
            "docker-compose.unified.yml",
            "backend/app/main.py",
            "backend/app/cache/__init__.py",
            "backend/vendor/django/x.py",
            "frontend/src/media/logo.png",
            "frontend/node_modules/react/index.js",
            "frontend/node_modules/x/logs/x.txt",
            "deployment/nginx.conf.template",
            "scripts/deploy.sh",
            "html/index.html",
            "scripts/new-by-an-intruder.sh",
            ".git/config",
            ".git/hooks/pre-commit",
            ".git/HEAD",
            "data/",
        ],
        &[".env.prod", ".env", "backend/settings.env", "deployment/ssl/tls.key", "private/django_secret"],
        &["media/", "media/u/x", "logs/", "data/postgres/", "later/", "certbot/conf/live/x/privkey.pem"],
        &[
            "backend/app/__pycache__/",
            "x.pyc",
            ".git/objects/aa/bb",
            ".git/index",
            "frontend/node_modules/.cache/",
        ],
    );
    assert!(p.proposal.toml.contains("#branches = [\"release/7\"]"), "{}", p.proposal.toml);
    assert!(p.noted(
        "backend/ is left protected, though docker-compose.unified.yml: service backend sees it as /code"
    ));
    assert!(p.noted("html/ is left protected"));
    assert!(p.noted("backend/app/cache/ is left protected: its name says"));
    assert!(p.noted("installed dependencies are protected"));
    assert!(p.noted("git work tree"));
    let narrow = loaded(&uncommented(&p.proposal.toml));
    let policy = &narrow.environments[0].policy;
    for p in [
        "backend/app/main.py",
        "docker-compose.unified.yml",
        "scripts/deploy.sh",
        "deployment/nginx.conf.template",
    ] {
        assert!(policy.classify(&RelPath::from_text(p).unwrap(), false).is_protected(), "{p}");
    }
    assert!(!policy.classify(&RelPath::from_text("elsewhere").unwrap(), false).is_protected());
}

#[test]
fn the_text_of_a_proposal() {
    let compose =
        "docker-compose.yml=services:\n  db:\n    volumes: ['./data/db:/var/lib/postgresql/data']\n";
    let tree =
        Tree::new(&[compose, ".env", "app/main.py", "requirements.txt", "logs/", "db.sqlite3", "data/db/"]);
    let p = tree.propose();
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/proposal.toml");
    let said = p.proposal.toml.replace(tree.root.to_str().unwrap(), "/srv/app");
    if std::env::var_os("UPDATE_MESSAGES").is_some() {
        fs::write(&golden, &said).unwrap();
    }
    assert_eq!(said, fs::read_to_string(&golden).unwrap());
    assert_eq!(p.proposal.notes, [""; 0]);
}

#[test]
fn an_empty_directory() {
    let p = Tree::new(&[]).propose();
    p.assert(&["anything"], &[".env"], &[], &[]);
    assert_eq!(p.proposal.notes, ["the directory is empty"]);
}

#[test]
fn frameworks() {
    let laravel = Tree::new(&[
        "composer.json",
        "artisan",
        "app/Http/Kernel.php",
        "storage/framework/views/abc.php",
        "storage/logs/laravel.log",
        "storage/app/x",
        "bootstrap/cache/config.php",
        "public/index.php",
        "public/uploads/a.png",
        "vendor/autoload.php",
    ])
    .propose();
    laravel.assert(
        &["app/Http/Kernel.php", "bootstrap/cache/config.php", "public/index.php", "vendor/autoload.php"],
        &[],
        &["storage/framework/views/new.php", "storage/logs/x", "public/uploads/"],
        &[],
    );
    let symfony =
        Tree::new(&["bin/console", "src/Kernel.php", "var/cache/prod/x.php", "var/log/prod.log"]).propose();
    symfony.assert(&["src/Kernel.php", "var/"], &[], &["var/cache/prod/y.php", "var/log/"], &[]);
    let wordpress =
        Tree::new(&["wp-config.php", "wp-content/uploads/2026/a.jpg", "wp-content/themes/x/index.php"])
            .propose();
    wordpress.assert(
        &["wp-config.php", "wp-content/themes/x/index.php"],
        &[],
        &["wp-content/uploads/x.jpg"],
        &[],
    );
    let shell = Tree::new(&["wp-content/uploads/2026/shell.php", "index.php"]).propose();
    shell.assert(&["wp-content/uploads/2026/shell.php"], &[], &[], &[]);
    assert!(shell.noted("wp-content/uploads/ is left protected"));
    assert!(shell.noted("wp-content/uploads/2026/shell.php"));
    let rails =
        Tree::new(&["Gemfile", "app/models/user.rb", "log/production.log", "tmp/pids/server.pid"]).propose();
    rails.assert(&["app/models/user.rb"], &[], &["log/x", "tmp/x"], &[]);
    let next =
        Tree::new(&["package.json", "pages/index.jsx", ".next/cache/webpack/0.pack", ".next/BUILD_ID"])
            .propose();
    next.assert(&[".next/BUILD_ID"], &[], &[".next/cache/x"], &[]);
}

#[test]
fn state_in_files() {
    let p = Tree::new(&[
        "manage.py",
        "db.sqlite3",
        "run/app.pid",
        "celerybeat-schedule",
        "logs/a.log",
        "debug.log",
    ])
    .propose();
    p.assert(
        &["manage.py", "run/", "db.txt"],
        &[],
        &[
            "db.sqlite3",
            "db.sqlite3-journal",
            "db.sqlite3-wal",
            "run/app.pid",
            "celerybeat-schedule",
            "debug.log.1",
        ],
        &[],
    );
    let many: Vec<String> = (0..50).map(|i| format!("x/{i}.db")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(Tree::new(&many).propose().noted("50 files look like state in a file, too many to list"));
}

#[test]
fn python_environments() {
    let p =
        Tree::new(&[".env/pyvenv.cfg", ".env/lib/x.py", ".env/lib/__pycache__/x.pyc", ".env.prod", "app.py"])
            .propose();
    p.assert(&[".env/lib/x.py"], &[".env.prod"], &[], &[".env/lib/__pycache__/x.pyc"]);
    assert!(p.noted(".env/ is a Python environment"));
    let envs = Tree::new(&[".envs/.production/.django", "app.py"]).propose();
    envs.assert(&["app.py"], &[".envs/.production/.django"], &[], &[]);
}

#[test]
fn secrets() {
    let p = Tree::new(&["secrets/db_password", "conf/x.p12", "keys/id_ed25519", "x/.htpasswd", "prod.env"])
        .propose();
    p.assert(
        &["conf/y"],
        &[
            "secrets/db_password",
            "secrets/new",
            "conf/x.p12",
            "keys/id_ed25519",
            "x/.htpasswd",
            "prod.env",
            "a/b.pem",
        ],
        &[],
        &[],
    );
}

#[test]
fn compose_files_of_every_kind() {
    let p = Tree::new(&[
        "docker-compose.yml=services: {",
        "compose.yaml=services:\n  a:\n    volumes: ['.:/app', '${WHERE}/x:/data', '${D:-./store}:/data', '../out:/data']\n",
        "x/compose.yml=services:\n  b:\n    volumes: ['./data:/data', '../up:/data', \"./\\e[31m:/var/lib/x\"]\n",
        "compose.override.yml=\0\u{1b}",
    ])
    .propose();
    p.assert(&["x/compose.yml", "out/"], &[], &["store/", "x/data/", "up/"], &[]);
    assert!(p.noted("docker-compose.yml could not be read as YAML"));
    assert!(p.noted("service a sees the whole directory as /app"));
    assert!(p.noted("service a mounts ${WHERE}/x, which depends on a variable"));
}

#[test]
fn data_directories_that_nobody_speaks_for() {
    let p = Tree::new(&["data/x.csv", "a/db/migrations/1.sql"]).propose();
    p.assert(&["data/x.csv", "a/db/"], &[], &[], &[]);
    assert!(p.noted("left protected: a/db, data: if the application writes there"), "{:?}", p.proposal.notes);
}

#[test]
fn links_and_special_files_are_left_alone() {
    let tree = Tree::new(&["app.py", "real/x.py"]);
    symlink("/etc", tree.root.join("logs")).unwrap();
    symlink("docker-compose.yml", tree.root.join("docker-compose.yml")).unwrap();
    symlink("..", tree.root.join("up")).unwrap();
    let fifo = |name: &str| {
        rustix::fs::mknodat(
            rustix::fs::CWD,
            tree.root.join(name),
            rustix::fs::FileType::Fifo,
            0o644.into(),
            0,
        )
        .unwrap();
    };
    fifo("compose.yml");
    fifo(".env");
    let p = tree.propose();
    p.assert(&["logs", "compose.yml"], &[".env"], &[], &[]);
    assert!(!p.proposal.toml.contains("/etc"), "{}", p.proposal.toml);
}

#[test]
fn deep_and_wide() {
    let tree = Tree::new(&[]);
    tree.put(&[b"d/".repeat(60), b"x.py".to_vec()].concat(), "");
    assert!(tree.propose().noted("entries were looked at"));
}

#[test]
fn the_name_follows_the_directory() {
    let dir = tempfile::tempdir().unwrap();
    for (name, environment) in [
        ("app-staging", "staging"),
        ("dev", "development"),
        ("development.example.org", "development"),
        ("devices", "production"),
        ("Stage", "staging"),
    ] {
        let path = dir.path().join(name);
        fs::create_dir(&path).unwrap();
        assert_eq!(propose(&path).unwrap().environment, environment, "{name}");
    }
}

#[test]
fn what_cannot_be_guarded() {
    let dir = tempfile::tempdir().unwrap();
    assert!(matches!(propose(&dir.path().join("gone")), Err(InitError::Open { .. })));
    fs::write(dir.path().join("file"), "").unwrap();
    assert!(matches!(propose(&dir.path().join("file")), Err(InitError::Open { .. })));
    let odd = dir.path().join(OsStr::from_bytes(b"\xff\x1b[31m"));
    fs::create_dir(&odd).unwrap();
    let e = propose(&odd).unwrap_err();
    assert!(matches!(e, InitError::NotText { .. }));
    assert!(e.to_string().contains("\\xff\\x1b[31m"), "{e}");
    let e = propose(Path::new("/dev")).unwrap_err();
    let InitError::Unsuitable { source } = e else { panic!("{e}") };
    assert!(source.to_string().contains("which the kernel makes up"), "{source}");
}

#[test]
fn names_that_are_asked_for() {
    let tree = Tree::new(&["app.py"]);
    let proposal = propose_as(&tree.root, "blue").unwrap();
    assert_eq!(loaded(&proposal.toml).environments[0].name, "blue");
    assert!(!proposal.toml.contains("production"), "{}", proposal.toml);
    for bad in ["", "Blue", "a b", "x]\n[daemon]\n", "\"", "\u{1b}"] {
        let e = propose_as(&tree.root, bad).unwrap_err();
        let InitError::Unsuitable { source } = e else { panic!("{e}") };
        assert!(source.to_string().contains("cannot be the name of an environment"), "{source}");
    }
}

#[test]
fn trees_of_many_programs() {
    let paths: Vec<String> =
        (0..100).flat_map(|i| [format!("d{i}/x/y/run.sh"), format!("e/{i}/Makefile")]).collect();
    let paths: Vec<&str> = paths.iter().map(String::as_str).collect();
    let p = Tree::new(&paths).propose();
    assert!(p.proposal.toml.contains("# - 100 scripts: d0/x/y/run.sh"), "{}", p.proposal.toml);
    assert!(p.proposal.toml.contains("#  \"/d99/\",\n#  \"/e/\",\n#]"), "{}", p.proposal.toml);
}

#[test]
fn names_mean_less_deep_down() {
    let p = Tree::new(&[
        "a/b/c/media/x.png",
        "icons/16x16/stock/d/media/x.png",
        "perl/Storage/x",
        "doc/a.log",
        "target/tmp/x",
    ])
    .propose();
    p.assert(
        &["icons/16x16/stock/d/media/", "perl/Storage/", "doc/a.log", "target/tmp/"],
        &[],
        &["a/b/c/media/"],
        &[],
    );
}

#[test]
fn odd_roots() {
    let dir = tempfile::tempdir().unwrap();
    let odd = dir.path().canonicalize().unwrap().join("it's \"odd\" \\ \u{202e}\n[x]");
    fs::create_dir(&odd).unwrap();
    let proposal = propose(&odd).unwrap();
    assert_eq!(loaded(&proposal.toml).environments[0].root, odd);
}

/// One component of a hostile path.
fn name() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::sample::select(vec![
            "media",
            "logs",
            ".env",
            ".env\n[x]",
            "cache",
            "data",
            "x.pem",
            "a.db",
            "*.db",
            "!x.log",
            "docker-compose.yml",
            "src",
            "# x.key",
            "id_rsa",
            "secrets",
            ".git",
            "node_modules",
            "{a,b}.sqlite3",
            "[a].log",
            "\\.pid",
            "main.py",
            "\u{1b}[31m.env",
            "\"\"\".pem",
            "'''.key",
            "a,b.sock",
        ])
        .prop_map(|s| s.as_bytes().to_vec()),
        prop::collection::vec(any::<u8>().prop_filter("part of a name", |b| !matches!(b, 0 | b'/')), 1..30),
    ]
    .prop_filter("a name", |n| !matches!(n.as_slice(), b"." | b".."))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn hostile_names(paths in prop::collection::vec(prop::collection::vec(name(), 1..4), 0..12), text in "[-a-z:./ \n\\[\\]{}$'\"*&]{0,80}") {
        let tree = Tree::new(&[]);
        for path in &paths {
            let full = tree.root.join(OsStr::from_bytes(&path.join(&b'/')));
            if fs::create_dir_all(full.parent().unwrap()).is_ok() {
                fs::write(full, &text).ok();
            }
        }
        let said = tree.propose().proposal.toml;
        prop_assert!(!said.chars().any(|c| c.is_control() && c != '\n'));
    }
}
