//! Reading everything that is on disk, and telling all that is wrong with it.
//!
//! Everything is read anew from the files, with positioned reads and not through maps, one segment at a time: a block that the
//! device cannot read is then listed as damaged, where a map would end the process. Readers, writers and compaction go on
//! meanwhile. A segment that is compacted away while it waits for its turn is not there any more, and cannot be
//! damaged; the segments that hold what was live in it are checked by the compaction that wrote them, and by the next
//! verify.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use super::Store;
use super::damage::{Content, Damaged, open_if_there};
use crate::error::{Error, Result};
use crate::format::hint::Hint;
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::record::Kind;
use crate::format::segment::{SEGMENT_HEADER_LEN, SegmentHeader, Summary};
use crate::format::{Damage, MANIFEST_FILE, hint_file};
use crate::index::keydir::Location;
use crate::log::Engine;
use crate::log::manifest::ManifestStore;
use crate::log::output::{SEAL_LEN, encode_seal};
use crate::log::snapshot::GrowingSegment;
use crate::options::Progress;
use crate::segment::Segment;
use crate::segment::scan::Sorter;
use crate::segment::walk::{Reach, Step, Walker};

/// Bytes between two reports of progress.
const PROGRESS_BYTES: u64 = 1 << 20;
/// Looks at the manifest while others replace it, before the comparison is given up.
const MANIFEST_ATTEMPTS_MAX: usize = 16;

/// What [`Store::verify`] read and found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Segments that were read.
    pub segments: u64,
    /// Sound puts and tombstones in them.
    pub records: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Hint files that were compared with their segments.
    pub hints: u64,
    /// Keys in the indexes that were followed to their records.
    pub keys: u64,
    /// Everything that is not as it should be, by file and offset.
    pub damaged: Vec<Damaged>,
    /// How long it took.
    pub duration: Duration,
}

impl VerifyReport {
    /// Whether nothing is damaged.
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty()
    }
}

impl Store {
    /// Reads everything the store has on disk and checks every byte of it that means anything: headers, bodies, padding, order, batches,
    /// seals, manifest and hints; and that every key in the indexes leads to a record. Changes nothing. Damage is not an
    /// error: the report lists all of it, each range with file, offset, length and cause.
    ///
    /// Readers, writers and compaction go on; writers wait for as long as a look over the hash index takes (about 10 ns a key). Takes
    /// memory for one segment at a time.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], and [`Error::Io`] if a file cannot be opened or measured. A block that cannot be read is listed as
    /// damaged.
    pub fn verify(&self) -> Result<VerifyReport> {
        self.verify_with(|_| true)
    }

    /// As [`Store::verify`]; calls `progress` now and then, with bytes read so far and in all. If it answers false, verifying
    /// stops with [`Error::Cancelled`].
    pub fn verify_with(&self, progress: impl FnMut(Progress) -> bool) -> Result<VerifyReport> {
        let engine = &**self.engine();
        engine.check_open()?;
        let started_ms = engine.time.monotonic_ms();
        let segments = engine.all_segments();
        let ended_bytes: u64 = segments.ended.iter().map(|segment| segment.data_end()).sum();
        let growing_bytes: u64 = segments.growing.iter().map(|growing| growing.end).sum();
        let mut verify = Verify {
            engine,
            report: VerifyReport::default(),
            content: Content::default(),
            progress,
            state: Progress {
                done_bytes: 0,
                total_bytes: ended_bytes + growing_bytes,
            },
        };
        let manifest = verify.manifest()?;
        for segment in &segments.ended {
            verify.ended(segment, &manifest)?;
        }
        for growing in &segments.growing {
            verify.growing(growing)?;
        }
        verify.indexes()?;
        let mut report = verify.report;
        report
            .damaged
            .sort_by(|a, b| (&a.path, a.offset).cmp(&(&b.path, b.offset)));
        report.duration = Duration::from_millis(engine.time.monotonic_ms().saturating_sub(started_ms));
        Ok(report)
    }
}

/// A run of verify.
struct Verify<'a, P> {
    engine: &'a Engine,
    report: VerifyReport,
    content: Content,
    progress: P,
    state: Progress,
}

