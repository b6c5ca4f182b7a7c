//! (Over 400 lines: two passes over the same segments.)
//!
//! The two passes of salvage.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::{SalvageReport, SalvagedSegment};
use crate::clock::Now;
use crate::engine::operation::{Action, Operation};
use crate::error::{Error, Result};
use crate::format::record::{Place, Record};
use crate::format::segment::{SEGMENT_HEADER_LEN, SegmentHeader};
use crate::format::{ALIGNMENT, Damage};
use crate::index::namespaces::{NamespaceState, SYSTEM_NAMESPACE, decode_entry, decode_number, decode_settings};
use crate::options::{Durability, Progress};
use crate::planted::{Planted, planted};
use crate::repair::closed_store::SourceSegment;
use crate::repair::damaged::Content;
use crate::segment::ring::Ring;
use crate::segment::scan::Found;
use crate::segment::walk::{Reach, Step, Walker};
use crate::storage::Directory;
use crate::store::Store;

/// Bytes written between two rounds of sealing and of merging the key orders, so that neither piles
/// up in memory.
const ROUND_BYTES: u64 = 4 << 20;
/// Bytes between two reports of progress.
const PROGRESS_BYTES: u64 = 1 << 20;

/// The sound record of a key with the highest sequence so far.
#[derive(Clone, Copy)]
struct Newest {
    sequence: u64,
    source: u32,
    put: bool,
    offset: u64,
}

/// A record of a batch that was incomplete when its segment ended.
struct Torn {
    source: usize,
    namespace: u32,
    key: Box<[u8]>,
    newest: Newest,
}

/// A put to copy into the new store.
struct Chosen {
    offset: u64,
    namespace: u32,
}

/// The new store.
struct Target<'a> {
    store: &'a Store,
    now: &'a Now,
    namespaces: HashMap<u32, Arc<NamespaceState>>,
    /// Bytes since the last round of sealing.
    unwritten: u64,
}

/// A run of salvage.
pub(super) struct Run<P> {
    directory: Directory,
    sources: Vec<SourceSegment>,
    /// What continues open segments.
    ring: Option<Ring>,
    pub(super) report: SalvageReport,
    content: Content,
    newest: BTreeMap<u32, HashMap<Box<[u8]>, Newest>>,
    torn: Vec<Torn>,
    /// Highest sequence of a sound record that is not torn.
    last_sequence: u64,
    progress: P,
    state: Progress,
}

impl<P: FnMut(Progress) -> bool> Run<P> {
    /// Salvages these segments of this directory.
    pub(super) fn new(
        directory: Directory,
        (sources, ring): (Vec<SourceSegment>, Option<Ring>),
        report: SalvageReport,
        progress: P,
    ) -> Run<P> {
        // Each is read twice.
        let total_bytes = sources.iter().map(|source| source.length).sum::<u64>() * 2;
        Run {
            directory,
            sources,
            ring,
            report,
            content: Content::default(),
            newest: BTreeMap::new(),
            torn: Vec::new(),
            last_sequence: 0,
            progress,
            state: Progress {
                done_bytes: 0,
                total_bytes,
            },
        }
    }

    fn go_on(&mut self, bytes: u64) -> Result<()> {
        self.state.done_bytes += bytes;
        if (self.progress)(self.state) {
            Ok(())
        } else {
            Err(Error::Cancelled)
        }
    }

    /// The first pass.
    pub(super) fn read_all(&mut self) -> Result<()> {
        for index in 0..self.sources.len() {
            let salvaged = self.read(index)?;
            self.report.segments.extend(salvaged);
        }
        // A batch torn at the end of the log was never acknowledged. If the log continues after it,
        // it was complete once.
        for torn in std::mem::take(&mut self.torn) {
            let segment = self.report.segments.get_mut(torn.source);
            if self.last_sequence > torn.newest.sequence || planted(Planted::SalvageTorn) {
                keep(&mut self.newest, torn.namespace, &torn.key, torn.newest);
            } else if let Some(segment) = segment {
                segment.records -= 1;
                segment.torn_records += 1;
            }
        }
        Ok(())
    }

