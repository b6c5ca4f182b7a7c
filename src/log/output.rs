//! Writing segments that are not the active one: the outputs of compaction and of recovery. Such a segment is complete,
//! synced and sealed before anybody hears of it.

use std::sync::Arc;

use super::Engine;
use super::active::Account;
use super::hints::write_hint;
use super::manifest::ReservedId;
use crate::error::{Error, Result};
use crate::format::manifest::{SegmentEntry, SegmentState};
use crate::format::record::{Header, Kind, Place, Record, sequence_fits};
use crate::format::segment::{SEGMENT_HEADER_LEN, SegmentHeader, Summary};
use crate::format::{hint_file, segment_file};
use crate::location::Location;
use crate::options::ReadMode;
use crate::planted::{Planted, planted};
use crate::segment::{Counters, Segment};
use crate::state::Move;
use crate::storage::{NeverChanged, StorageFile, write_all_at};

/// Bytes gathered before they are written.
const WRITE_BYTES: usize = 1 << 20;

/// Copies records, in ascending order of sequence, into as many new segments as they need.
pub(crate) struct OutputWriter<'a> {
    engine: &'a Engine,
    current: Option<Output>,
    finished: Finished,
}

/// New segments, complete, synced and readable, that no manifest lists yet.
#[derive(Default)]
pub(crate) struct Finished {
    pub(crate) segments: Vec<Arc<Segment>>,
    /// What leads to them.
    pub(crate) moves: Vec<Move>,
    pub(crate) written_bytes: u64,
    /// To be held until the manifest that lists them stands, or they are removed.
    pub(crate) ids: Vec<ReservedId>,
}

struct Output {
    id: ReservedId,
    header: SegmentHeader,
    file: Arc<dyn StorageFile>,
    /// What is not written yet, and where it belongs.
    buffer: Vec<u8>,
    buffer_offset: u64,
    account: Account,
}

impl Output {
    fn end(&self) -> u64 {
        self.buffer_offset + self.buffer.len() as u64
    }
}

