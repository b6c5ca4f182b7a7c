//! Walking a segment past damage, for verify and salvage. (Recovery stops at the first damage.)
//!
//! After damage the walk resumes at the next record it can find:
//!
//! * If a record's header is valid but its body is not, the header says where the record ends:
//!   exactly that range is damaged, and the walk resumes behind it.
//! * If the header is invalid, the end of the record is unknown. Every multiple of eight is tried
//!   for a record whose header and body both match their checksums. Header checksums cover the
//!   segment's salt and the record's offset, so neither segment bytes inside a value nor a stale
//!   block pass for a record; by chance, one offset in 2^32 does. Everything in between is damaged.
//!
//! Every record yielded has passed all of recovery's checks of a single record. Violations of the
//! rules across records (order, batch frames, the seal's account) are reported as damage, but the
//! records are still yielded.

use std::collections::VecDeque;

use super::scan::{Found, add_to_summary};
use crate::format::record::{BatchBegin, FIXED_HEADER_LEN, Header, Kind, Place, Record, RunCrc};
use crate::format::segment::{Mark, SEGMENT_HEADER_LEN, SegmentHeader, Start, Summary};
use crate::format::{ALIGNMENT, Damage};

/// One step of a walk.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'a> {
    /// A sound put or tombstone, and the offset of its batch, if it is in one.
    Record { found: Found<'a>, batch: Option<u64> },
    /// A sound record about the log itself; a seal comes last.
    Log(Found<'a>),
    /// A range of damaged bytes.
    Damaged { offset: u64, length: u64, damage: Damage },
}

/// Whether the end of the data is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The data end exactly where the bytes end, and include no seal.
    Known,
    /// The data end at a seal, at the end of the bytes, or where only zeros follow.
    Unknown,
}

/// Walks the records of a segment in order, past damage.
pub(crate) struct Walker<'a> {
    bytes: &'a [u8],
    header: SegmentHeader,
    reach: Reach,
    offset: u64,
    crc: RunCrc,
    summary: Summary,
    batch: Option<OpenBatch>,
    /// Offset of an incomplete batch with no sound record after it.
    broken_batch: Option<u64>,
    queued: VecDeque<Step<'a>>,
    damaged: bool,
    sealed: bool,
    ended: bool,
}

/// A batch whose records are being walked.
struct OpenBatch {
    begin: u64,
    frame_len: u64,
    end: u64,
    frame: BatchBegin,
    seen: u32,
    run: RunCrc,
    /// Whether there is damage inside it.
    damaged: bool,
}

impl<'a> Walker<'a> {
    /// `bytes` are the segment from its header on, up to where its data may reach.
    pub(crate) fn new(bytes: &'a [u8], header: SegmentHeader, reach: Reach) -> Walker<'a> {
        Walker {
            bytes,
            header,
            reach,
            offset: SEGMENT_HEADER_LEN.min(bytes.len() as u64),
            crc: RunCrc::default(),
            summary: Summary {
                min_sequence: u64::MAX,
                ..Summary::default()
            },
            batch: None,
            broken_batch: None,
            queued: VecDeque::new(),
            damaged: false,
            sealed: false,
            ended: false,
        }
    }

    /// Whether the end of the data is known.
    pub(crate) fn reach(&self) -> Reach {
        self.reach
    }

    /// The current offset of the walk.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Summary of the sound records so far; the segment's own if there was no damage.
    pub(crate) fn summary(&self) -> Summary {
        Summary {
            data_end: self.offset,
            records_crc: self.crc.value(),
            ..self.summary
        }
    }

    /// Whether a sound seal ended the walk.
    pub(crate) fn is_sealed(&self) -> bool {
        self.sealed
    }

    /// After the end: the offset of an incomplete batch with no sound record after it.
    pub(crate) fn broken_batch(&self) -> Option<u64> {
        self.broken_batch
    }

    /// The next record or damaged range; None at the end.
    pub(crate) fn next(&mut self) -> Option<Step<'a>> {
        loop {
            if let Some(step) = self.queued.pop_front() {
                return Some(step);
            }
            if self.ended {
                return None;
            }
            self.advance();
        }
    }

    /// Examines the record or damage at the current offset, and queues the steps for it.
    fn advance(&mut self) {
        self.end_batch();
        let rest = self.bytes.get(self.offset as usize..).unwrap_or_default();
        let may_be_unused = self.reach == Reach::Unknown || rest.is_empty();
        if may_be_unused && rest.iter().all(|&byte| byte == 0) {
            return self.end();
        }
        let place = self.place(self.offset);
        match Header::decode(rest, place) {
            Ok(header) if header.record_len() > rest.len() as u64 => {
                // The record extends beyond the end, so no other can follow.
                self.damage(self.offset, rest.len() as u64, Damage::Short);
                self.offset = self.bytes.len() as u64;
            }
            Ok(header) => match Record::parse(rest, place) {
                Ok(record) if record.check_body().is_ok() => self.sound(rest, &record),
                _ => {
                    self.damage(self.offset, header.record_len(), Damage::BodyChecksum);
                    self.offset += header.record_len();
                }
            },
            Err(damage) => {
                let next = self.next_sound(self.offset + ALIGNMENT);
                self.damage(self.offset, next - self.offset, damage);
                self.offset = next;
            }
        }
    }

