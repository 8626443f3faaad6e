//! What only the machine can say of a configuration: where its paths lead, and
//! who may write the programs it names.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use guard_config::{Loaded, Problems, load, parse};

struct Machine {
    _dir: tempfile::TempDir,
    path: PathBuf,
}

impl Machine {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap();
        Self { _dir: dir, path }
    }

    fn dir(&self, name: &str) -> PathBuf {
        let path = self.path.join(name);
        fs::create_dir_all(&path).unwrap();
        path
    }

    /// Loads a configuration in which DIR stands for the directory.
    fn load(&self, text: &str) -> Result<Loaded, Problems> {
        let file = self.path.join("guardd.toml");
        fs::write(&file, format!("version = 1\n{text}").replace("DIR", self.path.to_str().unwrap())).unwrap();
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        load(&file)
    }

    fn plain(&self, text: impl ToString) -> String {
        text.to_string().replace(self.path.to_str().unwrap(), "DIR").replace("\n    fix: ", " | ")
    }

    fn said(&self, text: &str) -> Vec<String> {
        self.load(text).unwrap_err().into_iter().map(|p| self.plain(p)).collect()
    }

    fn noticed(&self, text: &str) -> Vec<String> {
        self.load(text).unwrap().notices.into_iter().map(|p| self.plain(p)).collect()
    }
}

#[test]
fn roots_that_are_the_same_through_links() {
    let m = Machine::new();
    m.dir("app/inner");
    symlink("app", m.path.join("alias")).unwrap();
    let said = m.said("[environments.a]\nroot = 'DIR/app'\n[environments.b]\nroot = 'DIR/alias'\n[environments.c]\nroot = 'DIR/alias/inner'\n[environments.d]\nroot = 'DIR/alias/x/y'\n");
    assert_eq!(
        said,
        [
            "DIR/guardd.toml:5: environments.b.root: this is the root of `a` too (`DIR/alias` leads to `DIR/app`) | keep one environment for the whole tree, or give them directories apart",
            "DIR/guardd.toml:7: environments.c.root: this root lies in that of `a`, `DIR/app` (`DIR/alias/inner` leads to `DIR/app/inner`) | keep one environment for the whole tree, or give them directories apart",
            "DIR/guardd.toml:7: environments.c.root: this root lies in that of `b`, `DIR/alias` (`DIR/alias/inner` leads to `DIR/app/inner`) | keep one environment for the whole tree, or give them directories apart",
            "DIR/guardd.toml:9: environments.d.root: this root lies in that of `a`, `DIR/app` (`DIR/alias/x/y` leads to `DIR/app/x/y`) | keep one environment for the whole tree, or give them directories apart",
            "DIR/guardd.toml:9: environments.d.root: this root lies in that of `b`, `DIR/alias` (`DIR/alias/x/y` leads to `DIR/app/x/y`) | keep one environment for the whole tree, or give them directories apart",
        ]
    );
}

#[test]
fn the_daemons_own_directories_through_links() {
    let m = Machine::new();
    m.dir("app/logs");
    symlink("app/logs", m.path.join("logs")).unwrap();
    let said = m.said("[daemon]\nlog_dir = 'DIR/logs'\n[environments.a]\nroot = 'DIR/app'\n");
    assert_eq!(
        said,
        [
            "DIR/guardd.toml:3: daemon.log_dir: `DIR/logs` lies in the root of `a`, `DIR/app` (`DIR/logs` leads to `DIR/app/logs`) | guardd writes there, so name a directory outside of every root"
        ]
    );
}

#[test]
fn one_mistake_is_said_once() {
    let m = Machine::new();
    m.dir("app/inner");
    let said = m.said("[environments.a]\nroot = 'DIR/app'\n[environments.b]\nroot = 'DIR/app/inner'\n");
    assert_eq!(said.len(), 1, "{said:?}");
}

