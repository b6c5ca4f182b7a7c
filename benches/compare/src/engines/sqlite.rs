//! SQLite through rusqlite, with SQLite's own source.
//!
//! Settings: write-ahead log, a table `WITHOUT ROWID` with the key as primary key, cached prepared
//! statements, a page cache of 64 MiB per connection over a memory map that fits all data, and a
//! checkpoint every 16,000 pages, so that loading does not checkpoint all the time. Class `os` is
//! `synchronous=OFF`, class `sync` is `synchronous=FULL`.
//!
//! One connection writes, since SQLite allows one writer at a time anyway, and each reader takes a
//! connection from a pool. A transaction that writes is `BEGIN IMMEDIATE` on the one that writes,
//! so none meets a conflict. A snapshot is a read transaction on a connection of its own.

use crate::durability::Durability;
use crate::{data::Key, engine::*};
use anyhow::{Context, Result};
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

const GET: &str = "SELECT value FROM entries WHERE key = ?1";
const PUT: &str =
    "INSERT INTO entries (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value";

pub const DESCRIPTION: Description = Description {
    name: "sqlite",
    package: Some("rusqlite"),
    library: Some(library),
    is_yardstick: false,
    settings,
    lacks: &[
        (
            Need::CompactionInUse,
            "VACUUM locks writers out for as long as it takes",
        ),
        (Need::Metadata, "no metadata"),
        (Need::Expiry, "no expiry of single keys"),
    ],
    open: |directory, durability| Ok(Box::new(open(directory, durability)?)),
    open_transactional: Some(|directory, durability| Ok(Box::new(open(directory, durability)?))),
};

fn library() -> String {
    format!("SQLite {}", rusqlite::version())
}

fn settings(durability: Durability) -> String {
    let synchronous = synchronous(durability);
    format!(
        "journal_mode=WAL, synchronous={synchronous}, cache 64 MiB a connection, mmap_size 4 GiB, wal_autocheckpoint 16000, \
         WITHOUT ROWID"
    )
}

fn synchronous(durability: Durability) -> &'static str {
    match durability {
        Durability::Os => "OFF",
        Durability::Sync => "FULL",
    }
}

struct Sqlite {
    path: PathBuf,
    durability: Durability,
    writer: Mutex<Connection>,
    readers: Mutex<Vec<Connection>>,
}

fn open(directory: &Path, durability: Durability) -> Result<Sqlite> {
    let path = directory.join("compare.sqlite");
    let writer = connect(&path, durability)?;
    writer.execute(
        "CREATE TABLE IF NOT EXISTS entries (key BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID",
        [],
    )?;
    Ok(Sqlite {
        path,
        durability,
        writer: Mutex::new(writer),
        readers: Mutex::new(Vec::new()),
    })
}

fn connect(path: &Path, durability: Durability) -> Result<Connection> {
    let connection = Connection::open(path).context("open the database")?;
    let synchronous = synchronous(durability);
    connection.execute_batch(&format!(
        "PRAGMA journal_mode = WAL; PRAGMA synchronous = {synchronous}; PRAGMA cache_size = -65536; \
         PRAGMA mmap_size = 4294967296; PRAGMA wal_autocheckpoint = 16000; PRAGMA temp_store = MEMORY; \
         PRAGMA busy_timeout = 60000;"
    ))?;
    Ok(connection)
}

impl Sqlite {
    fn writer(&self) -> MutexGuard<'_, Connection> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn read<T>(&self, look: impl FnOnce(&Connection) -> Result<T>) -> Result<T> {
        let idle = self.readers.lock().unwrap_or_else(PoisonError::into_inner).pop();
        let connection = match idle {
            Some(connection) => connection,
            None => connect(&self.path, self.durability)?,
        };
        let result = look(&connection);
        self.readers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(connection);
        result
    }
}

fn get(connection: &Connection, key: &[u8], check: Check) -> Result<()> {
    let mut statement = connection.prepare_cached(GET)?;
    let mut checked = None;
    let found = statement
        .query_row([key], |row| {
            checked = Some(check(Some(row.get_ref(0)?.as_blob()?)));
            Ok(())
        })
        .optional()?;
    match (found, checked) {
        (Some(()), Some(result)) => result,
        _ => check(None),
    }
}

