//! candystore.
//!
//! Settings: defaults, except for checkpoints and compaction. The default checkpoint every 128 KiB
//! written would sync all the time in a class that requires no syncs, so there is one every 64 MiB,
//! or after 5 seconds as by default. Background compaction is not limited to 4 MiB/s, so that it
//! keeps up with the load. The index grows with the keys.
//!
//! A commit that waits for the device is a checkpoint; class `sync` makes one after each write.
//! There is no order of keys and no commit of several keys; getting many keys is a loop of gets.

use crate::durability::Durability;
use crate::{data::Key, engine::*};
use anyhow::{Context, Result, bail};
use candystore::{CandyStore, Config};
use std::path::Path;

pub const DESCRIPTION: Description = Description {
    name: "candystore",
    package: Some("candystore"),
    library: None,
    is_yardstick: false,
    settings,
    lacks: &[
        (Need::Batches, "no commits of several keys"),
        (Need::Order, "no order of keys"),
        (Need::Metadata, "no metadata"),
        (Need::Expiry, "no expiry of single keys"),
        (Need::Transactions, "no transactions"),
        (Need::Snapshots, "no snapshots"),
    ],
    open,
    open_transactional: None,
};

fn settings(durability: Durability) -> String {
    match durability {
        Durability::Os => "checkpoints every 64 MiB or 5 s, compaction at up to 256 MiB/s in the background".into(),
        Durability::Sync => "a checkpoint at each commit, compaction at up to 256 MiB/s in the background".into(),
    }
}

struct Candystore {
    store: CandyStore,
    durability: Durability,
}

fn open(directory: &Path, durability: Durability) -> Result<Box<dyn Engine>> {
    let config = Config {
        checkpoint_delta_bytes: Some(64 << 20),
        compaction_throughput_bytes_per_sec: 256 << 20,
        ..Config::default()
    };
    let store = CandyStore::open(directory, config).context("open the store")?;
    Ok(Box::new(Candystore { store, durability }))
}

impl Candystore {
    fn commit(&self) -> Result<()> {
        match self.durability {
            Durability::Os => Ok(()),
            Durability::Sync => self.sync(),
        }
    }
}

impl Engine for Candystore {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.store.set(key, value)?;
        self.commit()
    }

    /// Only for loading: not a commit of several keys, but a single wait for the device.
    fn put_batch(&self, entries: &[Entry]) -> Result<()> {
        for (key, value) in entries {
            self.store.set(key, value)?;
        }
        self.commit()
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.store.remove(key)?;
        self.commit()
    }

    fn get(&self, key: &[u8], check: Check) -> Result<()> {
        check(self.store.get(key)?.as_deref())
    }

    fn get_many(&self, keys: &[Key], check: CheckMany) -> Result<()> {
        for (index, key) in keys.iter().enumerate() {
            check(index, self.store.get(key)?.as_deref())?;
        }
        Ok(())
    }

    fn list_prefix(&self, _prefix: &[u8], _visit: VisitKey) -> Result<()> {
        bail!("candystore has no order of keys")
    }

    fn scan(&self, _start: &[u8], _count: usize, _visit: VisitEntry) -> Result<()> {
        bail!("candystore has no order of keys")
    }

    fn walk(&self, visit: VisitKey) -> Result<()> {
        for entry in self.store.iter_items() {
            visit(&entry?.0)?;
        }
        Ok(())
    }

    fn sync(&self) -> Result<()> {
        Ok(self.store.checkpoint()?)
    }

    fn settle(&self) -> Result<()> {
        self.sync()
    }

    /// It compacts only in the background, concurrently with reads and writes; requesting
    /// checkpoints here would only slow it down.
    fn compact(&self) -> Result<()> {
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.sync()
    }
}
