//! The second reading of the inputs of a run: moves the index entries that still point into them.

use std::sync::Arc;

use super::merge::{Again, Decision, Decisions, Loaded, Merge, Step};
use super::run::Run;
use crate::error::{Error, Result};
use crate::format::Damage;
use crate::format::segment::SEGMENT_HEADER_LEN;
use crate::location::Location;
use crate::log::segment_writer::tombstone_header;
use crate::planted::{Planted, planted};
use crate::segment::scan::Found;
use crate::segment::{SealedSegment, Segment};
use crate::state::Move;

/// Index entries moved per hold of the writer lock.
const MOVES_STEP: usize = 64;

/// Where the copies of a run are, in the order in which they were written.
pub(super) struct Places<'a> {
    segments: std::slice::Iter<'a, Arc<Segment>>,
    current: Option<&'a Arc<Segment>>,
    offset: u64,
}

impl<'a> Places<'a> {
    pub(super) fn of(segments: &'a [Arc<Segment>]) -> Places<'a> {
        let mut segments = segments.iter();
        Places {
            current: segments.next(),
            segments,
            offset: SEGMENT_HEADER_LEN,
        }
    }

    /// Where the next copy is, given its length.
    fn next(&mut self, length: u64) -> Option<Location> {
        if self.offset >= self.current?.data_end() {
            self.current = self.segments.next();
            self.offset = SEGMENT_HEADER_LEN;
        }
        let location = self.current?.location(self.offset);
        self.offset += length;
        Some(location)
    }
}

impl Run<'_> {
    /// Moves the index entries that still point into the inputs.
    pub(super) fn relocate(
        &self,
        loaded: &[Loaded<'_>],
        decisions: &Decisions,
        mut kept: Places<'_>,
        mut lingering: Places<'_>,
    ) -> Result<()> {
        let mut merge = Merge::<Again<'_>>::new(loaded);
        let mut moves = Vec::with_capacity(MOVES_STEP);
        for decision in decisions.iter() {
            let (input, Found { offset, record }) = match merge.next() {
                Some(Step::Record(loaded, found)) => (loaded.input, found),
                Some(Step::Damaged { input, offset, damage }) => {
                    return Err(self.stop_half_moved(input.input, offset, damage));
                }
                None => break,
            };
            let header = &record.header;
            let to = match decision {
                Decision::Dropped => continue,
                Decision::Copied => kept.next(header.record_len()),
                Decision::CopiedExpired => lingering.next(header.record_len()),
                Decision::Buried => {
                    let tombstone = tombstone_header(header.namespace, record.key(), header.sequence);
                    kept.next(tombstone.record_len());
                    continue;
                }
            };
            if let Some(to) = to.filter(|_| header.kind.is_put()) {
                let hash = self.compactor.state.hash(header.namespace, record.key());
                moves.push(Move::new(hash, header, input.location(offset), to));
            }
            if moves.len() == MOVES_STEP {
                self.relocate_step(&mut moves);
            }
        }
        self.relocate_step(&mut moves);
        Ok(())
    }

    fn relocate_step(&self, moves: &mut Vec<Move>) {
        let mut guard = self.compactor.log.lock();
        let state = &self.compactor.state;
        // What is settled in between would note the old locations.
        let right = state.lock_changes();
        if !planted(Planted::ForgetPending) {
            guard.tail.forward(moves);
        }
        state.relocate(&right, moves);
        drop((right, guard));
        moves.clear();
    }

    /// An input was damaged after its records were copied, so some index entries cannot be moved.
    /// All data are in the outputs, and the next open finds them there; until then the inputs stay,
    /// and nothing more is written.
    fn stop_half_moved(&self, input: &SealedSegment, offset: u64, damage: Damage) -> Error {
        let log = &self.compactor.log;
        let error = Error::damage(&self.compactor.context.segment_path(input.id()), offset, damage);
        log.poison(&mut log.lock(), &error);
        error
    }
}
