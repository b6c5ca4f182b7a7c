//! Owns the writer: takes writes, publishes entries, sends beats.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::progress::{Doing, Progress};
use super::{NodeSettings, Request};
use crate::applier::Applied;
use crate::log::{Bounds, LogError, ReplicatedLog};
use crate::state::State;
use crate::writer::{Publication, WriteError, Writer, Written};

/// A node sends a beat when it has applied nothing for this long,
const IDLE_MS: u64 = 1000;
/// and up to this much longer, so that not all nodes send one at once,
const SPREAD_MS: u64 = 250;
/// and when it has sent none for this long.
const OWN_BEAT_MS: u64 = 10_000;
/// How often the log is asked what it holds.
const BOUNDS_MS: u64 = 1000;
/// Most requests and events that are taken before publishing.
const TAKEN_MAX: usize = 1000;

/// What the other tasks tell the driver.
#[derive(Debug)]
pub(super) enum Event {
    /// An attempt to publish the entry of this counter has ended.
    Published(u64, Result<u64, LogError>),
    /// Entries were applied; those of this node, and the state after all.
    Applied(Vec<Applied>, State),
    /// What was in the log at the start is applied.
    CaughtUp,
    /// What the log holds, asked when the replica was there.
    Bounds(State, Bounds),
}

type Answer = oneshot::Sender<Result<Written, WriteError>>;

#[derive(Debug)]
pub(super) struct Driver {
    log: Arc<dyn ReplicatedLog>,
    progress: Arc<Progress>,
    events: mpsc::UnboundedSender<Event>,
    writer: Writer<Answer>,
    attempt_timeout: Duration,
    /// Publications and questions on their way; they end with the driver.
    tasks: JoinSet<()>,
    state: State,
    /// Whether an entry of this node has come back.
    knows_time: bool,
    spread_ms: u64,
    applied_at_ms: u64,
    beat_at_ms: Option<u64>,
    bounds_at_ms: u64,
    started: Instant,
}

impl Driver {
    pub(super) fn new(
        log: Arc<dyn ReplicatedLog>,
        progress: Arc<Progress>,
        events: mpsc::UnboundedSender<Event>,
        (state, settings): (State, NodeSettings),
    ) -> Driver {
        Driver {
            log,
            progress,
            events,
            attempt_timeout: Duration::from_millis(settings.writer.attempt_timeout_ms),
            // Writer ids are random.
            spread_ms: (settings.writer_id % u128::from(SPREAD_MS)) as u64,
            writer: Writer::new(state.cluster, settings.writer_id, settings.writer),
            tasks: JoinSet::new(),
            state,
            knows_time: false,
            applied_at_ms: 0,
            beat_at_ms: None,
            bounds_at_ms: 0,
            started: Instant::now(),
        }
    }

    /// Runs until it is asked to stop, and returns who asked, or until the node is dropped.
    pub(super) async fn run(
        mut self,
        mut requests: mpsc::UnboundedReceiver<Request>,
        mut events: mpsc::UnboundedReceiver<Event>,
    ) -> Option<oneshot::Sender<()>> {
        let ends = loop {
            let wake = self.started + Duration::from_millis(self.next_wake_ms());
            tokio::select! {
                request = requests.recv() => match request {
                    Some(Request::Write(operations, answer)) => self.submit(operations, answer),
                    Some(Request::Stop(ends)) => break Some(ends),
                    None => break None,
                },
                Some(event) = events.recv() => self.note(event),
                () = sleep_until(wake) => {}
            }
            if let Some(ends) = self.take_waiting(&mut requests, &mut events) {
                break Some(ends);
            }
            self.publish();
        };
        self.writer.stop();
        self.answer();
        requests.close();
        while let Some(Request::Write(_, answer)) = requests.recv().await {
            // Who asked may have gone away.
            let _ = answer.send(Err(WriteError::Stopped));
        }
        ends
    }

    /// Takes what has come meanwhile, so that it is packed together.
    fn take_waiting(
        &mut self,
        requests: &mut mpsc::UnboundedReceiver<Request>,
        events: &mut mpsc::UnboundedReceiver<Event>,
    ) -> Option<oneshot::Sender<()>> {
        for _ in 0..TAKEN_MAX {
            match (events.try_recv(), requests.try_recv()) {
                (Err(_), Err(_)) => break,
                (event, request) => {
                    if let Ok(event) = event {
                        self.note(event);
                    }
                    match request {
                        Ok(Request::Write(operations, answer)) => self.submit(operations, answer),
                        Ok(Request::Stop(ends)) => return Some(ends),
                        Err(_) => {}
                    }
                }
            }
        }
        None
    }

