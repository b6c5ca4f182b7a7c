//! Many segments as one log, and the indexes over them: the engine below the store's surface.
//!
//! Who may do what:
//!
//! * Readers take no lock: hash, keydir, segment table, record. What they read may be replaced under them (a table grows, a
//!   segment is sealed, compacted, unlinked); then the location they hold fails to lead to its key, and they look again.
//! * Everything that changes what a reader finds happens under the one writer lock ([`Engine::lock_writer`]): appending,
//!   index updates, counters, the moves of compaction, expiry.
//! * Files are written and synced by one leader at a time, outside that lock (`commit`); within it only what is rare:
//!   the rest of a segment that is full, the record of a namespace, what recovery writes anew.
//! * Lock order: namespace changes, compaction, housekeeping, sealing, writer, manifest, then the locks inside indexes and of
//!   the clock.

mod active;
pub(crate) mod commit;
pub(crate) mod end;
mod index_file;
mod load;
pub(crate) mod manifest;
pub(crate) mod opening;
pub(crate) mod output;
pub(crate) mod recovery;
pub(crate) mod reserve;
mod rotate;
pub(crate) mod seal;
pub(crate) mod snapshot;
pub(crate) mod sweep;
mod waiters;
pub(crate) mod write;
mod writer;

use std::convert::Infallible;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};

use crate::clock::Now;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::Damage;
use crate::format::record::{Header, Record};
use crate::index::expiry::ExpiryQueue;
use crate::index::hash::KeyHasher;
use crate::index::keydir::Keydir;
use crate::index::namespaces::{NamespaceState, Namespaces, SYSTEM_NAMESPACE};
use crate::index::order::KeyFlags;
use crate::location::Location;
use crate::planted::{Planted, planted};
use crate::segment::files::OpenFiles;
use crate::segment::table::SegmentTable;
use crate::segment::{ReadError, Segment, Value};
use manifest::ManifestStore;
use reserve::Reserve;
use writer::Writer;

/// An open store, below the handles that users hold.
pub(crate) struct Engine {
    pub(crate) context: Arc<Context>,
    hasher: KeyHasher,
    pub(crate) keydir: Keydir,
    pub(crate) segments: SegmentTable,
    /// Of segments that are not mapped.
    open_files: Arc<OpenFiles>,
    pub(crate) namespaces: Namespaces,
    /// Number of the next namespace.
    pub(crate) next_namespace: AtomicU32,
    /// Held while a namespace is created, renamed or dropped.
    pub(crate) namespace_changes: Mutex<()>,
    pub(crate) manifest: ManifestStore,
    writer: Mutex<Writer>,
    /// Signalled when a write-out, a sync or a failure ends.
    progressed: Condvar,
    /// Rises whenever `progressed` is signalled, or would be if anybody slept.
    progress: AtomicU64,
    /// Held by the one who seals.
    sealing: Mutex<()>,
    /// Segments whose hints may be missing, or unfit, that of the one under way included.
    pub(crate) unchecked_hints: Mutex<Vec<(u64, HintDoubt)>>,
    /// Held by the one who sees to these.
    renewing_hints: Mutex<()>,
    pub(crate) expiry: Mutex<ExpiryQueue>,
    /// See [`Engine::housekeeping`].
    housekeeping: Mutex<()>,
    /// Odd while a batch is being applied to the indexes.
    batch_epoch: AtomicU64,
    pub(crate) compaction: crate::compact::Control,
    /// How closing went, once it has been tried.
    pub(crate) close_result: Mutex<Option<Result<()>>>,
    pub(crate) reserve: Reserve,
}

/// Why a hint may have to be written anew.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HintDoubt {
    /// Opening had no need of it.
    Unread,
    /// Opening had to read the segment whole.
    Unfit,
}

/// Retries of a read that races with compaction. Each needs another segment to vanish in between, so that more than a few
/// mean that index and log disagree.
const READ_ATTEMPTS_MAX: u32 = 10_000;

/// Records fetched into the processor's cache at a time: many enough to overlap, few enough to stay there.
pub(crate) const WARM_UP: usize = 64;

