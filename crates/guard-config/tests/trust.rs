//! What `load` says about files that others could have written or that cannot
//! be read. Runs as root, where it can play other users, and unprivileged,
//! where it skips that.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use guard_config::{Loaded, Problems, load};
use guard_sys::peer;

/// A user id that is nobody's.
const STRANGER: u32 = 54_321;

struct Etc {
    dir: tempfile::TempDir,
    /// The canonical path of the directory.
    path: PathBuf,
}

impl Etc {
    /// A directory with a good `guardd.toml` that is empty of environments.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().canonicalize().unwrap().join("etc");
        fs::create_dir(&path).unwrap();
        let etc = Self { dir, path };
        etc.mode("", 0o755);
        etc.write("guardd.toml", "version = 1\n");
        etc
    }

    fn at(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        fs::write(self.at(name), text).unwrap();
        self.mode(name, 0o644);
    }

    fn further(&self, name: &str, text: &str) {
        if !self.at("environments.d").exists() {
            fs::create_dir(self.at("environments.d")).unwrap();
            self.mode("environments.d", 0o755);
        }
        self.write(&format!("environments.d/{name}"), text);
    }

    fn mode(&self, name: &str, mode: u32) {
        fs::set_permissions(self.at(name), Permissions::from_mode(mode)).unwrap();
    }

    fn load(&self) -> Result<Loaded, Problems> {
        load(&self.at("guardd.toml"))
    }

    /// The problems, one a line, with DIR for the directory above and ME and
    /// MINE for the own user and group.
    fn said(&self) -> String {
        self.plain(&self.load().unwrap_err())
    }

    fn plain(&self, problems: &Problems) -> String {
        let above = self.path.parent().unwrap().to_str().unwrap();
        let me = peer::user_name(peer::own_uid()).unwrap();
        let group = rustix::process::getegid().as_raw();
        let mine = peer::group_name(group).unwrap_or_else(|| group.to_string());
        let mut out = String::new();
        for p in problems.as_slice() {
            let believed = if me == "root" { "root".to_owned() } else { format!("root and {me}") };
            out += &p
                .to_string()
                .replace(above, "DIR")
                .replace(&format!("others than {believed} can"), "others can")
                .replace(&format!(", group {mine})"), ", group MINE)")
                .replace(&format!("owner {me},"), "owner ME,")
                .replace(&format!("chown {me} "), "chown ME ")
                .replace(&format!("chown -h {me} "), "chown -h ME ")
                .replace("\n    fix: ", " | ");
            out.push('\n');
        }
        out
    }
}

fn is_root() -> bool {
    peer::own_uid() == 0
}

#[test]
fn a_good_file_loads() {
    let etc = Etc::new();
    let loaded = etc.load().unwrap();
    assert!(loaded.config.environments.is_empty());
    assert_eq!(loaded.notices, []);
    assert_eq!(loaded.files.len(), 1);
    assert_eq!(loaded.files[0].path, etc.at("guardd.toml"));
}

#[test]
fn writable_by_others() {
    let etc = Etc::new();
    etc.mode("guardd.toml", 0o664);
    assert_eq!(
        etc.said(),
        "DIR/etc/guardd.toml: others can change this (mode 0664, owner ME, group MINE) | chmod go-w DIR/etc/guardd.toml\n"
    );
    etc.mode("guardd.toml", 0o646);
    etc.mode("", 0o757);
    assert_eq!(
        etc.said(),
        "DIR/etc/guardd.toml: others can change this (mode 0646, owner ME, group MINE) | chmod go-w DIR/etc/guardd.toml\n\
         DIR/etc: others can change this (mode 0757, owner ME, group MINE) | chmod go-w DIR/etc\n"
    );
    // Sticky keeps others from replacing the file, and not from adding environments.
    etc.mode("guardd.toml", 0o600);
    etc.mode("", 0o1777);
    assert_eq!(
        etc.said(),
        "DIR/etc: others can change this (mode 1777, owner ME, group MINE) | chmod go-w DIR/etc\n"
    );
}

#[test]
fn a_directory_above_that_others_may_write() {
    let etc = Etc::new();
    fs::set_permissions(etc.dir.path(), Permissions::from_mode(0o777)).unwrap();
    assert_eq!(
        etc.said(),
        "DIR: others can change this (mode 0777, owner ME, group MINE) | chmod go-w DIR\n"
    );
    fs::set_permissions(etc.dir.path(), Permissions::from_mode(0o1777)).unwrap();
    assert!(etc.load().is_ok());
}

