//! Common to verifying open and closed stores: reading segments and hints, and recording damage.

use std::time::Duration;

use super::VerifyReport;
use crate::clock::StoreTime;
use crate::error::{Error, Result};
use crate::format::hint::Hint;
use crate::format::segment::{SEAL_LEN, SEGMENT_HEADER_LEN, SegmentHeader, Summary};
use crate::format::{Damage, hint_file, segment_file};
use crate::index::namespaces::{SYSTEM_NAMESPACE, decode_entry, decode_settings};
use crate::log::segment_writer::is_seal_of;
use crate::options::Progress;
use crate::planted::{Planted, planted};
use crate::repair::damaged::{Content, Damaged, open_if_there};
use crate::segment::scan::Sorter;
use crate::segment::walk::{Reach, Step, Walker};
use crate::storage::Directory;

/// Bytes between two reports of progress.
const PROGRESS_BYTES: u64 = 1 << 20;

/// A run of verify.
pub(super) struct Check<P> {
    pub(super) directory: Directory,
    pub(super) report: VerifyReport,
    pub(super) content: Content,
    /// Hints that do not match their segments, though they can be read.
    pub(super) unfit_hints: Vec<Damaged>,
    progress: P,
    state: Progress,
}

/// A segment that no longer grows, as the manifest lists it.
pub(super) struct Ended {
    pub(super) header: SegmentHeader,
    pub(super) summary: Summary,
    /// Recovery cut it, so it has no seal.
    pub(super) cut: bool,
}

/// Result of walking one segment.
pub(super) struct Walked {
    pub(super) summary: Summary,
    pub(super) sealed: bool,
    pub(super) damaged: bool,
}

impl<P: FnMut(Progress) -> bool> Check<P> {
    pub(super) fn new(directory: Directory, total_bytes: u64, progress: P) -> Check<P> {
        Check {
            directory,
            report: VerifyReport::default(),
            content: Content::default(),
            unfit_hints: Vec::new(),
            progress,
            state: Progress {
                done_bytes: 0,
                total_bytes,
            },
        }
    }

    /// Adds to the bytes that are to be read.
    pub(super) fn expect(&mut self, bytes: u64) {
        self.state.total_bytes = self.state.done_bytes.saturating_add(bytes);
    }

    pub(super) fn finish(self, time: &StoreTime, started_ms: u64) -> VerifyReport {
        let mut report = self.report;
        for ranges in [&mut report.damaged, &mut report.discarded] {
            ranges.sort_by(|a, b| (&a.path, a.offset).cmp(&(&b.path, b.offset)));
        }
        report.duration = Duration::from_millis(time.monotonic_ms().saturating_sub(started_ms));
        report
    }

    /// Reports progress; an error if the callback cancels.
    pub(super) fn go_on(&mut self, bytes: u64) -> Result<()> {
        self.state.done_bytes += bytes;
        // Segments may have grown since they were counted.
        self.state.total_bytes = self.state.total_bytes.max(self.state.done_bytes);
        if (self.progress)(self.state) {
            Ok(())
        } else {
            Err(Error::Cancelled)
        }
    }

    pub(super) fn note(&mut self, id: u64, offset: u64, length: u64, damage: Damage) {
        let path = self.directory.path_of(&segment_file(id));
        let damaged = self.content.damaged((&path, Some(id)), offset, length, damage);
        self.report.damaged.push(damaged);
    }

    /// Checks a segment that no longer grows: all of it is in its file.
    pub(super) fn ended(&mut self, segment: &Ended, is_listed: impl Fn() -> bool) -> Result<()> {
        let (id, summary) = (segment.header.segment_id, segment.summary);
        let expected = if segment.cut {
            summary.data_end
        } else {
            summary.data_end.saturating_add(SEAL_LEN)
        };
        let name = segment_file(id);
        let path = self.directory.path_of(&name);
        let Some(file) = open_if_there(&self.directory, &name)? else {
            if is_listed() {
                self.content = Content::default();
                self.note(id, 0, expected, Damage::Missing);
            }
            return self.go_on(summary.data_end);
        };
        let length = file.len().map_err(|error| Error::io("measure", &path, error))?;
        self.content.read(&*file, &path, expected)?;
        let bytes = std::mem::take(&mut self.content.bytes);
        let data = bytes.get(..summary.data_end as usize).unwrap_or(&bytes);
        let mut sorter = Sorter::default();
        let walked = self.walk(&segment.header, data, Reach::Known, Some(&mut sorter))?;
        if length < expected {
            // No part of an incomplete seal can be checked.
            let sound_end = if segment.cut {
                length
            } else {
                length.min(summary.data_end)
            };
            self.note(id, sound_end, expected - sound_end, Damage::Short);
        } else if length > expected && !segment.cut {
            self.note(
                id,
                expected,
                length - expected,
                Damage::Mismatch("the length that the manifest gives"),
            );
        }
        if !walked.damaged && length >= expected {
            if walked.summary != summary {
                self.note(
                    id,
                    0,
                    summary.data_end,
                    Damage::Mismatch("the manifest's account of the segment"),
                );
            }
            self.hint(segment, sorter, is_listed)?;
        }
        let seal = bytes.get(summary.data_end as usize..).unwrap_or_default();
        let is_sealed = is_seal_of(seal, &segment.header, &summary) || planted(Planted::VerifyPassesSeals);
        if !segment.cut && length >= expected && !is_sealed {
            self.note(id, summary.data_end, SEAL_LEN, Damage::Mismatch("the seal"));
        }
        self.content.bytes = bytes;
        Ok(())
    }

