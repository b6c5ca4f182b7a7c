//! The keydir: the hash index from a key's hash to the location of its newest record.
//!
//! It holds one 8-byte slot per key and no keys. A slot is a tag (22 bits of the hash) and a
//! [`Location`]. The caller confirms that a slot belongs to a key by reading the record it points
//! to, because the keydir knows no files. The keydir can be rebuilt from the log at any time, and
//! written out and read back as it is.
//!
//! ```text
//!   hash   63        54 53             32 31                0
//!         +------------+-----------------+-------------------+
//!         | shard (10) |    tag (22)     |      unused       |   the upper half must be well mixed
//!         +------------+-----------------+-------------------+
//!
//!   slot   63             42 41              26 25             0
//!         +-----------------+------------------+----------------+
//!         |    tag (22)     | segment idx (16) | offset/8 (26)  |   0: EMPTY   1: DELETED
//!         +-----------------+------------------+----------------+
//! ```
//!
//! # Concurrency
//!
//! Readers ([`Keydir::find`], [`Keydir::first`], [`Keydir::holds`], [`Keydir::candidates`],
//! [`Keydir::for_each`]) take no lock. Writers take the mutex of one shard, so any number of them
//! may run; the store serialises its writers anyway, so that mutex is uncontended. Callbacks passed
//! to readers may call the keydir again. The callback of [`Keydir::upsert`] runs under the shard's
//! mutex and must not.
//!
//! # Why a reader never misses a key that is present during its whole look-up
//!
//! A shard's table is open-addressed: a key's probe begins at its home slot, continues slot by
//! slot, wraps around, and ends at the first EMPTY slot or after visiting every slot. Three rules
//! hold:
//!
//! 1. **An entry never moves inside a table.** Replacing stores over the same slot.
//! 2. **No slot between an entry and its home is EMPTY** while the entry is present. Inserting
//!    takes the first free slot of the probe, so the rule holds at first. Only removal writes
//!    EMPTY, and only over a slot whose successor is EMPTY: by the rule itself, no entry beyond
//!    that slot can have a probe that passes through it.
//! 3. **A replaced table never changes again.** Growing, shrinking and cleaning up fill a new table
//!    that no reader can see, then publish it whole.
//!
//! Suppose K was inserted before the look-up began and is not removed before it ends. The reader
//! holds one table throughout. If that table stays current, every slot from K's home to K was
//! written non-EMPTY before the look-up began and stays so (2). Atomics are coherent, so the reader
//! sees these values or later ones and arrives at K's slot (1), where it sees a location that K had
//! during the look-up. If the table is replaced during the look-up, it is frozen (3) with K in it.
//! A newly published table was complete before any reader could load it.
//!
//! **Reusing a DELETED slot causes no false miss either.** Let K be removed from slot p and put
//! back into a DELETED slot q earlier in its probe. A reader that passes q before K is put there
//! and then finds K gone from p misses K. But it passed q before the second insertion and read p
//! after the removal, so the interval in which K was absent overlaps the look-up, and "absent" was
//! true at some moment during it. That is why overwriting a key must be [`Keydir::replace`] and
//! never a removal followed by an insertion. The same holds when a rebuild gives K its new slot: a
//! reader uses either the old table or the new one.
//!
//! **Memory orderings.** Slots are stored with Release and loaded with Acquire. A reader that sees
//! a location therefore also sees the record, which was written before the location was stored. For
//! a reader that sees a slot EMPTY, DELETED or reused after K's removal, the removal happened
//! before, so it has not missed a present key. Loads of one probe stay in program order (Acquire),
//! as the argument on reuse requires. `ArcSwap` publishes a table with at least the same strength.
//! Counts live under the mutex and need no atomics.
//!
//! **A reader may still get** a location that was replaced or removed a moment ago, and whose
//! segment may be gone. The keydir does not retry: a caller whose `confirm` fails for that reason
//! checks [`Keydir::holds`] or repeats the look-up.
//!
//! # Sizes
//!
//! A table is rebuilt when more than 7/8 of its slots are used, and is then 0.62 to 0.70 full; the
//! fill differs by shard so that shards of equal size do not all grow at once; see [`sizing`]. That
//! gives 9 to 13 bytes per key, 10.6 on average. A table that loses keys is rebuilt when it is less
//! than 1/4 full, by the removal itself, or when it is half again as large as a rebuilt one would
//! be, by [`Keydir::shrink`], which the store calls from time to time. A rebuild blocks only the
//! writers of one shard.
//!
//! # Limitations
//!
//! A shard has at most 2^22 slots and keeps at most 7/8 of them live, 3.7 billion keys in all;
//! beyond that, inserting returns [`Full`]. [`Keydir::upsert`], used when a store is opened, has no
//! such limit: it also enters shadows, and the seeds may differ from those under which the store
//! was filled and spread its keys less evenly. Each other key with the same tag costs a
//! confirmation: below 100 million keys fewer than one look-up in forty meets one. Keys chosen to
//! have equal hashes make look-ups linear, hence the seeded hash.

