//! Records that recovery found but does not know to be durable: they may be only in the page cache.
//! They are copied into a new segment, which is synced and sealed; then one manifest replaces their
//! old segments by it. Until then nothing is acknowledged on top of them.
//!
//! This is one atomic step: it can be interrupted anywhere and repeated. If there is no room for
//! it, reads still work, and the first write tries again.

use std::sync::Arc;

use super::manifest::ReplaceError;
use super::segment_files::Ended;
use super::segment_writer::{Finished, SegmentWriter, sealed_entries};
use super::{Guard, Log};
use crate::error::Result;
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::segment::Summary;
use crate::location::segment_index;
use crate::segment::scan::Scanner;
use crate::segment::{Counters, Segment};
use crate::state::Move;

/// Valid records that are still where they were found.
#[derive(Debug, Default)]
pub(crate) struct Unrecovered {
    /// Segments listed as open, in log order. A seal found in one is not relied on: it may be only
    /// in the page cache, and gone after the next crash.
    pub(crate) unsealed: Vec<Unsealed>,
    /// Listed segments without any record that counts.
    pub(crate) dropped: Vec<u64>,
}

#[derive(Debug)]
pub(crate) struct Unsealed {
    pub(crate) id: u64,
    /// Account of the part known to be durable; None if that part has no record of a key.
    pub(crate) durable: Option<Summary>,
    /// Where its file ends, if the ring goes on with it: then all of it is in memory.
    pub(crate) file_end: Option<u64>,
}

impl Unrecovered {
    /// Changes the manifest once `outputs` hold everything not known to be durable.
    fn change(&self, manifest: &mut Manifest, outputs: &[Arc<Segment>]) {
        manifest.segments.retain_mut(|entry| {
            if self.dropped.contains(&entry.id) {
                return false;
            }
            match self.unsealed.iter().find(|unsealed| unsealed.id == entry.id) {
                None => true,
                Some(unsealed) => match unsealed.durable {
                    None => false,
                    Some(durable) => {
                        entry.state = SegmentState::Cut(durable);
                        true
                    }
                },
            }
        });
        manifest.segments.extend(sealed_entries(outputs));
    }
}

impl Log {
    /// Copies what is not known to be durable, and records in the manifest where the log ended.
    /// Returns the bytes written. On an error nothing has changed, and it can be retried.
    pub(crate) fn finish_recovery(&self, guard: &mut Guard<'_>) -> Result<u64> {
        let Some(unrecovered) = &guard.tail.unrecovered else {
            return Ok(0);
        };
        // Opened first, since nothing may fail once the manifest is replaced.
        let cut = self.cut_segments(unrecovered)?;
        let (finished, moves) = self.copy_unrecovered(unrecovered)?;
        let Finished {
            segments: outputs,
            written_bytes,
            // Both are held until the indexes point only into the new segments.
            ids: _new_ids,
        } = finished;
        let _old_ids = self
            .manifest
            .hold_ids(unrecovered.unsealed.iter().map(|unsealed| unsealed.id));
        let floors = self.floors(guard);
        let updated = self
            .manifest
            .update_with_ring(floors, 0, |manifest| unrecovered.change(manifest, &outputs));
        match updated {
            Ok(()) => {}
            Err(ReplaceError::Unchanged(error)) => {
                outputs.iter().for_each(|segment| self.files.remove(segment.id()));
                return Err(error);
            }
            Err(ReplaceError::Unknown(error)) => {
                self.poison(guard, &error);
                return Err(error);
            }
        }
        let Some(unrecovered) = guard.tail.unrecovered.take() else {
            return Ok(written_bytes);
        };
        let state = &self.state;
        let right = &state.lock_changes();
        outputs.into_iter().for_each(|segment| state.segments.set(segment));
        state.relocate(right, &moves);
        for (old, segment) in cut {
            state.replace_cut(right, &old, segment);
        }
        for unsealed in unrecovered
            .unsealed
            .iter()
            .filter(|unsealed| unsealed.durable.is_none())
        {
            state.segments.remove(segment_index(unsealed.id));
            self.files.remove(unsealed.id);
        }
        unrecovered.dropped.iter().for_each(|id| self.files.remove(*id));
        Ok(written_bytes)
    }

    /// Each segment with a durable part: as it was found, and as it is once cut after that part.
    fn cut_segments(&self, unrecovered: &Unrecovered) -> Result<Vec<(Arc<Segment>, Arc<Segment>)>> {
        let mut cut = Vec::new();
        for unsealed in &unrecovered.unsealed {
            let old = self.state.segments.get(segment_index(unsealed.id));
            if let (Some(old), Some(summary)) = (old, unsealed.durable) {
                let file = self.files.open(unsealed.id)?;
                let ended = Ended {
                    header: old.header,
                    summary,
                    cut: true,
                };
                let segment = self.files.readable(&ended, file, Arc::new(Counters::of(&summary)))?;
                cut.push((old, segment));
            }
        }
        Ok(cut)
    }

    /// Copies what is not known to be durable; returns the new segments, and what was moved.
    fn copy_unrecovered(&self, unrecovered: &Unrecovered) -> Result<(Finished, Vec<Move>)> {
        // It is not known when those that are dead died.
        let mut writer = SegmentWriter::new(self, 0);
        let mut moves = Vec::new();
        for unsealed in &unrecovered.unsealed {
            let Some(segment) = self.state.segments.get(segment_index(unsealed.id)) else {
                continue;
            };
            let durable_end = unsealed.durable.map_or(0, |durable| durable.data_end);
            if let Err(error) = self.copy_beyond(&segment, durable_end, &mut writer, &mut moves) {
                writer.discard();
                return Err(error);
            }
        }
        Ok((writer.finish()?, moves))
    }

    /// Copies all records at or past an offset.
    fn copy_beyond(
        &self,
        segment: &Segment,
        offset: u64,
        writer: &mut SegmentWriter<'_>,
        moves: &mut Vec<Move>,
    ) -> Result<()> {
        let mut scratch = Vec::new();
        let bytes = segment
            .all_bytes(&mut scratch)
            .map_err(|error| self.context.read_error(segment.id(), 0, error))?;
        let mut scanner = Scanner::new(bytes, segment.header);
        while let Ok(found) = scanner.next() {
            if found.offset >= offset {
                let to = writer.copy(&found.record)?;
                if found.record.header.kind.is_put() {
                    let hash = self.state.hash(found.record.header.namespace, found.record.key());
                    let from = segment.location(found.offset);
                    moves.push(Move::new(hash, &found.record.header, from, to));
                }
            }
        }
        Ok(())
    }

    /// Replaces maps of segments that still have to be copied by reads: their files will be cut one
    /// day, and no value may refer to the part cut off. Those of which the ring had a part are in
    /// memory.
    pub(crate) fn read_unrecovered_without_maps(&self, guard: &Guard<'_>) -> Result<()> {
        for unsealed in guard.tail.unrecovered.iter().flat_map(|found| &found.unsealed) {
            let found = self.state.segments.get(segment_index(unsealed.id));
            if let Some((segment, summary)) = found.and_then(|segment| Some((segment.clone(), segment.summary?))) {
                let file = self.files.open(unsealed.id)?;
                let ended = Ended {
                    header: segment.header,
                    summary,
                    cut: true,
                };
                let unmapped = self.files.unmapped(&ended, file, segment.counters.clone());
                self.state.segments.set(unmapped);
            }
        }
        Ok(())
    }
}
