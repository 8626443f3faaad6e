//! What this process may do.

use std::io;

use rustix::process::{getegid, getgroups};
use rustix::thread::{CapabilitySet, capabilities};

/// Does a setgid bit survive when this process sets the mode of a file of group `gid`?
/// chmod(2) drops it without an error where the caller is neither in that group nor
/// has `CAP_FSETID`.
///
/// # Errors
/// What capget(2) and getgroups(2) say.
pub fn keeps_setgid(gid: u32) -> io::Result<bool> {
    Ok(getegid().as_raw() == gid
        || capabilities(None)?.effective.contains(CapabilitySet::FSETID)
        || getgroups()?.iter().any(|g| g.as_raw() == gid))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_own_group_is_known() {
        assert!(keeps_setgid(getegid().as_raw()).unwrap());
    }
}
