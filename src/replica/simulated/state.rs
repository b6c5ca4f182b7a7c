//! What a simulated log knows, and what may happen to it next.

use std::collections::{HashMap, VecDeque};

use bytes::Bytes;

use super::{Acknowledgement, Faults, Happened};
use crate::log::{Bounds, Delivery, LogError};

/// Numbers from a seed: SplitMix64.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound.max(1)
    }
}

/// A publication on its way.
#[derive(Clone, Debug)]
struct Sending {
    /// Who waits for it; None for a copy.
    ticket: Option<u64>,
    id: String,
    entry: Bytes,
}

/// An entry that only the leader has.
#[derive(Debug)]
struct Uncommitted {
    id: String,
    entry: Bytes,
    tickets: Vec<u64>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) random: Random,
    pub(super) faults: Faults,
    pub(super) happened: Happened,
    pub(super) is_down: bool,
    pub(super) window_ms: u64,
    pub(super) skew_ms: i64,
    pub(super) acknowledgements: Vec<Acknowledgement>,
    now_ms: u64,
    /// Since when tokio's time counts.
    pub(super) connected: Option<tokio::time::Instant>,
    next_ticket: u64,
    network: Vec<Sending>,
    leader: Vec<Uncommitted>,
    /// Position of the oldest entry, or of the next one.
    first: u64,
    entries: VecDeque<Delivery>,
    /// Position and time, by id.
    known: HashMap<String, (u64, u64)>,
}

impl State {
    pub(super) fn new(seed: u64, now_ms: u64) -> State {
        State {
            random: Random(seed),
            faults: Faults::default(),
            happened: Happened::default(),
            is_down: false,
            window_ms: 120_000,
            skew_ms: 0,
            acknowledgements: Vec::new(),
            now_ms,
            connected: None,
            next_ticket: 1 << 63,
            network: Vec::new(),
            leader: Vec::new(),
            first: 1,
            entries: VecDeque::new(),
            known: HashMap::new(),
        }
    }

    /// Tickets of publications under tokio; those by hand are smaller.
    pub(super) fn next_ticket(&mut self) -> u64 {
        self.next_ticket += 1;
        self.next_ticket
    }

    pub(super) fn advance(&mut self, ms: u64) {
        self.now_ms += ms;
    }

    pub(super) fn check_up(&self) -> Result<(), LogError> {
        if self.is_down {
            return Err(LogError::Unavailable("the simulated log is down".to_owned()));
        }
        Ok(())
    }

    pub(super) fn bounds(&self) -> Bounds {
        Bounds {
            first: self.first,
            last: self.first + self.entries.len() as u64 - 1,
            entries: self.entries.len() as u64,
        }
    }

    pub(super) fn entry(&self, position: u64) -> Option<Delivery> {
        let place = usize::try_from(position.checked_sub(self.first)?).ok()?;
        self.entries.get(place).cloned()
    }

    pub(super) fn truncate(&mut self, first: u64) {
        while self.first < first && self.entries.pop_front().is_some() {
            self.first += 1;
        }
    }

    pub(super) fn shorten(&mut self, next: u64) {
        let kept = next.saturating_sub(self.first);
        self.entries.truncate(usize::try_from(kept).unwrap_or(usize::MAX));
    }

    pub(super) fn send(&mut self, ticket: Option<u64>, id: &str, entry: Bytes) {
        self.network.push(Sending {
            ticket,
            id: id.to_owned(),
            entry,
        });
    }

    pub(super) fn forget(&mut self, tickets: impl Fn(u64) -> bool) {
        self.acknowledgements.retain(|(ticket, _)| !tickets(*ticket));
        for sending in &mut self.network {
            sending.ticket = sending.ticket.filter(|ticket| !tickets(*ticket));
        }
        for entry in &mut self.leader {
            entry.tickets.retain(|ticket| !tickets(*ticket));
        }
    }

    /// Whether a fault that occurs this often occurs now.
    pub(super) fn strikes(&mut self, thousandths: u64) -> bool {
        thousandths > 0 && self.random.below(1000) < thousandths
    }

    /// Whether anything happened, and whether it was a commit.
    pub(super) fn step(&mut self) -> (bool, bool) {
        let moves = self.network.len() as u64 + u64::from(!self.leader.is_empty());
        if moves == 0 {
            return (false, false);
        }
        let chosen = self.random.below(moves) as usize;
        if let Some(sending) = self.network.get(chosen) {
            // Copies take much longer.
            if sending.ticket.is_some() || self.random.below(30) == 0 {
                self.arrive(chosen);
            }
            return (true, false);
        }
        if self.strikes(self.faults.leader_lost) {
            self.lose_leader();
            return (true, false);
        }
        self.commit();
        (true, true)
    }

    /// A publication arrives at the leader, or gets lost.
    fn arrive(&mut self, place: usize) {
        let sending = self.network.swap_remove(place);
        if self.is_down || self.strikes(self.faults.lost) {
            self.happened.faults.lost += 1;
            self.fail(sending.ticket);
            return;
        }
        if self.strikes(self.faults.repeated) {
            self.happened.faults.repeated += 1;
            self.network.push(Sending {
                ticket: None,
                ..sending.clone()
            });
        }
        let (now_ms, window_ms) = (self.now(), self.window_ms);
        self.known
            .retain(|_, (_, at_ms)| now_ms.saturating_sub(*at_ms) < window_ms);
        if let Some((position, _)) = self.known.get(&sending.id) {
            self.happened.deduplicated += 1;
            let taken = sending.ticket.map(|ticket| (ticket, Ok(*position)));
            self.acknowledgements.extend(taken);
            return;
        }
        if let Some(entry) = self.leader.iter_mut().find(|entry| entry.id == sending.id) {
            self.happened.deduplicated += 1;
            entry.tickets.extend(sending.ticket);
            return;
        }
        self.leader.push(Uncommitted {
            id: sending.id,
            entry: sending.entry,
            tickets: Vec::from_iter(sending.ticket),
        });
    }

    /// Half of what fails says so.
    fn fail(&mut self, ticket: Option<u64>) {
        if let Some(ticket) = ticket
            && self.random.below(2) == 0
        {
            let error = LogError::Unavailable("the publication failed".to_owned());
            self.acknowledgements.push((ticket, Err(error)));
        }
    }

    fn commit(&mut self) {
        for uncommitted in std::mem::take(&mut self.leader) {
            let position = self.first + self.entries.len() as u64;
            let now_ms = self.now();
            self.known.insert(uncommitted.id, (position, now_ms));
            self.entries.push_back(Delivery {
                position,
                stamp_ms: now_ms.saturating_add_signed(self.skew_ms),
                bytes: uncommitted.entry,
            });
            for ticket in uncommitted.tickets {
                if self.strikes(self.faults.unacknowledged) {
                    self.happened.faults.unacknowledged += 1;
                    self.fail(Some(ticket));
                } else {
                    self.acknowledgements.push((ticket, Ok(position)));
                }
            }
        }
    }

    fn lose_leader(&mut self) {
        self.happened.faults.leader_lost += 1;
        for uncommitted in std::mem::take(&mut self.leader) {
            self.happened.entries_lost += 1;
            for ticket in uncommitted.tickets {
                self.fail(Some(ticket));
            }
        }
    }

    fn now(&self) -> u64 {
        let passed_ms = self.connected.map_or(0, |since| since.elapsed().as_millis() as u64);
        self.now_ms + passed_ms
    }
}
