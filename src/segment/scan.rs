//! Walking a segment from its first record to its end, everything checked on the way.

use std::collections::HashMap;

use crate::format::hint::Offsets;
use crate::format::record::{BatchBegin, Header, Kind, Place, Record, RunCrc};
use crate::format::segment::{Mark, SEGMENT_HEADER_LEN, SegmentHeader, Start, Summary};
use crate::format::{ALIGNMENT, Damage};
use crate::key_bytes::{common_prefix, rank};
use crate::planted::{Planted, planted};

/// How a walk ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// At a seal, which says the same as was seen.
    Sealed,
    /// Where the bytes end, or nothing but zeros follow.
    Clean,
    /// At something that is no valid record. All before [`Scanner::valid_end`] is good.
    Damaged { offset: u64, damage: Damage },
}

/// A record and where it begins.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Found<'a> {
    pub(crate) offset: u64,
    pub(crate) record: Record<'a>,
}

/// Walks the records of a segment in order. Records of a batch come only when the whole batch is
/// there.
pub(crate) struct Scanner<'a> {
    bytes: &'a [u8],
    header: SegmentHeader,
    offset: u64,
    /// Records before this offset belong to a batch that was found whole.
    batch_end: u64,
    crc: RunCrc,
    summary: Summary,
    start: Option<Start>,
    mark: Option<Mark>,
}

impl<'a> Scanner<'a> {
    /// `bytes` are those of the whole segment from its header on, up to where its data may reach.
    pub(crate) fn new(bytes: &'a [u8], header: SegmentHeader) -> Scanner<'a> {
        Scanner {
            bytes,
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

    /// Where the good records end so far. Never inside a batch that is not whole.
    pub(crate) fn valid_end(&self) -> u64 {
        self.offset
    }

    /// What has been seen so far, as a seal at this point would say it.
    pub(crate) fn summary(&self) -> Summary {
        Summary {
            data_end: self.offset,
            records_crc: self.crc.value(),
            ..self.summary
        }
    }

    /// How the segment is chained to its predecessor, if its first record has been seen and says
    /// so.
    pub(crate) fn start(&self) -> Option<Start> {
        self.start
    }

    /// The last mark seen so far: it claims the most.
    pub(crate) fn mark(&self) -> Option<Mark> {
        self.mark
    }

    /// Whether the records seen last belong to a batch that goes on.
    pub(crate) fn is_inside_batch(&self) -> bool {
        self.offset < self.batch_end
    }

    /// The next put or tombstone, or how the walk ended; after an end, the same end again.
    pub(crate) fn next(&mut self) -> Result<Found<'a>, End> {
        loop {
            let rest = self.bytes.get(self.offset as usize..).unwrap_or_default();
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

    /// The record at this offset, everything about it checked.
    fn parse(&self, offset: u64, previous_sequence: u64) -> Result<Record<'a>, Damage> {
        let place = Place {
            salt: self.header.salt,
            base_sequence: self.header.base_sequence,
            offset,
        };
        let bytes = self.bytes.get(offset as usize..).ok_or(Damage::Short)?;
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

    /// Looks ahead whether the batch that begins here is whole.
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
            run.add(self.bytes.get(offset as usize..).unwrap_or_default());
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

/// What a scan of a whole segment found.
pub(crate) struct ScanEnd {
    pub(crate) segment_id: u64,
    pub(crate) end: End,
    pub(crate) valid_end: u64,
    pub(crate) start: Option<Start>,
    /// Of the valid part.
    pub(crate) summary: Summary,
    /// What it says of how far the log was durable.
    pub(crate) claim: Option<Mark>,
}

/// Scans a segment of the log whose end is not known. `bytes` are those of its file.
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

/// Counts one more record. `data_end` and the checksum are the caller's.
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
        _ => return,
    }
    summary.min_sequence = summary.min_sequence.min(header.sequence);
}

/// The last valid mark at or after `from`; a seal is as good as one. Looks at every place where a
/// record could begin: used beyond a tear, where nothing says where the next record is.
pub(crate) fn last_mark_after(bytes: &[u8], header: &SegmentHeader, from: u64) -> Option<Mark> {
    let mut last = None;
    let mut offset = from.next_multiple_of(ALIGNMENT);
    while let Some(rest) = bytes.get(offset as usize..).filter(|rest| !rest.is_empty()) {
        // The kind is the ninth byte: most places are sorted out by it.
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
                _ => None,
            });
            last = mark.or(last);
        }
        offset += ALIGNMENT;
    }
    last
}

/// Puts the newest record of each key of a scanned segment into the order of (namespace, key).
#[derive(Default)]
pub(crate) struct Sorter<'a> {
    entries: Vec<Entry<'a>>,
}

struct Entry<'a> {
    namespace: u32,
    /// The [`rank`] of the key behind what all keys of its namespace begin with: most comparisons
    /// end here.
    rank: u64,
    key: &'a [u8],
    offset: u64,
    /// Encoded header, for the checksum over headers and keys.
    header: &'a [u8],
}

/// Records that are on their way into the processor's cache while one is read.
const AHEAD: usize = 16;

impl<'a> Sorter<'a> {
    /// `bytes` are those of the segment; `found` a record in it.
    pub(crate) fn push(&mut self, bytes: &'a [u8], found: &Found<'a>) {
        let start = found.offset as usize;
        let header = bytes
            .get(start..start + found.record.header.header_len())
            .unwrap_or_default();
        self.entries.push(Entry {
            namespace: found.record.header.namespace,
            rank: 0,
            key: found.record.key(),
            offset: found.offset,
            header,
        });
    }

    /// The offsets in key order, and the checksum that a hint carries.
    pub(crate) fn finish(mut self) -> (Offsets, u32) {
        self.find_ranks();
        // Later offsets have higher sequences; of each key the last one counts.
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
            std::hint::black_box(ahead.and_then(|ahead| ahead.header.first()).copied());
            offsets.push(entry.offset);
            keys.add(entry.header, entry.key);
        }
        (offsets, keys.value())
    }

    fn find_ranks(&mut self) {
        // By namespace: a key of it, and how many bytes all begin with in common. Most segments are of few
        // namespaces.
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

/// Checksum over headers and keys, in the order of a hint.
#[derive(Default)]
pub(crate) struct KeysCrc(crc32fast::Hasher);

impl KeysCrc {
    /// `header` is the encoded header.
    pub(crate) fn add(&mut self, header: &[u8], key: &[u8]) {
        self.0.update(header);
        self.0.update(key);
    }

    pub(crate) fn value(&self) -> u32 {
        self.0.clone().finalize()
    }
}