/// Where the record of a key probably is.
pub(crate) struct Candidate {
    segment: Arc<Segment>,
    offset: u64,
}

/// What a look-up by hash comes to.
enum Lookup {
    Absent,
    Found(Location),
    /// No slot leads to a record of the key, and this one leads to damage: it is the key's, or that of another key whose hash has
    /// the same tag.
    Damaged(Location, Error),
}

impl Engine {
    /// Hash of a key; differs from store to store, and whenever the indexes are built anew.
    pub(crate) fn hash(&self, namespace: u32, key: &[u8]) -> u64 {
        self.hasher.hash(namespace, key)
    }

    /// The newest value of the key, if it is there and has not expired.
    pub(crate) fn get(&self, namespace: &NamespaceState, key: &[u8]) -> Result<Option<Value>> {
        self.await_batch();
        let hash = self.hash(namespace.number, key);
        self.get_hashed(namespace, key, hash, None)
    }

    /// As [`Engine::get`], the hash known and perhaps the time.
    pub(crate) fn get_hashed(
        &self,
        namespace: &NamespaceState,
        key: &[u8],
        hash: u64,
        now: Option<&Now>,
    ) -> Result<Option<Value>> {
        let number = namespace.number;
        let mut found = None;
        self.without_strangers(number, key, || {
            self.find(hash, |segment, offset| {
                let mut checked = Ok(false);
                found = segment.value(offset, |record| {
                    checked = self.leads_to(hash, number, key, record);
                    matches!(checked, Ok(true))
                })?;
                Ok(checked?)
            })
        })?;
        Ok(found.filter(|value| {
            let (expiry, sequence) = (value.expiry_ms(), value.sequence());
            let is_expired = |now: &Now| now.is_expired(expiry, sequence);
            let is_expired = || now.map_or_else(|| is_expired(&self.context.time.now()), is_expired);
            expiry.is_none() || planted(Planted::ShowExpired) || !is_expired()
        }))
    }

    /// Location and header of the newest record of the key, expired or not. The value is neither read nor checked.
    pub(crate) fn find_header(&self, namespace: u32, key: &[u8], hash: u64) -> Result<Option<(Location, Header)>> {
        let mut header = None;
        let location = self.without_strangers(namespace, key, || {
            let (lookup, found) = self.look_up(namespace, key, hash);
            header = found;
            lookup
        })?;
        Ok(location.zip(header))
    }

    /// As [`Engine::find_header`]; the header is there if the record was found.
    fn look_up(&self, namespace: u32, key: &[u8], hash: u64) -> (Result<Lookup>, Option<Header>) {
        let mut header = None;
        let mut scratch = Vec::new();
        let lookup = self.find(hash, |segment, offset| {
            let record = segment.record(offset, &mut scratch)?;
            let same = self.leads_to(hash, namespace, key, &record)?;
            header = same.then_some(record.header);
            Ok(same)
        });
        (lookup, header)
    }

    /// What `look` finds. Damage is an error to those who ask for its key, and to nobody else. The error names the key. Not for who
    /// holds the writer lock.
    fn without_strangers(
        &self,
        namespace: u32,
        key: &[u8],
        mut look: impl FnMut() -> Result<Lookup>,
    ) -> Result<Option<Location>> {
        let mut lookup = look();
        if let Ok(Lookup::Damaged(..)) = lookup {
            if self.flags_of(namespace, key).is_none() || planted(Planted::DamageIsAbsence) {
                return Ok(None);
            }
            // A key that was absent may have been put between the two looks: then the damage is another's. While nobody writes, index
            // and key order are of the same moment.
            let _no_writes = self.lock_writer();
            lookup = look();
            if let Ok(Lookup::Damaged(..)) = lookup
                && self.flags_of(namespace, key).is_none()
            {
                return Ok(None);
            }
        }
        let error = match lookup {
            Ok(Lookup::Absent) => return Ok(None),
            Ok(Lookup::Found(location)) => return Ok(Some(location)),
            Ok(Lookup::Damaged(_, error)) | Err(error) => error,
        };
        Err(match namespace {
            // The store's own keys are numbers that nobody knows.
            SYSTEM_NAMESPACE => error,
            _ => error.of_key(key),
        })
    }

