//! One segment, and how its records are read: from memory, from a map, or with one read call per
//! record.

pub(crate) mod buffer;
mod cached;
mod counters;
#[cfg(test)]
mod example;
pub(crate) mod files;
pub(crate) mod memory;
mod read_error;
pub(crate) mod ring;
pub(crate) mod scan;
pub(crate) mod table;
mod value;
pub(crate) mod walk;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::format::Damage;
use crate::format::hint::Hint;
use crate::format::record::{Place, Record};
use crate::format::segment::{SegmentHeader, Summary};
use crate::location::{Location, segment_index};
use crate::planted::{Planted, planted};
use crate::storage::{Map, read_exact_at};
use buffer::AppendBuffer;
use files::{SegmentFile, read_record, read_value};

pub(crate) use counters::{Counters, Counts};
pub(crate) use read_error::ReadError;
pub use value::{Value, ValueRef};

/// Readers of one segment would all change one reference count and contend for its cache line, so
/// the count is spread over this many stripes, and each thread uses one of them.
const STRIPES: usize = 8;

/// A live segment. Its published bytes never change; only the counters do.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) header: SegmentHeader,
    /// None for the active segment and those being sealed.
    pub(crate) summary: Option<Summary>,
    /// Whether recovery has cut it, so that no seal follows the data.
    pub(crate) cut: bool,
    source: Source,
    /// Shared with the segment object that replaces this one when it is sealed.
    pub(crate) counters: Arc<Counters>,
}

/// Where the bytes are.
#[derive(Clone, Debug)]
enum Source {
    Memory(Box<[Arc<Backing>]>),
    File { file: SegmentFile, data_end: u64 },
}

/// The bytes that a value keeps alive. Aligned so that no two reference counts share a cache line.
#[derive(Debug)]
#[repr(align(128))]
pub(crate) struct Backing(Bytes);

#[derive(Debug, Clone)]
enum Bytes {
    Buffer(Arc<AppendBuffer>),
    Map { map: Arc<Map>, data_end: usize },
}

impl Backing {
    #[inline]
    fn bytes(&self) -> &[u8] {
        match &self.0 {
            Bytes::Buffer(buffer) => buffer.published(),
            Bytes::Map { map, data_end } => map.get(..*data_end).unwrap_or_default(),
        }
    }
}

fn stripes(bytes: Bytes) -> Source {
    Source::Memory((0..STRIPES).map(|_| Arc::new(Backing(bytes.clone()))).collect())
}

/// This thread's stripe of those that [`stripes`] made.
#[expect(
    clippy::indexing_slicing,
    reason = "the index is a remainder by `STRIPES`, the number of stripes"
)]
#[inline]
fn own_stripe(stripes: &[Arc<Backing>]) -> &Arc<Backing> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static STRIPE: usize = NEXT.fetch_add(1, Ordering::Relaxed) as usize % STRIPES;
    }
    // While a thread exits, its thread-locals may already be gone; any stripe will do then.
    &stripes[STRIPE.try_with(|stripe| *stripe).unwrap_or(0)]
}

/// A segment that no longer changes, sealed or cut: a possible input of compaction. Can only be
/// built from a segment that knows its end, so an active one can never be compacted.
#[derive(Clone, Debug)]
pub(crate) struct SealedSegment {
    segment: Arc<Segment>,
    summary: Summary,
}

impl SealedSegment {
    /// None if the segment still grows.
    pub(crate) fn of(segment: Arc<Segment>) -> Option<SealedSegment> {
        let summary = segment.summary?;
        Some(SealedSegment { segment, summary })
    }

    /// The segment's summary.
    pub(crate) fn summary(&self) -> &Summary {
        &self.summary
    }
}

impl std::ops::Deref for SealedSegment {
    type Target = Segment;

    fn deref(&self) -> &Segment {
        &self.segment
    }
}

impl Segment {
    /// The active segment, read from the append buffer.
    pub(crate) fn active(header: SegmentHeader, buffer: Arc<AppendBuffer>, counters: Arc<Counters>) -> Segment {
        Segment {
            header,
            summary: None,
            cut: false,
            source: stripes(Bytes::Buffer(buffer)),
            counters,
        }
    }

    /// A segment that no longer changes, read through a map.
    pub(crate) fn mapped(
        header: SegmentHeader,
        summary: Summary,
        cut: bool,
        map: Arc<Map>,
        counters: Arc<Counters>,
    ) -> Segment {
        let bytes = Bytes::Map {
            map,
            data_end: summary.data_end as usize,
        };
        Segment {
            header,
            summary: Some(summary),
            cut,
            source: stripes(bytes),
            counters,
        }
    }

    /// A segment that no longer changes, read with one call per record.
    pub(crate) fn unmapped(
        header: SegmentHeader,
        summary: Summary,
        cut: bool,
        file: SegmentFile,
        counters: Arc<Counters>,
    ) -> Segment {
        let source = Source::File {
            file,
            data_end: summary.data_end,
        };
        Segment {
            header,
            summary: Some(summary),
            cut,
            source,
            counters,
        }
    }

    /// The same segment with other counters.
    pub(crate) fn with_counters(&self, counters: Arc<Counters>) -> Segment {
        Segment {
            header: self.header,
            summary: self.summary,
            cut: self.cut,
            source: self.source.clone(),
            counters,
        }
    }

    pub(crate) fn id(&self) -> u64 {
        self.header.segment_id
    }

    /// The index that names the segment in a location.
    pub(crate) fn index(&self) -> u16 {
        segment_index(self.id())
    }

