//! Writing segments other than the active one: the outputs of compaction and recovery. Such a
//! segment is complete, synced and sealed before anything points to it.

use std::sync::Arc;

use super::Log;
use super::active::Account;
use super::hints::write_hint;
use super::manifest::ReservedId;
use super::segment_files::Ended;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::manifest::{SegmentEntry, SegmentState};
use crate::format::record::{Header, Kind, Place, Record, sequence_fits};
use crate::format::segment::{SEGMENT_HEADER_LEN, SegmentHeader, Summary};
use crate::location::{Location, segment_index};
use crate::planted::{Planted, planted};
use crate::segment::{Counters, Segment};
use crate::storage::{StorageFile, write_all_at};

/// Bytes buffered before they are written.
const WRITE_BYTES: usize = 1 << 20;

/// Copies records, in ascending order of sequence, into as many new segments as needed.
pub(crate) struct SegmentWriter<'a> {
    log: &'a Log,
    /// No put that is written was dead at this sequence.
    dying_after: u64,
    current: Option<Output>,
    finished: Finished,
}

/// New segments, complete, synced and readable, that no manifest lists yet.
#[derive(Default)]
pub(crate) struct Finished {
    pub(crate) segments: Vec<Arc<Segment>>,
    pub(crate) written_bytes: u64,
    /// Must be held until the manifest lists the segments, or they are removed.
    pub(crate) ids: Vec<ReservedId>,
}

struct Output {
    id: ReservedId,
    header: SegmentHeader,
    file: Arc<dyn StorageFile>,
    /// Bytes not written yet, and their offset in the file.
    buffer: Vec<u8>,
    buffer_offset: u64,
    account: Account,
}

impl Output {
    fn end(&self) -> u64 {
        self.buffer_offset + self.buffer.len() as u64
    }

