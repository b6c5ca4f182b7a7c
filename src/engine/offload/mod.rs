//! What asynchronous calls may not do on the threads of their callers: waiting.
//!
//! A write that waits for nothing is done where it is called, [`Engine::write_at_once`]. Others are
//! handed to two threads, which start when there is something to do: one writes, the other syncs
//! what was written. So no write waits behind a sync, and each sync is for all that came during the
//! one before.
//!
//! A write of class `Sync` is first written with class `Os`, after which nothing rolls it back, and
//! then synced. If there is no space to write it out for that, it is [`Error::Pending`].

mod promise;
mod queue;

use std::sync::Arc;

pub(crate) use self::promise::Outcome;
use self::promise::promise;
use self::queue::Queue;
use super::Engine;
use super::operation::{Operation, Written};
use crate::error::Result;
use crate::log::Room;
use crate::options::Durability;
use crate::planted::{Planted, planted};

/// The two threads of asynchronous calls, while there are any.
#[derive(Debug, Default)]
pub(crate) struct Offload {
    writes: Arc<Queue<Write>>,
    syncs: Arc<Queue<Sync>>,
}

type Write = Box<dyn FnOnce(&Arc<Engine>) + Send>;

/// A call that waits until everything up to this sequence, which was acknowledged, is durable; or
/// everything there is.
struct Sync {
    sequence: Option<u64>,
    done: Box<dyn FnOnce(Result<()>) + Send>,
}

impl Offload {
    /// The threads end once nothing is left to do. What comes later is done as well, and fails.
    pub(super) fn end(&self) {
        self.writes.end();
        self.syncs.end();
    }
}

fn run_writes(engine: &Arc<Engine>, writes: Vec<Write>) {
    for write in writes {
        write(engine);
    }
}

fn run_syncs(engine: &Arc<Engine>, syncs: Vec<Sync>) {
    let newest = syncs.iter().filter_map(|sync| sync.sequence).max();
    let newest = newest.filter(|_| !planted(Planted::ForgetAsyncSync));
    let acknowledged = newest.map(|newest| engine.log.sync_acknowledged(newest));
    let is_for_all = syncs.iter().any(|sync| sync.sequence.is_none());
    let all = is_for_all.then(|| engine.log.sync());
    for sync in syncs {
        let synced = if sync.sequence.is_some() { &acknowledged } else { &all };
        (sync.done)(synced.clone().unwrap_or(Ok(())));
    }
}

/// The class that a write gets before it is synced.
pub(crate) fn before_sync(durability: Durability) -> Durability {
    match durability {
        Durability::Sync => Durability::Os,
        durability => durability,
    }
}

impl Engine {
    /// As [`Engine::write`] with this class, if that waits neither for the device nor for other
    /// writers, for room or for compaction. Otherwise None, and nothing is written.
    pub(crate) fn write_at_once(&self, operation: &Operation<'_>, durability: Durability) -> Result<Option<Written>> {
        self.context.check_open()?;
        if self.compactor.debt.is_due() || self.log.is_sealing_behind() {
            return Ok(None);
        }
        let hash = self.hash_of(operation);
        self.state.prefetch(hash);
        let record = self.record_of(operation, hash);
        let Some(guard) = self.log.lock_at_once(Room::of_record(&record), durability) else {
            return Ok(None);
        };
        let applied = self.apply_record(guard, operation, &record, None)?;
        self.log.commit(applied.guard, durability, applied.sequence)?;
        Ok(Some(applied.answer))
    }

    /// Has a write of this class done by the thread for writes. `write` is given the class to write
    /// with; it returns the sequence up to which the log then has to be synced if the class is
    /// `Sync`, and what the caller gets besides.
    pub(crate) fn write_elsewhere<T: Send + 'static>(
        self: &Arc<Engine>,
        durability: Durability,
        write: impl FnOnce(&Arc<Engine>, Durability) -> (Result<u64>, T) + Send + 'static,
    ) -> Outcome<(Result<u64>, T)> {
        let (promise, outcome) = promise(&self.context);
        let write = move |engine: &Arc<Engine>| {
            let (written, more) = write(engine, before_sync(durability));
            match written {
                Ok(sequence) if durability == Durability::Sync => {
                    let done = move |synced: Result<()>| promise.keep((synced.map(|()| sequence), more));
                    engine.when_synced(Some(sequence), Box::new(done));
                }
                written => promise.keep((written, more)),
            }
        };
        // If there can be no thread, the promise is broken.
        self.offload
            .writes
            .push(Box::new(write), self, "embercask-write", run_writes);
        outcome
    }

    /// Makes everything up to this sequence, which was acknowledged, durable; or everything there
    /// is.
    pub(crate) fn sync_elsewhere(self: &Arc<Engine>, sequence: Option<u64>) -> Outcome<Result<()>> {
        let (promise, outcome) = promise(&self.context);
        self.when_synced(sequence, Box::new(move |synced| promise.keep(synced)));
        outcome
    }

    fn when_synced(self: &Arc<Engine>, sequence: Option<u64>, done: Box<dyn FnOnce(Result<()>) + Send>) {
        let sync = Sync { sequence, done };
        self.offload.syncs.push(sync, self, "embercask-await", run_syncs);
    }
}