#[test]
fn roots_that_are_the_same_through_mounts() {
    let m = Machine::new();
    let app = m.dir("app");
    m.dir("app/inner");
    let (same, inner) = (m.dir("same"), m.dir("inner"));
    let mounted = |from: &Path, to: &Path| rustix::mount::mount_bind(from, to).is_ok();
    if !mounted(&app, &same) {
        return; // not privileged to mount
    }
    let both = mounted(&app.join("inner"), &inner);
    let said = m.load("[environments.a]\nroot = 'DIR/app'\n[environments.b]\nroot = 'DIR/same'\n");
    let free = m.load("[environments.a]\nroot = 'DIR/app'\n[environments.b]\nroot = 'DIR'\n");
    let nested = m.load("[environments.a]\nroot = 'DIR/same/inner'\n[environments.b]\nroot = 'DIR/app'\n");
    let below = m.load("[environments.a]\nroot = 'DIR/app/inner'\n[environments.b]\nroot = 'DIR/inner'\n");
    for dir in [&same, &inner] {
        if *dir == same || both {
            rustix::mount::unmount(dir, rustix::mount::UnmountFlags::DETACH).unwrap();
        }
    }
    let one = |r: Result<Loaded, Problems>| m.plain(&r.unwrap_err().as_slice()[0].what);
    assert_eq!(one(said), "by a mount, this is the same directory as the root of `a`, `DIR/app`");
    assert_eq!(one(free), "the root of `a`, `DIR/app`, lies in this one");
    assert_eq!(one(nested), "by a mount, this holds the root of `a`, `DIR/same/inner`");
    if both {
        assert_eq!(one(below), "by a mount, this is the same directory as the root of `a`, `DIR/app/inner`");
    }
}

#[test]
fn a_root_that_is_not_there_is_no_mistake() {
    let m = Machine::new();
    assert_eq!(
        m.noticed("[environments.a]\nroot = 'DIR/later'\n"),
        [
            "DIR/guardd.toml:3: environments.a.root: `DIR/later` is not there now, or is no directory | create it before `guardctl lock a`"
        ]
    );
}

#[test]
fn the_configuration_inside_a_root() {
    let m = Machine::new();
    assert_eq!(
        m.noticed("[environments.a]\nroot = 'DIR'\n"),
        [
            "DIR/guardd.toml:3: environments.a.root: DIR/guardd.toml lies in this root, and cannot be edited while it is sealed | keep guardd's configuration outside of what it protects"
        ]
    );
}

#[test]
fn programs() {
    let m = Machine::new();
    m.dir("app");
    let tool = m.dir("bin").join("page-me");
    let text = "[environments.a]\nroot = 'DIR/app'\nnotify.command = ['DIR/bin/page-me']\n";
    assert_eq!(
        m.noticed(text),
        [
            "DIR/guardd.toml:4: environments.a.notify.command[0]: `DIR/bin/page-me` is not there now | install it, or alerts reach nobody by this way"
        ]
    );
    fs::write(&tool, "#!/bin/sh\n").unwrap();
    fs::set_permissions(&tool, Permissions::from_mode(0o644)).unwrap();
    let said = m.said(text);
    assert!(
        said[0].contains("4: environments.a.notify.command[0]: DIR/bin/page-me: this is not a program"),
        "{said:?}"
    );
    assert!(said[0].ends_with("| name an executable file, or: chmod +x DIR/bin/page-me"), "{said:?}");
    fs::set_permissions(&tool, Permissions::from_mode(0o757)).unwrap();
    let said = m.said(text);
    assert!(said[0].ends_with("| chmod go-w DIR/bin/page-me"), "{said:?}");
    fs::set_permissions(&tool, Permissions::from_mode(0o755)).unwrap();
    assert_eq!(m.noticed(text), [""; 0]);
    fs::remove_file(&tool).unwrap();
    fs::create_dir(&tool).unwrap();
    assert!(m.said(text)[0].contains("this is not a program"));
}

#[test]
fn groups_that_nobody_made() {
    let m = Machine::new();
    assert_eq!(
        m.noticed("[daemon.allow]\nack = ['root', 'no-such-group']\n"),
        [
            "DIR/guardd.toml:3: daemon.allow.ack[1]: there is no group `no-such-group`, so this allows nobody | groupadd --system no-such-group"
        ]
    );
}

#[test]
fn what_was_loaded_can_be_taken_up_again_whatever_became_of_the_machine() {
    let m = Machine::new();
    m.dir("app");
    let loaded = m.load("[environments.a]\nroot = 'DIR/app'\n[environments.b]\nroot = 'DIR/b'\n").unwrap();
    assert_eq!(loaded.notices.len(), 1);
    symlink("app", m.path.join("b")).unwrap();
    assert!(load(&loaded.files[0].path).is_err());
    let again = parse(&loaded.files).unwrap();
    assert_eq!(format!("{again:?}"), format!("{:?}", loaded.config));
}

#[test]
fn the_digest_tells_texts_and_places_apart() {
    let m = Machine::new();
    let one = m.load("").unwrap();
    let two = m.load("# x\n").unwrap();
    assert_ne!(one.sha256, two.sha256);
    assert_eq!(one.sha256, m.load("").unwrap().sha256);
}