    /// Walks a segment, recording all damage.
    pub(super) fn walk<'b>(
        &mut self,
        expected: &SegmentHeader,
        bytes: &'b [u8],
        reach: Reach,
        mut sorter: Option<&mut Sorter<'b>>,
    ) -> Result<Walked> {
        let mut damaged = false;
        let header = SegmentHeader::decode(bytes).and_then(|header| match header == *expected {
            true => Ok(header),
            false => Err(Damage::Stranger),
        });
        if let Err(damage) = header {
            damaged = true;
            self.note(expected.segment_id, 0, SEGMENT_HEADER_LEN, damage);
        }
        // The expected header is good, so the records can be checked anyway.
        let mut walker = Walker::new(bytes, *expected, reach);
        let mut reported = 0;
        while let Some(step) = walker.next() {
            match step {
                Step::Record { found, .. } => {
                    self.report.records += 1;
                    let (header, key) = (found.record.header, found.record.key());
                    let names_a_namespace = header.namespace == SYSTEM_NAMESPACE && header.kind.is_put();
                    let decode =
                        || decode_entry(key, found.record.value()).and(decode_settings(found.record.metadata()));
                    if names_a_namespace && let Err(damage) = decode() {
                        damaged = true;
                        self.note(expected.segment_id, found.offset, header.record_len(), damage);
                    }
                    if let Some(sorter) = &mut sorter {
                        sorter.push(bytes, &found);
                    }
                }
                Step::Log(_) => {}
                Step::Damaged { .. } if planted(Planted::VerifyPassesRecords) => {}
                Step::Damaged { offset, length, damage } => {
                    damaged = true;
                    self.note(expected.segment_id, offset, length, damage);
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
            sealed: walker.is_sealed(),
            damaged,
        })
    }

    /// Checks the hint of a sound segment. A missing one is not damage: opening rebuilds it.
    pub(super) fn hint(&mut self, segment: &Ended, sorter: Sorter<'_>, is_listed: impl Fn() -> bool) -> Result<()> {
        let (id, summary) = (segment.header.segment_id, segment.summary);
        let name = hint_file(id);
        let path = self.directory.path_of(&name);
        let Some(file) = open_if_there(&self.directory, &name)? else {
            return Ok(());
        };
        let length = file.len().map_err(|error| Error::io("measure", &path, error))?;
        let mut content = Content::default();
        content.read(&*file, &path, Hint::len_max(&summary).min(length))?;
        let (offsets, keys_crc) = sorter.finish();
        let damage = match Hint::decode(&content.bytes) {
            _ if length > Hint::len_max(&summary) => Some(Damage::Field("hint length")),
            Err(damage) => Some(damage),
            Ok(hint) if hint.store_id != segment.header.store_id || hint.segment_id != id => Some(Damage::Stranger),
            // Recovery cut the segment before the end of the hint; the next open writes a new one.
            Ok(hint) if segment.cut && hint.data_end > summary.data_end => None,
            Ok(hint) if hint.data_end != summary.data_end || hint.records_crc != summary.records_crc => {
                Some(Damage::Mismatch("the hint"))
            }
            Ok(hint) if hint.offsets != offsets || hint.keys_crc != keys_crc => Some(Damage::Mismatch("the hint")),
            Ok(_) => None,
        };
        self.report.hints += 1;
        self.report.bytes += length;
        // If the segment was compacted away since, the hint may have been removed at any moment.
        if let Some(damage) = damage.filter(|_| !planted(Planted::VerifyPassesHints))
            && is_listed()
        {
            let damaged = content.damaged((&path, Some(id)), 0, length, damage);
            if content.is_whole() {
                self.unfit_hints.push(damaged);
            } else {
                self.report.damaged.push(damaged);
            }
        }
        Ok(())
    }
}
