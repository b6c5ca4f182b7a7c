//! fjall.
//!
//! Settings: defaults, with which each write reaches the system's page cache before it returns; a
//! cache that fits all data; no compression, since the values are incompressible; as many workers
//! as cores. Class `sync` persists with `PersistMode::SyncData` at each commit.
//!
//! Transactions are those of its `OptimisticTxDatabase`, which are serializable and fail on a
//! conflict; each commit has the durability that single writes have.

use crate::durability::Durability;
use crate::{data::Key, engine::*};
use anyhow::{Context, Result, bail};
use fjall::config::CompressionPolicy;
use fjall::{
    CompressionType, Database, Keyspace, KeyspaceCreateOptions, OptimisticTxDatabase, OptimisticTxKeyspace,
    PersistMode, Readable,
};
use std::path::Path;

const KEYSPACE: &str = "compare";

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
    open_transactional: Some(open_transactional),
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
    let keyspace = database.keyspace(KEYSPACE, keyspace_options)?;
    Ok(Box::new(Fjall {
        database,
        keyspace,
        persist: persist(durability),
    }))
}

fn keyspace_options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .data_block_compression_policy(CompressionPolicy::all(CompressionType::None))
        .index_block_compression_policy(CompressionPolicy::all(CompressionType::None))
}

fn persist(durability: Durability) -> PersistMode {
    match durability {
        Durability::Os => PersistMode::Buffer,
        Durability::Sync => PersistMode::SyncData,
    }
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

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        Ok(Box::new(Moment {
            snapshot: self.database.snapshot(),
            keyspace: &self.keyspace,
        }))
    }
}

struct Moment<'a> {
    snapshot: fjall::Snapshot,
    keyspace: &'a Keyspace,
}

impl Snapshot for Moment<'_> {
    fn get(&self, key: &[u8], check: Check) -> Result<()> {
        check(self.snapshot.get(self.keyspace, key)?.as_deref())
    }
}

struct Optimistic {
    database: OptimisticTxDatabase,
    keyspace: OptimisticTxKeyspace,
    persist: PersistMode,
}

fn open_transactional(directory: &Path, durability: Durability) -> Result<Box<dyn Transactional>> {
    let database = OptimisticTxDatabase::builder(directory)
        .cache_size(CACHE_BYTES as u64)
        .open()
        .context("open the database")?;
    let keyspace = database.keyspace(KEYSPACE, keyspace_options)?;
    Ok(Box::new(Optimistic {
        database,
        keyspace,
        persist: persist(durability),
    }))
}

impl Transactional for Optimistic {
    fn get(&self, key: &[u8], check: Check) -> Result<()> {
        check(self.keyspace.get(key)?.as_deref())
    }

    fn transact(&self, keys: [&[u8]; 2], change: Change) -> Result<u64> {
        for attempt in 1.. {
            let mut transaction = self.database.write_tx()?.durability(Some(self.persist));
            let first = transaction.get(&self.keyspace, keys[0])?;
            let second = transaction.get(&self.keyspace, keys[1])?;
            let [first, second] = changed([first.as_deref(), second.as_deref()], change)?;
            transaction.insert(&self.keyspace, keys[0], first);
            transaction.insert(&self.keyspace, keys[1], second);
            if transaction.commit()?.is_ok() {
                return Ok(attempt);
            }
        }
        bail!("a transaction met no end of conflicts")
    }

    fn close(self: Box<Self>) -> Result<()> {
        Ok(self.database.persist(PersistMode::SyncAll)?)
    }
}
