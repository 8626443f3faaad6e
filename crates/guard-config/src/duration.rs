//! Durations as people write them: `30s`, `5m`, `1h30m`, `7d`.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Why a text is no duration that may stand there.
pub(crate) struct BadDuration {
    /// Continues the quoted text.
    pub(crate) what: String,
    pub(crate) fix: String,
}

/// Whole numbers each followed by `s`, `m`, `h` or `d`, added up.
pub(crate) fn parse(text: &str, allowed: &RangeInclusive<Duration>) -> Result<Duration, BadDuration> {
    let Some(d) = add_up(text) else {
        return Err(BadDuration {
            what: "is not a duration".to_owned(),
            fix: match bare_number(text) {
                Some(n) => format!("write a unit too, as in \"{n}s\" or \"{n}m\""),
                None => "write whole numbers with the units s, m, h or d, as in \"30s\", \"5m\" or \"1h30m\""
                    .to_owned(),
            },
        });
    };
    let limits = format!("write a duration from {} to {}", show(*allowed.start()), show(*allowed.end()));
    if d < *allowed.start() {
        Err(BadDuration { what: "is too short".to_owned(), fix: limits })
    } else if d > *allowed.end() {
        Err(BadDuration { what: "is too long".to_owned(), fix: limits })
    } else {
        Ok(d)
    }
}

fn bare_number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

/// `None` where the text has another form; what does not fit saturates, and the
/// limits refuse it.
fn add_up(text: &str) -> Option<Duration> {
    let mut seconds = 0_u64;
    let mut rest = text;
    loop {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at_checked(digits).filter(|_| digits > 0)?;
        let mut tail = tail.chars();
        let unit = match tail.next()? {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        let number: u64 = number.parse().unwrap_or(u64::MAX);
        seconds = seconds.saturating_add(number.saturating_mul(unit));
        rest = tail.as_str();
        if rest.is_empty() {
            return Some(Duration::from_secs(seconds));
        }
    }
}

/// The shortest text that [`parse`] reads as this duration (whole seconds).
pub(crate) fn show(d: Duration) -> String {
    let mut seconds = d.as_secs();
    let mut out = String::new();
    for (unit, letter) in [(86_400, 'd'), (3600, 'h'), (60, 'm'), (1, 's')] {
        if seconds >= unit {
            out.push_str(&format!("{}{letter}", seconds / unit));
            seconds %= unit;
        }
    }
    if out.is_empty() { "0s".to_owned() } else { out }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ANY: RangeInclusive<Duration> = Duration::ZERO..=Duration::MAX;

    #[test]
    fn units_add_up() {
        for (text, seconds) in
            [("30s", 30), ("5m", 300), ("2h", 7200), ("1h30m", 5400), ("7d", 604_800), ("0s", 0)]
        {
            assert_eq!(parse(text, &ANY).ok(), Some(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "5", "m", "5 m", "5min", "-5m", "1.5h", "5m ", "5M", "1h30", "٣s", "5mé"] {
            assert!(parse(bad, &ANY).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_hold() {
        let minute = Duration::from_secs(60);
        let allowed = Duration::from_secs(1)..=minute;
        assert!(parse("0s", &allowed).is_err());
        assert!(parse("61s", &allowed).is_err());
        assert!(parse("99999999999999999999999d", &allowed).is_err());
        assert_eq!(parse("60s", &allowed).ok(), Some(minute));
    }

    proptest! {
        #[test]
        fn shown_is_read_back(seconds: u64) {
            let d = Duration::from_secs(seconds);
            prop_assert_eq!(parse(&show(d), &ANY).ok(), Some(d));
        }

        #[test]
        fn never_panics(text: String) { drop(parse(&text, &ANY)); }
    }
}
