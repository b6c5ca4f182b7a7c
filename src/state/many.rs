//! Looking many keys up together, so that the waits for memory overlap.

use std::sync::Arc;

use super::{HashedKey, State, View};
use crate::clock::Now;
use crate::error::Result;
use crate::format::record::Record;
use crate::index::namespaces::NamespaceState;
use crate::planted::{Planted, planted};
use crate::segment::{ReadError, Segment, Value};

/// Records prefetched into the processor's cache at a time: enough to overlap, few enough to stay
/// cached.
pub(crate) const WARM_UP: usize = 64;

/// Where the record of a key probably is.
pub(crate) struct Candidate {
    segment: Arc<Segment>,
    offset: u64,
}

impl Candidate {
    /// The value of the record there, if that `is_wanted`.
    pub(super) fn value(&self, is_wanted: impl FnOnce(&Record<'_>) -> bool) -> Result<Option<Value>, ReadError> {
        self.segment.value(self.offset, is_wanted)
    }
}

impl State {
    /// Finds where the records of these keys probably are, and touches them, one kind of memory
    /// after the other, so that the waits for each kind overlap. Between touches of one kind there
    /// are only plain loads: an atomic write would make the processor wait for all loads before it.
    ///
    /// For a reader of the present, or of a view that is not settled, nothing is returned while a
    /// group is being settled: what it hides from the keydir must not be taken from there after it
    /// is withdrawn.
    pub(crate) fn warm_up(&self, hashes: &[u64], view: Option<&View>) -> Vec<Option<Candidate>> {
        let is_settled = view.is_some_and(View::is_settled) || !self.is_changing() || planted(Planted::TrustUnsettled);
        let mut locations = Vec::with_capacity(hashes.len());
        self.keydir.candidates(hashes, &mut locations);
        let candidates: Vec<_> = (locations.into_iter())
            .map(|location| {
                let location = location?;
                let segment = self.segments.get(location.segment_index())?;
                Some(Candidate {
                    segment,
                    offset: location.offset(),
                })
            })
            .collect();
        let touch = |touched, candidate: &Candidate| touched ^ candidate.segment.touch(candidate.offset);
        std::hint::black_box(candidates.iter().flatten().fold(0, touch));
        match is_settled {
            true => candidates,
            false => hashes.iter().map(|_| None).collect(),
        }
    }

    /// As [`State::get`] at a known time, starting from what [`State::warm_up`] found. If that is a
    /// record of the key, the keydir pointed at it a moment ago, which is all that a look-up can
    /// guarantee; otherwise the key is looked up.
    pub(crate) fn get_warm(
        &self,
        key: &HashedKey<'_>,
        candidate: Option<&Candidate>,
        now: &Now,
    ) -> Result<Option<Value>> {
        let candidate = candidate.filter(|_| !self.is_changing());
        match candidate.map(|candidate| candidate.value(|record| key.is_of(record))) {
            Some(Ok(Some(value))) => {
                Ok(Some(value).filter(|value| !now.is_expired(value.expiry_ms(), value.sequence())))
            }
            _ => self.get_hashed(key, Some(now)),
        }
    }

    /// The values of many keys, in order, now or as a view sees them, all judged by one reading of
    /// the clock.
    pub(crate) fn get_many<K: AsRef<[u8]>>(
        &self,
        view: Option<&View>,
        namespace: &NamespaceState,
        keys: &[K],
    ) -> Result<Vec<Option<Value>>> {
        let now = self.context.time.now();
        let mut values = Vec::with_capacity(keys.len());
        self.look_up_many(view, namespace, keys, |key, candidate| {
            values.push(match view {
                None => self.get_warm(key, candidate, &now)?,
                Some(view) => view.get_warm(key, candidate, &now)?,
            });
            Ok(())
        })?;
        Ok(values)
    }

    /// Passes many keys to `look`, in order, each with what [`State::warm_up`] found for it.
    #[inline]
    pub(crate) fn look_up_many<K: AsRef<[u8]>>(
        &self,
        view: Option<&View>,
        namespace: &NamespaceState,
        keys: &[K],
        mut look: impl FnMut(&HashedKey<'_>, Option<&Candidate>) -> Result<()>,
    ) -> Result<()> {
        for keys in keys.chunks(WARM_UP) {
            let hashes: Vec<_> = keys
                .iter()
                .map(|key| self.hash(namespace.number, key.as_ref()))
                .collect();
            let candidates = self.warm_up(&hashes, view);
            for ((key, hash), candidate) in keys.iter().zip(hashes).zip(&candidates) {
                let key = HashedKey {
                    namespace: namespace.number,
                    key: key.as_ref(),
                    hash,
                };
                look(&key, candidate.as_ref())?;
            }
        }
        Ok(())
    }
}
