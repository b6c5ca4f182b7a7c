//! Reads the log and applies it.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use super::driver::Event;
use super::progress::{Cause, Doing, Progress};
use crate::applier::{Applied, Applier, ApplyError};
use crate::log::{Delivery, LogError, LogReader, ReplicatedLog};

/// How long the log may take to answer.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// A reader that delivers nothing for this long is given up: there is a beat each second.
const SILENCE_MAX: Duration = Duration::from_secs(4);
/// Readers are made this often at most.
const READER_INTERVAL: Duration = Duration::from_secs(1);
/// Deliveries that are read while others are applied.
const READ_AHEAD: usize = 4;
/// Most entries that are applied in one go, unless one delivery has more.
const APPLIED_MAX: usize = 1000;

/// Entries of a reader, which ends with the first error.
type Deliveries = mpsc::Receiver<Result<Vec<Delivery>, LogError>>;

#[derive(Debug)]
pub(super) struct Follower {
    log: Arc<dyn ReplicatedLog>,
    progress: Arc<Progress>,
    events: mpsc::UnboundedSender<Event>,
    writer_id: u128,
    /// The last position when the first reader was made.
    caught_up_at: Option<u64>,
}

/// Why no more is read from a reader.
type GivenUp = (Cause, String);

/// Reads on while entries are applied; ends when dropped.
struct ReadAhead {
    deliveries: Deliveries,
    task: JoinHandle<()>,
}

impl Drop for ReadAhead {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    pub(super) fn new(
        log: Arc<dyn ReplicatedLog>,
        progress: Arc<Progress>,
        events: mpsc::UnboundedSender<Event>,
        writer_id: u128,
    ) -> Follower {
        Follower {
            log,
            progress,
            events,
            writer_id,
            caught_up_at: None,
        }
    }

    /// Runs until it is told to stop. The store is free once this returns.
    pub(super) async fn run(mut self, applier: Applier, mut stopping: watch::Receiver<bool>) {
        let mut applier = Some(applier);
        while let Some(current) = applier.take() {
            let made = Instant::now();
            let (back, given_up) = self.follow(current, &mut stopping).await;
            applier = back;
            match given_up {
                Some((cause, what)) => self.progress.trouble(cause, what),
                None => break,
            }
            tokio::select! {
                () = sleep_until(made + READER_INTERVAL) => {}
                _ = stopping.wait_for(|stops| *stops) => break,
            }
        }
        self.progress.set_doing(Doing::Stopped);
    }

    /// Applies what one reader delivers. None if the node stops.
    async fn follow(
        &mut self,
        applier: Applier,
        stopping: &mut watch::Receiver<bool>,
    ) -> (Option<Applier>, Option<GivenUp>) {
        let opened = tokio::select! {
            opened = self.open(&applier) => opened,
            _ = stopping.wait_for(|stops| *stops) => return (Some(applier), None),
        };
        let mut reader = match opened {
            Ok(reader) => reader,
            Err(given_up) => return (Some(applier), Some(given_up)),
        };
        let mut applier = applier;
        loop {
            let read = tokio::select! {
                read = timeout(SILENCE_MAX, reader.deliveries.recv()) => read,
                _ = stopping.wait_for(|stops| *stops) => return (Some(applier), None),
            };
            let deliveries = match read {
                Ok(Some(Ok(deliveries))) => with_waiting(deliveries, &mut reader.deliveries),
                Ok(Some(Err(error))) => return (Some(applier), Some((Cause::Failed, error.to_string()))),
                Ok(None) => return (Some(applier), Some((Cause::Failed, "the reader ended".to_owned()))),
                Err(_) => {
                    let what = format!("the log has delivered nothing for {} s", SILENCE_MAX.as_secs());
                    return (Some(applier), Some((Cause::Failed, what)));
                }
            };
            let (back, stopped) = self.apply(applier, deliveries).await;
            match (back, stopped) {
                (Some(back), None) => applier = back,
                (back, stopped) => return (back, stopped),
            }
        }
    }

