//! Which backups may go. By number and never by clock: a clock that was set
//! forward and back must not make good backups look old.

use std::collections::BTreeSet;

use crate::time::Timestamp;

/// What is known of a backup's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Every byte was decrypted and compared, and nothing touched it since.
    Verified,
    /// Not looked at since it was written or touched.
    Unverified,
    /// It does not verify. It counts for nothing, and goes by its number like any other.
    Damaged,
}

/// One backup, as retention sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Kept {
    /// Its number.
    pub sequence: u64,
    /// When it says that it was made.
    pub at: Timestamp,
    /// Somebody wants it to stay.
    pub pinned: bool,
    /// What is known of it.
    pub proof: Proof,
}

/// What to do with the backups of an environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Pruning {
    /// These may go, oldest first; may be none.
    Go(Vec<u64>),
    /// Too many are there, and none may go: the newest that counts has not been verified.
    NewestNotVerified,
    /// Too many are there, and none goes by itself: the newest says that it is older than another.
    ClockWentBack,
}

/// How pruning came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// After a backup was made.
    ByItself,
    /// Somebody asked, who has seen the list: the clock is no reason to refuse.
    ByHand,
}

/// The last `keep` (at least 1) that are not damaged stay, and every pinned one, and everything
/// newer than those. The others go, if the newest that is not damaged was verified.
#[must_use]
pub fn prune(backups: &[Kept], keep: u32, asked: Asked) -> Pruning {
    let mut sorted: Vec<&Kept> = backups.iter().collect();
    sorted.sort_by_key(|b| std::cmp::Reverse(b.sequence));
    let sound: Vec<&Kept> = sorted.iter().copied().filter(|b| b.proof != Proof::Damaged).collect();
    let keep = usize::try_from(keep.max(1)).unwrap_or(usize::MAX);
    let (Some(newest), Some(oldest_kept)) = (sound.first(), sound.get(keep - 1)) else {
        return Pruning::Go(Vec::new());
    };
    let old: BTreeSet<u64> = sorted
        .iter()
        .filter(|b| !b.pinned && b.sequence < oldest_kept.sequence)
        .map(|b| b.sequence)
        .collect();
    if old.is_empty() {
        return Pruning::Go(Vec::new());
    }
    if newest.proof != Proof::Verified {
        return Pruning::NewestNotVerified;
    }
    if asked == Asked::ByItself && sound.iter().any(|b| b.at > newest.at) {
        return Pruning::ClockWentBack;
    }
    Pruning::Go(old.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn backups(n: u64) -> Vec<Kept> {
        (1..=n)
            .map(|sequence| Kept {
                sequence,
                at: Timestamp(i64::try_from(sequence).unwrap()),
                pinned: false,
                proof: Proof::Verified,
            })
            .collect()
    }

    #[test]
    fn the_last_ones_stay() {
        assert_eq!(prune(&backups(10), 10, Asked::ByItself), Pruning::Go(vec![]));
        assert_eq!(prune(&backups(12), 10, Asked::ByItself), Pruning::Go(vec![1, 2]));
        assert_eq!(prune(&[], 10, Asked::ByItself), Pruning::Go(vec![]));
    }

    #[test]
    fn pinned_ones_stay_and_do_not_push_others_out() {
        let mut b = backups(12);
        b[0].pinned = true;
        assert_eq!(prune(&b, 10, Asked::ByItself), Pruning::Go(vec![2]));
    }

    #[test]
    fn a_newer_one_must_verify_before_an_older_one_goes() {
        let mut b = backups(12);
        b[11].proof = Proof::Unverified;
        assert_eq!(prune(&b, 10, Asked::ByItself), Pruning::NewestNotVerified);
        assert_eq!(prune(&b, 10, Asked::ByHand), Pruning::NewestNotVerified);
    }

    #[test]
    fn damaged_ones_do_not_count() {
        let mut b = backups(12);
        b[11].proof = Proof::Damaged;
        b[5].proof = Proof::Damaged;
        assert_eq!(prune(&b, 10, Asked::ByItself), Pruning::Go(vec![]));
        assert_eq!(prune(&b, 9, Asked::ByItself), Pruning::Go(vec![1]));
    }

    #[test]
    fn a_clock_that_went_backwards_deletes_nothing() {
        let mut b = backups(12);
        b[11].at = Timestamp(3);
        assert_eq!(prune(&b, 10, Asked::ByItself), Pruning::ClockWentBack);
        assert_eq!(prune(&b, 10, Asked::ByHand), Pruning::Go(vec![1, 2]));
    }

    proptest! {
        #[test]
        fn never_too_many(
            facts in prop::collection::vec((any::<bool>(), 0u8..3, 0i64..9), 0..40),
            keep in 0u32..15,
            by_hand: bool,
        ) {
            let all: Vec<Kept> = (1u64..).zip(&facts).map(|(sequence, (pinned, proof, at))| Kept {
                sequence,
                at: Timestamp(*at),
                pinned: *pinned,
                proof: [Proof::Verified, Proof::Unverified, Proof::Damaged][usize::from(*proof)],
            }).collect();
            let asked = if by_hand { Asked::ByHand } else { Asked::ByItself };
            if let Pruning::Go(gone) = prune(&all, keep, asked) {
                let gone: BTreeSet<u64> = gone.into_iter().collect();
                let sound = all.iter().filter(|b| b.proof != Proof::Damaged);
                let left = sound.clone().filter(|b| !gone.contains(&b.sequence)).count();
                prop_assert!(left >= sound.clone().count().min(keep.max(1) as usize));
                prop_assert!(all.iter().all(|b| !(b.pinned && gone.contains(&b.sequence))));
                let newest = sound.map(|b| (b.sequence, b.proof)).max_by_key(|b| b.0);
                prop_assert!(gone.is_empty() || newest.unwrap().1 == Proof::Verified);
            }
        }
    }
}
