//! Verifying a store that is not open, and perhaps cannot be.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use super::VerifyReport;
use super::check::{Check, Ended};
use crate::clock::StoreTime;
use crate::error::Result;
use crate::format::manifest::SegmentState;
use crate::format::segment::{Mark, SEGMENT_HEADER_LEN, SegmentHeader, Start};
use crate::format::{Damage, FileName, classify};
use crate::log::output::SEAL_LEN;
use crate::options::{Options, Progress};
use crate::segment::scan::{ScanEnd, Sorter, scan_to_end};
use crate::segment::walk::Reach;
use crate::store::damage::{Content, Damaged, open_if_there};
use crate::store::source::{Source, SourceSegment};

/// Reads all files of the store in `directory`, which is not open and may be too damaged to be opened, and checks every byte of
/// them that means anything: headers, bodies, padding, order, batches, seals, manifest and hints. Damage is not an error: the
/// report lists all of it, each range with file, offset, length and cause. What [`salvage`](crate::salvage) would lose is among
/// it. For a store that is open there is [`Store::verify`](crate::Store::verify).
///
/// Nothing is changed (but for the owner's name in the lock file), and nobody can open the store meanwhile. Of the options, storage
/// and clock are used. Takes memory for one segment at a time.
///
/// If the manifest is damaged, all segments in the directory are read, left-overs of interrupted work among them, and what was
/// torn cannot be told from what is damaged.
///
/// # Errors
///
/// [`Error::InUse`](crate::Error::InUse) if the store is open, [`Error::NotAStore`](crate::Error::NotAStore) if there is none, [`Error::NewerFormat`](crate::Error::NewerFormat), and [`Error::Io`](crate::Error::Io) if a
/// file cannot be opened or measured. A block that cannot be read is listed as damaged.
pub fn verify(directory: impl AsRef<Path>, options: &Options) -> Result<VerifyReport> {
    verify_with(directory, options, |_| true)
}

/// As [`verify`]; calls `progress` now and then, with bytes of segments read so far and in all. If it answers false, verifying
/// stops with [`Error::Cancelled`](crate::Error::Cancelled).
pub fn verify_with(
    directory: impl AsRef<Path>,
    options: &Options,
    progress: impl FnMut(Progress) -> bool,
) -> Result<VerifyReport> {
    let directory = directory.as_ref();
    let time = StoreTime::new(options.clock.clone());
    let started_ms = time.monotonic_ms();
    let Source {
        lock: _lock,
        manifest,
        damaged,
        segments,
    } = Source::find(&*options.storage, directory, "verify")?;
    let total_bytes = segments.iter().map(|segment| segment.length).sum();
    let mut check = Check::new(options.storage.clone(), directory, total_bytes, progress);
    check.report.damaged = damaged;
    let mut unsealed = Vec::new();
    for segment in &segments {
        let header = match &segment.header {
            Ok(header) => *header,
            Err(damaged) => {
                let mut damaged = damaged.clone();
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
    let found = std::mem::take(&mut check.report.damaged);
    let is_hint = |damaged: &Damaged| {
        let name = damaged.path.file_name().unwrap_or_default().to_string_lossy();
        matches!(classify(&name), FileName::Hint(_))
    };
    (check.report.discarded, check.report.damaged) = found.into_iter().partition(is_hint);
    if manifest.is_some() {
        judge(&unsealed, &mut check.report);
    } else {
        // It will not be opened, and so nothing will be discarded.
        let ranges = unsealed.into_iter().flat_map(|segment| segment.ranges);
        check.report.damaged.extend(ranges);
    }
    Ok(check.finish(&time, started_ms))
}

/// A segment whose end the manifest does not know.
struct Unsealed {
    header: SegmentHeader,
    path: PathBuf,
    /// What recovery sees.
    end: ScanEnd,
    /// Ranges that are not as they should be. Whether one was torn or is damaged, the other segments must say.
    ranges: Vec<Damaged>,
}

impl Unsealed {
    /// What comes first in the log comes first in this order.
    fn place(&self, offset: u64) -> (u64, u64, u64) {
        (self.header.base_sequence, self.header.segment_id, offset)
    }

    fn range(&self, offset: u64, length: u64, damage: Damage) -> Damaged {
        let id = Some(self.header.segment_id);
        Content::default().damaged(&self.path, id, offset, length, damage)
    }
}

impl<P: FnMut(Progress) -> bool> Check<P> {
    /// Reads a segment whose end the manifest does not know.
    fn unsealed(&mut self, segment: &SourceSegment, header: SegmentHeader) -> Result<Option<Unsealed>> {
        let Some(file) = open_if_there(&*self.storage, &segment.path)? else {
            return Ok(None);
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
        let ranges = self.report.damaged.split_off(known);
        if walked.sealed && ranges.is_empty() {
            let ended = Ended {
                header,
                summary: walked.summary,
                cut: false,
            };
            self.hint(&ended, sorter, || true)?;
        }
        let end = scan_to_end(&bytes, &header);
        self.content.bytes = bytes;
        Ok(Some(Unsealed {
            header,
            path: segment.path.clone(),
            end,
            ranges,
        }))
    }
}

/// Tells apart what is damaged and what was torn, by the rules of recovery: what any segment of the log says was durable
/// is damaged; the rest is a tail that nobody was told of.
fn judge(unsealed: &[Unsealed], report: &mut VerifyReport) {
    let with_id = |id: u64| unsealed.iter().find(|segment| segment.header.segment_id == id);
    let durable = unsealed
        .iter()
        .filter_map(|segment| segment.end.claim)
        .filter_map(|claim| Some(with_id(claim.segment_id)?.place(claim.offset)))
        .max();
    let followers: HashMap<u64, Start> = unsealed
        .iter()
        .filter_map(|segment| segment.end.start)
        .map(|start| (start.previous_id, start))
        .collect();
    let claims: Vec<Mark> = unsealed.iter().filter_map(|segment| segment.end.claim).collect();
    for segment in unsealed {
        let id = segment.header.segment_id;
        let follower = followers.get(&id);
        let claimed_end = claims
            .iter()
            .filter(|claim| claim.segment_id == id)
            .map(|claim| claim.offset)
            .max();
        // Behind the data that the next segment knows of there can only be a seal that was being written.
        let data_end = follower.map_or(u64::MAX, |start| start.previous_end);
        let mut ranges = segment.ranges.clone();
        let (found_end, known_end) = (segment.end.valid_end, follower.map(|start| start.previous_end));
        if !ranges.iter().any(|range| range.offset < data_end) {
            let expected_end = known_end.max(claimed_end).unwrap_or(found_end);
            if found_end < expected_end {
                ranges.push(segment.range(found_end, expected_end - found_end, Damage::Short));
            } else if let Some(start) = follower
                && (start.previous_end, start.previous_crc) != (found_end, segment.end.summary.records_crc)
            {
                let damage = Damage::Mismatch("what the next segment knows of this one");
                ranges.push(segment.range(0, data_end, damage));
            }
        }
        for range in ranges {
            let is_durable = range.offset < data_end && durable > Some(segment.place(range.offset));
            // A header is synced before a manifest lists its segment.
            if is_durable || range.offset < SEGMENT_HEADER_LEN {
                report.damaged.push(range);
            } else {
                report.discarded.push(range);
            }
        }
    }
}
