//! Writing: from checked operations to records in the log and entries in the indexes.

use std::collections::HashMap;
use std::sync::Arc;

use super::seal::{Applied, ReservePart};
use super::writer::{Guard, Undo};
use super::{Engine, Lookup, lock};
use crate::error::{Error, Result};
use crate::format::record::{BatchBegin, FIXED_HEADER_LEN, Header, Kind, RunCrc, body_crc};
use crate::format::segment::Mark;
use crate::format::{ALIGNMENT, aligned};
use crate::index::keydir::Location;
use crate::index::namespaces::{NamespaceState, SYSTEM_NAMESPACE, encode_number};
use crate::index::order::{Change, KeyFlags, KeyOrder};
use crate::options::{Condition, Durability};
use crate::planted::{Planted, planted};
use crate::segment::Segment;

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
        self.check_open()?;
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
                sequence,
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
        self.check_open()?;
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
        self.with_reserve(ReservePart::of_write(deletes), || {
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
        self.time.appending(frame_sequence);
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
            if repeats {
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
        let is_expired =
            |header: &Header| header.expiry.is_some() && self.time.now().is_expired(header.expiry, header.sequence);
        let live = current.filter(|current| !current.header().is_some_and(is_expired));
        if let Some(condition) = ready.operation.condition {
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
        if due {
            guard.marked_sequence = guard.durable_sequence;
            let mark = guard.durable_end.encode();
            self.append(guard, Kind::Mark, &mark);
        }
    }

    fn append_ready(&self, guard: &mut Guard<'_>, ready: &Ready<'_>, current: Option<&Current>) -> u64 {
        self.time.appending(guard.next_sequence);
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
        (before != after).then(|| Change::of(operation.key, after))
    }

    /// The keydir no longer points at this record.
    pub(super) fn no_longer_live(&self, record: &Current) {
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
        if let Some(previous) = undo.previous {
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
        segment.counters.take_back(put, length);
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
    if operation.namespace.is_dropped() {
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

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::index::keydir::CAPACITY_MAX;
    use crate::storage::{Fault, FaultKind, FaultStorage, Interposed, Interposer, MemStorage, Operation as Call};
    use crate::{ErrorKind, Maintenance, Namespace, PutOptions, ReadMode, Store};

    /// A store that reads its segments from the disk.
    fn open(disk: &MemStorage) -> (FaultStorage, Store, Namespace) {
        let faults = FaultStorage::new(Arc::new(disk.clone()));
        let store = Store::options()
            .maintenance(Maintenance::Manual)
            .read_mode(ReadMode::Pread)
            .storage(Arc::new(faults.clone()))
            .open("/store")
            .unwrap();
        let namespace = store.namespace("N").unwrap();
        (faults, store, namespace)
    }

    /// Seals what there is and damages the header of the key's record; returns where that is.
    fn damage_header(disk: &MemStorage, store: &Store, namespace: &Namespace, key: &str) -> Location {
        let engine = store.engine();
        engine.retire_active().unwrap();
        engine.seal_all().unwrap();
        let (number, key) = (namespace.state.number, key.as_bytes());
        let (location, _) = engine
            .find_header(number, key, engine.hash(number, key))
            .unwrap()
            .unwrap();
        let id = engine.segments.get(location.segment_index()).unwrap().id();
        disk.flip_bit(engine.segment_path(id), (location.offset() + 12) * 8)
            .unwrap();
        location
    }

    fn refused<T: std::fmt::Debug>(result: Result<T>) -> ErrorKind {
        result.unwrap_err().kind()
    }

    /// C15
    #[test]
    fn a_key_whose_hash_is_that_of_a_damaged_one_is_written_beside_it() {
        let disk = MemStorage::new();
        let (_, store, namespace) = open(&disk);
        namespace.put("damaged", "value").unwrap();
        let location = damage_header(&disk, &store, &namespace, "damaged");
        let engine = store.engine();
        // As if the hashes of the two agreed in what the index keeps of them.
        let hash = engine.hash(namespace.state.number, b"new");
        engine.keydir.insert(hash, location).unwrap();
        for _ in 0..2 {
            assert!(namespace.get("new").unwrap().is_none());
            assert!(!namespace.delete("new").unwrap());
            namespace.put_if("new", "1", Condition::Absent).unwrap();
            namespace.put("new", "2").unwrap();
            assert_eq!(namespace.get_text("new").unwrap().as_deref(), Some("2"));
            assert!(namespace.contains("new").unwrap());
            assert!(engine.keydir.holds(hash, location), "the slot of the other key");
            assert_eq!(refused(namespace.get("damaged")), ErrorKind::Corruption);
            assert!(namespace.delete("new").unwrap());
        }
        engine.keydir.remove(hash, location);
        namespace.put("damaged", "new").unwrap();
        assert_eq!(namespace.get_text("damaged").unwrap().as_deref(), Some("new"));
    }

    /// C15: what a failed write had put in the place of a damaged record is taken back to it.
    #[test]
    fn a_failed_write_over_a_damaged_record_leaves_it_as_damaged_as_it_was() {
        let disk = MemStorage::new();
        let (faults, store, namespace) = open(&disk);
        namespace
            .put_with("key", "value", PutOptions::new().metadata("m"))
            .unwrap();
        namespace.put("other", "value").unwrap();
        let location = damage_header(&disk, &store, &namespace, "key");
        let engine = store.engine();
        let segment = engine.segments.get(location.segment_index()).unwrap();
        let before = segment.counters.get();
        let writes: [&dyn Fn() -> Result<()>; 4] = [
            &|| namespace.put("key", "new").map(drop),
            &|| namespace.delete("key").map(drop),
            &|| {
                store
                    .batch()
                    .put(&namespace, "key", "1")
                    .delete(&namespace, "key")
                    .commit()
                    .map(drop)
            },
            &|| {
                store
                    .batch()
                    .delete(&namespace, "key")
                    .put(&namespace, "key", "1")
                    .commit()
                    .map(drop)
            },
        ];
        for write in writes {
            faults.inject(Fault::new(FaultKind::Error(std::io::ErrorKind::Other)).on(Call::Write));
            assert_eq!(refused(write()), ErrorKind::Io);
            assert_eq!(segment.counters.get(), before);
            assert_eq!(namespace.state.order.flags(b"key"), Some(KeyFlags::METADATA));
            assert_eq!(refused(namespace.get("key")), ErrorKind::Corruption);
        }
        namespace.put("key", "new").unwrap();
        assert_eq!(segment.counters.get().live_puts, before.live_puts - 1);
        namespace.put("other", "new").unwrap();
        // The namespace's own record.
        store.rename_namespace("N", "M").unwrap();
        let after = segment.counters.get();
        assert_eq!((after.live_puts, after.live_bytes), (0, 0));
    }

    /// C15: a namespace whose own record is damaged, and a key of one that is dropped.
    #[test]
    fn damage_keeps_no_namespace_from_being_renamed_and_dropped_and_no_slot_from_being_freed() {
        let disk = MemStorage::new();
        let (_, store, namespace) = open(&disk);
        namespace.put("key", "value").unwrap();
        let location = damage_header(&disk, &store, &namespace, "key");
        let engine = store.engine();
        let segment = engine.segments.get(location.segment_index()).unwrap();
        let number = encode_number(namespace.state.number);
        let hash = engine.hash(SYSTEM_NAMESPACE, &number);
        let (own, _) = engine.find_header(SYSTEM_NAMESPACE, &number, hash).unwrap().unwrap();
        disk.flip_bit(engine.segment_path(segment.id()), (own.offset() + 12) * 8)
            .unwrap();
        store.rename_namespace("N", "M").unwrap();
        store.create_namespace("N").unwrap();
        store.drop_namespace("M").unwrap();
        store.maintain().unwrap();
        assert_eq!(segment.counters.get().live_puts, 0);
        assert_eq!(engine.keydir.len(), 1);
        store.close().unwrap();
        let (_, store, _) = open(&disk);
        assert_eq!(store.namespaces().unwrap().len(), 1);
    }

    /// C7: what the index cannot hold is refused before it is in the log, and nothing else is.
    #[test]
    fn a_full_hash_index_refuses_new_keys_and_goes_on_with_the_others() {
        CAPACITY_MAX.set(64);
        let disk = MemStorage::new();
        let (_, store, namespace) = open(&disk);
        let engine = store.engine();
        let keys: Vec<String> = (0..)
            .map(|number: u32| number.to_string())
            .filter(|key| engine.hash(namespace.state.number, key.as_bytes()) >> 54 == 5)
            .take(60)
            .collect();
        let put = |key: &String| {
            let buffered = PutOptions::new().durability(Durability::Buffered);
            namespace.put_with(key, "value", buffered)
        };
        let mut held = 0;
        for key in &keys {
            match put(key) {
                Ok(_) => held += 1,
                Err(error) => assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}"),
            }
        }
        // 7/8 of the largest table, one less if the namespace's own record is in this shard.
        assert!((55..=56).contains(&held), "{held}");
        assert_eq!(store.stats().poisoned, None);
        let sequence = store.stats().last_sequence;
        let batch = store
            .batch()
            .put(&namespace, &keys[0], "new")
            .put(&namespace, &keys[59], "new");
        assert_eq!(refused(batch.commit()), ErrorKind::InvalidInput);
        assert_eq!(store.stats().last_sequence, sequence, "nothing was appended");
        assert_eq!(namespace.get_text(&keys[0]).unwrap().as_deref(), Some("value"));
        put(&keys[0]).unwrap();
        for key in &keys[1..4] {
            assert!(namespace.delete(key).unwrap());
        }
        // Three fit, four do not, and a key that comes twice counts twice.
        let batch = |keys: &[String]| {
            let batch = keys
                .iter()
                .fold(store.batch(), |batch, key| batch.put(&namespace, key, "new"));
            batch.commit()
        };
        assert_eq!(refused(batch(&keys[56..60])), ErrorKind::InvalidInput);
        batch(&keys[57..60]).unwrap();
        drop(namespace);
        store.close().unwrap();
        let (_, _, namespace) = open(&disk);
        assert_eq!(namespace.count().unwrap(), held);
        assert_eq!(namespace.get_text(&keys[59]).unwrap().as_deref(), Some("new"));
    }

    /// C7: opening enters shadows too, and draws the hashes anew, by which the keys spread less evenly.
    #[test]
    fn a_store_that_filled_its_hash_index_opens_again_without_an_index_file() {
        CAPACITY_MAX.set(8);
        let disk = MemStorage::new();
        let (_, store, namespace) = open(&disk);
        let buffered = || PutOptions::new().durability(Durability::Buffered);
        let mut held = std::collections::BTreeSet::new();
        for number in 0..7_500 {
            let key = number.to_string();
            if namespace.put_with(&key, "value", buffered()).is_ok() {
                held.insert(key);
            }
        }
        assert!((6_000..7_168).contains(&held.len()), "{}", held.len());
        for number in 0..200 {
            let key = number.to_string();
            namespace.delete_with(&key, None, Some(Durability::Buffered)).unwrap();
            held.remove(&key);
        }
        for number in 8_000..9_000 {
            let key = number.to_string();
            if namespace.put_with(&key, "value", buffered()).is_ok() {
                held.insert(key);
            }
        }
        drop(namespace);
        store.close().unwrap();
        for with_index_file in [false, true] {
            if !with_index_file {
                disk.remove_file("/store/INDEX").unwrap();
            }
            let (_, store, namespace) = open(&disk);
            assert_eq!(store.recovery_report().index_file_used, with_index_file);
            assert_eq!(namespace.count().unwrap(), held.len() as u64);
            for key in &held {
                assert!(namespace.contains(key).unwrap(), "{key}");
            }
            // Keys that are there can be written, and new ones are refused where there is no room.
            for key in held.iter().take(100) {
                namespace.put_with(key, "new", buffered()).unwrap();
            }
            let new = (0..100).map(|number| namespace.put_with(format!("new {number}"), "value", buffered()));
            let refusals: Vec<_> = new.filter_map(Result::err).collect();
            assert!(!refusals.is_empty());
            assert!(refusals.iter().all(|error| error.kind() == ErrorKind::InvalidInput));
            for number in 0..100 {
                namespace.delete(format!("new {number}")).unwrap();
            }
            assert_eq!(store.stats().poisoned, None);
            drop(namespace);
            store.close().unwrap();
        }
    }

    /// Calls back at the read with this number of those to come.
    struct AtRead {
        left: AtomicU64,
        then: Mutex<Option<Box<dyn FnOnce() + Send>>>,
    }

    impl std::fmt::Debug for AtRead {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("AtRead")
        }
    }

    impl Interposer for AtRead {
        fn around(
            &self,
            call: &crate::storage::Call<'_>,
            make: &mut dyn FnMut() -> std::io::Result<()>,
        ) -> std::io::Result<()> {
            if call.operation == Call::Read && self.left.fetch_sub(1, Ordering::Relaxed) == 1 {
                let then = lock(&self.then).take();
                then.into_iter().for_each(|then| then());
            }
            make()
        }
    }

    /// C15: the reader finds another's damage and no record, and then the key in the order.
    #[test]
    fn a_key_that_is_put_while_a_reader_looks_at_damage_of_another_is_not_damaged() {
        let mut seen = [0, 0];
        for (looks_at_header, read) in [false, true]
            .iter()
            .flat_map(|header| (1..12).map(move |read| (*header, read)))
        {
            let disk = MemStorage::new();
            let at_read = Arc::new(AtRead {
                left: AtomicU64::new(0),
                then: Mutex::new(None),
            });
            let store = Store::options()
                .maintenance(Maintenance::Manual)
                .read_mode(ReadMode::Pread)
                .storage(Arc::new(Interposed::over(Arc::new(disk.clone()), at_read.clone())))
                .open("/store")
                .unwrap();
            let namespace = store.namespace("N").unwrap();
            namespace.put("damaged", "value").unwrap();
            let location = damage_header(&disk, &store, &namespace, "damaged");
            let engine = store.engine();
            // As if the hashes of the two agreed; the slot before is free, so that a look under way does not come by the new key.
            let hash = engine.hash(namespace.state.number, b"new");
            let before = Location::from_bits(location.bits() + 1);
            engine.keydir.insert(hash, before).unwrap();
            engine.keydir.insert(hash, location).unwrap();
            assert!(engine.keydir.remove(hash, before));
            let writer = namespace.clone();
            *lock(&at_read.then) = Some(Box::new(move || {
                let (done, put) = std::sync::mpsc::channel();
                std::thread::spawn(move || done.send(writer.put("new", "1").is_ok()));
                // It comes later if the reader keeps writers out just now.
                assert_ne!(put.recv_timeout(std::time::Duration::from_millis(100)), Ok(false));
            }));
            at_read.left.store(read, Ordering::Relaxed);
            let found = if looks_at_header {
                namespace.contains("new").unwrap()
            } else {
                namespace.get("new").unwrap().is_some()
            };
            seen[usize::from(found)] += 1;
            assert_eq!(refused(namespace.get("damaged")), ErrorKind::Corruption);
        }
        assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
    }
}
