//! Ports: each is free, or held by the environment itself: by a container of its project, by one of its units, or by a
//! process of its user. Whoever else holds one would make the next start fail.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use guard_model::deploy::{Port, Protocol, Validation, Verdict};

use super::{Tell, gate, units};
use crate::bounded::Context;
use crate::compose::Container;

/// A socket that waits for somebody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Socket {
    port: u16,
    uid: u32,
    inode: u64,
}

pub(super) fn all(
    context: &Context,
    validation: &Validation,
    containers: &[Container],
    tell: &mut Tell<'_>,
) -> io::Result<()> {
    for port in &validation.ports {
        let flag = if port.protocol == Protocol::Udp { "u" } else { "t" };
        let by_hand = format!("ss -{flag}lnp 'sport = :{}'", port.number);
        let (verdict, evidence) = match sockets(port.protocol) {
            Ok(all) => {
                let held: Vec<Socket> = all.into_iter().filter(|s| s.port == port.number).collect();
                judge(context, *port, &held, validation, containers)
            }
            Err(e) => (Verdict::Unknown, format!("the kernel's list of sockets cannot be read: {e}")),
        };
        tell(gate("port", &port.to_string(), verdict, evidence, by_hand))?;
    }
    Ok(())
}

fn judge(
    context: &Context,
    port: Port,
    held: &[Socket],
    validation: &Validation,
    containers: &[Container],
) -> (Verdict, String) {
    let is_udp = port.protocol == Protocol::Udp;
    let published = containers.iter().find(|c| c.is_running() && c.ports.contains(&(port.number, is_udp)));
    if let Some(container) = published {
        return (Verdict::Pass, format!("held by {}", container.name));
    }
    if held.is_empty() {
        return (Verdict::Pass, "it is free".to_owned());
    }
    let own = rustix::process::geteuid().as_raw();
    for socket in held {
        let holder = holder(socket.inode);
        if let Some(unit) = holder.as_ref().and_then(|h| unit_of(&h.cgroup, &validation.units)) {
            return (Verdict::Pass, format!("held by {unit}"));
        }
        // Root's are anybody's.
        if socket.uid == own && own != 0 {
            return (Verdict::Pass, "held by a process of the environment's user".to_owned());
        }
        if let Some(holder) = holder {
            return (
                Verdict::Fail,
                format!("held by {} (pid {}), which is not of this environment", holder.name, holder.pid),
            );
        }
        // Another user's process, whose sockets cannot be looked at: its unit's main process tells by its user.
        if socket.uid != 0
            && let Some(unit) = main_process_of(context, socket.uid, &validation.units)
        {
            return (Verdict::Pass, format!("held by uid {}, as which {unit} runs", socket.uid));
        }
    }
    let uid = held.first().map_or(0, |s| s.uid);
    match (uid, validation.units.is_empty()) {
        (0, false) => (
            Verdict::Unknown,
            "held by a process of root's, of which this user cannot tell the unit".to_owned(),
        ),
        (uid, _) => {
            (Verdict::Fail, format!("held by a process of uid {uid}, which is not of this environment"))
        }
    }
}

fn sockets(protocol: Protocol) -> io::Result<Vec<Socket>> {
    // LISTEN for TCP; for UDP, whoever has bound it (TCP_CLOSE), proc(5) and include/net/tcp_states.h.
    let (names, state) = match protocol {
        Protocol::Tcp => (["tcp", "tcp6"], "0A"),
        Protocol::Udp => (["udp", "udp6"], "07"),
    };
    let mut found = Vec::new();
    for name in names {
        match std::fs::read_to_string(Path::new("/proc/net").join(name)) {
            Ok(text) => found.extend(text.lines().skip(1).filter_map(|l| socket(l, state))),
            // Without IPv6 there is no such list.
            Err(e) if e.kind() == io::ErrorKind::NotFound && name.ends_with('6') => {}
            Err(e) => return Err(e),
        }
    }
    Ok(found)
}

fn socket(line: &str, wanted: &str) -> Option<Socket> {
    let words: Vec<&str> = line.split_ascii_whitespace().collect();
    let (_, port) = words.get(1)?.rsplit_once(':')?;
    let is_wanted = *words.get(3)? == wanted;
    is_wanted.then_some(Socket {
        port: u16::from_str_radix(port, 16).ok()?,
        uid: words.get(7)?.parse().ok()?,
        inode: words.get(9)?.parse().ok()?,
    })
}

/// The process that has a socket open.
struct Holder {
    pid: u32,
    name: String,
    cgroup: String,
}

/// Among those processes that this user may look at.
fn holder(inode: u64) -> Option<Holder> {
    let wanted = PathBuf::from(format!("socket:[{inode}]"));
    for entry in std::fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse::<u32>().ok()) else { continue };
        let Ok(open) = std::fs::read_dir(entry.path().join("fd")) else { continue };
        let has_it = open.flatten().any(|fd| std::fs::read_link(fd.path()).is_ok_and(|to| to == wanted));
        if has_it {
            let read = |name: &str| std::fs::read_to_string(entry.path().join(name)).unwrap_or_default();
            return Some(Holder { pid, name: read("comm").trim().to_owned(), cgroup: read("cgroup") });
        }
    }
    None
}

/// Which of the units the process belongs to, by its control group.
fn unit_of<'a>(cgroup: &str, units: &'a [String]) -> Option<&'a String> {
    units.iter().find(|unit| cgroup.lines().any(|l| l.split('/').any(|part| part == unit.as_str())))
}

/// Which of the units has a main process of this user's.
fn main_process_of<'a>(context: &Context, uid: u32, units: &'a [String]) -> Option<&'a String> {
    units.iter().find(|unit| {
        let main = units::properties(context, unit).ok().and_then(|p| p.get("MainPID")?.parse::<u32>().ok());
        let process = main.filter(|pid| *pid > 0).map(|pid| std::fs::metadata(format!("/proc/{pid}")));
        process.is_some_and(|m| m.is_ok_and(|m| m.uid() == uid))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn the_kernels_list_is_read() {
        let line = "   1: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 4242 1 0 100 0 0 10 0";
        assert_eq!(socket(line, "0A"), Some(Socket { port: 8080, uid: 1000, inode: 4242 }));
        assert_eq!(socket(line, "07"), None);
        assert_eq!(socket("garbage", "0A"), None);
    }

    #[test]
    fn who_holds_a_port_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let number = listener.local_addr().unwrap().port();
        let context = crate::bounded::tests::context(Path::new("/"));
        let port = Port { number, protocol: Protocol::Tcp };
        let look = |validation: &Validation| {
            let held: Vec<Socket> =
                sockets(Protocol::Tcp).unwrap().into_iter().filter(|s| s.port == number).collect();
            judge(&context, port, &held, validation, &[])
        };
        let (verdict, evidence) = look(&Validation::default());
        match rustix::process::geteuid().is_root() {
            true => {
                assert_eq!(verdict, Verdict::Fail, "{evidence}");
                assert!(evidence.contains(&std::process::id().to_string()), "{evidence}");
            }
            false => assert_eq!(verdict, Verdict::Pass, "{evidence}"),
        }
        drop(listener);
        assert_eq!(look(&Validation::default()), (Verdict::Pass, "it is free".to_owned()));
    }

    #[test]
    fn a_process_belongs_to_a_unit_by_its_group() {
        let units = ["app.service".to_owned()];
        assert!(unit_of("0::/system.slice/app.service\n", &units).is_some());
        assert!(unit_of("0::/system.slice/app.service/worker\n", &units).is_some());
        assert!(unit_of("0::/system.slice/not-app.service\n", &units).is_none());
    }
}
