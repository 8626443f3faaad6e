//! Hard links: which inodes have names that a scan did not see.

use std::collections::HashMap;

/// The hard-linked inodes that a scan reported, with the number of their names among
/// what it reported as protected or sensitive.
#[derive(Debug, Clone, Default)]
pub struct LinkCounts {
    seen: HashMap<(u64, u64), Count>,
}

#[derive(Debug, Clone, Copy)]
struct Count {
    nlink: u32,
    names: u32,
}

impl LinkCounts {
    /// True where the inode (device, inode) has more names than were reported: another
    /// lies outside the root, or inside where nothing is protected. To change its
    /// mode would change that one's too.
    #[must_use]
    pub fn leads_outside(&self, identity: (u64, u64)) -> bool {
        self.seen.get(&identity).is_some_and(|c| c.nlink > c.names)
    }

    /// How many inodes have names that were not reported.
    #[must_use]
    pub fn outside(&self) -> usize {
        self.seen.values().filter(|c| c.nlink > c.names).count()
    }

    /// Counts in one more name of an inode.
    pub(crate) fn add(&mut self, identity: (u64, u64), nlink: u32) {
        if nlink > 1 {
            let c = self.seen.entry(identity).or_insert(Count { nlink, names: 0 });
            c.nlink = nlink;
            c.names += 1;
        }
    }

    /// Takes in what another worker counted.
    pub(crate) fn merge(&mut self, other: Self) {
        for (identity, count) in other.seen {
            let c = self.seen.entry(identity).or_insert(Count { nlink: count.nlink, names: 0 });
            c.nlink = c.nlink.max(count.nlink);
            c.names += count.names;
        }
    }
}
