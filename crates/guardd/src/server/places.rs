//! Who is connected, and who has to leave when there is no room.
//!
//! No user can take the places of another: each has a number of them, and where
//! they are full the one that has been idle longest leaves, so that a flood of
//! connections keeps out nobody, not even its own user.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use tokio::sync::Notify;

/// Connections of one user.
const OF_ONE: usize = 32;
/// Connections of everybody but the daemon's own user.
const OF_OTHERS: usize = 96;

/// All connections.
#[derive(Debug, Default)]
pub(super) struct Places {
    guests: Mutex<Guests>,
}

#[derive(Debug, Default)]
struct Guests {
    last: u64,
    by_number: BTreeMap<u64, Guest>,
}

#[derive(Debug)]
struct Guest {
    uid: u32,
    is_owner: bool,
    /// Since when it has asked for nothing; `None` while a call is answered.
    idle_since: Option<Instant>,
    leave: Arc<Notify>,
    leaves: bool,
}

/// One connection's place; free again when dropped.
#[derive(Debug)]
pub(super) struct Seat {
    places: Arc<Places>,
    number: u64,
    leave: Arc<Notify>,
}

impl Places {
    /// A place for a user. `None` where all are busy.
    pub(super) fn take(self: &Arc<Self>, uid: u32, is_owner: bool) -> Option<Seat> {
        let mut guests = self.lock();
        if guests.count(|g| g.uid == uid) >= OF_ONE {
            guests.send_away(|g| g.uid == uid)?;
        }
        if !is_owner && guests.count(|g| !g.is_owner) >= OF_OTHERS {
            let most = guests.most_numerous();
            guests.send_away(|g| Some(g.uid) == most)?;
        }
        let leave = Arc::<Notify>::default();
        guests.last += 1;
        let number = guests.last;
        let guest = Guest {
            uid,
            is_owner,
            idle_since: Some(Instant::now()),
            leave: Arc::clone(&leave),
            leaves: false,
        };
        guests.by_number.insert(number, guest);
        Some(Seat { places: Arc::clone(self), number, leave })
    }

    fn lock(&self) -> MutexGuard<'_, Guests> {
        self.guests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Guests {
    fn staying(&self) -> impl Iterator<Item = &Guest> {
        self.by_number.values().filter(|g| !g.leaves)
    }

    fn count(&self, of: impl Fn(&Guest) -> bool) -> usize {
        self.staying().filter(|g| of(g)).count()
    }

    /// The user other than the daemon's own with the most connections.
    fn most_numerous(&self) -> Option<u32> {
        let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
        for guest in self.staying().filter(|g| !g.is_owner) {
            *counts.entry(guest.uid).or_default() += 1;
        }
        counts.into_iter().max_by_key(|(_, n)| *n).map(|(uid, _)| uid)
    }

    /// Asks the longest idle of some to leave. `None` where all of them are busy.
    fn send_away(&mut self, of: impl Fn(&Guest) -> bool) -> Option<()> {
        let idle = self.by_number.values_mut().filter(|g| !g.leaves && g.idle_since.is_some() && of(g));
        let longest = idle.min_by_key(|g| g.idle_since)?;
        longest.leaves = true;
        longest.leave.notify_one();
        Some(())
    }
}

impl Seat {
    /// A call is being answered: nobody sends it away.
    pub(super) fn busy(&self) {
        self.set(None);
    }

    /// The next call is waited for.
    pub(super) fn idle(&self) {
        self.set(Some(Instant::now()));
    }

    /// Ends when this connection has to leave.
    pub(super) async fn sent_away(&self) {
        self.leave.notified().await;
    }

    fn set(&self, idle_since: Option<Instant>) {
        if let Some(guest) = self.places.lock().by_number.get_mut(&self.number) {
            guest.idle_since = idle_since;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.places.lock().by_number.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Waker};

    fn is_sent_away(seat: &Seat) -> bool {
        pin!(seat.sent_away()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[test]
    fn the_longest_idle_of_the_same_user_leaves() {
        let places = Arc::<Places>::default();
        let other = places.take(1, false).unwrap();
        let mut mine: Vec<Seat> = (0..OF_ONE).map(|_| places.take(2, false).unwrap()).collect();
        mine[0].busy();
        mine.push(places.take(2, false).unwrap());
        assert!(!is_sent_away(&other) && !is_sent_away(&mine[0]));
        assert!(is_sent_away(&mine[1]) && !is_sent_away(&mine[2]));
    }

    #[test]
    fn where_all_are_busy_there_is_no_room_for_that_user_alone() {
        let places = Arc::<Places>::default();
        let all: Vec<Seat> = (0..OF_ONE).map(|_| places.take(2, false).unwrap()).collect();
        all.iter().for_each(Seat::busy);
        assert!(places.take(2, false).is_none());
        assert!(places.take(3, false).is_some());
        drop(all);
        assert!(places.take(2, false).is_some());
    }

    #[test]
    fn many_users_together_leave_room_for_the_owner_and_for_each_other() {
        let places = Arc::<Places>::default();
        let crowd: Vec<Seat> =
            (0..OF_OTHERS).map(|n| places.take(10 + u32::try_from(n % 4).unwrap(), false).unwrap()).collect();
        let latecomer = places.take(99, false).unwrap();
        assert_eq!(crowd.iter().filter(|s| is_sent_away(s)).count(), 1);
        crowd.iter().for_each(Seat::busy);
        assert!(places.take(98, false).is_none());
        assert!(places.take(0, true).is_some());
        drop(latecomer);
    }
}
