//! (Over 400 lines: what a process that writes does to the files, told from damage in one place.)
//!
//! Verifying the store in a directory from its files alone: one that is not open, and may be too
//! damaged to be opened, or one that another process has open and goes on writing to.
//!
//! Verify takes no lock. What a process that writes does to the files is told from damage so:
//!
//! * A sealed segment never changes, so it is read once. If it is gone, the manifest is read again:
//!   compaction has replaced it, unless it is still listed.
//! * Open segments are read newest first, each up to where it ends at that moment: a segment tells
//!   where the one before it ended, which has been read later and so up to there at least. What the
//!   ring has behind them is added; it may be older than the files, and then has nothing to add.
//! * If the store's lock is not held before and after, and the manifest is the same, nothing was
//!   changed, and damage is believed. Otherwise everything that is not sound is looked at
//!   again, and damage is believed once it is found twice in a place under one manifest.
//!
//! A process that opens the store in between writes a manifest before it removes or shortens a
//! file, so it is noticed although it may hold the lock at neither moment.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::VerifyReport;
use super::check::{Check, Ended};
use crate::clock::StoreTime;
use crate::error::{Error, Result};
use crate::format::manifest::{Manifest, SegmentState};
use crate::format::segment::{SEAL_LEN, SEGMENT_HEADER_LEN, SegmentHeader, Summary};
use crate::format::{Damage, LOCK_FILE};
use crate::log::manifest::Identity;
use crate::options::{Options, Progress};
use crate::planted::{Planted, planted};
use crate::recovery::log_end::{LogEnd, find_log_end};
use crate::repair::closed_store::{Files, SourceSegment, enter};
use crate::repair::damaged::{Content, Damaged, open_if_there};
use crate::segment::ring::Ring;
use crate::segment::scan::{End, ScanEnd, Sorter, scan_to_end};
use crate::segment::walk::Reach;

/// Attempts to read a store whose files are replaced meanwhile. Each needs another manifest to be
/// written in between, so this many mean that the writer does nothing else.
const ATTEMPTS_MAX: u64 = 100;
/// Longest pause between two attempts, in milliseconds.
const PAUSE_MAX_MS: u64 = 50;

/// Reads all files of the store in `directory`, which may be too damaged to be opened, and checks
/// every byte that matters: headers, bodies, padding, order, batches, seals, manifest and hints.
/// Damage is not an error: the report lists all of it, each range with file, offset, length and
/// cause, including everything that [`salvage`](crate::salvage) would lose. For a store that this
/// process has open, [`Store::verify`](crate::Store::verify) checks the indexes as well.
///
/// Nothing is changed, no lock is taken, and the directory may be one that this process may only
/// read. A process that has the store open, or opens it meanwhile, goes on, and nothing that it
/// does is taken for damage: writes under way, segments that are sealed or compacted away. What
/// replaces those is read too. Only storage and clock of the options are used. Needs memory for one
/// segment at a time.
///
/// If the manifest is damaged, all segments in the directory are read, including left-overs of
/// interrupted work, and a torn end cannot be told from damage.
///
/// # Errors
///
/// [`Error::NotAStore`] if there is no store, [`Error::NewerFormat`] if no segment has a version
/// that this program reads, and [`Error::Io`] if a file cannot be opened or measured. Blocks that
/// cannot be read are not an error, but listed as damaged.
///
/// [`Error::NotAStore`]: crate::Error::NotAStore
/// [`Error::NewerFormat`]: crate::Error::NewerFormat
/// [`Error::Io`]: crate::Error::Io
pub fn verify(directory: impl AsRef<Path>, options: &Options) -> Result<VerifyReport> {
    verify_with(directory, options, |_| true)
}

/// Like [`verify`]; calls `progress` from time to time with the bytes of segments read so far and
/// in total. If it returns false, verifying stops with
/// [`Error::Cancelled`](crate::Error::Cancelled).
pub fn verify_with(
    directory: impl AsRef<Path>,
    options: &Options,
    progress: impl FnMut(Progress) -> bool,
) -> Result<VerifyReport> {
    let time = StoreTime::new(options.clock.clone());
    let started_ms = time.monotonic_ms();
    let directory = enter(&*options.storage, directory.as_ref(), "verify")?.read_only();
    let mut run = Run {
        check: Check::new(directory, 0, progress),
        sound: HashSet::new(),
        counts: Counts::default(),
    };
    run.until_believed()?;
    Ok(run.check.finish(&time, started_ms))
}

