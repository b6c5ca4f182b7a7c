//! Recovery: from the segments that a manifest lists to indexes and a log that can be written to,
//! whatever happened before.
//!
//! After a clean close every segment is sealed, and opening reads the index file, or hints. After
//! any other end some segments are listed as open; their ends are found by reading them:
//!
//! 1. Each is read up to the first thing that is no valid record. Their start records put them into
//!    the order of the log and say where the one before ended.
//! 2. The log ends at the first place where it does not go on as it should (`log_end`). What comes
//!    after it is discarded, as a torn tail, unless anything valid there says that this place had
//!    been durable: then it is corruption, and an error.
//! 3. What is valid but not known to be durable may be in the page cache only. It is copied into a
//!    segment of its own ([`crate::log::unrecovered`]).
//!
//! Nothing is changed on disk before the third step, and that is one atomic step: recovery can be
//! cut off anywhere and begun again.

pub(crate) mod directory;
pub(crate) mod index_file;
pub(crate) mod log_end;
mod open_segments;
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
use crate::format::{FileName, INDEX_FILE, MANIFEST_TEMPORARY_FILE, UNFINISHED_FILE, classify, segment_file};
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
use crate::state::{Source, State};

/// Sequences left out after an unclean end, so that none that was given to a lost write is given
/// out again. The log is synced far more often than once in so many writes; and a segment's records
/// span at most 2^32 sequences, which leaves room for many such gaps in one segment.
const SEQUENCE_GAP: u64 = 1 << 24;

/// An open store, as far as recovery has to do with it.
pub(crate) struct Recovered {
    pub(crate) context: Arc<Context>,
    pub(crate) state: Arc<State>,
    pub(crate) log: Arc<Log>,
    pub(crate) housekeeping: Arc<Housekeeping>,
    pub(crate) report: RecoveryReport,
}

/// What the segments hold.
struct Found {
    /// All that count.
    segments: Vec<Arc<Segment>>,
    /// The records of those whose ends had to be found.
    sources: Vec<Source>,
    unrecovered: Option<Unrecovered>,
    sequences: FoundSequences,
}

/// A store on its way to being open.
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
        state: State::new(context.clone(), lock.clone(), manifest.next_namespace),
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
        // From here on everything is decided, and the disk may change.
        let (context, state, mut report) = (self.context, Arc::new(self.state), self.report);
        let log = Log::new(state.clone(), self.lock, self.manifest, self.files, found.sequences);
        let log = Arc::new(log);
        let housekeeping = Housekeeping::new(context.clone(), state.clone(), log.clone());
        if report.index_file_used {
            // What has expired since it was written.
            housekeeping.sweep_expired();
        }
        report.keys = state.keys();
        // The process before may have been killed when it had renamed the manifest, and before that was
        // durable.
        if !report.created && !planted(Planted::SkipOpeningSync) {
            let synced = context.directory.sync();
            synced.map_err(|error| Error::io("sync", context.path(), error))?;
        }
        // Junk goes first: there may be an unfinished segment where recovery is about to create one of the
        // same id.
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
        if let Err(error) = log.reserve.restore() {
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
        let opened = in_parallel(&unknown, |id| open_segments::open_unknown(files, *id))?;
        let next_sequence = segments
            .iter()
            .filter_map(|segment: &Arc<Segment>| segment.summary)
            .chain(opened.iter().map(|opened| opened.scan.summary))
            .map(|summary| summary.max_sequence.saturating_add(1))
            .fold(manifest.next_sequence, u64::max);
        report.clean = opened.is_empty();
        // What was lost with the end of the log had sequences that a client may remember.
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
    /// Returns those that had to be read whole.
    fn fill_indexes(&mut self, segments: &[Arc<Segment>], sources: Vec<Source>) -> Result<HashSet<u64>> {
        for segment in segments {
            self.state.segments.set(segment.clone());
        }
        let guard = self.lock.lock();
        let right = &guard.tail.right;
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

/// Copies what is not known to be durable. Returns the bytes written.
fn finish(context: &Context, log: &Log, unrecovered: Unrecovered) -> Result<u64> {
    let mut guard = log.lock();
    guard.tail.unrecovered = Some(unrecovered);
    let written = log.reserve.run(ReservePart::Whole, || log.finish_recovery(&mut guard));
    match written {
        // Reads go on; the first write tries again.
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

/// Removes what interrupted steps left: files of ours that the manifest does not list.
fn remove_junk(context: &Context, log: &Log, report: &mut RecoveryReport) -> Result<()> {
    let directory = &context.directory;
    let names = directory
        .list()
        .map_err(|error| Error::io("list", context.path(), error))?;
    for name in names {
        // Of a name that is not text, which is none of ours, nothing is removed.
        let name = name.to_string_lossy();
        let junk = match classify(&name) {
            // Where there was no manifest, none can have been left out of it.
            FileName::Segment(id) | FileName::Hint(id) => !log.manifest.lists(id) && !report.created,
            // A store that was created just now may be a copy in the making; in any other the copy was finished.
            FileName::Own => {
                name == MANIFEST_TEMPORARY_FILE
                    || (name == INDEX_FILE && !report.index_file_used)
                    || (name == UNFINISHED_FILE && !report.created)
            }
            FileName::Foreign => false,
        };
        if junk && !planted(Planted::KeepJunk) {
            match directory.remove(&name) {
                Ok(()) => report.removed_files += 1,
                // It does no harm where it is.
                Err(error) => {
                    let error = Error::io("remove", &directory.path_of(&name), error);
                    context.events.note_background_error(&error);
                }
            }
        }
    }
    Ok(())
}

/// Gives back what comes after the ends of cut segments. Called before a reader can hold a value
/// there.
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
