//! Scanning a segment from its first record to its end, checking everything.

mod again;
mod pieces;

use std::collections::HashMap;

use crate::format::hint::Offsets;
use crate::format::record::{BatchBegin, Header, Kind, Place, Record, RunCrc};
use crate::format::segment::{Mark, SEGMENT_HEADER_LEN, SegmentHeader, Start, Summary};
use crate::format::{ALIGNMENT, Damage};
use crate::key_bytes::{common_prefix, rank};
use crate::planted::{Planted, planted};

pub(crate) use again::scanned_records;

/// How a scan ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// At a seal whose summary matches the records.
    Sealed,
    /// At the end of the bytes, or where only zeros follow.
    Clean,
    /// At an invalid record. Everything before [`Scanner::valid_end`] is valid.
    Damaged { offset: u64, damage: Damage },
}

/// Where the bytes end that are not zeros at the end.
pub(crate) fn used_len(bytes: &[u8]) -> u64 {
    let last = bytes.iter().rposition(|&byte| byte != 0);
    last.map_or(0, |last| last as u64 + 1)
}

/// A record and its offset.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    pub(crate) offset: u64,
    pub(crate) record: Record<'a>,
}

/// Yields the records of a segment in order. Records of a batch are yielded only if the batch is
/// complete.
#[derive(Debug)]
pub(crate) struct Scanner<'a> {
    bytes: &'a [u8],
    /// Offset of `bytes` in the segment.
    base: u64,
    header: SegmentHeader,
    offset: u64,
    /// End of the last batch, which was checked to be complete.
    batch_end: u64,
    crc: RunCrc,
    summary: Summary,
    start: Option<Start>,
    mark: Option<Mark>,
}

impl<'a> Scanner<'a> {
    /// `bytes` are the segment from its header on, up to where its data may reach.
    pub(crate) fn new(bytes: &'a [u8], header: SegmentHeader) -> Scanner<'a> {
        Scanner {
            bytes,
            base: 0,
            header,
            offset: SEGMENT_HEADER_LEN,
            batch_end: 0,
            crc: RunCrc::default(),
            summary: Summary {
                min_sequence: u64::MAX,
                ..Summary::default()
            },
            start: None,
            mark: None,
        }
    }

    /// The bytes from this offset of the segment on.
    fn from(&self, offset: u64) -> Option<&'a [u8]> {
        self.bytes.get(offset.checked_sub(self.base)? as usize..)
    }

    /// End of the valid records so far. Never inside an incomplete batch.
    pub(crate) fn valid_end(&self) -> u64 {
        self.offset
    }

    /// The summary of the records so far, as a seal at this point would hold it.
    pub(crate) fn summary(&self) -> Summary {
        Summary {
            data_end: self.offset,
            records_crc: self.crc.value(),
            ..self.summary
        }
    }

    /// The segment's start record, which chains it to its predecessor, if it has been seen.
    pub(crate) fn start(&self) -> Option<Start> {
        self.start
    }

    /// The last mark so far, which claims the most.
    pub(crate) fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// Whether the last record belongs to a batch with more records to come.
    pub(crate) fn is_inside_batch(&self) -> bool {
        self.offset < self.batch_end
    }

