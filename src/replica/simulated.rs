//! A log in memory, for tests: with everything that goes wrong, in an order that a seed decides.
//!
//! By hand: [`SimulatedLog::send`] puts a publication on its way, [`SimulatedLog::step`] lets one
//! thing happen (a publication arrives, the leader commits or is lost), and
//! [`SimulatedLog::acknowledgements`] tells the results. [`SimulatedLog::reader`] hands out what is
//! committed. So a test is its own scheduler, and the same seed gives the same history.
//!
//! Under tokio it is a [`ReplicatedLog`]: each publication makes the steps itself, in tokio's time,
//! which a test may pause.

mod reader;
mod state;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;

pub use self::reader::SimulatedReader;
use self::state::State;
use crate::log::{Bounds, LogError, LogReader, Pending, ReplicatedLog};

/// How often things go wrong, in thousandths of the occasions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// A publication does not arrive.
    pub lost: u64,
    /// A publication arrives, and a copy of it again much later.
    pub repeated: u64,
    /// The entry is taken, and its acknowledgement gets lost.
    pub unacknowledged: u64,
    /// The leader is lost with all entries that it has not committed.
    pub leader_lost: u64,
    /// A reader leaves an entry out.
    pub gap: u64,
    /// A reader delivers an entry twice.
    pub duplicate: u64,
    /// A reader swaps two entries.
    pub reordered: u64,
    /// A reader delivers an entry with a bit flipped.
    pub damaged: u64,
    /// A reader ends with an error.
    pub failed: u64,
    /// A reader never delivers anything again, and does not say so.
    pub silent: u64,
}

impl Faults {
    /// Everything goes wrong this often.
    pub fn all(thousandths: u64) -> Faults {
        Faults {
            lost: thousandths,
            repeated: thousandths,
            unacknowledged: thousandths,
            leader_lost: thousandths,
            gap: thousandths,
            duplicate: thousandths,
            reordered: thousandths,
            damaged: thousandths,
            failed: thousandths,
            silent: thousandths,
        }
    }
}

/// How often what has happened, so that a test can tell that it has tested something.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Happened {
    /// Faults by kind. Those of publications count each publication.
    pub faults: Faults,
    /// Publications dropped because the log knew their id.
    pub deduplicated: u64,
    /// Entries lost with their leader.
    pub entries_lost: u64,
}

/// What became of a publication, by the ticket that it was sent with.
pub type Acknowledgement = (u64, Result<u64, LogError>);

/// See the module.
#[derive(Debug)]
pub struct SimulatedLog {
    state: Mutex<State>,
    /// Told of commits.
    committed: Notify,
}

impl SimulatedLog {
    /// An empty log. Its clock begins at `now_ms`.
    pub fn new(seed: u64, now_ms: u64) -> Arc<SimulatedLog> {
        Arc::new(SimulatedLog {
            state: Mutex::new(State::new(seed, now_ms)),
            committed: Notify::new(),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets how often things go wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state().faults = faults;
    }

    /// While it is, publications fail, readers end, and nothing is told.
    pub fn set_down(&self, is_down: bool) {
        self.state().is_down = is_down;
        self.committed.notify_waiters();
    }

    /// Sets for how long the log knows the id of an entry.
    pub fn set_window_ms(&self, window_ms: u64) {
        self.state().window_ms = window_ms;
    }

    /// Moves time on. From the first connection on, tokio's time counts as well.
    pub fn advance(&self, ms: u64) {
        self.state().advance(ms);
    }

    /// Sets by how much the clock that stamps entries is off.
    pub fn set_skew_ms(&self, skew_ms: i64) {
        self.state().skew_ms = skew_ms;
    }

    /// Forgets all entries before this position, as a log does by their age.
    pub fn truncate(&self, first: u64) {
        self.state().truncate(first);
    }

    /// Loses all entries from this position on, although they were acknowledged: what no log may.
    pub fn shorten(&self, next: u64) {
        self.state().shorten(next);
    }

    /// What happened until now.
    pub fn happened(&self) -> Happened {
        self.state().happened.clone()
    }

    /// What the log holds.
    pub fn holds(&self) -> Bounds {
        self.state().bounds()
    }

    /// The committed entry at this position.
    pub fn entry(&self, position: u64) -> Option<crate::log::Delivery> {
        self.state().entry(position)
    }

    /// Puts a publication on its way.
    pub fn send(&self, ticket: u64, id: &str, entry: Bytes) {
        self.state().send(Some(ticket), id, entry);
    }

    /// Lets one thing happen; false if there was nothing to happen.
    pub fn step(&self) -> bool {
        let (happened, is_committed) = self.state().step();
        if is_committed {
            self.committed.notify_waiters();
        }
        happened
    }

    /// Takes a publication off the network, and whatever waits for it.
    pub fn forget_sender(&self, tickets: impl Fn(u64) -> bool) {
        self.state().forget(tickets);
    }

    /// What is acknowledged since the last call, or has failed.
    pub fn acknowledgements(&self) -> Vec<Acknowledgement> {
        std::mem::take(&mut self.state().acknowledgements)
    }

    /// A reader that begins at this position.
    pub fn reader(self: &Arc<Self>, position: u64) -> SimulatedReader {
        SimulatedReader::new(self.clone(), position)
    }

    /// The result of one publication, if it is known.
    fn acknowledged(&self, ticket: u64) -> Option<Result<u64, LogError>> {
        let mut state = self.state();
        let place = state.acknowledgements.iter().position(|(of, _)| *of == ticket)?;
        Some(state.acknowledgements.swap_remove(place).1)
    }

    async fn publish_in_steps(&self, id: &str, entry: Bytes) -> Result<u64, LogError> {
        let ticket = {
            let mut state = self.state();
            let ticket = state.next_ticket();
            state.send(Some(ticket), id, entry);
            ticket
        };
        loop {
            if let Some(result) = self.acknowledged(ticket) {
                return result;
            }
            let pause_ms = self.state().random.below(3);
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
            self.step();
        }
    }
}

/// The log as a node sees it under tokio.
#[derive(Clone, Debug)]
pub struct SimulatedConnection(Arc<SimulatedLog>);

impl SimulatedConnection {
    /// Connects.
    pub fn new(log: Arc<SimulatedLog>) -> SimulatedConnection {
        log.state().connected.get_or_insert_with(tokio::time::Instant::now);
        SimulatedConnection(log)
    }
}

impl ReplicatedLog for SimulatedConnection {
    fn publish<'a>(&'a self, id: &'a str, entry: Bytes) -> Pending<'a, Result<u64, LogError>> {
        Box::pin(self.0.publish_in_steps(id, entry))
    }

    fn bounds(&self) -> Pending<'_, Result<Bounds, LogError>> {
        Box::pin(async {
            let state = self.0.state();
            state.check_up()?;
            Ok(state.bounds())
        })
    }

    fn read_from(&self, position: u64) -> Pending<'_, Result<Box<dyn LogReader>, LogError>> {
        Box::pin(async move {
            self.0.state().check_up()?;
            Ok(Box::new(self.0.reader(position)) as Box<dyn LogReader>)
        })
    }
}
