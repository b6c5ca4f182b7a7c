//! Where a listing reads: the only functions by which it reads the key order and the records.

use std::ops::Bound;
use std::sync::{Arc, Weak};

use super::page::{Detail, Unread};
use crate::clock::Now;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::format::record::Header;
use crate::index::namespaces::NamespaceState;
use crate::index::order::{KeyFlags, KeyPage};
use crate::planted::{Planted, planted};
use crate::segment::Value;
use crate::state::{Candidate, HashedKey, View, WARM_UP, flags};
use crate::store::checks::check_namespace;
use crate::store::current::READ_ATTEMPTS_MAX;
use crate::store::transaction::Shared;
use crate::store::{Inner, Namespace, Snapshot, Store};

/// The keys of a namespace, as they are now or were at a moment.
///
/// It holds the engine, not the store: a listing that is kept for long does not keep the store
/// open.
#[derive(Clone, Debug)]
pub(in crate::store) struct Source {
    engine: Arc<Engine>,
    namespace: Arc<NamespaceState>,
    moment: Moment,
}

/// What a listing sees.
#[derive(Clone, Debug)]
pub(in crate::store) enum Moment {
    Now,
    /// As of a snapshot.
    Past(Snapshot),
    /// As of a view that lasts for one look.
    Brief(Arc<View>),
    /// As a transaction sees it.
    Transaction(Arc<Shared>),
    /// As a store that only reads has loaded it last.
    Loaded(Weak<Inner>),
}

/// Some keys of the key order.
pub(super) struct Listed {
    pub(super) keys: KeyPage,
    /// Whether all of them were there at the moment, with these flags. Otherwise each has to be
    /// looked up.
    pub(super) is_exact: bool,
}

/// The hash of a key, and where its record probably is.
pub(super) struct Warm<'a> {
    key: HashedKey<'a>,
    candidate: Option<&'a Candidate>,
}

impl Source {
    pub(in crate::store) fn new(engine: Arc<Engine>, namespace: Arc<NamespaceState>, moment: Moment) -> Source {
        Source {
            engine,
            namespace,
            moment,
        }
    }

    /// Refuses work on a namespace that was dropped, or whose store was closed.
    pub(super) fn check(&self) -> Result<()> {
        match &self.moment {
            Moment::Now | Moment::Loaded(_) => check_namespace(&self.engine, &self.namespace),
            Moment::Past(_) | Moment::Brief(_) => self.engine.context.check_open(),
            Moment::Transaction(shared) => shared.check(&self.namespace),
        }?;
        match self.view() {
            Some(view) => view.check(&self.namespace),
            None => Ok(()),
        }
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
        match &self.moment {
            Moment::Transaction(shared) => shared.now(),
            _ => self.engine.context.time.now(),
        }
    }

    /// The view that it reads, if it is one.
    fn view(&self) -> Option<&View> {
        match &self.moment {
            Moment::Past(snapshot) => Some(snapshot.view()),
            Moment::Brief(view) => Some(view),
            Moment::Now | Moment::Transaction(_) | Moment::Loaded(_) => None,
        }
    }

    /// Runs `look` with a source of one moment.
    pub(super) fn consistently<T>(&self, mut look: impl FnMut(&Source) -> Result<T>) -> Result<T> {
        match &self.moment {
            Moment::Now => self.in_present(look),
            Moment::Loaded(store) => {
                let inner = store.upgrade().ok_or(Error::Closed)?;
                self.in_loaded(&Store { inner }, look)
            }
            Moment::Past(_) | Moment::Brief(_) | Moment::Transaction(_) => {
                self.check()?;
                look(self)
            }
        }
    }

    /// Runs `look` with a source as it is now, though it may change meanwhile.
    pub(super) fn at_present<T>(&self, look: impl FnOnce(&Source) -> Result<T>) -> Result<T> {
        match &self.moment {
            Moment::Loaded(store) => {
                let inner = store.upgrade().ok_or(Error::Closed)?;
                look(&self.loaded_by(&Store { inner }))
            }
            _ => look(self),
        }
    }

    /// Runs `look` on what the store has loaded. If it comes to a file that is gone, the store is
    /// refreshed first.
    fn in_loaded<T>(&self, store: &Store, mut look: impl FnMut(&Source) -> Result<T>) -> Result<T> {
        for _ in 0..READ_ATTEMPTS_MAX {
            match self.loaded_by(store).in_present(&mut look) {
                Err(error) if self.may_have_moved(&error) => drop(store.refresh()?),
                answer => return answer,
            }
        }
        self.loaded_by(store).in_present(look)
    }

    /// The same source, of what the store has loaded last.
    fn loaded_by(&self, store: &Store) -> Source {
        let engine = store.engine_now();
        let namespace = Namespace::new(store.clone(), self.namespace.clone()).state_in(&engine);
        Source {
            engine,
            namespace,
            moment: self.moment.clone(),
        }
    }

    /// Whether the file that a read has looked for may only have been replaced.
    fn may_have_moved(&self, error: &Error) -> bool {
        matches!(self.moment, Moment::Loaded(_)) && error.is_vanished() && !planted(Planted::TrustVanished)
    }

