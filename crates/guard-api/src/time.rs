//! Points in time as they stand on the wire.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Microseconds since 1970-01-01T00:00:00Z; on the wire RFC 3339 UTC with microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Time(pub i64);

/// The text is not an RFC 3339 time.
#[derive(Debug, Clone, thiserror::Error)]
#[error("not an RFC 3339 time")]
pub struct NotATime;

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_microsecond(self.0) {
            Ok(t) => write!(f, "{t:.6}"),
            // Beyond the year 9999: still lossless.
            Err(_) => write!(f, "@{}us", self.0),
        }
    }
}

impl FromStr for Time {
    type Err = NotATime;
    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if let Some(raw) = s.strip_prefix('@') {
            return raw.strip_suffix("us").and_then(|n| n.parse().ok()).map(Self).ok_or(NotATime);
        }
        s.parse::<jiff::Timestamp>().map(|t| Self(t.as_microsecond())).map_err(|_| NotATime)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_text_form_is_fixed_width_utc() {
        assert_eq!(Time(1_795_300_000_000_001).to_string(), "2026-11-21T22:26:40.000001Z");
    }

    proptest! {
        #[test]
        fn every_time_survives_the_wire(us: i64) {
            prop_assert_eq!(Time(us).to_string().parse::<Time>().unwrap(), Time(us));
        }

        #[test]
        fn hostile_text_never_panics(s: String) { drop(s.parse::<Time>()); }
    }
}
