//! (Over 400 lines: all that may happen while files are read beside a writer, in one place.)
//!
//! Opening a store for reading only, beside a process that may be writing it, and without its help.
//!
//! Nothing is locked, nothing is written, and no other process is waited for:
//!
//! 1. The manifest is replaced as a whole, so what was read is a whole list. A segment is listed
//!    before its first record is written; so what a writer has written out by the time the manifest
//!    is read is in a file that it lists.
//! 2. Sealed and cut segments never change. A listed file that is not there was replaced since, and
//!    then another manifest says by what: reading begins again with that one.
//! 3. Open segments may grow while they are read. They are read into memory, and never mapped: the
//!    writer may cut back a write that failed. The one with the highest id is read first. Marks and
//!    start records tell what *earlier* segments hold; so of an earlier segment, read later, at
//!    least that is found. In the other order a writer at work would look like damage.
//! 4. Another process may recover the store meanwhile: it copies what is not known to be durable,
//!    lists the open segments as cut, and shortens them. One shortened while it was read lacks
//!    records that compaction has relied on. And a segment may be created that comes before one
//!    that is listed already: where the one prepared ahead of time is too small for a record, that
//!    is used after it. So the manifest is read once more at the end. If it has changed, reading
//!    begins again if it lists one of them as cut, or not at all, or if the first manifest does not
//!    list what comes before one of them.
//! 5. What follows the last valid record is being written, or was torn by a kill. It is not shown,
//!    and is no damage. A batch that is not whole is not shown either.
//! 6. Nothing is damaged unless it is found twice under the same manifest. A writer that was seen
//!    half-way has got on by the second time.
//! 7. What is not in a segment's file yet is in the ring, which is read after the file. The writer
//!    stores to it what lies up to its length ahead of what is written out. So if no record follows
//!    in the file, nothing was overwritten that follows what was read of it. If one does, file and
//!    ring are read again, until the file alone has everything that the ring could have had at
//!    first.
//!
//! Unlike recovery, this makes nothing durable: a power cut may take back what was shown, as it may
//! take back what readers in the process that writes have seen.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::directory::{check_directory, open_directory};
use super::{Recovered, Recovery, RecoveryReport, open_segments};
use crate::clock::StoreTime;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::record::FIXED_HEADER_LEN;
use crate::format::segment::{SEGMENT_HEADER_LEN, SEGMENT_LEN_MAX, SegmentHeader, Summary};
use crate::format::{Damage, LOCK_FILE, MANIFEST_FILE};
use crate::housekeeping::Housekeeping;
use crate::log::manifest::{Identity, ManifestStore};
use crate::log::segment_files::SegmentFiles;
use crate::log::{FoundSequences, Log, new_lock};
use crate::options::Options;
use crate::planted::{Planted, planted};
use crate::recovery::log_end::find_log_end;
use crate::segment::buffer::Appender;
use crate::segment::ring::{self, Ring};
use crate::segment::scan::{End, ScanEnd, Scanner, Sorter, scan_to_end, used_len};
use crate::segment::{Counters, Segment};
use crate::state::{Source, State};
use crate::storage::{Directory, StorageFile};

/// Attempts to read a store whose files are replaced meanwhile. Each needs another manifest to be
/// written in between, so this many mean that the writer does nothing else.
const ATTEMPTS_MAX: u64 = 100;
/// Longest pause between two attempts, in milliseconds.
const PAUSE_MAX_MS: u64 = 50;

/// A store as it was found, and what tells whether that has changed since.
pub(crate) struct Loaded {
    pub(crate) recovered: Recovered,
    pub(crate) followed: Followed,
}

/// What was read of the files that can change.
#[derive(Debug)]
pub(crate) struct Followed {
    manifest: Identity,
    /// The segments that were listed as open.
    growing: Vec<Seen>,
}

/// An open segment, as far as it was read.
#[derive(Debug)]
struct Seen {
    file: Arc<dyn StorageFile>,
    /// Length of the file when it was read.
    length: u64,
    /// Where the last record of a key begins, and the end of its header. Without one, both are the
    /// end of the segment's header.
    last_header: (u64, u64),
    /// End of that record: what follows are marks, or no valid records.
    last_end: u64,
    /// End of what follows, with the place of the next record's header: from there on there were
    /// only zeros, and what is written there is written behind that header.
    tail_end: u64,
    /// Checksum of that header and of what follows that record, up to there. Sequences are never
    /// given out twice, so a record in the place of one that was cut back differs in its header.
    checksum: u32,
    /// Where the valid records end that are in the file or in the ring.
    shown_end: u64,
    /// Length of the ring, and what it had there; 0 if there is none.
    ring: (u32, ring::Head),
}