#[test]
fn further_files_and_their_directory() {
    let etc = Etc::new();
    etc.further("b.toml", "[environments.b]\nroot = '/srv/b'\n");
    etc.further("a.toml", "[environments.a]\nroot = '/srv/a'\n");
    etc.further(".hidden.toml", "x");
    etc.further("a.toml.dpkg-old", "x");
    let loaded = etc.load().unwrap();
    let names: Vec<_> = loaded.config.environments.iter().map(|e| e.name.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    let files: Vec<_> = loaded.files.iter().map(|f| f.path.file_name().unwrap().to_owned()).collect();
    assert_eq!(files, ["guardd.toml", "a.toml", "b.toml"]);
    let unread: Vec<_> = loaded.notices.iter().filter(|n| n.what.contains("not read")).collect();
    assert_eq!(unread.len(), 2);

    etc.mode("environments.d", 0o775);
    etc.mode("environments.d/a.toml", 0o666);
    assert_eq!(
        etc.said(),
        "DIR/etc/environments.d: others can change this (mode 0775, owner ME, group MINE) | chmod go-w DIR/etc/environments.d\n\
         DIR/etc/environments.d/a.toml: others can change this (mode 0666, owner ME, group MINE) | chmod go-w DIR/etc/environments.d/a.toml\n"
    );
}

#[test]
fn open_to_others_and_wrong_is_said_together() {
    let etc = Etc::new();
    etc.write("guardd.toml", "version = 1\nverson = 2\n");
    etc.further("a.toml", "[environments.a]\nroot = 'x'\n");
    etc.mode("guardd.toml", 0o622);
    assert_eq!(etc.load().unwrap_err().as_slice().len(), 3);
}

#[test]
fn somebody_elses_file() {
    if !is_root() {
        return;
    }
    let etc = Etc::new();
    chown(etc.at("guardd.toml"), Some(STRANGER), None).unwrap();
    assert_eq!(
        etc.said(),
        "DIR/etc/guardd.toml: others can change this (mode 0644, owner 54321, group MINE) | chown ME DIR/etc/guardd.toml\n"
    );
    etc.mode("guardd.toml", 0o666);
    chown(&etc.path, Some(STRANGER), Some(STRANGER)).unwrap();
    assert_eq!(
        etc.said(),
        "DIR/etc/guardd.toml: others can change this (mode 0666, owner 54321, group MINE) | chown ME DIR/etc/guardd.toml && chmod go-w DIR/etc/guardd.toml\n\
         DIR/etc: others can change this (mode 0755, owner 54321, group 54321) | chown ME DIR/etc\n"
    );
}

#[test]
fn links_are_followed_to_what_is_believed() {
    let etc = Etc::new();
    let other = etc.path.parent().unwrap().join("other");
    fs::create_dir(&other).unwrap();
    fs::rename(etc.at("guardd.toml"), other.join("real.toml")).unwrap();
    symlink("../other/real.toml", etc.at("guardd.toml")).unwrap();
    assert!(etc.load().is_ok());

    fs::set_permissions(&other, Permissions::from_mode(0o777)).unwrap();
    fs::set_permissions(other.join("real.toml"), Permissions::from_mode(0o602)).unwrap();
    assert_eq!(
        etc.said(),
        "DIR/other: others can change this (mode 0777, owner ME, group MINE) | chmod go-w DIR/other\n\
         DIR/other/real.toml: others can change this (mode 0602, owner ME, group MINE) | chmod go-w DIR/other/real.toml\n"
    );
}

#[test]
fn the_directory_of_a_link_counts_too() {
    let etc = Etc::new();
    fs::rename(etc.at("guardd.toml"), etc.dir.path().join("real.toml")).unwrap();
    symlink(etc.path.parent().unwrap().join("real.toml"), etc.at("guardd.toml")).unwrap();
    etc.mode("", 0o777);
    assert_eq!(
        etc.said(),
        "DIR/etc: others can change this (mode 0777, owner ME, group MINE) | chmod go-w DIR/etc\n"
    );
    if is_root() {
        etc.mode("", 0o755);
        std::os::unix::fs::lchown(etc.at("guardd.toml"), Some(STRANGER), None).unwrap();
        assert_eq!(
            etc.said(),
            "DIR/etc/guardd.toml: others can change this (mode 0777, owner 54321, group MINE) | chown -h ME DIR/etc/guardd.toml\n"
        );
    }
}

#[test]
fn links_that_lead_nowhere() {
    let etc = Etc::new();
    fs::remove_file(etc.at("guardd.toml")).unwrap();
    symlink("guardd.toml", etc.at("guardd.toml")).unwrap();
    assert_eq!(
        etc.said(),
        "DIR/etc/guardd.toml: too many symbolic links lead there, perhaps in a circle | put the file itself there\n"
    );
    fs::remove_file(etc.at("guardd.toml")).unwrap();
    symlink("../gone/x.toml", etc.at("guardd.toml")).unwrap();
    assert_eq!(
        etc.said(),
        "DIR/etc/guardd.toml: DIR/gone does not exist | create it with `guardctl init DIR`, or name another with GUARDD_CONFIG\n"
    );
}

#[test]
fn what_is_no_file() {
    let etc = Etc::new();
    let main = etc.at("guardd.toml");
    fs::remove_file(&main).unwrap();
    assert_eq!(
        etc.said(),
        "DIR/etc/guardd.toml: there is no such file | create it with `guardctl init DIR`, or name another with GUARDD_CONFIG\n"
    );
    fs::create_dir(&main).unwrap();
    assert_eq!(
        etc.said(),
        "DIR/etc/guardd.toml: this is a directory, not a file | put a regular file there\n"
    );
    fs::remove_dir(&main).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, &main, rustix::fs::FileType::Fifo, 0o644.into(), 0).unwrap();
    assert_eq!(etc.said(), "DIR/etc/guardd.toml: this is a fifo, not a file | put a regular file there\n");

    let below_a_file = load(&main.join("guardd.toml")).unwrap_err();
    assert_eq!(
        etc.plain(&below_a_file),
        "DIR/etc/guardd.toml: this is a fifo, not a directory | put a directory there, or name another path\n"
    );
    let nowhere = load(Path::new("/nonexistent/a/guardd.toml")).unwrap_err();
    assert_eq!(
        etc.plain(&nowhere),
        "/nonexistent/a/guardd.toml: /nonexistent does not exist | create it with `guardctl init DIR`, or name another with GUARDD_CONFIG\n"
    );
    assert!(load(Path::new("")).is_err());
    assert!(load(Path::new("/")).is_err());
    let long = load(&Path::new("/").join("x".repeat(300))).unwrap_err();
    assert!(long.as_slice()[0].what.starts_with("cannot open it: "), "{long}");
}

