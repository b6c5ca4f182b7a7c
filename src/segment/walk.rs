//! Walking a segment past its damage: what verify and salvage do, where recovery stops at the first
//! thing that is wrong.
//!
//! After damage the walk goes on as far as it can tell where the next record begins:
//!
//! * If a record's header is good but its body is not, the header says where the record ends:
//!   exactly that range is damaged, and the walk goes on behind it.
//! * If the header is not good, nothing says where the record ends. Every multiple of eight is
//!   tried for a record whose header and body both fit their checksums. Header checksums cover the
//!   segment's salt and the record's offset, so that neither a value that holds bytes of a segment
//!   nor a stale block passes for a record; by chance one place in 2^32 does. All that lies between
//!   is damaged.
//!
//! Every record that comes out has passed all that recovery asks of a single record. What recovery
//! asks of several (order, frames of batches, the seal's account) is reported as damage, but does
//! not hold records back.

use std::collections::VecDeque;

use super::scan::{Found, add_to_summary};
use crate::format::record::{BatchBegin, FIXED_HEADER_LEN, Header, Kind, Place, Record, RunCrc};
use crate::format::segment::{Mark, SEGMENT_HEADER_LEN, SegmentHeader, Start, Summary};
use crate::format::{ALIGNMENT, Damage};

/// What a walk comes across.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'a> {
    /// A sound put or tombstone, and where the batch begins that it is part of.
    Record { found: Found<'a>, batch: Option<u64> },
    /// A sound record that is about the log itself; a seal is the last.
    Log(Found<'a>),
    /// These bytes are not what they should be.
    Damaged { offset: u64, length: u64, damage: Damage },
}

/// How far the bytes of a walk are known to reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The data end exactly where the bytes end, and no seal is among them.
    Known,
    /// The data end at a seal, or at the end of the bytes, or where nothing but zeros follow.
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
    /// Where a batch begins that is not whole, nothing sound having come after it.
    broken_batch: Option<u64>,
    queued: VecDeque<Step<'a>>,
    damaged: bool,
    sealed: bool,
    ended: bool,
}

/// A batch whose records are coming by.
struct OpenBatch {
    begin: u64,
    frame_len: u64,
    end: u64,
    frame: BatchBegin,
    seen: u32,
    run: RunCrc,
    /// Damage lies inside.
    damaged: bool,
}

impl<'a> Walker<'a> {
    /// `bytes` are those of the segment from its header on, up to where its data may reach.
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

    /// How far the bytes are known to reach.
    pub(crate) fn reach(&self) -> Reach {
        self.reach
    }

    /// How far the walk has come.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Account of what was sound so far; that of the segment if there was no damage.
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

    /// After the end: where a batch begins that is not whole and behind which nothing sound was
    /// found.
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

    /// Looks at what begins at the offset, and queues what there is to say of it.
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
                // The record goes on beyond the end, so there is no place for another.
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

    /// A record whose checksums fit.
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

    /// The first place from here on where a record is sound; the end of the bytes if there is none.
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
