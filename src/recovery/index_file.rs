//! The index file: the indexes as of closing, so that opening reads tables instead of records.
//!
//! Like hints it is derived from the log, and used only if it fits. It is written after everything
//! else and never synced. It is bound to the manifest current at that time, whose segments are all
//! sealed: nothing can be added to the log without another manifest. A file that is torn, out of
//! date, missing or from an incompatible program is ignored, and the indexes are built from
//! segments and hints. It is deleted on the first manifest change.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::INDEX_FILE;
use crate::format::index::{IndexHead, Section};
use crate::format::manifest::SegmentState;
use crate::housekeeping::Housekeeping;
use crate::index::hash::KeyHasher;
use crate::log::Log;
use crate::log::hints::source_of;
use crate::log::manifest::{Identity, ManifestStore};
use crate::options::{Progress, ReadMode};
use crate::planted::{Planted, planted};
use crate::segment::{Counters, Segment};
use crate::state::{Indexes, State};
use crate::storage::{NeverChanged, StorageFile, read_exact_at, write_all_at};
use crate::sync::ChangeRight;

/// Bytes buffered before they are written.
const WRITE_BYTES: usize = 256 << 10;

fn index_path(context: &Context) -> PathBuf {
    context.directory.path_of(INDEX_FILE)
}

/// Loads the indexes from the index file. Returns false, with nothing changed, if there is none
/// that fits. `segments` are all segments of the store.
pub(super) fn load(
    context: &Context,
    manifest: &ManifestStore,
    state: &mut State,
    right: &ChangeRight,
    segments: &[Arc<Segment>],
) -> bool {
    if !context.options.index_file {
        return false;
    }
    let indexes = match read(context, manifest, segments) {
        Ok(Some(indexes)) => indexes,
        Ok(None) => return false,
        Err(error) => {
            // The log has the same information.
            let error = Error::io("read", &index_path(context), error);
            context.events.note_background_error(&error);
            return false;
        }
    };
    state.adopt(right, indexes, segments);
    manifest.set_index_file(true);
    if let Some(callback) = &context.options.progress {
        // No segment has to be read.
        let total_bytes = segments.iter().map(|segment| segment.data_end()).sum();
        callback(Progress {
            done_bytes: total_bytes,
            total_bytes,
        });
    }
    true
}

fn read(context: &Context, manifest: &ManifestStore, segments: &[Arc<Segment>]) -> io::Result<Option<Indexes>> {
    let file = match context.directory.open_file(INDEX_FILE, false) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let length = file.len()?;
    if length < IndexHead::LEN as u64 {
        return Ok(None);
    }
    let mut head = [0; IndexHead::LEN];
    read_exact_at(&*file, &mut head, 0)?;
    let Ok(head) = IndexHead::decode(&head) else {
        return Ok(None);
    };
    let manifest = manifest.current();
    let is_of_store = head.store_id == manifest.store_id || planted(Planted::IgnoreIndexStore);
    let is_of_generation = head.generation == manifest.generation || planted(Planted::IgnoreIndexGeneration);
    let is_of_manifest = head.manifest_crc == manifest.checksum() || planted(Planted::IgnoreIndexManifest);
    if !(is_of_store && is_of_generation && is_of_manifest || planted(Planted::TrustIndexFile)) {
        return Ok(None);
    }
    if head.hash_probe != KeyHasher::new(head.hash_seeds).probe() && !planted(Planted::IgnoreHashProbe) {
        return Ok(None);
    }
    if head.file_len() != Some(length) && !planted(Planted::IgnoreIndexLength) {
        return Ok(None);
    }
    let (map, bytes);
    let content: &[u8] = match context.options.read_mode {
        ReadMode::Map => {
            map = file.map(length, NeverChanged::promised())?;
            map.read_ahead();
            &map
        }
        ReadMode::Pread => {
            let mut all = vec![0; length as usize];
            read_exact_at(&*file, &mut all, 0)?;
            bytes = all;
            &bytes
        }
    };
    let indexes = Indexes::read(&head, content, segments).ok();
    // Records that had expired when the file was written are missing from it. If the clock is
    // earlier now, they may be live again.
    let now_ms = context.time.now().wall_ms();
    let in_time = |indexes: &Indexes| now_ms >= indexes.latest_expired() || planted(Planted::IgnoreIndexTime);
    Ok(indexes.filter(in_time))
}