    /// Handles a record whose checksums match.
    fn sound(&mut self, rest: &'a [u8], record: &Record<'a>) {
        let (offset, header) = (self.offset, record.header);
        let length = header.record_len();
        if self.batch.is_none() {
            self.broken_batch = None;
        }
        if header.kind == Kind::Seal && self.reach == Reach::Unknown {
            self.queued.push_back(Step::Log(Found {
                offset,
                record: *record,
            }));
            if !self.damaged && Summary::decode(record.body) != Ok(self.summary()) {
                self.damage(offset, length, Damage::Mismatch("the seal's account of the segment"));
            }
            self.check_padding(rest, offset, &header);
            self.sealed = true;
            return self.end();
        }
        let fault = match header.kind {
            _ if header.sequence <= self.summary.max_sequence => Some(Damage::Order),
            Kind::Seal => Some(Damage::Field("place of a seal")),
            Kind::Start if offset != SEGMENT_HEADER_LEN => Some(Damage::Field("place of a start record")),
            Kind::Start => Start::decode(record.body).err(),
            Kind::Mark if self.batch.is_some() => Some(Damage::Field("record kind inside a batch")),
            Kind::Mark => Mark::decode(record.body).err(),
            Kind::BatchBegin if self.batch.is_some() => Some(Damage::Field("batch inside a batch")),
            Kind::BatchBegin => self.begin_batch(record).err(),
            Kind::Put | Kind::Tombstone => None,
        };
        add_to_summary(&mut self.summary, &header);
        self.crc.add(rest);
        self.offset += length;
        let found = Found {
            offset,
            record: *record,
        };
        self.queued.push_back(if header.kind.has_key() {
            let batch = self.batch.as_mut().map(|batch| {
                batch.seen = batch.seen.saturating_add(1);
                batch.run.add(rest);
                batch.begin
            });
            Step::Record { found, batch }
        } else {
            Step::Log(found)
        });
        if let Some(fault) = fault {
            self.damage(offset, length, fault);
        }
        self.check_padding(rest, offset, &header);
    }

    fn check_padding(&mut self, rest: &[u8], offset: u64, header: &Header) {
        let (used, length) = (header.header_len() as u64 + header.body_len(), header.record_len());
        let padding = rest.get(used as usize..length as usize).unwrap_or_default();
        if padding.iter().any(|&byte| byte != 0) {
            self.damage(offset + used, length - used, Damage::Padding);
        }
    }

    fn begin_batch(&mut self, begin: &Record<'_>) -> Result<(), Damage> {
        let frame = BatchBegin::decode(begin.body)?;
        let frame_len = begin.header.record_len();
        let end = self.offset.saturating_add(frame_len).saturating_add(frame.bytes);
        let begin = self.offset;
        self.batch = Some(OpenBatch {
            begin,
            frame_len,
            end,
            frame,
            seen: 0,
            run: RunCrc::default(),
            damaged: false,
        });
        Ok(())
    }

    /// Checks the batch that ends here, if one does.
    fn end_batch(&mut self) {
        let Some(batch) = self.batch.take_if(|batch| batch.end <= self.offset) else {
            return;
        };
        let whole = batch.end == self.offset && batch.seen == batch.frame.count;
        let fault = if !whole {
            Some(Damage::Mismatch("the batch's length"))
        } else {
            (batch.run.value() != batch.frame.run_crc).then_some(Damage::Checksum)
        };
        let Some(fault) = fault else { return };
        if !batch.damaged {
            self.damage(batch.begin, batch.frame_len, fault);
        }
        self.broken_batch = Some(batch.begin);
    }

    fn end(&mut self) {
        self.ended = true;
        if let Some(batch) = self.batch.take() {
            if !batch.damaged {
                self.damage(batch.begin, self.offset - batch.begin, Damage::Short);
            }
            self.broken_batch = Some(batch.begin);
        }
    }

    fn damage(&mut self, offset: u64, length: u64, damage: Damage) {
        self.damaged = true;
        if let Some(batch) = &mut self.batch {
            batch.damaged = true;
        }
        self.queued.push_back(Step::Damaged { offset, length, damage });
    }

    /// The first offset from `from` on with a sound record; the end of the bytes if there is none.
    fn next_sound(&self, from: u64) -> u64 {
        let mut offset = from;
        while let Some(rest) = self
            .bytes
            .get(offset as usize..)
            .filter(|rest| rest.len() >= FIXED_HEADER_LEN)
        {
            // The ninth byte is the kind, which rules out most places.
            let possible = rest.get(8).is_some_and(|&kind| Kind::from_byte(kind).is_some());
            if possible && Record::parse(rest, self.place(offset)).is_ok_and(|record| record.check_body().is_ok()) {
                return offset;
            }
            offset += ALIGNMENT;
        }
        self.bytes.len() as u64
    }

    fn place(&self, offset: u64) -> Place {
        Place {
            salt: self.header.salt,
            base_sequence: self.header.base_sequence,
            offset,
        }
    }
}

#[cfg(test)]
mod tests;
