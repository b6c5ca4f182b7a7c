//! Appending: under the writer lock, records go into the buffer of the active segment and into the
//! indexes. Then the write waits as its durability class requires.

use std::cell::Cell;

use super::reserve::ReservePart;
use super::{Guard, Log};
use crate::error::{Error, Result};
use crate::format::record::{BatchBegin, FIXED_HEADER_LEN, Header, Kind, RunCrc};
use crate::format::segment::Mark;
use crate::format::{ALIGNMENT, aligned};
use crate::index::namespaces::NamespaceState;
use crate::options::{Durability, Maintenance};
use crate::planted::{Planted, planted};
use crate::state::{AppliedRecord, Befores, Current, Group, GroupPlan, GroupRecord, HashedKey};

/// Most bytes of a batch in the log: 256 MiB.
pub(crate) const BATCH_BYTES_MAX: u64 = 256 << 20;

/// Bytes of a mark.
pub(super) const MARK_LEN: u64 = aligned((FIXED_HEADER_LEN + Mark::LEN) as u64);

/// Bytes of a batch's frame record.
const BATCH_BEGIN_LEN: u64 = aligned((FIXED_HEADER_LEN + BatchBegin::LEN) as u64);

/// A put or tombstone with everything that can be computed before the lock is taken.
#[derive(Clone, Debug)]
pub(crate) struct NewRecord<'a> {
    pub(crate) namespace: &'a NamespaceState,
    pub(crate) hash: u64,
    /// The sequence is not known yet.
    pub(crate) header: Header,
    /// Key, metadata and value.
    pub(crate) parts: [&'a [u8]; 3],
}

/// Records to be written all or none.
pub(crate) struct NewBatch<'a> {
    pub(crate) records: Vec<NewRecord<'a>>,
    /// For each record, what the keydir points at before the batch.
    pub(crate) befores: Befores,
    pub(crate) plan: GroupPlan,
    /// Whether it is settled under the writer lock. Otherwise there must be a promise of room.
    pub(crate) at_once: bool,
}

/// What a write has done before it waits.
pub(crate) struct Applied<'a, T> {
    pub(crate) guard: Guard<'a>,
    /// The log must be written out, or synced, up to this sequence.
    pub(crate) sequence: u64,
    /// False if there was nothing to write: then `sequence` is that of other writes, which this
    /// call has seen.
    pub(crate) appended: bool,
    pub(crate) answer: T,
}

/// Bytes and sequences that a write may need, with a mark before it and one after it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Room {
    pub(super) bytes: u64,
    pub(super) sequences: u64,
    /// What the write may take of the space that is held back.
    pub(super) part: ReservePart,
    /// Whether the store's own limit applies.
    pub(super) limited: bool,
}

impl Room {
    #[inline]
    pub(crate) fn of_record(record: &NewRecord<'_>) -> Room {
        Room {
            bytes: record.header.record_len() + 2 * MARK_LEN,
            sequences: 3,
            part: ReservePart::of_write(record.header.kind.is_tombstone()),
            limited: true,
        }
    }

    /// An error if the batch is too large.
    pub(crate) fn of_batch(records: &[NewRecord<'_>]) -> Result<Room> {
        let bytes: u64 = records.iter().map(|record| record.header.record_len()).sum();
        if bytes > BATCH_BYTES_MAX {
            return Err(Error::invalid(format!(
                "the batch takes {bytes} bytes, more than the {BATCH_BYTES_MAX} that can be written as one; split it"
            )));
        }
        Ok(Room {
            bytes: 2 * MARK_LEN + BATCH_BEGIN_LEN + bytes,
            sequences: records.len() as u64 + 3,
            part: ReservePart::of_write(records.iter().all(|record| record.header.kind.is_tombstone())),
            limited: true,
        })
    }

    /// The same room, with or without the store's own limit.
    pub(crate) fn limited(self, limited: bool) -> Room {
        Room { limited, ..self }
    }
}

impl<'a> NewRecord<'a> {
    pub(crate) fn key(&self) -> &'a [u8] {
        let [key, _, _] = self.parts;
        key
    }

    #[inline]
    pub(crate) fn hashed_key(&self) -> HashedKey<'a> {
        HashedKey {
            namespace: self.namespace.number,
            key: self.key(),
            hash: self.hash,
        }
    }
}

