//! Applies the log to a store.
//!
//! Whatever an entry changes goes into the store in one batch, together with the position: so after
//! any crash the store is as it was after some entry. What becomes of an entry depends on the
//! entries before it and on nothing else, so all stores that have applied the same ones are equal.

mod audit;
mod conditions;
mod group;
mod namespaces;
mod operations;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use embercask::{Error, Namespace, Store};

pub use self::audit::Disagreement;
use self::audit::{Heard, Recent};
use self::group::Group;
use crate::clock::LogClock;
use crate::entry::{Body, Entry, Malformed, Outcome};
use crate::log::Delivery;
use crate::state::{self, RESERVED_ID, State, StateError, checksum_of};
use crate::uploads::Uploads;
use crate::writers::Writers;

/// The entity tag of what a put stores: its value, metadata and expiry.
pub type EtagFunction = fn(&[u8], Option<&[u8]>, Option<u64>) -> u128;

/// What became of an entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its position.
    pub position: u64,
    /// Its log time, in milliseconds since the Unix epoch.
    pub log_ms: u64,
    /// Its writer.
    pub writer: u128,
    /// Its number among the entries of that writer.
    pub counter: u64,
    /// What it did.
    pub verdict: Verdict,
}

/// What an entry did, alike on all nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// What became of each of its operations.
    Done(Vec<Outcome>),
    /// Nothing: it was applied before, at an earlier position.
    Repeated,
    /// Nothing: it took more than an hour to arrive. It may be sent again as a new entry.
    Late,
    /// Nothing: the parts that it commits are not there, or are no operations.
    Incomplete,
    /// It is a part, which is kept for its commit.
    Kept,
    /// It is a beat.
    Beat {
        /// Whether this store had the digest that it tells at its position; `None` if that is not
        /// known any more. This alone may differ from node to node.
        agrees: Option<bool>,
    },
    /// It begins the log.
    Begun,
}

/// What [`Applier::apply`] has done.
#[derive(Debug)]
#[must_use = "applying may have stopped early"]
pub struct Progress {
    /// What became of the entries that were applied.
    pub applied: Vec<Applied>,
    /// Why the one after those was not.
    pub stopped: Option<ApplyError>,
}

