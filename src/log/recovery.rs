//! Recovery: from the segments that a manifest lists to indexes and a log that can be written to, whatever happened before.
//!
//! After a clean close every segment is sealed, and opening reads hints. After any other end some segments are listed as
//! open; their ends are found by reading them:
//!
//! 1. Each is read up to the first thing that is no valid record. Their start records put them into the order of the log and
//!    say where the one before ended.
//! 2. The log ends at the first place where it does not go on as it should. What lies beyond is discarded, as a torn tail,
//!    unless anything valid beyond says that this place had been durable: then it is corruption, and an error.
//! 3. What is valid but not known to be durable may be in the page cache only. It is written anew into a segment of its own,
//!    which is synced and sealed; then one manifest puts that segment in the place of what it was copied from.
//!
//! Nothing is changed on disk before the third step, and that is one atomic step: recovery can be cut off anywhere and
//! begun again.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::Engine;
use super::end::find_log_end;
use super::hints::{HintDoubt, source_of};
use super::manifest::ReplaceError;
use super::output::{OutputWriter, is_seal_of, sealed_entries};
use super::reserve::ReservePart;
use super::writer::Guard;
use crate::error::{Error, Result};
use crate::format::manifest::{SegmentEntry, SegmentState};
use crate::format::segment::{SEAL_LEN, SEGMENT_HEADER_LEN, SEGMENT_LEN_MAX, SegmentHeader, Summary};
use crate::format::{Damage, FileName, INDEX_FILE, MANIFEST_TEMPORARY_FILE, UNFINISHED_FILE, classify, segment_file};
use crate::options::{Maintenance, ReadMode};
use crate::parallel::in_parallel;
use crate::planted::{Planted, planted};
use crate::segment::scan::{End, ScanEnd, Scanner, Sorter, scan_to_end};
use crate::segment::{Counters, Segment};
use crate::state::Source;
use crate::storage::{Map, NeverChanged, StorageFile, read_exact_at};

/// Sequences left out after an unclean end, so that none that was given to a lost write is given out again. The log is synced
/// far more often than once in so many writes; and a segment's records span at most 2^32 sequences, which leaves room
/// for many such gaps in one segment.
const SEQUENCE_GAP: u64 = 1 << 24;

/// What opening a store found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RecoveryReport {
    /// The store was created just now.
    pub created: bool,
    /// The store had been closed, or nothing had been written since: nothing had to be found out.
    pub clean: bool,
    /// Segments that are live.
    pub segments: u64,
    /// Keys in the indexes.
    pub keys: u64,
    /// The indexes were taken from the file that closing the store had written.
    pub index_file_used: bool,
    /// Segments whose hints were used.
    pub hints_used: u64,
    /// Segments whose hints were found missing or unfit, and are written anew: in the background, if the store has threads for that, and
    /// then those that opening had no need of are not counted.
    pub hints_rebuilt: u64,
    /// Segments that had no seal.
    pub unsealed_segments: u64,
    /// Valid bytes that were not known to be durable, written anew and synced.
    pub rewritten_bytes: u64,
    /// Bytes beyond the end of the log that were discarded as a torn tail.
    pub discarded_bytes: u64,
    /// Left-over files of interrupted work that were removed.
    pub removed_files: u64,
    /// How long opening took.
    pub duration: Duration,
}

/// Valid records that still lie where they were found, not known to be durable. Until they are written anew nothing is
/// acknowledged on top of them.
#[derive(Debug, Default)]
pub(crate) struct Unrecovered {
    /// Segments of the log that were listed as open, in its order. A seal that is found in one is not relied on: it
    /// may be in the page cache only, and gone after the next crash.
    unsealed: Vec<Unsealed>,
    /// Listed segments that hold nothing that counts.
    dropped: Vec<u64>,
}

#[derive(Debug)]
struct Unsealed {
    id: u64,
    /// Account of the part that is known to be durable; None if no record of a key is.
    durable: Option<Summary>,
}

