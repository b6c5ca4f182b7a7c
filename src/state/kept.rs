//! Records that have left the keydir and are kept for views, by the hash of their keys.
//!
//! A table like the keydir's: open addressing with linear probing, cut into shards so that none takes
//! long to grow. Entries are added and looked up; they are only removed all together, or by building
//! the table again without them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::segment::Segment;

/// Number of upper hash bits that choose the shard.
const SHARD_BITS: u32 = 8;

/// A shard grows when more than 7 of 8 slots are used.
const FULL_NUMERATOR: usize = 7;
const FULL_DENOMINATOR: usize = 8;

/// Slots of the smallest table of a shard.
const SLOTS_MIN: usize = 8;

/// Bits of an offset in a place.
const OFFSET_BITS: u32 = 40;

/// A kept record. A sequence is never 0, and no slot in use has an `until` of 0.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Record {
    pub(super) hash: u64,
    /// Its sequence; 0 if that could not be read.
    pub(super) from: u64,
    /// Sequence of what replaced it; 0 in a free slot.
    pub(super) until: u64,
    /// Number of the segment, and the offset in it.
    place: u64,
}

/// The records, and the segments that they are in.
#[derive(Debug, Default)]
pub(super) struct KeptRecords {
    shards: Box<[Shard]>,
    len: usize,
    /// By number.
    segments: Vec<Option<Pin>>,
    /// By id.
    numbers: HashMap<u64, usize>,
    /// Numbers that are not in use.
    free: Vec<usize>,
}

#[derive(Debug, Default)]
struct Shard {
    /// Of a power of two, or empty.
    slots: Vec<Record>,
    used: usize,
}

/// A segment that is held as long as records in it are kept.
#[derive(Debug)]
struct Pin {
    segment: Arc<Segment>,
    records: usize,
}

impl Record {
    fn segment(&self) -> usize {
        (self.place >> OFFSET_BITS) as usize
    }

    fn offset(&self) -> u64 {
        self.place & ((1 << OFFSET_BITS) - 1)
    }
}

impl Shard {
    /// The slots from the home of a hash on, once around.
    fn probe(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        // Shard and slot are chosen by different bits.
        let mask = self.slots.len().wrapping_sub(1);
        let home = hash as usize & mask;
        (0..self.slots.len()).map(move |step| (home + step) & mask)
    }

    /// The records of this hash.
    fn of_hash(&self, hash: u64) -> impl Iterator<Item = &Record> {
        let records = self.probe(hash).map_while(|slot| self.slots.get(slot));
        let used = records.take_while(|record| record.until != 0);
        used.filter(move |record| record.hash == hash)
    }

    /// Adds a record, or replaces the one of the same hash and sequence, which is returned.
    fn insert(&mut self, record: Record) -> Option<Record> {
        if (self.used + 1) * FULL_DENOMINATOR > self.slots.len() * FULL_NUMERATOR {
            self.grow();
        }
        for slot in self.probe(record.hash) {
            let Some(standing) = self.slots.get_mut(slot) else {
                break;
            };
            if standing.until == 0 {
                *standing = record;
                self.used += 1;
                return None;
            }
            if standing.hash == record.hash && standing.from == record.from {
                return Some(std::mem::replace(standing, record));
            }
        }
        None
    }

    fn grow(&mut self) {
        let slots = (self.slots.len() * 2).max(SLOTS_MIN);
        let old = std::mem::replace(&mut self.slots, vec![Record::default(); slots]);
        self.used = 0;
        for record in old.into_iter().filter(|record| record.until != 0) {
            self.insert(record);
        }
    }
}

impl KeptRecords {
    fn shard(&self, hash: u64) -> Option<&Shard> {
        self.shards.get((hash >> (u64::BITS - SHARD_BITS)) as usize)
    }

    /// Number of records.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether any record of this hash is kept.
    pub(super) fn has(&self, hash: u64) -> bool {
        self.shard(hash)
            .is_some_and(|shard| shard.of_hash(hash).next().is_some())
    }