impl<'a> OutputWriter<'a> {
    pub(crate) fn new(engine: &'a Engine) -> OutputWriter<'a> {
        OutputWriter {
            engine,
            current: None,
            finished: Finished::default(),
        }
    }

    /// Copies a record; its body is not touched, its header differs in nothing but what binds it to its place.
    pub(crate) fn copy(&mut self, from: Location, record: &Record<'_>, hash: u64) -> Result<()> {
        let to = self.push(&record.header, record.body)?;
        if record.header.kind == Kind::Put {
            let (length, expiry) = (record.header.record_len(), record.header.expiry);
            self.finished.moves.push(Move {
                hash,
                from,
                to,
                length,
                sequence: record.header.sequence,
                expiry,
            });
        }
        Ok(())
    }

    /// Writes a tombstone of this sequence in the place of an expired put.
    pub(crate) fn tombstone(&mut self, namespace: u32, key: &[u8], sequence: u64) -> Result<()> {
        let header = Header {
            kind: Kind::Tombstone,
            namespace,
            sequence,
            expiry: None,
            key_len: key.len() as u32,
            metadata_len: None,
            value_len: 0,
            body_crc: crc32fast::hash(key),
        };
        self.push(&header, key).map(drop)
    }

    fn push(&mut self, header: &Header, body: &[u8]) -> Result<Location> {
        let length = header.record_len();
        let fits = self.current.as_ref().is_some_and(|output| {
            output.end() + length <= self.engine.context.options.segment_bytes
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
        let location = Location::new(crate::location::segment_index(output.header.segment_id), offset);
        if output.buffer.len() >= WRITE_BYTES {
            self.engine.write_output(output)?;
        }
        Ok(location)
    }

    fn begin_segment(&mut self, base_sequence: u64) -> Result<()> {
        let (id, header, file) = self.engine.create_unlisted_segment(base_sequence, 0)?;
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
        let result = self.engine.seal_output(&mut output);
        match result {
            Ok(segment) => {
                self.finished.segments.push(segment);
                self.finished.ids.push(output.id);
            }
            Err(error) => {
                // So that it is among those that `discard` removes.
                self.current = Some(output);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Seals and syncs the last segment; returns all of them. The names are durable once the manifest that lists them is.
    pub(crate) fn finish(mut self) -> Result<Finished> {
        match self.end_segment() {
            Ok(()) => Ok(self.finished),
            Err(error) => {
                self.discard();
                Err(error)
            }
        }
    }

    /// Removes everything that was written.
    pub(crate) fn discard(self) {
        let ids = self
            .finished
            .ids
            .iter()
            .chain(self.current.as_ref().map(|output| &output.id));
        ids.for_each(|id| self.engine.remove_segment_files(id.id()));
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

impl Engine {
    fn write_output(&self, output: &mut Output) -> Result<()> {
        let path = self.context.segment_path(output.header.segment_id);
        write_all_at(&*output.file, &output.buffer, output.buffer_offset)
            .map_err(|error| Error::io("write", &path, error))?;
        output.buffer_offset += output.buffer.len() as u64;
        output.buffer.clear();
        Ok(())
    }

    fn seal_output(&self, output: &mut Output) -> Result<Arc<Segment>> {
        let summary = output.account.summary();
        output.buffer.extend_from_slice(&encode_seal(&output.header, &summary));
        self.write_output(output)?;
        let path = self.context.segment_path(output.header.segment_id);
        if !planted(Planted::SkipOutputSync) {
            output.file.sync().map_err(|error| Error::io("sync", &path, error))?;
        }
        let counters = Arc::new(Counters::of(&summary));
        let segment = self.readable(output.header, summary, false, output.file.clone(), counters)?;
        write_hint(&self.context, &segment)?;
        Ok(segment)
    }

    /// A segment that no longer grows, as its readers will see it.
    pub(super) fn readable(
        &self,
        header: SegmentHeader,
        summary: Summary,
        cut: bool,
        file: Arc<dyn StorageFile>,
        counters: Arc<Counters>,
    ) -> Result<Arc<Segment>> {
        let map = match self.context.options.read_mode {
            ReadMode::Map => match file.map(summary.data_end, NeverChanged::promised()) {
                Ok(map) => Some(map),
                // The system grants a process so many maps and no more: the segment is read call by call.
                Err(error) if error.kind() == std::io::ErrorKind::OutOfMemory => None,
                Err(error) => return Err(Error::io("map", &self.context.segment_path(header.segment_id), error)),
            },
            ReadMode::Pread => None,
        };
        Ok(Arc::new(match map {
            Some(map) => {
                let map = Arc::new(map);
                if planted(Planted::KeepMaps) {
                    std::mem::forget(map.clone());
                }
                Segment::mapped(header, summary, cut, map, counters)
            }
            None => {
                let file = self.open_files.of_segment(header.segment_id, file);
                Segment::unmapped(header, summary, cut, file, counters)
            }
        }))
    }

    /// Removes a segment that no manifest lists, and its hint. What cannot be removed now is removed when the store is opened
    /// next.
    pub(crate) fn remove_segment_files(&self, id: u64) {
        for name in [segment_file(id), hint_file(id)] {
            if let Err(error) = self.context.directory.remove_if_there(&name) {
                let error = Error::io("remove", &self.context.directory.path_of(&name), error);
                self.context.events.note_background_error(&error);
            }
        }
    }
}

/// The record that ends a segment.
pub(crate) fn encode_seal(header: &SegmentHeader, summary: &Summary) -> Vec<u8> {
    let body = summary.encode();
    // Sequences of a segment never lie below its base; a segment without records has none yet.
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

/// Whether these bytes are the seal of a segment with this header and this account.
pub(crate) fn is_seal_of(bytes: &[u8], header: &SegmentHeader, summary: &Summary) -> bool {
    // Of a header and a manifest that do not belong together the seal cannot even be made.
    sequence_fits(header.base_sequence, summary.max_sequence.max(header.base_sequence))
        && bytes == encode_seal(header, summary)
}