/// Why an entry was not applied. The store is as it was before it.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ApplyError {
    /// Entries are missing. Another reader of the log may find them.
    #[error("entry {expected} is missing in the log: {found} came in its place")]
    Gap {
        /// The position that comes next.
        expected: u64,
        /// The position that came.
        found: u64,
    },
    /// The entry is damaged, or is none. Another copy of the log may hold it whole.
    #[error("entry {position} cannot be read: {cause}")]
    Malformed {
        /// Its position.
        position: u64,
        /// What is wrong.
        cause: Malformed,
    },
    /// The entry belongs to another cluster.
    #[error(
        "entry {position} is of cluster {found:032x}, and this store is of {expected:032x}; check the name of the log, \
         or join that cluster with `replica join`"
    )]
    OtherCluster {
        /// Its position.
        position: u64,
        /// Its cluster.
        found: u128,
        /// The cluster of this store.
        expected: u128,
    },
    /// The log has another entry where this one was applied.
    #[error(
        "entry {position} of the log is not the one that this store has applied: the log was recreated, or has lost \
         entries and taken others; see `replica reset-log`"
    )]
    OtherLog {
        /// The position of both.
        position: u64,
    },
    /// The store is no replica, or holds what this version does not know.
    #[error(transparent)]
    State(#[from] StateError),
    /// The store refused the entry. The same call may succeed later.
    #[error("the store does not take the entry: {0}")]
    Store(#[from] Error),
}

/// Applies a log to a store, of which it is the only writer.
#[derive(Debug)]
pub struct Applier {
    store: Store,
    reserved: Namespace,
    clock: LogClock,
    etag: EtagFunction,
    /// As in the store.
    state: State,
    /// With the entries of the group that is not in the store yet; so are the next three.
    next: State,
    writers: Writers,
    uploads: Uploads,
    recent: Recent,
    heard: Heard,
    /// Handles of namespaces that were written to.
    namespaces: HashMap<u128, Namespace>,
    /// Whether the store may hold something else than is in memory here.
    is_unsure: bool,
}

impl Applier {
    /// Takes over a replica, which was opened with this clock, and sets the clock to where it is.
    pub fn open(store: Store, clock: LogClock, etag: EtagFunction) -> Result<Applier, ApplyError> {
        let reserved = state::reserved(&store)?;
        let state = State::load(&reserved)?.ok_or(StateError::NotAReplica)?;
        clock.set(state.log_ms());
        Ok(Applier {
            writers: Writers::load(&reserved)?,
            uploads: Uploads::load(&reserved)?,
            recent: Recent::new(&state),
            heard: Heard::default(),
            namespaces: HashMap::new(),
            is_unsure: false,
            next: state,
            store,
            reserved,
            clock,
            etag,
            state,
        })
    }

    /// Makes a store the seed of a cluster; see [`state::init`].
    pub fn init(store: &Store, cluster: u128) -> Result<(), StateError> {
        state::init(store, cluster)
    }

    /// How far the store has come.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// The store.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whether this store differs from what the others tell in their beats. `own` is the writer of
    /// this node.
    pub fn disagreement(&self, own: u128) -> Option<Disagreement> {
        self.heard.disagreement(own, self.state.log_ms())
    }

    /// Applies these entries, which follow the last one. Those that were applied before are passed
    /// over. Stops at the first that cannot be applied.
    pub fn apply(&mut self, deliveries: &[Delivery]) -> Progress {
        let mut applied = Vec::new();
        let stopped = self.apply_all(deliveries, &mut applied).err();
        Progress { applied, stopped }
    }

    fn apply_all(&mut self, deliveries: &[Delivery], applied: &mut Vec<Applied>) -> Result<(), ApplyError> {
        if self.is_unsure {
            self.reload()?;
        }
        let mut group = Group::new(&self.store);
        for (index, delivery) in deliveries.iter().enumerate() {
            if delivery.position <= self.next.position {
                if let Err(error) = self.check_repeated(delivery) {
                    self.write(&mut group, applied)?;
                    return Err(error);
                }
                continue;
            }
            let entry = match self.check(delivery) {
                Ok(entry) => entry,
                Err(error) => {
                    self.write(&mut group, applied)?;
                    return Err(error);
                }
            };
            let is_alone = self.is_alone(delivery, &entry);
            if is_alone || group.is_full() {
                self.write(&mut group, applied)?;
            }
            if let Err(error) = self.add(&mut group, delivery, entry) {
                self.is_unsure = true;
                self.reload()?;
                // Those before it in the group are applied all the same.
                let before = deliveries.get(..index).filter(|_| !group.is_empty());
                self.apply_all(before.unwrap_or_default(), applied)?;
                return Err(error);
            }
            if is_alone {
                self.write(&mut group, applied)?;
            }
        }
        self.write(&mut group, applied)
    }

    /// Of the last entry that was applied, whether the log still has the same.
    fn check_repeated(&self, delivery: &Delivery) -> Result<(), ApplyError> {
        let position = delivery.position;
        if position != self.next.position || checksum_of(&delivery.bytes) == self.next.checksum {
            return Ok(());
        }
        Entry::decode(&delivery.bytes).map_err(|cause| ApplyError::Malformed { position, cause })?;
        Err(ApplyError::OtherLog { position })
    }

    /// The entry of a delivery, if it is the next of this log.
    fn check(&self, delivery: &Delivery) -> Result<Entry, ApplyError> {
        let position = delivery.position;
        let expected = self.next.position.saturating_add(1);
        if position != expected {
            let found = position;
            return Err(ApplyError::Gap { expected, found });
        }
        let entry = Entry::decode(&delivery.bytes).map_err(|cause| ApplyError::Malformed { position, cause })?;
        let found = entry.header.cluster;
        if found != self.next.cluster {
            let expected = self.next.cluster;
            return Err(ApplyError::OtherCluster {
                position,
                found,
                expected,
            });
        }
        Ok(entry)
    }

    /// Whether an entry is applied in a batch of its own: it reads what others have written.
    fn is_alone(&mut self, delivery: &Delivery, entry: &Entry) -> bool {
        let log_ms = self.next.time.after(delivery.stamp_ms).ms();
        let reads = match &entry.body {
            Body::Operations(all) => all.iter().any(|one| one.is_conditional() || one.is_of_namespaces()),
            Body::Commit { .. } => true,
            Body::Part { .. } | Body::Beat { .. } | Body::Genesis => false,
        };
        reads || !self.uploads.forgotten(log_ms).is_empty()
    }

    /// The namespace of this id that operations may write to.
    fn namespace(&mut self, id: u128) -> Result<Option<Namespace>, ApplyError> {
        if id == RESERVED_ID {
            return Ok(None);
        }
        if let Some(known) = self.namespaces.get(&id) {
            return Ok(Some(known.clone()));
        }
        let found = self.store.namespace_by_id(id)?;
        if let Some(found) = &found {
            self.namespaces.insert(id, found.clone());
        }
        Ok(found)
    }

    /// Reads everything from the store again.
    fn reload(&mut self) -> Result<(), ApplyError> {
        self.state = State::load(&self.reserved)?.ok_or(StateError::NotAReplica)?;
        self.next = self.state;
        self.writers = Writers::load(&self.reserved)?;
        self.uploads = Uploads::load(&self.reserved)?;
        self.recent.cut(&self.state);
        self.namespaces.clear();
        self.is_unsure = false;
        Ok(())
    }
}
