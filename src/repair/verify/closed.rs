//! Verifying a store that is not open, and may be too damaged to open.

use std::path::{Path, PathBuf};

use super::VerifyReport;
use super::check::{Check, Ended};
use crate::clock::StoreTime;
use crate::error::Result;
use crate::format::Damage;
use crate::format::manifest::SegmentState;
use crate::format::segment::{SEAL_LEN, SEGMENT_HEADER_LEN, SegmentHeader};
use crate::options::{Options, Progress};
use crate::planted::{Planted, planted};
use crate::recovery::log_end::{LogEnd, find_log_end};
use crate::repair::closed_store::{Source, SourceSegment};
use crate::repair::damaged::{Content, Damaged, open_if_there};
use crate::segment::scan::{End, ScanEnd, Sorter, scan_to_end};
use crate::segment::walk::Reach;

/// Reads all files of the store in `directory`, which is not open and may be too damaged to be
/// opened, and checks every byte that matters: headers, bodies, padding, order, batches, seals,
/// manifest and hints. Damage is not an error: the report lists all of it, each range with file,
/// offset, length and cause, including everything that [`salvage`](crate::salvage) would lose. For
/// an open store use [`Store::verify`](crate::Store::verify).
///
/// Nothing is changed (except for the owner's name in the lock file), and the store cannot be
/// opened meanwhile. Only storage and clock of the options are used. Needs memory for one segment
/// at a time.
///
/// If the manifest is damaged, all segments in the directory are read, including left-overs of
/// interrupted work, and a torn end cannot be told from damage.
///
/// # Errors
///
/// [`Error::InUse`] if the store is open. This needs its lock, which cannot be taken in a directory
/// that this process may only read, so close the store first. [`Error::NotAStore`] if there is no
/// store, [`Error::NewerFormat`] if no segment has a version that this program reads, and
/// [`Error::Io`] if a file cannot be opened or measured. Blocks that cannot be read are not an
/// error, but listed as damaged.
///
/// [`Error::InUse`]: crate::Error::InUse
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
    let directory = directory.as_ref();
    let time = StoreTime::new(options.clock.clone());
    let started_ms = time.monotonic_ms();
    let Source {
        directory,
        lock: _lock,
        manifest,
        damaged,
        segments,
    } = Source::find(&*options.storage, directory, "verify")?;
    let total_bytes = segments.iter().map(|segment| segment.length).sum();
    let mut check = Check::new(directory, total_bytes, progress);
    check.report.damaged = damaged;
    let mut unsealed = Vec::new();
    for segment in &segments {
        let header = match &segment.header {
            Ok(header) => *header,
            Err(damaged) => {
                let mut damaged = damaged.clone();
                // The unusable range ends with the data; the seal is lost as well.
                if let SegmentState::Sealed(summary) = segment.state {
                    damaged.length = summary.data_end.saturating_add(SEAL_LEN);
                }
                check.report.damaged.push(damaged);
                check.go_on(segment.length)?;
                continue;
            }
        };
        match segment.state {
            SegmentState::Sealed(summary) | SegmentState::Cut(summary) => {
                let ended = Ended {
                    header,
                    summary,
                    cut: matches!(segment.state, SegmentState::Cut(_)),
                };
                check.ended(&ended, || true)?;
            }
            SegmentState::Open => unsealed.extend(check.unsealed(segment, header)?),
        }
    }
    check.report.discarded.append(&mut check.unfit_hints);
    if manifest.is_some() {
        judge(&unsealed, &mut check.report);
    } else {
        // The store will not open, so nothing will be discarded.
        let ranges = unsealed.into_iter().flat_map(|segment| segment.ranges);
        check.report.damaged.extend(ranges);
    }
    Ok(check.finish(&time, started_ms))
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
    fn unsealed(&mut self, segment: &SourceSegment, header: SegmentHeader) -> Result<Option<Unsealed>> {
        let Some(file) = open_if_there(&self.directory, &segment.name)? else {
            self.content = Content::default();
            self.note(segment.id, 0, segment.length, Damage::Missing);
            return self.go_on(segment.length).map(|()| None);
        };
        self.content.read(&*file, &segment.path, segment.length)?;
        let bytes = std::mem::take(&mut self.content.bytes);
        if (bytes.len() as u64) < segment.length {
            let beyond = segment.length - bytes.len() as u64;
            self.note(segment.id, bytes.len() as u64, beyond, Damage::Field("segment length"));
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
            length: segment.length,
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
