//! The indexes as bytes: writing and reading the content of an index file.

use std::cell::Cell;
use std::collections::HashMap;
use std::io::{self, Write};
use std::sync::Arc;

use super::State;
use crate::format::index::{IndexHead, SECTIONS};
use crate::format::{Damage, Fields, Stored};
use crate::index::expiry::ExpiryQueue;
use crate::index::hash::KeyHasher;
use crate::index::keydir::Keydir;
use crate::index::namespaces::{NAME_LEN_MAX, NamespaceState, SYSTEM_NAMESPACE};
use crate::index::order::KeyOrder;
use crate::location::Location;
use crate::planted::{Planted, planted};
use crate::segment::{Counts, Segment};
use crate::sync::{ChangeRight, lock};

/// Flag of a namespace: a key may expire.
const HAS_EXPIRING: u8 = 1;
/// Flag of a namespace: the bytes of its records follow.
const HAS_LIVE_BYTES: u8 = 2;
/// Flag of a namespace: its default lifetime follows.
const HAS_DEFAULT_TTL: u8 = 4;

/// The content of an index file, checked.
pub(crate) struct Indexes {
    hasher: KeyHasher,
    keydir: Keydir,
    namespaces: Vec<NamespaceState>,
    others: Others,
}

/// The third section.
struct Others {
    next_namespace: u32,
    /// Live counts of each segment, by its id.
    live: HashMap<u64, Counts>,
    expiry: ExpiryQueue,
}

impl Others {
    /// The latest expiry of a record that left the indexes because it expired, and may still be on
    /// disk.
    fn latest_expired(&self) -> u64 {
        self.live
            .values()
            .map(|counts| counts.latest_expired)
            .max()
            .unwrap_or(0)
    }
}

impl Indexes {
    /// Decodes the sections after the head of an index file. `segments` are all segments of the
    /// store.
    pub(crate) fn read(head: &IndexHead, content: &[u8], segments: &[Arc<Segment>]) -> Result<Indexes, Damage> {
        decode(KeyHasher::new(head.hash_seeds), head, content, segments)
    }

    /// Records that had expired when the indexes were written are not in them. If the clock is
    /// earlier than this, they may be live again.
    pub(crate) fn latest_expired(&self) -> u64 {
        self.others.latest_expired()
    }
}

impl State {
    /// Takes over indexes that were read. `segments` are all segments of the store.
    pub(crate) fn adopt(&mut self, right: &ChangeRight, indexes: Indexes, segments: &[Arc<Segment>]) {
        self.hasher = indexes.hasher;
        self.keydir = indexes.keydir;
        *lock(&self.expiry) = indexes.others.expiry;
        self.set_next_namespace(indexes.others.next_namespace);
        for namespace in indexes.namespaces {
            self.namespaces.insert(Arc::new(namespace));
        }
        for segment in segments {
            if let Some(live) = indexes.others.live.get(&segment.id()) {
                segment.counters.set_live(right, live);
            }
        }
    }

    /// Whether a key has left the indexes that has not expired by the current clock: a fast clock
    /// was set right later than the sweep waits for. Opening the store will show the key again, so
    /// an index file of these indexes would be useless.
    pub(crate) fn took_too_much_for_expired(&self) -> bool {
        let now_ms = self.context.time.now().wall_ms();
        let segments = self.segments.all();
        let too_much = |segment: &Arc<Segment>| segment.counters.get().latest_expired > now_ms;
        segments.iter().any(too_much)
    }

    /// The seeds of the hash function, and its probe: the hash of some known keys.
    pub(crate) fn hash_seeds_and_probe(&self) -> ([u64; 2], u64) {
        (self.hasher.seeds(), self.hasher.probe())
    }

    /// Writes the sections, calling `end` after each.
    pub(crate) fn write_to<W: Write, T>(
        &self,
        out: &mut W,
        mut end: impl FnMut(&mut W) -> io::Result<T>,
    ) -> io::Result<[T; SECTIONS]> {
        self.keydir.write_to(out)?;
        let keydir = end(out)?;
        self.write_namespaces(out)?;
        let namespaces = end(out)?;
        self.write_others(out)?;
        Ok([keydir, namespaces, end(out)?])
    }

