//! The keydir: the hash index that leads from a key's hash to the location of its newest record.
//!
//! It holds one 8-byte slot a key and no keys. A slot is a tag (22 bits of the hash) and a
//! [`Location`]; that a slot is really the one of a key is confirmed in the record it points to, by
//! the caller, because the keydir knows no files. It can be rebuilt from the log at any time, and
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
//! # Who may do what
//!
//! Readers ([`Keydir::find`], [`Keydir::holds`], [`Keydir::candidates`], [`Keydir::for_each`]) take
//! no lock. Writers take the mutex of one shard, so any number of them may run; the store, which
//! serialises them anyway, finds it uncontended. Callbacks given to readers may call the keydir
//! again. The one given to [`Keydir::upsert`] runs under the shard's mutex and must not.
//!
//! # Why a reader never misses a key that stands during its whole look-up
//!
//! A shard's table is open-addressed: a key's probe begins at its home slot, goes on slot by slot,
//! wraps around, and ends at the first EMPTY slot or after as many steps as there are slots. Three
//! rules hold:
//!
//! 1. **An entry never moves inside a table.** Replacing stores over the same slot.
//! 2. **Between an entry and its home no slot is EMPTY** for as long as the entry stands. Inserting
//!    takes the first free slot of the probe, so the rule holds at first. Only removal writes
//!    EMPTY, and only over a slot whose follower is EMPTY: by the rule itself nothing can stand
//!    beyond it that was probed for through it.
//! 3. **A table that was replaced never changes again.** Growing, shrinking and cleaning up fill a
//!    new table that no reader knows, then publish it whole.
//!
//! Say the insertion of K happened before the look-up began, and K is not removed before it ends.
//! The reader holds one table throughout. If it is the current one, then every slot from K's home
//! to K has been written non-EMPTY before the look-up began and stays so (2); atomics are coherent,
//! so the reader sees these values or later ones, and arrives at K's slot (1), where it sees some
//! location that K had during the look-up. If the table was replaced meanwhile, it is frozen (3)
//! with K in it. A table loaded after its publication was complete before it.
//!
//! **Reusing a DELETED slot makes no false miss either.** Let K be removed from slot p and put back
//! into a DELETED slot q that comes earlier in its probe. A reader that has passed q before K came
//! there and then finds K gone from p misses it; but it passed q before the second insertion and
//! saw p after the removal, so the time between the two, when K was absent, overlaps the look-up,
//! and "absent" was a true answer at a moment inside it. That is why overwriting a key must be
//! [`Keydir::replace`] and never a removal followed by an insertion. The same holds when a rebuild
//! gives K its new slot: a reader is on one side of the publication or on the other.
//!
//! **Memory orderings.** Slots are stored with Release and loaded with Acquire. Who sees a location
//! therefore sees the record that was written before the location was stored; and who sees a slot
//! EMPTY, DELETED or reused after K's removal has the removal in its past, so it cannot be charged
//! with missing a key that stood. Loads of one probe stay in program order (Acquire), which is what
//! the paragraph on reuse needs. `ArcSwap` publishes a table with at least the same strength.
//! Counts live under the mutex and need no atomics.
//!
//! **What a reader may still get** is a location that was replaced or removed a moment ago, and
//! whose segment may be gone. The keydir reads nothing twice: a caller whose `confirm` fails for
//! that reason asks [`Keydir::holds`], or looks up again.
//!
//! # Sizes
//!
//! A table is rebuilt when more than 7/8 of it is used and then 0.62 to 0.70 full, the fill
//! differing by shard so that shards of equal size do not all grow at once; see [`sizing`]. That
//! makes 9 to 13 bytes a key, 10.6 on average. Growing holds up one writer for one shard only.
//!
//! # Limitations
//!
//! A shard has at most 2^22 slots and keeps at most 7/8 of them live, 3.7 thousand million keys in
//! all; then inserting answers [`Full`]. [`Keydir::upsert`], by which a store is opened, goes on:
//! it enters shadows too, and hashes other than those under which the store was filled may spread
//! less evenly. Keys of one tag cost a confirmation each: below 100 million keys fewer than one
//! look-up in forty meets one. Keys chosen so that their hashes agree make look-ups linear, hence
//! the seeded hash.

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

