//! The interface of engines, and their descriptions for the report.

use crate::{data::Key, durability::Durability};
use anyhow::{Result, bail};
use std::path::Path;

/// Cache size for engines with their own cache: larger than the default data, so that no engine
/// reads from the page cache what another has in its own cache.
#[cfg_attr(
    not(any(feature = "rocksdb", feature = "redb", feature = "fjall")),
    expect(dead_code)
)]
pub const CACHE_BYTES: usize = 512 << 20;

/// A key with its value.
pub type Entry = (Key, Vec<u8>);
/// Receives a value, or None if the key is absent; the value need not be copied for it.
pub type Check<'a> = &'a mut dyn FnMut(Option<&[u8]>) -> Result<()>;
/// The same for many keys: the first argument is the index of the key in the call.
pub type CheckMany<'a> = &'a mut dyn FnMut(usize, Option<&[u8]>) -> Result<()>;
/// Receives a key.
pub type VisitKey<'a> = &'a mut dyn FnMut(&[u8]) -> Result<()>;
/// Receives a key and its value.
pub type VisitEntry<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> Result<()>;

/// Receives the values of two keys and returns those to replace them with.
pub type Change<'a> = &'a mut dyn FnMut([&[u8]; 2]) -> Result<[Vec<u8>; 2]>;

/// An open engine. Used by several threads at once.
pub trait Engine: Send + Sync {
    /// Writes one key; returns when the write has the durability of the run's class.
    fn put(&self, key: &[u8], value: &[u8]) -> Result<()>;
    /// Writes all of them as one commit.
    fn put_batch(&self, entries: &[Entry]) -> Result<()>;
    /// Removes one key.
    fn delete(&self, key: &[u8]) -> Result<()>;
    /// Passes the newest value of a key to `check`.
    fn get(&self, key: &[u8], check: Check) -> Result<()>;
    /// Passes the newest values of many keys to `check`, in the engine's fastest way.
    fn get_many(&self, keys: &[Key], check: CheckMany) -> Result<()>;
    /// Visits every key with a prefix, in order.
    fn list_prefix(&self, prefix: &[u8], visit: VisitKey) -> Result<()>;
    /// Visits `count` keys with their values, in order from `start` on.
    fn scan(&self, start: &[u8], count: usize, visit: VisitEntry) -> Result<()>;
    /// Visits every key, in order if the engine has one.
    fn walk(&self, visit: VisitKey) -> Result<()>;
    /// Makes all earlier writes durable.
    fn sync(&self) -> Result<()>;
    /// Brings written data into the form that the engine reads fastest; called after loading,
    /// untimed.
    fn settle(&self) -> Result<()>;
    /// Reclaims the space of overwritten and deleted values.
    fn compact(&self) -> Result<()>;
    /// Closes cleanly.
    fn close(self: Box<Self>) -> Result<()>;

    /// Writes one key with a value and metadata.
    fn put_with_metadata(&self, _key: &[u8], _value: &[u8], _metadata: &[u8]) -> Result<()> {
        bail!("this engine has no metadata")
    }
    /// Visits every key with a prefix and its metadata.
    fn list_metadata(&self, _prefix: &[u8], _visit: VisitEntry) -> Result<()> {
        bail!("this engine has no metadata")
    }
    /// Writes one key that expires at a wall clock time.
    fn put_until(&self, _key: &[u8], _value: &[u8], _milliseconds: u64) -> Result<()> {
        bail!("this engine has no expiry")
    }
    /// Counts the unexpired keys.
    fn count(&self) -> Result<u64> {
        bail!("this engine does not count its keys")
    }
    /// The state of this moment, which later writes leave as it is. It stays on the thread that
    /// took it; that thread does nothing else with the engine meanwhile.
    fn snapshot(&self) -> Result<Box<dyn Snapshot + '_>> {
        bail!("this engine has no snapshots")
    }
}

/// The state of one moment.
pub trait Snapshot {
    /// Passes the value that a key had to `check`.
    fn get(&self, key: &[u8], check: Check) -> Result<()>;
}

/// An engine that was opened for transactions, which in some is another type. Used by several
/// threads at once.
pub trait Transactional: Send + Sync {
    /// Passes the newest value of a key to `check`.
    fn get(&self, key: &[u8], check: Check) -> Result<()>;
    /// Reads two keys, which exist and differ, and puts what `change` makes of them: as one
    /// serializable transaction, of the run's class. It is run again until it meets no conflict;
    /// returns the number of attempts.
    fn transact(&self, keys: [&[u8]; 2], change: Change) -> Result<u64>;
    /// Closes cleanly.
    fn close(self: Box<Self>) -> Result<()>;
}

/// What `change` makes of two values, which must be there.
pub fn changed(values: [Option<&[u8]>; 2], change: Change) -> Result<[Vec<u8>; 2]> {
    match values {
        [Some(first), Some(second)] => change([first, second]),
        _ => bail!("a key of a transaction is absent"),
    }
}

/// Opens an engine for transactions.
pub type OpenTransactional = fn(&Path, Durability) -> Result<Box<dyn Transactional>>;

/// A capability that a workload needs and an engine may lack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// To read written values.
    Reads,
    /// To remove single keys.
    Deletes,
    /// To write many keys as one commit.
    Batches,
    /// To list keys in order.
    Order,
    /// To persist, so that it can be reopened.
    Files,
    /// A class in which a commit survives a power cut.
    SyncCommits,
    /// To compact while other threads read and write.
    CompactionInUse,
    /// Metadata that can be listed without reading values.
    Metadata,
    /// Expiry of single keys.
    Expiry,
    /// Serializable transactions over several keys.
    Transactions,
    /// To read a past moment beside writes.
    Snapshots,
}

/// The description of an engine.
pub struct Description {
    /// Its name on the command line and in the report.
    pub name: &'static str,
    /// The package whose version the report shows; None for yardsticks.
    pub package: Option<&'static str>,
    /// The name and version of the wrapped library, if the package is a binding.
    pub library: Option<fn() -> String>,
    /// Whether it is a yardstick for engines, not an engine.
    pub is_yardstick: bool,
    /// Its settings in a class, for the report.
    pub settings: fn(Durability) -> String,
    /// The capabilities it lacks, each with the reason that the report prints in place of a number.
    pub lacks: &'static [(Need, &'static str)],
    /// Opens it in a directory, which exists and is initially empty.
    pub open: fn(&Path, Durability) -> Result<Box<dyn Engine>>,
    /// Opens the same directory for transactions; None if it has none.
    pub open_transactional: Option<OpenTransactional>,
}

impl Description {
    /// The reason why the engine is skipped in a workload with these needs, if it is.
    pub fn reason_to_skip(&self, needs: &[Need]) -> Option<&'static str> {
        self.lacks
            .iter()
            .find(|(lack, _)| needs.contains(lack))
            .map(|(_, reason)| *reason)
    }
}