    fn write_namespaces(&self, out: &mut impl Write) -> io::Result<()> {
        let namespaces = self.namespaces.all();
        out.write_all(&(namespaces.len() as u32).to_stored())?;
        for namespace in namespaces {
            let name = namespace.name();
            out.write_all(&namespace.number.to_stored())?;
            out.write_all(&namespace.stable_id.to_stored())?;
            let expiring = if namespace.has_expiring() { HAS_EXPIRING } else { 0 };
            let default_ttl_ms = namespace.default_ttl_ms();
            let has_default = default_ttl_ms.map_or(0, |_| HAS_DEFAULT_TTL);
            out.write_all(&[HAS_LIVE_BYTES | expiring | has_default])?;
            out.write_all(&namespace.live_bytes().to_stored())?;
            if let Some(ttl_ms) = default_ttl_ms {
                out.write_all(&ttl_ms.to_stored())?;
            }
            out.write_all(&(name.len() as u32).to_stored())?;
            out.write_all(name.as_bytes())?;
            namespace.order.write_to(out)?;
        }
        Ok(())
    }

    fn write_others(&self, out: &mut impl Write) -> io::Result<()> {
        out.write_all(&self.next_namespace().to_stored())?;
        let segments = self.segments.all();
        out.write_all(&(segments.len() as u64).to_stored())?;
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
                out.write_all(&number.to_stored())?;
            }
        }
        let queue = lock(&self.expiry);
        out.write_all(&(queue.entries().count() as u64).to_stored())?;
        for (expiry, location) in queue.entries() {
            out.write_all(&expiry.to_stored())?;
            out.write_all(&location.bits().to_stored())?;
        }
        Ok(())
    }
}

/// Reads all sections of an index file, keydir and key orders in parallel.
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
        // Number of locations in each segment.
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
        let namespaces = namespaces.join().unwrap_or(Err(Damage::Field("namespaces")))?;
        // After damage they may be more than are live, but never more than there are.
        let counted = namespaces
            .iter()
            .map(NamespaceState::live_bytes)
            .try_fold(0, u64::checked_add);
        let all_bytes = segments.iter().map(|segment| segment.data_end()).sum();
        if counted.is_none_or(|counted| counted > all_bytes) {
            return Err(Damage::Mismatch("the bytes of the namespaces"));
        }
        Ok(Indexes {
            hasher,
            keydir,
            namespaces,
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
        let (number, stable_id) = (fields.u32()?, u128::from_stored(fields.bytes()?));
        let flags = fields.u8()?;
        if flags & !(HAS_EXPIRING | HAS_DEFAULT_TTL) != HAS_LIVE_BYTES {
            // Without the bytes, it is of a version that did not count them.
            return Err(Damage::Field("flags of a namespace"));
        }
        let live_bytes = fields.u64()?;
        let default_ttl_ms = match flags & HAS_DEFAULT_TTL {
            0 => None,
            _ => Some(fields.u64()?),
        };
        let length = fields.u32()? as usize;
        let name = std::str::from_utf8(fields.slice(length)?).map_err(|_| Damage::Field("name of a namespace"))?;
        let is_new = known.insert((Some(number), None)) && known.insert((None, Some(name.to_owned())));
        if number == SYSTEM_NAMESPACE || name.is_empty() || name.len() > NAME_LEN_MAX || !is_new {
            return Err(Damage::Field("namespace"));
        }
        let namespace = NamespaceState::new(number, stable_id, name, KeyOrder::read_from(fields)?);
        let namespace = namespace.with_live_bytes(live_bytes);
        namespace.set_default_ttl_ms(default_ttl_ms);
        if flags & HAS_EXPIRING != 0 {
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
        // An entry whose record was overwritten may point to a segment that was compacted away.
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

#[cfg(test)]
mod tests;