/// What a walk over one segment found.
struct Walked {
    summary: Summary,
    damaged: bool,
}

impl<P: FnMut(Progress) -> bool> Verify<'_, P> {
    fn go_on(&mut self, bytes: u64) -> Result<()> {
        self.state.done_bytes += bytes;
        if (self.progress)(self.state) {
            Ok(())
        } else {
            Err(Error::Cancelled)
        }
    }

    /// Compares the manifest on disk with the one in memory, and returns the latter.
    fn manifest(&mut self) -> Result<Manifest> {
        let path = self.engine.directory.join(MANIFEST_FILE);
        let damaged = |damage: String| Damaged {
            path: path.clone(),
            segment: None,
            offset: 0,
            length: 0,
            cause: damage,
        };
        let mut before = self.engine.manifest.current();
        for _ in 0..MANIFEST_ATTEMPTS_MAX {
            let read = ManifestStore::read(&*self.engine.storage, &self.engine.directory);
            let after = self.engine.manifest.current();
            if after.generation != before.generation {
                // Replaced meanwhile: look again.
                before = after;
                continue;
            }
            match read {
                // After a failed sync of the directory nobody knows which one stands.
                Ok(Some(found)) if differ(&found, &after) && self.engine.lock_writer().poisoned().is_none() => {
                    let cause = Damage::Mismatch("the list of segments in the manifest").to_string();
                    self.report.damaged.push(damaged(cause));
                }
                Ok(Some(_)) => {}
                Ok(None) => self.report.damaged.push(damaged("the manifest is missing".to_owned())),
                // It was of this version when it was written or read.
                Err(error @ Error::NewerFormat { .. }) => self.report.damaged.push(damaged(error.to_string())),
                Err(Error::Corruption { cause, .. }) => self.report.damaged.push(damaged(cause)),
                Err(Error::Io {
                    source, action: "read", ..
                }) => {
                    self.report.damaged.push(damaged(format!("cannot be read: {source}")));
                }
                Err(error) => return Err(error),
            }
            break;
        }
        Ok(before)
    }

    fn note(&mut self, segment: &Segment, offset: u64, length: u64, damage: Damage) {
        let path = self.engine.segment_path(segment.id());
        let damaged = self.content.damaged(&path, Some(segment.id()), offset, length, damage);
        self.report.damaged.push(damaged);
    }

    fn is_listed(&self, segment: &Segment) -> bool {
        self.engine
            .manifest
            .current()
            .segments
            .iter()
            .any(|entry| entry.id == segment.id())
    }

    /// A segment that no longer grows: all of it is in its file.
    fn ended(&mut self, segment: &Segment, manifest: &Manifest) -> Result<()> {
        let Some(summary) = segment.summary else { return Ok(()) };
        let expected = if segment.cut {
            summary.data_end
        } else {
            summary.data_end + SEAL_LEN
        };
        let path = self.engine.segment_path(segment.id());
        let Some(file) = open_if_there(&*self.engine.storage, &path)? else {
            if self.is_listed(segment) {
                self.content = Content::default();
                self.note(
                    segment,
                    0,
                    expected,
                    Damage::Mismatch("the manifest: it lists this file, which is missing;"),
                );
            }
            return self.go_on(segment.data_end());
        };
        let length = file.len().map_err(|error| Error::io("measure", &path, error))?;
        self.content.read(&*file, &path, expected)?;
        let bytes = std::mem::take(&mut self.content.bytes);
        let data = bytes.get(..summary.data_end as usize).unwrap_or(&bytes);
        let mut sorter = Sorter::default();
        let walked = self.walk(segment, data, Reach::Known, Some(&mut sorter))?;
        if length < expected {
            self.note(segment, length, expected - length, Damage::Short);
        } else if length > expected && !segment.cut {
            self.note(
                segment,
                expected,
                length - expected,
                Damage::Mismatch("the length that the manifest gives"),
            );
        }
        if !walked.damaged && length >= expected {
            if walked.summary != summary {
                self.note(
                    segment,
                    0,
                    summary.data_end,
                    Damage::Mismatch("the manifest's account of the segment"),
                );
            }
            self.hint(segment, summary, sorter)?;
        }
        let seal = bytes.get(summary.data_end as usize..).unwrap_or_default();
        if !segment.cut && length >= expected && seal != encode_seal(&segment.header, &summary) {
            self.note(segment, summary.data_end, SEAL_LEN, Damage::Mismatch("the seal"));
        }
        let listed = manifest
            .segments
            .iter()
            .find(|entry| entry.id == segment.id())
            .map(|entry| entry.state);
        if let Some(SegmentState::Sealed(listed) | SegmentState::Cut(listed)) = listed
            && listed != summary
        {
            self.note(segment, 0, 0, Damage::Mismatch("the manifest's account of the segment"));
        }
        self.content.bytes = bytes;
        Ok(())
    }

    /// A segment that grows, or did so just now: what is written is read from its file, the rest from memory.
    fn growing(&mut self, growing: &GrowingSegment) -> Result<()> {
        let segment = &growing.segment;
        let path = self.engine.segment_path(segment.id());
        let mut scratch = Vec::new();
        let memory = segment
            .all_bytes(&mut scratch)
            .map_err(|error| self.engine.read_error(segment.id(), 0, error))?;
        match open_if_there(&*self.engine.storage, &path)? {
            Some(file) => self.content.read(&*file, &path, growing.written)?,
            None => {
                self.content = Content::default();
                if self.is_listed(segment) {
                    let damage = Damage::Mismatch("the manifest: it lists this file, which is missing;");
                    self.note(segment, 0, growing.written, damage);
                }
                // Else it was sealed and compacted away, or it was empty; the walk goes over what memory still holds.
                self.content
                    .bytes
                    .extend_from_slice(memory.get(..growing.written as usize).unwrap_or_default());
            }
        }
        let mut bytes = std::mem::take(&mut self.content.bytes);
        let found = bytes.len() as u64;
        if found < growing.written {
            self.note(segment, found, growing.written - found, Damage::Short);
        } else {
            bytes.extend_from_slice(
                memory
                    .get(growing.written as usize..growing.end as usize)
                    .unwrap_or_default(),
            );
        }
        self.walk(segment, &bytes, Reach::Known, None)?;
        self.content.bytes = bytes;
        Ok(())
    }

    /// Walks over a segment, noting all damage.
    fn walk<'b>(
        &mut self,
        segment: &Segment,
        bytes: &'b [u8],
        reach: Reach,
        mut sorter: Option<&mut Sorter<'b>>,
    ) -> Result<Walked> {
        let mut damaged = false;
        let header = SegmentHeader::decode(bytes).and_then(|header| match header == segment.header {
            true => Ok(header),
            false => Err(Damage::Stranger),
        });
        if let Err(damage) = header {
            damaged = true;
            self.note(segment, 0, SEGMENT_HEADER_LEN, damage);
        }
        // The header in memory was good when the segment was opened, so the records can be checked all the same.
        let mut walker = Walker::new(bytes, segment.header, reach);
        let mut reported = 0;
        while let Some(step) = walker.next() {
            match step {
                Step::Record { found, .. } => {
                    self.report.records += 1;
                    if let Some(sorter) = &mut sorter {
                        sorter.push(bytes, &found);
                    }
                }
                Step::Damaged { offset, length, damage } => {
                    damaged = true;
                    self.note(segment, offset, length, damage);
                }
            }
            if walker.offset() - reported >= PROGRESS_BYTES {
                let bytes = walker.offset() - reported;
                reported = walker.offset();
                self.go_on(bytes)?;
            }
        }
        self.report.segments += 1;
        self.report.bytes += bytes.len() as u64;
        self.go_on((bytes.len() as u64).saturating_sub(reported))?;
        Ok(Walked {
            summary: walker.summary(),
            damaged,
        })
    }

    /// The hint of a sound segment. That there is none is no damage: it is made anew when the store is opened.
    fn hint(&mut self, segment: &Segment, summary: Summary, sorter: Sorter<'_>) -> Result<()> {
        let path = self.engine.directory.join(hint_file(segment.id()));
        let Some(file) = open_if_there(&*self.engine.storage, &path)? else {
            return Ok(());
        };
        let length = file.len().map_err(|error| Error::io("measure", &path, error))?;
        let mut content = Content::default();
        content.read(&*file, &path, Hint::len_max(&summary).min(length))?;
        let (offsets, keys_crc) = sorter.finish();
        let damage = match Hint::decode(&content.bytes) {
            _ if length > Hint::len_max(&summary) => Some(Damage::Field("hint length")),
            Err(damage) => Some(damage),
            Ok(hint) if hint.store_id != segment.header.store_id || hint.segment_id != segment.id() => {
                Some(Damage::Stranger)
            }
            // Recovery cut the segment behind what the hint knew; the next opening makes another.
            Ok(hint) if segment.cut && hint.data_end > summary.data_end => None,
            Ok(hint) if hint.data_end != summary.data_end || hint.records_crc != summary.records_crc => {
                Some(Damage::Mismatch("the hint"))
            }
            Ok(hint) if hint.offsets != offsets || hint.keys_crc != keys_crc => Some(Damage::Mismatch("the hint")),
            Ok(_) => None,
        };
        self.report.hints += 1;
        self.report.bytes += length;
        // Where the segment was compacted away since, the hint may have been removed at any moment.
        if let Some(damage) = damage
            && self.is_listed(segment)
        {
            self.report
                .damaged
                .push(content.damaged(&path, Some(segment.id()), 0, length, damage));
        }
        Ok(())
    }

    /// That every key in the indexes leads to a record, and that as many lead into each segment as its counters say.
    fn indexes(&mut self) -> Result<()> {
        let engine = self.engine;
        let (mut keys, mut suspects, mut scratch) = (0u64, HashSet::new(), Vec::new());
        engine.keydir.for_each(|location| {
            keys += 1;
            if !leads_to_its_record(engine, location, &mut scratch) {
                suspects.insert(location);
            }
        });
        self.report.keys = keys;
        self.go_on(0)?;
        // What was replaced or moved meanwhile is no fault. Under the writer lock nothing is.
        let guard = engine.lock_writer();
        let mut live: HashMap<u16, u64> = HashMap::new();
        let mut astray = Vec::new();
        engine.keydir.for_each(|location| {
            *live.entry(location.segment_index()).or_default() += 1;
            if suspects.contains(&location) {
                astray.push(location);
            }
        });
        astray.retain(|location| !leads_to_its_record(engine, *location, &mut scratch));
        let mut miscounted = Vec::new();
        for segment in engine.segments.all() {
            if live.get(&segment.index()).copied().unwrap_or(0) != segment.counters.get().live_puts {
                miscounted.push(segment);
            }
        }
        drop(guard);
        self.content = Content::default();
        for segment in miscounted {
            self.note(
                &segment,
                0,
                0,
                Damage::Mismatch("the count of keys that lead into the segment"),
            );
        }
        for location in astray {
            let segment = engine.segments.get(location.segment_index());
            let path = segment
                .as_ref()
                .map_or(engine.directory.clone(), |segment| engine.segment_path(segment.id()));
            let id = segment.map(|segment| segment.id());
            let at = |damaged: &Damaged| {
                let end = damaged.offset + damaged.length;
                damaged.segment == id && (damaged.offset..end).contains(&location.offset())
            };
            if !self.report.damaged.iter().any(at) {
                let cause = "the index leads here, but not to a record of its key".to_owned();
                let offset = location.offset();
                self.report.damaged.push(Damaged {
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

/// Whether a put stands at this location whose key leads back to it.
fn leads_to_its_record(engine: &Engine, location: Location, scratch: &mut Vec<u8>) -> bool {
    let Some(segment) = engine.segments.get(location.segment_index()) else {
        return false;
    };
    segment.record(location.offset(), scratch).is_ok_and(|record| {
        let hash = engine.hash(record.header.namespace, record.key());
        record.header.kind == Kind::Put && engine.keydir.holds(hash, location)
    })
}
