//! What a node shows of itself: its position, its time, and what is wrong.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

use crate::log::Bounds;
use crate::state::{Misfit, State};

/// What a node is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It has not reached the log yet.
    Starting,
    /// It applies entries that were there when it started.
    CatchingUp,
    /// It applies entries as they come.
    Following,
    /// Something is wrong: see [`Status::trouble`].
    Waiting,
    /// It has stopped.
    Stopped,
}

/// How a node is.
#[derive(Clone, Debug)]
pub struct Status {
    /// What it is doing.
    pub doing: Doing,
    /// The last position that it has applied.
    pub position: u64,
    /// What the log held when it was asked last.
    pub log: Option<Bounds>,
    /// Time of the log at that position.
    pub log_ms: u64,
    /// How old what it shows may be: the time since an entry came, or since the log was first seen
    /// to hold one that is not applied yet.
    pub age: Duration,
    /// Readers that were given up because an entry was missing.
    pub gaps: u64,
    /// Readers that were given up because an entry was damaged or foreign.
    pub damaged: u64,
    /// Readers that were given up because the log failed or was silent.
    pub failed: u64,
    /// Times that the store refused an entry.
    pub refused: u64,
    /// Operations that wait for their answer.
    pub held: usize,
    /// What stops it from applying the next entry, and for how long it has.
    pub trouble: Option<(String, Duration)>,
    /// Why it must be seeded again, or given its old log back.
    pub misfit: Option<Misfit>,
    /// How many entries the log has lost between its first and its last.
    pub missing: u64,
    /// Whether half of the nodes heard of have applied something else.
    pub disagrees: bool,
    /// Why it is not ready; None if it is.
    pub not_ready: Option<String>,
}

/// Why a reader was given up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Gap,
    Damaged,
    Failed,
    Refused,
    /// Not counted: it lasts until somebody acts.
    Misfit,
}

#[derive(Debug)]
struct Inner {
    doing: Doing,
    log: Option<Bounds>,
    log_ms: u64,
    last_entry: Instant,
    /// A position that the log held then, and that is not applied yet. A node that applies more
    /// slowly than others write would never be stale by its last entry alone.
    behind: Option<(u64, Instant)>,
    counts: [u64; 4],
    held: usize,
    trouble: Option<(String, Instant)>,
    misfit: Option<Misfit>,
    /// Whether the log has another entry where this replica has applied one.
    is_other_log: bool,
    disagrees: bool,
}

impl Inner {
    fn age(&self) -> Duration {
        let since = self
            .behind
            .map_or(self.last_entry, |(_, since)| since.min(self.last_entry));
        since.elapsed()
    }
}

#[derive(Debug)]
pub(super) struct Progress {
    inner: Mutex<Inner>,
    position: watch::Sender<u64>,
    stale_after: Duration,
    started: Instant,
    /// Log time minus the time since the start, modulo 2^64, when the last entry came.
    base_ms: AtomicU64,
    /// The latest time that was told.
    told_ms: AtomicU64,
}