impl Log {
    /// Runs a write: `apply` appends the records, and this waits for them. On a full disk the write
    /// gets its part of the reserve, or is refused while the part kept for others is incomplete.
    ///
    /// `apply` is run a second time only if the records of the first attempt were rolled back.
    /// Records that stay pending, since later ones were acknowledged, are waited for again instead:
    /// a second attempt would see them and decide by them.
    pub(crate) fn write<'a, T>(
        &'a self,
        part: ReservePart,
        durability: Durability,
        apply: impl Fn() -> Result<Applied<'a, T>>,
    ) -> Result<T> {
        self.refuse_if_full(part)?;
        if durability == Durability::Os {
            self.make_ring_if_wanted();
        }
        let appended = Cell::new(true);
        let attempt = || {
            let applied = apply().map_err(|error| (error, None))?;
            appended.set(applied.appended);
            match self.commit(applied.guard, durability, applied.sequence) {
                Ok(()) => Ok(applied.answer),
                Err(error @ Error::Pending { .. }) => Err((error, Some((applied.sequence, applied.answer)))),
                Err(error) => Err((error, None)),
            }
        };
        let ended = match attempt() {
            Err((error, pending)) if part.helps(&error) => {
                self.reserve.release(part);
                if self.lock().tail.needs_part_of_ring() {
                    // That is written out first.
                    self.reserve.release(ReservePart::Acknowledged);
                }
                match pending {
                    Some((sequence, answer)) if !planted(Planted::RunPendingAgain) => {
                        let waited = self.commit(self.lock(), durability, sequence);
                        waited.map(|()| answer)
                    }
                    _ => attempt().map_err(|(error, _)| error),
                }
            }
            result => result.map_err(|(error, _)| error),
        };
        if ended.as_ref().is_err_and(Error::is_no_space) {
            self.context.compaction_wake.wake();
        }
        // If there was nothing to write, the pending record belongs to another call.
        ended.map_err(|error| if appended.get() { error } else { error.without_pending() })
    }

    /// Writes one record, alone: pending records are written out first, then this one, under one
    /// hold of the lock. So the record is either in the log or not. `check` returns, under the
    /// lock, what the keydir points at before; `then` is run with the sequence of the record once
    /// it is in the log. Durable when this returns.
    pub(crate) fn write_alone(
        &self,
        room: Room,
        record: &NewRecord<'_>,
        check: impl Fn() -> Result<Option<Current>>,
        then: impl Fn(u64),
    ) -> Result<()> {
        self.refuse_if_full(room.part)?;
        self.reserve.run(room.part, || {
            let mut guard = self.ensure_room_when_idle(self.lock(), room)?;
            self.commit.write_out_held(&mut guard)?;
            let before = check()?;
            let sequence = self.append(&mut guard, record, before.as_ref());
            // On failure the record is rolled back: nothing acknowledged comes after it. Watchers
            // are told of a drop once it is seen.
            let late = planted(Planted::DropAfterSync);
            self.tell_after(&mut guard, |guard| {
                let written = self.commit.write_out_held(guard);
                written.inspect(|()| {
                    if !late {
                        then(sequence)
                    }
                })
            })?;
            let durable = self.commit(guard, Durability::Sync, sequence);
            durable.inspect(|()| {
                if late {
                    then(sequence)
                }
            })
        })
    }

    /// Refuses this work if the disk was found full and the part of the reserve that is kept from
    /// it cannot be restored.
    #[inline]
    pub(crate) fn refuse_if_full(&self, part: ReservePart) -> Result<()> {
        if self.reserve.keeps_from(part) {
            self.context.check_open()?;
            self.check_sound(&mut self.lock())?;
            self.reserve.restore_kept(part)?;
        }
        Ok(())
    }

    /// Waits until a write applied up to `sequence` is as durable as its class promises.
    #[inline]
    pub(crate) fn commit<'a>(&'a self, guard: Guard<'a>, durability: Durability, sequence: u64) -> Result<()> {
        let mut guard = guard;
        if durability == Durability::Buffered || planted(Planted::AcknowledgeUnwritten) {
            match self.commit.acknowledge(guard) {
                None => return Ok(()),
                Some(back) => guard = back,
            }
        } else if durability == Durability::Os && guard.tail.has_ring() {
            match self.commit.keep(guard) {
                None => return Ok(()),
                Some(back) => guard = back,
            }
        }
        let seals = self.context.options.maintenance == Maintenance::Manual && !guard.tail.sealing.is_empty();
        let waited = self.commit.wait_for(guard, durability, sequence);
        if seals {
            // No thread seals in this mode. The write itself is done; the next maintenance retries
            // and reports.
            if let Err(error) = self.seal_all() {
                self.context.events.note_background_error(&error);
            }
        }
        waited
    }

    /// Appends a record and applies it to the state. The caller has made room in the active
    /// segment.
    #[inline]
    pub(crate) fn append(&self, guard: &mut Guard<'_>, record: &NewRecord<'_>, before: Option<&Current>) -> u64 {
        self.note_append(guard);
        self.mark_if_due(guard);
        self.context.time.appending(guard.next_sequence);
        let header = Header {
            sequence: guard.take_sequence(),
            ..record.header
        };
        let tail = &mut guard.tail;
        let Some(active) = &mut tail.active else {
            return header.sequence;
        };
        let offset = active.appender.len() as u64;
        debug_assert_eq!(offset % ALIGNMENT, 0);
        active.put_record(&header, &record.parts);
        let applied = AppliedRecord {
            segment: &active.segment,
            offset,
            header: &header,
            namespace: record.namespace,
            key: record.key(),
            hash: record.hash,
            before,
        };
        self.state.apply(&applied, &mut tail.undo);
        if tail.recent.is_wanted() {
            tail.recent.note(header.sequence, record.namespace.number, record.key());
        }
        if planted(Planted::TellUnfirm) {
            let end = offset + header.record_len();
            let acknowledged_end = std::mem::replace(&mut tail.acknowledged_end, end);
            tail.tell();
            tail.acknowledged_end = acknowledged_end;
        }
        self.check_indexed(guard);
        header.sequence
    }

    /// Appends a batch and applies it to the state as one group. The caller has made room in the
    /// active segment. Returns the sequence of the last record.
    pub(crate) fn append_batch(&self, guard: &mut Guard<'_>, batch: NewBatch<'_>) -> u64 {
        self.note_append(guard);
        self.mark_if_due(guard);
        // The frame, with a checksum of the records after it, is first in the log and has the first
        // sequence.
        self.context.time.appending(guard.next_sequence);
        let frame_sequence = guard.take_sequence();
        let count = batch.records.len();
        guard.next_sequence += count as u64;
        guard.last_sequence += count as u64;
        let last = guard.last_sequence;
        let tail = &mut guard.tail;
        let Some(active) = &mut tail.active else { return last };
        let segment = active.segment.clone();
        let mut run = RunCrc::default();
        let mut headers = Vec::with_capacity(count);
        let mut offsets = Vec::with_capacity(count);
        let base = active.appender.len() as u64;
        let mut ahead = BATCH_BEGIN_LEN;
        for (record, sequence) in batch.records.iter().zip(frame_sequence + 1..) {
            let header = Header {
                sequence,
                ..record.header
            };
            run.add(active.encode_ahead(ahead as usize, &header, &record.parts));
            offsets.push(base + ahead);
            ahead += header.record_len();
            headers.push(header);
        }
        let frame = BatchBegin {
            count: count as u32,
            run_crc: run.value(),
            bytes: ahead - BATCH_BEGIN_LEN,
        };
        let frame = frame.encode();
        let frame_header = Header::of_log(Kind::BatchBegin, frame_sequence, &frame);
        active.encode_ahead(0, &frame_header, &[&frame]);
        active.publish(std::iter::once(&frame_header).chain(&headers));
        let records = batch.records.iter().zip(&headers).map(|(record, header)| GroupRecord {
            header,
            namespace: record.namespace,
            key: record.key(),
        });
        let places = (frame_sequence + 1, offsets.into());
        let group = Group::new((batch.plan, batch.befores), batch.at_once, segment, places);
        let settled = self.state.apply_group(group, records, &mut tail.undo);
        if let Err(error) = settled {
            // It is tried again.
            self.context.events.note_background_error(&error);
        }
        if tail.recent.is_wanted() {
            tail.recent.note_batch(last, &batch.records);
        }
        self.check_indexed(guard);
        last
    }

    /// Checks that all records in the log are also in the hash index.
    #[inline]
    fn check_indexed(&self, guard: &mut Guard<'_>) {
        if self.state.is_overfull() {
            // Cannot happen: room was checked before the append.
            let cause = Error::invalid("the hash index can hold no more keys");
            self.poison(guard, &cause);
        }
    }

    /// Settles what batches have left to be settled, without the writer lock.
    pub(crate) fn settle(&self) {
        if let Err(error) = self.state.settle() {
            // It is tried again.
            self.context.events.note_background_error(&error);
        }
        if self.state.is_overfull() {
            self.check_indexed(&mut self.lock());
        }
    }

    /// Appends a mark of how far the log is durable, if that has advanced by more than the last
    /// mark itself, and nothing is pending that may be rolled back. With it recovery can tell a
    /// torn end from damage, and need not copy what is durable.
    #[inline]
    pub(super) fn mark_if_due(&self, guard: &mut Guard<'_>) {
        let durable = guard.durable_sequence;
        let is_news = durable > guard.tail.marked_sequence && durable != guard.tail.bare_mark;
        if is_news && guard.tail.is_firm() && !planted(Planted::SkipMarks) {
            guard.tail.marked_sequence = durable;
            guard.tail.bare_mark = if guard.last_sequence == durable {
                guard.next_sequence
            } else {
                0
            };
            let mark = guard.tail.durable_end.encode();
            self.append_own(guard, Kind::Mark, &mark);
        }
    }

    /// Appends one record about the log itself.
    pub(super) fn append_own(&self, guard: &mut Guard<'_>, kind: Kind, body: &[u8]) {
        self.note_append(guard);
        let sequence = guard.take_sequence();
        if let Some(active) = &mut guard.tail.active {
            let header = Header::of_log(kind, sequence, body);
            active.put_record(&header, &[body]);
        }
    }
}

#[cfg(test)]
mod tests;
