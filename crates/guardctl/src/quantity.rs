//! Times, spans, sizes and counts as people read and write them.

use std::fmt;
use std::time::Duration;

use guard_api::Time;

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// `2026-11-21 22:26:40 UTC`
pub(crate) fn absolute(t: Time) -> String {
    let text = t.to_string();
    match (text.get(..10), text.get(10..11), text.get(11..19)) {
        (Some(date), Some("T"), Some(time)) => format!("{date} {time} UTC"),
        _ => text,
    }
}

/// `3 h ago`, `in 25 min`, `just now`
pub(crate) fn relative(t: Time, now: Time) -> String {
    let seconds = now.0.saturating_sub(t.0) / 1_000_000;
    let amount = coarse(seconds.unsigned_abs());
    match seconds {
        -1..=1 => "just now".to_owned(),
        2.. => format!("{amount} ago"),
        _ => format!("in {amount}"),
    }
}

/// `2026-11-21 22:26:40 UTC (3 h ago)`
pub(crate) fn both(t: Time, now: Time) -> String {
    format!("{} ({})", absolute(t), relative(t, now))
}

/// One unit, rounded down, two of it at least but for seconds.
fn coarse(s: u64) -> String {
    if s < 2 * MINUTE {
        format!("{s} s")
    } else if s < 2 * HOUR {
        format!("{} min", s / MINUTE)
    } else if s < 2 * DAY {
        format!("{} h", s / HOUR)
    } else {
        format!("{} d", s / DAY)
    }
}

/// `45 s`, `5 min`, `1 h 30 min`: exact to the second unit.
pub(crate) fn span(s: u64) -> String {
    let units = [(DAY, "d"), (HOUR, "h"), (MINUTE, "min"), (1, "s")];
    let mut left = s;
    let mut parts = Vec::new();
    for (size, name) in units {
        if left >= size {
            parts.push(format!("{} {name}", left / size));
            left %= size;
        }
    }
    parts.truncate(2);
    if parts.is_empty() { "0 s".to_owned() } else { parts.join(" ") }
}

/// `120 ms`, `4.1 s`, `3 min 5 s`
pub(crate) fn milliseconds(ms: u64) -> String {
    match ms {
        0..1000 => format!("{ms} ms"),
        1000..60_000 => format!("{}.{} s", ms / 1000, ms % 1000 / 100),
        _ => span(ms / 1000),
    }
}

/// `512 bytes`, `1.2 GiB`
pub(crate) fn bytes(n: u64) -> String {
    let mut unit = 1u64 << 10;
    if n < unit {
        return counted(n, "byte");
    }
    for name in ["KiB", "MiB", "GiB", "TiB", "PiB"] {
        if n >> 10 < unit {
            return format!("{}.{} {name}", n / unit, n % unit * 10 / unit);
        }
        unit <<= 10;
    }
    format!("{} EiB", n / unit)
}

/// `12,345`
pub(crate) fn count(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (i, d) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(d);
    }
    out
}

/// `1 file`, `12,345 files`; `directory` becomes `directories`.
pub(crate) fn counted(n: u64, noun: &str) -> String {
    match (n, noun.strip_suffix("ry")) {
        (1, _) => format!("1 {noun}"),
        (_, Some(stem)) => format!("{} {stem}ries", count(n)),
        _ => format!("{} {noun}s", count(n)),
    }
}

/// A length of a list as a number for [`counted`].
pub(crate) fn len<T>(list: &[T]) -> u64 {
    u64::try_from(list.len()).unwrap_or(u64::MAX)
}

/// Text that is no span of time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotADuration;

impl fmt::Display for NotADuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write numbers with their units s, m, h or d, such as 45m or 2h30m")
    }
}

impl std::error::Error for NotADuration {}

/// Reads `90s`, `45m`, `2h30m`, `1d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, NotADuration> {
    let mut seconds = 0u64;
    let mut number: Option<u64> = None;
    for c in text.chars() {
        if let Some(d) = c.to_digit(10) {
            let tens = number.unwrap_or(0).checked_mul(10).and_then(|n| n.checked_add(u64::from(d)));
            number = Some(tens.ok_or(NotADuration)?);
            continue;
        }
        let unit = match c {
            's' => 1,
            'm' => MINUTE,
            'h' => HOUR,
            'd' => DAY,
            _ => return Err(NotADuration),
        };
        let part = number.take().and_then(|n| n.checked_mul(unit)).ok_or(NotADuration)?;
        seconds = seconds.checked_add(part).ok_or(NotADuration)?;
    }
    // A bare number says nothing of its unit; no time at all opens and waits for nothing.
    if number.is_some() || seconds == 0 { Err(NotADuration) } else { Ok(Duration::from_secs(seconds)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let t = Time(1_795_300_000_000_001);
        let later = |s: i64| Time(t.0 + s * 1_000_000);
        assert_eq!(absolute(t), "2026-11-21 22:26:40 UTC");
        assert_eq!(relative(t, later(1)), "just now");
        assert_eq!(relative(t, later(119)), "119 s ago");
        assert_eq!(relative(t, later(120)), "2 min ago");
        assert_eq!(relative(t, later(7200)), "2 h ago");
        assert_eq!(relative(t, later(200_000)), "2 d ago");
        assert_eq!(relative(t, later(-1500)), "in 25 min");
        assert_eq!(relative(Time(i64::MIN), Time(i64::MAX)), "106751991 d ago");
        assert_eq!(absolute(Time(i64::MAX)), "@9223372036854775807us");
    }

    #[test]
    fn amounts() {
        assert_eq!(span(0), "0 s");
        assert_eq!(span(5400), "1 h 30 min");
        assert_eq!(span(90_061), "1 d 1 h");
        assert_eq!(milliseconds(120), "120 ms");
        assert_eq!(milliseconds(4199), "4.1 s");
        assert_eq!(milliseconds(185_000), "3 min 5 s");
        assert_eq!(bytes(0), "0 bytes");
        assert_eq!(bytes(1), "1 byte");
        assert_eq!(bytes(1023), "1,023 bytes");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "15 EiB");
        assert_eq!(count(1_234_567), "1,234,567");
        assert_eq!(count(123), "123");
        assert_eq!(counted(1, "directory"), "1 directory");
        assert_eq!(counted(2, "directory"), "2 directories");
    }

    #[test]
    fn durations() {
        assert_eq!(parse_duration("2h30m"), Ok(Duration::from_secs(9000)));
        assert_eq!(parse_duration("90s"), Ok(Duration::from_secs(90)));
        for bad in
            ["", "30", "m", "1h30", "0m", "-5m", "1.5h", "99999999999999999999s", "999999999999999999d"]
        {
            assert_eq!(parse_duration(bad), Err(NotADuration), "{bad}");
        }
    }
}
