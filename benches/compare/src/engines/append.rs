//! Yardsticks: the cost of only storing the bytes.
//!
//! `raw-write` appends key and value to a file with one `write` per commit (class `os`), plus one
//! data sync (class `sync`): a lower bound for engines that do the same, unless writers share them.
//! `memory-copy` appends them to a vector. Neither can read anything back.

use crate::durability::Durability;
use crate::{data::Key, engine::*};
use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

pub const RAW_WRITE: Description = Description {
    name: "raw-write",
    package: None,
    library: None,
    is_yardstick: true,
    settings: raw_write_settings,
    lacks: &[
        (Need::Reads, "no reads"),
        (Need::Deletes, "deletes nothing"),
        (Need::Order, "no order of keys"),
        (Need::CompactionInUse, "nothing to compact"),
        (Need::Metadata, "no metadata"),
        (Need::Expiry, "no expiry"),
        (Need::Transactions, "no transactions"),
        (Need::Snapshots, "no snapshots"),
    ],
    open: open_raw_write,
    open_transactional: None,
};

pub const MEMORY_COPY: Description = Description {
    name: "memory-copy",
    package: None,
    library: None,
    is_yardstick: true,
    settings: memory_copy_settings,
    lacks: &[
        (Need::Reads, "no reads"),
        (Need::Deletes, "deletes nothing"),
        (Need::Order, "no order of keys"),
        (Need::Files, "no files"),
        (Need::SyncCommits, "no files"),
        (Need::CompactionInUse, "nothing to compact"),
        (Need::Metadata, "no metadata"),
        (Need::Expiry, "no expiry"),
        (Need::Transactions, "no transactions"),
        (Need::Snapshots, "no snapshots"),
    ],
    open: |_, _| {
        Ok(Box::new(Append {
            sink: Mutex::new(Sink::default()),
        }))
    },
    open_transactional: None,
};

fn raw_write_settings(durability: Durability) -> String {
    match durability {
        Durability::Os => "one write a commit".into(),
        Durability::Sync => "one write and one data sync a commit".into(),
    }
}

fn memory_copy_settings(_: Durability) -> String {
    "a copy to the end of a vector; nothing is durable".into()
}

/// Collects a commit in a buffer. With a file, the buffer is written out and cleared; without one,
/// it grows.
#[derive(Default)]
struct Sink {
    buffer: Vec<u8>,
    file: Option<File>,
    syncs: bool,
}

impl Sink {
    fn commit(&mut self) -> Result<()> {
        let Some(file) = &mut self.file else { return Ok(()) };
        file.write_all(&self.buffer)?;
        self.buffer.clear();
        if self.syncs {
            file.sync_data()?;
        }
        Ok(())
    }
}

struct Append {
    sink: Mutex<Sink>,
}

fn open_raw_write(directory: &Path, durability: Durability) -> Result<Box<dyn Engine>> {
    let path = directory.join("log");
    let file = File::options()
        .create(true)
        .append(true)
        .open(path)
        .context("open the file")?;
    let syncs = durability == Durability::Sync;
    Ok(Box::new(Append {
        sink: Mutex::new(Sink {
            buffer: Vec::new(),
            file: Some(file),
            syncs,
        }),
    }))
}

impl Engine for Append {
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        sink.buffer.extend_from_slice(key);
        sink.buffer.extend_from_slice(value);
        sink.commit()
    }

    fn put_batch(&self, entries: &[Entry]) -> Result<()> {
        let mut sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        for (key, value) in entries {
            sink.buffer.extend_from_slice(key);
            sink.buffer.extend_from_slice(value);
        }
        sink.commit()
    }

    fn delete(&self, _key: &[u8]) -> Result<()> {
        bail!("a log alone deletes nothing")
    }

    fn get(&self, _key: &[u8], _check: Check) -> Result<()> {
        bail!("a log alone has no reads")
    }

    fn get_many(&self, _keys: &[Key], _check: CheckMany) -> Result<()> {
        bail!("a log alone has no reads")
    }

    fn list_prefix(&self, _prefix: &[u8], _visit: VisitKey) -> Result<()> {
        bail!("a log alone has no reads")
    }

    fn scan(&self, _start: &[u8], _count: usize, _visit: VisitEntry) -> Result<()> {
        bail!("a log alone has no reads")
    }

    fn walk(&self, _visit: VisitKey) -> Result<()> {
        bail!("a log alone has no reads")
    }

    fn sync(&self) -> Result<()> {
        let sink = self.sink.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(sink.file.as_ref().map_or(Ok(()), File::sync_data)?)
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