    /// Whether the record of a listed key is damaged, and not only in a file that another process
    /// has removed: what a store that only reads has not opened by then, it cannot read.
    fn is_damage(&self, error: &Error) -> bool {
        let may_be_removed = self.engine.context.options.read_only && !planted(Planted::TrustVanished);
        error.is_unreadable() && !(may_be_removed && error.is_vanished())
    }

    fn in_present<T>(&self, mut look: impl FnMut(&Source) -> Result<T>) -> Result<T> {
        self.engine.state.consistently(|view| match view {
            None => {
                self.check()?;
                look(self)
            }
            Some(view) => {
                let source = Source {
                    moment: Moment::Brief(view.clone()),
                    ..self.clone()
                };
                source.check()?;
                look(&source)
            }
        })
    }

    /// The first keys between the bounds, or with `reverse` the last ones, expired ones included;
    /// fewer than `most` only if there are no more.
    pub(super) fn keys_between(&self, bounds: (Bound<&[u8]>, Bound<&[u8]>), reverse: bool, most: usize) -> Listed {
        let (keys, is_exact) = match (self.view(), &self.moment) {
            (Some(view), _) => view.keys(&self.namespace, bounds, reverse, most),
            (None, Moment::Transaction(shared)) => shared.keys(&self.namespace, bounds, reverse, most),
            (None, _) => self.engine.state.keys_between(&self.namespace, bounds, reverse, most),
        };
        Listed { keys, is_exact }
    }

    /// Number of keys between the bounds; None if keys have to be looked up for that.
    pub(super) fn count_between(&self, bounds: (Bound<&[u8]>, Bound<&[u8]>)) -> Option<u64> {
        if self.namespace.has_expiring() {
            return None;
        }
        match (self.view(), &self.moment) {
            (Some(view), _) => view.count(&self.namespace, bounds),
            (None, Moment::Transaction(shared)) => shared.count(&self.namespace, bounds),
            (None, _) => self.engine.state.count_between(&self.namespace, bounds),
        }
    }

    /// The value of a key that has not expired.
    fn value(&self, warm: &Warm<'_>, now: &Now) -> Result<Option<Value>> {
        match (self.view(), &self.moment) {
            (Some(view), _) => view.get_warm(&warm.key, warm.candidate, now),
            (None, Moment::Transaction(shared)) => shared.value(&warm.key),
            (None, _) => self.engine.state.get_warm(&warm.key, warm.candidate, now),
        }
    }

    /// The header of the record of a key, expired or not.
    fn header(&self, key: &HashedKey<'_>) -> Result<Option<Header>> {
        match (self.view(), &self.moment) {
            (Some(view), _) => view.header(key),
            (None, Moment::Transaction(shared)) => shared.header(key),
            (None, _) => Ok(self.engine.state.find_header(key)?.map(|(_, header)| header)),
        }
    }

    /// The flags of a key that is listed inexactly; None if it was not there.
    pub(super) fn flags_of(&self, warm: &Warm<'_>) -> Result<Option<KeyFlags>> {
        match self.header(&warm.key) {
            Ok(header) => Ok(header.as_ref().map(flags)),
            // Then its details say what is wrong.
            Err(error) if self.is_damage(&error) => Ok(Some(KeyFlags::EXPIRES)),
            Err(error) => Err(error),
        }
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
            let candidates = engine.state.warm_up(&hashes, self.view());
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
        let key = &warm.key;
        let detail = if values || flags.contains(KeyFlags::METADATA) {
            let value = self.value(warm, now);
            value.map(|value| value.map(Detail::Value))
        } else {
            self.header(key).map(|found| {
                let live = found.filter(|header| !now.is_expired(header.expiry, header.sequence));
                live.map(|header| header.expiry.map_or(Detail::Plain, Detail::Expiry))
            })
        };
        match detail {
            Err(error) if self.is_damage(&error) && !planted(Planted::FailPageOnDamage) => {
                self.detail_of_damaged(key, error, now)
            }
            detail => detail,
        }
    }

    /// Details of a key whose record cannot be read whole: its header may be sound.
    fn detail_of_damaged(&self, key: &HashedKey<'_>, error: Error, now: &Now) -> Result<Option<Detail>> {
        let expiry = match self.header(key) {
            // Deleted since, or expired: then the key is absent, whatever the state of its value.
            Ok(None) => return Ok(None),
            Ok(Some(header)) if now.is_expired(header.expiry, header.sequence) => return Ok(None),
            Ok(Some(header)) => header.expiry,
            Err(error) if self.is_damage(&error) => None,
            Err(error) => return Err(error),
        };
        Ok(Some(Detail::Damaged(Box::new(Unread { error, expiry }))))
    }

    /// Whether a key is there and has not expired. A key whose record is damaged is.
    pub(super) fn is_live(&self, warm: &Warm<'_>, now: &Now) -> Result<bool> {
        match self.header(&warm.key) {
            Ok(found) => Ok(found.is_some_and(|header| !now.is_expired(header.expiry, header.sequence))),
            Err(error) if self.is_damage(&error) => Ok(true),
            Err(error) => Err(error),
        }
    }
}
