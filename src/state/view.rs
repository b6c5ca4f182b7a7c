//! Reading at a moment of the past: what the keydir points at if that is old enough, else what was
//! kept.

use std::ops::Bound;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use super::{Candidate, HashedKey, State};
use crate::clock::Now;
use crate::error::Result;
use crate::format::record::{Header, Record};
use crate::index::namespaces::NamespaceState;
use crate::index::order::KeyPage;
use crate::planted::{Planted, planted};
use crate::segment::{ReadError, Segment, Value};
use crate::sync::ChangeRight;

/// How many keys that were not kept end the search among the kept ones first.
const LIKELY_KEPT: i64 = 8;

/// A moment that can be read until this is dropped.
#[derive(Debug)]
pub(crate) struct View {
    state: Arc<State>,
    sequence: u64,
    /// Whether everything up to then was settled when the view began. So whatever group is
    /// published later is newer, and what the keydir points at is the key's record if it is old
    /// enough.
    is_settled: bool,
    /// Above 0 if the last keys were kept: then the next ones are looked for there first. A hint.
    likely_kept: AtomicI64,
}

impl Drop for View {
    fn drop(&mut self) {
        self.state.views.end(self.sequence);
    }
}

impl View {
    /// A view of the present. The caller passes the newest sequence if it knows one that may be
    /// higher than that of every record, since it holds the writer lock.
    pub(crate) fn begin(state: &Arc<State>, right: &ChangeRight, sequence: Option<u64>) -> View {
        let sequence = sequence.unwrap_or_else(|| state.newest_sequence());
        state.views.begin(right, sequence);
        View {
            state: state.clone(),
            sequence,
            is_settled: !state.is_changing() || planted(Planted::TrustUnsettled),
            likely_kept: AtomicI64::new(0),
        }
    }

    /// The sequence of the newest record that it shows.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Whether it needs nothing from the groups that are published.
    #[inline]
    pub(super) fn is_settled(&self) -> bool {
        self.is_settled
    }

    /// An error if a namespace had been dropped.
    pub(crate) fn check(&self, namespace: &NamespaceState) -> Result<()> {
        let is_before = |dropped_at| dropped_at <= self.sequence || planted(Planted::ForgetDroppedInView);
        match namespace.dropped_at().is_some_and(is_before) {
            true => Err(namespace.gone()),
            false => Ok(()),
        }
    }

    /// The value that the key had, expired or not.
    pub(crate) fn value(&self, key: &HashedKey<'_>) -> Result<Option<Value>> {
        self.find(key, |segment, offset, wanted| segment.value(offset, wanted))
    }

    /// The header of the record that the key had, expired or not. The value is neither read nor
    /// checked.
    pub(crate) fn header(&self, key: &HashedKey<'_>) -> Result<Option<Header>> {
        let mut scratch = Vec::new();
        self.find(key, |segment, offset, wanted| {
            let record = segment.record(offset, &mut scratch)?;
            Ok(wanted(&record).then_some(record.header))
        })
    }

    /// The value that the key had, unless it has expired.
    pub(crate) fn get(&self, key: &HashedKey<'_>, now: &Now) -> Result<Option<Value>> {
        self.get_warm(key, None, now)
    }

    /// As [`View::get`], starting from what [`State::warm_up`] has found since the view began. If
    /// that is a record of the key and old enough, no newer one is.
    pub(crate) fn get_warm(
        &self,
        key: &HashedKey<'_>,
        candidate: Option<&Candidate>,
        now: &Now,
    ) -> Result<Option<Value>> {
        let is_seen = |record: &Record<'_>| key.is_of(record) && record.header.sequence <= self.sequence;
        let value = match candidate.map(|candidate| candidate.value(is_seen)) {
            Some(Ok(Some(value))) => Some(value),
            _ => self.value(key)?,
        };
        Ok(value.filter(|value| !now.is_expired(value.expiry_ms(), value.sequence())))
    }