/// Opens the store in this directory for reading only.
pub(crate) fn open(path: &Path, options: Options) -> Result<Loaded> {
    options.check()?;
    let time = StoreTime::new(options.clock.clone());
    let directory = open_directory(&*options.storage, path)?.ok_or_else(|| Error::NotAStore {
        path: path.to_owned(),
        what: "the directory does not exist, and a store that is opened for reading only is not created".to_owned(),
    })?;
    let taken = planted(Planted::LockWhileReading).then(|| directory.lock(LOCK_FILE, "a reader"));
    let lock = taken.and_then(|lock| lock.ok());
    let directory = directory.read_only();
    let Some(manifest) = ManifestStore::read(&directory)? else {
        // The reason why there is none: the directory holds something else, or nothing.
        check_directory(&directory, false)?;
        let error = std::io::Error::from(std::io::ErrorKind::NotFound);
        return Err(Error::io("read", &directory.path_of(MANIFEST_FILE), error));
    };
    let context = Context::new(directory, lock, manifest.store_id, options, time);
    load(&Arc::new(context))
}

/// Reads the store as it is now.
pub(crate) fn load(context: &Arc<Context>) -> Result<Loaded> {
    let started_ms = context.time.monotonic_ms();
    let path = context.directory.path_of(MANIFEST_FILE);
    let mut doubted = None;
    let mut attempt = 0;
    loop {
        let manifest = ManifestStore::read(&context.directory)?.ok_or_else(|| {
            let error = std::io::Error::from(std::io::ErrorKind::NotFound);
            Error::io("read", &path, error)
        })?;
        if manifest.store_id != context.store_id {
            return Err(Error::damage(&path, 0, Damage::Stranger));
        }
        let identity = Identity::of(&manifest);
        let error = match look(context, manifest) {
            Ok(mut loaded) => {
                let ended_ms = context.time.monotonic_ms();
                loaded.recovered.report.duration = Duration::from_millis(ended_ms.saturating_sub(started_ms));
                return Ok(loaded);
            }
            Err(error) if is_passing(&error) => error,
            Err(error) => return Err(error),
        };
        attempt += 1;
        let stands = Identity::of_directory(&context.directory).is_ok_and(|found| found == identity);
        let is_found_twice = stands && doubted == Some(identity);
        if is_found_twice || attempt == ATTEMPTS_MAX || planted(Planted::BelieveFirstLook) {
            return Err(error);
        }
        doubted = stands.then_some(identity);
        context.check_open()?;
        std::thread::sleep(Duration::from_millis(attempt.min(PAUSE_MAX_MS)));
    }
}

/// Whether a writer that is at work can be the reason for this error.
fn is_passing(error: &Error) -> bool {
    matches!(error, Error::Corruption { .. }) || error.is_vanished()
}

/// Reads the files that this manifest lists.
fn look(context: &Arc<Context>, manifest: Manifest) -> Result<Loaded> {
    let files = SegmentFiles::new(context.clone());
    let identity = Identity::of(&manifest);
    let mut report = RecoveryReport::default();
    let mut segments = Vec::new();
    let mut open = Vec::new();
    for entry in &manifest.segments {
        match entry.state {
            SegmentState::Sealed(summary) => {
                segments.push(open_segments::open_known(&files, entry.id, summary, false)?);
            }
            SegmentState::Cut(summary) => segments.push(open_segments::open_known(&files, entry.id, summary, true)?),
            SegmentState::Open => open.push(entry.id),
        }
    }
    open.sort_unstable_by_key(|id| std::cmp::Reverse(*id));
    let growing: Result<Vec<_>> = open
        .iter()
        .map(|id| Growing::read(&files, *id, manifest.ring_bytes))
        .collect();
    let growing = growing?;
    check_still_listed(context, &manifest, &growing)?;
    report.clean = growing.is_empty();
    report.unsealed_segments = growing.len() as u64;
    let (sources, seen, newest) = up_to_the_end(context, growing)?;
    segments.extend(sources.iter().map(|source| source.segment.clone()));
    let summaries = segments.iter().filter_map(|segment| segment.summary);
    let last = summaries.map(|summary| summary.max_sequence).fold(newest, u64::max);
    let lock = new_lock();
    let mut recovery = Recovery {
        files,
        state: State::new(context.clone(), manifest.next_namespace),
        manifest: Arc::new(ManifestStore::new(context.directory.clone(), manifest)),
        context: context.clone(),
        lock,
        report,
    };
    // Nothing is rewritten, but they are the segments that were read whole.
    recovery.report.hints_rebuilt = recovery.fill_indexes(&segments, sources)?.len() as u64;
    let recovered = recovery.for_reading(segments.len() as u64, last);
    let followed = Followed {
        manifest: identity,
        growing: seen,
    };
    Ok(Loaded { recovered, followed })
}