    /// The location of the record at this offset.
    #[inline]
    pub(crate) fn location(&self, offset: u64) -> Location {
        Location::new(self.index(), offset)
    }

    /// The place of the record at this offset.
    #[inline]
    pub(crate) fn place(&self, offset: u64) -> Place {
        Place {
            salt: self.header.salt,
            base_sequence: self.header.base_sequence,
            offset,
        }
    }

    /// The record at this offset, with its header checked and its body unchecked. `scratch` holds
    /// the bytes if the segment is not in memory.
    #[inline]
    pub(crate) fn record<'a>(&'a self, offset: u64, scratch: &'a mut Vec<u8>) -> Result<Record<'a>, ReadError> {
        Ok(Record::parse(self.stored(offset, scratch)?, self.place(offset))?)
    }

    /// The bytes from this offset on: to the end of the data if the segment is in memory, else read
    /// into `scratch` to the end of the record.
    #[inline]
    pub(crate) fn stored<'a>(&'a self, offset: u64, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], ReadError> {
        match &self.source {
            Source::Memory(stripes) => Ok(tail(own_stripe(stripes).bytes(), offset)?),
            Source::File { file, data_end } => {
                read_record(&*file.get()?, *data_end, self.place(offset), scratch)?;
                Ok(scratch)
            }
        }
    }

    /// Reads the record at this offset. If `wanted` accepts its header and key, checks the body and
    /// returns it as a value that keeps its bytes alive.
    #[inline]
    pub(crate) fn value(
        &self,
        offset: u64,
        wanted: impl FnOnce(&Record<'_>) -> bool,
    ) -> Result<Option<Value>, ReadError> {
        match &self.source {
            Source::Memory(stripes) => {
                let backing = own_stripe(stripes);
                let record = Record::parse(tail(backing.bytes(), offset)?, self.place(offset))?;
                if !wanted(&record) {
                    return Ok(None);
                }
                if !planted(Planted::SkipBodyCheck) {
                    record.check_body()?;
                }
                let body_start = offset as usize + record.header.header_len();
                Ok(Some(Value::shared(backing.clone(), body_start, &record.header)))
            }
            Source::File { file, data_end } => read_value(file, *data_end, self.place(offset), wanted),
        }
    }

    /// The record at this offset, if it is in memory and its header is sound.
    #[inline]
    pub(crate) fn record_in_memory(&self, offset: u64) -> Option<Record<'_>> {
        Record::parse(self.memory(offset)?, self.place(offset)).ok()
    }

    /// The value of the record at this offset, if that is in memory and sound, and `wanted` accepts
    /// its header and key.
    #[inline]
    pub(crate) fn lent(&self, offset: u64, wanted: impl FnOnce(&Record<'_>) -> bool) -> Option<ValueRef<'_>> {
        let record = self.record_in_memory(offset)?;
        let is_sound = wanted(&record) && (record.check_body().is_ok() || planted(Planted::SkipBodyCheck));
        is_sound.then(|| ValueRef::of_record(&record))
    }

    /// The bytes from this offset to the end of the data, if they are in memory.
    #[inline]
    pub(crate) fn memory(&self, offset: u64) -> Option<&[u8]> {
        match &self.source {
            Source::Memory(stripes) => own_stripe(stripes).bytes().get(offset as usize..),
            Source::File { .. } => None,
        }
    }

    /// All bytes up to the end of the data, for a sequential reader: borrowed if they are in memory
    /// or mapped, else read into `scratch`.
    pub(crate) fn all_bytes<'a>(&'a self, scratch: &'a mut Vec<u8>) -> Result<&'a [u8], ReadError> {
        match &self.source {
            Source::Memory(stripes) => {
                self.read_ahead();
                Ok(own_stripe(stripes).bytes())
            }
            Source::File { file, data_end } => {
                scratch.clear();
                scratch.resize(*data_end as usize, 0);
                read_exact_at(&*file.get()?, scratch, 0)?;
                Ok(scratch)
            }
        }
    }

    /// Whether it is read from memory or through a map, so that no system call is made.
    #[inline]
    pub(crate) fn is_in_memory(&self) -> bool {
        matches!(self.source, Source::Memory(_))
    }

    /// Keeps its file open, or no longer, if it is read with one call per record: once compaction
    /// has removed the file it could not be opened again. Each hold is given up once.
    pub(crate) fn hold_file(&self, hold: bool) {
        if let Source::File { file, .. } = &self.source {
            file.hold(hold);
        }
    }

    /// The map that the segment is read through, if it is.
    pub(crate) fn map(&self) -> Option<&Arc<Map>> {
        match &self.source {
            Source::Memory(stripes) => match stripes.first().map(|backing| &backing.0) {
                Some(Bytes::Map { map, .. }) => Some(map),
                _ => None,
            },
            Source::File { .. } => None,
        }
    }

    /// The current end of the data.
    pub(crate) fn data_end(&self) -> u64 {
        match &self.source {
            Source::Memory(stripes) => own_stripe(stripes).bytes().len() as u64,
            Source::File { data_end, .. } => *data_end,
        }
    }

    /// Bytes of its files, without the seal: of the segment, and of the hint that it has or will
    /// have.
    pub(crate) fn disk_bytes(&self) -> u64 {
        let counts = self.counters.get();
        self.data_end() + Hint::len(counts.puts + counts.tombstones)
    }
}

#[inline]
fn tail(bytes: &[u8], offset: u64) -> Result<&[u8], Damage> {
    bytes.get(offset as usize..).ok_or(Damage::Short)
}

#[cfg(test)]
mod tests;