/// Segments, records, bytes and hints that were read.
type Counts = [u64; 4];

fn counts(report: &mut VerifyReport) -> [&mut u64; 4] {
    [
        &mut report.segments,
        &mut report.records,
        &mut report.bytes,
        &mut report.hints,
    ]
}

/// A look at everything that is not known to be sound.
struct Look {
    /// None if the manifest is damaged.
    manifest: Option<Identity>,
    damaged: Vec<Damaged>,
}

impl Look {
    /// The damage that both looks have in one place, under one manifest; None if there is none.
    fn repeated(&self, earlier: &Look) -> Option<Vec<Damaged>> {
        let is_there = |range: &&Damaged| {
            let same = |other: &Damaged| (&other.path, other.offset) == (&range.path, range.offset);
            earlier.damaged.iter().any(same)
        };
        let repeated: Vec<_> = self.damaged.iter().filter(is_there).cloned().collect();
        (self.manifest == earlier.manifest && !repeated.is_empty()).then_some(repeated)
    }
}

/// A run of verify.
struct Run<P> {
    check: Check<P>,
    /// Segments that are sealed or cut, and sound.
    sound: HashSet<u64>,
    /// What was read of those.
    counts: Counts,
}

impl<P: FnMut(Progress) -> bool> Run<P> {
    /// Looks until damage that is found cannot be the work of another process.
    fn until_believed(&mut self) -> Result<()> {
        let mut earlier: Option<Look> = None;
        let mut is_in_use = false;
        for attempt in 1.. {
            let before = self.is_held();
            let look = self.look()?;
            let stands = self.manifest_now()? == look.manifest;
            let after = self.is_held();
            is_in_use |= before != Some(false) || after != Some(false) || !stands;
            let is_undisturbed = stands && (before, after) == (Some(false), Some(false));
            let is_believed = is_undisturbed || planted(Planted::VerifyAtOnce) || attempt == ATTEMPTS_MAX;
            if look.damaged.is_empty() || is_believed {
                self.check.report.damaged = look.damaged;
                break;
            }
            let earlier_look = earlier.as_ref().filter(|_| stands);
            if let Some(repeated) = earlier_look.and_then(|earlier| look.repeated(earlier)) {
                self.check.report.damaged = repeated;
                break;
            }
            earlier = Some(look);
            self.forget_look();
            std::thread::sleep(Duration::from_millis(attempt.min(PAUSE_MAX_MS)));
        }
        self.check.report.discarded.append(&mut self.check.unfit_hints);
        if is_in_use {
            // The end of the log is being written, and hints are.
            self.check.report.discarded.clear();
        }
        Ok(())
    }

    /// Whether another process, or this one, has the store open; None if that cannot be told.
    fn is_held(&self) -> Option<bool> {
        match self.check.directory.is_locked(LOCK_FILE) {
            Ok(is_held) => Some(is_held),
            // Without locks no store is opened to be written to.
            Err(error) if error.kind() == std::io::ErrorKind::Unsupported => Some(false),
            Err(_) => None,
        }
    }

    fn manifest_now(&self) -> Result<Option<Identity>> {
        let files = Files::read_manifest(&self.check.directory)?;
        Ok(files.as_ref().map(Identity::of))
    }

    /// Takes back what was found and counted since the last look, except sound segments.
    fn forget_look(&mut self) {
        for (count, sound) in counts(&mut self.check.report).into_iter().zip(self.counts) {
            *count = sound;
        }
        self.check.report.discarded.clear();
    }

