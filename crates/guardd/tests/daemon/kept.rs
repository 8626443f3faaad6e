//! What is watched by outlives guardd in systemd's file descriptor store; the tests stand in for systemd.

use std::fs;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use guard_api::wire::{Confidence, GapCause};
use rustix::io::FdFlags;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::stage::{ENV, GUARDD, PLAIN, Stage};
use crate::wait;

type Stored = Arc<Mutex<Vec<(String, OwnedFd)>>>;

/// Takes what guardd tells its service manager, and keeps what it hands over.
struct Manager {
    stored: Stored,
    socket: std::path::PathBuf,
}

impl Manager {
    fn new(stage: &Stage) -> Self {
        let socket = stage.path("notify");
        let bound = UnixDatagram::bind(&socket).unwrap();
        let stored = Stored::default();
        let shelf = Arc::clone(&stored);
        // Ends with the test's process.
        std::thread::spawn(move || {
            loop {
                let mut text = [0; 4096];
                let mut room = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
                let mut control = RecvAncillaryBuffer::new(&mut room);
                let mut parts = [IoSliceMut::new(&mut text)];
                let Ok(got) = recvmsg(&bound, &mut parts, &mut control, RecvFlags::empty()) else { return };
                let descriptors: Vec<OwnedFd> = control
                    .drain()
                    .filter_map(|m| match m {
                        RecvAncillaryMessage::ScmRights(all) => Some(all.collect::<Vec<_>>()),
                        _ => None,
                    })
                    .flatten()
                    .collect();
                let text = String::from_utf8_lossy(&text[..got.bytes]).into_owned();
                let name =
                    text.lines().find_map(|l| l.strip_prefix("FDNAME=")).unwrap_or_default().to_owned();
                let mut shelf = shelf.lock().unwrap();
                if text.contains("FDSTOREREMOVE=1") {
                    shelf.retain(|(known, _)| *known != name);
                }
                if text.contains("FDSTORE=1") {
                    shelf.extend(descriptors.into_iter().map(|d| (name.clone(), d)));
                }
            }
        });
        Self { stored, socket }
    }

    fn names(&self) -> Vec<String> {
        self.stored.lock().unwrap().iter().map(|(name, _)| name.clone()).collect()
    }

    fn command(&self, stage: &Stage) -> Command {
        let mut command = stage.command();
        command.env("NOTIFY_SOCKET", &self.socket);
        command
    }

    /// As [`Self::command`], with what was handed over, each under its name.
    fn command_with(&self, stage: &Stage, passed: &[(String, OwnedFd)]) -> Command {
        let names: Vec<&str> = passed.iter().map(|(name, _)| name.as_str()).collect();
        let mut script = format!(
            "export LISTEN_PID=$$ LISTEN_FDS={} LISTEN_FDNAMES={}; exec",
            passed.len(),
            names.join(":")
        );
        script.push_str(" \"$@\"");
        for (number, (_, descriptor)) in passed.iter().enumerate() {
            rustix::io::fcntl_setfd(descriptor, FdFlags::empty()).unwrap();
            script.push_str(&format!(" {}<&{}", number + 3, descriptor.as_raw_fd()));
        }
        let mut command = Command::new("bash");
        command.args(["-c", &script, "bash", GUARDD, "run", "--config"]).arg(stage.config());
        for (name, value) in stage.command().get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        command.env("NOTIFY_SOCKET", &self.socket);
        command
    }

    fn take(&self) -> Vec<(String, OwnedFd)> {
        let stored = self.stored.lock().unwrap();
        stored.iter().map(|(name, fd)| (name.clone(), fd.try_clone().unwrap())).collect()
    }
}

/// Locked under a manager that holds one group; `None`, said, where there is no fanotify.
fn watched() -> Option<(Stage, Manager)> {
    let mut stage = Stage::new(PLAIN);
    let manager = Manager::new(&stage);
    stage.start_as(manager.command(&stage));
    stage.wait_for_answer();
    stage.lock();
    let watch = stage.site().watch;
    if let Some(why) = watch.instead {
        eprintln!("skipped: {why}");
        return None;
    }
    wait::until_true("the group in the store", || manager.names().len() == 1);
    assert!(manager.names()[0].starts_with(&format!("watch-{ENV}-")), "{:?}", manager.names());
    Some((stage, manager))
}

