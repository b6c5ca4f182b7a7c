//! The index file: the indexes as they were when the store was closed, so that opening reads tables, not records.
//!
//! It is an aid, like hints: derived from the log, and worth nothing unless it fits. It is written when everything else is
//! done, never synced, and bound to the manifest that stands then, whose segments are all sealed: nothing can come into the
//! log without another manifest. Torn, out of date, missing or of another program, it is ignored, and the indexes are built
//! from segments and hints. It goes with the first change of the manifest.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::manifest::Identity;
use super::{Engine, opening};
use crate::error::{Error, Result};
use crate::format::index::{IndexHead, SECTIONS, Section};
use crate::format::manifest::SegmentState;
use crate::format::{Damage, Fields, INDEX_FILE};
use crate::index::expiry::ExpiryQueue;
use crate::index::hash::KeyHasher;
use crate::index::keydir::Keydir;
use crate::index::namespaces::{NAME_LEN_MAX, NamespaceState, SYSTEM_NAMESPACE};
use crate::index::order::KeyOrder;
use crate::location::Location;
use crate::options::{Progress, ReadMode};
use crate::planted::{Planted, planted};
use crate::segment::{Counters, Counts, Segment};
use crate::storage::{NeverChanged, StorageFile, read_exact_at, write_all_at};
use crate::sync::lock;

/// Bytes gathered before they are written.
const WRITE_BYTES: usize = 256 << 10;

/// What an index file holds, checked.
struct Indexes {
    hasher: KeyHasher,
    keydir: Keydir,
    namespaces: Vec<NamespaceState>,
    others: Others,
}

/// The third section.
struct Others {
    next_namespace: u32,
    /// What is live in each segment, by its id.
    live: HashMap<u64, Counts>,
    expiry: ExpiryQueue,
}

impl Others {
    /// The latest expiry of a record that left the indexes because it expired, and may still be on disk.
    fn latest_expired(&self) -> u64 {
        self.live
            .values()
            .map(|counts| counts.latest_expired)
            .max()
            .unwrap_or(0)
    }
}

impl Engine {
    fn index_path(&self) -> PathBuf {
        self.context.directory.path_of(INDEX_FILE)
    }

    /// Takes the indexes from the index file. False, nothing changed, if there is none that fits. The segments have been opened.
    pub(super) fn load_index_file(&mut self, segments: &[Arc<Segment>]) -> bool {
        if !self.context.options.index_file {
            return false;
        }
        let indexes = match self.read_index_file(segments) {
            Ok(Some(indexes)) => indexes,
            Ok(None) => return false,
            Err(error) => {
                // The log says the same.
                let error = Error::io("read", &self.index_path(), error);
                self.context.events.note_background_error(&error);
                return false;
            }
        };
        self.hasher = indexes.hasher;
        self.keydir = indexes.keydir;
        *lock(&self.expiry) = indexes.others.expiry;
        self.next_namespace
            .fetch_max(indexes.others.next_namespace, Ordering::AcqRel);
        for namespace in indexes.namespaces {
            self.namespaces.insert(Arc::new(namespace));
        }
        for segment in segments {
            if let Some(live) = indexes.others.live.get(&segment.id()) {
                segment.counters.set_live(live);
            }
        }
        self.manifest.set_index_file(true);
        if let Some(callback) = &self.context.options.progress {
            // No segment has to be read.
            let total_bytes = segments.iter().map(|segment| segment.data_end()).sum();
            callback(Progress {
                done_bytes: total_bytes,
                total_bytes,
            });
        }
        true
    }