    /// The next put or tombstone, or how the scan ended; repeats the end once reached.
    pub(crate) fn next(&mut self) -> Result<Found<'a>, End> {
        loop {
            let rest = self.from(self.offset).unwrap_or_default();
            if rest.is_empty() {
                return Err(End::Clean);
            }
            let offset = self.offset;
            let damaged = |damage| End::Damaged { offset, damage };
            let record = match self.parse(offset, self.summary.max_sequence) {
                Ok(record) => record,
                Err(_) if rest.iter().all(|&byte| byte == 0) => return Err(End::Clean),
                Err(damage) => return Err(damaged(damage)),
            };
            match record.header.kind {
                Kind::Seal => {
                    let sealed = Summary::decode(record.body).map_err(damaged)?;
                    if sealed != self.summary() {
                        return Err(damaged(Damage::Mismatch("the seal's account of the segment")));
                    }
                    return Err(End::Sealed);
                }
                Kind::BatchBegin if planted(Planted::HalfBatch) => {}
                Kind::BatchBegin => self.check_batch(offset, &record)?,
                Kind::Start if offset == SEGMENT_HEADER_LEN => {
                    self.start = Some(Start::decode(record.body).map_err(damaged)?);
                }
                Kind::Start => return Err(damaged(Damage::Field("place of a start record"))),
                Kind::Mark => {
                    self.mark = Some(Mark::decode(record.body).map_err(damaged)?);
                }
                Kind::Put | Kind::Tombstone => {}
            }
            self.account(rest, &record);
            if record.header.kind.has_key() {
                return Ok(Found { offset, record });
            }
        }
    }

    fn account(&mut self, bytes: &[u8], record: &Record<'_>) {
        let length = record.header.record_len();
        add_to_summary(&mut self.summary, &record.header);
        self.crc.add(bytes);
        self.offset += length;
    }

    /// The record at this offset, fully checked.
    fn parse(&self, offset: u64, previous_sequence: u64) -> Result<Record<'a>, Damage> {
        let place = Place {
            salt: self.header.salt,
            base_sequence: self.header.base_sequence,
            offset,
        };
        let bytes = self.from(offset).ok_or(Damage::Short)?;
        let record = Record::parse(bytes, place)?;
        record.check_body()?;
        let used = record.header.header_len() as u64 + record.header.body_len();
        let padding = bytes
            .get(used as usize..record.header.record_len() as usize)
            .ok_or(Damage::Short)?;
        if padding.iter().any(|&byte| byte != 0) {
            return Err(Damage::Padding);
        }
        if record.header.kind != Kind::Seal && record.header.sequence <= previous_sequence {
            return Err(Damage::Order);
        }
        Ok(record)
    }

    /// Checks ahead that the batch that begins here is complete.
    fn check_batch(&mut self, begin_offset: u64, begin: &Record<'_>) -> Result<(), End> {
        let damaged = |offset, damage| End::Damaged { offset, damage };
        if begin_offset < self.batch_end {
            return Err(damaged(begin_offset, Damage::Field("batch inside a batch")));
        }
        let frame = BatchBegin::decode(begin.body).map_err(|damage| damaged(begin_offset, damage))?;
        let first = begin_offset + begin.header.record_len();
        let mut offset = first;
        let mut sequence = begin.header.sequence;
        let mut run = RunCrc::default();
        for _ in 0..frame.count {
            let record = self.parse(offset, sequence).map_err(|damage| damaged(offset, damage))?;
            if !record.header.kind.has_key() {
                return Err(damaged(offset, Damage::Field("record kind inside a batch")));
            }
            run.add(self.from(offset).unwrap_or_default());
            sequence = record.header.sequence;
            offset += record.header.record_len();
        }
        if offset - first != frame.bytes {
            return Err(damaged(begin_offset, Damage::Mismatch("the batch's length")));
        }
        if run.value() != frame.run_crc {
            return Err(damaged(begin_offset, Damage::Checksum));
        }
        self.batch_end = offset;
        Ok(())
    }
}

/// The result of scanning a whole segment.
pub(crate) struct ScanEnd {
    pub(crate) segment_id: u64,
    pub(crate) end: End,
    pub(crate) valid_end: u64,
    pub(crate) start: Option<Start>,
    /// Summary of the valid part.
    pub(crate) summary: Summary,
    /// How far the segment claims that the log was durable.
    pub(crate) claim: Option<Mark>,
}

/// Scans a segment of the log whose end is unknown. `bytes` is the content of its file.
pub(crate) fn scan_to_end(bytes: &[u8], header: &SegmentHeader) -> ScanEnd {
    let mut scanner = Scanner::new(bytes, *header);
    let end = loop {
        if let Err(end) = scanner.next() {
            break end;
        }
    };
    let valid_end = scanner.valid_end();
    let claim = match end {
        // The data were synced before the seal was written, and in the order of the log.
        End::Sealed if planted(Planted::IgnoreSeals) => scanner.mark(),
        End::Sealed => Some(Mark {
            segment_id: header.segment_id,
            offset: valid_end,
        }),
        End::Clean => scanner.mark(),
        End::Damaged { .. } if planted(Planted::IgnoreMarksBehind) => scanner.mark(),
        End::Damaged { .. } => last_mark_after(bytes, header, valid_end).or(scanner.mark()),
    };
    ScanEnd {
        segment_id: header.segment_id,
        end,
        valid_end,
        start: scanner.start(),
        summary: scanner.summary(),
        claim,
    }
}

/// Counts one more record. The caller maintains `data_end` and the checksum.
pub(crate) fn add_to_summary(summary: &mut Summary, header: &Header) {
    summary.records += 1;
    summary.max_sequence = summary.max_sequence.max(header.sequence);
    match header.kind {
        Kind::Put => {
            summary.puts += 1;
            summary.put_bytes += header.record_len();
            summary.expiring += u64::from(header.expiry.is_some());
        }
        Kind::Tombstone => {
            summary.tombstones += 1;
            summary.tombstone_bytes += header.record_len();
        }
        Kind::BatchBegin | Kind::Mark | Kind::Start | Kind::Seal => return,
    }
    summary.min_sequence = summary.min_sequence.min(header.sequence);
}

