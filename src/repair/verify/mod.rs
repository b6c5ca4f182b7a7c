//! Reading everything on disk, and reporting all damage.
//!
//! Everything is read from the files, with positioned reads instead of maps, one segment at a time:
//! a block that the device cannot read is then listed as damaged, while a map would end the
//! process. In an open store, reads, writes and compaction proceed meanwhile. A segment that is
//! compacted away before its turn is gone, and cannot be damaged; the segments with its live
//! records are checked by the compaction that wrote them, and by the next verify.

mod check;
mod closed;

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use self::check::{Check, Ended};
pub use self::closed::{verify, verify_with};
use super::damaged::{Content, Damaged, open_if_there};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::{Damage, MANIFEST_FILE, segment_file};
use crate::location::Location;
use crate::log::manifest::ManifestStore;
use crate::log::segments::GrowingSegment;
use crate::options::Progress;
use crate::segment::Segment;
use crate::segment::walk::Reach;
use crate::store::Store;

/// Attempts to read the manifest while it is being replaced, before the comparison is skipped.
const MANIFEST_ATTEMPTS_MAX: usize = 16;

/// What [`Store::verify`] or [`verify`] read and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Segments that were read.
    pub segments: u64,
    /// Sound puts and tombstones in them.
    pub records: u64,
    /// Bytes read.
    pub bytes: u64,
    /// Hint files compared with their segments.
    pub hints: u64,
    /// Keys in the indexes whose records were looked up; 0 for a directory, which has no indexes.
    pub keys: u64,
    /// All damage, by file and offset.
    pub damaged: Vec<Damaged>,
    /// For the directory of a store that no process has open: what opening it will discard or
    /// rebuild, without losing anything: the torn end of the log, which was not known to be durable
    /// when the process ended, and hints that do not match their segments. Empty if a process had
    /// the store open meanwhile: that writes the end of the log, and hints.
    pub discarded: Vec<Damaged>,
    /// Time it took.
    pub duration: Duration,
}

impl VerifyReport {
    /// Whether nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty()
    }
}

impl Store {
    /// Reads everything the store has on disk and checks every byte that matters: headers, bodies,
    /// padding, order, batches, seals, manifest and hints; and that every key in the indexes leads
    /// to a record. Changes nothing, except that unfit hints that opening did not need are rebuilt
    /// first. Damage is not an error: the report lists all of it, each range with file, offset,
    /// length and cause. Does not rely on what scrubbing has found
    /// ([`Options::scrub_bytes_per_second`](crate::Options::scrub_bytes_per_second)): it reads
    /// those segments again.
    ///
    /// Reads, writes and compaction proceed; writes wait while the hash index is scanned (about 10
    /// ns per key). Needs memory for one segment at a time.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], and [`Error::Io`] if a file cannot be opened or measured. Blocks that
    /// cannot be read are not an error, but listed as damaged. [`Error::ReadOnly`] if the store was
    /// opened for reading only, since unfit hints are rebuilt: use [`verify`].
    pub fn verify(&self) -> Result<VerifyReport> {
        self.verify_with(|_| true)
    }

    /// Like [`Store::verify`]; calls `progress` from time to time with the bytes read so far and in
    /// total. If it returns false, verifying stops with [`Error::Cancelled`].
    pub fn verify_with(&self, progress: impl FnMut(Progress) -> bool) -> Result<VerifyReport> {
        let engine = &**self.writer()?;
        engine.context.check_open()?;
        // Hints that opening did not read are fixed rather than reported, even if another thread is
        // already doing so.
        engine.log.renew_hints()?;
        let started_ms = engine.context.time.monotonic_ms();
        let segments = engine.log.all_segments();
        let ended_bytes: u64 = segments.ended.iter().map(|segment| segment.data_end()).sum();
        let growing_bytes: u64 = segments.growing.iter().map(|growing| growing.end).sum();
        let check = Check::new(engine.context.directory.clone(), ended_bytes + growing_bytes, progress);
        let mut verify = Verify { engine, check };
        let manifest = verify.manifest()?;
        let listed: HashMap<_, _> = (manifest.segments.iter())
            .map(|entry| (entry.id, entry.state))
            .collect();
        for segment in &segments.ended {
            verify.ended(segment, listed.get(&segment.id()))?;
        }
        for growing in &segments.growing {
            verify.growing(growing)?;
        }
        verify.indexes()?;
        let mut check = verify.check;
        check.report.damaged.append(&mut check.unfit_hints);
        Ok(check.finish(&engine.context.time, started_ms))
    }
}

