//! Recovery: from the segments that a manifest lists to indexes and a writable log, after any kind
//! of end.
//!
//! After a clean close every segment is sealed, and opening reads the index file, or hints. After
//! any other end some segments are listed as open, and must be read to find where they end:
//!
//! 1. Each is read up to the first invalid record. Start records give the log order and say where
//!    the previous segment ended. Where the valid records of a file end, the ring may go on.
//! 2. The log ends at the first place where it does not continue properly (`log_end`). Everything
//!    after it is discarded as a torn tail, unless a valid record there says that this place was
//!    durable: then it is corruption, and an error.
//! 3. Records that are valid but not known to be durable may be only in the page cache. They are
//!    copied into a new segment ([`crate::log::unrecovered`]).
//!
//! Nothing on disk changes before the third step, which is atomic: recovery can be interrupted
//! anywhere and repeated.

pub(crate) mod destroy;
pub(crate) mod directory;
pub(crate) mod index_file;
pub(crate) mod log_end;
mod open_segments;
pub(crate) mod reading;
mod report;
pub(crate) mod staging;

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

pub use self::report::RecoveryReport;
use crate::clock::StoreTime;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::manifest::SegmentState;
use crate::format::{
    FileName, INDEX_FILE, MANIFEST_TEMPORARY_FILE, RING_FILE, UNFINISHED_FILE, classify, segment_file,
};
use crate::housekeeping::Housekeeping;
use crate::log::hints::{HintDoubt, source_of};
use crate::log::manifest::ManifestStore;
use crate::log::reserve::ReservePart;
use crate::log::segment_files::SegmentFiles;
use crate::log::unrecovered::Unrecovered;
use crate::log::{FoundSequences, Log, WriterLock, new_lock};
use crate::options::{Maintenance, Options};
use crate::parallel::in_parallel;
use crate::planted::{Planted, planted};
use crate::segment::Segment;
use crate::segment::ring::Ring;
use crate::state::{Source, State};
use crate::sync::ChangeRight;

/// Sequences skipped after an unclean end, so that none given to a lost write is reused. The log is
/// synced far more often than once per this many writes; and a segment's records span at most 2^32
/// sequences, which leaves room for many such gaps in one segment.
const SEQUENCE_GAP: u64 = 1 << 24;

/// The parts of an open store that recovery creates.
pub(crate) struct Recovered {
    pub(crate) context: Arc<Context>,
    pub(crate) state: Arc<State>,
    pub(crate) log: Arc<Log>,
    pub(crate) housekeeping: Arc<Housekeeping>,
    pub(crate) report: RecoveryReport,
}

/// Result of reading the segments.
struct Found {
    /// All segments that count.
    segments: Vec<Arc<Segment>>,
    /// The records of the segments whose ends had to be found.
    sources: Vec<Source>,
    unrecovered: Option<Unrecovered>,
    sequences: FoundSequences,
}

/// A store that is being opened.
struct Recovery {
    context: Arc<Context>,
    files: SegmentFiles,
    manifest: Arc<ManifestStore>,
    state: State,
    lock: Arc<WriterLock>,
    report: RecoveryReport,
}

/// Opens the store in this directory, or creates one.
pub(crate) fn open(path: &Path, options: Options) -> Result<Recovered> {
    options.check()?;
    let time = StoreTime::new(options.clock.clone());
    let started_ms = time.monotonic_ms();
    let entered = directory::enter(path, &options)?;
    let report = RecoveryReport {
        created: entered.created,
        ..RecoveryReport::default()
    };
    let (directory, manifest) = (entered.directory, entered.manifest);
    let context = Context::new(directory, entered.lock, manifest.store_id, options, time);
    let context = Arc::new(context);
    let lock = new_lock();
    let recovery = Recovery {
        files: SegmentFiles::new(context.clone()),
        state: State::new(context.clone(), manifest.next_namespace),
        manifest: Arc::new(ManifestStore::new(context.directory.clone(), manifest)),
        context,
        lock,
        report,
    };
    let mut recovered = recovery.run()?;
    let ended_ms = recovered.context.time.monotonic_ms();
    recovered.report.duration = Duration::from_millis(ended_ms.saturating_sub(started_ms));
    Ok(recovered)
}