use crate::format::{Damage, Fields};
use crate::location::Location;

use shard::Shard;
#[cfg(test)]
pub(crate) use sizing::CAPACITY_MAX;
use sizing::Sizing;
use slot::{Slot, Tag};
use table::Table;

/// How many of the upper bits of a hash choose the shard. A thousand shards keep the largest
/// rebuild, at 100 million keys, near a millisecond; under shuttle there are two, so that an
/// exploration spends its steps on slots.
const SHARD_BITS: u32 = if cfg!(shuttle) { 1 } else { 10 };

/// Tables held at a time by [`Keydir::candidates`]: as many as a thread can borrow without counting
/// references.
const CANDIDATES_GROUP: usize = 8;

/// The number of shards.
const SHARDS: usize = 1 << SHARD_BITS;

// A shard and its tag share no bits of the hash; if they did, the tags inside a shard would say
// less.
const _: () = assert!(SHARD_BITS + Tag::BITS + Tag::SHIFT <= u64::BITS);

/// The hash index; see the module for its rules.
pub(crate) struct Keydir {
    /// Always `SHARDS` of them, in the order of the upper bits of the hash.
    shards: Box<[Shard]>,
}

/// What the caller of [`Keydir::upsert`] finds when it compares a candidate with the record it
/// brings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Relation {
    /// The candidate is a record of another key whose hash has the same tag.
    OtherKey,
    /// The candidate is a record of the same key and older than the one brought.
    SameKeyOlder,
    /// The candidate is a record of the same key and newer than the one brought, or that very
    /// record.
    SameKeyNewer,
}

/// What [`Keydir::upsert`] did.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Upsert {
    /// The key was absent and now stands.
    Inserted,
    /// The key stood with this older location, which is now replaced.
    Replaced(Location),
    /// The key stands with this newer location, which was left alone.
    Kept(Location),
}

/// The answer to an insertion into a shard that already holds as many keys as it may.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Full;

impl Keydir {
    /// An empty keydir. Its shards share one table without slots, so it costs a few dozen bytes a
    /// shard.
    pub(crate) fn new() -> Self {
        Self::with_capacity(0)
    }

    /// An empty keydir with room for about so many keys, so that opening a store does not grow
    /// every table from nothing.
    pub(crate) fn with_capacity(keys: usize) -> Self {
        let empty = Arc::new(Table::new(0));
        // Shards get equal shares of a well-mixed hash; the room between 0.70 and 7/8 takes up what
        // deviates.
        let share = keys / SHARDS;
        let shards = (0..SHARDS)
            .map(|index| Shard::new(Sizing::of_shard(index, SHARDS), share, &empty))
            .collect();
        Self { shards }
    }

    /// Looks up a key by its hash, without a lock.
    ///
    /// `confirm` is called on each location that stands under the hash's tag, until it answers
    /// `Ok(true)`: it reads the record and compares the key. Other keys of the same tag come by
    /// as well, and so may locations that were replaced a moment ago. An `Err` of `confirm`
    /// ends the look-up and is handed on.
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

    /// Says, without a lock, whether exactly this location stands under this hash: what compaction
    /// and a reader that lost a race ask before they believe a location.
    pub(crate) fn holds(&self, hash: u64, location: Location) -> bool {
        let table = self.shard(hash).table();
        table.candidates(Tag::of(hash)).any(|standing| standing == location)
    }

