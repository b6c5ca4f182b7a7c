//! Creating, finding, renaming and dropping namespaces.

use std::sync::Arc;
use std::time::Duration;

use super::{Namespace, Store};
use crate::engine::operation::Action;
use crate::error::{Error, Result};
use crate::index::namespaces::{NAME_LEN_MAX, NamespaceState, encode_entry, encode_settings};
use crate::index::order::KeyOrder;
use crate::planted::{Planted, planted};
use crate::storage::random_id;
use crate::sync::lock;

/// A namespace as [`Store::namespaces`] lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamespaceInfo {
    /// Its name, unique in the store.
    pub name: String,
    /// Its id: random, chosen at creation, kept through renames.
    pub id: u128,
}

/// What a namespace holds. The numbers are read one after the other while writers run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NamespaceStats {
    /// Its name.
    pub name: String,
    /// Its id.
    pub id: u128,
    /// Keys in the indexes, with those that have expired and were not swept yet.
    pub keys: u64,
    /// Bytes of their records, headers and padding included. Damage of a record does not change
    /// this number until its key is written or deleted, and then may leave it too high until the
    /// store is opened again without an index file.
    pub live_bytes: u64,
    /// The limit set by [`Namespace::set_max_bytes`].
    pub max_bytes: Option<u64>,
}

impl NamespaceStats {
    pub(super) fn of(state: &NamespaceState) -> NamespaceStats {
        NamespaceStats {
            name: state.name().to_string(),
            id: state.stable_id,
            keys: state.order.len(),
            live_bytes: state.live_bytes(),
            max_bytes: state.max_bytes(),
        }
    }
}

impl Store {
    /// Opens the namespace of this name, creating it if there is none. Names are 1 to 2,048 bytes
    /// of UTF-8. A store that was opened for reading only creates none
    /// ([`Error::ReadOnly`]).
    pub fn namespace(&self, name: &str) -> Result<Namespace> {
        if let Some(found) = self.existing_namespace(name)? {
            return Ok(found);
        }
        match self.create_namespace(name) {
            Err(Error::NamespaceExists { .. }) => self.open_namespace(name),
            other => other,
        }
    }

    /// Opens an existing namespace; [`Error::NamespaceNotFound`] if there is none of this name.
    pub fn open_namespace(&self, name: &str) -> Result<Namespace> {
        self.existing_namespace(name)?
            .ok_or_else(|| Error::NamespaceNotFound { name: name.to_owned() })
    }

    /// Opens the namespace with this stable id, if there is one.
    pub fn namespace_by_id(&self, id: u128) -> Result<Option<Namespace>> {
        self.inner.context.check_open()?;
        let found = self.current().state.namespaces.by_stable_id(id);
        Ok(found.map(|state| self.handle(state)))
    }

    fn existing_namespace(&self, name: &str) -> Result<Option<Namespace>> {
        self.inner.context.check_open()?;
        let found = self.current().state.namespaces.by_name(name);
        Ok(found.map(|state| self.handle(state)))
    }

    /// Creates a namespace with a new random id; [`Error::NamespaceExists`] if the name is taken.
    /// Durable when it returns.
    pub fn create_namespace(&self, name: &str) -> Result<Namespace> {
        let id = u128::from_le_bytes(random_id(&*self.inner.context.storage));
        self.create_namespace_with_id(name, id)
    }

