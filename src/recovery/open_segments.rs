//! Opening the segments that the manifest lists: those whose end it records, and those whose end
//! must be found.

use std::sync::Arc;

use super::log_end::find_log_end;
use super::report::RecoveryReport;
use crate::error::{Error, Result};
use crate::format::Damage;
use crate::format::segment::{SEAL_LEN, SEGMENT_HEADER_LEN, SEGMENT_LEN_MAX, SegmentHeader, Summary};
use crate::log::segment_files::{Ended, SegmentFiles};
use crate::log::segment_writer::is_seal_of;
use crate::log::unrecovered::{Unrecovered, Unsealed};
use crate::options::ReadMode;
use crate::parallel::in_parallel;
use crate::planted::{Planted, planted};
use crate::segment::buffer::Appender;
use crate::segment::ring::Ring;
use crate::segment::scan::{End, ScanEnd, Scanner, Sorter, scan_to_end, scanned_records, used_len};
use crate::segment::{Counters, Segment};
use crate::state::Source;
use crate::storage::{Map, NeverChanged, StorageFile, read_exact_at};

/// A segment listed as open, and read.
pub(super) struct Opened {
    header: SegmentHeader,
    file: Arc<dyn StorageFile>,
    bytes: SegmentBytes,
    /// Where the ring goes on, if that has anything that the file has not.
    file_end: Option<u64>,
    /// Bytes of records that only the ring has.
    ring_bytes: u64,
    pub(super) scan: ScanEnd,
}

/// The bytes of a segment.
enum SegmentBytes {
    Map(Map),
    Memory(Vec<u8>),
    /// Of a file, completed by what only the ring has.
    Completed(Vec<u8>),
}

impl SegmentBytes {
    fn get(&self) -> &[u8] {
        match self {
            SegmentBytes::Map(map) => map,
            SegmentBytes::Memory(bytes) | SegmentBytes::Completed(bytes) => bytes,
        }
    }
}

/// Opens a segment whose end the manifest records.
pub(super) fn open_known(files: &SegmentFiles, id: u64, summary: Summary, cut: bool) -> Result<Arc<Segment>> {
    let path = files.context().segment_path(id);
    let file = files.open(id)?;
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
    let header = files.read_header(&path, &*file, id)?;
    if !cut {
        let mut seal = [0; SEAL_LEN as usize];
        read_exact_at(&*file, &mut seal, summary.data_end).map_err(|error| Error::io("read", &path, error))?;
        if !is_seal_of(&seal, &header, &summary) && !planted(Planted::TrustSeal) {
            return Err(Error::damage(&path, summary.data_end, Damage::Mismatch("the seal")));
        }
    }
    let ended = Ended { header, summary, cut };
    files.readable(&ended, file, Arc::new(Counters::of(&summary)))
}

