//! RocksDB through rust-rocksdb.
//!
//! Settings: those of its wiki's "Setup Options and Basic Tuning" (dynamic level sizes, as many
//! background jobs as cores, `bytes_per_sync` of 1 MiB, compaction by smallest overlap, blocks of
//! 16 KiB, Bloom filters of 10 bits per key, index and filters in the cache, those of level 0
//! pinned), with a cache that fits all data and write buffers of 64 MiB. Two departures, both in
//! its favour: no compression, since the values are incompressible, and hash indexes in data
//! blocks, which speed up point look-ups.
//!
//! Class `os`: every write is one unsynced write to the write-ahead log. Class `sync`: the log is
//! synced at each commit; concurrent writers share a sync.
//!
//! Transactions are those of its `OptimisticTransactionDB`, with `GetForUpdate` for both keys, and
//! the same options.

use crate::durability::Durability;
use crate::{data::Key, engine::*};
use anyhow::{Context, Result, bail};
use rocksdb::{
    BlockBasedOptions, Cache, CompactionPri, DB, DBCompressionType, DBRawIterator, DataBlockIndexType, ErrorKind,
    OptimisticTransactionDB, OptimisticTransactionOptions, Options, ReadOptions, WriteBatch, WriteOptions,
};
use std::path::Path;

const FAMILY: &str = "default";

pub const DESCRIPTION: Description = Description {
    name: "rocksdb",
    package: Some("rocksdb"),
    library: Some(library),
    is_yardstick: false,
    settings,
    lacks: &[
        (Need::Metadata, "no metadata"),
        (Need::Expiry, "no expiry of single keys"),
    ],
    open,
    open_transactional: Some(open_transactional),
};

/// The package with RocksDB's source appends RocksDB's version to its own.
fn library() -> String {
    let version = crate::versions::of_package("librocksdb-sys");
    format!("RocksDB {}", version.rsplit('+').next().unwrap_or_default())
}

fn settings(durability: Durability) -> String {
    let sync = match durability {
        Durability::Os => "write-ahead log without sync",
        Durability::Sync => "write-ahead log with sync",
    };
    format!(
        "{sync}; block cache 512 MiB, blocks 16 KiB with hash index, Bloom filters 10 bits a key, write buffers 64 MiB, \
         dynamic level sizes, background jobs as cores, bytes_per_sync 1 MiB, no compression"
    )
}

struct RocksDb {
    database: DB,
    write_options: WriteOptions,
}

fn open(directory: &Path, durability: Durability) -> Result<Box<dyn Engine>> {
    let options = options();
    // Named, though it is the only one, because the batched get takes a column family.
    let families = [(FAMILY, options.clone())];
    let database = DB::open_cf_with_opts(&options, directory, families).context("open the database")?;
    let mut write_options = WriteOptions::default();
    write_options.set_sync(durability == Durability::Sync);
    Ok(Box::new(RocksDb {
        database,
        write_options,
    }))
}

fn options() -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
    table.set_block_size(16 << 10);
    table.set_bloom_filter(10.0, false);
    table.set_cache_index_and_filter_blocks(true);
    table.set_pin_l0_filter_and_index_blocks_in_cache(true);
    table.set_data_block_index_type(DataBlockIndexType::BinaryAndHash);
    let cores = std::thread::available_parallelism().map_or(2, |cores| cores.get() as i32);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&table);
    options.increase_parallelism(cores);
    options.set_max_background_jobs(cores.max(2));
    options.set_level_compaction_dynamic_level_bytes(true);
    options.set_bytes_per_sync(1 << 20);
    options.set_compaction_pri(CompactionPri::MinOverlappingRatio);
    options.set_compression_type(DBCompressionType::None);
    options
}