mod ahead;
mod room;
mod shard;
mod sizing;
mod slot;
mod table;

#[cfg(all(test, shuttle))]
mod interleavings;
#[cfg(all(test, not(shuttle)))]
mod tests;

use std::hint::black_box;
use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::format::{Damage, Fields, Stored};
use crate::location::Location;

pub(crate) use room::Shares;
use shard::{Fill, Shard};
#[cfg(test)]
pub(crate) use sizing::CAPACITY_MAX;
use sizing::Sizing;
use slot::{Slot, Tag};
use table::Table;

/// Number of upper hash bits that choose the shard. A thousand shards keep the largest rebuild, at
/// 100 million keys, near a millisecond; under shuttle there are two, so that an exploration spends
/// its steps on slots.
const SHARD_BITS: u32 = if cfg!(shuttle) { 1 } else { 10 };

/// Tables held at a time by [`Keydir::candidates`]: as many as a thread can borrow from `ArcSwap`
/// without counting references.
const CANDIDATES_GROUP: usize = 8;

/// The number of shards.
const SHARDS: usize = 1 << SHARD_BITS;

// Shard and tag share no bits of the hash; otherwise tags would tell fewer keys of a shard apart.
const _: () = assert!(SHARD_BITS + Tag::BITS + Tag::SHIFT <= u64::BITS);

/// The hash index; see the module docs for its rules.
pub(crate) struct Keydir {
    /// Always `SHARDS` of them, in the order of the upper bits of the hash.
    shards: Box<[Shard]>,
    /// Whether a table has become far larger than its keys need since the last
    /// [`Keydir::shrink`].
    is_loose: AtomicBool,
}

/// How a candidate location relates to the record being entered by [`Keydir::upsert`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Relation {
    /// The candidate is a record of another key whose hash has the same tag.
    OtherKey,
    /// The candidate is an older record of the same key.
    SameKeyOlder,
    /// The candidate is a newer record of the same key, or the same record.
    SameKeyNewer,
}

/// What [`Keydir::upsert`] did.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Upsert {
    /// The key was absent and is now present.
    Inserted,
    /// The key had this older location, which was replaced.
    Replaced(Location),
    /// The key has this newer location, which was left alone.
    Kept(Location),
}

/// The error of inserting into a shard that already holds the maximum number of keys.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Full;

impl Keydir {
    /// An empty keydir. Its shards share one table without slots, so it costs a few dozen bytes per
    /// shard.
    pub(crate) fn new() -> Self {
        Self::with_capacity(0)
    }

    /// An empty keydir with room for about this many keys, so that opening a store does not grow
    /// every table from nothing.
    pub(crate) fn with_capacity(keys: usize) -> Self {
        let empty = Arc::new(Table::new(0));
        // A well-mixed hash gives shards equal shares; the room between 0.70 and 7/8 absorbs
        // deviations.
        let share = keys / SHARDS;
        let shards = (0..SHARDS)
            .map(|index| Shard::new(Sizing::of_shard(index, SHARDS), share, &empty))
            .collect();
        Self {
            shards,
            is_loose: AtomicBool::new(false),
        }
    }

