//! embercask, from this repository.
//!
//! Settings: defaults, except for the durability: `Durability::Os` in class `os`, where a put
//! returns once it is written to the page cache, and `Durability::Sync` in class `sync`. It has no
//! own cache: values are read through maps of its files. All keys are in one namespace.

use crate::durability::Durability;
use crate::{data::Key, engine::*};
use anyhow::{Context, Result};
use embercask::{Namespace, PutOptions, Store, TransactionOptions};
use std::path::Path;

/// Keys per page of a walk.
const PAGE_KEYS: usize = 10_000;

pub const DESCRIPTION: Description = Description {
    name: "embercask",
    package: Some("embercask"),
    library: None,
    is_yardstick: false,
    settings,
    lacks: &[],
    open: |directory, durability| Ok(Box::new(open(directory, durability)?)),
    open_transactional: Some(|directory, durability| Ok(Box::new(open(directory, durability)?))),
};

fn settings(durability: Durability) -> String {
    match durability {
        Durability::Os => "defaults, Durability::Os".into(),
        Durability::Sync => "defaults, Durability::Sync".into(),
    }
}

struct Embercask {
    store: Store,
    namespace: Namespace,
}

fn open(directory: &Path, durability: Durability) -> Result<Embercask> {
    let class = match durability {
        Durability::Os => embercask::Durability::Os,
        Durability::Sync => embercask::Durability::Sync,
    };
    let store = Store::options()
        .durability(class)
        .open(directory)
        .context("open the store")?;
    let namespace = store.namespace("COMPARE")?;
    Ok(Embercask { store, namespace })
}

impl Engine for Embercask {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.namespace.put(key, value)?;
        Ok(())
    }

    fn put_batch(&self, entries: &[Entry]) -> Result<()> {
        let mut batch = self.store.batch();
        for (key, value) in entries {
            batch.put(&self.namespace, key, value);
        }
        batch.commit()?;
        Ok(())
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.namespace.delete(key)?;
        Ok(())
    }

    fn get(&self, key: &[u8], check: Check) -> Result<()> {
        check(self.namespace.get(key)?.as_deref())
    }

    fn get_many(&self, keys: &[Key], check: CheckMany) -> Result<()> {
        let values = self.namespace.get_many(keys)?;
        values
            .iter()
            .enumerate()
            .try_for_each(|(index, value)| check(index, value.as_deref()))
    }

    fn list_prefix(&self, prefix: &[u8], visit: VisitKey) -> Result<()> {
        self.list_pages(prefix, false, &mut |key, _| visit(key))
    }

    fn scan(&self, start: &[u8], count: usize, visit: VisitEntry) -> Result<()> {
        let page = self
            .namespace
            .list()
            .start(start)
            .page_size(count)
            .with_values()
            .page()?;
        for entry in page.iter() {
            visit(entry.key(), entry.value().context("a listing with values has none")?)?;
        }
        Ok(())
    }

    fn walk(&self, visit: VisitKey) -> Result<()> {
        self.list_pages(&[], false, &mut |key, _| visit(key))
    }

    fn sync(&self) -> Result<()> {
        Ok(self.store.sync()?)
    }

    fn settle(&self) -> Result<()> {
        Ok(self.store.maintain()?)
    }

    fn compact(&self) -> Result<()> {
        self.store.compact()?;
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        drop(self.namespace);
        Ok(self.store.close()?)
    }

    fn put_with_metadata(&self, key: &[u8], value: &[u8], metadata: &[u8]) -> Result<()> {
        self.namespace
            .put_with(key, value, PutOptions::new().metadata(metadata))?;
        Ok(())
    }

    fn list_metadata(&self, prefix: &[u8], visit: VisitEntry) -> Result<()> {
        self.list_pages(prefix, true, visit)
    }

    fn put_until(&self, key: &[u8], value: &[u8], milliseconds: u64) -> Result<()> {
        self.namespace
            .put_with(key, value, PutOptions::new().expires_at_ms(milliseconds))?;
        Ok(())
    }

    fn count(&self) -> Result<u64> {
        Ok(self.namespace.count()?)
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        Ok(Box::new(Moment {
            snapshot: self.store.snapshot()?,
            namespace: &self.namespace,
        }))
    }
}

struct Moment<'a> {
    snapshot: embercask::Snapshot,
    namespace: &'a Namespace,
}

impl Snapshot for Moment<'_> {
    fn get(&self, key: &[u8], check: Check) -> Result<()> {
        check(self.snapshot.get(self.namespace, key)?.as_deref())
    }
}

impl Transactional for Embercask {
    fn get(&self, key: &[u8], check: Check) -> Result<()> {
        Engine::get(self, key, check)
    }

    fn transact(&self, keys: [&[u8]; 2], change: Change) -> Result<u64> {
        let options = TransactionOptions::new().attempts(u32::MAX);
        // An error of the harness is no error of the store, so it is carried out beside its result.
        let mut failed = None;
        let committed = self.store.transaction_with(&options, |transaction| {
            let first = transaction.get(&self.namespace, keys[0])?;
            let second = transaction.get(&self.namespace, keys[1])?;
            match changed([first.as_deref(), second.as_deref()], change) {
                Ok(values) => {
                    transaction.put(&self.namespace, keys[0], &values[0])?;
                    transaction.put(&self.namespace, keys[1], &values[1])?;
                }
                Err(error) => failed = Some(error),
            }
            Ok(())
        })?;
        match failed {
            Some(error) => Err(error),
            None => Ok(committed.attempts.into()),
        }
    }

    fn close(self: Box<Self>) -> Result<()> {
        Engine::close(self)
    }
}

impl Embercask {
    /// Lists in pages, which need no vector per key.
    fn list_pages(&self, prefix: &[u8], with_metadata: bool, visit: VisitEntry) -> Result<()> {
        let mut cursor = String::new();
        loop {
            let page = self
                .namespace
                .list()
                .prefix(prefix)
                .page_size(PAGE_KEYS)
                .cursor(cursor)
                .page()?;
            for entry in page.iter() {
                let metadata = if with_metadata {
                    entry.metadata().unwrap_or_default()
                } else {
                    &[]
                };
                visit(entry.key(), metadata)?;
            }
            match page.cursor() {
                Some(next) => cursor = next.to_owned(),
                None => return Ok(()),
            }
        }
    }
}