    fn read_index_file(&self, segments: &[Arc<Segment>]) -> io::Result<Option<Indexes>> {
        let file = match self.context.directory.open_file(INDEX_FILE, false) {
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
        let manifest = self.manifest.current();
        let hasher = KeyHasher::new(head.hash_seeds);
        let is_of_store = head.store_id == manifest.store_id || planted(Planted::IgnoreIndexStore);
        let is_of_generation = head.generation == manifest.generation || planted(Planted::IgnoreIndexGeneration);
        let is_of_manifest = head.manifest_crc == manifest.checksum() || planted(Planted::IgnoreIndexManifest);
        if !(is_of_store && is_of_generation && is_of_manifest || planted(Planted::TrustIndexFile)) {
            return Ok(None);
        }
        if head.hash_probe != hasher.probe() && !planted(Planted::IgnoreHashProbe) {
            return Ok(None);
        }
        if head.file_len() != Some(length) && !planted(Planted::IgnoreIndexLength) {
            return Ok(None);
        }
        let (map, bytes);
        let content: &[u8] = match self.context.options.read_mode {
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
        let indexes = decode(hasher, &head, content, segments).ok();
        // What had expired when the file was written is not in it. By an earlier clock it may be there again.
        let now_ms = self.context.time.now().wall_ms();
        let in_time =
            |indexes: &Indexes| now_ms >= indexes.others.latest_expired() || planted(Planted::IgnoreIndexTime);
        Ok(indexes.filter(in_time))
    }

    /// Writes the index file, if the store was closed in good order. A failure costs nothing but time at the next opening.
    pub(crate) fn write_index_file(&self) {
        if !self.context.options.index_file || self.manifest.has_index_file() {
            return;
        }
        // Who takes things out of the indexes ends with the step under way, and begins no other.
        let _housekeeping = self.housekeeping();
        let written = if self.took_too_much_for_expired() {
            match self.with_segments_loaded_again() {
                Ok(Some(again)) => self.try_write_index_file(&again),
                // An index file is only written beside sealed segments.
                Ok(None) => return,
                Err(error) => Err(error),
            }
        } else {
            self.try_write_index_file(self)
        };
        if let Err(error) = written {
            // A part of it is of no use, and takes space that may be short.
            let _ = self.context.directory.remove(INDEX_FILE);
            self.context.events.note_background_error(&error);
        }
    }

    /// Whether a key has left the indexes that has not expired by the clock as it is now: a clock that was ahead was put right
    /// later than the sweep waits for. Opening the store will show the key, and so would find the indexes useless.
    fn took_too_much_for_expired(&self) -> bool {
        let now_ms = self.context.time.now().wall_ms();
        let segments = self.segments.all();
        let too_much = |segment: &Arc<Segment>| segment.counters.get().latest_expired > now_ms;
        segments.iter().any(too_much) && !planted(Planted::KeepWrongIndexFile)
    }

    /// An engine with the same segments and the indexes that opening the store now would build; None unless all are sealed.
    fn with_segments_loaded_again(&self) -> Result<Option<Engine>> {
        let mut again = opening::beside(self);
        let mut segments = Vec::new();
        for segment in self.segments.all() {
            let Some(summary) = segment.summary else {
                return Ok(None);
            };
            let segment = Arc::new(segment.with_counters(Arc::new(Counters::of(&summary))));
            again.segments.set(segment.clone());
            segments.push(segment);
        }
        again.load(&segments, Vec::new())?;
        Ok(Some(again))
    }

    /// Writes the indexes of `source`, which are this engine's own or equal those that opening the store would build.
    fn try_write_index_file(&self, source: &Engine) -> Result<()> {
        self.write_indexes_of(source)
            .map_err(|error| Error::io("write", &self.index_path(), error))
    }

    fn write_indexes_of(&self, source: &Engine) -> io::Result<()> {
        // What is written here others will trust, so only beside the manifest that this store has written.
        let manifest = self.manifest.current();
        let identity = match self.manifest.check_stands() {
            Ok(identity) => identity,
            Err(_) if planted(Planted::IndexBesideStranger) => Identity::of(&manifest),
            Err(_) => return Ok(()),
        };
        let is_sealed = |state: &SegmentState| *state != SegmentState::Open;
        let quiet = {
            let guard = self.lock_writer();
            guard.poisoned().is_none() && !guard.is_recovering() && guard.pending_bytes() == 0
        };
        if !quiet || !manifest.segments.iter().all(|entry| is_sealed(&entry.state)) {
            return Ok(());
        }
        if self.namespaces.any_dropped() {
            // Their keys have not all left the indexes.
            return Ok(());
        }
        self.context.directory.remove_if_there(INDEX_FILE)?;
        let file = self.context.directory.create(INDEX_FILE)?;
        let mut out = SectionWriter::new(&*file);
        source.keydir.write_to(&mut out)?;
        let keydir = out.end_section()?;
        source.write_namespaces(&mut out)?;
        let namespaces = out.end_section()?;
        source.write_others(&mut out)?;
        let others = out.end_section()?;
        let head = IndexHead {
            store_id: identity.store_id,
            generation: identity.generation,
            manifest_crc: identity.checksum,
            hash_seeds: source.hasher.seeds(),
            hash_probe: source.hasher.probe(),
            sections: [keydir, namespaces, others],
        };
        // Last, so that a file without its end has no head either.
        write_all_at(&*file, &head.encode(), 0)
    }

    fn write_namespaces(&self, out: &mut SectionWriter<'_>) -> io::Result<()> {
        let namespaces = self.namespaces.all();
        out.write_all(&(namespaces.len() as u32).to_le_bytes())?;
        for namespace in namespaces {
            let name = namespace.name();
            out.write_all(&namespace.number.to_le_bytes())?;
            out.write_all(&namespace.stable_id.to_le_bytes())?;
            out.write_all(&[u8::from(namespace.has_expiring())])?;
            out.write_all(&(name.len() as u32).to_le_bytes())?;
            out.write_all(name.as_bytes())?;
            namespace.order.write_to(out)?;
        }
        Ok(())
    }

    fn write_others(&self, out: &mut SectionWriter<'_>) -> io::Result<()> {
        out.write_all(&self.next_namespace.load(Ordering::Acquire).to_le_bytes())?;
        let segments = self.segments.all();
        out.write_all(&(segments.len() as u64).to_le_bytes())?;
        for segment in segments {
            let counts = segment.counters.get();
            let numbers = [
                segment.id(),
                counts.live_puts,
                counts.live_bytes,
                counts.latest_expired,
                counts.expired_bytes,
            ];
            for number in numbers {
                out.write_all(&number.to_le_bytes())?;
            }
        }
        let queue = lock(&self.expiry);
        out.write_all(&(queue.entries().count() as u64).to_le_bytes())?;
        for (expiry, location) in queue.entries() {
            out.write_all(&expiry.to_le_bytes())?;
            out.write_all(&location.bits().to_le_bytes())?;
        }
        Ok(())
    }
}

/// Reads all sections of an index file, keydir and key orders side by side.
fn decode(hasher: KeyHasher, head: &IndexHead, content: &[u8], segments: &[Arc<Segment>]) -> Result<Indexes, Damage> {
    let mut rest = Fields(content.get(IndexHead::LEN..).unwrap_or_default());
    let mut sections = [&[][..]; SECTIONS];
    for (section, part) in sections.iter_mut().zip(&head.sections) {
        *section = rest.slice(part.length as usize)?;
    }
    let checked = |section: usize| -> Result<Fields<'_>, Damage> {
        let (Some(bytes), Some(part)) = (sections.get(section), head.sections.get(section)) else {
            return Err(Damage::Short);
        };
        if crc32fast::hash(bytes) != part.crc && !planted(Planted::IgnoreIndexChecksums) {
            return Err(Damage::Checksum);
        }
        Ok(Fields(bytes))
    };
    let mut ends = vec![0; Location::SEGMENTS_MAX as usize];
    for segment in segments {
        if let Some(end) = ends.get_mut(usize::from(segment.index())) {
            *end = segment.data_end();
        }
    }
    let is_known = |location: Location| {
        let end = ends.get(usize::from(location.segment_index())).copied().unwrap_or(0);
        (Location::OFFSET_MIN..end).contains(&location.offset())
    };
    std::thread::scope(|scope| {
        let namespaces = scope.spawn(|| read_to_end(checked(1)?, read_namespaces));
        // How many locations lead into each segment.
        let pointed_at = vec![Cell::new(0u64); Location::SEGMENTS_MAX as usize];
        let count = |location: Location| {
            if let Some(count) = pointed_at.get(usize::from(location.segment_index())) {
                count.set(count.get() + 1);
            }
            is_known(location)
        };
        let keydir = read_to_end(checked(0)?, |fields| Keydir::read_from(fields, count))?;
        let others = read_to_end(checked(2)?, |fields| read_others(fields, is_known))?;
        let fits = |segment: &Arc<Segment>| {
            let live = others.live.get(&segment.id());
            live.map(|live| live.live_puts) == pointed_at.get(usize::from(segment.index())).map(Cell::get)
        };
        let counts_fit = others.live.len() == segments.len() && segments.iter().all(fits);
        if !counts_fit && !planted(Planted::IgnoreIndexCounts) {
            return Err(Damage::Mismatch("the account of live records"));
        }
        Ok(Indexes {
            hasher,
            keydir,
            namespaces: namespaces.join().unwrap_or(Err(Damage::Field("namespaces")))?,
            others,
        })
    })
}

fn read_to_end<'a, T>(
    mut fields: Fields<'a>,
    read: impl FnOnce(&mut Fields<'a>) -> Result<T, Damage>,
) -> Result<T, Damage> {
    let value = read(&mut fields)?;
    match fields.0 {
        [] => Ok(value),
        _ => Err(Damage::Field("length of a section")),
    }
}

fn read_namespaces(fields: &mut Fields<'_>) -> Result<Vec<NamespaceState>, Damage> {
    let count = fields.u32()?;
    let mut namespaces: Vec<NamespaceState> = Vec::new();
    let mut known = std::collections::HashSet::new();
    for _ in 0..count {
        let (number, stable_id) = (fields.u32()?, u128::from_le_bytes(fields.bytes()?));
        let has_expiring = fields.u8()? != 0;
        let length = fields.u32()? as usize;
        let name = std::str::from_utf8(fields.slice(length)?).map_err(|_| Damage::Field("name of a namespace"))?;
        let is_new = known.insert((Some(number), None)) && known.insert((None, Some(name.to_owned())));
        if number == SYSTEM_NAMESPACE || name.is_empty() || name.len() > NAME_LEN_MAX || !is_new {
            return Err(Damage::Field("namespace"));
        }
        let namespace = NamespaceState::new(number, stable_id, name, KeyOrder::read_from(fields)?);
        if has_expiring {
            namespace.set_has_expiring();
        }
        namespaces.push(namespace);
    }
    Ok(namespaces)
}

fn read_others(fields: &mut Fields<'_>, is_known: impl Fn(Location) -> bool) -> Result<Others, Damage> {
    let next_namespace = fields.u32()?;
    let mut live = HashMap::new();
    for _ in 0..fields.u64()? {
        let id = fields.u64()?;
        let counts = Counts {
            live_puts: fields.u64()?,
            live_bytes: fields.u64()?,
            latest_expired: fields.u64()?,
            expired_bytes: fields.u64()?,
            ..Counts::default()
        };
        live.insert(id, counts);
    }
    let mut entries = Vec::new();
    for _ in 0..fields.u64()? {
        let (expiry, location) = (fields.u64()?, Location::from_bits(fields.u64()?));
        // One whose record was overwritten may lead to a segment that was compacted away.
        if is_known(location) {
            entries.push((expiry, location));
        }
    }
    let mut expiry = ExpiryQueue::default();
    expiry.cleaned(entries);
    Ok(Others {
        next_namespace,
        live,
        expiry,
    })
}

/// Writes sections one behind the other, behind the room for the head.
struct SectionWriter<'a> {
    file: &'a dyn StorageFile,
    buffer: Vec<u8>,
    /// Where the buffer's bytes go.
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
