//! fjall.
//!
//! Settings: defaults, with which each write reaches the system's page cache before it returns; a
//! cache that fits all data; no compression, since the values are incompressible; as many workers
//! as cores. Class `sync` persists with `PersistMode::SyncData` at each commit.

use crate::durability::Durability;
use crate::{data::Key, engine::*};
use anyhow::{Context, Result};
use fjall::{CompressionType, Database, Keyspace, KeyspaceCreateOptions, PersistMode, config::CompressionPolicy};
use std::path::Path;

pub const DESCRIPTION: Description = Description {
    name: "fjall",
    package: Some("fjall"),
    library: None,
    is_yardstick: false,
    settings,
    lacks: &[
        (Need::Metadata, "no metadata"),
        (Need::Expiry, "no expiry of single keys"),
    ],
    open,
};

fn settings(durability: Durability) -> String {
    let persist = match durability {
        Durability::Os => "journal without sync",
        Durability::Sync => "PersistMode::SyncData at each commit",
    };
    format!("{persist}; cache 512 MiB, no compression, else defaults")
}

struct Fjall {
    database: Database,
    keyspace: Keyspace,
    persist: PersistMode,
}

fn open(directory: &Path, durability: Durability) -> Result<Box<dyn Engine>> {
    let database = Database::builder(directory)
        .cache_size(CACHE_BYTES as u64)
        .open()
        .context("open the database")?;
    let keyspace = database.keyspace("compare", || {
        KeyspaceCreateOptions::default()
            .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
            .index_block_compression_policy(CompressionPolicy::all(CompressionType::None))
    })?;
    let persist = match durability {
        Durability::Os => PersistMode::Buffer,
        Durability::Sync => PersistMode::SyncData,
    };
    Ok(Box::new(Fjall {
        database,
        keyspace,
        persist,
    }))
}

impl Fjall {
    /// Without a sync there is nothing to do: a single write has already reached the page cache.
    fn persist_single(&self) -> Result<()> {
        match self.persist {
            PersistMode::Buffer => Ok(()),
            mode => Ok(self.database.persist(mode)?),
        }
    }
}

impl Engine for Fjall {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.keyspace.insert(key, value)?;
        self.persist_single()
    }

    fn put_batch(&self, entries: &[Entry]) -> Result<()> {
        let mut batch = self.database.batch().durability(Some(self.persist));
        for (key, value) in entries {
            batch.insert(&self.keyspace, &**key, value.as_slice());
        }
        Ok(batch.commit()?)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.keyspace.remove(key)?;
        self.persist_single()
    }

    fn get(&self, key: &[u8], check: Check) -> Result<()> {
        check(self.keyspace.get(key)?.as_deref())
    }

    fn get_many(&self, keys: &[Key], check: CheckMany) -> Result<()> {
        for (index, key) in keys.iter().enumerate() {
            check(index, self.keyspace.get(key)?.as_deref())?;
        }
        Ok(())
    }

    fn list_prefix(&self, prefix: &[u8], visit: VisitKey) -> Result<()> {
        self.keyspace.prefix(prefix).try_for_each(|entry| visit(&entry.key()?))
    }

    fn scan(&self, start: &[u8], count: usize, visit: VisitEntry) -> Result<()> {
        self.keyspace.range(start..).take(count).try_for_each(|entry| {
            let (key, value) = entry.into_inner()?;
            visit(&key, &value)
        })
    }

    fn walk(&self, visit: VisitKey) -> Result<()> {
        self.keyspace.iter().try_for_each(|entry| visit(&entry.key()?))
    }

    fn sync(&self) -> Result<()> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }

    fn settle(&self) -> Result<()> {
        self.compact()
    }

    fn compact(&self) -> Result<()> {
        self.keyspace.rotate_memtable_and_wait()?;
        Ok(self.keyspace.major_compact()?)
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.sync()
    }
}