/// An error that passes if, since this manifest was read, open segments may have been shortened, or
/// one was created that comes before one of them.
fn check_still_listed(context: &Context, manifest: &Manifest, growing: &[Growing]) -> Result<()> {
    let path = context.directory.path_of(MANIFEST_FILE);
    let identity = Identity::of(manifest);
    if growing.is_empty() || Identity::of_directory(&context.directory).is_ok_and(|found| found == identity) {
        return Ok(());
    }
    let replaced = Error::damage(
        &path,
        0,
        Damage::Mismatch("the manifest, which was replaced while it was read,"),
    );
    // One that is not listed was compacted away before, or was created since.
    let is_listed = |id: u64| manifest.segments.iter().any(|entry| entry.id == id);
    let mut before = growing.iter().filter_map(|growing| growing.scan.start);
    if before.any(|start| start.previous_id != 0 && !is_listed(start.previous_id)) && !planted(Planted::SkipCreated) {
        return Err(replaced);
    }
    let now = ManifestStore::read(&context.directory)?;
    let entries = now.iter().flat_map(|now| &now.segments);
    let whole = entries.filter(|entry| !matches!(entry.state, SegmentState::Cut(_)));
    let whole: HashSet<u64> = whole.map(|entry| entry.id).collect();
    let is_whole = |growing: &Growing| whole.contains(&growing.header.segment_id);
    if growing.iter().all(is_whole) || planted(Planted::ReadWhatIsShortened) {
        return Ok(());
    }
    Err(replaced)
}

impl Recovery {
    /// The parts of a store that is only read. Its log takes no writes.
    fn for_reading(self, segments: u64, last: u64) -> Recovered {
        let (context, state, mut report) = (self.context, Arc::new(self.state), self.report);
        let found = FoundSequences {
            last,
            next: last.saturating_add(1),
        };
        let log = Arc::new(Log::new(state.clone(), self.lock, self.manifest, self.files, found));
        log.refuse_writes();
        let housekeeping = Housekeeping::new(context.clone(), state.clone(), log.clone());
        if report.index_file_used {
            // Keys that expired since the file was written.
            housekeeping.sweep_expired();
        }
        report.segments = segments;
        report.keys = state.keys();
        Recovered {
            context,
            state,
            log,
            housekeeping: Arc::new(housekeeping),
            report,
        }
    }
}

/// An open segment that has been read into memory, up to where it ended.
struct Growing {
    header: SegmentHeader,
    bytes: Vec<u8>,
    seen: Seen,
    scan: ScanEnd,
}

impl Growing {
    fn read(files: &SegmentFiles, id: u64, ring_bytes: u32) -> Result<Growing> {
        let path = files.context().segment_path(id);
        let file = files.open(id)?;
        let header = files.read_header(&path, &*file, id)?;
        let measure = || file.len().map_err(|error| Error::io("measure", &path, error));
        let mut enough = u64::MAX;
        let (mut bytes, seen) = loop {
            let length = measure()?;
            if length > SEGMENT_LEN_MAX {
                return Err(Error::damage(&path, SEGMENT_LEN_MAX, Damage::Field("segment length")));
            }
            let mut bytes = vec![0; length as usize];
            let read = read_what_is_there(&*file, &mut bytes).map_err(|error| Error::io("read", &path, error))?;
            bytes.truncate(read);
            let mut seen = Seen::of(&bytes, header, file.clone());
            enough = enough.min(length.saturating_add(u64::from(ring_bytes)));
            let in_file = seen.shown_end;
            if let Some(ring) = Ring::read(&files.context().directory, ring_bytes)? {
                ring.complete(&mut bytes, header);
                seen.shown_end = scan_to_end(&bytes, &header).valid_end;
                seen.ring = (ring_bytes, ring.head_at(seen.shown_end));
            }
            let is_as_before = || seen.is_file_current().unwrap_or(false);
            if ring_bytes == 0 || in_file >= enough || is_as_before() || planted(Planted::ReadRingOnce) {
                break (bytes, seen);
            }
        };
        bytes.shrink_to_fit();
        Ok(Growing {
            scan: scan_to_end(&bytes, &header),
            seen,
            header,
            bytes,
        })
    }

    /// The records in key order, what will tell whether the file has changed, and the segment as
    /// readers use it.
    fn into_parts(self) -> (Source, Seen) {
        let mut scanner = Scanner::new(&self.bytes, self.header);
        let mut sorter = Sorter::default();
        while let Ok(found) = scanner.next() {
            sorter.push(&self.bytes, &found);
        }
        let (offsets, _) = sorter.finish();
        // Readers see valid records only.
        let valid = self.bytes.get(..self.scan.valid_end as usize).unwrap_or_default();
        let content = Appender::of(valid);
        let counters = Arc::new(Counters::of(&self.scan.summary));
        let segment = Segment::active(self.header, content.buffer().clone(), counters);
        (Source::scanned(Arc::new(segment), offsets), self.seen)
    }
}