/// Writes the index file, if the store was closed cleanly. A failure only makes the next open
/// slower.
pub(crate) fn write(context: &Context, state: &State, log: &Log, housekeeping: &Housekeeping) {
    if !context.options.index_file || log.manifest.has_index_file() {
        return;
    }
    // Waits for housekeeping, which stops at its current step and starts no other.
    let _kept_out = housekeeping.keep_out();
    let written = if state.took_too_much_for_expired() && !planted(Planted::KeepWrongIndexFile) {
        match built_again(context, state) {
            Ok(Some(again)) => write_indexes_of(context, log, &again),
            // An index file is written only if all segments are sealed.
            Ok(None) => return,
            Err(error) => Err(error),
        }
    } else {
        write_indexes_of(context, log, state)
    };
    if let Err(error) = written {
        // A partial file is useless, and takes space that may be short.
        let _ = context.directory.remove(INDEX_FILE);
        context.events.note_background_error(&error);
    }
}

/// The state that opening the store now would build from the same segments; None unless all are
/// sealed.
fn built_again(context: &Context, state: &State) -> Result<Option<State>> {
    let context = Arc::new(context.beside());
    let mut again = State::new(context.clone(), state.next_namespace());
    let mut segments = Vec::new();
    for segment in state.segments.all() {
        let Some(summary) = segment.summary else {
            return Ok(None);
        };
        let segment = Arc::new(segment.with_counters(Arc::new(Counters::of(&summary))));
        again.segments.set(segment.clone());
        segments.push(segment);
    }
    let right = ChangeRight::new();
    again.load(&right, &segments, Vec::new(), |segment, by_hint| {
        source_of(&context, segment, by_hint)
    })?;
    Ok(Some(again))
}

/// Writes the indexes of `state`: the store's own state, or one equal to what opening it would
/// build.
fn write_indexes_of(context: &Context, log: &Log, state: &State) -> Result<()> {
    try_write(context, log, state).map_err(|error| Error::io("write", &index_path(context), error))
}

fn try_write(context: &Context, log: &Log, state: &State) -> io::Result<()> {
    // Other opens will trust this file, so write it only with the manifest that this store wrote.
    let manifest = log.manifest.current();
    let identity = match log.manifest.check_stands() {
        Ok(identity) => identity,
        Err(_) if planted(Planted::IndexBesideStranger) => Identity::of(&manifest),
        Err(_) => return Ok(()),
    };
    let is_sealed = |state: &SegmentState| *state != SegmentState::Open;
    let quiet = {
        let guard = log.lock();
        guard.poisoned().is_none() && !guard.tail.is_recovering() && guard.tail.pending_bytes() == 0
    };
    if !quiet || !manifest.segments.iter().all(|entry| is_sealed(&entry.state)) {
        return Ok(());
    }
    if state.namespaces.any_dropped() {
        // Some of their keys are still in the indexes.
        return Ok(());
    }
    context.directory.remove_if_there(INDEX_FILE)?;
    let file = context.directory.create(INDEX_FILE)?;
    let mut out = SectionWriter::new(&*file);
    let sections = state.write_to(&mut out, SectionWriter::end_section)?;
    let (hash_seeds, hash_probe) = state.hash_seeds_and_probe();
    let head = IndexHead {
        store_id: identity.store_id,
        generation: identity.generation,
        manifest_crc: identity.checksum,
        hash_seeds,
        hash_probe,
        sections,
    };
    // Written last, so that a file without its end has no head either.
    write_all_at(&*file, &head.encode(), 0)
}

/// Writes sections one after the other, after the space for the head.
struct SectionWriter<'a> {
    file: &'a dyn StorageFile,
    buffer: Vec<u8>,
    /// File offset of the buffer's bytes.
    offset: u64,
    section_start: u64,
    crc: crc32fast::Hasher,
}

impl<'a> SectionWriter<'a> {
    fn new(file: &'a dyn StorageFile) -> SectionWriter<'a> {
        SectionWriter {
            file,
            buffer: Vec::with_capacity(WRITE_BYTES),
            offset: IndexHead::LEN as u64,
            section_start: IndexHead::LEN as u64,
            crc: crc32fast::Hasher::new(),
        }
    }

    fn end_section(&mut self) -> io::Result<Section> {
        self.flush()?;
        let length = self.offset - self.section_start;
        self.section_start = self.offset;
        let crc = std::mem::take(&mut self.crc).finalize();
        Ok(Section { length, crc })
    }
}

impl Write for SectionWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.buffer.len() + bytes.len() > WRITE_BYTES {
            self.flush()?;
        }
        self.buffer.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.crc.update(&self.buffer);
        write_all_at(self.file, &self.buffer, self.offset)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests;
