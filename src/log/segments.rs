//! Views of the whole log while it is in use: what a checkpoint copies, and what verify reads.

use std::sync::Arc;

use super::Log;
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SegmentState};
use crate::location::segment_index;
use crate::planted::{Planted, planted};
use crate::segment::Segment;

/// All segments at one moment.
pub(crate) struct AllSegments {
    /// Segments that no longer grow, by ascending id.
    pub(crate) ended: Vec<Arc<Segment>>,
    /// The active segment, those rotated out but not sealed yet, and those that recovery has found
    /// and of which the ring has a part.
    pub(crate) growing: Vec<GrowingSegment>,
}

/// A segment without a seal.
pub(crate) struct GrowingSegment {
    pub(crate) segment: Arc<Segment>,
    /// Bytes in its file.
    pub(crate) written: u64,
    /// Bytes in all.
    pub(crate) end: u64,
}

impl Log {
    /// All live segments. No record and no batch extends past the ends.
    pub(crate) fn all_segments(&self) -> AllSegments {
        // Appending and replacing a segment by its sealed form happen under this lock.
        let guard = self.lock();
        let mut growing: Vec<_> = guard
            .tail
            .sealing
            .iter()
            .map(|rotated| {
                let end = rotated.summary.data_end;
                GrowingSegment {
                    segment: rotated.segment.clone(),
                    written: end,
                    end,
                }
            })
            .collect();
        growing.extend(guard.tail.active.as_ref().map(|active| GrowingSegment {
            segment: active.segment.clone(),
            written: active.written,
            end: active.appender.len() as u64,
        }));
        let unsealed = guard.tail.unrecovered.iter().flat_map(|found| &found.unsealed);
        growing.extend(unsealed.filter_map(|unsealed| {
            let segment = self.state.segments.get(segment_index(unsealed.id))?;
            Some(GrowingSegment {
                written: unsealed.file_end?,
                end: segment.data_end(),
                segment,
            })
        }));
        let ended = self
            .state
            .segments
            .all()
            .into_iter()
            .filter(|segment| segment.summary.is_some())
            .collect();
        AllSegments { ended, growing }
    }

    /// Seals everything acknowledged so far, and returns a manifest of all sealed segments, with
    /// the highest sequence they cover: every record up to it is in these segments, or a newer one
    /// of its key or namespace is; no record past it is.
    ///
    /// The caller holds `compaction.running`, and has held it since before this call. See
    /// `engine::checkpoint` for why.
    pub(crate) fn sealed_prefix(&self) -> Result<(Manifest, u64)> {
        let guard = self.lock();
        guard.check_open()?;
        if guard.tail.is_recovering() {
            // Until recovery finishes, records in the open segments are not known to be durable,
            // and nothing can be sealed after them.
            return Err(Error::NoSpace {
                path: self.context.path().to_owned(),
            });
        }
        let acknowledged = guard.last_sequence;
        drop(guard);
        if !planted(Planted::CopyWithoutActive) {
            self.retire_active()?;
            self.seal_all()?;
        }
        let floors = self.floors(&self.lock());
        let mut manifest = self.manifest.current();
        manifest.segments.retain(|entry| !entry.state.is_open());
        // What the ring has continues open segments only.
        manifest.ring_bytes = 0;
        manifest.next_sequence = manifest.next_sequence.max(floors.next_sequence);
        manifest.next_namespace = manifest.next_namespace.max(floors.next_namespace);
        let summaries = manifest.segments.iter().filter_map(|entry| match entry.state {
            SegmentState::Sealed(summary) | SegmentState::Cut(summary) => Some(summary),
            SegmentState::Open => None,
        });
        let last = summaries
            .map(|summary| summary.max_sequence)
            .fold(acknowledged, u64::max);
        Ok((manifest, last))
    }
}