impl Recovery {
    fn run(mut self) -> Result<Recovered> {
        let found = self.look()?;
        let scanned = self.fill_indexes(&found.segments, found.sources)?;
        // Everything is decided here; from now on the disk may change.
        let (context, state, mut report) = (self.context, Arc::new(self.state), self.report);
        let log = Log::new(state.clone(), self.lock, self.manifest, self.files, found.sequences);
        let log = Arc::new(log);
        let housekeeping = Housekeeping::new(context.clone(), state.clone(), log.clone());
        if report.index_file_used {
            // Keys that expired since the file was written.
            housekeeping.sweep_expired();
        }
        report.keys = state.keys();
        // The previous process may have been killed after renaming the manifest and before the
        // rename was durable.
        if !report.created && !planted(Planted::SkipOpeningSync) {
            let synced = context.directory.sync();
            synced.map_err(|error| Error::io("sync", context.path(), error))?;
        }
        // Junk is removed first: recovery may be about to create a segment with the id of an
        // unfinished one.
        remove_junk(&context, &log, &mut report)?;
        if let Some(unrecovered) = found.unrecovered {
            report.rewritten_bytes = finish(&context, &log, unrecovered)?;
        }
        let live = state.segments.all();
        report.segments = live.len() as u64;
        let ids = live.iter().map(|segment| segment.id());
        let doubtful = ids.filter_map(|id| match scanned.contains(&id) {
            true => Some((id, HintDoubt::Unfit)),
            false => report.index_file_used.then_some((id, HintDoubt::Unread)),
        });
        log.doubtful_hints.set(doubtful.collect());
        report.hints_rebuilt = scanned.len() as u64;
        if context.options.maintenance == Maintenance::Manual {
            // There is no thread for it.
            report.hints_rebuilt = log.renew_hints()?;
        }
        trim_cut_segments(&context, &log);
        if let Err(error) = log.restore_reserve() {
            context.events.note_background_error(&error);
        }
        Ok(Recovered {
            context,
            state,
            log,
            housekeeping: Arc::new(housekeeping),
            report,
        })
    }

    /// Opens all segments, and finds the end of the log.
    fn look(&mut self) -> Result<Found> {
        let (files, report) = (&self.files, &mut self.report);
        let manifest = self.manifest.current();
        let mut segments = Vec::new();
        let mut unknown = Vec::new();
        for entry in &manifest.segments {
            match entry.state {
                SegmentState::Sealed(summary) => {
                    segments.push(open_segments::open_known(files, entry.id, summary, false)?);
                }
                SegmentState::Cut(summary) => {
                    segments.push(open_segments::open_known(files, entry.id, summary, true)?);
                }
                SegmentState::Open => unknown.push(entry.id),
            }
        }
        let ring = Ring::read(&self.context.directory, manifest.ring_bytes)?;
        let opened = in_parallel(&unknown, |id| open_segments::open_unknown(files, *id, ring.as_ref()))?;
        let next_sequence = segments
            .iter()
            .filter_map(|segment: &Arc<Segment>| segment.summary)
            .chain(opened.iter().map(|opened| opened.scan.summary))
            .map(|summary| summary.max_sequence.saturating_add(1))
            .fold(manifest.next_sequence, u64::max);
        report.clean = opened.is_empty();
        // A client may remember sequences of writes that were lost with the end of the log.
        let last = next_sequence.saturating_sub(1);
        let next = if report.clean || planted(Planted::SkipSequenceGap) {
            next_sequence
        } else {
            next_sequence.saturating_add(SEQUENCE_GAP)
        };
        report.unsealed_segments = opened.len() as u64;
        let (unrecovered, sources) = open_segments::find_end(files, opened, report)?;
        segments.extend(sources.iter().map(|source| source.segment.clone()));
        Ok(Found {
            segments,
            sources,
            unrecovered,
            sequences: FoundSequences { last, next },
        })
    }

