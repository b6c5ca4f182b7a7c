//! Building the indexes from segments when a store is opened.
//!
//! Segments are read in parallel and in any order: for each key the keydir keeps the record with
//! the highest sequence, of any kind. Once all are read, shadows (tombstones and expired puts) are
//! removed again: they have served their purpose. Then the sorted offsets of all segments are
//! merged into the key orders, in `orders`.

mod dead;
mod names;
mod orders;
mod segment;
mod tournament;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use self::dead::DeadRecords;
use self::names::Names;
use super::State;
use crate::error::Result;
use crate::format::hint::Offsets;
use crate::index::expiry::ExpiryQueue;
use crate::index::keydir::Keydir;
use crate::location::Location;
use crate::options::Progress;
use crate::parallel::in_parallel;
use crate::segment::Segment;
use crate::sync::{ChangeRight, lock};

/// A segment and its records in key order.
pub(crate) struct Source {
    pub(crate) segment: Arc<Segment>,
    offsets: Offsets,
    /// The hint's checksum of headers and keys; None if the offsets were just built from the
    /// segment.
    keys_crc: Option<u32>,
}

/// Result of loading.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) hints_used: u64,
    /// Segments whose hints were missing or did not fit.
    pub(crate) scanned: Vec<u64>,
}

/// Expiry and length in bytes of a put that has expired.
type Expired = (u64, u64);

/// Contribution of one segment.
#[derive(Default)]
struct Contribution {
    /// Tombstones and expired puts; for the latter with expiry and length.
    shadows: Vec<(u64, Location, Option<Expired>)>,
    /// Puts that will expire.
    expiring: Vec<(u64, Location)>,
}

impl Source {
    /// From the offsets of a segment that was scanned.
    pub(crate) fn scanned(segment: Arc<Segment>, offsets: Offsets) -> Source {
        Source {
            segment,
            offsets,
            keys_crc: None,
        }
    }

    /// From the offsets of a hint, with its checksum of headers and keys.
    pub(crate) fn hinted(segment: Arc<Segment>, offsets: Offsets, keys_crc: u32) -> Source {
        Source {
            segment,
            offsets,
            keys_crc: Some(keys_crc),
        }
    }

    fn is_hinted(&self) -> bool {
        self.keys_crc.is_some()
    }
}

impl State {
    /// Fills the indexes. `known` are sources that need no hint; `find` creates the source of any
    /// other segment, from its hint only if that is still trusted.
    pub(crate) fn load(
        &mut self,
        right: &ChangeRight,
        segments: &[Arc<Segment>],
        known: Vec<Source>,
        find: impl Fn(&Arc<Segment>, bool) -> Result<Source> + Sync,
    ) -> Result<Loaded> {
        let progress = LoadProgress {
            done: AtomicU64::new(0),
            total_bytes: segments.iter().map(|segment| segment.data_end()).sum(),
        };
        let mut distrusted: Vec<u64> = Vec::new();
        let mut known = known;
        loop {
            let kept = std::mem::take(&mut known).into_iter();
            let kept: HashMap<u64, Source> = kept.map(|source| (source.segment.id(), source)).collect();
            let kept = Mutex::new(kept);
            let sources = in_parallel(segments, |segment| {
                // A separate statement, since the lock is held until its end.
                let kept = lock(&kept).remove(&segment.id());
                kept.map_or_else(|| find(segment, !distrusted.contains(&segment.id())), Ok)
            })?;
            let wrong_hints = self.load_sources(right, &sources, &progress)?;
            if wrong_hints.is_empty() {
                let hinted = sources.iter().filter(|source| source.is_hinted());
                let scanned = sources.iter().filter(|source| !source.is_hinted());
                return Ok(Loaded {
                    hints_used: hinted.count() as u64,
                    scanned: scanned.map(|source| source.segment.id()).collect(),
                });
            }
            // A hint lists other keys than its segment has: start over without it.
            distrusted.extend(wrong_hints);
            known = sources.into_iter().filter(|source| !source.is_hinted()).collect();
            progress.done.store(0, Ordering::Relaxed);
        }
    }

    /// Fills empty indexes from these sources, or returns the segments whose hints turn out to be
    /// wrong.
    fn load_sources(&mut self, right: &ChangeRight, sources: &[Source], progress: &LoadProgress) -> Result<Vec<u64>> {
        self.keydir = Keydir::with_capacity(sources.iter().map(|source| source.offsets.len()).sum());
        *lock(&self.expiry) = ExpiryQueue::default();
        let mut wrong_hints = Vec::new();
        let names = self.load_names(sources, &mut wrong_hints)?;
        if !wrong_hints.is_empty() {
            return Ok(wrong_hints);
        }
        let mut dead = DeadRecords::none(sources);
        let work = segment::Loading {
            state: self,
            right,
            names: &names,
            dead: &dead,
            progress,
        };
        let results = in_parallel(sources, |source| work.load(source))?;
        let mut contributions = Vec::with_capacity(results.len());
        for (source, result) in sources.iter().zip(results) {
            match result {
                Some(contribution) => contributions.push(contribution),
                None => wrong_hints.push(source.segment.id()),
            }
        }
        if wrong_hints.is_empty() {
            self.drop_shadows(right, &contributions);
            drop(contributions);
            dead.end();
            self.load_orders(right, sources, &dead, names)?;
        }
        Ok(wrong_hints)
    }

    /// Removes the shadows from the keydir, and fills the expiry queue.
    fn drop_shadows(&self, right: &ChangeRight, contributions: &[Contribution]) {
        for (hash, location, expired) in contributions.iter().flat_map(|contribution| &contribution.shadows) {
            if self.keydir.remove(*hash, *location)
                && let Some((expiry, bytes)) = expired
                && let Some(segment) = self.segments.get(location.segment_index())
            {
                segment.counters.add_expired(right, *expiry, *bytes);
            }
        }
        let mut queue = lock(&self.expiry);
        for (expiry, location) in contributions.iter().flat_map(|contribution| &contribution.expiring) {
            queue.push(*expiry, *location);
        }
    }

    fn report_progress(&self, progress: &LoadProgress, bytes: u64) {
        let done_bytes = progress.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
        if let Some(callback) = &self.context.options.progress {
            callback(Progress {
                done_bytes,
                total_bytes: progress.total_bytes,
            });
        }
    }
}

struct LoadProgress {
    done: AtomicU64,
    total_bytes: u64,
}
