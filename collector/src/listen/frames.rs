//! Room for large frames while they are received: in all, and for one identity.
//!
//! **Owns** who waits for whom. **Does not own** which frames need room, or for how long one may hold it
//! (`serve.rs`).
//!
//! An identity holds at most a quarter of the room. Its further frames wait for its own, not for the others':
//! they stand before nobody else.

use std::sync::{Arc, Mutex, PoisonError, Weak};

use hashbrown::HashMap;
use tidemark_common::tls::AgentName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Into so many parts the room is divided; an identity may hold one.
const PARTS: u32 = 4;

/// The room of all sessions.
#[derive(Debug)]
pub(super) struct FrameRoom {
    bytes_max: u32,
    all: Arc<Semaphore>,
    /// Of the identities that have sessions. The others are left out once in a while.
    shares: Mutex<HashMap<AgentName, Weak<Semaphore>>>,
}

/// The room that the sessions of one identity may take.
#[derive(Debug, Clone)]
pub(super) struct Share {
    bytes_max: u32,
    all: Arc<Semaphore>,
    own: Arc<Semaphore>,
}

/// Room for a frame, until it is dropped.
#[derive(Debug)]
pub(super) struct FramePlace {
    _own: OwnedSemaphorePermit,
    _all: OwnedSemaphorePermit,
}

impl FrameRoom {
    pub(super) fn new(bytes_max: u32) -> Self {
        let shares = Mutex::default();
        Self { bytes_max, all: Arc::new(Semaphore::new(permits(bytes_max))), shares }
    }

    pub(super) fn share_of(&self, agent: &AgentName) -> Share {
        let (bytes_max, all) = (self.bytes_max, Arc::clone(&self.all));
        let mut shares = self.shares.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = shares.get(agent).and_then(Weak::upgrade) {
            return Share { bytes_max, all, own };
        }
        if shares.len() == shares.capacity() {
            shares.retain(|_, share| share.strong_count() > 0);
        }
        let own = Arc::new(Semaphore::new(permits(part_of(bytes_max))));
        shares.insert(agent.clone(), Arc::downgrade(&own));
        Share { bytes_max, all, own }
    }

    /// Whether another frame, however large, finds room: then none waits for anybody but its own identity.
    pub(super) fn is_ample(&self) -> bool {
        self.bytes_free() >= permits(part_of(self.bytes_max))
    }

    pub(super) fn bytes_free(&self) -> usize {
        self.all.available_permits()
    }
}

impl Share {
    /// Waits for room for `bytes`; for all of it, if that is more than there is.
    pub(super) fn place(&self, bytes: usize) -> impl Future<Output = FramePlace> + Send + 'static {
        let Self { bytes_max, all, own } = self.clone();
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        async move {
            let own = own.acquire_many_owned(bytes.min(part_of(bytes_max))).await;
            let all = all.acquire_many_owned(bytes.min(bytes_max)).await;
            let open = "nobody closes it";
            FramePlace { _own: own.expect(open), _all: all.expect(open) }
        }
    }
}

fn part_of(bytes_max: u32) -> u32 {
    bytes_max.checked_div(PARTS).unwrap_or(bytes_max)
}

fn permits(bytes: u32) -> usize {
    usize::try_from(bytes).unwrap_or(Semaphore::MAX_PERMITS)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agent(number: usize) -> AgentName {
        AgentName::parse(&format!("till-{number}")).unwrap()
    }

    #[tokio::test]
    async fn an_identity_waits_for_its_own_frames_only() {
        let room = FrameRoom::new(400);
        let (first, second) = (room.share_of(&agent(1)), room.share_of(&agent(2)));
        let held = first.place(100).await;
        let mut waiting = Box::pin(room.share_of(&agent(1)).place(1));
        assert!(poll_once(&mut waiting).is_none());
        drop(second.place(100).await);
        assert_eq!(room.bytes_free(), 300, "who waits holds nothing");
        assert!(room.is_ample());
        drop(held);
        assert!(poll_once(&mut waiting).is_some());
    }

    #[tokio::test]
    async fn nothing_is_kept_of_those_that_left() {
        let room = FrameRoom::new(400);
        let stays = room.share_of(&agent(0));
        for number in 1..10_000 {
            drop(room.share_of(&agent(number)).place(10).await);
        }
        assert!(room.shares.lock().unwrap().len() < 16);
        assert!(Arc::ptr_eq(&room.share_of(&agent(0)).own, &stays.own));
    }

    fn poll_once<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::Pin::new(future).poll(&mut context) {
            std::task::Poll::Ready(done) => Some(done),
            std::task::Poll::Pending => None,
        }
    }
}
