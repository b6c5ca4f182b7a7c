//! What every engine is asked to do, and what is said of each in the report.

use crate::{data::Key, durability::Durability};
use anyhow::{Result, bail};
use std::path::Path;

/// The cache that engines with one of their own are given: more than the default data take, so that
/// no engine reads from the page cache what another has in its own.
#[cfg_attr(
    not(any(feature = "rocksdb", feature = "redb", feature = "fjall")),
    expect(dead_code)
)]
pub const CACHE_BYTES: usize = 512 << 20;

/// A key with its value.
pub type Entry = (Key, Vec<u8>);
/// Looks at a value, or at its absence; the value need not be copied for it.
pub type Check<'a> = &'a mut dyn FnMut(Option<&[u8]>) -> Result<()>;
/// The same for many keys: the first argument is the place of the key in the question.
pub type CheckMany<'a> = &'a mut dyn FnMut(usize, Option<&[u8]>) -> Result<()>;
/// Looks at a key.
pub type VisitKey<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;
/// Looks at a key and its value.
pub type VisitEntry<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<()>;

/// An open engine. Used by several threads at once.
pub trait Engine: Send + Sync {
    /// Writes one key; returns when the write is as durable as the run's class says.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()>;
    /// Writes all of them as one commit.
    fn put_batch(&self, entries: &[Entry]) -> Result<()>;
    /// Removes one key.
    fn delete(&self, key: &[u8]) -> Result<()>;
    /// Shows the newest value of a key.
    fn get(&self, key: &[u8], check: Check) -> Result<()>;
    /// Shows the newest values of many keys, in the way the engine is best at it.
    fn get_many(&self, keys: &[Key], check: CheckMany) -> Result<()>;
    /// Shows every key with a prefix, in order.
    fn list_prefix(&self, prefix: &[u8], visit: VisitKey) -> Result<()>;
    /// Shows so many keys with their values, in order from a key on.
    fn scan(&self, start: &[u8], count: usize, visit: VisitEntry) -> Result<()>;
    /// Shows every key, in order if the engine has one.
    fn walk(&self, visit: VisitKey) -> Result<()>;
    /// Makes durable whatever was written before.
    fn sync(&self) -> Result<()>;
    /// Brings what was written into the form in which the engine reads fastest; called after
    /// loading, outside of what is timed.
    fn settle(&self) -> Result<()>;
    /// Gives back the space of what was overwritten and deleted.
    fn compact(&self) -> Result<()>;
    /// Closes properly.
    fn close(self: Box<Self>) -> Result<()>;

    /// Writes one key with metadata beside its value.
    fn put_with_metadata(&self, _key: &[u8], _value: &[u8], _metadata: &[u8]) -> Result<()> {
        bail!("this engine has no metadata")
    }
    /// Shows every key with a prefix and its metadata.
    fn list_metadata(&self, _prefix: &[u8], _visit: VisitEntry) -> Result<()> {
        bail!("this engine has no metadata")
    }
    /// Writes one key that is absent from a moment of the wall clock on.
    fn put_until(&self, _key: &[u8], _value: &[u8], _milliseconds: u64) -> Result<()> {
        bail!("this engine has no expiry")
    }
    /// Counts the keys that are not expired.
    fn count(&self) -> Result<u64> {
        bail!("this engine does not count its keys")
    }
}

/// What a workload needs and an engine may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To read what was written.
    Reads,
    /// To remove single keys.
    Deletes,
    /// To write many keys as one commit.
    Batches,
    /// To list keys in order.
    Order,
    /// To be there when it is opened again.
    Files,
    /// A class in which a commit survives a power cut.
    SyncCommits,
    /// To compact while others read and write.
    CompactionInUse,
    /// Metadata that are listed without reading values.
    Metadata,
    /// Expiry of single keys.
    Expiry,
}

/// What there is to say about an engine before it is opened.
pub struct Description {
    /// Its name on the command line and in the report.
    pub name: &'static str,
    /// The package whose version the report gives; none for yardsticks.
    pub package: Option<&'static str>,
    /// The library inside with its version, where the package is a binding to one.
    pub library: Option<fn() -> String>,
    /// Whether it is no engine but what engines are held against.
    pub is_yardstick: bool,
    /// How it is set up in a class, and why: printed in the report.
    pub settings: fn(Durability) -> String,
    /// What it lacks, with the reason that stands in the report in the place of a number.
    pub lacks: &'static [(Need, &'static str)],
    /// Opens it in a directory, which exists and is empty the first time.
    pub open: fn(&Path, Durability) -> Result<Box<dyn Engine>>,
}

impl Description {
    /// Why the engine has no part in a workload with these needs.
    pub fn reason_to_skip(&self, needs: &[Need]) -> Option<&'static str> {
        self.lacks
            .iter()
            .find(|(lack, _)| needs.contains(lack))
            .map(|(_, reason)| *reason)
    }
}
