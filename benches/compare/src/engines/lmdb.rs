//! LMDB through heed.
//!
//! Settings: class `os` uses `NO_SYNC` and `WRITE_MAP`, its fastest: a commit changes pages of a
//! shared map, which survive the process, without a system call. Class `sync` uses neither: with
//! `WRITE_MAP` each commit would write whole pages through the map, and protection against stray
//! writes is lost, so the default is kept. `NO_MEM_INIT` in both, since nothing is secret, and
//! `NO_READ_AHEAD` in neither, since the data fit in memory. The map size is 64 GiB, which costs
//! only address space.
//!
//! Each get opens its own read transaction, as it must to see every earlier write; a get of many
//! keys, a list and a walk open one each. LMDB has no in-place compaction: freed pages are reused.
//! One write transaction runs at a time, so none meets a conflict. A snapshot is a read
//! transaction.

use crate::durability::Durability;
use crate::{data::Key, engine::*};
use anyhow::{Context, Result};
use heed::types::Bytes;
use heed::{CommitOrAbort, Database, Env, EnvFlags, EnvOpenOptions, RoTxn, WithTls};
use std::path::Path;

pub const DESCRIPTION: Description = Description {
    name: "lmdb",
    package: Some("heed"),
    library: Some(library),
    is_yardstick: false,
    settings,
    lacks: &[
        (Need::CompactionInUse, "no compaction: freed pages are used again"),
        (Need::Metadata, "no metadata"),
        (Need::Expiry, "no expiry of single keys"),
    ],
    open: |directory, durability| Ok(Box::new(open(directory, durability)?)),
    open_transactional: Some(|directory, durability| Ok(Box::new(open(directory, durability)?))),
};

fn library() -> String {
    let version = heed::lmdb_version();
    format!("LMDB {}.{}.{}", version.major, version.minor, version.patch)
}

fn settings(durability: Durability) -> String {
    match durability {
        Durability::Os => "NOSYNC, WRITEMAP, NOMEMINIT; map 64 GiB".into(),
        Durability::Sync => "NOMEMINIT, synchronous commits; map 64 GiB".into(),
    }
}

struct Lmdb {
    environment: Env,
    database: Database<'static, Bytes, Bytes>,
}

fn open(directory: &Path, durability: Durability) -> Result<Lmdb> {
    let mut flags = EnvFlags::NO_MEM_INIT;
    if durability == Durability::Os {
        flags |= EnvFlags::NO_SYNC | EnvFlags::WRITE_MAP;
    }
    let mut options = EnvOpenOptions::new();
    options.map_size(64 << 30);
    // SAFETY: the directory belongs to this run, so no other process changes the file under the
    // map, and no pointer is written through.
    let environment = unsafe { options.flags(flags).open(directory) }.context("open the environment")?;
    let transaction = environment.write_txn()?;
    let database = environment
        .create_databases_and_commit(transaction, |opener, transaction| {
            opener
                .create_database::<Bytes, Bytes>(transaction, None)
                .map(CommitOrAbort::<_, ()>::Commit)
        })?
        .unwrap_commit();
    Ok(Lmdb { environment, database })
}

impl Engine for Lmdb {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let mut transaction = self.environment.write_txn()?;
        self.database.put(&mut transaction, key, value)?;
        Ok(transaction.commit()?)
    }

    fn put_batch(&self, entries: &[Entry]) -> Result<()> {
        let mut transaction = self.environment.write_txn()?;
        for (key, value) in entries {
            self.database.put(&mut transaction, key, value)?;
        }
        Ok(transaction.commit()?)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        let mut transaction = self.environment.write_txn()?;
        self.database.delete(&mut transaction, key)?;
        Ok(transaction.commit()?)
    }

    fn get(&self, key: &[u8], check: Check) -> Result<()> {
        let transaction = self.environment.read_txn()?;
        check(self.database.get(&transaction, key)?)
    }

    fn get_many(&self, keys: &[Key], check: CheckMany) -> Result<()> {
        let transaction = self.environment.read_txn()?;
        for (index, key) in keys.iter().enumerate() {
            check(index, self.database.get(&transaction, key)?)?;
        }
        Ok(())
    }

    fn list_prefix(&self, prefix: &[u8], visit: VisitKey) -> Result<()> {
        let transaction = self.environment.read_txn()?;
        for entry in self.database.prefix_iter(&transaction, prefix)? {
            visit(entry?.0)?;
        }
        Ok(())
    }

    fn scan(&self, start: &[u8], count: usize, visit: VisitEntry) -> Result<()> {
        let transaction = self.environment.read_txn()?;
        let range = (std::ops::Bound::Included(start), std::ops::Bound::Unbounded);
        for entry in self.database.range(&transaction, &range)?.take(count) {
            let (key, value) = entry?;
            visit(key, value)?;
        }
        Ok(())
    }

    fn walk(&self, visit: VisitKey) -> Result<()> {
        let transaction = self.environment.read_txn()?;
        for entry in self.database.iter(&transaction)? {
            visit(entry?.0)?;
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(self.environment.force_sync()?)
    }

    fn settle(&self) -> Result<()> {
        Ok(())
    }

    fn compact(&self) -> Result<()> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.environment.prepare_for_closing().wait();
        Ok(())
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        Ok(Box::new(Moment {
            transaction: self.environment.read_txn()?,
            database: self.database,
        }))
    }
}

struct Moment<'a> {
    transaction: RoTxn<'a, WithTls>,
    database: Database<'static, Bytes, Bytes>,
}

impl Snapshot for Moment<'_> {
    fn get(&self, key: &[u8], check: Check) -> Result<()> {
        check(self.database.get(&self.transaction, key)?)
    }
}

impl Transactional for Lmdb {
    fn get(&self, key: &[u8], check: Check) -> Result<()> {
        Engine::get(self, key, check)
    }

    fn transact(&self, keys: [&[u8]; 2], change: Change) -> Result<u64> {
        let mut transaction = self.environment.write_txn()?;
        let first = self.database.get(&transaction, keys[0])?;
        let second = self.database.get(&transaction, keys[1])?;
        let [first, second] = changed([first, second], change)?;
        self.database.put(&mut transaction, keys[0], &first)?;
        self.database.put(&mut transaction, keys[1], &second)?;
        transaction.commit()?;
        Ok(1)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Engine::close(self)
    }
}
