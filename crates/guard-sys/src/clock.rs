//! Clocks and the identities of this boot and this machine.
//!
//! Two clocks, because each has a hole that the other fills: `CLOCK_BOOTTIME`
//! never goes back and counts while the machine is suspended, but ends with the
//! boot; the wall clock survives a reboot, but anybody with the right may set
//! it. A bounded span is over when either of them says so.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rustix::time::{ClockId, clock_gettime};

/// Why the identity of the boot or of the machine is not known.
#[derive(Debug, thiserror::Error)]
pub enum ClockError {
    /// The file that holds it could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the kernel said.
        #[source]
        source: io::Error,
    },
    /// The file holds something else; machine-id(5) names the state `uninitialized` during a first boot.
    #[error("{path} does not hold a 128-bit identity in hexadecimal")]
    Malformed {
        /// The file.
        path: PathBuf,
    },
}

/// Microseconds since this boot, suspended time included (`CLOCK_BOOTTIME`).
/// Never goes back; means nothing across a reboot, see [`boot_id`].
#[must_use]
pub fn boottime_micros() -> u64 {
    u64::try_from(micros(ClockId::Boottime)).unwrap_or(0)
}

/// Microseconds since 1970-01-01T00:00:00Z by the wall clock (`CLOCK_REALTIME`).
/// Negative before that moment; may jump in either direction.
#[must_use]
pub fn wall_micros() -> i64 {
    micros(ClockId::Realtime)
}

/// Microseconds of processor time that the calling thread has used, in the program and in the
/// kernel (`CLOCK_THREAD_CPUTIME_ID`).
#[must_use]
pub fn thread_cpu_micros() -> u64 {
    u64::try_from(micros(ClockId::ThreadCPUTime)).unwrap_or(0)
}

/// Nanoseconds of `CLOCK_MONOTONIC`, which the kernel stamps events of processes with.
#[must_use]
pub fn monotonic_nanos() -> u64 {
    let t = clock_gettime(ClockId::Monotonic);
    let nanos = t.tv_sec.saturating_mul(1_000_000_000).saturating_add(t.tv_nsec);
    u64::try_from(nanos).unwrap_or(0)
}

fn micros(clock: ClockId) -> i64 {
    let t = clock_gettime(clock);
    t.tv_sec.saturating_mul(1_000_000).saturating_add(t.tv_nsec / 1000)
}

/// The random identity of this boot, as 32 hexadecimal digits
/// (`/proc/sys/kernel/random/boot_id`, random(4), without its dashes).
///
/// # Errors
/// [`ClockError`] where `/proc` is not mounted.
pub fn boot_id() -> Result<String, ClockError> {
    read_id(Path::new("/proc/sys/kernel/random/boot_id"))
}

/// The identity of this installation, as 32 hexadecimal digits
/// (machine-id(5), or where that is missing D-Bus's older copy of it).
///
/// # Errors
/// [`ClockError`] of `/etc/machine-id` where neither file holds one.
pub fn machine_id() -> Result<String, ClockError> {
    read_id(Path::new("/etc/machine-id"))
        .or_else(|first| read_id(Path::new("/var/lib/dbus/machine-id")).map_err(|_| first))
}

fn read_id(path: &Path) -> Result<String, ClockError> {
    let text =
        fs::read_to_string(path).map_err(|source| ClockError::Read { path: path.to_owned(), source })?;
    let id: String = text.trim().chars().filter(|&c| c != '-').collect();
    if id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()) {
        Ok(id.to_ascii_lowercase())
    } else {
        Err(ClockError::Malformed { path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boottime_runs_forward() {
        let a = boottime_micros();
        let b = boottime_micros();
        assert!(a > 0 && b >= a);
    }

    #[test]
    fn wall_clock_is_the_systems() {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let ours = wall_micros();
        assert!((i64::try_from(now.as_micros()).unwrap() - ours).abs() < 60_000_000);
    }

    #[test]
    fn this_boot_has_one_identity() {
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
    }

    #[test]
    fn identities_are_read_strictly() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("id");
        fs::write(&file, "4bd7cd84-25b2-4a7d-9b5f-6c6a5f10E21a\n").unwrap();
        assert_eq!(read_id(&file).unwrap(), "4bd7cd8425b24a7d9b5f6c6a5f10e21a");
        for bad in ["", "uninitialized\n", "4bd7", "zzd7cd8425b24a7d9b5f6c6a5f10e21a"] {
            fs::write(&file, bad).unwrap();
            let e = read_id(&file).unwrap_err();
            assert!(matches!(e, ClockError::Malformed { .. }), "{bad}");
        }
        let e = read_id(&dir.path().join("absent")).unwrap_err();
        assert!(matches!(e, ClockError::Read { .. }), "{e}");
    }
}
