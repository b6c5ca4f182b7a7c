//! Reading a simulated log.

use std::sync::Arc;

use super::SimulatedLog;
use super::state::State;
use crate::log::{Delivery, LogError, LogReader, Pending};

/// Most entries of one delivery.
const DELIVERED_MAX: u64 = 40;

/// Reads a simulated log, one delivery after the other, with its faults.
#[derive(Debug)]
pub struct SimulatedReader {
    log: Arc<SimulatedLog>,
    next: u64,
    is_silent: bool,
}

impl SimulatedReader {
    pub(super) fn new(log: Arc<SimulatedLog>, next: u64) -> SimulatedReader {
        SimulatedReader {
            log,
            next,
            is_silent: false,
        }
    }

    /// Some of the next entries, or none if there are none, or if the reader has gone silent.
    pub fn take(&mut self) -> Result<Vec<Delivery>, LogError> {
        let log = self.log.clone();
        let mut state = log.state();
        state.check_up()?;
        let faults = state.faults.clone();
        if state.strikes(faults.failed) {
            state.happened.faults.failed += 1;
            return Err(LogError::Unavailable("the reader failed".to_owned()));
        }
        if !self.is_silent && state.strikes(faults.silent) {
            state.happened.faults.silent += 1;
            self.is_silent = true;
        }
        let bounds = state.bounds();
        self.next = self.next.max(bounds.first);
        let there = (bounds.last + 1).saturating_sub(self.next);
        if self.is_silent || there == 0 {
            return Ok(Vec::new());
        }
        let count = 1 + state.random.below(there.min(DELIVERED_MAX));
        let positions = self.next..self.next + count;
        let mut deliveries = positions.filter_map(|position| state.entry(position)).collect();
        self.next += count;
        disturb(&mut state, &mut deliveries);
        Ok(deliveries)
    }
}

/// Lets faults happen to a delivery.
fn disturb(state: &mut State, deliveries: &mut Vec<Delivery>) {
    let faults = state.faults.clone();
    let any = |state: &mut State, of: &[Delivery]| state.random.below(of.len() as u64) as usize;
    if state.strikes(faults.duplicate) {
        state.happened.faults.duplicate += 1;
        let (from, to) = (any(state, deliveries), any(state, deliveries));
        let copy = deliveries.get(from).cloned();
        deliveries.splice(to..to, copy);
    }
    if deliveries.len() > 1 && state.strikes(faults.reordered) {
        let (one, other) = (any(state, deliveries), any(state, deliveries));
        state.happened.faults.reordered += u64::from(one != other);
        deliveries.swap(one, other);
    }
    if state.strikes(faults.damaged) {
        let place = any(state, deliveries);
        if let Some(delivery) = deliveries.get_mut(place)
            && !delivery.bytes.is_empty()
        {
            state.happened.faults.damaged += 1;
            let mut bytes = delivery.bytes.to_vec();
            let bit = state.random.below(8 * bytes.len() as u64);
            if let Some(byte) = bytes.get_mut((bit / 8) as usize) {
                *byte ^= 1 << (bit % 8);
            }
            delivery.bytes = bytes.into();
        }
    }
    if state.strikes(faults.gap) {
        state.happened.faults.gap += 1;
        let place = any(state, deliveries);
        deliveries.remove(place);
    }
}

impl LogReader for SimulatedReader {
    fn next(&mut self) -> Pending<'_, Result<Vec<Delivery>, LogError>> {
        Box::pin(async move {
            let log = self.log.clone();
            loop {
                let committed = log.committed.notified();
                tokio::pin!(committed);
                committed.as_mut().enable();
                let deliveries = self.take()?;
                if !deliveries.is_empty() {
                    return Ok(deliveries);
                }
                committed.await;
            }
        })
    }
}