    /// Looks up a key by its hash, without a lock.
    ///
    /// `confirm` reads the record at a location and compares the key. It is called on each location
    /// stored under the hash's tag until it returns `Ok(true)`; these include other keys with the
    /// same tag, and possibly locations replaced a moment ago. An `Err` of `confirm` ends the
    /// look-up and is returned.
    #[inline]
    pub(crate) fn find<E>(
        &self,
        hash: u64,
        mut confirm: impl FnMut(Location) -> Result<bool, E>,
    ) -> Result<Option<Location>, E> {
        let table = self.shard(hash).table();
        for location in table.candidates(Tag::of(hash)) {
            if confirm(location)? {
                return Ok(Some(location));
            }
        }
        Ok(None)
    }

    /// The first location that [`Keydir::find`] would ask about; None if the key is absent. Takes
    /// no lock.
    #[inline]
    pub(crate) fn first(&self, hash: u64) -> Option<Location> {
        self.shard(hash).table().first(Tag::of(hash))
    }

    /// Whether exactly this location is stored under this hash. Takes no lock. Used by compaction,
    /// and by readers that lost a race, before trusting a location.
    #[inline]
    pub(crate) fn holds(&self, hash: u64, location: Location) -> bool {
        let table = self.shard(hash).table();
        table.candidates(Tag::of(hash)).any(|standing| standing == location)
    }

    /// For each hash, the first location under its tag, unconfirmed. Takes no lock. If the key is
    /// present the location is very likely its own, which is good enough to prefetch the records of
    /// many keys before finding them. The cache misses on the slots overlap: within a group only
    /// plain loads separate them.
    pub(crate) fn candidates(&self, hashes: &[u64], found: &mut Vec<Option<Location>>) {
        for group in hashes.chunks(CANDIDATES_GROUP) {
            let tables: [_; CANDIDATES_GROUP] =
                std::array::from_fn(|number| group.get(number).map(|hash| self.shard(*hash).table()));
            let pairs = || {
                tables
                    .iter()
                    .flatten()
                    .zip(group)
                    .map(|(table, hash)| (table, Tag::of(*hash)))
            };
            // A branch on a slot waits for its load, so touch all slots first.
            black_box(pairs().fold(0, |touched, (table, tag)| touched ^ table.touch(tag)));
            found.extend(pairs().map(|(table, tag)| table.first(tag)));
        }
    }

    /// Whether keys with these hashes, all absent, can be inserted. If so, and no other thread
    /// inserts any, [`Keydir::insert`] does not fail.
    #[inline]
    pub(crate) fn has_room(&self, hashes: &[u64]) -> bool {
        if let [hash] = hashes {
            return self.shard(*hash).has_room(1);
        }
        // Fast path: as if all of them fell into one shard. Fails only for nearly full shards.
        if hashes.iter().all(|hash| self.shard(*hash).has_room(hashes.len())) {
            return true;
        }
        let mut sorted = hashes.to_vec();
        sorted.sort_unstable();
        sorted
            .chunk_by(|a, b| std::ptr::eq(self.shard(*a), self.shard(*b)))
            .all(|together| {
                together
                    .first()
                    .is_none_or(|hash| self.shard(*hash).has_room(together.len()))
            })
    }

    /// Inserts a key that the caller knows to be absent. Inserting a present key would give it two
    /// slots, and look-ups might find the older one.
    #[inline]
    pub(crate) fn insert(&self, hash: u64, location: Location) -> Result<(), Full> {
        self.shard(hash).insert(Slot::new(Tag::of(hash), location))
    }

    /// Replaces a key's location in its slot, so that no reader sees the key absent in between.
    /// Returns false and changes nothing if `old` is not stored under the hash: a newer write has
    /// won.
    #[inline]
    pub(crate) fn replace(&self, hash: u64, old: Location, new: Location) -> bool {
        let tag = Tag::of(hash);
        self.shard(hash).replace(Slot::new(tag, old), Slot::new(tag, new))
    }