    /// What is known of a key without its record; None if it is not there. It decides whose a slot is that leads to damage: of a key
    /// that is there and has no other slot it is the key's own. Costs the merge of what is queued for the key order.
    fn flags_of(&self, namespace: u32, key: &[u8]) -> Option<KeyFlags> {
        if namespace == SYSTEM_NAMESPACE {
            let number = u32::from_be_bytes(key.try_into().ok()?);
            let state = self.namespaces.by_number(number)?;
            return (!state.is_dropped()).then_some(KeyFlags::NONE);
        }
        self.namespaces.by_number(namespace)?.order.flags(key)
    }

    /// Whether this is a record of the key that was asked for. Damage if it is one of a key that the index would not have
    /// led here: then the stored key is not what was written, and to say that the key is absent would hide that.
    fn leads_to(&self, hash: u64, namespace: u32, key: &[u8], record: &Record<'_>) -> Result<bool, Damage> {
        if record.header.namespace == namespace && record.key() == key {
            return Ok(true);
        }
        let other = self.hash(record.header.namespace, record.key());
        if Keydir::same_slot(hash, other) {
            Ok(false)
        } else {
            Err(Damage::OtherKey)
        }
    }

    /// Finds the location for which `confirm` says yes, looking again when a segment is replaced under it. A record that cannot be read
    /// is in nobody's way but that of its own key: the others under the same tag are looked at as well.
    fn find(&self, hash: u64, mut confirm: impl FnMut(&Segment, u64) -> Result<bool, ReadError>) -> Result<Lookup> {
        let mut suspects: Vec<Location> = Vec::new();
        for attempt in 0..READ_ATTEMPTS_MAX {
            let mut gone = false;
            let mut failed: Vec<(Location, u64, ReadError)> = Vec::new();
            let Ok(found) = self.keydir.find(hash, |location| {
                let answer = match self.segments.load(location.segment_index()).as_deref() {
                    Some(Some(segment)) => confirm(segment, location.offset()).unwrap_or_else(|error| {
                        failed.push((location, segment.id(), error));
                        false
                    }),
                    // No segment stands there any more: look again.
                    _ => {
                        gone = true;
                        false
                    }
                };
                Ok::<_, Infallible>(answer)
            });
            if let Some(location) = found {
                return Ok(Lookup::Found(location));
            }
            if failed.is_empty() && !gone {
                return Ok(Lookup::Absent);
            }
            // Only what still stands in the index is an error; anything else was replaced meanwhile.
            let stands = |(location, id, _): &(Location, u64, ReadError)| {
                let segment = self.segments.get(location.segment_index());
                segment.is_some_and(|segment| segment.id() == *id) && self.keydir.holds(hash, *location)
            };
            if !gone && failed.iter().all(stands) {
                // A failed write may have been taken back before the look at the record, and one that put another in its place may
                // have come before the look at the index: so damage has to be seen twice.
                let seen_twice = failed.iter().map(|(location, _, _)| location).eq(&suspects);
                suspects = failed.iter().map(|(location, _, _)| *location).collect();
                let is_failure = |(_, _, error): &(Location, u64, ReadError)| matches!(error, ReadError::Io(_));
                let first = failed.iter().position(is_failure).or(seen_twice.then_some(0));
                if let Some(first) = first {
                    let (location, id, error) = failed.swap_remove(first);
                    return match error {
                        ReadError::Io(_) => Err(self.context.read_error(id, location.offset(), error)),
                        ReadError::Damage(_) => Ok(Lookup::Damaged(
                            location,
                            self.context.read_error(id, location.offset(), error),
                        )),
                    };
                }
            }
            if attempt > 100 {
                std::thread::yield_now();
            }
        }
        Err(Error::damage(self.context.path(), 0, Damage::Mismatch("the index")))
    }