    /// Fills the indexes from the index file, if there is one that fits, or from the segments.
    /// Returns the segments that had to be read whole.
    fn fill_indexes(&mut self, segments: &[Arc<Segment>], sources: Vec<Source>) -> Result<HashSet<u64>> {
        for segment in segments {
            self.state.segments.set(segment.clone());
        }
        let right = &ChangeRight::new();
        self.report.index_file_used =
            self.report.clean && index_file::load(&self.context, &self.manifest, &mut self.state, right, segments);
        if self.report.index_file_used {
            return Ok(HashSet::new());
        }
        let context = &self.context;
        let find = |segment: &Arc<Segment>, by_hint| source_of(context, segment, by_hint);
        let loaded = self.state.load(right, segments, sources, find)?;
        self.report.hints_used = loaded.hints_used;
        Ok(loaded.scanned.into_iter().collect())
    }
}

/// Copies records not known to be durable. Returns the bytes written.
fn finish(context: &Context, log: &Log, unrecovered: Unrecovered) -> Result<u64> {
    let mut guard = log.lock();
    guard.tail.unrecovered = Some(unrecovered);
    let written = log.reserve.run(ReservePart::All, || log.finish_recovery(&mut guard));
    match written {
        // Reads still work; the first write tries again.
        Err(error) if error.is_no_space() => {
            context.events.note_background_error(&error);
            log.read_unrecovered_without_maps(&guard)?;
            if planted(Planted::ForgetUnrecovered) {
                guard.tail.unrecovered = None;
            }
            Ok(0)
        }
        written => written,
    }
}

/// Removes left-overs of interrupted steps: the store's files that the manifest does not list.
fn remove_junk(context: &Context, log: &Log, report: &mut RecoveryReport) -> Result<()> {
    let directory = &context.directory;
    let names = directory
        .list()
        .map_err(|error| Error::io("list", context.path(), error))?;
    for name in names {
        // Names that are not UTF-8 are not the store's, so they are never removed.
        let name = name.to_string_lossy();
        let junk = match classify(&name) {
            // Without an old manifest there is no list that a segment could be missing from.
            FileName::Segment(id) | FileName::Hint(id) => !log.manifest.lists(id) && !report.created,
            // A newly created store may be a copy under construction; in any other the copy is
            // finished.
            FileName::Own => {
                name == MANIFEST_TEMPORARY_FILE
                    || (name == RING_FILE && log.manifest.ring_bytes() == 0)
                    || (name == INDEX_FILE && !report.index_file_used)
                    || (name == UNFINISHED_FILE && !report.created)
            }
            FileName::Foreign | FileName::OfSystem => false,
        };
        if junk && !planted(Planted::KeepJunk) {
            match directory.remove(&name) {
                Ok(()) => report.removed_files += 1,
                // It does no harm.
                Err(error) => {
                    let error = Error::io("remove", &directory.path_of(&name), error);
                    context.events.note_background_error(&error);
                }
            }
        }
    }
    Ok(())
}

/// Frees the space after the ends of cut segments. Called before a reader can hold a value there.
fn trim_cut_segments(context: &Context, log: &Log) {
    for entry in log.manifest.current().segments {
        let SegmentState::Cut(summary) = entry.state else {
            continue;
        };
        let file = context.directory.open_file(&segment_file(entry.id), true);
        let trimmed = file.and_then(|file| {
            if file.len()? > summary.data_end {
                file.set_len(summary.data_end)
            } else {
                Ok(())
            }
        });
        if let Err(error) = trimmed {
            // It only takes space.
            let error = Error::io("trim", &context.segment_path(entry.id), error);
            context.events.note_background_error(&error);
        }
    }
}

#[cfg(test)]
mod tests;