/// The last valid mark at or after `from`; a seal counts as one. Tries every offset where a record
/// could begin, because behind a tear the next record's offset is unknown.
pub(crate) fn last_mark_after(bytes: &[u8], header: &SegmentHeader, from: u64) -> Option<Mark> {
    let mut last = None;
    let mut offset = from.next_multiple_of(ALIGNMENT);
    while let Some(rest) = bytes.get(offset as usize..).filter(|rest| !rest.is_empty()) {
        // The ninth byte is the kind, which rules out most offsets.
        if rest
            .get(8)
            .is_some_and(|kind| [Kind::Mark as u8, Kind::Seal as u8].contains(kind))
        {
            let place = Place {
                salt: header.salt,
                base_sequence: header.base_sequence,
                offset,
            };
            let record = Record::parse(rest, place).and_then(|record| record.check_body().map(|()| record));
            let mark = record.ok().and_then(|record| match record.header.kind {
                Kind::Mark => Mark::decode(record.body).ok(),
                Kind::Seal if planted(Planted::IgnoreSeals) => None,
                // The data were synced before their seal was written.
                Kind::Seal => Summary::decode(record.body).ok().map(|_| Mark {
                    segment_id: header.segment_id,
                    offset,
                }),
                Kind::Put | Kind::Tombstone | Kind::BatchBegin | Kind::Start => None,
            });
            last = mark.or(last);
        }
        offset += ALIGNMENT;
    }
    last
}

/// Sorts the newest record of each key of a scanned segment by (namespace, key).
#[derive(Default)]
pub(crate) struct Sorter<'a> {
    entries: Vec<Entry<'a>>,
}

struct Entry<'a> {
    namespace: u32,
    /// The [`rank`] of the key behind the common prefix of its namespace. Decides most comparisons.
    rank: u64,
    key: &'a [u8],
    offset: u64,
    /// Encoded header and key, for the checksum over these.
    begin: &'a [u8],
}

/// Number of records to prefetch ahead of the one being read.
const AHEAD: usize = 16;

impl<'a> Sorter<'a> {
    /// `bytes` is the segment; `found` is a record in it.
    pub(crate) fn push(&mut self, bytes: &'a [u8], found: &Found<'a>) {
        let (start, key) = (found.offset as usize, found.record.key());
        let begin = bytes.get(start..start + found.record.header.header_len() + key.len());
        self.entries.push(Entry {
            namespace: found.record.header.namespace,
            rank: 0,
            key,
            offset: found.offset,
            begin: begin.unwrap_or_default(),
        });
    }

    /// The offsets in key order, and the hint's checksum over headers and keys.
    pub(crate) fn finish(mut self) -> (Offsets, u32) {
        self.find_ranks();
        // Later offsets have higher sequences, so the last record of each key is kept.
        self.entries.sort_unstable_by(|a, b| {
            (a.namespace, a.rank)
                .cmp(&(b.namespace, b.rank))
                .then_with(|| a.key.cmp(b.key))
                .then(b.offset.cmp(&a.offset))
        });
        self.entries
            .dedup_by(|later, kept| later.namespace == kept.namespace && later.key == kept.key);
        let mut offsets = Offsets::with_capacity(self.entries.len());
        let mut keys = KeysCrc::default();
        for (number, entry) in self.entries.iter().enumerate() {
            let ahead = self.entries.get(number + AHEAD);
            std::hint::black_box(ahead.and_then(|ahead| ahead.begin.first()).copied());
            offsets.push(entry.offset);
            keys.add(entry.begin);
        }
        (offsets, keys.value())
    }

    fn find_ranks(&mut self) {
        // Per namespace: one of its keys, and the length of their common prefix. Most segments have
        // few namespaces.
        let mut shared: HashMap<u32, (&[u8], usize)> = HashMap::new();
        for run in self.entries.chunk_by(|a, b| a.namespace == b.namespace) {
            let Some(head) = run.first() else { continue };
            let (first, length) = shared.entry(head.namespace).or_insert((head.key, head.key.len()));
            *length = run
                .iter()
                .fold(*length, |length, entry| length.min(common_prefix(first, entry.key)));
        }
        for run in self.entries.chunk_by_mut(|a, b| a.namespace == b.namespace) {
            let namespace = run.first().map_or(0, |head| head.namespace);
            let length = shared.get(&namespace).map_or(0, |(_, length)| *length);
            for entry in run {
                entry.rank = rank(entry.key.get(length..).unwrap_or_default());
            }
        }
    }
}

/// Checksum over headers and keys, in hint order.
#[derive(Default)]
pub(crate) struct KeysCrc(crc32fast::Hasher);

impl KeysCrc {
    /// `begin` are the encoded header and the key, as they follow each other in a segment.
    pub(crate) fn add(&mut self, begin: &[u8]) {
        self.0.update(begin);
    }

    pub(crate) fn value(&self) -> u32 {
        self.0.clone().finalize()
    }
}