#[test]
fn what_is_no_text() {
    let etc = Etc::new();
    etc.write("guardd.toml", b"version = 1\n# \xff\n");
    assert_eq!(
        etc.said(),
        "DIR/etc/guardd.toml:2: this line holds bytes that are not UTF-8 | save the file as UTF-8\n"
    );
    etc.write("guardd.toml", "#".repeat((1 << 20) + 1));
    assert_eq!(
        etc.said(),
        "DIR/etc/guardd.toml: the file is larger than 1024 KiB | split it into files in environments.d, or check that it is the right file\n"
    );
    fs::remove_dir_all(etc.at("environments.d")).ok();
    etc.write("guardd.toml", "version = 1\n");
    etc.write("environments.d", "");
    assert_eq!(
        etc.said(),
        "DIR/etc/environments.d: this is a file, not a directory | put a directory there, or name another path\n"
    );
}

/// Loads in a thread of its own that has become another user.
fn load_as_stranger(path: PathBuf) -> Result<Loaded, Problems> {
    std::thread::spawn(move || {
        let (uid, gid) = (rustix::process::Uid::from_raw(STRANGER), rustix::process::Gid::from_raw(STRANGER));
        rustix::thread::set_thread_groups(&[]).unwrap();
        rustix::thread::set_thread_res_gid(gid, gid, gid).unwrap();
        rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
        load(&path)
    })
    .join()
    .unwrap()
}

#[test]
fn what_may_not_be_read_says_who_is_stopped_where() {
    if !is_root() {
        return;
    }
    let etc = Etc::new();
    fs::set_permissions(etc.dir.path(), Permissions::from_mode(0o755)).unwrap();
    assert!(load_as_stranger(etc.at("guardd.toml")).is_ok());

    etc.mode("guardd.toml", 0o600);
    assert_eq!(
        etc.plain(&load_as_stranger(etc.at("guardd.toml")).unwrap_err()),
        "DIR/etc/guardd.toml: 54321 may not read this (mode 0600, owner ME, group MINE) | run this as root, or: chmod o+r DIR/etc/guardd.toml\n"
    );
    fs::set_permissions(etc.dir.path(), Permissions::from_mode(0o750)).unwrap();
    assert_eq!(
        etc.plain(&load_as_stranger(etc.at("guardd.toml")).unwrap_err()),
        "DIR/etc/guardd.toml: DIR does not let 54321 through (mode 0750, owner ME, group MINE) | run this as root, or: chmod o+x DIR\n"
    );
}

#[test]
fn the_own_user_is_believed_by_himself_alone() {
    if !is_root() {
        return;
    }
    let etc = Etc::new();
    fs::set_permissions(etc.dir.path(), Permissions::from_mode(0o755)).unwrap();
    chown(&etc.path, Some(STRANGER), None).unwrap();
    chown(etc.at("guardd.toml"), Some(STRANGER), None).unwrap();
    assert!(load_as_stranger(etc.at("guardd.toml")).is_ok());
    assert!(etc.load().is_err());
}

#[test]
fn odd_names_in_commands_are_quoted() {
    let etc = Etc::new();
    let odd = etc.at("it's $(odd)\n.toml");
    fs::write(&odd, "version = 1\n").unwrap();
    fs::set_permissions(&odd, Permissions::from_mode(0o666)).unwrap();
    let said = etc.plain(&load(&odd).unwrap_err());
    assert_eq!(said.lines().count(), 1, "{said}");
    fs::rename(&odd, etc.at("it's $(odd).toml")).unwrap();
    let said = etc.plain(&load(&etc.at("it's $(odd).toml")).unwrap_err());
    assert!(said.ends_with("chmod go-w \"DIR/etc/it's \"'$(odd).toml'\n"), "{said}");
}
