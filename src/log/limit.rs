//! The store's own limit of disk space, [`Options::max_disk_bytes`](crate::Options::max_disk_bytes).
//!
//! A segment counts in full when it is started, so the check is made there. What puts must leave is
//! enough for a background run of compaction, besides the reserve; deletes may use a segment of
//! that, and on a full disk a run takes no more than the rest.

use super::Log;
use super::append::Room;
use super::reserve::ReservePart;
use crate::error::{Error, Result};
use crate::format::hint::Hint;
use crate::planted::{Planted, planted};

impl Log {
    /// Bytes of the files: segments, hints and the reserve.
    pub(crate) fn used_bytes(&self) -> u64 {
        let mut bytes = self.reserve.bytes();
        self.state.segments.for_each(|segment| {
            let counts = segment.counters.get();
            bytes += segment.data_end() + Hint::len(counts.puts + counts.tombstones);
        });
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
            ReservePart::None => 2 * self.reserve.bytes(),
            ReservePart::Tombstones => 0,
            ReservePart::Whole => return true,
        };
        let wanted = self.used_bytes() + self.segment_bytes().max(length) + kept;
        wanted <= limit_bytes || planted(Planted::IgnoreLimit)
    }

    /// Whether puts that need another segment are refused.
    pub(crate) fn is_at_limit(&self) -> bool {
        let limit_bytes = self.context.options.max_disk_bytes;
        limit_bytes.is_some_and(|limit_bytes| !self.fits(limit_bytes, ReservePart::None, 0))
    }
}