    /// A reader of what comes next, if the log has that.
    async fn open(&mut self, applier: &Applier) -> Result<ReadAhead, GivenUp> {
        let state = *applier.state();
        let bounds = answer(self.log.bounds()).await?;
        let misfit = state.check_bounds(&bounds).err();
        self.progress.set_log(bounds, misfit);
        if let Some(misfit) = misfit {
            return Err((Cause::Misfit, misfit.to_string()));
        }
        if self.caught_up_at.is_none() {
            self.caught_up_at = Some(bounds.last);
            self.progress.set_doing(Doing::CatchingUp);
        }
        // The last entry is read again, if it is still there, to see that this is the log of which
        // it was applied. Nothing is written before that.
        let is_kept = state.position > 0 && bounds.first <= state.position;
        let from = match is_kept {
            true => state.position,
            false => {
                self.note_caught_up(state.position);
                state.position.saturating_add(1)
            }
        };
        let reader = answer(self.log.read_from(from)).await?;
        let (sender, deliveries) = mpsc::channel(READ_AHEAD);
        let task = tokio::spawn(read_ahead(reader, sender));
        Ok(ReadAhead { deliveries, task })
    }

    /// Applies entries on a thread for blocking work. No applier comes back if it panicked.
    async fn apply(&mut self, mut applier: Applier, deliveries: Vec<Delivery>) -> (Option<Applier>, Option<GivenUp>) {
        let work = move || {
            let progress = applier.apply(&deliveries);
            (applier, progress)
        };
        let Ok((applier, applying)) = tokio::task::spawn_blocking(work).await else {
            return (None, Some((Cause::Refused, "applying an entry panicked".to_owned())));
        };
        if !applying.applied.is_empty() {
            self.progress.applied(applier.state());
            self.progress
                .set_disagrees(applier.disagreement(self.writer_id).is_some());
            let is_own = |applied: &Applied| applied.writer == self.writer_id;
            let own = applying.applied.into_iter().filter(is_own).collect();
            // The driver may have ended.
            let _ = self.events.send(Event::Applied(own, *applier.state()));
        }
        match &applying.stopped {
            Some(ApplyError::OtherLog { .. }) => self.progress.set_other_log(),
            Some(_) => {}
            None => self.note_caught_up(applier.state().position),
        }
        let given_up = applying.stopped.map(|error| (cause_of(&error), error.to_string()));
        (Some(applier), given_up)
    }

    fn note_caught_up(&self, position: u64) {
        let is_there = self.caught_up_at.is_some_and(|last| position >= last);
        if is_there && self.progress.doing() == Doing::CatchingUp {
            self.progress.set_doing(Doing::Following);
            // The driver may have ended.
            let _ = self.events.send(Event::CaughtUp);
        }
    }
}

/// With more that has arrived meanwhile, so that it is applied in one go. An error comes again.
fn with_waiting(mut deliveries: Vec<Delivery>, more: &mut Deliveries) -> Vec<Delivery> {
    while deliveries.len() < APPLIED_MAX {
        match more.try_recv() {
            Ok(Ok(next)) => deliveries.extend(next),
            // The reader has ended with it, which the next call finds.
            Ok(Err(_)) | Err(_) => break,
        }
    }
    deliveries
}

async fn read_ahead(mut reader: Box<dyn LogReader>, to: mpsc::Sender<Result<Vec<Delivery>, LogError>>) {
    loop {
        let read = reader.next().await;
        let is_over = read.is_err();
        if to.send(read).await.is_err() || is_over {
            return;
        }
    }
}

async fn answer<T>(asked: impl Future<Output = Result<T, LogError>>) -> Result<T, GivenUp> {
    match timeout(ANSWER_MAX, asked).await {
        Ok(answered) => answered.map_err(|error| (Cause::Failed, error.to_string())),
        Err(_) => {
            let what = format!("the log did not answer within {} s", ANSWER_MAX.as_secs());
            Err((Cause::Failed, what))
        }
    }
}

fn cause_of(error: &ApplyError) -> Cause {
    match error {
        ApplyError::Gap { .. } => Cause::Gap,
        ApplyError::Malformed { .. } | ApplyError::OtherCluster { .. } => Cause::Damaged,
        ApplyError::OtherLog { .. } => Cause::Misfit,
        ApplyError::State(_) | ApplyError::Store(_) => Cause::Refused,
    }
}
