//! A node: a replica that follows its log, and writes to it.
//!
//! Two tasks share the work. The follower reads the log and applies it; it has a reader made again
//! after each gap, damage, error or silence, and never skips anything. The driver owns the
//! [`Writer`](crate::writer::Writer): it takes writes, publishes what that hands out, sends beats,
//! and asks the log what it holds. Applying runs on a thread for blocking work, never on one of
//! the runtime.
//!
//! Nothing is written before an entry of this node has come back once: only then is it known what
//! time it is in the log, and an entry that says another time would be refused as late.

mod driver;
mod follower;
mod progress;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};

use self::driver::Driver;
use self::follower::Follower;
use self::progress::Progress;
pub use self::progress::{Doing, Status};
use crate::applier::Applier;
use crate::entry::Operation;
use crate::log::ReplicatedLog;
use crate::writer::{WriteError, WriterSettings, Written};

/// How a node behaves.
#[derive(Clone, Debug)]
pub struct NodeSettings {
    /// Bounds and time limits of its writes.
    pub writer: WriterSettings,
    /// It is not ready when no entry has come for this long.
    pub stale_after: Duration,
    /// Id of its writer: new at each start.
    pub writer_id: u128,
}

impl NodeSettings {
    /// The defaults, with a new writer id.
    pub fn new() -> Result<NodeSettings, getrandom::Error> {
        let mut id = [0; 16];
        getrandom::fill(&mut id)?;
        Ok(NodeSettings {
            writer: WriterSettings::default(),
            stale_after: Duration::from_secs(10),
            writer_id: u128::from_le_bytes(id),
        })
    }
}

/// What the driver is asked.
#[derive(Debug)]
enum Request {
    Write(Vec<Operation>, oneshot::Sender<Result<Written, WriteError>>),
    /// Answered when both tasks have ended.
    Stop(oneshot::Sender<()>),
}

/// See the module. Dropping it ends its tasks without waiting for them; [`Node::stop`] waits.
#[derive(Debug)]
pub struct Node {
    requests: mpsc::UnboundedSender<Request>,
    progress: Arc<Progress>,
}

impl Node {
    /// Starts to follow the log from where the store is.
    pub fn start(
        runtime: &tokio::runtime::Handle,
        applier: Applier,
        log: Arc<dyn ReplicatedLog>,
        settings: NodeSettings,
    ) -> Arc<Node> {
        let (requests, from_clients) = mpsc::unbounded_channel();
        let (events, from_tasks) = mpsc::unbounded_channel();
        let (stop, stopping) = watch::channel(false);
        let progress = Arc::new(Progress::new(applier.state(), settings.stale_after));
        let state = *applier.state();
        let follower = Follower::new(log.clone(), progress.clone(), events.clone(), settings.writer_id);
        let following = runtime.spawn(follower.run(applier, stopping));
        let driver = Driver::new(log, progress.clone(), events, (state, settings));
        runtime.spawn(async move {
            let ends = driver.run(from_clients, from_tasks).await;
            stop.send_replace(true);
            // It has ended, whether or not it panicked.
            drop(following.await);
            if let Some(ends) = ends {
                // Who asked may have gone away.
                let _ = ends.send(());
            }
        });
        Arc::new(Node { requests, progress })
    }

    /// Writes: answers when this node has applied the write itself.
    pub async fn write(&self, operations: Vec<Operation>) -> Result<Written, WriteError> {
        let (answer, answered) = oneshot::channel();
        let request = Request::Write(operations, answer);
        self.requests.send(request).map_err(|_| WriteError::Stopped)?;
        answered.await.unwrap_or(Err(WriteError::Stopped))
    }

    /// Waits until this position is applied; false if that takes longer than `patience`.
    pub async fn wait_for(&self, position: u64, patience: Duration) -> bool {
        let mut positions = self.progress.positions();
        let reached = positions.wait_for(|applied| *applied >= position);
        matches!(tokio::time::timeout(patience, reached).await, Ok(Ok(_)))
    }

    /// The position that is applied.
    pub fn position(&self) -> u64 {
        self.progress.position()
    }

    /// The log's time, as near as it is known here, in milliseconds since the Unix epoch: that of
    /// the last entry and the time since then. Never goes back. What expires until then is hidden.
    pub fn now_ms(&self) -> u64 {
        self.progress.now_ms()
    }

    /// As [`Status::age`], for each answer to tell.
    pub fn age(&self) -> Duration {
        self.progress.age()
    }

    /// How it is.
    pub fn status(&self) -> Status {
        self.progress.status()
    }

    /// Answers all writes that wait, stops following, and returns when nothing uses the store any
    /// more.
    pub async fn stop(&self) {
        let (done, is_done) = oneshot::channel();
        if self.requests.send(Request::Stop(done)).is_ok() {
            // An error says that it has stopped already.
            let _ = is_done.await;
        }
    }
}
