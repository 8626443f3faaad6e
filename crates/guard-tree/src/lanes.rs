//! SHA-256 of many messages side by side.
//!
//! Each step of one hash needs the step before it, so that a processor waits most of the time. Messages need nothing of each
//! other: sixteen of them take each step together in the registers of AVX-512, eight in those of AVX2.

use std::cmp::Reverse;

use guard_model::Digest;
use sha2::Digest as _;
use stringzilla::sz::{Sha256, sha256_multistate_digest, sha256_multistate_update_by};

/// SHA-256 takes so many bytes at a time.
const BLOCK: usize = 64;

/// How many messages take their steps together.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lanes {
    count: usize,
    /// Fewer than these are faster one after the other.
    worth: usize,
}

/// A message that is being hashed: its place among all, and what is left of it.
struct Lane<'m> {
    place: usize,
    rest: &'m [u8],
}

impl Lanes {
    /// `None` where one message after the other is as fast: with instructions for SHA-256 and without AVX-512, and on what is
    /// no x86-64. Measured: docs/benchmarks.md.
    pub(crate) fn of_this_processor() -> Option<Self> {
        #[cfg(target_arch = "x86_64")]
        {
            let has_sha = is_x86_feature_detected!("sha");
            let worth = if has_sha { 8 } else { 2 };
            if is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512vl")
            {
                return Some(Self { count: 16, worth });
            }
            if is_x86_feature_detected!("avx2") && !has_sha {
                return Some(Self { count: 8, worth });
            }
        }
        None
    }

    #[cfg(test)]
    pub(crate) fn with(count: usize, worth: usize) -> Self {
        Self { count, worth }
    }

    /// The digest of each message, in their order.
    pub(crate) fn digests(self, messages: &[&[u8]]) -> Vec<Digest> {
        let mut ended = vec![Sha256::new(); messages.len()];
        let mut digests = vec![[0; 32]; messages.len()];
        let done =
            self.hash(messages, &mut ended).and_then(|()| sha256_multistate_digest(&ended, &mut digests));
        match done {
            Ok(()) => digests.into_iter().map(Digest).collect(),
            // It would say so if there were not as many states as messages; there are.
            Err(_) => messages.iter().map(|m| Digest(sha2::Sha256::digest(m).into())).collect(),
        }
    }

    fn hash(self, messages: &[&[u8]], ended: &mut [Sha256]) -> Result<(), stringzilla::sz::Status> {
        let mut waiting: Vec<Lane<'_>> =
            messages.iter().enumerate().map(|(place, rest)| Lane { place, rest }).collect();
        // The longest first: what is left for few lanes at the end is short.
        waiting.sort_unstable_by_key(|lane| Reverse(lane.rest.len()));
        let mut waiting = waiting.into_iter();
        let (mut lanes, mut states) = (Vec::with_capacity(self.count), Vec::with_capacity(self.count));
        let mut end = |Lane { place, rest }: Lane<'_>, mut state: Sha256| {
            state.update(rest);
            if let Some(place) = ended.get_mut(place) {
                *place = state;
            }
        };
        loop {
            while lanes.len() < self.count
                && let Some(lane) = waiting.next()
            {
                lanes.push(lane);
                states.push(Sha256::new());
            }
            if lanes.len() < self.worth.max(1) {
                lanes.into_iter().zip(states).for_each(|(lane, state)| end(lane, state));
                return Ok(());
            }
            // As far as all of them go.
            let shortest = lanes.iter().map(|lane| lane.rest.len()).min().unwrap_or_default();
            let together = shortest / BLOCK * BLOCK;
            if together > 0 {
                let part = |at: usize| lanes.get(at).and_then(|l| l.rest.get(..together)).unwrap_or_default();
                sha256_multistate_update_by(&mut states, part)?;
            }
            let mut at = 0;
            while let Some(lane) = lanes.get_mut(at) {
                lane.rest = lane.rest.get(together..).unwrap_or_default();
                if lane.rest.len() < BLOCK {
                    end(lanes.swap_remove(at), states.swap_remove(at));
                } else {
                    at += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    fn check(lanes: Lanes, messages: &[Vec<u8>]) {
        let slices: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
        let expected: Vec<Digest> = messages.iter().map(|m| Digest(sha2::Sha256::digest(m).into())).collect();
        assert_eq!(lanes.digests(&slices), expected, "{lanes:?}");
    }

    /// Contents in which every byte tells its place.
    fn message(length: usize, seed: usize) -> Vec<u8> {
        (0..length).map(|i| (i.wrapping_mul(31) ^ seed.wrapping_mul(131) ^ (i >> 8)) as u8).collect()
    }

    /// Every length up to some blocks, beside others, in every number of lanes.
    #[test]
    fn lengths_and_numbers() {
        for (count, worth) in [(16, 7), (16, 1), (8, 3), (1, 1), (64, 40)] {
            let lanes = Lanes { count, worth };
            check(lanes, &[]);
            for length in 0..200 {
                check(lanes, &(0..20).map(|n| message(length + n * 7 % 3, n)).collect::<Vec<_>>());
            }
            for number in 1..40 {
                check(lanes, &(0..number).map(|n| message(n * n * 13 % 900, n)).collect::<Vec<_>>());
            }
        }
    }

    /// What each message ends with counts, whichever lane it is in.
    #[test]
    fn no_byte_is_left_out() {
        let lanes = Lanes { count: 16, worth: 7 };
        let messages: Vec<Vec<u8>> = (0..17).map(|n| message(150 + n, n)).collect();
        let digests =
            |messages: &[Vec<u8>]| lanes.digests(&messages.iter().map(Vec::as_slice).collect::<Vec<_>>());
        let before = digests(&messages);
        for place in 0..messages.len() {
            for byte in [0, 63, 64, 127, 128, messages[place].len() - 1] {
                let mut changed = messages.clone();
                changed[place][byte] ^= 1;
                let differing: Vec<usize> = (digests(&changed).iter().zip(&before).enumerate())
                    .filter_map(|(n, (now, before))| (now != before).then_some(n))
                    .collect();
                assert_eq!(differing, [place], "byte {byte}");
            }
        }
    }

    proptest! {
        #[test]
        fn what_sha2_says(
            messages in vec(prop_oneof![vec(any::<u8>(), 0..300), vec(any::<u8>(), 0..20_000)], 0..70),
            worth in 1..17_usize,
        ) {
            check(Lanes { count: 16, worth }, &messages);
        }
    }
}