    fn read(&mut self, index: usize) -> Result<Option<SalvagedSegment>> {
        let Some(source) = self.sources.get(index) else {
            return Ok(None);
        };
        let (id, path, length, reach) = (source.id, source.path.clone(), source.length, source.reach());
        let mut salvaged = SalvagedSegment {
            path: path.clone(),
            id,
            records: 0,
            torn_records: 0,
            lost: Vec::new(),
        };
        let header = match &source.header {
            Ok(header) => *header,
            Err(damaged) => {
                salvaged.lost.push(damaged.clone());
                self.go_on(length)?;
                return Ok(Some(salvaged));
            }
        };
        self.load(index)?;
        let bytes = std::mem::take(&mut self.content.bytes);
        if let Err(damage) = SegmentHeader::decode(&bytes) {
            salvaged
                .lost
                .push(self.content.damaged((&path, Some(id)), 0, SEGMENT_HEADER_LEN, damage));
        }
        let reported = self.walk(index, Walker::new(&bytes, header, reach), &mut salvaged)?;
        let found = bytes.len() as u64;
        self.content.bytes = bytes;
        salvaged.lost.extend(self.content.unlisted(&path, id, &salvaged.lost));
        if reach == Reach::Known && found < length {
            salvaged.lost.push(
                self.content
                    .damaged((&path, Some(id)), found, length - found, Damage::Short),
            );
        }
        self.go_on(length.saturating_sub(reported))?;
        Ok(Some(salvaged))
    }

    /// Walks the records of a segment; returns the offset up to which progress was reported.
    fn walk(&mut self, index: usize, mut walker: Walker<'_>, salvaged: &mut SalvagedSegment) -> Result<u64> {
        let (mut batch_begin, mut batch_records) = (None, Vec::new());
        let mut reported = 0;
        while let Some(step) = walker.next() {
            match step {
                Step::Record { found, batch } => {
                    salvaged.records += 1;
                    if batch != batch_begin {
                        self.take_over(&mut batch_records);
                        batch_begin = batch;
                    }
                    let torn = (batch.is_some() && walker.reach() == Reach::Unknown).then_some(&mut batch_records);
                    self.see(index, &found, torn);
                }
                Step::Log(_) => {}
                Step::Damaged { offset, length, damage } => {
                    let (path, id) = (&salvaged.path, Some(salvaged.id));
                    let damaged = self.content.damaged((path, id), offset, length, damage);
                    salvaged.lost.push(damaged);
                }
            }
            if walker.offset() - reported >= PROGRESS_BYTES {
                let bytes = walker.offset() - reported;
                reported = walker.offset();
                self.go_on(bytes)?;
            }
        }
        if batch_begin.is_some() && walker.broken_batch() == batch_begin && !walker.is_sealed() {
            self.torn.append(&mut batch_records);
        } else {
            self.take_over(&mut batch_records);
        }
        Ok(reported)
    }

    /// Keeps a record if it is the newest of its key so far, or sets it aside if its batch may be
    /// torn.
    fn see(&mut self, index: usize, found: &Found<'_>, torn: Option<&mut Vec<Torn>>) {
        let record = &found.record;
        let newest = Newest {
            sequence: record.header.sequence,
            source: index as u32,
            put: record.header.kind.is_put(),
            offset: found.offset,
        };
        let (namespace, key) = (record.header.namespace, record.key());
        match torn {
            Some(torn) => torn.push(Torn {
                source: index,
                namespace,
                key: key.into(),
                newest,
            }),
            None => {
                self.last_sequence = self.last_sequence.max(newest.sequence);
                keep(&mut self.newest, namespace, key, newest);
            }
        }
    }

    /// Keeps the records of a batch that is not torn.
    fn take_over(&mut self, records: &mut Vec<Torn>) {
        for record in records.drain(..) {
            self.last_sequence = self.last_sequence.max(record.newest.sequence);
            keep(&mut self.newest, record.namespace, &record.key, record.newest);
        }
    }

    /// Reads a segment: its file, and what the ring has behind that.
    fn load(&mut self, index: usize) -> Result<()> {
        let Some(source) = self.sources.get(index) else {
            return Ok(());
        };
        let file = self
            .directory
            .open_file(&source.name, false)
            .map_err(|error| Error::io("open", &source.path, error))?;
        self.content.read(&*file, &source.path, source.length)?;
        if let (Some(ring), Ok(header), Reach::Unknown) = (&self.ring, &source.header, source.reach()) {
            let bytes = &mut self.content.bytes;
            if !ring.complete(bytes, *header) {
                // Behind damage the file may go on, and the ring behind what was written to it:
                // that may be anywhere before the end, since zeros can follow.
                let ends = end_of_sound_records(bytes, *header)..=bytes.len() as u64;
                let mut ends = ends.step_by(ALIGNMENT as usize);
                let found = ends.find_map(|end| ring.records_from(end, *header));
                if let Some(continuation) = found {
                    continuation.lay_over(bytes);
                }
            }
        }
        Ok(())
    }