    /// Creates a namespace with the caller's id; [`Error::InvalidInput`] if the id is taken.
    /// Durable when it returns.
    pub fn create_namespace_with_id(&self, name: &str, id: u128) -> Result<Namespace> {
        let engine = self.writer()?;
        engine.context.check_open()?;
        check_name(name)?;
        let _changes = lock(&engine.namespace_changes);
        engine.context.check_open()?;
        if engine.state.namespaces.by_name(name).is_some() && !planted(Planted::AnyNameTwice) {
            return Err(Error::NamespaceExists { name: name.to_owned() });
        }
        if engine.state.namespaces.by_stable_id(id).is_some() {
            return Err(Error::invalid(format!(
                "the namespace id {id:032x} is in use; choose another"
            )));
        }
        // No other thread allocates numbers while `namespace_changes` is held. This one counts as
        // used once its record is written out, so a creation that fails before that uses none up.
        let number = engine.state.next_namespace();
        let next = number.checked_add(1).ok_or_else(|| {
            Error::invalid("the store has no namespace numbers left; copy what is needed into a new store")
        })?;
        let state = Arc::new(NamespaceState::new(number, id, name, KeyOrder::new()));
        engine.write_namespace(number, put(&encode_entry(id, name), None), |_| {
            engine.state.set_next_namespace(next);
        })?;
        engine.state.namespaces.insert(state.clone());
        Ok(Namespace::new(self.clone(), state))
    }

    /// Renames a namespace; handles on it stay valid. Durable when it returns. Its own name may be
    /// given again: then nothing is written.
    pub fn rename_namespace(&self, name: &str, new_name: &str) -> Result<()> {
        let engine = self.writer()?;
        engine.context.check_open()?;
        check_name(new_name)?;
        let _changes = lock(&engine.namespace_changes);
        let state = engine
            .state
            .namespaces
            .by_name(name)
            .ok_or_else(|| Error::NamespaceNotFound { name: name.to_owned() })?;
        if name == new_name {
            return Ok(());
        }
        if engine.state.namespaces.by_name(new_name).is_some() {
            return Err(Error::NamespaceExists {
                name: new_name.to_owned(),
            });
        }
        let value = encode_entry(state.stable_id, new_name);
        let settings = encode_settings(state.default_ttl_ms());
        engine.write_namespace(state.number, put(&value, settings.as_deref()), |_| ())?;
        engine.state.namespaces.rename(&state, new_name);
        Ok(())
    }

    /// Drops a namespace with all its keys, however many, in one step, atomic and durable when this
    /// returns. Memory and disk space are reclaimed in the background. Handles on the namespace get
    /// [`Error::NamespaceNotFound`].
    pub fn drop_namespace(&self, name: &str) -> Result<()> {
        let engine = self.writer()?;
        engine.context.check_open()?;
        let _changes = lock(&engine.namespace_changes);
        let state = engine
            .state
            .namespaces
            .by_name(name)
            .ok_or_else(|| Error::NamespaceNotFound { name: name.to_owned() })?;
        // Dropped as soon as the record is written out, although without the sync it may not
        // survive a power cut.
        let result = engine.write_namespace(state.number, Action::Delete, |sequence| {
            engine.state.set_dropped(&state, sequence)
        });
        if state.is_dropped() {
            engine.context.maintenance_wake.wake();
        }
        result
    }

    /// All namespaces, sorted by name.
    pub fn namespaces(&self) -> Result<Vec<NamespaceInfo>> {
        self.inner.context.check_open()?;
        let all = self.current().state.namespaces.all();
        Ok(all
            .iter()
            .map(|state| NamespaceInfo {
                name: state.name().to_string(),
                id: state.stable_id,
            })
            .collect())
    }

    /// What each namespace holds, sorted by name. Takes time linear in the number of namespaces,
    /// and merges what was queued for their key orders, as [`Namespace::stats`] does.
    pub fn namespace_stats(&self) -> Result<Vec<NamespaceStats>> {
        self.inner.context.check_open()?;
        let all = self.current().state.namespaces.all();
        Ok(all.iter().map(|state| NamespaceStats::of(state)).collect())
    }
}