    /// Finds where the records of these keys probably are, and touches them, one kind of memory after the other, so that the
    /// waiting for each overlaps. Between the touches of one kind there is nothing but plain loads: an atomic operation
    /// that writes would make the processor wait for all loads before it.
    pub(crate) fn warm_up(&self, hashes: &[u64]) -> Vec<Option<Candidate>> {
        let mut locations = Vec::with_capacity(hashes.len());
        self.keydir.candidates(hashes, &mut locations);
        let candidates: Vec<_> = (locations.into_iter())
            .map(|location| {
                let location = location?;
                let segment = self.segments.get(location.segment_index())?;
                Some(Candidate {
                    segment,
                    offset: location.offset(),
                })
            })
            .collect();
        let touch = |touched, candidate: &Candidate| touched ^ candidate.segment.touch(candidate.offset);
        std::hint::black_box(candidates.iter().flatten().fold(0, touch));
        candidates
    }

    /// As [`Engine::get_hashed`], beginning at what [`Engine::warm_up`] found. If that is a record of the key, the keydir
    /// pointed at it a moment ago, which is all that a look-up can say; if it is anything else, the look-up begins anew.
    pub(crate) fn get_warm(
        &self,
        namespace: &NamespaceState,
        key: &[u8],
        hash: u64,
        candidate: Option<&Candidate>,
        now: &Now,
    ) -> Result<Option<Value>> {
        let is_wanted = |record: &Record<'_>| record.header.namespace == namespace.number && record.key() == key;
        match candidate.map(|candidate| candidate.segment.value(candidate.offset, is_wanted)) {
            Some(Ok(Some(value))) => {
                Ok(Some(value).filter(|value| !now.is_expired(value.expiry_ms(), value.sequence())))
            }
            _ => self.get_hashed(namespace, key, hash, Some(now)),
        }
    }

    /// Hands the values of many keys to `take`, in their order, as of one moment of the clock.
    pub(crate) fn get_many<K: AsRef<[u8]>>(
        &self,
        namespace: &NamespaceState,
        keys: &[K],
        mut take: impl FnMut(Option<Value>),
    ) -> Result<()> {
        let now = self.context.time.now();
        for keys in keys.chunks(WARM_UP) {
            let hashes: Vec<_> = keys
                .iter()
                .map(|key| self.hash(namespace.number, key.as_ref()))
                .collect();
            let candidates = self.warm_up(&hashes);
            for ((key, hash), candidate) in keys.iter().zip(hashes).zip(&candidates) {
                take(self.get_warm(namespace, key.as_ref(), hash, candidate.as_ref(), &now)?);
            }
        }
        Ok(())
    }

    /// Waits while a batch is being applied, so that nobody who has seen one part of it misses another.
    pub(crate) fn await_batch(&self) {
        if planted(Planted::BatchInSteps) {
            return;
        }
        let mut spins = 0u32;
        while self.batch_epoch.load(Ordering::Acquire) % 2 == 1 {
            spins += 1;
            if spins < 64 {
                std::hint::spin_loop()
            } else {
                std::thread::yield_now()
            }
        }
    }

    /// Runs `look` so that it sees each batch as a whole or not at all, although it looks at more than one key.
    pub(crate) fn consistently<T>(&self, mut look: impl FnMut() -> Result<T>) -> Result<T> {
        for _ in 0..8 {
            self.await_batch();
            let before = self.batch_epoch.load(Ordering::Acquire);
            let answer = look();
            let is_whole = before.is_multiple_of(2) && self.batch_epoch.load(Ordering::Acquire) == before;
            if is_whole || planted(Planted::TornLook) {
                return answer;
            }
        }
        // Batches come too thick: keep them out for once.
        let _writer = self.lock_writer();
        look()
    }

    /// Marks the beginning and the end of applying a batch. The caller holds the writer lock.
    pub(crate) fn while_applying_batch<T>(&self, apply: impl FnOnce() -> T) -> T {
        /// Ends the epoch even if applying panics: readers must not wait for ever.
        struct Applying<'a>(&'a AtomicU64);
        impl Drop for Applying<'_> {
            fn drop(&mut self) {
                self.0.fetch_add(1, Ordering::AcqRel);
            }
        }
        self.batch_epoch.fetch_add(1, Ordering::AcqRel);
        let _applying = Applying(&self.batch_epoch);
        apply()
    }
}

impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("context", &self.context)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
