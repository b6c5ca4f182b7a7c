//! Writing: from checked operations to records in the log and entries in the indexes.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::sync::Arc;

use super::reserve::ReservePart;
use super::seal::Applied;
use super::writer::{Guard, Undo};
use super::{Engine, Lookup};
use crate::error::{Error, Result};
use crate::format::record::{BatchBegin, FIXED_HEADER_LEN, Header, Kind, RunCrc, body_crc};
use crate::format::segment::Mark;
use crate::format::{ALIGNMENT, aligned};
use crate::index::namespaces::{NamespaceState, SYSTEM_NAMESPACE, encode_number};
use crate::index::order::{Change, KeyFlags, KeyOrder};
use crate::location::Location;
use crate::options::{Condition, Durability};
use crate::planted::{Planted, planted};
use crate::segment::Segment;
use crate::sync::lock;

/// Most bytes that a batch may take in the log: 256 MiB.
pub(crate) const BATCH_BYTES_MAX: u64 = 256 << 20;

/// Bytes of a mark.
const MARK_LEN: u64 = aligned((FIXED_HEADER_LEN + Mark::LEN) as u64);

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

/// The record that the keydir points at before an operation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Current {
    pub(super) location: Location,
    known: Known,
}

/// What is known of a record.
#[derive(Clone, Copy, Debug)]
enum Known {
    Header(Header),
    /// It is damaged. The flags are what the key order holds of its key, the length is 0 unless the header could be read.
    Damaged {
        flags: KeyFlags,
        length: u64,
    },
}

impl Current {
    fn new(location: Location, header: Header) -> Current {
        let known = Known::Header(header);
        Current { location, known }
    }

    fn header(&self) -> Option<&Header> {
        match &self.known {
            Known::Header(header) => Some(header),
            Known::Damaged { .. } => None,
        }
    }

    fn flags(&self) -> KeyFlags {
        match &self.known {
            Known::Header(header) => flags(header),
            Known::Damaged { flags, .. } => *flags,
        }
    }

    /// Bytes that the counters of its segment are changed by.
    pub(super) fn length(&self) -> u64 {
        match &self.known {
            Known::Header(header) => header.record_len(),
            Known::Damaged { length, .. } => *length,
        }
    }

