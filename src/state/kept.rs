//! Records that have left the keydir and are kept for views, by the hash of their keys.
//!
//! A table like the keydir's: open addressing with linear probing, cut into shards so that none
//! takes long to grow. Entries are added and looked up; they are only removed all together, or by
//! building the table again without them.

use std::collections::HashMap;
use std::sync::Arc;

use crate::format::ALIGNMENT;
use crate::location::Location;
use crate::segment::Segment;

/// Number of upper hash bits that choose the shard.
const SHARD_BITS: u32 = 8;

/// A shard grows when more than 7 of 8 slots are used.
const FULL_NUMERATOR: usize = 7;
const FULL_DENOMINATOR: usize = 8;

/// Slots of the smallest table of a shard.
const SLOTS_MIN: usize = 8;

/// Bits of an offset in a place, counted in units of the alignment of records.
const OFFSET_BITS: u32 = 26;
/// Bits of a segment's number in a place.
const SEGMENT_BITS: u32 = 28;

const _: () = assert!(ALIGNMENT << OFFSET_BITS == Location::OFFSET_MAX);

/// A kept record.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Record {
    pub(super) hash: u64,
    /// Its sequence; 0 if that could not be read.
    pub(super) from: u64,
    /// Sequence of what replaced it.
    pub(super) until: u64,
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

/// A table in two parts. A look-up waits for memory at most once for each: it goes through the
/// slots, which are small, and needs what is beside one only if the slot seems to be the key's.
#[derive(Debug, Default)]
struct Shard {
    /// Of a power of two, or empty.
    slots: Vec<Slot>,
    /// What each slot has, as long as `slots`.
    records: Vec<Record>,
    used: usize,
}

/// A part of the hash, and the place of the record: number of the segment, and offset in it. 0 if
/// it is free, since no record has the offset 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Slot(u64);

/// A segment that is held as long as records in it are kept.
#[derive(Debug)]
struct Pin {
    segment: Arc<Segment>,
    records: usize,
}

impl Slot {
    const FREE: Slot = Slot(0);

    fn new(hash: u64, segment: usize, offset: u64) -> Slot {
        debug_assert!(offset != 0 && offset.is_multiple_of(ALIGNMENT) && segment < 1 << SEGMENT_BITS);
        Slot(Slot::tag(hash) | ((segment as u64) << OFFSET_BITS) | (offset / ALIGNMENT))
    }

    /// The bits of the hash that a slot has: other ones than those that choose shard and slot.
    fn tag(hash: u64) -> u64 {
        const SHIFT: u32 = OFFSET_BITS + SEGMENT_BITS;
        hash << SHARD_BITS >> SHIFT << SHIFT
    }

    fn may_be_of(self, hash: u64) -> bool {
        Slot::tag(hash) == self.0 & Slot::tag(u64::MAX)
    }

    fn segment(self) -> usize {
        (self.0 >> OFFSET_BITS) as usize & ((1 << SEGMENT_BITS) - 1)
    }

    fn offset(self) -> u64 {
        (self.0 & ((1 << OFFSET_BITS) - 1)) * ALIGNMENT
    }
}

impl Shard {
    /// Numbers of the slots from the home of a hash on, once around.
    fn probe(&self, hash: u64) -> impl Iterator<Item = usize> + use<> {
        let mask = self.slots.len().wrapping_sub(1);
        let home = hash as usize & mask;
        (0..self.slots.len()).map(move |step| (home + step) & mask)
    }

    /// The slots that may have records of this hash, with their numbers.
    fn of_tag(&self, hash: u64) -> impl Iterator<Item = (usize, Slot)> {
        let slots = self.probe(hash).map_while(|at| Some((at, *self.slots.get(at)?)));
        let used = slots.take_while(|(_, slot)| *slot != Slot::FREE);
        used.filter(move |(_, slot)| slot.may_be_of(hash))
    }

    /// All records, with their slots.
    fn all(&self) -> impl Iterator<Item = (Slot, &Record)> {
        let pairs = self.slots.iter().copied().zip(&self.records);
        pairs.filter(|(slot, _)| *slot != Slot::FREE)
    }

    /// Adds a record, or replaces the one of the same hash and sequence, whose slot is returned.
    fn insert(&mut self, new: Slot, record: Record) -> Option<Slot> {
        if (self.used + 1) * FULL_DENOMINATOR > self.slots.len() * FULL_NUMERATOR {
            self.grow();
        }
        for at in self.probe(record.hash) {
            let (Some(slot), Some(standing)) = (self.slots.get_mut(at), self.records.get_mut(at)) else {
                break;
            };
            if *slot == Slot::FREE {
                (*slot, *standing) = (new, record);
                self.used += 1;
                return None;
            }
            if slot.may_be_of(record.hash) && (standing.hash, standing.from) == (record.hash, record.from) {
                *standing = record;
                return Some(std::mem::replace(slot, new));
            }
        }
        None
    }

    fn grow(&mut self) {
        let slots = (self.slots.len() * 2).max(SLOTS_MIN);
        let larger = Shard {
            slots: vec![Slot::FREE; slots],
            records: vec![Record::default(); slots],
            used: 0,
        };
        let old = std::mem::replace(self, larger);
        for (slot, record) in old.all() {
            self.insert(slot, *record);
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
        let is_of_hash = |shard: &Shard, at: usize| shard.records.get(at).is_some_and(|record| record.hash == hash);
        self.shard(hash)
            .is_some_and(|shard| shard.of_tag(hash).any(|(at, _)| is_of_hash(shard, at)))
    }

    /// Segment and offset of the record of this hash that was the newest at this sequence; of other
    /// keys with the same hash, after this many of them.
    pub(super) fn find(
        &self,
        hash: u64,
        is_visible: impl Fn(&Record) -> bool,
        after: usize,
    ) -> Option<(Arc<Segment>, u64)> {
        let shard = self.shard(hash)?;
        let mut visible = shard.of_tag(hash).filter_map(|(at, slot)| {
            let segment = &self.segments.get(slot.segment())?.as_ref()?.segment;
            // While what is beside the slot is waited for: the record will be read next.
            segment.prefetch([slot.offset()]);
            let record = shard.records.get(at)?;
            (record.hash == hash && is_visible(record)).then_some((segment, slot.offset()))
        });
        let (segment, offset) = visible.nth(after)?;
        Some((segment.clone(), offset))
    }

    /// Keeps the record at this offset of a segment.
    pub(super) fn insert(&mut self, hash: u64, (from, until): (u64, u64), segment: &Arc<Segment>, offset: u64) {
        let number = self.pin(segment);
        if self.shards.is_empty() {
            self.shards = (0..1 << SHARD_BITS).map(|_| Shard::default()).collect();
        }
        let record = Record { hash, from, until };
        let shard = self.shards.get_mut((hash >> (u64::BITS - SHARD_BITS)) as usize);
        match shard.and_then(|shard| shard.insert(Slot::new(hash, number, offset), record)) {
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
            for (slot, record) in shard.all() {
                if is_needed(record) {
                    left.insert(slot, *record);
                } else {
                    released.push(slot.segment());
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
        (slots * (size_of::<Slot>() + size_of::<Record>())) as u64
    }
}

impl Drop for KeptRecords {
    fn drop(&mut self) {
        self.segments().for_each(|segment| segment.hold_file(false));
    }
}

#[cfg(test)]
mod tests;