impl Progress {
    pub(super) fn new(state: &State, stale_after: Duration) -> Progress {
        let started = Instant::now();
        Progress {
            inner: Mutex::new(Inner {
                doing: Doing::Starting,
                log: None,
                log_ms: state.log_ms(),
                last_entry: started,
                behind: None,
                counts: [0; 4],
                held: 0,
                trouble: None,
                misfit: None,
                is_other_log: false,
                disagrees: false,
            }),
            position: watch::Sender::new(state.position),
            stale_after,
            started,
            base_ms: AtomicU64::new(state.log_ms()),
            told_ms: AtomicU64::new(state.log_ms()),
        }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn positions(&self) -> watch::Receiver<u64> {
        self.position.subscribe()
    }

    pub(super) fn position(&self) -> u64 {
        *self.position.borrow()
    }

    /// Milliseconds since the start.
    pub(super) fn elapsed_ms(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    pub(super) fn now_ms(&self) -> u64 {
        let now_ms = self.base_ms.load(Ordering::Acquire).wrapping_add(self.elapsed_ms());
        let told_ms = self.told_ms.load(Ordering::Acquire);
        if now_ms <= told_ms {
            return told_ms;
        }
        self.told_ms.fetch_max(now_ms, Ordering::AcqRel).max(now_ms)
    }

    /// Entries were applied.
    pub(super) fn applied(&self, state: &State) {
        let elapsed_ms = self.elapsed_ms();
        self.told_ms.fetch_max(state.log_ms(), Ordering::AcqRel);
        self.base_ms
            .store(state.log_ms().wrapping_sub(elapsed_ms), Ordering::Release);
        let mut inner = self.inner();
        inner.log_ms = state.log_ms();
        inner.last_entry = Instant::now();
        inner.behind = inner.behind.filter(|(position, _)| *position > state.position);
        inner.trouble = None;
        inner.misfit = None;
        inner.is_other_log = false;
        // Under the lock, so that what the log holds is compared with this position.
        self.position.send_replace(state.position);
    }

    pub(super) fn set_doing(&self, doing: Doing) {
        self.inner().doing = doing;
    }

    pub(super) fn doing(&self) -> Doing {
        self.inner().doing
    }

    pub(super) fn set_held(&self, held: usize) {
        self.inner().held = held;
    }

    pub(super) fn set_disagrees(&self, disagrees: bool) {
        let had = std::mem::replace(&mut self.inner().disagrees, disagrees);
        if disagrees && !had {
            tracing::error!("half of the other replicas or more have applied something else; seed this one again");
        }
    }

    /// What the log holds, asked when this position was applied.
    pub(super) fn set_log(&self, bounds: Bounds, misfit: Option<Misfit>) {
        let mut inner = self.inner();
        let had = inner.misfit.take();
        inner.log = Some(bounds);
        if inner.behind.is_none() && bounds.last > self.position() {
            inner.behind = Some((bounds.last, Instant::now()));
        }
        inner.misfit = misfit;
        drop(inner);
        if let Some(misfit) = misfit
            && had != Some(misfit)
        {
            tracing::error!(%misfit, "the log does not fit this replica");
        }
    }

    /// The log has another entry where this replica has applied one.
    pub(super) fn set_other_log(&self) {
        self.inner().is_other_log = true;
    }

    /// Whether the log was one that this replica can go on with, when it was asked last.
    pub(super) fn fits(&self) -> bool {
        let inner = self.inner();
        inner.misfit.is_none() && !inner.is_other_log
    }

    /// Notes why a reader was given up. It is logged when it is new.
    pub(super) fn trouble(&self, cause: Cause, what: String) {
        let mut inner = self.inner();
        if let Some(count) = inner.counts.get_mut(cause as usize) {
            *count += 1;
        }
        let is_known = inner.trouble.as_ref().is_some_and(|(known, _)| *known == what);
        let since = inner.trouble.as_ref().map_or_else(Instant::now, |(_, since)| *since);
        inner.trouble = Some((what.clone(), since));
        drop(inner);
        if !is_known {
            tracing::warn!(
                cause = what,
                "reading the log again from the last entry that was applied"
            );
        }
    }

    pub(super) fn age(&self) -> Duration {
        self.inner().age()
    }

    pub(super) fn status(&self) -> Status {
        let position = self.position();
        let inner = self.inner();
        let [gaps, damaged, failed, refused] = inner.counts;
        let mut status = Status {
            doing: inner.doing,
            position,
            log: inner.log,
            log_ms: inner.log_ms,
            age: inner.age(),
            gaps,
            damaged,
            failed,
            refused,
            held: inner.held,
            trouble: inner
                .trouble
                .as_ref()
                .map(|(what, since)| (what.clone(), since.elapsed())),
            misfit: inner.misfit,
            missing: inner.log.as_ref().map_or(0, missing),
            disagrees: inner.disagrees,
            not_ready: None,
        };
        drop(inner);
        if status.trouble.is_some() && status.doing == Doing::Following {
            status.doing = Doing::Waiting;
        }
        status.not_ready = self.not_ready(&status);
        status
    }

    fn not_ready(&self, status: &Status) -> Option<String> {
        if let Some(misfit) = &status.misfit {
            return Some(misfit.to_string());
        }
        if self.inner().is_other_log {
            let what = "the log has another entry where this replica has applied one; see `replica reset-log`";
            return Some(what.to_owned());
        }
        if status.disagrees {
            return Some("other replicas have applied something else; seed this one again".to_owned());
        }
        match status.doing {
            Doing::Starting => {
                let what = status.trouble.as_ref().map_or("", |(what, _)| what);
                return Some(format!("it has not reached the log yet: {what}"));
            }
            Doing::CatchingUp => {
                let last = status.log.map_or(0, |log| log.last);
                return Some(format!("it has applied {} of {last} entries", status.position));
            }
            Doing::Stopped => return Some("it has stopped".to_owned()),
            Doing::Following | Doing::Waiting => {}
        }
        if status.age <= self.stale_after {
            return None;
        }
        let (seconds, position) = (status.age.as_secs(), status.position);
        let last = status.log.map_or(0, |log| log.last);
        Some(match &status.trouble {
            Some((what, _)) => format!("no entry was applied for {seconds} s: {what}"),
            None if last > position => format!("it is {seconds} s behind: it has applied {position} of {last} entries"),
            None => format!("no entry has come for {seconds} s"),
        })
    }
}

/// Entries that should lie between the first and the last, and do not.
fn missing(bounds: &Bounds) -> u64 {
    let positions = (bounds.last + 1).saturating_sub(bounds.first);
    positions.saturating_sub(bounds.entries)
}
