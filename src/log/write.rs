//! Writing: from checked operations to records in the log and entries in the indexes.

use std::sync::Arc;

use super::Engine;
use super::reserve::ReservePart;
use super::seal::Applied;
use super::writer::Guard;
use crate::error::{Error, Result};
use crate::format::record::{BatchBegin, FIXED_HEADER_LEN, Header, Kind, RunCrc, body_crc};
use crate::format::segment::Mark;
use crate::format::{ALIGNMENT, aligned};
use crate::index::namespaces::{NamespaceState, SYSTEM_NAMESPACE, encode_number};
use crate::index::order::KeyOrder;
use crate::options::{Condition, Durability};
use crate::planted::{Planted, planted};
use crate::segment::Segment;
use crate::state::{AppliedRecord, Current, Full, HashedKey};

/// Most bytes that a batch may take in the log: 256 MiB.
pub(crate) const BATCH_BYTES_MAX: u64 = 256 << 20;

/// Bytes of a mark.
const MARK_LEN: u64 = aligned((FIXED_HEADER_LEN + Mark::LEN) as u64);

/// Bytes of the frame of a batch.
const BATCH_BEGIN_LEN: u64 = aligned((FIXED_HEADER_LEN + BatchBegin::LEN) as u64);

/// One change of one key, its sizes checked against the limits.
#[derive(Debug)]
pub(crate) struct Operation<'a> {
    pub(crate) namespace: &'a NamespaceState,
    pub(crate) key: &'a [u8],
    pub(crate) action: Action<'a>,
    pub(crate) condition: Option<Condition>,
}

/// What becomes of the key.
#[derive(Debug)]
pub(crate) enum Action<'a> {
    Put {
        value: &'a [u8],
        metadata: Option<&'a [u8]>,
        expiry: Option<u64>,
    },
    Delete,
}

/// How a write ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Written {
    /// Of the record; of the newest record in the log if there was nothing to write.
    pub(crate) sequence: u64,
    /// Whether a live record of the key stood there before.
    pub(crate) existed: bool,
}

/// An operation with all that can be computed before the lock is taken.
struct Ready<'a> {
    operation: &'a Operation<'a>,
    hash: u64,
    /// The sequence is not known yet.
    header: Header,
}

/// The operations of a batch, checked.
struct ReadyBatch<'a> {
    writes: Vec<Ready<'a>>,
    /// What the keydir points at before the batch, for each of them.
    currents: Vec<Option<Current>>,
    /// False only if each key comes once.
    repeats: bool,
    /// Of all records together.
    bytes: u64,
}

impl<'a> Ready<'a> {
    /// The record that came of it.
    fn applied<'b>(
        &self,
        segment: &'b Arc<Segment>,
        offset: u64,
        header: &'b Header,
        before: Option<Current>,
    ) -> AppliedRecord<'b>
    where
        'a: 'b,
    {
        AppliedRecord {
            segment,
            offset,
            header,
            namespace: self.operation.namespace,
            key: self.operation.key,
            hash: self.hash,
            before,
        }
    }
}

impl Ready<'_> {
    fn parts(&self) -> [&[u8]; 3] {
        match self.operation.action {
            Action::Put { value, metadata, .. } => [self.operation.key, metadata.unwrap_or_default(), value],
            Action::Delete => [self.operation.key, &[], &[]],
        }
    }
}

impl Engine {
    fn ready<'a>(&self, operation: &'a Operation<'a>) -> Ready<'a> {
        let (kind, value, metadata, expiry) = match operation.action {
            Action::Put {
                value,
                metadata,
                expiry,
            } => (Kind::Put, value, metadata, expiry),
            Action::Delete => (Kind::Tombstone, &[][..], None, None),
        };
        let header = Header {
            kind,
            namespace: operation.namespace.number,
            sequence: 0,
            expiry,
            key_len: operation.key.len() as u32,
            metadata_len: metadata.map(|metadata| metadata.len() as u32),
            value_len: value.len() as u32,
            body_crc: body_crc(&[operation.key, metadata.unwrap_or_default(), value]),
        };
        Ready {
            operation,
            hash: self.state.hash(operation.namespace.number, operation.key),
            header,
        }
    }

    /// Writes one operation and waits as its durability says. Deletes may use the reserve on a full disk.
    pub(crate) fn write(&self, operation: &Operation<'_>, durability: Durability) -> Result<Written> {
        self.context.check_open()?;
        let deletes = matches!(operation.action, Action::Delete);
        self.write_with_reserve(ReservePart::of_write(deletes), durability, || self.apply(operation))
    }