    /// Reads everything that is not known to be sound.
    fn look(&mut self) -> Result<Look> {
        let Files {
            manifest,
            damaged,
            ring,
            segments,
        } = Files::read(&self.check.directory)?;
        let identity = manifest.as_ref().map(Identity::of);
        let (open, ended): (Vec<_>, Vec<_>) = segments
            .into_iter()
            .filter(|segment| !self.sound.contains(&segment.id))
            .partition(|segment| segment.state == SegmentState::Open);
        let bytes = open.iter().chain(&ended).map(|segment| segment.length).sum();
        self.check.expect(bytes);
        self.check.report.damaged = damaged;
        for segment in &ended {
            self.ended(segment)?;
        }
        let mut unsealed = Vec::new();
        for segment in open.iter().rev() {
            match &segment.header {
                Ok(header) => unsealed.extend(self.check.unsealed(segment, *header, ring.as_ref())?),
                Err(damaged) => self.unusable(damaged, segment.length)?,
            }
        }
        self.judge(&manifest, unsealed);
        Ok(Look {
            manifest: identity,
            damaged: std::mem::take(&mut self.check.report.damaged),
        })
    }

    /// Decides what the ranges in unsealed segments are.
    fn judge(&mut self, manifest: &Option<Manifest>, unsealed: Vec<Unsealed>) {
        if manifest.is_some() {
            judge(&unsealed, &mut self.check.report);
        } else {
            // The store will not open, so nothing will be discarded.
            let ranges = unsealed.into_iter().flat_map(|segment| segment.ranges);
            self.check.report.damaged.extend(ranges);
        }
    }

    /// Checks a segment that no longer grows.
    fn ended(&mut self, segment: &SourceSegment) -> Result<()> {
        let summary: Summary = match segment.state {
            SegmentState::Sealed(summary) | SegmentState::Cut(summary) => summary,
            SegmentState::Open => return Ok(()),
        };
        let header = match &segment.header {
            Ok(header) => *header,
            Err(damaged) => {
                // The unusable range ends with the data; the seal is lost as well.
                let mut damaged = damaged.clone();
                if let SegmentState::Sealed(summary) = segment.state {
                    damaged.length = summary.data_end.saturating_add(SEAL_LEN);
                }
                return self.unusable(&damaged, segment.length);
            }
        };
        let ended = Ended {
            header,
            summary,
            cut: matches!(segment.state, SegmentState::Cut(_)),
        };
        let before = counts(&mut self.check.report).map(|count| *count);
        let known = self.check.report.damaged.len();
        self.check.ended(&ended, || true)?;
        if self.check.report.damaged.len() == known {
            self.sound.insert(segment.id);
            let after = counts(&mut self.check.report);
            for ((sound, before), after) in self.counts.iter_mut().zip(before).zip(after) {
                *sound += after.saturating_sub(before);
            }
        }
        Ok(())
    }

    /// Notes a segment without a usable header.
    fn unusable(&mut self, damaged: &Damaged, length: u64) -> Result<()> {
        self.check.report.damaged.push(damaged.clone());
        self.check.go_on(length)
    }
}

/// A segment whose end the manifest does not record.
struct Unsealed {
    path: PathBuf,
    length: u64,
    /// The scan that recovery would make.
    scan: ScanEnd,
    /// Suspect ranges. Whether each is torn or damaged can only be decided from all segments
    /// together.
    ranges: Vec<Damaged>,
    /// A read failed: recovery will fail too, and discard nothing.
    is_unreadable: bool,
}

impl Unsealed {
    fn range(&self, offset: u64, length: u64, damage: Damage) -> Damaged {
        let id = Some(self.scan.segment_id);
        Content::default().damaged((&self.path, id), offset, length, damage)
    }
}

