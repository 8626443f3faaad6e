//! Who may call what.

use std::collections::BTreeMap;

use guard_sys::peer::{self, Peer};

/// What a method needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Right {
    /// Whoever may read.
    Read,
    /// The daemon's own user, or a group that `[daemon.allow]` gives this command.
    Command(&'static str),
    /// The same, to look at what that command is about.
    Look(&'static str),
}

/// The daemon's own user, its readers' group, and what groups were given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Authority {
    own_uid: u32,
    readers: Option<u32>,
    allowed: BTreeMap<String, Vec<u32>>,
}

impl Authority {
    /// Groups that do not exist allow nobody.
    pub(crate) fn new(readers: Option<u32>, allow: &BTreeMap<String, Vec<String>>) -> Self {
        let ids = |groups: &Vec<String>| groups.iter().filter_map(|g| peer::group_id(g)).collect();
        Self {
            own_uid: peer::own_uid(),
            readers,
            allowed: allow.iter().map(|(command, groups)| (command.clone(), ids(groups))).collect(),
        }
    }

    /// The daemon's own user, or root, whom nothing could keep out.
    pub(crate) fn is_owner(&self, peer: &Peer) -> bool {
        peer.uid == self.own_uid || peer.uid == 0
    }

    pub(crate) fn permits(&self, peer: &Peer, right: Right) -> bool {
        if self.is_owner(peer) {
            return true;
        }
        let in_any = |groups: &[u32]| groups.iter().any(|g| peer.in_group(*g));
        match right {
            Right::Read => {
                self.readers.is_some_and(|g| peer.in_group(g)) || self.allowed.values().any(|g| in_any(g))
            }
            Right::Command(command) | Right::Look(command) => {
                self.allowed.get(command).is_some_and(|g| in_any(g))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, groups: &[u32]) -> Peer {
        Peer { pid: Some(1), uid, gid: 4242, groups: groups.to_vec(), login_uid: None }
    }

    #[test]
    fn readers_read_and_groups_do_what_they_were_given() {
        let a = Authority {
            own_uid: 1,
            readers: Some(50),
            allowed: BTreeMap::from([("ack".to_owned(), vec![60])]),
        };
        let root = peer(1, &[]);
        let (reader, acker, stranger) = (peer(9, &[50]), peer(9, &[60]), peer(9, &[7]));
        assert!(a.permits(&root, Right::Command("lock")));
        assert!(a.permits(&reader, Right::Read) && !a.permits(&reader, Right::Command("ack")));
        assert!(a.permits(&acker, Right::Command("ack")) && a.permits(&acker, Right::Read));
        assert!(!a.permits(&acker, Right::Command("lock")));
        assert!(a.permits(&acker, Right::Look("ack")) && !a.permits(&reader, Right::Look("ack")));
        assert!(!a.permits(&stranger, Right::Read) && !a.permits(&stranger, Right::Command("ack")));
    }
}