    fn apply<'a>(&'a self, operation: &Operation<'_>) -> Result<Applied<'a, Written>> {
        let ready = self.ready(operation);
        let guard = self.lock_writer_to_change(ready.hash);
        let mut guard = self.ensure_room(guard, ready.header.record_len() + MARK_LEN, 2)?;
        check_namespace(operation)?;
        let current = self.current(&ready)?;
        let existed = self.check_condition(&ready, current.as_ref())?;
        if current.is_none() && matches!(operation.action, Action::Delete) {
            // Nothing to delete; but what this call has seen, that the key is gone, must hold as its durability says.
            let sequence = guard.last_sequence;
            return Ok(Applied {
                guard,
                sequence: if planted(Planted::ForgetAbsence) { 0 } else { sequence },
                appended: false,
                answer: Written { sequence, existed },
            });
        }
        if current.is_none() {
            self.state.check_room(&[ready.hash])?;
        }
        self.mark_if_due(&mut guard);
        let sequence = self.append_ready(&mut guard, &ready, current);
        Ok(Applied {
            guard,
            sequence,
            appended: true,
            answer: Written { sequence, existed },
        })
    }

    /// Writes all operations or none.
    pub(crate) fn write_batch(&self, operations: &[Operation<'_>], durability: Durability) -> Result<u64> {
        self.context.check_open()?;
        let deletes = operations
            .iter()
            .all(|operation| matches!(operation.action, Action::Delete));
        self.write_with_reserve(ReservePart::of_write(deletes), durability, || {
            self.apply_batch(operations)
        })
    }

    fn apply_batch<'a>(&'a self, operations: &[Operation<'_>]) -> Result<Applied<'a, u64>> {
        let ready: Vec<_> = operations.iter().map(|operation| self.ready(operation)).collect();
        let bytes: u64 = ready.iter().map(|ready| ready.header.record_len()).sum();
        if bytes > BATCH_BYTES_MAX {
            return Err(Error::invalid(format!(
                "the batch takes {bytes} bytes, more than the {BATCH_BYTES_MAX} that can be written as one; split it"
            )));
        }
        let hashes: Vec<_> = ready.iter().map(|ready| ready.hash).collect();
        // Before others have to wait for it.
        self.state.warm_up(&hashes);
        let mut guard = self.ensure_room(
            self.lock_writer(),
            MARK_LEN + BATCH_BEGIN_LEN + bytes,
            ready.len() as u64 + 2,
        )?;
        // Everything that can fail comes before anything is appended.
        let mut currents = Vec::with_capacity(ready.len());
        let mut new = Vec::new();
        for ready in &ready {
            check_namespace(ready.operation)?;
            let current = self.current(ready)?;
            self.check_condition(ready, current.as_ref())?;
            if current.is_none() && ready.header.kind == Kind::Put {
                new.push(ready.hash);
            }
            currents.push(current);
        }
        self.state.check_room(&new)?;
        if ready.is_empty() {
            let sequence = guard.last_sequence;
            return Ok(Applied {
                guard,
                sequence,
                appended: false,
                answer: sequence,
            });
        }
        self.mark_if_due(&mut guard);
        let batch = ReadyBatch {
            writes: ready,
            currents,
            repeats: has_repeats(hashes),
            bytes,
        };
        self.append_batch(&mut guard, &batch);
        let sequence = guard.last_sequence;
        Ok(Applied {
            guard,
            sequence,
            appended: true,
            answer: sequence,
        })
    }

    /// Writes or deletes the record of a namespace, alone: what is pending is written out before it, and itself at once, with
    /// nothing between. So it is in the log or it is not; it never stays pending behind an error, and once `then` has run,
    /// whatever was written before lies below it. Durable when this returns.
    pub(crate) fn write_namespace(&self, number: u32, action: Action<'_>, then: impl Fn()) -> Result<()> {
        let system = NamespaceState::new(SYSTEM_NAMESPACE, 0, "", KeyOrder::new());
        let key = encode_number(number);
        let deletes = matches!(action, Action::Delete);
        let operation = Operation {
            namespace: &system,
            key: &key,
            action,
            condition: None,
        };
        let ready = self.ready(&operation);
        let part = ReservePart::of_write(deletes);
        self.refuse_if_full(part)?;
        self.reserve.run(part, || {
            let length = ready.header.record_len() + MARK_LEN;
            let mut guard = self.ensure_room_when_idle(self.lock_writer(), length, 2)?;
            self.write_out_held(&mut guard)?;
            let current = self.current(&ready)?;
            if current.is_none() {
                self.state.check_room(&[ready.hash])?;
            }
            self.mark_if_due(&mut guard);
            let sequence = self.append_ready(&mut guard, &ready, current);
            // If this fails, the record is taken back: nothing acknowledged lies behind it.
            self.write_out_held(&mut guard)?;
            if planted(Planted::DropAfterSync) {
                return self.finish(guard, Durability::Sync, sequence).inspect(|()| then());
            }
            then();
            self.finish(guard, Durability::Sync, sequence)
        })
    }

    /// Encodes and publishes a batch, and applies it as one group.
    fn append_batch(&self, guard: &mut Guard<'_>, batch: &ReadyBatch<'_>) {
        // The frame, which sums up what follows it, comes first in the log and has the first sequence.
        let frame_sequence = guard.next_sequence;
        self.context.time.appending(frame_sequence);
        let first = frame_sequence + 1;
        let writer = &mut **guard;
        let Some(active) = &mut writer.active else { return };
        let segment = active.segment.clone();
        let begin = active.appender.len() as u64 + BATCH_BEGIN_LEN;
        let mut run = RunCrc::default();
        let mut headers = Vec::with_capacity(batch.writes.len());
        let mut ahead = BATCH_BEGIN_LEN as usize;
        for (ready, sequence) in batch.writes.iter().zip(first..) {
            let header = Header {
                sequence,
                ..ready.header
            };
            run.add(active.encode_ahead(ahead, &header, &ready.parts()));
            ahead += header.record_len() as usize;
            headers.push(header);
        }
        let frame = BatchBegin {
            count: batch.writes.len() as u32,
            run_crc: run.value(),
            bytes: batch.bytes,
        };
        let frame = frame.encode();
        let frame_header = Header::of_log(Kind::BatchBegin, frame_sequence, &frame);
        active.encode_ahead(0, &frame_header, &[&frame]);
        active.publish(std::iter::once(&frame_header).chain(&headers));
        writer.next_sequence = first + batch.writes.len() as u64;
        writer.last_sequence = writer.next_sequence - 1;
        let mut end = begin;
        let records = batch.writes.iter().zip(&headers).zip(&batch.currents);
        let records = records.map(|((ready, header), before)| {
            let offset = end;
            end += header.record_len();
            ready.applied(&segment, offset, header, *before)
        });
        let applied = self
            .state
            .apply_group(&writer.right, records, batch.repeats, &mut writer.undo);
        self.check_indexed(guard, applied);
    }

    /// What the keydir points at for this key. Damage is an error if the operation has a condition, of which nothing can be known
    /// then; else what is damaged can be overwritten and deleted.
    fn current(&self, ready: &Ready<'_>) -> Result<Option<Current>> {
        let key = HashedKey {
            namespace: ready.operation.namespace.number,
            key: ready.operation.key,
            hash: ready.hash,
        };
        self.state.current(&key, ready.operation.condition.is_some())
    }

    /// Whether a live record of the key stands there; an error if the operation's condition does not hold. A damaged record counts as
    /// live.
    fn check_condition(&self, ready: &Ready<'_>, current: Option<&Current>) -> Result<bool> {
        let is_expired = |header: &Header| {
            header.expiry.is_some() && self.context.time.now().is_expired(header.expiry, header.sequence)
        };
        let is_expired = |header: &Header| is_expired(header) && !planted(Planted::ConditionSeesExpired);
        let live = current.filter(|current| !current.header().is_some_and(is_expired));
        if let Some(condition) = ready.operation.condition.filter(|_| !planted(Planted::IgnoreCondition)) {
            condition.check(live.and_then(Current::header).map(|header| header.sequence))?;
        }
        Ok(live.is_some())
    }

    /// Says in the log how far it is durable, if that is news and nothing is pending: recovery can then tell a torn end from
    /// damage, and need not write anew what is safe.
    fn mark_if_due(&self, guard: &mut Guard<'_>) {
        let due = guard.durable_sequence > guard.marked_sequence && guard.pending_bytes() == 0;
        if due && !planted(Planted::SkipMarks) {
            guard.marked_sequence = guard.durable_sequence;
            let mark = guard.durable_end.encode();
            self.append(guard, Kind::Mark, &mark);
        }
    }

    fn append_ready(&self, guard: &mut Guard<'_>, ready: &Ready<'_>, current: Option<Current>) -> u64 {
        self.context.time.appending(guard.next_sequence);
        let header = Header {
            sequence: guard.next_sequence,
            ..ready.header
        };
        guard.next_sequence += 1;
        guard.last_sequence = header.sequence;
        let writer = &mut **guard;
        let Some(active) = &mut writer.active else {
            return header.sequence;
        };
        let offset = active.appender.len() as u64;
        debug_assert_eq!(offset % ALIGNMENT, 0);
        active.put_record(&header, &ready.parts());
        let record = ready.applied(&active.segment, offset, &header, current);
        let applied = self.state.apply(&writer.right, &record, &mut writer.undo);
        self.check_indexed(guard, applied);
        header.sequence
    }

    /// A record that is in the log is in the hash index as well.
    fn check_indexed(&self, guard: &mut Guard<'_>, applied: Result<(), Full>) {
        if let Err(Full) = applied {
            // Cannot be: there was room before anything was appended.
            let cause = Error::invalid("the hash index can hold no more keys");
            self.poison(guard, &cause);
        }
    }
}

/// Whether two keys of these hashes may be the same.
fn has_repeats(mut hashes: Vec<u64>) -> bool {
    hashes.sort_unstable();
    hashes
        .windows(2)
        .any(|pair| matches!(pair, [hash, next] if hash == next))
}

fn check_namespace(operation: &Operation<'_>) -> Result<()> {
    if operation.namespace.is_dropped() && !planted(Planted::WriteToDropped) {
        return Err(Error::NamespaceNotFound {
            name: operation.namespace.name().to_string(),
        });
    }
    Ok(())
}