impl Namespace {
    /// Lets keys of puts that name no lifetime expire after this time; `None` lets them stay. Keys
    /// that were put before do not change, and neither do those of
    /// [`PutOptions::forever`](crate::PutOptions::forever).
    ///
    /// Stored with the namespace, unlike [`Namespace::set_max_bytes`]: it holds for all handles
    /// from the next put on, through renames and restarts. Durable when it returns.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidInput`] for a lifetime that a put may not have, [`Error::NamespaceNotFound`]
    /// if the namespace was dropped, and those of [`Namespace::put`].
    pub fn set_default_ttl(&self, ttl: Option<Duration>) -> Result<()> {
        let engine = self.writer()?;
        self.check()?;
        let ttl_ms = match ttl {
            None => None,
            // Milliseconds, rounded up as those of a put are.
            Some(ttl) => Some(engine.context.options.limits.expiry_after(ttl, 0)?),
        };
        let _changes = lock(&engine.namespace_changes);
        self.check()?;
        let value = encode_entry(self.state.stable_id, &self.state.name());
        let settings = encode_settings(ttl_ms);
        engine.write_namespace(self.state.number, put(&value, settings.as_deref()), |_| {
            self.state.set_default_ttl_ms(ttl_ms);
        })
    }

    /// The lifetime of puts that name none, set by [`Namespace::set_default_ttl`].
    pub fn default_ttl(&self) -> Option<Duration> {
        // A handle of a store that only reads has no state of its own.
        self.with_state(NamespaceState::default_ttl_ms)
            .map(Duration::from_millis)
    }
}

fn put<'a>(value: &'a [u8], metadata: Option<&'a [u8]>) -> Action<'a> {
    Action::Put {
        value,
        metadata,
        expiry: None,
    }
}

fn check_name(name: &str) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid(
            "the name of the namespace is empty; a name has at least one byte",
        ));
    }
    if name.len() > NAME_LEN_MAX {
        return Err(Error::invalid(format!(
            "the namespace's name of {} bytes exceeds the limit of {NAME_LEN_MAX}; shorten it",
            name.len()
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use crate::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation};
    use crate::{ErrorKind, Maintenance, Store};

    fn open(storage: Arc<dyn crate::storage::Storage>) -> Store {
        Store::options()
            .maintenance(Maintenance::Manual)
            .storage(storage)
            .open("/store")
            .unwrap()
    }

    /// C7
    #[test]
    fn a_namespace_that_could_not_be_created_takes_no_number() {
        let disk = Arc::new(MemStorage::new());
        let faults = FaultStorage::new(disk.clone());
        let store = open(Arc::new(faults.clone()));
        store.create_namespace("first").unwrap();
        let next = || store.engine().state.next_namespace();
        assert_eq!(next(), 2);
        faults.inject(
            Fault::new(FaultKind::Error(std::io::ErrorKind::StorageFull))
                .on(Operation::Write)
                .repeated(),
        );
        for _ in 0..10 {
            let refused = store.create_namespace("refused").unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::NoSpace);
        }
        assert_eq!(next(), 2);
        faults.clear();
        // Once it is in the log the number is used up, although the namespace may not be relied on.
        faults.inject(Fault::new(FaultKind::FailedSync).on(Operation::Sync));
        assert_eq!(store.create_namespace("unsure").unwrap_err().kind(), ErrorKind::Io);
        assert_eq!(next(), 3);
        drop(store);
        let store = open(disk);
        let namespace = store.create_namespace("another").unwrap();
        // The process has not ended, so the record is there.
        let unsure = store.open_namespace("unsure").unwrap();
        assert_eq!((unsure.state.number, namespace.state.number), (2, 3));
    }

    #[test]
    fn neither_creating_a_namespace_nor_looking_after_some_goes_through_all_of_them() {
        let store = open(Arc::new(MemStorage::new()));
        for number in 0..100 {
            store.namespace(&format!("namespace {number}")).unwrap();
        }
        let engine = store.engine();
        let walks = engine.state.namespaces.walks();
        let namespace = store.create_namespace_with_id("another", 7).unwrap();
        let refused = store.create_namespace_with_id("the same id", 7).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidInput);
        namespace.put("key", "value").unwrap();
        engine.housekeeping.merge_due_orders();
        engine.housekeeping.sweep_expired();
        store.maintain().unwrap();
        store.compact().unwrap();
        store.drop_namespace("another").unwrap();
        engine.housekeeping.empty_dropped_namespaces().unwrap();
        assert_eq!(engine.state.namespaces.walks(), walks);
    }
}