fn part(bytes: &[u8], from: u64, to: u64) -> &[u8] {
    bytes.get(from as usize..to as usize).unwrap_or_default()
}

/// Reads a file from its beginning until the buffer is full or the file ends; returns the bytes
/// read. It may have been cut back since it was measured.
fn read_what_is_there(file: &dyn StorageFile, buffer: &mut [u8]) -> std::io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, length as u64) {
            Ok(0) => break,
            Ok(count) => length += count,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

/// Decides where the log ends. Returns the segments that have records before that end, what was
/// seen of all, and the newest sequence before the end.
fn up_to_the_end(context: &Context, growing: Vec<Growing>) -> Result<(Vec<Source>, Vec<Seen>, u64)> {
    let scans: Vec<_> = growing.iter().map(|growing| &growing.scan).collect();
    let end = find_log_end(&scans);
    if let Some((index, offset, damage)) = end.missing {
        let id = scans.get(index).map_or(0, |scan| scan.segment_id);
        return Err(Error::damage(&context.segment_path(id), offset, damage));
    }
    let torn = scans.iter().find_map(|scan| match scan.end {
        End::Damaged { offset, damage } => Some(Error::damage(&context.segment_path(scan.segment_id), offset, damage)),
        _ => None,
    });
    if let Some(error) = torn.filter(|_| planted(Planted::TornTailIsDamage)) {
        return Err(error);
    }
    let mut sources = Vec::new();
    let mut seen = Vec::new();
    let mut newest = 0;
    for (index, growing) in growing.into_iter().enumerate() {
        let Summary {
            puts,
            tombstones,
            max_sequence,
            ..
        } = growing.scan.summary;
        let (source, of_file) = growing.into_parts();
        seen.push(of_file);
        if end.kept.contains(&index) && puts + tombstones > 0 {
            newest = newest.max(max_sequence);
            sources.push(source);
        }
    }
    Ok((sources, seen, newest))
}

impl Followed {
    /// Whether the files are as they were read. An error while looking counts as a change: reading
    /// again reports it.
    pub(crate) fn is_current(&self, directory: &Directory) -> bool {
        Identity::of_directory(directory).is_ok_and(|found| found == self.manifest)
            && self
                .growing
                .iter()
                .all(|seen| seen.is_current(directory).unwrap_or(false))
    }
}

impl Seen {
    /// Of the content of a file alone.
    fn of(bytes: &[u8], header: SegmentHeader, file: Arc<dyn StorageFile>) -> Seen {
        let length = bytes.len() as u64;
        let mut scanner = Scanner::new(bytes, header);
        let mut last_header = (SEGMENT_HEADER_LEN, SEGMENT_HEADER_LEN);
        let mut last_end = SEGMENT_HEADER_LEN;
        while let Ok(found) = scanner.next() {
            let header = &found.record.header;
            last_header = (found.offset, found.offset + header.header_len() as u64);
            last_end = found.offset + header.record_len();
        }
        let next_header_end = scanner.valid_end() + FIXED_HEADER_LEN as u64;
        let tail_end = used_len(bytes).max(next_header_end).min(length);
        let mut checksum = crc32fast::Hasher::new();
        checksum.update(part(bytes, last_header.0, last_header.1));
        checksum.update(part(bytes, last_end, tail_end));
        Seen {
            file,
            length,
            last_header,
            last_end,
            tail_end,
            checksum: checksum.finalize(),
            shown_end: scanner.valid_end(),
            ring: (0, [0; size_of::<ring::Head>()]),
        }
    }

    fn is_current(&self, directory: &Directory) -> std::io::Result<bool> {
        // The ring first: what is overwritten there after this look is in the file by then.
        let (ring_bytes, head) = self.ring;
        let is_same = ring_bytes == 0 || ring::head_at(directory, ring_bytes, self.shown_end)? == head;
        Ok(is_same && self.is_file_current()?)
    }

    /// Whether the file alone is as it was read.
    fn is_file_current(&self) -> std::io::Result<bool> {
        if self.file.len()? != self.length {
            return Ok(false);
        }
        if planted(Planted::ForgetCutTail) {
            return Ok(true);
        }
        let mut checksum = crc32fast::Hasher::new();
        for (from, to) in [self.last_header, (self.last_end, self.tail_end)] {
            let mut bytes = vec![0; to.saturating_sub(from) as usize];
            crate::storage::read_exact_at(&*self.file, &mut bytes, from)?;
            checksum.update(&bytes);
        }
        Ok(checksum.finalize() == self.checksum)
    }
}

#[cfg(test)]
mod tests;