    /// Segment and offset of the record of this hash that was the newest at this sequence; of other
    /// keys with the same hash, after so many of them.
    pub(super) fn find(
        &self,
        hash: u64,
        is_visible: impl Fn(&Record) -> bool,
        after: usize,
    ) -> Option<(Arc<Segment>, u64)> {
        let mut visible = self.shard(hash)?.of_hash(hash).filter(|record| is_visible(record));
        let record = visible.nth(after)?;
        let pin = self.segments.get(record.segment())?.as_ref()?;
        Some((pin.segment.clone(), record.offset()))
    }

    /// Keeps the record at this offset of a segment.
    pub(super) fn insert(&mut self, hash: u64, (from, until): (u64, u64), segment: &Arc<Segment>, offset: u64) {
        let number = self.pin(segment);
        if self.shards.is_empty() {
            self.shards = (0..1 << SHARD_BITS).map(|_| Shard::default()).collect();
        }
        let record = Record {
            hash,
            from,
            until,
            place: (number as u64) << OFFSET_BITS | offset,
        };
        let shard = self.shards.get_mut((hash >> (u64::BITS - SHARD_BITS)) as usize);
        match shard.and_then(|shard| shard.insert(record)) {
            // Rolled back and replaced again, it is the same record.
            Some(standing) => self.unpin(standing.segment()),
            None => self.len += 1,
        }
    }

    /// Drops the records that are not needed.
    pub(super) fn retain(&mut self, is_needed: impl Fn(&Record) -> bool) {
        let shards = std::mem::take(&mut self.shards);
        self.len = 0;
        let mut kept: Vec<Shard> = Vec::with_capacity(shards.len());
        let mut released = Vec::new();
        for shard in shards {
            let mut left = Shard::default();
            for record in shard.slots.into_iter().filter(|record| record.until != 0) {
                if is_needed(&record) {
                    left.insert(record);
                } else {
                    released.push(record.segment());
                }
            }
            self.len += left.used;
            kept.push(left);
        }
        self.shards = kept.into();
        released.into_iter().for_each(|number| self.unpin(number));
    }

    fn pin(&mut self, segment: &Arc<Segment>) -> usize {
        let (segments, free) = (&mut self.segments, &mut self.free);
        let number = *self.numbers.entry(segment.id()).or_insert_with(|| {
            free.pop().unwrap_or_else(|| {
                segments.push(None);
                segments.len() - 1
            })
        });
        if let Some(slot) = self.segments.get_mut(number) {
            let pin = slot.get_or_insert_with(|| {
                segment.hold_file(true);
                Pin {
                    segment: segment.clone(),
                    records: 0,
                }
            });
            pin.records += 1;
        }
        number
    }

    fn unpin(&mut self, number: usize) {
        let Some(slot) = self.segments.get_mut(number) else {
            return;
        };
        if let Some(pin) = slot {
            pin.records -= 1;
            if pin.records == 0 {
                pin.segment.hold_file(false);
                self.numbers.remove(&pin.segment.id());
                self.free.push(number);
                *slot = None;
            }
        }
    }

    /// Replaces the object of a segment by another of the same segment; returns the old one, whose
    /// file the caller lets go.
    pub(super) fn replace_segment(&mut self, segment: &Arc<Segment>) -> Option<Arc<Segment>> {
        let number = *self.numbers.get(&segment.id())?;
        let pin = self.segments.get_mut(number)?.as_mut()?;
        segment.hold_file(true);
        Some(std::mem::replace(&mut pin.segment, segment.clone()))
    }

    /// The segments that are held.
    pub(super) fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.segments.iter().flatten().map(|pin| &pin.segment)
    }

    /// Memory of the table, in bytes.
    pub(super) fn memory_bytes(&self) -> u64 {
        let slots: usize = self.shards.iter().map(|shard| shard.slots.capacity()).sum();
        (slots * size_of::<Record>()) as u64
    }
}

impl Drop for KeptRecords {
    fn drop(&mut self) {
        self.segments().for_each(|segment| segment.hold_file(false));
    }
}

#[cfg(test)]
mod tests;
