//! Who holds a place at a stream door, and who has to make room.
//!
//! A connection may be silent for as long as it likes: a client that sends once a day is a good client. But when
//! every place is taken and another client comes, the one that has been silent longest leaves, if that is at
//! least [`SILENT_MIN`]. So clients that hold places without sending keep nobody out.
//!
//! **Owns** the number of places and who leaves. **Does not own** how a connection ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// Whoever has sent something within this time is not asked to leave.
pub const SILENT_MIN: Duration = Duration::from_secs(60);
/// A connection that is asked to leave has left within this, as a rule.
const LEAVING_MAX: Duration = Duration::from_secs(1);

/// The places of one door.
#[derive(Debug)]
pub(super) struct Places {
    free: Arc<Semaphore>,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    next: u64,
    by: BTreeMap<u64, Arc<Silence>>,
}

/// Since when a connection waits for its client.
#[derive(Debug, Default)]
struct Silence {
    /// `None` while it is busy with what came.
    since: Mutex<Option<Instant>>,
    leave: Notify,
}

impl Silence {
    fn since(&self) -> MutexGuard<'_, Option<Instant>> {
        self.since.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place, until this is dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    number: u64,
    silence: Arc<Silence>,
    _permit: OwnedSemaphorePermit,
}

impl Places {
    pub(super) fn new(places: usize) -> Arc<Self> {
        Arc::new(Self { free: Arc::new(Semaphore::new(places)), held: Mutex::default() })
    }

    /// A place; if none is free, that of whoever has been silent longest, once that one has left. `None` if all
    /// are in use.
    pub(super) async fn take(self: &Arc<Self>) -> Option<Place> {
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(self.place(permit));
        }
        if !self.make_room() {
            return None;
        }
        let permit =
            timeout(LEAVING_MAX, Arc::clone(&self.free).acquire_owned()).await.ok()?.ok()?;
        Some(self.place(permit))
    }

    fn place(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Place {
        let silence = Arc::new(Silence::default());
        let mut held = self.held();
        let number = held.next;
        held.next = number.saturating_add(1);
        held.by.insert(number, Arc::clone(&silence));
        Place { places: Arc::clone(self), number, silence, _permit: permit }
    }

    /// Asks the connection that has been silent longest to leave, if that is long enough.
    fn make_room(&self) -> bool {
        let now = Instant::now();
        let held = self.held();
        let longest = held.by.values().filter_map(|silence| {
            let since = (*silence.since())?;
            Some((since, silence))
        });
        match longest.min_by_key(|(since, _)| *since) {
            Some((since, silence)) if now.duration_since(since) >= SILENT_MIN => {
                silence.leave.notify_one();
                true
            }
            Some(_) | None => false,
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// Nothing came yet, or all that came is dealt with.
    pub(super) fn waits(&self) {
        *self.silence.since() = Some(Instant::now());
    }

    pub(super) fn is_busy(&self) {
        *self.silence.since() = None;
    }

    /// Resolves when the place is needed by another client.
    pub(super) async fn must_leave(&self) {
        self.silence.leave.notified().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.held().by.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_longest_silent_one_makes_room_after_a_while() {
        let places = Places::new(2);
        let first = places.take().await.unwrap();
        let second = places.take().await.unwrap();
        first.is_busy();
        second.waits();
        assert!(places.take().await.is_none(), "nobody has been silent long enough");
        tokio::time::advance(SILENT_MIN).await;
        first.waits();
        let leaving = async {
            second.must_leave().await;
            drop(second);
        };
        let (taken, ()) = tokio::join!(places.take(), leaving);
        assert!(taken.is_some());
        assert!(places.take().await.is_none(), "the first has only just become silent");
        assert_eq!(places.held().by.len(), 2);
        drop((first, taken));
        assert_eq!(places.held().by.len(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_does_not_leave_keeps_its_place() {
        let places = Places::new(1);
        let stuck = places.take().await.unwrap();
        stuck.waits();
        tokio::time::advance(SILENT_MIN).await;
        assert!(places.take().await.is_none());
        drop(stuck);
        assert!(places.take().await.is_some());
    }
}