    /// For each hash the first location under its tag, unconfirmed and without a lock: very likely
    /// the key's own if the key is present, which is good enough to prefetch the records of
    /// many keys before finding them. The waiting for the slots overlaps: in each group nothing
    /// but plain loads stands between them.
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
            // A look that has to decide something waits for its slot; so first a touch of all of them.
            black_box(pairs().fold(0, |touched, (table, tag)| touched ^ table.touch(tag)));
            found.extend(pairs().map(|(table, tag)| table.candidates(tag).next()));
        }
    }

    /// Whether keys with these hashes, all absent, can be entered. If so and no other thread enters
    /// any, [`Keydir::insert`] does not fail.
    pub(crate) fn has_room(&self, hashes: &[u64]) -> bool {
        // As if all of them fell into one shard: true, but for shards that are nearly full.
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

    /// Enters a key that the caller knows to be absent. Entering one that is present would give it
    /// two slots, the older of which might be found.
    pub(crate) fn insert(&self, hash: u64, location: Location) -> Result<(), Full> {
        self.shard(hash).insert(Slot::new(Tag::of(hash), location))
    }

    /// Replaces a key's location in its slot, so that no reader sees the key absent meanwhile.
    /// Answers false and changes nothing if `old` does not stand under the hash: a newer write
    /// has won.
    pub(crate) fn replace(&self, hash: u64, old: Location, new: Location) -> bool {
        let tag = Tag::of(hash);
        self.shard(hash).replace(Slot::new(tag, old), Slot::new(tag, new))
    }

    /// Takes a key out. Answers false and changes nothing if `location` does not stand under the
    /// hash: a newer write has won.
    pub(crate) fn remove(&self, hash: u64, location: Location) -> bool {
        self.shard(hash).remove(Slot::new(Tag::of(hash), location))
    }

    /// Enters a record whose key may be present with an older or a newer record, in one step under
    /// the shard's mutex: segments are replayed in parallel and in any order, and the newest
    /// record must win.
    ///
    /// There is room for it in any case: what a store holds is entered, although no more may be
    /// inserted then.
    ///
    /// `relation` is called on each location under the hash's tag, until one is not of another key.
    /// It must not call the keydir. An `Err` of it ends the step, changes nothing and is handed
    /// on.
    pub(crate) fn upsert<E>(
        &self,
        hash: u64,
        location: Location,
        relation: impl FnMut(Location) -> Result<Relation, E>,
    ) -> Result<Upsert, E> {
        self.shard(hash).upsert(Slot::new(Tag::of(hash), location), relation)
    }

    /// The number of keys. Counted shard by shard, so that next to writers it is a number between
    /// those before and after.
    pub(crate) fn len(&self) -> u64 {
        self.shards.iter().map(Shard::live).sum()
    }

    /// The bytes of memory held by shards and tables, without the allocator's own overhead.
    pub(crate) fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.shards.iter().map(Shard::memory_bytes).sum::<usize>()
    }

    /// Calls `f` on every location, without a lock and in no particular order. A key that stands
    /// throughout is seen exactly once, because each shard is seen through one table, in which
    /// entries do not move.
    pub(crate) fn for_each(&self, mut f: impl FnMut(Location)) {
        for shard in &self.shards {
            shard.table().slots().filter_map(Slot::location).for_each(&mut f);
        }
    }

    /// Writes all tables as they are, marks included.
    pub(crate) fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&(SHARDS as u32).to_le_bytes())?;
        self.shards.iter().try_for_each(|shard| shard.write_to(out))
    }

    /// Reads what [`Keydir::write_to`] wrote. Each location must be one for which `is_known` says
    /// yes.
    pub(crate) fn read_from(fields: &mut Fields<'_>, is_known: impl Fn(Location) -> bool) -> Result<Self, Damage> {
        if fields.u32()? as usize != SHARDS {
            return Err(Damage::Field("number of shards"));
        }
        let empty = Arc::new(Table::new(0));
        let shards = (0..SHARDS)
            .map(|index| Shard::read_from(Sizing::of_shard(index, SHARDS), fields, &empty, &is_known))
            .collect::<Result<_, _>>()?;
        Ok(Self { shards })
    }

    /// Whether the keydir tells keys with these hashes apart; if it cannot, a look-up of one comes
    /// by the other.
    pub(crate) fn same_slot(hash: u64, other: u64) -> bool {
        let shard = |hash: u64| hash >> (u64::BITS - SHARD_BITS);
        shard(hash) == shard(other) && Tag::of(hash) == Tag::of(other)
    }

    /// The shard of a hash.
    #[expect(
        clippy::indexing_slicing,
        reason = "`SHARD_BITS` bits are left of the hash, so the index is below `SHARDS`, the number of shards"
    )]
    fn shard(&self, hash: u64) -> &Shard {
        &self.shards[(hash >> (u64::BITS - SHARD_BITS)) as usize]
    }
}
