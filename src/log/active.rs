//! The active segment, and its stages before and after: prepared, and rotated out.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use super::log_file::LogFile;
use crate::format::ALIGNMENT;
use crate::format::record::{Header, RunCrc, sequence_fits};
use crate::format::segment::{RECORD_START_MAX, SEGMENT_HEADER_LEN, SegmentHeader, Summary};
use crate::segment::Segment;
use crate::segment::buffer::Appender;
use crate::segment::scan::add_to_summary;

/// Generous bound on the bytes of a start record and a mark.
pub(super) const SEGMENT_OVERHEAD: u64 = 256;

/// The segment that is being written to.
#[derive(Debug)]
pub(super) struct Active {
    pub(super) segment: Arc<Segment>,
    pub(super) file: Arc<LogFile>,
    pub(super) appender: Appender,
    /// Since when it has memory, in milliseconds, if all of that is committed.
    pub(super) committed_ms: Option<u64>,
    /// Bytes already in the file.
    pub(super) written: u64,
    /// Account of all records in the buffer.
    pub(super) account: Account,
    /// Account of the records in the file.
    pub(super) written_account: Account,
}

/// The content of a future seal.
#[derive(Clone, Debug)]
pub(super) struct Account {
    pub(super) crc: RunCrc,
    pub(super) summary: Summary,
}

impl Account {
    pub(super) fn new() -> Account {
        let summary = Summary {
            data_end: SEGMENT_HEADER_LEN,
            min_sequence: u64::MAX,
            ..Summary::default()
        };
        Account {
            crc: RunCrc::default(),
            summary,
        }
    }

    /// Adds a record, given as stored.
    pub(super) fn add(&mut self, header: &Header, record: &[u8]) {
        add_to_summary(&mut self.summary, header);
        self.crc.add(record);
        self.summary.data_end += record.len() as u64;
    }

    pub(super) fn summary(&self) -> Summary {
        Summary {
            records_crc: self.crc.value(),
            ..self.summary
        }
    }
}

/// The segment that will become active next.
#[derive(Debug)]
pub(super) struct Prepared {
    pub(super) header: SegmentHeader,
    pub(super) file: Arc<LogFile>,
    /// Bytes that it will have room for. They take memory once it is active.
    pub(super) capacity: u64,
}

/// A segment that no longer grows but has no seal yet.
#[derive(Debug)]
pub(super) struct Rotated {
    pub(super) segment: Arc<Segment>,
    pub(super) file: Arc<LogFile>,
    pub(super) summary: Summary,
    pub(super) synced: AtomicBool,
}

impl Active {
    pub(super) fn has_room(&self, length: u64, next_sequence: u64) -> bool {
        let begin = self.appender.len() as u64;
        // A segment created for one huge record is larger than a location's range. If that record
        // was never written, small ones must not begin beyond the range; the first write always
        // fits, whatever its size.
        let is_fresh = begin <= SEGMENT_HEADER_LEN + SEGMENT_OVERHEAD;
        self.appender.spare_len() as u64 >= length
            && (is_fresh || begin + length <= RECORD_START_MAX)
            && sequence_fits(self.segment.header.base_sequence, next_sequence)
    }

    /// Encodes a record `ahead` bytes past the published bytes, and returns it as stored. It is not
    /// counted yet.
    pub(super) fn encode_ahead(&mut self, ahead: usize, header: &Header, parts: &[&[u8]]) -> &[u8] {
        let offset = (self.appender.len() + ahead) as u64;
        let encoded = header.encode(self.segment.place(offset));
        let length = header.record_len() as usize;
        // Room was made before.
        let Some(room) = self.appender.spare().get_mut(ahead..ahead + length) else {
            return &[];
        };
        if let Some(padding) = room.last_chunk_mut::<{ ALIGNMENT as usize }>() {
            // Some of it is overwritten below.
            *padding = [0; ALIGNMENT as usize];
        }
        let mut end = 0;
        let mut put = |part: &[u8]| {
            if let Some(target) = room.get_mut(end..end + part.len()) {
                target.copy_from_slice(part);
                end += part.len();
            }
        };
        put(encoded.as_bytes());
        parts.iter().filter(|part| !part.is_empty()).for_each(|part| put(part));
        debug_assert_eq!(end as u64, header.header_len() as u64 + header.body_len());
        room
    }