    /// Reads the record that the key had with `read`, which is given a place and what the record
    /// there must be.
    fn find<T>(
        &self,
        key: &HashedKey<'_>,
        mut read: impl FnMut(&Segment, u64, &mut dyn FnMut(&Record<'_>) -> bool) -> Result<Option<T>, ReadError>,
    ) -> Result<Option<T>> {
        let state = &*self.state;
        if !self.is_settled
            && state.is_changing()
            && let Some(of_group) = state.find_in_group(key, self.sequence)
        {
            return read(of_group.segment(), of_group.offset(), &mut |record| {
                record.header.kind.is_put()
            })
            .map_err(|error| state.error_in_group(key, &of_group, error));
        }
        let looks_there_first = self.likely_kept.load(Ordering::Relaxed) > 0;
        if looks_there_first && let Some(found) = self.find_kept(key, &mut read)? {
            return Ok(Some(found));
        }
        let standing = state.find_record(key, |segment, offset, is_of_key| {
            read(segment, offset, &mut |record| {
                let is_old = record.header.sequence <= self.sequence || planted(Planted::SeeNewer);
                is_of_key(record) && is_old
            })
        });
        if let Ok(Some(found)) = standing {
            if looks_there_first {
                self.likely_kept.fetch_sub(1, Ordering::Relaxed);
            }
            return Ok(Some(found));
        }
        if let Some(found) = self.find_kept(key, &mut read)? {
            self.likely_kept.store(LIKELY_KEPT, Ordering::Relaxed);
            return Ok(Some(found));
        }
        // What the keydir points at is newer than the view, or there is nothing. Or it cannot be
        // read, and may be what the key had.
        standing.map(|_| None)
    }

    /// Reads the record that the key had if it is kept. If it is, there is no other.
    fn find_kept<T>(
        &self,
        key: &HashedKey<'_>,
        read: &mut impl FnMut(&Segment, u64, &mut dyn FnMut(&Record<'_>) -> bool) -> Result<Option<T>, ReadError>,
    ) -> Result<Option<T>> {
        for others in 0.. {
            let Some((segment, offset)) = self.state.views.of_hash(key.hash, self.sequence, others) else {
                break;
            };
            let found = read(&segment, offset, &mut |record| key.is_of(record));
            let found = found.map_err(|error| self.state.context.read_error(segment.id(), offset, error));
            if let Some(found) = found.map_err(|error| error.of_key(key.key))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// At most `limit` keys between the bounds, fewer only if there are no more; and whether they
    /// are exactly the keys of that moment, with their flags. Otherwise keys that came later are
    /// among them, and the flags mean nothing.
    pub(crate) fn keys(
        &self,
        namespace: &NamespaceState,
        (from, to): (Bound<&[u8]>, Bound<&[u8]>),
        reverse: bool,
        limit: usize,
    ) -> (KeyPage, bool) {
        let is_exact = namespace.order_is_of(self.sequence);
        let (present, has_all) = self.state.keys_between(namespace, (from, to), reverse, limit);
        if has_all && is_exact && namespace.order_is_of(self.sequence) || planted(Planted::ListPresent) {
            return (present, true);
        }
        // What has left since. Asked after the order: a key that left in between is found here.
        let bounds = present.answered((from, to), reverse, limit);
        let gone = self
            .state
            .views
            .gone(namespace.number, bounds, reverse, (self.sequence, limit));
        (present.merged(&gone, reverse, limit), false)
    }

    /// The number of keys between the bounds if that is known without looking any up, expired keys
    /// included.
    pub(crate) fn count(&self, namespace: &NamespaceState, (from, to): (Bound<&[u8]>, Bound<&[u8]>)) -> Option<u64> {
        let is_exact = namespace.order_is_of(self.sequence);
        let count = self.state.count_between(namespace, (from, to))?;
        (is_exact && namespace.order_is_of(self.sequence)).then_some(count)
    }
}
