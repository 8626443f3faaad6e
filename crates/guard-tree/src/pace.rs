//! Reading no faster than asked.

use std::num::NonZeroU64;
use std::time::Duration;

use guard_model::baseline::Totals;

/// The fastest that a paced scan may read. Each entry counts as [`Pace::ENTRY_COST`]
/// bytes and its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pace {
    /// Bytes per second.
    pub bytes_per_second: NonZeroU64,
}

impl Pace {
    /// What looking at an entry costs beside reading its content, in bytes of reading.
    pub const ENTRY_COST: u64 = 16 << 10;

    /// The pace at which a tree of this size takes about `duration`.
    #[must_use]
    pub fn spread(totals: &Totals, duration: Duration) -> Self {
        let entries = totals.files.saturating_add(totals.directories);
        let cost = totals.bytes.saturating_add(entries.saturating_mul(Self::ENTRY_COST));
        let millis = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX).max(1);
        let rate = u128::from(cost) * 1000 / u128::from(millis);
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        Self { bytes_per_second: NonZeroU64::new(rate).unwrap_or(NonZeroU64::MIN) }
    }
}