    /// Counts the records with these headers, which were encoded one after the other, and publishes
    /// them to readers.
    pub(super) fn publish<'h>(&mut self, headers: impl IntoIterator<Item = &'h Header>) {
        let mut unpublished = &*self.appender.spare();
        let mut length = 0;
        for header in headers {
            let record_len = header.record_len() as usize;
            let Some((record, rest)) = unpublished.split_at_checked(record_len) else {
                debug_assert!(false, "a record was let in for which there is no room");
                break;
            };
            self.account.add(header, record);
            unpublished = rest;
            length += record_len;
        }
        self.appender.publish(length);
    }

    /// Encodes a record after the published bytes, counts it, and publishes it to readers.
    pub(super) fn put_record(&mut self, header: &Header, parts: &[&[u8]]) {
        self.encode_ahead(0, header, parts);
        self.publish([header]);
    }

    /// Drops all records at or past this offset: in a new buffer, since readers may still hold the
    /// old one. `begun` is a copy of some of the bytes before it.
    pub(super) fn roll_back_to(&mut self, end: u64, begun: Option<Appender>) {
        let mut kept = begun.unwrap_or_else(|| self.appender.buffer().copy_of_first(0));
        kept.copy_on(self.appender.buffer(), end as usize);
        self.appender = kept;
        let segment = Segment::active(
            self.segment.header,
            self.appender.buffer().clone(),
            self.segment.counters.clone(),
        );
        self.segment = Arc::new(segment);
        self.account = self.written_account.clone();
        let mut offset = self.written;
        while offset < end {
            let mut unused = Vec::new();
            let Ok(record) = self.segment.record(offset, &mut unused) else {
                break;
            };
            let (header, length) = (record.header, record.header.record_len());
            let bytes = self.appender.buffer().published();
            let stored = bytes
                .get(offset as usize..(offset + length) as usize)
                .unwrap_or_default();
            self.account.add(&header, stored);
            offset += length;
        }
    }
}

impl Prepared {
    pub(super) fn has_room(&self, length: u64, next_sequence: u64) -> bool {
        self.capacity >= SEGMENT_HEADER_LEN + length + SEGMENT_OVERHEAD
            && sequence_fits(self.header.base_sequence, next_sequence)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, reason = "a test fails by panicking")]

    use super::*;
    use crate::format::record::Kind;
    use crate::storage::MemStorage;

    const HEADER: SegmentHeader = SegmentHeader {
        salt: 0,
        store_id: [0; 16],
        segment_id: 1,
        base_sequence: 1,
        created_ms: 0,
    };

    fn active(capacity: usize, used: usize) -> Active {
        let mut appender = Appender::new(capacity);
        appender.publish(used);
        let file = MemStorage::new().create("/1.segment").unwrap();
        Active {
            segment: Arc::new(Segment::active(HEADER, appender.buffer().clone(), Arc::default())),
            file: LogFile::new(file),
            appender,
            committed_ms: None,
            written: used as u64,
            account: Account::new(),
            written_account: Account::new(),
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri really takes the memory")]
    fn no_record_of_a_batch_begins_beyond_what_a_location_reaches() {
        let (mib, huge) = (1 << 20, 1 << 30);
        assert!(active(huge + mib, 120).has_room(huge as u64, 2));
        assert!(active(huge, 300 * mib).has_room(200 << 20, 2));
        assert!(!active(huge, 300 * mib).has_room(250 << 20, 2));
        assert!(!active(huge, 600 * mib).has_room(64, 2));
        // Not even a huge one, unless it is the first.
        assert!(!active(huge + mib, 1000).has_room(huge as u64, 2));
    }

    #[test]
    fn a_record_is_padded_with_zeros_in_memory_that_was_used_before() {
        let mut active = active(4096, 64);
        active.appender.spare().fill(0xff);
        for length in 0..=8 {
            let value = vec![7; length];
            let header = Header {
                kind: Kind::Put,
                namespace: 1,
                sequence: 1 + length as u64,
                expiry: None,
                key_len: 3,
                metadata_len: None,
                value_len: length as u32,
                body_crc: 0,
            };
            let begin = active.appender.len();
            active.put_record(&header, &[b"key", &[], &value]);
            let record = &active.appender.buffer().published()[begin..];
            let body = &record[header.header_len()..];
            assert_eq!(record.len() as u64, header.record_len());
            assert_eq!((&body[..3], &body[3..3 + length]), (&b"key"[..], &value[..]));
            assert!(body[3 + length..].iter().all(|byte| *byte == 0), "{body:?}");
        }
    }

    #[test]
    fn a_prepared_segment_has_room_for_what_fits_beside_its_own_records() {
        let file = MemStorage::new().create("/1.segment").unwrap();
        let prepared = Prepared {
            header: HEADER,
            file: LogFile::new(file),
            capacity: 4096,
        };
        let most = 4096 - SEGMENT_HEADER_LEN - SEGMENT_OVERHEAD;
        assert!(prepared.has_room(most, 2));
        assert!(!prepared.has_room(most + 1, 2));
        assert!(!prepared.has_room(most, 1 << 33));
        assert!(!prepared.has_room(most + 1, 1 << 33));
    }
}