/// Opens and reads a segment whose end must be found, in its file and behind that in the ring.
pub(super) fn open_unknown(files: &SegmentFiles, id: u64, ring: Option<&Ring>) -> Result<Opened> {
    let path = files.context().segment_path(id);
    let file = files.open(id)?;
    let length = file.len().map_err(|error| Error::io("measure", &path, error))?;
    let header = files.read_header(&path, &*file, id)?;
    if length > SEGMENT_LEN_MAX {
        return Err(Error::damage(&path, SEGMENT_LEN_MAX, Damage::Field("segment length")));
    }
    let map = match files.context().options.read_mode {
        ReadMode::Pread => None,
        ReadMode::Map => match file.map(length, NeverChanged::promised()) {
            // The system grants no more maps; see `SegmentFiles::readable`.
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
    let ring = ring.filter(|ring| ring.may_go_on_at(scan.valid_end, header));
    let continuation = ring.and_then(|ring| ring.continuation(bytes.get(), header));
    let ring_bytes = continuation.as_ref().map_or(0, |found| found.bytes.len() as u64);
    let file_end = continuation.as_ref().map(|found| found.offset);
    let (bytes, scan) = match continuation {
        Some(continuation) => {
            let mut completed = bytes.get().to_vec();
            continuation.lay_over(&mut completed);
            let scan = scan_to_end(&completed, &header);
            (SegmentBytes::Completed(completed), scan)
        }
        None => (bytes, scan),
    };
    Ok(Opened {
        header,
        file,
        bytes,
        file_end,
        ring_bytes,
        scan,
    })
}

/// Decides where the log ends. Returns the part not known to be durable, and the records of all
/// segments kept.
pub(super) fn find_end(
    files: &SegmentFiles,
    opened: Vec<Opened>,
    report: &mut RecoveryReport,
) -> Result<(Option<Unrecovered>, Vec<Source>)> {
    if opened.is_empty() {
        return Ok((None, Vec::new()));
    }
    let context = files.context();
    let scans: Vec<_> = opened.iter().map(|opened| &opened.scan).collect();
    let end = find_log_end(&scans);
    if let Some((index, offset, damage)) = end.missing {
        let id = scans.get(index).map_or(0, |scan| scan.segment_id);
        return Err(Error::damage(&context.segment_path(id), offset, damage));
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
        report.discarded_bytes += used_len(opened.bytes.get()).saturating_sub(SEGMENT_HEADER_LEN);
    }
    let mut unrecovered = Unrecovered {
        dropped: dropped.iter().map(|opened| opened.header.segment_id).collect(),
        ..Unrecovered::default()
    };
    let mut kept = Vec::new();
    for (index, opened) in log.into_iter().enumerate() {
        report.ring_bytes += opened.ring_bytes;
        if let End::Damaged { .. } = opened.scan.end {
            report.discarded_bytes += used_len(opened.bytes.get()).saturating_sub(opened.scan.valid_end);
        }
        let id = opened.header.segment_id;
        if opened.scan.summary.puts + opened.scan.summary.tombstones == 0 {
            unrecovered.dropped.push(id);
            continue;
        }
        let durable_end = match durable {
            _ if planted(Planted::TrustTail) => opened.scan.valid_end,
            _ if opened.ring_bytes > 0 && planted(Planted::TrustRing) => opened.scan.valid_end,
            Some((last, _)) if index < last => opened.scan.valid_end,
            Some((last, offset)) if index == last => offset,
            _ => 0,
        };
        // What the ring has is copied, even if the file had it once.
        let file_end = opened.file_end.filter(|_| !planted(Planted::TrustRing));
        let durable_end = file_end.map_or(durable_end, |end| end.min(durable_end));
        let durable = durable_part(&opened, durable_end);
        unrecovered.unsealed.push(Unsealed {
            id,
            durable,
            file_end: opened.file_end,
        });
        kept.push(opened);
    }
    let sources = in_parallel(&kept, |opened| source_of(files, opened))?;
    Ok((Some(unrecovered), sources))
}

fn source_of(files: &SegmentFiles, opened: &Opened) -> Result<Source> {
    let bytes = opened.bytes.get();
    let mut sorter = Sorter::default();
    for found in scanned_records(bytes, &opened.scan, &opened.header) {
        sorter.push(bytes, &found);
    }
    let offsets = sorter.finish().0;
    let summary = opened.scan.summary;
    let counters = Arc::new(Counters::of(&summary));
    let segment = match &opened.bytes {
        SegmentBytes::Completed(bytes) => {
            // The file has only a part of it.
            let valid = bytes.get(..opened.scan.valid_end as usize).unwrap_or_default();
            let content = Appender::of(valid);
            Arc::new(Segment::active(opened.header, content.buffer().clone(), counters))
        }
        SegmentBytes::Map(_) | SegmentBytes::Memory(_) => {
            let ended = Ended {
                header: opened.header,
                summary,
                cut: true,
            };
            files.readable(&ended, opened.file.clone(), counters)?
        }
    };
    Ok(Source::scanned(segment, offsets))
}

/// Account of the part of an unsealed segment before this offset; None if that part has no record
/// of a key.
fn durable_part(opened: &Opened, durable_end: u64) -> Option<Summary> {
    if durable_end >= opened.scan.valid_end {
        let summary = opened.scan.summary;
        return (summary.puts + summary.tombstones > 0).then_some(summary);
    }
    let mut scanner = Scanner::new(opened.bytes.get(), opened.header);
    let mut durable = None;
    while scanner.next().is_ok() && scanner.valid_end() <= durable_end {
        if !scanner.is_inside_batch() {
            durable = Some(scanner.summary());
        }
    }
    durable
}