    /// The second pass.
    pub(super) fn write_all(&mut self, store: &Store, now: &Now) -> Result<()> {
        let mut target = Target {
            store,
            now,
            namespaces: self.create_namespaces(store)?,
            unwritten: 0,
        };
        // By segment, in order of offset; the keys are read from the segments.
        let mut chosen: Vec<Vec<Chosen>> = self.sources.iter().map(|_| Vec::new()).collect();
        for (namespace, keys) in std::mem::take(&mut self.newest) {
            if target.namespaces.contains_key(&namespace) {
                for newest in keys.values().filter(|newest| newest.put) {
                    if let Some(of_source) = chosen.get_mut(newest.source as usize) {
                        of_source.push(Chosen {
                            offset: newest.offset,
                            namespace,
                        });
                    }
                }
            }
        }
        for (index, chosen) in chosen.into_iter().enumerate() {
            self.write_segment(index, chosen, &mut target)?;
        }
        Ok(())
    }

    /// Copies the chosen records of one segment.
    fn write_segment(&mut self, index: usize, mut chosen: Vec<Chosen>, target: &mut Target<'_>) -> Result<()> {
        let Some(source) = self.sources.get(index) else {
            return Ok(());
        };
        let (path, id, length) = (source.path.clone(), source.id, source.length);
        let Ok(header) = source.header.clone() else {
            return Ok(());
        };
        if chosen.is_empty() {
            return self.go_on(length);
        }
        chosen.sort_unstable_by_key(|chosen| chosen.offset);
        self.load(index)?;
        let bytes = std::mem::take(&mut self.content.bytes);
        let mut reported = 0;
        for Chosen { offset, namespace } in chosen {
            let place = Place {
                salt: header.salt,
                base_sequence: header.base_sequence,
                offset,
            };
            let rest = bytes.get(offset as usize..).unwrap_or_default();
            match Record::parse(rest, place).and_then(|record| record.check_body().map(|()| record)) {
                Ok(record) => self.write_record(&record, namespace, target)?,
                // It was sound in the first pass, so the device is failing.
                Err(damage) => {
                    let damaged = self.content.damaged((&path, Some(id)), offset, 0, damage);
                    let segments = self.report.segments.iter_mut();
                    for segment in segments.filter(|segment| segment.id == id) {
                        segment.lost.push(damaged.clone());
                    }
                }
            }
            if offset - reported >= PROGRESS_BYTES {
                self.go_on(offset - reported)?;
                reported = offset;
            }
        }
        self.content.bytes = bytes;
        self.go_on(length.saturating_sub(reported))
    }

    fn write_record(&mut self, record: &Record<'_>, namespace: u32, target: &mut Target<'_>) -> Result<()> {
        let Some(state) = target.namespaces.get(&namespace) else {
            return Ok(());
        };
        let header = record.header;
        if target.now.is_expired(header.expiry, header.sequence) && !planted(Planted::SalvageExpired) {
            self.report.expired += 1;
            return Ok(());
        }
        put(target.store, state, record)?;
        self.report.keys += 1;
        self.report.bytes += header.body_len();
        target.unwritten += header.record_len();
        if target.unwritten >= ROUND_BYTES {
            target.unwritten = 0;
            let engine = target.store.writer()?;
            engine.log.seal_all()?;
            engine.housekeeping.merge_due_orders();
        }
        Ok(())
    }

