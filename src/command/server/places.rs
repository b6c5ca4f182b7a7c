//! The places for connections of one listener.
//!
//! When all are taken, some more connections are accepted at an address that answers for the
//! server's health: a load balancer must not take a busy server for a dead one. They can ask only
//! for that, and the oldest that asks nothing makes way for a new one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::AbortHandle;

use super::connection::Progress;
use crate::planted::{Planted, planted};

/// Connections beyond the limit that may ask for the server's health.
pub(super) const SPARE_CONNECTIONS: usize = 32;

/// The places of one listener.
#[derive(Clone)]
pub(super) struct Places {
    ordinary: Arc<Semaphore>,
    spare: Option<Arc<Mutex<Spare>>>,
}

/// The connections beyond the limit, the oldest first, and their tasks.
type Spare = VecDeque<(Progress, AbortHandle)>;

/// The place of one connection.
pub(super) enum Place {
    Ordinary(#[expect(dead_code, reason = "held as long as the connection")] OwnedSemaphorePermit),
    /// Only the server's health can be asked for.
    Spare,
}

impl Places {
    pub(super) fn new(max_connections: usize, has_spare: bool) -> Places {
        let ordinary = match planted(Planted::AnyConnections) {
            true => Semaphore::MAX_PERMITS,
            false => max_connections,
        };
        Places {
            ordinary: Arc::new(Semaphore::new(ordinary)),
            spare: (has_spare && !planted(Planted::NoSparePlaces)).then(Arc::default),
        }
    }

    /// A place for a connection. Without spare ones this waits; then later connections wait in the
    /// system's queue. None if there are no places any more.
    pub(super) async fn take(&self) -> Option<Place> {
        match (self.ordinary_now(), &self.spare) {
            (Some(place), _) => Some(place),
            (None, Some(_)) => Some(Place::Spare),
            (None, None) => {
                let place = Arc::clone(&self.ordinary).acquire_owned().await;
                place.ok().map(Place::Ordinary)
            }
        }
    }

    /// An ordinary place, if there is one.
    pub(super) fn ordinary_now(&self) -> Option<Place> {
        let place = Arc::clone(&self.ordinary).try_acquire_owned();
        place.ok().map(Place::Ordinary)
    }

    fn spare(&self) -> Option<MutexGuard<'_, Spare>> {
        let spare = self.spare.as_ref()?;
        Some(spare.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Puts a connection, run by this task, in a spare place. If there is none, the oldest
    /// connection without a request makes way, or else the oldest.
    pub(super) fn take_spare(&self, progress: Progress, task: AbortHandle) {
        let Some(mut spare) = self.spare() else { return };
        // A connection may have ended before it got here.
        spare.retain(|(_, task)| !task.is_finished());
        if spare.len() >= SPARE_CONNECTIONS {
            let silent = spare.iter().position(|(progress, _)| !progress.has_begun());
            if let Some((_, oldest)) = spare.remove(silent.unwrap_or(0)) {
                oldest.abort();
            }
        }
        spare.push_back((progress, task));
    }

    /// Gives a spare place back, if the connection has one.
    pub(super) fn leave_spare(&self, progress: &Progress) {
        if let Some(mut spare) = self.spare() {
            spare.retain(|(other, _)| !other.is(progress));
        }
    }
}
