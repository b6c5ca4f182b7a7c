//! Yardsticks: the maps of the standard library, for what memory alone can do.
//!
//! `HashMap<Vec<u8>, Vec<u8>>` and `BTreeMap<Vec<u8>, Vec<u8>>` behind one reader-writer lock, so
//! that several threads can use them.

use crate::durability::Durability;
use crate::{data::Key, engine::*};
use anyhow::{Result, bail};
use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

pub const HASH_MAP: Description = Description {
    name: "hash-map",
    package: None,
    library: None,
    is_yardstick: true,
    settings: hash_map_settings,
    lacks: &[
        (Need::Order, "no order of keys"),
        (Need::Files, "no files"),
        (Need::SyncCommits, "no files"),
        (Need::CompactionInUse, "nothing to compact"),
        (Need::Metadata, "no metadata"),
        (Need::Expiry, "no expiry"),
        (Need::Transactions, "no transactions"),
        (Need::Snapshots, "no snapshots"),
    ],
    open: |_, _| Ok(Box::new(Locked::<Hashed>::default())),
    open_transactional: None,
};

pub const BTREE_MAP: Description = Description {
    name: "btree-map",
    settings: btree_map_settings,
    lacks: &[
        (Need::Files, "no files"),
        (Need::SyncCommits, "no files"),
        (Need::CompactionInUse, "nothing to compact"),
        (Need::Metadata, "no metadata"),
        (Need::Expiry, "no expiry"),
        (Need::Transactions, "no transactions"),
        (Need::Snapshots, "no snapshots"),
    ],
    open: open_btree_map,
    ..HASH_MAP
};

fn hash_map_settings(_: Durability) -> String {
    "HashMap<Vec<u8>, Vec<u8>> behind a RwLock; nothing is durable".into()
}

fn btree_map_settings(_: Durability) -> String {
    "BTreeMap<Vec<u8>, Vec<u8>> behind a RwLock; nothing is durable".into()
}

fn open_btree_map(_: &Path, _: Durability) -> Result<Box<dyn Engine>> {
    Ok(Box::new(Locked::<Sorted>::default()))
}

type Hashed = HashMap<Vec<u8>, Vec<u8>>;
type Sorted = BTreeMap<Vec<u8>, Vec<u8>>;

type Entries<'a> = Box<dyn Iterator<Item = (&'a Vec<u8>, &'a Vec<u8>)> + 'a>;

/// The operations that both maps support.
trait Map: Default + Send + Sync + 'static {
    fn insert(&mut self, key: Vec<u8>, value: Vec<u8>);
    fn remove(&mut self, key: &[u8]);
    fn get(&self, key: &[u8]) -> Option<&[u8]>;
    fn entries(&self, start: &[u8]) -> Result<Entries<'_>>;
    fn keys(&self) -> Box<dyn Iterator<Item = &Vec<u8>> + '_>;
}

impl Map for Hashed {
    fn insert(&mut self, key: Vec<u8>, value: Vec<u8>) {
        HashMap::insert(self, key, value);
    }

    fn remove(&mut self, key: &[u8]) {
        HashMap::remove(self, key);
    }

    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        HashMap::get(self, key).map(Vec::as_slice)
    }

    fn entries(&self, _start: &[u8]) -> Result<Entries<'_>> {
        bail!("a hash map has no order of keys")
    }

    fn keys(&self) -> Box<dyn Iterator<Item = &Vec<u8>> + '_> {
        Box::new(HashMap::keys(self))
    }
}

impl Map for Sorted {
    fn insert(&mut self, key: Vec<u8>, value: Vec<u8>) {
        BTreeMap::insert(self, key, value);
    }

    fn remove(&mut self, key: &[u8]) {
        BTreeMap::remove(self, key);
    }

    fn get(&self, key: &[u8]) -> Option<&[u8]> {
        BTreeMap::get(self, key).map(Vec::as_slice)
    }

    fn entries(&self, start: &[u8]) -> Result<Entries<'_>> {
        Ok(Box::new(
            self.range::<[u8], _>((Bound::Included(start), Bound::Unbounded)),
        ))
    }

    fn keys(&self) -> Box<dyn Iterator<Item = &Vec<u8>> + '_> {
        Box::new(BTreeMap::keys(self))
    }
}

#[derive(Default)]
struct Locked<M> {
    map: RwLock<M>,
}

impl<M> Locked<M> {
    fn read(&self) -> RwLockReadGuard<'_, M> {
        self.map.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, M> {
        self.map.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<M: Map> Engine for Locked<M> {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write().insert(key.to_vec(), value.to_vec());
        Ok(())
    }

    fn put_batch(&self, entries: &[Entry]) -> Result<()> {
        let mut map = self.write();
        entries
            .iter()
            .for_each(|(key, value)| map.insert(key.to_vec(), value.clone()));
        Ok(())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.write().remove(key);
        Ok(())
    }

    fn get(&self, key: &[u8], check: Check) -> Result<()> {
        check(self.read().get(key))
    }

    fn get_many(&self, keys: &[Key], check: CheckMany) -> Result<()> {
        let map = self.read();
        keys.iter()
            .enumerate()
            .try_for_each(|(index, key)| check(index, map.get(key)))
    }

    fn list_prefix(&self, prefix: &[u8], visit: VisitKey) -> Result<()> {
        let map = self.read();
        map.entries(prefix)?
            .map(|(key, _)| key)
            .take_while(|key| key.starts_with(prefix))
            .try_for_each(|key| visit(key))
    }

    fn scan(&self, start: &[u8], count: usize, visit: VisitEntry) -> Result<()> {
        let map = self.read();
        map.entries(start)?
            .take(count)
            .try_for_each(|(key, value)| visit(key, value))
    }

    fn walk(&self, visit: VisitKey) -> Result<()> {
        self.read().keys().try_for_each(|key| visit(key))
    }

    fn sync(&self) -> Result<()> {
        Ok(())
    }

    fn settle(&self) -> Result<()> {
        Ok(())
    }

    fn compact(&self) -> Result<()> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(())
    }
}