    /// Creates the namespaces of the new store: those with a record, and one for each number whose
    /// record is lost.
    fn create_namespaces(&mut self, store: &Store) -> Result<HashMap<u32, Arc<NamespaceState>>> {
        let mut created = HashMap::new();
        let mut dropped = HashSet::new();
        let mut entries: Vec<(Newest, Box<[u8]>)> = self
            .newest
            .remove(&SYSTEM_NAMESPACE)
            .unwrap_or_default()
            .into_iter()
            .map(|(key, newest)| (newest, key))
            .collect();
        // If two have the same name, one of them was renamed or dropped in a record that is lost;
        // the later one is right.
        entries.sort_unstable_by_key(|(newest, _)| std::cmp::Reverse(newest.sequence));
        for (newest, key) in entries {
            if !newest.put {
                if let Ok(number) = decode_number(&key) {
                    dropped.insert(number);
                }
                continue;
            }
            let Some((number, id, name, ttl_ms)) = self.namespace_entry(newest)? else {
                continue;
            };
            match store.create_namespace_with_id(&name, id) {
                Ok(namespace) => {
                    if ttl_ms.is_some() {
                        namespace.set_default_ttl(ttl_ms.map(Duration::from_millis))?;
                    }
                    created.insert(number, namespace.state);
                }
                Err(Error::NamespaceExists { .. } | Error::InvalidInput { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        let orphans: Vec<_> = self
            .newest
            .iter()
            .filter(|(number, _)| !created.contains_key(number))
            .filter(|(number, _)| !dropped.contains(number) || planted(Planted::SalvageDropped))
            .filter(|(_, keys)| keys.values().any(|newest| newest.put))
            .map(|(number, _)| *number)
            .collect();
        for number in orphans {
            let mut name = format!("recovered-{number}");
            let namespace = loop {
                match store.create_namespace(&name) {
                    Err(Error::NamespaceExists { .. }) => name.push('\''),
                    created => break created?,
                }
            };
            self.report.recovered_namespaces.push(name);
            created.insert(number, namespace.state);
        }
        self.report.namespaces = created.len() as u64;
        Ok(created)
    }

    /// What a namespace's record says.
    fn namespace_entry(&mut self, newest: Newest) -> Result<Option<Entry>> {
        let Some(source) = self.sources.get(newest.source as usize) else {
            return Ok(None);
        };
        let Ok(header) = &source.header else { return Ok(None) };
        let file = self
            .directory
            .open_file(&source.name, false)
            .map_err(|error| Error::io("open", &source.path, error))?;
        let mut bytes = vec![0; crate::format::aligned((crate::index::namespaces::NAME_LEN_MAX + 128) as u64) as usize];
        let mut filled = 0;
        // The file may end after the record.
        while let Some(part) = bytes.get_mut(filled..).filter(|part| !part.is_empty()) {
            match file.read_at(part, newest.offset + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        let place = Place {
            salt: header.salt,
            base_sequence: header.base_sequence,
            offset: newest.offset,
        };
        let in_file = entry_in(bytes.get(..filled).unwrap_or_default(), place);
        // Or only the ring has it.
        Ok(in_file.or_else(|| entry_in(&self.ring.as_ref()?.from(newest.offset), place)))
    }
}

/// Where the last sound record ends.
fn end_of_sound_records(bytes: &[u8], header: SegmentHeader) -> u64 {
    let mut walker = Walker::new(bytes, header, Reach::Unknown);
    let mut end = SEGMENT_HEADER_LEN;
    while let Some(step) = walker.next() {
        if let Step::Record { found, .. } | Step::Log(found) = step {
            end = found.offset + found.record.header.record_len();
        }
    }
    end
}

/// What the record of a namespace says that begins with these bytes; None if there is no sound one.
fn entry_in(bytes: &[u8], place: Place) -> Option<Entry> {
    let record = Record::parse(bytes, place).ok()?;
    record.check_body().ok()?;
    let (number, id, name) = decode_entry(record.key(), record.value()).ok()?;
    // Without the lifetime the namespace is still worth having.
    let ttl_ms = decode_settings(record.metadata()).ok().flatten();
    Some((number, id, name.to_owned(), ttl_ms))
}

/// Number, id, name and default lifetime of a namespace.
type Entry = (u32, u128, String, Option<u64>);

/// Keeps a record if it is the newest of its key so far.
fn keep(index: &mut BTreeMap<u32, HashMap<Box<[u8]>, Newest>>, namespace: u32, key: &[u8], newest: Newest) {
    let keys = index.entry(namespace).or_default();
    match keys.get_mut(key) {
        // Of two with the same sequence, one is a copy. Without a manifest it may also be a write
        // that recovery discarded, and then the later segment is right.
        Some(known) if newest.sequence >= known.sequence || planted(Planted::SalvageInAnyOrder) => *known = newest,
        Some(_) => {}
        None => {
            keys.insert(key.into(), newest);
        }
    }
}

/// Writes a record into the new store unchanged: limits and lifetimes were checked when it was
/// first put.
fn put(store: &Store, namespace: &NamespaceState, record: &Record<'_>) -> Result<()> {
    let action = Action::Put {
        value: record.value(),
        metadata: record.metadata(),
        expiry: record.header.expiry,
    };
    let operation = Operation {
        namespace,
        key: record.key(),
        action,
        condition: None,
    };
    store.writer()?.write(&operation, Durability::Buffered).map(drop)
}