/// A segment that the manifest lists as open, read.
struct Opened {
    header: SegmentHeader,
    file: Arc<dyn StorageFile>,
    bytes: SegmentBytes,
    scan: ScanEnd,
}

/// The bytes of a file.
enum SegmentBytes {
    Map(Map),
    Memory(Vec<u8>),
}

impl SegmentBytes {
    fn get(&self) -> &[u8] {
        match self {
            SegmentBytes::Map(map) => map,
            SegmentBytes::Memory(bytes) => bytes,
        }
    }
}

impl Engine {
    pub(super) fn recover(&mut self, report: &mut RecoveryReport) -> Result<()> {
        let manifest = self.manifest.current();
        let mut segments = Vec::new();
        let mut unknown = Vec::new();
        for entry in &manifest.segments {
            match entry.state {
                SegmentState::Sealed(summary) => segments.push(self.open_known(entry.id, summary, false)?),
                SegmentState::Cut(summary) => segments.push(self.open_known(entry.id, summary, true)?),
                SegmentState::Open => unknown.push(entry.id),
            }
        }
        let opened = in_parallel(&unknown, |id| self.open_unknown(*id))?;
        let next_sequence = segments
            .iter()
            .filter_map(|segment: &Arc<Segment>| segment.summary)
            .chain(opened.iter().map(|opened| opened.scan.summary))
            .map(|summary| summary.max_sequence.saturating_add(1))
            .fold(manifest.next_sequence, u64::max);
        report.clean = opened.is_empty();
        // What was lost with the end of the log had sequences that somebody may remember.
        let next_sequence = if report.clean || planted(Planted::SkipSequenceGap) {
            next_sequence
        } else {
            next_sequence.saturating_add(SEQUENCE_GAP)
        };
        report.unsealed_segments = opened.len() as u64;
        let (unrecovered, sources) = self.find_end(opened, report)?;
        segments.extend(sources.iter().map(|source| source.segment.clone()));
        for segment in &segments {
            self.state.segments.set(segment.clone());
        }
        let scanned = self.fill_indexes(&segments, sources, report)?;
        self.lock_writer().begin_at(next_sequence);
        // From here on everything is decided, and the disk may change.
        // The process before may have been killed when it had renamed the manifest, and before that was durable.
        if !report.created && !planted(Planted::SkipOpeningSync) {
            self.context
                .directory
                .sync()
                .map_err(|error| Error::io("sync", self.context.path(), error))?;
        }
        // Junk goes first: an unfinished segment may stand where recovery is about to create one of the same id.
        self.remove_junk(report)?;
        if let Some(unrecovered) = unrecovered {
            let mut guard = self.lock_writer();
            guard.unrecovered = Some(unrecovered);
            let written = self
                .reserve
                .run(ReservePart::Whole, || self.finish_recovery(&mut guard));
            match written {
                Ok(rewritten) => report.rewritten_bytes = rewritten,
                // Reads go on; the first write tries again.
                Err(error) if error.is_no_space() => {
                    self.context.events.note_background_error(&error);
                    self.read_without_maps(&guard)?;
                    if planted(Planted::ForgetUnrecovered) {
                        guard.unrecovered = None;
                    }
                }
                Err(error) => return Err(error),
            }
        }
        let live = self.state.segments.all();
        report.segments = live.len() as u64;
        let ids = live.iter().map(|segment| segment.id());
        let doubtful = ids.filter_map(|id| match scanned.contains(&id) {
            true => Some((id, HintDoubt::Unfit)),
            false => report.index_file_used.then_some((id, HintDoubt::Unread)),
        });
        self.doubtful_hints.set(doubtful.collect());
        report.hints_rebuilt = scanned.len() as u64;
        if self.context.options.maintenance == Maintenance::Manual {
            // Nobody else does it.
            report.hints_rebuilt = self.renew_hints()?;
        }
        self.trim_cut_segments();
        if let Err(error) = self.reserve.restore() {
            self.context.events.note_background_error(&error);
        }
        Ok(())
    }