    fn now_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn submit(&mut self, operations: Vec<crate::entry::Operation>, answer: Answer) {
        if self.progress.doing() == Doing::Stopped {
            // The follower has ended by a panic: nothing would ever be applied.
            let _ = answer.send(Err(WriteError::Stopped));
            return;
        }
        let now_ms = self.now_ms();
        if let Err((answer, error)) = self.writer.submit(operations, answer, now_ms) {
            // Who asked may have gone away; so below.
            let _ = answer.send(Err(error));
        }
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::Published(counter, result) => self.writer.published(counter, result, self.now_ms()),
            Event::Applied(own, state) => {
                self.knows_time |= !own.is_empty();
                self.state = state;
                self.applied_at_ms = self.now_ms();
                for applied in &own {
                    self.writer.applied(applied);
                }
            }
            // The first beat is due: with it the log's time becomes known.
            Event::CaughtUp => self.beat_at_ms = None,
            Event::Bounds(asked, bounds) => {
                // One that was on its way while entries were applied says nothing wrong.
                let misfit = asked.check_bounds(&bounds).err();
                self.progress.set_log(bounds, misfit);
            }
        }
    }

    /// Publishes what is due, and answers.
    fn publish(&mut self) {
        while self.tasks.try_join_next().is_some() {}
        let now_ms = self.now_ms();
        let log_ms = self.progress.now_ms();
        let known_ms = self.knows_time.then_some(log_ms);
        let mut publications = self.writer.poll(now_ms, known_ms);
        if self.beat_is_due(now_ms) {
            self.beat_at_ms = Some(now_ms);
            let State { position, digest, .. } = self.state;
            publications.extend(self.writer.beat(position, digest, (now_ms, log_ms)));
        }
        // A log that has lost entries must not grow by this node's own: once it is as long as this
        // replica has come, nothing would tell that it is not the log that was applied.
        if self.progress.fits() {
            for publication in publications {
                self.send(publication);
            }
        }
        if self.bounds_at_ms <= now_ms {
            self.bounds_at_ms = now_ms + BOUNDS_MS;
            self.ask_bounds();
        }
        self.answer();
    }

    fn send(&mut self, publication: Publication) {
        let (log, events) = (self.log.clone(), self.events.clone());
        let attempt_timeout = self.attempt_timeout;
        self.tasks.spawn(async move {
            let Publication { counter, id, entry } = publication;
            let published = timeout(attempt_timeout, log.publish(&id, entry)).await;
            let result = published.unwrap_or_else(|_| Err(LogError::Unavailable("no answer in time".to_owned())));
            // The driver may have ended.
            let _ = events.send(Event::Published(counter, result));
        });
    }

    fn ask_bounds(&mut self) {
        let (log, events, state) = (self.log.clone(), self.events.clone(), self.state);
        self.tasks.spawn(async move {
            if let Ok(Ok(bounds)) = timeout(Duration::from_millis(BOUNDS_MS), log.bounds()).await {
                // The driver may have ended.
                let _ = events.send(Event::Bounds(state, bounds));
            }
        });
    }

    fn answer(&mut self) {
        for (answer, result) in self.writer.answers() {
            let _ = answer.send(result);
        }
        self.progress.set_held(self.writer.held());
    }

    fn beat_due_ms(&self) -> u64 {
        let Some(last_ms) = self.beat_at_ms else {
            return 0;
        };
        if !self.knows_time {
            return last_ms + IDLE_MS / 2;
        }
        let idle_ms = self.applied_at_ms.max(last_ms) + IDLE_MS + self.spread_ms;
        idle_ms.min(last_ms + OWN_BEAT_MS)
    }

    fn beat_is_due(&self, now_ms: u64) -> bool {
        let is_caught_up = self.progress.doing() == Doing::Following;
        is_caught_up && self.beat_due_ms() <= now_ms
    }

    /// When to look again at the latest.
    fn next_wake_ms(&self) -> u64 {
        let now_ms = self.now_ms();
        let mut wake_ms = self.bounds_at_ms;
        if self.progress.doing() == Doing::Following {
            wake_ms = wake_ms.min(self.beat_due_ms());
        }
        let writer_ms = self.writer.next_wake_ms(self.knows_time).unwrap_or(u64::MAX);
        wake_ms.min(writer_ms).max(now_ms + 1)
    }
}