fn down_gaps(stage: &Stage) -> usize {
    stage.site().watch.gaps.iter().filter(|g| g.cause == GapCause::Down).count()
}

#[test]
fn what_happens_while_it_is_away_has_its_actor_and_no_gap() {
    let Some((mut stage, manager)) = watched() else { return };
    stage.kill();
    let script = "echo x >> compose.yml; mkdir -p new/deep; echo y > new/deep/file; read wait";
    let mut living = Command::new("sh")
        .args(["-c", script])
        .current_dir(stage.app())
        .stdin(Stdio::piped())
        .spawn()
        .unwrap();
    wait::until_true("the change", || stage.at("new/deep/file").exists());
    let mut gone = Command::new("sh")
        .args(["-c", "echo x >> backend/app/main.py"])
        .current_dir(stage.app())
        .spawn()
        .unwrap();
    gone.wait().unwrap();

    let passed = manager.take();
    stage.start_as(manager.command_with(&stage, &passed));
    stage.wait_for_answer();
    drop(passed);
    let by = stage.finding("compose.yml").actor.unwrap();
    assert_eq!((by.pid, by.confidence), (living.id().cast_signed(), Confidence::Verified));
    let by = stage.finding("backend/app/main.py").actor.unwrap();
    assert_eq!((by.pid, by.confidence), (gone.id().cast_signed(), Confidence::Unknown));
    stage.finding("new/deep/file");
    assert_eq!(down_gaps(&stage), 0, "{:?}", stage.site().watch.gaps);
    // It goes on watching by the same group, and it stays kept.
    assert_eq!(manager.names().len(), 1);
    fs::write(stage.at("later"), "x").unwrap();
    let by = stage.finding("later").actor.unwrap();
    assert_eq!(by.pid, std::process::id().cast_signed());
    drop(living.stdin.take());
    living.wait().unwrap();
}

#[test]
fn what_is_no_group_or_of_another_root_is_refused_and_is_a_gap() {
    let Some((mut stage, manager)) = watched() else { return };
    let name = manager.names()[0].clone();
    stage.stop();
    fs::write(stage.at("new"), "x").unwrap();
    let junk = |name: &str| (name.to_owned(), OwnedFd::from(fs::File::open(stage.config()).unwrap()));
    let passed = [junk(&name), junk("watch-site-0000000000000000"), junk("")];
    let command = manager.command_with(&stage, &passed);
    stage.start_as(command);
    stage.wait_for_answer();
    drop(passed);
    stage.finding("new");
    assert_eq!(down_gaps(&stage), 1);
    assert_eq!(manager.names(), [name]);
    fs::write(stage.at("later"), "x").unwrap();
    stage.finding("later");
}

#[test]
fn more_than_its_queue_holds_is_a_gap_and_nothing_of_it_is_lost() {
    let Some((mut stage, manager)) = watched() else { return };
    let limit = fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events").unwrap();
    let limit: usize = limit.trim().parse().unwrap();
    if limit > 100_000 {
        eprintln!("skipped: the queue holds {limit} events");
        return;
    }
    stage.stop();
    // Each name is an event of its own, whoever makes it.
    let noise = stage.at("backend");
    for n in 0..=limit {
        let name = noise.join(format!("n{n}"));
        fs::hard_link(stage.at("compose.yml"), &name).unwrap();
        fs::remove_file(&name).unwrap();
    }
    fs::write(stage.at("backend/app/main.py"), "the change that matters").unwrap();
    fs::write(stage.at("last"), "x").unwrap();
    let passed = manager.take();
    stage.start_as(manager.command_with(&stage, &passed));
    stage.wait_for_answer();
    drop(passed);
    stage.finding("backend/app/main.py");
    stage.finding("last");
    assert_eq!(down_gaps(&stage), 1, "{:?}", stage.site().watch.gaps);
    wait::until_true("the gap to close", || stage.site().watch.gaps.iter().all(|g| g.until.is_some()));
    assert!(!stage.found_paths().iter().any(|path| path.starts_with("backend/n")));
    // What is watched by from now on is another group, and it is kept.
    wait::until_true("the new group in the store", || manager.names().len() == 1);
    fs::write(stage.at("later"), "x").unwrap();
    assert_eq!(stage.finding("later").actor.unwrap().pid, std::process::id().cast_signed());
}