/// A run of verify on an open store.
struct Verify<'a, P> {
    engine: &'a Engine,
    check: Check<P>,
}

impl<P: FnMut(Progress) -> bool> Verify<'_, P> {
    /// Compares the manifest on disk with the one in memory, and returns the latter.
    fn manifest(&mut self) -> Result<Manifest> {
        let path = self.engine.context.directory.path_of(MANIFEST_FILE);
        let damaged = |damage: String| Damaged {
            path: path.clone(),
            segment: None,
            offset: 0,
            length: 0,
            cause: damage,
        };
        let mut before = self.engine.log.manifest.current();
        for _ in 0..MANIFEST_ATTEMPTS_MAX {
            let read = ManifestStore::read(&self.engine.context.directory);
            let after = self.engine.log.manifest.current();
            if after.generation != before.generation {
                // Replaced meanwhile: read again.
                before = after;
                continue;
            }
            match read {
                // After a failed sync of the directory it is unknown which one is there.
                Ok(Some(found)) if differ(&found, &after) && self.engine.log.lock().poisoned().is_none() => {
                    let cause = Damage::Mismatch("the list of segments in the manifest").to_string();
                    self.check.report.damaged.push(damaged(cause));
                }
                Ok(Some(_)) => {}
                Ok(None) => self
                    .check
                    .report
                    .damaged
                    .push(damaged("the manifest is missing".to_owned())),
                // It had this version when it was written or read.
                Err(error @ Error::NewerFormat { .. }) => self.check.report.damaged.push(damaged(error.to_string())),
                Err(Error::Corruption { cause, .. }) => self.check.report.damaged.push(damaged(cause)),
                Err(Error::Io {
                    source, action: "read", ..
                }) => {
                    self.check
                        .report
                        .damaged
                        .push(damaged(format!("cannot be read: {source}")));
                }
                Err(error) => return Err(error),
            }
            break;
        }
        Ok(before)
    }

    /// Checks a segment that no longer grows: all of it is in its file. `listed` is its state in
    /// the manifest.
    fn ended(&mut self, segment: &Segment, listed: Option<&SegmentState>) -> Result<()> {
        let Some(summary) = segment.summary else { return Ok(()) };
        let ended = Ended {
            header: segment.header,
            summary,
            cut: segment.cut,
        };
        let engine = self.engine;
        self.check.ended(&ended, || engine.log.manifest.lists(segment.id()))?;
        if let Some(SegmentState::Sealed(listed) | SegmentState::Cut(listed)) = listed
            && *listed != summary
        {
            self.check.note(
                segment.id(),
                0,
                0,
                Damage::Mismatch("the manifest's account of the segment"),
            );
        }
        Ok(())
    }

    /// Checks a segment that grows, or did until just now: the written part is read from its file,
    /// the rest from memory.
    fn growing(&mut self, growing: &GrowingSegment) -> Result<()> {
        let segment = &growing.segment;
        let path = self.engine.context.segment_path(segment.id());
        let mut scratch = Vec::new();
        let memory = segment
            .all_bytes(&mut scratch)
            .map_err(|error| self.engine.context.read_error(segment.id(), 0, error))?;
        match open_if_there(&self.engine.context.directory, &segment_file(segment.id()))? {
            Some(file) => self.check.content.read(&*file, &path, growing.written)?,
            None => {
                self.check.content = Content::default();
                if self.engine.log.manifest.lists(segment.id()) {
                    self.check.note(segment.id(), 0, growing.written, Damage::Missing);
                }
                // Otherwise it was sealed and compacted away, or was empty; the walk covers what is
                // still in memory.
                self.check
                    .content
                    .bytes
                    .extend_from_slice(memory.get(..growing.written as usize).unwrap_or_default());
            }
        }
        let mut bytes = std::mem::take(&mut self.check.content.bytes);
        let found = bytes.len() as u64;
        if found < growing.written {
            self.check
                .note(segment.id(), found, growing.written - found, Damage::Short);
        } else {
            bytes.extend_from_slice(
                memory
                    .get(growing.written as usize..growing.end as usize)
                    .unwrap_or_default(),
            );
        }
        self.check.walk(&segment.header, &bytes, Reach::Known, None)?;
        self.check.content.bytes = bytes;
        Ok(())
    }

    /// Checks that every key in the indexes leads to a record, and that the number of keys in each
    /// segment matches its counters.
    fn indexes(&mut self) -> Result<()> {
        let engine = self.engine;
        let (mut keys, mut suspects, mut scratch) = (0u64, HashSet::new(), Vec::new());
        engine.state.for_each_location(|location| {
            keys += 1;
            if !leads_to_its_record(engine, location, &mut scratch) {
                suspects.insert(location);
            }
        });
        self.check.report.keys = keys;
        self.check.go_on(0)?;
        // Locations replaced or moved meanwhile are not damage. Under these locks none are.
        let guard = engine.log.lock();
        let unchanging = engine.state.lock_changes();
        let mut live: HashMap<u16, u64> = HashMap::new();
        let mut astray = Vec::new();
        engine.state.for_each_location(|location| {
            *live.entry(location.segment_index()).or_default() += 1;
            if suspects.contains(&location) {
                astray.push(location);
            }
        });
        astray.retain(|location| !leads_to_its_record(engine, *location, &mut scratch));
        let mut miscounted = Vec::new();
        for segment in engine.state.segments.all() {
            if live.get(&segment.index()).copied().unwrap_or(0) != segment.counters.get().live_puts {
                miscounted.push(segment);
            }
        }
        drop((unchanging, guard));
        self.check.content = Content::default();
        for segment in miscounted {
            self.check.note(
                segment.id(),
                0,
                0,
                Damage::Mismatch("the count of keys that lead into the segment"),
            );
        }
        for location in astray {
            let segment = engine.state.segments.get(location.segment_index());
            let path = segment.as_ref().map_or(engine.context.path().to_owned(), |segment| {
                engine.context.segment_path(segment.id())
            });
            let id = segment.map(|segment| segment.id());
            let at = |damaged: &Damaged| {
                let end = damaged.offset + damaged.length;
                damaged.segment == id && (damaged.offset..end).contains(&location.offset())
            };
            if !self.check.report.damaged.iter().any(at) {
                let cause = "the index points here, but not to a record of its key".to_owned();
                let offset = location.offset();
                self.check.report.damaged.push(Damaged {
                    path,
                    segment: id,
                    offset,
                    length: 0,
                    cause,
                });
            }
        }
        Ok(())
    }
}

/// Whether two manifests list different segments.
fn differ(a: &Manifest, b: &Manifest) -> bool {
    a.store_id != b.store_id || a.generation != b.generation || a.segments != b.segments
}

/// Whether there is a put at this location whose key leads back to it.
fn leads_to_its_record(engine: &Engine, location: Location, scratch: &mut Vec<u8>) -> bool {
    let Some(segment) = engine.state.segments.get(location.segment_index()) else {
        return false;
    };
    segment.record(location.offset(), scratch).is_ok_and(|record| {
        let hash = engine.state.hash(record.header.namespace, record.key());
        record.header.kind.is_put() && engine.state.points_at(hash, location)
    })
}
