//! Files of the machine that a running container does not see any more. A bind mount is of an inode: where the file was
//! replaced by another one, as editors, `git checkout` and guardd itself do, `docker compose up -d` says `Running`, and the
//! container goes on with the old file.

use std::path::Path;
use std::time::{Duration, SystemTime};

use rustix::fs::{AtFlags, CWD, StatxFlags, statx};

use super::containers::{Bind, Container};
use crate::bounded::Context;

/// A container answers within this time what it sees.
const READING: Duration = Duration::from_secs(5);

/// Larger files are not compared by content.
const COMPARED: u64 = 2 << 20;

/// What of a container's binds is not what lies at their sources now.
pub(crate) fn stale(context: &Context, container: &Container) -> Vec<String> {
    let Some(started) = parse(&container.started_at) else { return Vec::new() };
    container.binds.iter().filter_map(|bind| one(context, container, bind, started)).collect()
}

fn one(context: &Context, container: &Container, bind: &Bind, started: SystemTime) -> Option<String> {
    let source = Path::new(&bind.source);
    let wanted = StatxFlags::BTIME | StatxFlags::TYPE | StatxFlags::SIZE;
    let found = match statx(CWD, source, AtFlags::empty(), wanted) {
        Ok(found) => found,
        Err(rustix::io::Errno::NOENT) => {
            return Some(format!(
                "{} is not there any more, and {} still has it",
                bind.source, container.name
            ));
        }
        // What this user cannot look at is not what a deployment of his replaced.
        Err(_) => return None,
    };
    let has_birth = found.stx_mask & StatxFlags::BTIME.bits() != 0;
    let seconds = u64::try_from(found.stx_btime.tv_sec).ok()?;
    let born = SystemTime::UNIX_EPOCH + Duration::new(seconds, found.stx_btime.tv_nsec);
    // An inode that is older than the container's start was what it mounted, or was moved here: only a file system that
    // knows no birth leaves that open.
    if !has_birth || born <= started {
        return None;
    }
    let told = |what: &str| {
        format!(
            "{} was replaced after {} started, which {what}: it has to be recreated (up -d --force-recreate)",
            bind.source, container.name
        )
    };
    let is_file = u32::from(found.stx_mode) & 0o170_000 == 0o100_000;
    if !is_file || found.stx_size > COMPARED {
        return Some(told("still sees the old one"));
    }
    let now = std::fs::read(source).ok()?;
    let mut command = context.command("docker");
    command.args(["exec", &container.id, "cat", &bind.destination]);
    match context.run(&mut command, READING) {
        Ok(done) if done.is_good() && done.out == now => None,
        Ok(done) if done.is_good() => Some(told("still sees the old one")),
        // Without `cat` in the image nobody can tell.
        Ok(_) | Err(_) => Some(told("may see the old one")),
    }
}

/// docker's RFC 3339 time, always in UTC.
fn parse(text: &str) -> Option<SystemTime> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let mut date = date.splitn(3, '-').map(|n| n.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let mut time = time.splitn(3, ':').map(|n| n.parse::<i64>().ok());
    let (hour, minute, second) = (time.next()??, time.next()??, time.next()??);
    let digits: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    let nanos: u32 = digits.parse().ok()?;
    // Days since 1970 by the civil calendar (Howard Hinnant's days_from_civil).
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    let seconds = ((days * 24 + hour) * 60 + minute) * 60 + second;
    Some(SystemTime::UNIX_EPOCH + Duration::new(u64::try_from(seconds).ok()?, nanos))
}

/// How long ago that was.
pub(crate) fn since(text: &str) -> Option<Duration> {
    SystemTime::now().duration_since(parse(text)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dockers_times_are_read() {
        let at = |text| parse(text).map(|t| t.duration_since(SystemTime::UNIX_EPOCH).unwrap());
        assert_eq!(at("1970-01-01T00:00:00Z"), Some(Duration::ZERO));
        assert_eq!(at("2026-11-22T08:47:05.25Z"), Some(Duration::new(1_795_337_225, 250_000_000)));
        assert_eq!(at("2024-02-29T12:00:00.123456789Z"), Some(Duration::new(1_709_208_000, 123_456_789)));
        for bad in ["", "0001-01-01T00:00:00Z", "2026-11-22", "x"] {
            assert_eq!(parse(bad), None, "{bad:?}");
        }
    }
}