impl Engine for RocksDb {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        Ok(self.database.put_opt(key, value, &self.write_options)?)
    }

    fn put_batch(&self, entries: &[Entry]) -> Result<()> {
        let mut batch = WriteBatch::default();
        for (key, value) in entries {
            batch.put(key, value);
        }
        Ok(self.database.write_opt(batch, &self.write_options)?)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        Ok(self.database.delete_opt(key, &self.write_options)?)
    }

    fn get(&self, key: &[u8], check: Check) -> Result<()> {
        check(self.database.get_pinned(key)?.as_deref())
    }

    fn get_many(&self, keys: &[Key], check: CheckMany) -> Result<()> {
        let family = self.database.cf_handle(FAMILY).context("the default column family")?;
        let keys = keys.iter().map(|key| -> &[u8] { key });
        let values = self.database.batched_multi_get_cf(&family, keys, false);
        for (index, value) in values.into_iter().enumerate() {
            check(index, value?.as_deref())?;
        }
        Ok(())
    }

    fn list_prefix(&self, prefix: &[u8], visit: VisitKey) -> Result<()> {
        let mut iterator = self.database.raw_iterator();
        iterator.seek(prefix);
        each_entry(iterator, usize::MAX, &mut |key, _| {
            if !key.starts_with(prefix) {
                return Ok(false);
            }
            visit(key).map(|()| true)
        })
    }

    fn scan(&self, start: &[u8], count: usize, visit: VisitEntry) -> Result<()> {
        let mut iterator = self.database.raw_iterator();
        iterator.seek(start);
        each_entry(iterator, count, &mut |key, value| visit(key, value).map(|()| true))
    }

    fn walk(&self, visit: VisitKey) -> Result<()> {
        let mut options = ReadOptions::default();
        options.set_readahead_size(2 << 20);
        let mut iterator = self.database.raw_iterator_opt(options);
        iterator.seek_to_first();
        each_entry(iterator, usize::MAX, &mut |key, _| visit(key).map(|()| true))
    }

    fn sync(&self) -> Result<()> {
        Ok(self.database.flush_wal(true)?)
    }

    fn settle(&self) -> Result<()> {
        self.compact()
    }

    /// RocksDB flushes the memtable first by itself.
    fn compact(&self) -> Result<()> {
        self.database.compact_range(None::<&[u8]>, None::<&[u8]>);
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.database.cancel_all_background_work(true);
        Ok(())
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        Ok(Box::new(Moment {
            snapshot: self.database.snapshot(),
        }))
    }
}

struct Moment<'a> {
    snapshot: rocksdb::Snapshot<'a>,
}

impl Snapshot for Moment<'_> {
    fn get(&self, key: &[u8], check: Check) -> Result<()> {
        check(self.snapshot.get_pinned(key)?.as_deref())
    }
}

struct Optimistic {
    database: OptimisticTransactionDB,
    write_options: WriteOptions,
}

fn open_transactional(directory: &Path, durability: Durability) -> Result<Box<dyn Transactional>> {
    let database = OptimisticTransactionDB::open(&options(), directory).context("open the database")?;
    let mut write_options = WriteOptions::default();
    write_options.set_sync(durability == Durability::Sync);
    Ok(Box::new(Optimistic {
        database,
        write_options,
    }))
}

impl Transactional for Optimistic {
    fn get(&self, key: &[u8], check: Check) -> Result<()> {
        check(self.database.get_pinned(key)?.as_deref())
    }

    fn transact(&self, keys: [&[u8]; 2], change: Change) -> Result<u64> {
        let options = OptimisticTransactionOptions::default();
        for attempt in 1.. {
            let transaction = self.database.transaction_opt(&self.write_options, &options);
            let values = {
                let first = transaction.get_pinned_for_update(keys[0], true)?;
                let second = transaction.get_pinned_for_update(keys[1], true)?;
                changed([first.as_deref(), second.as_deref()], change)?
            };
            transaction.put(keys[0], &values[0])?;
            transaction.put(keys[1], &values[1])?;
            match transaction.commit() {
                Ok(()) => return Ok(attempt),
                Err(error) if matches!(error.kind(), ErrorKind::Busy | ErrorKind::TryAgain) => {}
                Err(error) => return Err(error.into()),
            }
        }
        bail!("a transaction met no end of conflicts")
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.database.cancel_all_background_work(true);
        Ok(())
    }
}

/// Receives an entry and returns whether to continue.
type VisitUntil<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<bool>;

/// Visits entries from the iterator's position, without copying them, until the visitor stops.
fn each_entry(mut iterator: DBRawIterator, count: usize, visit: VisitUntil) -> Result<()> {
    for _ in 0..count {
        let Some((key, value)) = iterator.item() else { break };
        if !visit(key, value)? {
            break;
        }
        iterator.next();
    }
    Ok(iterator.status()?)
}