impl<P: FnMut(Progress) -> bool> Check<P> {
    /// Reads a segment whose end the manifest does not record. None if it was removed since the
    /// files were listed.
    fn unsealed(
        &mut self,
        segment: &SourceSegment,
        header: SegmentHeader,
        ring: Option<&Ring>,
    ) -> Result<Option<Unsealed>> {
        let Some(file) = open_if_there(&self.directory, &segment.name)? else {
            self.content = Content::default();
            self.note(segment.id, 0, segment.length, Damage::Missing);
            return self.go_on(segment.length).map(|()| None);
        };
        // It may have grown since all were listed, and one that follows may tell how far.
        let length = file.len().map_err(|error| Error::io("measure", &segment.path, error))?;
        self.content.read(&*file, &segment.path, length)?;
        let mut bytes = std::mem::take(&mut self.content.bytes);
        if (bytes.len() as u64) < length {
            let beyond = length - bytes.len() as u64;
            self.note(segment.id, bytes.len() as u64, beyond, Damage::Field("segment length"));
        }
        if let Some(ring) = ring {
            ring.complete(&mut bytes, header);
        }
        let known = self.report.damaged.len();
        let mut sorter = Sorter::default();
        let walked = self.walk(&header, &bytes, Reach::Unknown, Some(&mut sorter))?;
        let mut ranges = self.report.damaged.split_off(known);
        if walked.sealed && ranges.is_empty() {
            let ended = Ended {
                header,
                summary: walked.summary,
                cut: false,
            };
            self.hint(&ended, sorter, || true)?;
        }
        let scan = scan_to_end(&bytes, &header);
        self.content.bytes = bytes;
        ranges.extend(self.content.unlisted(&segment.path, segment.id, &ranges));
        Ok(Some(Unsealed {
            path: segment.path.clone(),
            length,
            scan,
            ranges,
            is_unreadable: !self.content.is_whole(),
        }))
    }
}

/// Tells damaged from torn ranges as recovery does: a range that any segment of the log records as
/// durable is damaged; the rest is a tail that was never acknowledged.
fn judge(unsealed: &[Unsealed], report: &mut VerifyReport) {
    let scans: Vec<_> = unsealed.iter().map(|segment| &segment.scan).collect();
    let end = find_log_end(&scans);
    let is_unreadable = unsealed.iter().any(|segment| segment.is_unreadable);
    let known = report.damaged.len();
    let order = end.order(&scans);
    let durable = end.durable(&order, &scans);
    for (position, segment) in order
        .iter()
        .enumerate()
        .filter_map(|(at, index)| Some((at, unsealed.get(*index)?)))
    {
        for range in &segment.ranges {
            let is_durable = end.missing.is_some() && durable > Some((position, range.offset));
            // Headers are synced before a manifest lists their segments; and recovery keeps
            // everything that a scan accepts.
            let is_kept = range.offset < SEGMENT_HEADER_LEN.max(segment.scan.valid_end);
            if (is_durable || is_kept || segment.is_unreadable) && !planted(Planted::VerifyTakesDamageForTorn) {
                report.damaged.push(range.clone());
            }
        }
    }
    let missing = end.missing.filter(|_| !planted(Planted::VerifyTakesDamageForTorn));
    if let Some((index, offset, damage)) = missing {
        let Some(segment) = unsealed.get(index) else { return };
        let covers = |range: &Damaged| {
            range.path == segment.path && (range.offset..range.offset + range.length.max(1)).contains(&offset)
        };
        if !report.damaged.iter().skip(known).any(covers) {
            let length = segment.length.saturating_sub(offset);
            report.damaged.push(segment.range(offset, length, damage));
        }
    } else if !is_unreadable {
        report.discarded.extend(discarded(&end, unsealed));
    }
}

/// The ranges that recovery discards.
fn discarded(end: &LogEnd, unsealed: &[Unsealed]) -> Vec<Damaged> {
    let torn = end.kept.iter().filter_map(|index| unsealed.get(*index));
    let torn = torn.filter_map(|segment| match segment.scan.end {
        End::Damaged { damage, .. } => Some((segment, segment.scan.valid_end, damage)),
        _ => None,
    });
    let does_not_follow = Damage::Mismatch("where the segment before it ends");
    let dropped = end.discarded.iter().filter_map(|index| unsealed.get(*index));
    let dropped = dropped.map(|segment| (segment, SEGMENT_HEADER_LEN, does_not_follow));
    // Segments that were prepared and never written to are not reported.
    let unstarted = end.unstarted.iter().filter_map(|index| unsealed.get(*index));
    let unstarted = unstarted.filter_map(|segment| match segment.scan.end {
        End::Damaged { damage, .. } => Some((segment, SEGMENT_HEADER_LEN, damage)),
        _ => None,
    });
    torn.chain(dropped)
        .chain(unstarted)
        .map(|(segment, offset, damage)| segment.range(offset, segment.length.saturating_sub(offset), damage))
        .collect()
}