    fn expiry(&self) -> Option<u64> {
        self.header().and_then(|header| header.expiry)
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
            hash: self.hash(operation.namespace.number, operation.key),
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
            self.check_room(&[ready.hash])?;
        }
        self.mark_if_due(&mut guard);
        let sequence = self.append_ready(&mut guard, &ready, current.as_ref());
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
        let begin_len = aligned((FIXED_HEADER_LEN + BatchBegin::LEN) as u64);
        let hashes: Vec<_> = ready.iter().map(|ready| ready.hash).collect();
        // Before others have to wait for it.
        self.warm_up(&hashes);
        let mut guard = self.ensure_room(self.lock_writer(), MARK_LEN + begin_len + bytes, ready.len() as u64 + 2)?;
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
        self.check_room(&new)?;
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
        self.while_applying_batch(|| {
            self.append_batch(&mut guard, &ready, &currents, has_repeats(hashes), begin_len, bytes)
        });
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
                self.check_room(&[ready.hash])?;
            }
            self.mark_if_due(&mut guard);
            let sequence = self.append_ready(&mut guard, &ready, current.as_ref());
            // If this fails, the record is taken back: nothing acknowledged lies behind it.
            self.write_out_held(&mut guard)?;
            if planted(Planted::DropAfterSync) {
                return self.finish(guard, Durability::Sync, sequence).inspect(|()| then());
            }
            then();
            self.finish(guard, Durability::Sync, sequence)
        })
    }

    /// `currents` is what the keydir points at before the batch, for each operation. `repeats` is false only if each key comes once.
    fn append_batch(
        &self,
        guard: &mut Guard<'_>,
        ready: &[Ready<'_>],
        currents: &[Option<Current>],
        repeats: bool,
        begin_len: u64,
        bytes: u64,
    ) {
        // The frame, which sums up what follows it, comes first in the log and has the first sequence.
        let frame_sequence = guard.next_sequence;
        self.context.time.appending(frame_sequence);
        let first = frame_sequence + 1;
        let Some(active) = &mut guard.active else { return };
        let segment = active.segment.clone();
        let base = active.appender.len() as u64;
        let mut run = RunCrc::default();
        let mut headers = Vec::with_capacity(ready.len());
        let mut ahead = begin_len as usize;
        for (ready, sequence) in ready.iter().zip(first..) {
            let header = Header {
                sequence,
                ..ready.header
            };
            run.add(active.encode_ahead(ahead, &header, &ready.parts()));
            ahead += header.record_len() as usize;
            headers.push(header);
        }
        let frame = BatchBegin {
            count: ready.len() as u32,
            run_crc: run.value(),
            bytes,
        };
        let frame = frame.encode();
        let frame_header = Header::of_log(Kind::BatchBegin, frame_sequence, &frame);
        active.encode_ahead(0, &frame_header, &[&frame]);
        active.publish(std::iter::once(&frame_header).chain(&headers));
        guard.next_sequence = first + ready.len() as u64;
        guard.last_sequence = guard.next_sequence - 1;
        let mut offset = base + begin_len;
        // What earlier operations of this batch have made of their keys.
        let mut within: HashMap<(u32, &[u8]), Option<Current>> = HashMap::new();
        let mut changes: Vec<(&NamespaceState, Change<'_>)> = Vec::with_capacity(ready.len());
        for ((ready, header), before) in ready.iter().zip(&headers).zip(currents) {
            let key = (header.namespace, ready.operation.key);
            let current = within.get(&key).copied().unwrap_or(*before);
            let change = self.index(
                guard,
                &segment,
                ready.hash,
                offset,
                header,
                ready.operation,
                current.as_ref(),
            );
            changes.extend(change.map(|change| (ready.operation.namespace, change)));
            if repeats && !planted(Planted::ForgetEarlierInBatch) {
                let location = segment.location(offset);
                let made = (header.kind == Kind::Put).then_some(Current::new(location, *header));
                within.insert(key, made);
            }
            offset += header.record_len();
        }
        for together in changes.chunk_by(|(namespace, _), (next, _)| std::ptr::eq(*namespace, *next)) {
            if let Some((namespace, _)) = together.first() {
                self.change_order(namespace, together.iter().map(|(_, change)| *change));
            }
        }
    }

    /// What the keydir points at for this key. Damage is an error if the operation has a condition, of which nothing can be known
    /// then; else what is damaged can be overwritten and deleted.
    fn current(&self, ready: &Ready<'_>) -> Result<Option<Current>> {
        let (number, key) = (ready.operation.namespace.number, ready.operation.key);
        self.current_of(number, key, ready.hash, ready.operation.condition.is_some())
    }

    /// What the keydir points at for a key, be it damaged, unless that `matters`. The caller holds the writer lock.
    pub(super) fn current_of(&self, namespace: u32, key: &[u8], hash: u64, matters: bool) -> Result<Option<Current>> {
        let (lookup, header) = self.look_up(namespace, key, hash);
        match lookup? {
            Lookup::Absent => Ok(None),
            Lookup::Found(location) => Ok(header.map(|header| Current::new(location, header))),
            Lookup::Damaged(_, error) if planted(Planted::DamagedHeaderBlocks) => Err(error),
            Lookup::Damaged(location, error) => match self.flags_of(namespace, key) {
                // It is the slot of another key; this one gets one beside it.
                None => Ok(None),
                Some(_) if matters => Err(error),
                Some(flags) => {
                    let segment = self.segments.get(location.segment_index());
                    let mut scratch = Vec::new();
                    // Its key may be damaged, and not its header.
                    let record = segment
                        .as_ref()
                        .and_then(|segment| segment.record(location.offset(), &mut scratch).ok());
                    let length = record.map_or(0, |record| record.header.record_len());
                    let known = Known::Damaged { flags, length };
                    Ok(Some(Current { location, known }))
                }
            },
        }
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

    /// Refuses new keys that the hash index has no room for, before anything is appended.
    fn check_room(&self, new: &[u64]) -> Result<()> {
        if self.keydir.has_room(new) {
            return Ok(());
        }
        Err(Error::invalid(
            "the hash index can hold no more keys; delete some, or split the store",
        ))
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

    fn append_ready(&self, guard: &mut Guard<'_>, ready: &Ready<'_>, current: Option<&Current>) -> u64 {
        self.context.time.appending(guard.next_sequence);
        let header = Header {
            sequence: guard.next_sequence,
            ..ready.header
        };
        guard.next_sequence += 1;
        guard.last_sequence = header.sequence;
        let Some(active) = &mut guard.active else {
            return header.sequence;
        };
        let offset = active.appender.len() as u64;
        debug_assert_eq!(offset % ALIGNMENT, 0);
        active.put_record(&header, &ready.parts());
        let segment = active.segment.clone();
        if let Some(change) = self.index(guard, &segment, ready.hash, offset, &header, ready.operation, current) {
            self.change_order(ready.operation.namespace, [change]);
        }
        header.sequence
    }

    /// Lets the keydir, the expiry queue and the counters know of a record that was just published, and returns what the key order
    /// has to know.
    #[expect(
        clippy::too_many_arguments,
        reason = "each is a fact about one record; a struct would only rename them"
    )]
    fn index<'a>(
        &self,
        guard: &mut Guard<'_>,
        segment: &Arc<Segment>,
        hash: u64,
        offset: u64,
        header: &Header,
        operation: &Operation<'a>,
        current: Option<&Current>,
    ) -> Option<Change<'a>> {
        let location = segment.location(offset);
        let length = header.record_len();
        let previous = current.map(|current| current.location);
        guard.undo.push(Undo {
            offset,
            sequence: header.sequence,
            hash,
            previous: current.copied(),
        });
        if let Some(current) = current {
            self.no_longer_live(current);
        }
        if header.kind == Kind::Put {
            segment.counters.add_put(length, header.sequence);
            segment.counters.add_live(1, length);
            let replaced = previous.is_some_and(|previous| self.keydir.replace(hash, previous, location));
            if !replaced && self.keydir.insert(hash, location).is_err() {
                // Cannot be: there was room before anything was appended.
                let cause = Error::invalid("the hash index can hold no more keys");
                self.poison(guard, &cause);
            }
            if let Some(expiry) = header.expiry {
                operation.namespace.set_has_expiring();
                lock(&self.expiry).push(expiry, location);
            }
        } else {
            segment.counters.add_tombstone(length, header.sequence);
            if let Some(previous) = previous {
                self.keydir.remove(hash, previous);
            }
        }
        let before = current.map(Current::flags);
        let after = (header.kind == Kind::Put).then(|| flags(header));
        let is_listed = after.is_some() || !planted(Planted::ListDeleted);
        (before != after && is_listed).then(|| Change::of(operation.key, after))
    }

    /// The keydir no longer points at this record.
    pub(super) fn no_longer_live(&self, record: &Current) {
        if planted(Planted::ForgetDead) {
            return;
        }
        if let Some(Some(segment)) = self.segments.load(record.location.segment_index()).as_deref() {
            segment.counters.remove_live(record.length());
        }
    }

    /// Takes one record back out of the indexes and counters, newest first. What was there before is put back without being
    /// read: that must not fail.
    pub(super) fn take_back(&self, segment: &Segment, undo: &Undo) {
        let mut scratch = Vec::new();
        // It lies in the append buffer, as all pending records do.
        let Ok(record) = segment.record(undo.offset, &mut scratch) else {
            return;
        };
        let location = segment.location(undo.offset);
        let (header, key) = (record.header, record.key());
        let length = header.record_len();
        let put = header.kind == Kind::Put;
        if let Some(previous) = undo.previous.filter(|_| !planted(Planted::TakeBackToNothing)) {
            // In place if the new record still stands there, so that no reader misses the key; it may have expired meanwhile.
            if put && self.keydir.replace(undo.hash, location, previous.location) {
                segment.counters.remove_live(length);
            } else {
                // There is room: it stood here before.
                let _ = self.keydir.insert(undo.hash, previous.location);
            }
            if let Some(before) = self.segments.get(previous.location.segment_index()) {
                before.counters.add_live(1, previous.length());
            }
            if let Some(expiry) = previous.expiry() {
                // A sweep or a cleaning may have dropped its entry meanwhile, since nothing pointed at it.
                lock(&self.expiry).push(expiry, previous.location);
            }
        } else if put && self.keydir.remove(undo.hash, location) {
            segment.counters.remove_live(length);
        }
        if !planted(Planted::CountTakenBack) {
            segment.counters.take_back(put, length);
        }
        if header.namespace != SYSTEM_NAMESPACE
            && let Some(namespace) = self.namespaces.by_number(header.namespace)
        {
            let before = undo.previous.map(|previous| previous.flags());
            self.change_order(&namespace, [Change::of(key, before)]);
        }
    }

    /// Lets the key order know of changes.
    fn change_order<'a>(&self, namespace: &NamespaceState, changes: impl IntoIterator<Item = Change<'a>>) {
        if namespace.number != SYSTEM_NAMESPACE {
            self.namespaces.change_order(namespace, changes);
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

/// What the key order keeps of a record.
pub(crate) fn flags(header: &Header) -> KeyFlags {
    let expires = if header.expiry.is_some() {
        KeyFlags::EXPIRES
    } else {
        KeyFlags::NONE
    };
    let metadata = if header.metadata_len.is_some() {
        KeyFlags::METADATA
    } else {
        KeyFlags::NONE
    };
    expires.union(metadata)
}
