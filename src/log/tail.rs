//! The end of the log, under the writer lock: the active segment, its predecessors and successor,
//! and what can still be rolled back.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::active::{Active, Prepared, Rotated};
use super::behind::Behind;
use super::recent::RecentWrites;
use super::ring::Ring;
use super::unrecovered::Unrecovered;
use super::watch::Watchers;
use crate::format::segment::{Mark, Start};
use crate::location::Location;
use crate::state::{Move, Undo};

/// What the writer lock protects besides the state of the group commit.
#[derive(Debug)]
pub(crate) struct Tail {
    pub(super) active: Option<Active>,
    /// The next active segment, created and listed ahead of time.
    pub(super) prepared: Option<Prepared>,
    /// Segments rotated out but not sealed yet, oldest first.
    pub(super) sealing: Vec<Arc<Rotated>>,
    /// Where the segment before the active one ended.
    pub(super) previous: Start,
    /// How to roll back each pending record, oldest first.
    pub(crate) undo: Vec<Undo>,
    /// Bytes of the active segment before this offset that are pending were acknowledged.
    pub(super) acknowledged_end: u64,
    /// Incremented whenever records are rolled back.
    pub(crate) rollbacks: u64,
    /// The end of the durable log.
    pub(super) durable_end: Mark,
    /// The durable sequence when the newest mark was written.
    pub(super) marked_sequence: u64,
    /// The newest mark, if all records before it were durable; else 0.
    pub(super) bare_mark: u64,
    /// What transactions need to know.
    pub(crate) recent: RecentWrites,
    /// Who is told of changes.
    pub(super) watchers: Watchers,
    /// What is not durable.
    pub(super) behind: Behind,
    /// Records that recovery could not copy to another segment yet, for lack of space.
    pub(crate) unrecovered: Option<Unrecovered>,
    /// Where what is pending survives the process; None where only files do.
    pub(super) ring: Option<Ring>,
}

impl Tail {
    /// For a log without segments.
    pub(crate) fn new() -> Tail {
        Tail {
            active: None,
            prepared: None,
            sealing: Vec::new(),
            previous: Start::default(),
            undo: Vec::new(),
            acknowledged_end: 0,
            rollbacks: 0,
            durable_end: Mark::default(),
            marked_sequence: 0,
            bare_mark: 0,
            recent: RecentWrites::default(),
            watchers: Watchers::default(),
            behind: Behind::default(),
            unrecovered: None,
            ring: None,
        }
    }

    /// Whether a failed write-out would take nothing back.
    #[inline]
    pub(super) fn is_firm(&self) -> bool {
        let end = self.active.as_ref().map_or(0, |active| active.appender.len() as u64);
        self.firm_end() >= end
    }

    /// Whether recovery still has records to copy.
    pub(crate) fn is_recovering(&self) -> bool {
        self.unrecovered.is_some()
    }

    /// Records were copied: if pending records that replaced them are rolled back, they must
    /// uncover the copies.
    pub(crate) fn forward(&mut self, moves: &[Move]) {
        if self.undo.is_empty() {
            return;
        }
        let copies: HashMap<Location, Location> = moves.iter().map(|step| (step.from, step.to)).collect();
        self.undo.iter_mut().for_each(|undo| undo.forward(&copies));
    }

    /// Bytes that are only in memory.
    pub(crate) fn pending_bytes(&self) -> u64 {
        self.active
            .as_ref()
            .map_or(0, |active| active.appender.len() as u64 - active.written)
    }

    /// The end of the log, with what is only in memory.
    pub(super) fn end(&self) -> Mark {
        match &self.active {
            Some(active) => Mark {
                segment_id: active.segment.id(),
                offset: active.appender.len() as u64,
            },
            None => Mark {
                segment_id: self.previous.previous_id,
                offset: self.previous.previous_end,
            },
        }
    }

    /// Where in the active segment what can be rolled back begins.
    pub(super) fn firm_end(&self) -> u64 {
        let written = self.active.as_ref().map_or(0, |active| active.written);
        self.acknowledged_end.max(written)
    }

    /// The newest sequence that can no longer be rolled back, if this is the newest of all.
    pub(super) fn firm_sequence(&self, last: u64) -> u64 {
        let firm_end = self.firm_end();
        let first_unsure = self.undo.iter().find(|undo| undo.offset >= firm_end);
        first_unsure.map_or(last, |undo| undo.sequence - 1)
    }

    /// What can still be rolled back, and what comes later, will be told.
    pub(super) fn begin_telling(&mut self) {
        let segment_id = self.active.as_ref().map_or(0, |active| active.segment.id());
        let offset = self.firm_end();
        self.watchers.begin(Mark { segment_id, offset });
    }

    /// Tells the watchers what can no longer be rolled back.
    #[cold]
    pub(super) fn tell(&mut self) {
        let firm_end = self.firm_end();
        let active = self.active.as_ref().map(|active| &*active.segment);
        self.watchers.tell(active, firm_end);
    }

    /// Memory of the active segment and of those not sealed yet, in bytes.
    pub(crate) fn buffer_bytes(&self) -> u64 {
        let rotated: u64 = self.sealing.iter().map(|rotated| rotated.summary.data_end).sum();
        rotated + self.active.as_ref().map_or(0, |active| active.appender.len() as u64)
    }

    /// The active segment grows no more.
    pub(super) fn rotate_out(&mut self, old: Active) {
        let summary = old.account.summary();
        self.previous = Start {
            previous_id: old.segment.id(),
            previous_end: summary.data_end,
            previous_crc: summary.records_crc,
        };
        let synced = AtomicBool::new(false);
        self.sealing.push(Arc::new(Rotated {
            segment: old.segment,
            file: old.file,
            summary,
            synced,
        }));
    }
}
