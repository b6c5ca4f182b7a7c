//! The store's own limit of disk space,
//! [`Options::max_disk_bytes`](crate::Options::max_disk_bytes).
//!
//! A segment counts in full when it is started, so the check is made there. What puts must leave is
//! enough for a background run of compaction, besides the reserve; deletes may use a segment of
//! that, and on a full disk a run takes no more than the rest.

use super::Log;
use super::append::Room;
use super::reserve::ReservePart;
use crate::error::{Error, Result};
use crate::planted::{Planted, planted};

impl Log {
    /// Bytes of the files: segments, hints, the reserve and the ring.
    pub(crate) fn used_bytes(&self) -> u64 {
        let mut bytes = self.reserve.bytes() + u64::from(self.manifest.ring_bytes());
        self.state.segments.for_each(|segment| bytes += segment.disk_bytes());
        bytes
    }

    /// An error if the limit forbids this write to start another segment.
    pub(super) fn check_limit(&self, room: Room) -> Result<()> {
        match self.context.options.max_disk_bytes {
            Some(limit_bytes) if room.limited && !self.fits(limit_bytes, room.part, room.bytes) => {
                Err(Error::LimitReached {
                    path: self.context.path().to_owned(),
                    limit_bytes,
                })
            }
            _ => Ok(()),
        }
    }

    /// Whether another segment, with room for `length` bytes, fits under the limit.
    fn fits(&self, limit_bytes: u64, part: ReservePart, length: u64) -> bool {
        let kept = match part {
            ReservePart::None => 2 * self.reserve.bytes_for_compaction(),
            ReservePart::Tombstones => 0,
            ReservePart::Whole | ReservePart::Acknowledged | ReservePart::All => return true,
        };
        let wanted = self.used_bytes() + self.segment_bytes().max(length) + kept;
        wanted <= limit_bytes || planted(Planted::IgnoreLimit)
    }

    /// Whether a ring of this length, and its part of the reserve, leave puts their room.
    pub(super) fn has_room_for_ring(&self, length: u64) -> bool {
        let with_ring = |limit_bytes: u64| limit_bytes.saturating_sub(2 * length);
        let limit_bytes = self.context.options.max_disk_bytes.map(with_ring);
        limit_bytes.is_none_or(|limit_bytes| self.fits(limit_bytes, ReservePart::None, 0))
    }

    /// Whether puts that need another segment are refused.
    pub(crate) fn is_at_limit(&self) -> bool {
        let limit_bytes = self.context.options.max_disk_bytes;
        limit_bytes.is_some_and(|limit_bytes| !self.fits(limit_bytes, ReservePart::None, 0))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::format::segment::SEAL_LEN;
    use crate::format::{hint_file, segment_file};
    use crate::storage::MemStorage;
    use crate::{Maintenance, Store};

    #[test]
    fn a_segment_counts_what_its_files_take_but_for_the_seal() {
        let disk = MemStorage::new();
        let options = Store::options().maintenance(Maintenance::Manual);
        let store = options.storage(Arc::new(disk.clone())).open("/store").unwrap();
        let namespace = store.namespace("N").unwrap();
        for n in 0..100 {
            namespace.put(format!("{n}"), [7; 100]).unwrap();
        }
        let log = &store.engine().log;
        let end_segment = || {
            store.end_segment();
        };
        end_segment();
        (0..50).for_each(|n| assert!(namespace.delete(format!("{n}")).unwrap().existed));
        end_segment();
        let length = |name: String| disk.read_file(format!("/store/{name}")).unwrap().len() as u64;
        let mut sealed_bytes = 0;
        for segment in log.state.segments.all() {
            let on_disk = length(segment_file(segment.id())) + length(hint_file(segment.id()));
            let seal = on_disk - segment.disk_bytes();
            assert_eq!(seal, SEAL_LEN);
            sealed_bytes += segment.disk_bytes();
        }
        assert!(sealed_bytes > 15_000);
        assert_eq!(log.used_bytes(), log.reserve.bytes() + sealed_bytes);
    }
}