    /// Removes a key. Returns false and changes nothing if `location` is not stored under the hash:
    /// a newer write has won.
    #[inline]
    pub(crate) fn remove(&self, hash: u64, location: Location) -> bool {
        let shard = self.shard(hash);
        let removed = shard.remove(Slot::new(Tag::of(hash), location));
        if removed == Some(Fill::Loose) {
            // A plain load first: while many are removed, this is set already.
            if !self.is_loose.load(Ordering::Relaxed) {
                self.is_loose.store(true, Ordering::Relaxed);
            }
        }
        removed.is_some()
    }

    /// Enters a record whose key may be present with an older or a newer record, in one step under
    /// the shard's mutex: segments are replayed in parallel and in any order, and the newest
    /// record must win.
    ///
    /// Never fails for lack of room: all records of a store are entered, even if no more keys can
    /// be inserted afterwards.
    ///
    /// `relation` is called on each location under the hash's tag until one belongs to the same
    /// key. It must not call the keydir. If it returns `Err`, nothing is changed and the error is
    /// returned.
    pub(crate) fn upsert<E>(
        &self,
        hash: u64,
        location: Location,
        relation: impl FnMut(Location) -> Result<Relation, E>,
    ) -> Result<Upsert, E> {
        self.shard(hash).upsert(Slot::new(Tag::of(hash), location), relation)
    }

    /// Replaces tables that are far larger than their keys need by smaller ones, one shard after
    /// the other. Takes no time if nothing was removed since the last call.
    pub(crate) fn shrink(&self) {
        if self.is_loose.swap(false, Ordering::Relaxed) {
            self.shards.iter().for_each(Shard::shrink);
        }
    }

    /// The number of keys. Counted shard by shard, so with concurrent writers the result is
    /// approximate.
    pub(crate) fn len(&self) -> u64 {
        self.shards.iter().map(Shard::live).sum()
    }

    /// The bytes of memory held by shards and tables, without the allocator's own overhead.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.shards.iter().map(Shard::memory_bytes).sum::<usize>()
    }

    /// Calls `f` on every location, in no particular order. Takes no lock. A key that is present
    /// throughout is seen exactly once, because each shard is read through one table, in which
    /// entries do not move.
    pub(crate) fn for_each(&self, mut f: impl FnMut(Location)) {
        for shard in &self.shards {
            shard.table().slots().filter_map(Slot::location).for_each(&mut f);
        }
    }

    /// Writes all tables as they are, including DELETED slots.
    pub(crate) fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&(SHARDS as u32).to_stored())?;
        self.shards.iter().try_for_each(|shard| shard.write_to(out))
    }

    /// Reads what [`Keydir::write_to`] wrote. `is_known` must hold for each location.
    pub(crate) fn read_from(fields: &mut Fields<'_>, is_known: impl Fn(Location) -> bool) -> Result<Self, Damage> {
        if fields.u32()? as usize != SHARDS {
            return Err(Damage::Field("number of shards"));
        }
        let empty = Arc::new(Table::new(0));
        let shards = (0..SHARDS)
            .map(|index| Shard::read_from(Sizing::of_shard(index, SHARDS), fields, &empty, &is_known))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            shards,
            // What was written out may have been loose.
            is_loose: AtomicBool::new(true),
        })
    }

    /// Whether keys with these hashes share shard and tag, so that a look-up of one has to confirm
    /// the other.
    pub(crate) fn same_slot(hash: u64, other: u64) -> bool {
        let shard = |hash: u64| hash >> (u64::BITS - SHARD_BITS);
        shard(hash) == shard(other) && Tag::of(hash) == Tag::of(other)
    }

    /// The shard of a hash.
    #[expect(
        clippy::indexing_slicing,
        reason = "the shift leaves `SHARD_BITS` bits of the hash, so the index is below `SHARDS`, the number of shards"
    )]
    fn shard(&self, hash: u64) -> &Shard {
        &self.shards[Self::shard_of(hash)]
    }

    /// Index of the shard that a hash falls into.
    fn shard_of(hash: u64) -> usize {
        (hash >> (u64::BITS - SHARD_BITS)) as usize
    }
}
