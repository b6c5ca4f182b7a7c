//! The store's four threads: one flushes and prepares the next segment, so it is never busy for
//! long with anything else; one syncs what no writer waits for; one does all other maintenance; one
//! compacts. A fifth scrubs, if the options ask for it. Their errors are kept for `stats`. A panic
//! leaves no thread waiting, since none waits for these threads: every writer can do their work
//! itself.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::engine::Engine;
use crate::error::{Error, Result};

/// How often to look for expired keys and waste.
const TICK: Duration = Duration::from_millis(500);

/// How long the memory of a segment is kept for the next one, in milliseconds. A store that needs
/// none for so long fills few segments.
const MEMORY_KEPT_MS: u64 = 1000;

/// The running threads; dropping this stops them.
#[derive(Debug)]
pub(crate) struct Workers {
    stop: Arc<Stop>,
    engine: Arc<Engine>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Stop {
    requested: AtomicBool,
}

impl Workers {
    pub(crate) fn start(engine: &Arc<Engine>) -> Result<Workers> {
        let stop = Arc::new(Stop::default());
        let mut workers = Workers {
            stop: stop.clone(),
            engine: engine.clone(),
            threads: Vec::new(),
        };
        let (flushed, flush_stop) = (engine.clone(), stop.clone());
        workers.spawn("embercask-flush", move || flush(&flushed, &flush_stop))?;
        let (synced, sync_stop) = (engine.clone(), stop.clone());
        workers.spawn("embercask-sync", move || sync(&synced, &sync_stop))?;
        let (maintained, maintenance_stop) = (engine.clone(), stop.clone());
        workers.spawn("embercask-maintenance", move || {
            maintain(&maintained, &maintenance_stop)
        })?;
        let (compacted, compaction_stop) = (engine.clone(), stop.clone());
        workers.spawn("embercask-compaction", move || compact(&compacted, &compaction_stop))?;
        if engine.scrub.is_on() {
            let scrubbed = engine.clone();
            workers.spawn("embercask-scrub", move || scrub(&scrubbed, &stop))?;
        }
        Ok(workers)
    }

    fn spawn(&mut self, name: &str, work: impl FnOnce() + Send + 'static) -> Result<()> {
        let engine = self.engine.clone();
        let guarded = move || {
            if catch_unwind(AssertUnwindSafe(work)).is_err() {
                // Its state is unknown: refuse writes rather than risk wrong ones.
                let cause = Error::Poisoned {
                    cause: "a background thread of the store panicked".to_owned(),
                };
                engine.log.poison(&mut engine.log.lock(), &cause);
            }
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(guarded);
        self.threads
            .push(thread.map_err(|error| Error::io("start a thread for", self.engine.context.path(), error))?);
        Ok(())
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.stop.requested.store(true, Ordering::Release);
        self.engine.context.begin_closing();
        self.engine.context.flush_wake.wake();
        self.engine.context.sync_wake.wake();
        self.engine.context.maintenance_wake.wake();
        self.engine.context.compaction_wake.wake();
        self.engine.context.scrub_wake.wake();
        for thread in self.threads.drain(..) {
            // A panic was handled inside the thread.
            let _ = thread.join();
        }
    }
}

/// How long the flush thread sleeps: long enough not to spin, and short enough to check that the
/// directory still exists even if it seldom flushes.
fn flush_every(interval: Duration) -> Duration {
    interval.clamp(Duration::from_millis(1), TICK)
}

fn flush(engine: &Engine, stop: &Stop) {
    let interval = flush_every(engine.context.options.flush_interval);
    while !stop.requested.load(Ordering::Acquire) {
        engine.context.flush_wake.wait(interval);
        note_errors(engine, [engine.log.flush_pending(), engine.log.prepare_ahead()]);
        engine.say();
    }
}

/// Syncs behind the writers. A thread of its own: a sweep or a seal would keep the maintenance
/// thread from it for longer than the sync interval; and on the flush thread a slow sync would keep
/// writes of class `Buffered` in memory for longer than the flush interval.
fn sync(engine: &Engine, stop: &Stop) {
    let mut failed = false;
    while !stop.requested.load(Ordering::Acquire) {
        // After a failure, as on a full disk, without haste.
        let least = if failed { TICK } else { Duration::ZERO };
        let sleep = engine.log.sleep_before_sync().max(least);
        engine.context.sync_wake.wait(sleep);
        let synced = engine.log.sync_behind();
        failed = synced.is_err();
        note_errors(engine, [synced]);
        engine.say();
    }
}

fn maintain(engine: &Engine, stop: &Stop) {
    // Stops if the store closes: the next open, or the one after it, renews the rest.
    let _ = engine.log.renew_hints();
    while !stop.requested.load(Ordering::Acquire) {
        engine.context.maintenance_wake.wait(TICK);
        note_errors(
            engine,
            [engine.log.seal_all(), engine.housekeeping.empty_dropped_namespaces()],
        );
        engine.housekeeping.sweep_expired();
        engine.housekeeping.clean_expiry_queue();
        engine.housekeeping.merge_due_orders();
        engine.housekeeping.shrink(MEMORY_KEPT_MS);
        engine.say();
        engine.context.rounds.end();
    }
}

fn note_errors<const N: usize>(engine: &Engine, results: [Result<()>; N]) {
    for error in results.into_iter().filter_map(Result::err) {
        engine.context.events.note_background_error(&error);
    }
}

fn compact(engine: &Engine, stop: &Stop) {
    while !stop.requested.load(Ordering::Acquire) {
        engine.context.compaction_wake.wait(TICK);
        if stop.requested.load(Ordering::Acquire) {
            return;
        }
        match engine.compactor.compact_if_worthwhile() {
            Ok(_) | Err(Error::Cancelled | Error::Closed) => {}
            Err(error) => engine.context.events.note_background_error(&error),
        }
        engine.say();
        engine.context.rounds.end();
    }
}

/// Scrubs. A thread of its own: where the page cache has nothing, each of its reads waits for the
/// device, and on any other thread expiry, sealing or compaction would wait as well.
fn scrub(engine: &Engine, stop: &Stop) {
    while !stop.requested.load(Ordering::Acquire) {
        engine.context.scrub_wake.wait(engine.scrub.sleep());
        engine.scrub.go_on();
        engine.say();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_flush_thread_neither_spins_nor_sleeps_for_ever() {
        assert_eq!(flush_every(Duration::ZERO), Duration::from_millis(1));
        assert_eq!(flush_every(Duration::from_millis(20)), Duration::from_millis(20));
        assert_eq!(flush_every(Duration::MAX), TICK);
    }
}