    /// Fills the indexes from the index file, if there is one that fits, or from the segments. Returns those that had to be
    /// read whole.
    fn fill_indexes(
        &mut self,
        segments: &[Arc<Segment>],
        sources: Vec<Source>,
        report: &mut RecoveryReport,
    ) -> Result<HashSet<u64>> {
        let writer = self.writer.clone();
        let writer = writer.lock();
        report.index_file_used = report.clean && self.load_index_file(&writer.right, segments);
        let mut scanned = HashSet::new();
        if report.index_file_used {
            drop(writer);
            // What has expired since it was written.
            self.sweep_expired();
        } else {
            let context = self.context.clone();
            let find = |segment: &Arc<Segment>, by_hint| source_of(&context, segment, by_hint);
            let loaded = self.state.load(&writer.right, segments, sources, find)?;
            report.hints_used = loaded.hints_used;
            scanned.extend(loaded.scanned);
        }
        report.keys = self.state.keys();
        Ok(scanned)
    }

    fn read_header(&self, path: &Path, file: &dyn StorageFile, id: u64) -> Result<SegmentHeader> {
        let mut bytes = [0; SEGMENT_HEADER_LEN as usize];
        read_exact_at(file, &mut bytes, 0).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => Error::damage(path, 0, Damage::Short),
            _ => Error::io("read", path, error),
        })?;
        let header = SegmentHeader::decode(&bytes).map_err(|damage| Error::damage(path, 0, damage))?;
        let is_ours = header.segment_id == id && header.store_id == self.context.store_id;
        if !is_ours && !planted(Planted::TrustOwner) {
            return Err(Error::damage(path, 0, Damage::Stranger));
        }
        Ok(header)
    }

    fn open_segment_file(&self, id: u64) -> Result<Arc<dyn StorageFile>> {
        self.context
            .directory
            .open_file(&segment_file(id), false)
            .map_err(|error| match error.kind() {
                std::io::ErrorKind::NotFound => Error::damage(&self.context.segment_path(id), 0, Damage::MISSING),
                _ => Error::io("open", &self.context.segment_path(id), error),
            })
    }

    /// A segment whose end the manifest knows.
    fn open_known(&self, id: u64, summary: Summary, cut: bool) -> Result<Arc<Segment>> {
        let path = self.context.segment_path(id);
        let file = self.open_segment_file(id)?;
        let length = file.len().map_err(|error| Error::io("measure", &path, error))?;
        let expected = if cut {
            summary.data_end
        } else {
            summary.data_end.saturating_add(SEAL_LEN)
        };
        if (length < expected || (!cut && length > expected)) && !planted(Planted::TrustLength) {
            return Err(Error::damage(
                &path,
                length.min(expected),
                Damage::Mismatch("the length that the manifest gives"),
            ));
        }
        let header = self.read_header(&path, &*file, id)?;
        if !cut {
            let mut seal = [0; SEAL_LEN as usize];
            read_exact_at(&*file, &mut seal, summary.data_end).map_err(|error| Error::io("read", &path, error))?;
            if !is_seal_of(&seal, &header, &summary) && !planted(Planted::TrustSeal) {
                return Err(Error::damage(&path, summary.data_end, Damage::Mismatch("the seal")));
            }
        }
        self.readable(header, summary, cut, file, Arc::new(Counters::of(&summary)))
    }

    /// A segment whose end must be found.
    fn open_unknown(&self, id: u64) -> Result<Opened> {
        let path = self.context.segment_path(id);
        let file = self.open_segment_file(id)?;
        let length = file.len().map_err(|error| Error::io("measure", &path, error))?;
        let header = self.read_header(&path, &*file, id)?;
        if length > SEGMENT_LEN_MAX {
            return Err(Error::damage(&path, SEGMENT_LEN_MAX, Damage::Field("segment length")));
        }
        let map = match self.context.options.read_mode {
            ReadMode::Pread => None,
            ReadMode::Map => match file.map(length, NeverChanged::promised()) {
                // The system grants no more maps; see `Engine::readable`.
                Err(error) if error.kind() == std::io::ErrorKind::OutOfMemory => None,
                map => Some(map.map_err(|error| Error::io("map", &path, error))?),
            },
        };
        let bytes = match map {
            Some(map) => SegmentBytes::Map(map),
            None => {
                let mut bytes = vec![0; length as usize];
                match read_exact_at(&*file, &mut bytes, 0) {
                    Err(_) if planted(Planted::ReadErrorIsEnd) => bytes.truncate(SEGMENT_HEADER_LEN as usize),
                    read => read.map_err(|error| Error::io("read", &path, error))?,
                }
                SegmentBytes::Memory(bytes)
            }
        };
        let scan = scan_to_end(bytes.get(), &header);
        Ok(Opened {
            header,
            file,
            bytes,
            scan,
        })
    }

    /// Decides where the log ends.
    fn find_end(&self, opened: Vec<Opened>, report: &mut RecoveryReport) -> Result<(Option<Unrecovered>, Vec<Source>)> {
        if opened.is_empty() {
            return Ok((None, Vec::new()));
        }
        let scans: Vec<_> = opened.iter().map(|opened| &opened.scan).collect();
        let end = find_log_end(&scans);
        if let Some((index, offset, damage)) = end.missing {
            let id = scans.get(index).map_or(0, |scan| scan.segment_id);
            return Err(Error::damage(&self.context.segment_path(id), offset, damage));
        }
        let durable = end.durable(&end.kept, &scans);
        let mut opened: Vec<_> = opened.into_iter().map(Some).collect();
        let mut take = |indexes: &[usize]| -> Vec<Opened> {
            let taken = indexes.iter().filter_map(|index| opened.get_mut(*index)?.take());
            taken.collect()
        };
        let log = take(&end.kept);
        let mut dropped = take(&end.discarded);
        dropped.extend(take(&end.unstarted));
        for opened in &dropped {
            report.discarded_bytes += opened.bytes.get().len() as u64 - SEGMENT_HEADER_LEN;
        }
        let mut unrecovered = Unrecovered {
            dropped: dropped.iter().map(|opened| opened.header.segment_id).collect(),
            ..Unrecovered::default()
        };
        let mut kept = Vec::new();
        for (index, opened) in log.into_iter().enumerate() {
            if let End::Damaged { .. } = opened.scan.end {
                report.discarded_bytes += opened.bytes.get().len() as u64 - opened.scan.valid_end;
            }
            let id = opened.header.segment_id;
            let has_keys = opened.scan.summary.puts + opened.scan.summary.tombstones > 0;
            if has_keys {
                let durable_end = match durable {
                    _ if planted(Planted::TrustTail) => opened.scan.valid_end,
                    Some((last, _)) if index < last => opened.scan.valid_end,
                    Some((last, offset)) if index == last => offset,
                    _ => 0,
                };
                let durable = durable_part(&opened, durable_end);
                unrecovered.unsealed.push(Unsealed { id, durable });
            } else {
                unrecovered.dropped.push(id);
                continue;
            }
            kept.push(opened);
        }
        let sources = in_parallel(&kept, |opened| self.source_of(opened))?;
        Ok((Some(unrecovered), sources))
    }

    fn source_of(&self, opened: &Opened) -> Result<Source> {
        let bytes = opened.bytes.get();
        let mut scanner = Scanner::new(bytes, opened.header);
        let mut sorter = Sorter::default();
        while let Ok(found) = scanner.next() {
            sorter.push(bytes, &found);
        }
        let offsets = sorter.finish().0;
        let counters = Arc::new(Counters::of(&opened.scan.summary));
        let segment = self.readable(opened.header, opened.scan.summary, true, opened.file.clone(), counters)?;
        Ok(Source::scanned(segment, offsets))
    }

    /// Writes anew what is not known to be durable, and lets the manifest say where the log ended. Returns the bytes
    /// written. On an error everything is as before, and it can be tried again.
    pub(super) fn finish_recovery(&self, guard: &mut Guard<'_>) -> Result<u64> {
        let Some(unrecovered) = &guard.unrecovered else {
            return Ok(0);
        };
        // Opened first, since nothing may fail once the manifest is replaced.
        let mut cut = Vec::new();
        for unsealed in &unrecovered.unsealed {
            let old = self.state.segments.get(crate::location::segment_index(unsealed.id));
            if let (Some(old), Some(durable)) = (old, unsealed.durable) {
                let file = self.open_segment_file(unsealed.id)?;
                let counters = Arc::new(Counters::of(&durable));
                let segment = self.readable(old.header, durable, true, file, counters)?;
                cut.push((old, segment));
            }
        }
        let mut output = OutputWriter::new(self);
        for unsealed in &unrecovered.unsealed {
            let Some(segment) = self.state.segments.get(crate::location::segment_index(unsealed.id)) else {
                continue;
            };
            let durable_end = unsealed.durable.map_or(0, |durable| durable.data_end);
            if let Err(error) = self.copy_beyond(&segment, durable_end, &mut output) {
                output.discard();
                return Err(error);
            }
        }
        let finished = output.finish()?;
        let (outputs, moves, written) = (finished.segments, finished.moves, finished.written_bytes);
        // Both until the indexes lead into the new segments alone.
        let _new_ids = finished.ids;
        let _old_ids = self
            .manifest
            .hold_ids(unrecovered.unsealed.iter().map(|unsealed| unsealed.id));
        let updated = self.manifest.update(self.floors(guard), |manifest| {
            for entry in &mut manifest.segments {
                let cut = unrecovered.unsealed.iter().find(|unsealed| unsealed.id == entry.id);
                if let Some(durable) = cut.and_then(|unsealed| unsealed.durable) {
                    entry.state = SegmentState::Cut(durable);
                }
            }
            let gone = |entry: &SegmentEntry| {
                unrecovered.dropped.contains(&entry.id)
                    || unrecovered
                        .unsealed
                        .iter()
                        .any(|unsealed| unsealed.id == entry.id && unsealed.durable.is_none())
            };
            manifest.segments.retain(|entry| !gone(entry));
            manifest.segments.extend(sealed_entries(&outputs));
        });
        match updated {
            Ok(()) => {}
            Err(ReplaceError::Unchanged(error)) => {
                outputs
                    .iter()
                    .for_each(|segment| self.remove_segment_files(segment.id()));
                return Err(error);
            }
            Err(ReplaceError::Unknown(error)) => {
                self.poison(guard, &error);
                return Err(error);
            }
        }
        let Some(unrecovered) = guard.unrecovered.take() else {
            return Ok(written);
        };
        outputs
            .iter()
            .for_each(|segment| self.state.segments.set(segment.clone()));
        self.state.relocate(&guard.right, &moves);
        for (old, segment) in cut {
            segment.counters.set_live(&guard.right, &old.counters.get());
            self.state.segments.set(segment);
        }
        for unsealed in unrecovered
            .unsealed
            .iter()
            .filter(|unsealed| unsealed.durable.is_none())
        {
            self.state.segments.remove(crate::location::segment_index(unsealed.id));
            self.remove_segment_files(unsealed.id);
        }
        unrecovered.dropped.iter().for_each(|id| self.remove_segment_files(*id));
        Ok(written)
    }

    /// Copies all records at or beyond an offset.
    fn copy_beyond(&self, segment: &Segment, offset: u64, output: &mut OutputWriter<'_>) -> Result<()> {
        let mut scratch = Vec::new();
        let bytes = segment
            .all_bytes(&mut scratch)
            .map_err(|error| self.context.read_error(segment.id(), 0, error))?;
        let mut scanner = Scanner::new(bytes, segment.header);
        while let Ok(found) = scanner.next() {
            if found.offset >= offset {
                let hash = self.state.hash(found.record.header.namespace, found.record.key());
                output.copy(segment.location(found.offset), &found.record, hash)?;
            }
        }
        Ok(())
    }

    /// Removes what interrupted steps left: files of ours that the manifest does not list.
    fn remove_junk(&self, report: &mut RecoveryReport) -> Result<()> {
        let names = self
            .context
            .directory
            .list()
            .map_err(|error| Error::io("list", self.context.path(), error))?;
        for name in names {
            // Of a name that is not text, which is none of ours, nothing is removed.
            let name = name.to_string_lossy();
            let junk = match classify(&name) {
                // Where there was no manifest, none can have been left out of it.
                FileName::Segment(id) | FileName::Hint(id) => !self.manifest.lists(id) && !report.created,
                // A store that was created just now may be a copy in the making; in any other the copy was finished.
                FileName::Own => {
                    name == MANIFEST_TEMPORARY_FILE
                        || (name == INDEX_FILE && !report.index_file_used)
                        || (name == UNFINISHED_FILE && !report.created)
                }
                FileName::Foreign => false,
            };
            if junk && !planted(Planted::KeepJunk) {
                match self.context.directory.remove(&name) {
                    Ok(()) => report.removed_files += 1,
                    // It does no harm where it is.
                    Err(error) => {
                        let error = Error::io("remove", &self.context.directory.path_of(&name), error);
                        self.context.events.note_background_error(&error);
                    }
                }
            }
        }
        Ok(())
    }

    /// What still waits to be written anew is read without maps: its files will be cut one day, and no value may lie there then.
    fn read_without_maps(&self, guard: &Guard<'_>) -> Result<()> {
        for unsealed in guard.unrecovered.iter().flat_map(|unrecovered| &unrecovered.unsealed) {
            let found = self.state.segments.get(crate::location::segment_index(unsealed.id));
            if let Some((segment, summary)) = found.and_then(|segment| Some((segment.clone(), segment.summary?))) {
                let file = self.open_segment_file(unsealed.id)?;
                let file = self.open_files.of_segment(unsealed.id, file);
                let unmapped = Segment::unmapped(segment.header, summary, true, file, segment.counters.clone());
                self.state.segments.set(Arc::new(unmapped));
            }
        }
        Ok(())
    }

    /// Gives back what lies beyond the ends of cut segments. Called before anybody can hold a value that lies there.
    fn trim_cut_segments(&self) {
        for entry in self.manifest.current().segments {
            let SegmentState::Cut(summary) = entry.state else {
                continue;
            };
            let file = self.context.directory.open_file(&segment_file(entry.id), true);
            let trimmed = file.and_then(|file| {
                if file.len()? > summary.data_end {
                    file.set_len(summary.data_end)
                } else {
                    Ok(())
                }
            });
            if let Err(error) = trimmed {
                // It only takes space.
                let error = Error::io("trim", &self.context.segment_path(entry.id), error);
                self.context.events.note_background_error(&error);
            }
        }
    }

    /// Lets the next one in. The last step of closing.
    pub(crate) fn unlock_directory(&self) {
        // A hint or the reserve may be worked at although the store is closed. Whoever is at a hint ends with it, and
        // looks whether the directory is still ours before touching the reserve.
        self.doubtful_hints.while_none_is_renewed(|| ());
        self.reserve.while_untouched(|| self.context.unlock_directory());
    }
}

/// Account of the part of an unsealed segment that lies before this offset; None if there is no record of a key in it.
fn durable_part(opened: &Opened, durable_end: u64) -> Option<Summary> {
    let mut scanner = Scanner::new(opened.bytes.get(), opened.header);
    let mut durable = None;
    while scanner.next().is_ok() && scanner.valid_end() <= durable_end {
        if !scanner.is_inside_batch() {
            durable = Some(scanner.summary());
        }
    }
    durable
}

#[cfg(test)]
mod tests;
