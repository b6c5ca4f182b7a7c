//! The way that nearly every look-up takes: the first slot under a key's tag leads to a sound
//! record of the key. Everything else (other keys with the same tag, races with compaction, damage,
//! files that are read with a system call) is left to [`State::find`].

use super::{HashedKey, State};
use crate::error::Result;
use crate::index::namespaces::NamespaceState;
use crate::location::Location;
use crate::segment::{Segment, ValueRef};

/// What the first slot under a key's tag says of the key. It nearly always suffices.
pub(super) enum Glance<T> {
    Absent,
    /// A sound record of the key is there.
    Found(Location, T),
    /// Look closer, with [`State::find`].
    Unsure,
}

impl State {
    /// What `read` makes of the record that the first slot under the key's tag leads to. It returns
    /// None if that is not the key's, or not sound.
    #[inline]
    pub(super) fn glance<T>(&self, key: &HashedKey<'_>, read: impl FnOnce(&Segment, u64) -> Option<T>) -> Glance<T> {
        let Some(location) = self.keydir.first(key.hash) else {
            return Glance::Absent;
        };
        let found = match self.segments.load(location.segment_index()).as_deref() {
            // A read that fails must be told, not repeated.
            Some(Some(segment)) if segment.is_in_memory() => read(segment, location.offset()),
            _ => None,
        };
        match found {
            Some(found) => Glance::Found(location, found),
            None => Glance::Unsure,
        }
    }

    /// Whether a get of the key finds what it needs in memory, so that it waits for no device. Only
    /// a hint.
    pub(crate) fn is_cached(&self, namespace: &NamespaceState, key: &[u8]) -> bool {
        let glanced = self.glance(&self.hashed(namespace.number, key), |segment, offset| {
            segment.is_cached(offset).then_some(())
        });
        !matches!(glanced, Glance::Unsure)
    }

    /// What `read` makes of the newest value of the key. It is called at most once, and holds
    /// nothing that others wait for.
    #[inline]
    pub(crate) fn get_with<T>(
        &self,
        namespace: &NamespaceState,
        key: &[u8],
        read: impl FnOnce(ValueRef<'_>) -> T,
    ) -> Result<Option<T>> {
        let key = &self.hashed(namespace.number, key);
        let mut read = Some(read);
        if !self.is_changing() {
            let glanced = self.glance(key, |segment, offset| {
                let value = segment.lent(offset, |record| key.is_of(record))?;
                // One that has expired is judged again below.
                let is_plain = value.expiry_ms().is_none_or(|_| {
                    let now = self.context.time.now();
                    !now.is_expired(value.expiry_ms(), value.sequence())
                });
                if is_plain { Some(read.take()?(value)) } else { None }
            });
            match glanced {
                Glance::Absent => return Ok(None),
                Glance::Found(_, answer) => return Ok(Some(answer)),
                Glance::Unsure => {}
            }
        }
        let value = self.get_hashed(key, None)?;
        Ok(value.zip(read).map(|(value, read)| read(ValueRef::of(&value))))
    }
}
