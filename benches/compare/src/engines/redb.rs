//! redb.
//!
//! Settings: defaults with a cache that fits all data. Class `sync` is `Durability::Immediate`.
//! redb has no class `os`: commits with `Durability::None` are kept in memory until the next
//! immediate one, so they are lost with the process. It runs with them in class `os` all the same,
//! since an immediate commit would promise more and cost a sync, and the report says that it
//! promises less there.
//!
//! Each get opens its own read transaction, as it must to see every earlier write; a get of many
//! keys, a list and a walk open one each. One write transaction runs at a time, so none meets a
//! conflict. A snapshot is a read transaction.

use crate::durability::Durability;
use crate::{data::Key, engine::*};
use anyhow::{Context, Result};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

const TABLE: TableDefinition<&[u8], &[u8]> = TableDefinition::new("compare");

pub const DESCRIPTION: Description = Description {
    name: "redb",
    package: Some("redb"),
    library: None,
    is_yardstick: false,
    settings,
    lacks: &[
        (Need::CompactionInUse, "compaction needs the database for itself"),
        (Need::Metadata, "no metadata"),
        (Need::Expiry, "no expiry of single keys"),
    ],
    open: |directory, durability| Ok(Box::new(open(directory, durability)?)),
    open_transactional: Some(|directory, durability| Ok(Box::new(open(directory, durability)?))),
};

fn settings(durability: Durability) -> String {
    match durability {
        Durability::Os => {
            "Durability::None, which promises less than the class: kept in memory until a sync; cache 512 MiB".into()
        }
        Durability::Sync => "Durability::Immediate; cache 512 MiB".into(),
    }
}

struct Redb {
    /// Write-locked only by compaction, for which redb requires exclusive access.
    database: RwLock<Database>,
    durability: redb::Durability,
}

fn open(directory: &Path, durability: Durability) -> Result<Redb> {
    let path = directory.join("compare.redb");
    let database = Database::builder()
        .set_cache_size(CACHE_BYTES)
        .create(path)
        .context("open the database")?;
    let durability = match durability {
        Durability::Os => redb::Durability::None,
        Durability::Sync => redb::Durability::Immediate,
    };
    let engine = Redb {
        database: RwLock::new(database),
        durability,
    };
    // Readers need the table to exist.
    engine.write(redb::Durability::Immediate, |_| Ok(()))?;
    Ok(engine)
}

impl Redb {
    fn database(&self) -> RwLockReadGuard<'_, Database> {
        self.database.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(
        &self,
        durability: redb::Durability,
        change: impl FnOnce(&mut redb::Table<&[u8], &[u8]>) -> Result<()>,
    ) -> Result<()> {
        let mut transaction: WriteTransaction = self.database().begin_write()?;
        transaction.set_durability(durability)?;
        change(&mut transaction.open_table(TABLE)?)?;
        Ok(transaction.commit()?)
    }

    fn read<T>(&self, look: impl FnOnce(&redb::ReadOnlyTable<&[u8], &[u8]>) -> Result<T>) -> Result<T> {
        look(&self.database().begin_read()?.open_table(TABLE)?)
    }
}

impl Engine for Redb {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.write(self.durability, |table| {
            table.insert(key, value)?;
            Ok(())
        })
    }

    fn put_batch(&self, entries: &[Entry]) -> Result<()> {
        self.write(self.durability, |table| {
            for (key, value) in entries {
                table.insert(&**key, value.as_slice())?;
            }
            Ok(())
        })
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.write(self.durability, |table| {
            table.remove(key)?;
            Ok(())
        })
    }

    fn get(&self, key: &[u8], check: Check) -> Result<()> {
        self.read(|table| check(table.get(key)?.as_ref().map(|value| value.value())))
    }

    fn get_many(&self, keys: &[Key], check: CheckMany) -> Result<()> {
        self.read(|table| {
            for (index, key) in keys.iter().enumerate() {
                check(index, table.get(&**key)?.as_ref().map(|value| value.value()))?;
            }
            Ok(())
        })
    }

    fn list_prefix(&self, prefix: &[u8], visit: VisitKey) -> Result<()> {
        self.read(|table| {
            for entry in table.range(prefix..)? {
                let (key, _) = entry?;
                if !key.value().starts_with(prefix) {
                    break;
                }
                visit(key.value())?;
            }
            Ok(())
        })
    }

    fn scan(&self, start: &[u8], count: usize, visit: VisitEntry) -> Result<()> {
        self.read(|table| {
            for entry in table.range(start..)?.take(count) {
                let (key, value) = entry?;
                visit(key.value(), value.value())?;
            }
            Ok(())
        })
    }

    fn walk(&self, visit: VisitKey) -> Result<()> {
        self.read(|table| {
            for entry in table.iter()? {
                visit(entry?.0.value())?;
            }
            Ok(())
        })
    }

    fn sync(&self) -> Result<()> {
        self.write(redb::Durability::Immediate, |_| Ok(()))
    }

    fn settle(&self) -> Result<()> {
        self.sync()
    }

    fn compact(&self) -> Result<()> {
        self.database
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .compact()?;
        Ok(())
    }

    fn close(self: Box<Self>) -> Result<()> {
        self.sync()
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        let table = self.database().begin_read()?.open_table(TABLE)?;
        Ok(Box::new(Moment { table }))
    }
}

struct Moment {
    /// Holds its read transaction.
    table: redb::ReadOnlyTable<&'static [u8], &'static [u8]>,
}

impl Snapshot for Moment {
    fn get(&self, key: &[u8], check: Check) -> Result<()> {
        check(self.table.get(key)?.as_ref().map(|value| value.value()))
    }
}

impl Transactional for Redb {
    fn get(&self, key: &[u8], check: Check) -> Result<()> {
        Engine::get(self, key, check)
    }

    fn transact(&self, keys: [&[u8]; 2], change: Change) -> Result<u64> {
        self.write(self.durability, |table| {
            let values = {
                let (first, second) = (table.get(keys[0])?, table.get(keys[1])?);
                let first = first.as_ref().map(|value| value.value());
                let second = second.as_ref().map(|value| value.value());
                changed([first, second], change)?
            };
            table.insert(keys[0], values[0].as_slice())?;
            table.insert(keys[1], values[1].as_slice())?;
            Ok(())
        })?;
        Ok(1)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Engine::close(self)
    }
}
