//! Where a listing reads: the only functions by which it reads the key order and the records.

use std::ops::Bound;
use std::sync::Arc;

use super::page::{Detail, Unread};
use crate::clock::Now;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::index::namespaces::NamespaceState;
use crate::index::order::{KeyFlags, KeyPage};
use crate::planted::{Planted, planted};
use crate::state::{Candidate, HashedKey, WARM_UP};
use crate::store::checks::check_namespace;

/// The keys of a namespace as they are now.
///
/// It holds the engine, not the store: a listing that is kept for long does not keep the store
/// open.
#[derive(Clone, Debug)]
pub(super) struct Source {
    engine: Arc<Engine>,
    namespace: Arc<NamespaceState>,
}

/// The hash of a key, and where its record probably is.
pub(super) struct Warm<'a> {
    key: HashedKey<'a>,
    candidate: Option<&'a Candidate>,
}

impl Source {
    pub(super) fn new(engine: Arc<Engine>, namespace: Arc<NamespaceState>) -> Source {
        Source { engine, namespace }
    }

    /// Refuses work on a namespace that was dropped, or whose store was closed.
    pub(super) fn check(&self) -> Result<()> {
        check_namespace(&self.engine, &self.namespace)
    }

    /// The stable id of the namespace.
    pub(super) fn id(&self) -> u128 {
        self.namespace.stable_id
    }

    /// Most keys that a page may have.
    pub(super) fn page_keys_max(&self) -> usize {
        self.engine.context.options.limits.page_keys_max
    }

    /// The time by which expiries are judged.
    pub(super) fn now(&self) -> Now {
        self.engine.context.time.now()
    }

    /// Runs `look` so that it sees each batch as a whole or not at all.
    pub(super) fn consistently<T>(&self, look: impl FnMut() -> Result<T>) -> Result<T> {
        self.engine.state.consistently(look)
    }

    /// Whether any key may have an expiry.
    pub(super) fn has_expiring(&self) -> bool {
        self.namespace.has_expiring()
    }

    /// The first keys between the bounds, or with `reverse` the last ones, expired ones included.
    pub(super) fn keys_between(&self, bounds: (Bound<&[u8]>, Bound<&[u8]>), reverse: bool, most: usize) -> KeyPage {
        self.namespace.order.page(bounds.0, bounds.1, reverse, most)
    }

    /// Number of keys between the bounds, expired ones included.
    pub(super) fn count_between(&self, bounds: (Bound<&[u8]>, Bound<&[u8]>)) -> u64 {
        self.namespace.order.count(bounds.0, bounds.1)
    }

    /// Calls `look` for each key until it returns false. For keys whose flags pass `wanted`, the
    /// records are first prefetched into the processor's cache, many at a time.
    pub(super) fn look_up(
        &self,
        keys: &KeyPage,
        wanted: impl Fn(KeyFlags) -> bool,
        mut look: impl FnMut(&[u8], KeyFlags, Option<Warm<'_>>) -> Result<bool>,
    ) -> Result<()> {
        let (engine, state) = (&self.engine, &self.namespace);
        let mut keys = keys.iter();
        let mut group = Vec::with_capacity(keys.len().min(WARM_UP));
        let mut hashes = Vec::with_capacity(group.capacity());
        loop {
            group.clear();
            group.extend(keys.by_ref().take(WARM_UP));
            if group.is_empty() {
                return Ok(());
            }
            let looked_up = group.iter().filter(|(_, flags)| wanted(*flags));
            hashes.clear();
            hashes.extend(looked_up.map(|(key, _)| engine.state.hash(state.number, key)));
            let candidates = engine.state.warm_up(&hashes);
            let mut warm = hashes.iter().zip(&candidates);
            for &(key, flags) in &group {
                let warm = if wanted(flags) { warm.next() } else { None };
                if !look(
                    key,
                    flags,
                    warm.map(|(hash, candidate)| Warm {
                        key: HashedKey {
                            namespace: state.number,
                            key,
                            hash: *hash,
                        },
                        candidate: candidate.as_ref(),
                    }),
                )? {
                    return Ok(());
                }
            }
        }
    }

    /// Details of a key for the page, with its value if `values` or if only that has them; None if
    /// the key is no longer there.
    pub(super) fn detail(&self, flags: KeyFlags, warm: &Warm<'_>, values: bool, now: &Now) -> Result<Option<Detail>> {
        let (state, key) = (&self.engine.state, &warm.key);
        let detail = if values || flags.contains(KeyFlags::METADATA) {
            let value = state.get_warm(key, warm.candidate, now);
            value.map(|value| value.map(Detail::Value))
        } else {
            state.find_header(key).map(|found| {
                let live = found.filter(|(_, header)| !now.is_expired(header.expiry, header.sequence));
                live.map(|(_, header)| header.expiry.map_or(Detail::Plain, Detail::Expiry))
            })
        };
        match detail {
            Err(error) if error.is_unreadable() && !planted(Planted::FailPageOnDamage) => {
                self.detail_of_damaged(key, error, now)
            }
            detail => detail,
        }
    }

    /// Details of a key whose record cannot be read whole: its header may be sound.
    fn detail_of_damaged(&self, key: &HashedKey<'_>, error: Error, now: &Now) -> Result<Option<Detail>> {
        let expiry = match self.engine.state.find_header(key) {
            // Deleted since, or expired: then the key is absent, whatever the state of its value.
            Ok(None) => return Ok(None),
            Ok(Some((_, header))) if now.is_expired(header.expiry, header.sequence) => return Ok(None),
            Ok(Some((_, header))) => header.expiry,
            Err(error) if error.is_unreadable() => None,
            Err(error) => return Err(error),
        };
        Ok(Some(Detail::Damaged(Box::new(Unread { error, expiry }))))
    }

    /// Whether a key is there and has not expired. A key whose record is damaged is.
    pub(super) fn is_live(&self, warm: &Warm<'_>, now: &Now) -> Result<bool> {
        match self.engine.state.find_header(&warm.key) {
            Ok(found) => Ok(found.is_some_and(|(_, header)| !now.is_expired(header.expiry, header.sequence))),
            Err(error) if error.is_unreadable() => Ok(true),
            Err(error) => Err(error),
        }
    }
}
