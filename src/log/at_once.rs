//! Writes that wait for nothing.

use super::append::Room;
use super::commit::PENDING_MAX_BYTES;
use super::{Guard, Log};
use crate::error::Result;
use crate::options::Durability;
use crate::planted::{Planted, planted};

/// Attempts to get the writer lock before it counts as taken: about as long as another writer needs
/// to append a small record.
const ATTEMPTS: u32 = if cfg!(shuttle) { 1 } else { 100 };

impl Log {
    /// The writer lock, if a write of this class that needs this room will wait for nothing once it
    /// has the lock: it finds room in the active segment, and [`Log::commit`] acknowledges it
    /// without a call to the system. None if others hold the lock for longer than a small record
    /// takes, or if anything has to be done before or after; errors come from a write that may
    /// wait.
    pub(crate) fn lock_at_once(&self, room: Room, durability: Durability) -> Option<Guard<'_>> {
        if self.reserve.keeps_from(room.part) || durability == Durability::Os && self.ring.is_wanted() {
            return None;
        }
        let guard = self.try_lock_for_a_moment()?;
        let waits = !self.acknowledges_at_once(&guard, room, durability) && !planted(Planted::WaitInPoll);
        (self.is_ready(&guard, room) && !waits).then_some(guard)
    }

    fn try_lock_for_a_moment(&self) -> Option<Guard<'_>> {
        for _ in 0..ATTEMPTS {
            if let Some(guard) = self.commit.try_lock() {
                return Some(guard);
            }
            std::hint::spin_loop();
        }
        None
    }

    fn acknowledges_at_once(&self, guard: &Guard<'_>, room: Room, durability: Durability) -> bool {
        let pending = guard.tail.pending_bytes() + room.bytes;
        match durability {
            Durability::Sync => false,
            Durability::Os => {
                let is_linked = |active: &super::active::Active| active.file.check_linked().is_ok();
                guard.tail.ring_has_room(pending, guard.writing)
                    && !self.reserve.is_full()
                    && guard.tail.active.as_ref().is_some_and(is_linked)
            }
            Durability::Buffered => pending < PENDING_MAX_BYTES || guard.writing,
        }
    }

    /// Makes everything up to this sequence durable; it was acknowledged with a weaker class.
    pub(crate) fn sync_acknowledged(&self, sequence: u64) -> Result<()> {
        self.with_part_of_ring(|| self.commit(self.lock(), Durability::Sync, sequence))
    }
}
