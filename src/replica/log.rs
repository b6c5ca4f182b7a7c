//! The log that all nodes share, as far as replication needs one.

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use bytes::Bytes;

/// A future on the heap, so that logs of different kinds stand behind one trait.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// An entry as the log holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// Its place in the log. The first one is 1, and none is left out.
    pub position: u64,
    /// When the log took it, in milliseconds since the Unix epoch, by the clock of its leader.
    pub stamp_ms: u64,
    /// The encoded entry.
    pub bytes: Bytes,
}

/// What the log holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Position of the oldest entry that is kept; that of the next one if none is.
    pub first: u64,
    /// Position of the newest entry; 0 if there never was one.
    pub last: u64,
    /// How many entries are kept. Fewer than the positions from `first` to `last` means that the
    /// log has lost some.
    pub entries: u64,
}

/// Why the log did not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogError {
    /// No answer, or no quorum: the same call may succeed later. Whether a publication was taken
    /// is not known.
    #[error("the log is not available: {0}")]
    Unavailable(String),
    /// The log will not do this, however often it is asked.
    #[error("the log refuses: {0}")]
    Refused(String),
}

/// A log that is replicated by another system: it keeps what it has acknowledged, in one order for
/// all who read it.
pub trait ReplicatedLog: Send + Sync + fmt::Debug {
    /// Appends an entry; resolves to its position once a quorum has it on disk. An id that the log
    /// has seen of late (for two minutes at least) is not appended again.
    fn publish<'a>(&'a self, id: &'a str, entry: Bytes) -> Pending<'a, Result<u64, LogError>>;

    /// What the log holds now.
    fn bounds(&self) -> Pending<'_, Result<Bounds, LogError>>;

    /// Reads all entries from this position on, which may lie one behind the last. If the log no
    /// longer keeps it, the first delivery is a later one.
    fn read_from(&self, position: u64) -> Pending<'_, Result<Box<dyn LogReader>, LogError>>;
}

/// Entries in the order of the log. Positions may be left out where a copy of the log is damaged:
/// whoever reads checks them. Dropping a reader ends it.
pub trait LogReader: Send {
    /// Waits for the next entries: at least one, and as many as have arrived. After an error the
    /// reader is of no use; another one may be.
    fn next(&mut self) -> Pending<'_, Result<Vec<Delivery>, LogError>>;
}