impl Engine for Sqlite {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.writer().prepare_cached(PUT)?.execute(params![key, value])?;
        Ok(())
    }

    fn put_batch(&self, entries: &[Entry]) -> Result<()> {
        let mut writer = self.writer();
        let transaction = writer.transaction()?;
        {
            let mut statement = transaction.prepare_cached(PUT)?;
            for (key, value) in entries {
                statement.execute(params![&**key, value])?;
            }
        }
        Ok(transaction.commit()?)
    }

    fn delete(&self, key: &[u8]) -> Result<()> {
        self.writer()
            .prepare_cached("DELETE FROM entries WHERE key = ?1")?
            .execute([key])?;
        Ok(())
    }

    fn get(&self, key: &[u8], check: Check) -> Result<()> {
        self.read(|connection| get(connection, key, check))
    }

    fn get_many(&self, keys: &[Key], check: CheckMany) -> Result<()> {
        self.read(|connection| {
            let snapshot = connection.unchecked_transaction()?;
            for (index, key) in keys.iter().enumerate() {
                get(connection, key, &mut |value| check(index, value))?;
            }
            Ok(snapshot.commit()?)
        })
    }

    fn list_prefix(&self, prefix: &[u8], visit: VisitKey) -> Result<()> {
        self.read(|connection| {
            let mut statement = connection.prepare_cached("SELECT key FROM entries WHERE key >= ?1 ORDER BY key")?;
            let mut rows = statement.query([prefix])?;
            while let Some(row) = rows.next()? {
                let key = row.get_ref(0)?.as_blob()?;
                if !key.starts_with(prefix) {
                    break;
                }
                visit(key)?;
            }
            Ok(())
        })
    }

    fn scan(&self, start: &[u8], count: usize, visit: VisitEntry) -> Result<()> {
        self.read(|connection| {
            let query = "SELECT key, value FROM entries WHERE key >= ?1 ORDER BY key LIMIT ?2";
            let mut statement = connection.prepare_cached(query)?;
            let mut rows = statement.query(params![start, count as i64])?;
            while let Some(row) = rows.next()? {
                visit(row.get_ref(0)?.as_blob()?, row.get_ref(1)?.as_blob()?)?;
            }
            Ok(())
        })
    }

    fn walk(&self, visit: VisitKey) -> Result<()> {
        self.list_prefix(&[], visit)
    }

    fn sync(&self) -> Result<()> {
        let writer = self.writer();
        writer.execute_batch("PRAGMA synchronous = FULL; PRAGMA wal_checkpoint(FULL);")?;
        Ok(writer.execute_batch(&format!("PRAGMA synchronous = {};", synchronous(self.durability)))?)
    }

    fn settle(&self) -> Result<()> {
        Ok(self.writer().execute_batch("PRAGMA wal_checkpoint(TRUNCATE);")?)
    }

    fn compact(&self) -> Result<()> {
        self.writer().execute_batch("VACUUM;")?;
        self.settle()
    }

    fn close(self: Box<Self>) -> Result<()> {
        let Sqlite { writer, readers, .. } = *self;
        drop(readers);
        writer
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .close()
            .map_err(|(_, error)| error.into())
    }

    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        let connection = connect(&self.path, self.durability)?;
        // The transaction reads the moment of its first statement.
        connection.execute_batch("BEGIN; SELECT 1 FROM entries LIMIT 1;")?;
        Ok(Box::new(Moment { connection }))
    }
}

struct Moment {
    /// In a transaction, which ends with it.
    connection: Connection,
}

impl Snapshot for Moment {
    fn get(&self, key: &[u8], check: Check) -> Result<()> {
        get(&self.connection, key, check)
    }
}

impl Transactional for Sqlite {
    fn get(&self, key: &[u8], check: Check) -> Result<()> {
        Engine::get(self, key, check)
    }

    fn transact(&self, keys: [&[u8]; 2], change: Change) -> Result<u64> {
        let mut writer = self.writer();
        let transaction = writer.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let [mut first, mut second] = [None, None];
        for (key, found) in [(keys[0], &mut first), (keys[1], &mut second)] {
            get(&transaction, key, &mut |value| {
                *found = value.map(<[u8]>::to_vec);
                Ok(())
            })?;
        }
        let values = changed([first.as_deref(), second.as_deref()], change)?;
        {
            let mut statement = transaction.prepare_cached(PUT)?;
            statement.execute(params![keys[0], values[0]])?;
            statement.execute(params![keys[1], values[1]])?;
        }
        transaction.commit()?;
        Ok(1)
    }

    fn close(self: Box<Self>) -> Result<()> {
        Engine::close(self)
    }
}