    /// Writes the buffered bytes.
    fn write(&mut self, context: &Context) -> Result<()> {
        let path = context.segment_path(self.header.segment_id);
        write_all_at(&*self.file, &self.buffer, self.buffer_offset)
            .map_err(|error| Error::io("write", &path, error))?;
        self.buffer_offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    fn seal(&mut self, log: &Log, dying_after: u64) -> Result<Arc<Segment>> {
        let summary = self.account.summary();
        self.buffer.extend_from_slice(&encode_seal(&self.header, &summary));
        self.write(&log.context)?;
        let path = log.context.segment_path(self.header.segment_id);
        if !planted(Planted::SkipOutputSync) {
            self.file.sync().map_err(|error| Error::io("sync", &path, error))?;
        }
        let ended = Ended {
            header: self.header,
            summary,
            cut: false,
        };
        let counters = Arc::new(Counters::of_copies(&summary, dying_after));
        let segment = log.files.readable(&ended, self.file.clone(), counters)?;
        write_hint(&log.context, &segment)?;
        Ok(segment)
    }
}

impl<'a> SegmentWriter<'a> {
    /// A writer of puts none of which was dead at the sequence `dying_after`.
    pub(crate) fn new(log: &'a Log, dying_after: u64) -> SegmentWriter<'a> {
        SegmentWriter {
            log,
            dying_after,
            current: None,
            finished: Finished::default(),
        }
    }

    /// Copies a record: the body unchanged, the header changed only in what depends on its place.
    /// Returns where the copy is.
    pub(crate) fn copy(&mut self, record: &Record<'_>) -> Result<Location> {
        self.push(&record.header, record.body)
    }

    /// Writes a tombstone with this sequence in place of an expired put.
    pub(crate) fn tombstone(&mut self, namespace: u32, key: &[u8], sequence: u64) -> Result<()> {
        self.push(&tombstone_header(namespace, key, sequence), key).map(drop)
    }

    fn push(&mut self, header: &Header, body: &[u8]) -> Result<Location> {
        let length = header.record_len();
        let fits = self.current.as_ref().is_some_and(|output| {
            output.end() + length <= self.log.segment_bytes()
                && sequence_fits(output.header.base_sequence, header.sequence)
        });
        if !fits {
            self.end_segment()?;
            self.begin_segment(header.sequence)?;
        }
        let Some(output) = &mut self.current else {
            return Err(Error::Closed);
        };
        let offset = output.end();
        let place = Place {
            salt: output.header.salt,
            base_sequence: output.header.base_sequence,
            offset,
        };
        let start = output.buffer.len();
        output.buffer.extend_from_slice(header.encode(place).as_bytes());
        output.buffer.extend_from_slice(body);
        output.buffer.resize(start + length as usize, 0);
        output
            .account
            .add(header, output.buffer.get(start..).unwrap_or_default());
        self.finished.written_bytes += length;
        let location = Location::new(segment_index(output.header.segment_id), offset);
        if output.buffer.len() >= WRITE_BYTES {
            output.write(&self.log.context)?;
        }
        Ok(location)
    }

    fn begin_segment(&mut self, base_sequence: u64) -> Result<()> {
        let (id, header, file) = self.log.create_unlisted_segment(base_sequence, 0)?;
        self.current = Some(Output {
            id,
            header,
            file,
            buffer: Vec::with_capacity(WRITE_BYTES + (64 << 10)),
            buffer_offset: SEGMENT_HEADER_LEN,
            account: Account::new(),
        });
        Ok(())
    }

    fn end_segment(&mut self) -> Result<()> {
        let Some(mut output) = self.current.take() else {
            return Ok(());
        };
        let result = output.seal(self.log, self.dying_after);
        match result {
            Ok(segment) => {
                self.finished.segments.push(segment);
                self.finished.ids.push(output.id);
            }
            Err(error) => {
                // So that `discard` removes it too.
                self.current = Some(output);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Seals and syncs the last segment, and returns all of them. Their names become durable with
    /// the manifest that lists them.
    pub(crate) fn finish(mut self) -> Result<Finished> {
        match self.end_segment() {
            Ok(()) => Ok(self.finished),
            Err(error) => {
                self.discard();
                Err(error)
            }
        }
    }

    /// Removes everything written so far.
    pub(crate) fn discard(self) {
        let ids = self
            .finished
            .ids
            .iter()
            .chain(self.current.as_ref().map(|output| &output.id));
        ids.for_each(|id| self.log.files.remove(id.id()));
    }
}

/// The header of a tombstone.
pub(crate) fn tombstone_header(namespace: u32, key: &[u8], sequence: u64) -> Header {
    Header {
        kind: Kind::Tombstone,
        namespace,
        sequence,
        expiry: None,
        key_len: key.len() as u32,
        metadata_len: None,
        value_len: 0,
        body_crc: crc32fast::hash(key),
    }
}

/// Manifest entries of new segments.
pub(crate) fn sealed_entries(segments: &[Arc<Segment>]) -> impl Iterator<Item = SegmentEntry> + '_ {
    segments.iter().filter_map(|segment| {
        Some(SegmentEntry {
            id: segment.id(),
            state: SegmentState::Sealed(segment.summary?),
        })
    })
}

/// The seal record of a segment.
pub(crate) fn encode_seal(header: &SegmentHeader, summary: &Summary) -> Vec<u8> {
    let body = summary.encode();
    // Sequences in a segment are never below its base; a segment without records has none yet.
    let sequence = summary.max_sequence.max(header.base_sequence);
    let seal = Header::of_log(Kind::Seal, sequence, &body);
    let place = Place {
        salt: header.salt,
        base_sequence: header.base_sequence,
        offset: summary.data_end,
    };
    let mut bytes = seal.encode(place).as_bytes().to_vec();
    bytes.extend_from_slice(&body);
    bytes.resize(seal.record_len() as usize, 0);
    bytes
}

/// Whether these bytes are the seal of a segment with this header and account.
pub(crate) fn is_seal_of(bytes: &[u8], header: &SegmentHeader, summary: &Summary) -> bool {
    // If header and manifest do not belong together, the seal cannot even be encoded.
    sequence_fits(header.base_sequence, summary.max_sequence.max(header.base_sequence))
        && bytes == encode_seal(header, summary)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::hints::sort_records;
    use crate::segment::scan::Scanner;
    use crate::storage::MemStorage;
    use crate::{Maintenance, Store};

    #[test]
    fn copies_are_whole_whatever_their_sizes() {
        let store = Store::options()
            .maintenance(Maintenance::Manual)
            .storage(Arc::new(MemStorage::new()))
            .open("/store")
            .unwrap();
        let namespace = store.namespace("N").unwrap();
        for length in [900 << 10, 10, 200 << 10, 2 << 20, 10] {
            namespace.put(format!("{length}"), vec![7; length]).unwrap();
        }
        let engine = store.engine();
        store.end_segment();
        let segment = engine.state.segments.all().remove(0);
        let mut scratch = Vec::new();
        let mut scanner = Scanner::new(segment.all_bytes(&mut scratch).unwrap(), segment.header);
        let mut writer = SegmentWriter::new(&engine.log, 0);
        let mut copies = Vec::new();
        while let Ok(found) = scanner.next() {
            if found.record.header.kind.has_key() {
                copies.push((writer.copy(&found.record).unwrap(), found.record));
            }
        }
        let finished = writer.finish().unwrap();
        let [written] = &finished.segments[..] else {
            panic!("{} segments", finished.segments.len())
        };
        assert!(copies.len() >= 5);
        for (location, record) in copies {
            let mut scratch = Vec::new();
            let copy = written.record(location.offset(), &mut scratch).unwrap();
            assert_eq!(copy.header, record.header);
            assert!(copy.body == record.body, "{:?}", record.header);
        }
        sort_records(&engine.context, written).unwrap();
    }
}
