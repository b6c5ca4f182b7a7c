//! Who holds how much memory, and who may have more.
//!
//! A claim grows as its bytes arrive, up to what it says that it will need. Claims that have begun
//! and need more must not wait for each other, so one grows only if all of them could still end one
//! after the other (the banker's algorithm). A client that holds more than its share must not keep
//! the others waiting: it gets no more while another waits that holds less, and its bodies that are
//! still arriving are pushed out if the other needs their memory. Responses cannot be pushed out,
//! and last until the client has taken them, so together those of a client are within its share,
//! unless there is only one.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use tokio::sync::Notify;

use crate::planted::{Planted, planted};

/// What a claim may hold without regard to others: most requests need no more, and are done soon.
pub(super) const FIRST_BYTES: usize = 64 << 10;
/// The part of the memory that is left for these: one in this many.
const RESERVE: usize = 16;
/// A client's share: one in this many.
const SHARES: usize = 4;
/// Claims of each kind that are woken when memory has become free.
const WOKEN: usize = 16;

/// The client that the memory is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::server) enum Holder {
    /// A token, by its name.
    Token(Arc<str>),
    /// A client without a token: by the listener and its address, if it has one.
    Peer(usize, Option<IpAddr>),
}

/// What memory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Use {
    /// The body of a request, and what is done with it.
    Body,
    /// A response, which is held until the client has taken it.
    Response,
}

/// The memory of one request or response.
#[derive(Debug)]
struct Claim {
    holder: Holder,
    is_response: bool,
    held: usize,
    /// What it will hold at most.
    need: usize,
    /// What it waits for; 0 if it does not wait.
    wanted: usize,
    /// Still arriving, so that it can be refused.
    can_be_pushed_out: bool,
    is_pushed_out: bool,
    /// Told when it may have what it waits for, or is pushed out.
    woken: Arc<Notify>,
}

impl Claim {
    fn left(&self) -> usize {
        self.need.saturating_sub(self.held)
    }

    fn waits(&self) -> bool {
        self.wanted > 0 && !self.is_pushed_out
    }
}

/// What comes of wanting more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    Granted,
    /// The claim is woken when that may have changed.
    Waits,
    /// Others need the memory.
    PushedOut,
}

/// What a holder has, without what is taken back from it.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    all: usize,
    responses: usize,
}

/// All claims, by their age.
#[derive(Debug)]
pub(super) struct Ledger {
    all: usize,
    used: usize,
    next: u64,
    claims: BTreeMap<u64, Claim>,
    held: HashMap<Holder, Held>,
    /// What is taken back, and not given back yet.
    taken_back: usize,
}

impl Ledger {
    pub(super) fn new(all: usize) -> Ledger {
        Ledger {
            all,
            used: 0,
            next: 0,
            claims: BTreeMap::new(),
            held: HashMap::new(),
            taken_back: 0,
        }
    }

    /// The most that a claim can ever hold.
    pub(super) fn largest(&self) -> usize {
        self.all - self.all / RESERVE
    }

    #[cfg(test)]
    fn used(&self) -> usize {
        self.used
    }

    /// A claim that holds nothing yet, and will need at most this much.
    pub(super) fn begin(&mut self, holder: Holder, need: usize, what_for: Use) -> (u64, Arc<Notify>) {
        let (id, woken) = (self.next, Arc::new(Notify::new()));
        self.next += 1;
        let claim = Claim {
            holder,
            is_response: what_for == Use::Response,
            held: 0,
            need: need.min(self.largest()),
            wanted: 0,
            can_be_pushed_out: what_for == Use::Body,
            is_pushed_out: false,
            woken: Arc::clone(&woken),
        };
        self.claims.insert(id, claim);
        (id, woken)
    }

    /// Gives a claim more, unless it has to wait.
    pub(super) fn grow(&mut self, id: u64, by: usize) -> Growth {
        let may = match self.claims.get(&id) {
            None => return Growth::PushedOut,
            Some(claim) if claim.is_pushed_out => return Growth::PushedOut,
            Some(claim) => self.may_grow(id, claim, by),
        };
        if !may {
            if let Some(claim) = self.claims.get_mut(&id) {
                claim.wanted = by;
            }
            self.push_out_for(id, by);
            return Growth::Waits;
        }
        if let Some(claim) = self.claims.get_mut(&id) {
            claim.wanted = 0;
            claim.held += by;
            claim.need = claim.need.max(claim.held);
            self.used += by;
            let held = self.held.entry(claim.holder.clone()).or_default();
            held.all += by;
            held.responses += if claim.is_response { by } else { 0 };
        }
        Growth::Granted
    }

    /// The claim holds only this much from now on, needs no more, and is not pushed out any more.
    pub(super) fn settle(&mut self, id: u64, bytes: usize) {
        if let Some(claim) = self.claims.get_mut(&id).filter(|claim| !claim.is_pushed_out) {
            let given_back = claim.held.saturating_sub(bytes);
            claim.held -= given_back;
            (claim.need, claim.can_be_pushed_out) = (claim.held, false);
            let (holder, is_response) = (claim.holder.clone(), claim.is_response);
            self.used -= given_back;
            self.holds_less(&holder, is_response, given_back);
        }
        self.wake();
    }

    /// What a claim will need at most, now that more is known.
    pub(super) fn will_need(&mut self, id: u64, need: usize) {
        let largest = self.largest();
        if let Some(claim) = self.claims.get_mut(&id) {
            claim.need = need.min(largest).max(claim.held);
        }
        self.wake();
    }

    /// Waits no longer for more.
    pub(super) fn give_up(&mut self, id: u64) {
        if let Some(claim) = self.claims.get_mut(&id) {
            claim.wanted = 0;
        }
        self.wake();
    }

    pub(super) fn end(&mut self, id: u64) {
        if let Some(claim) = self.claims.remove(&id) {
            self.used -= claim.held;
            if claim.is_pushed_out {
                self.taken_back -= claim.held;
            } else {
                self.holds_less(&claim.holder, claim.is_response, claim.held);
            }
        }
        self.wake();
    }

    pub(super) fn is_pushed_out(&self, id: u64) -> bool {
        self.claims.get(&id).is_some_and(|claim| claim.is_pushed_out)
    }

    /// Wakes those that may go on now: the claims that others keep waiting, the oldest, and those
    /// that are nearest to their end. If they do, they wake the next ones when they end.
    fn wake(&self) {
        // Those that wait for responses of their own holder would take the turns of others.
        let may_go_on = |claim: &&Claim| claim.waits() && self.is_room_for_response(claim, claim.wanted);
        let mut waiting: Vec<&Claim> = self.claims.values().filter(may_go_on).collect();
        let kept_waiting = waiting
            .iter()
            .filter(|claim| self.is_within_share(&claim.holder, claim.wanted));
        let oldest = waiting.iter();
        for claim in kept_waiting.take(WOKEN).chain(oldest.take(WOKEN)) {
            claim.woken.notify_one();
        }
        if waiting.len() > WOKEN {
            waiting.sort_by_key(|claim| claim.left());
            waiting.iter().take(WOKEN).for_each(|claim| claim.woken.notify_one());
        }
    }

    fn holds_less(&mut self, holder: &Holder, is_response: bool, by: usize) {
        if let Some(held) = self.held.get_mut(holder) {
            held.all -= by;
            held.responses -= if is_response { by } else { 0 };
            if held.all == 0 {
                self.held.remove(holder);
            }
        }
    }

    fn held_by(&self, holder: &Holder) -> Held {
        self.held.get(holder).copied().unwrap_or_default()
    }

    fn share(&self) -> usize {
        self.all / SHARES
    }

    /// Whether a holder has so little that others make way for it.
    fn is_within_share(&self, holder: &Holder, by: usize) -> bool {
        self.held_by(holder).all + by.min(self.share()) <= self.share() || planted(Planted::AnyShare)
    }

    /// Whether the responses of a holder leave room for a claim that grows so much.
    fn is_room_for_response(&self, claim: &Claim, by: usize) -> bool {
        let responses = self.held_by(&claim.holder).responses;
        !claim.is_response
            || responses == claim.held
            || responses + by <= self.share()
            || planted(Planted::AnyResponses)
    }

    fn may_grow(&self, id: u64, claim: &Claim, by: usize) -> bool {
        if claim.held + by <= FIRST_BYTES {
            return self.used + by <= self.all;
        }
        self.used + by <= self.largest()
            && self.is_room_for_response(claim, by)
            && (self.is_within_share(&claim.holder, by)
                || self.is_nearest_to_its_end(id, claim)
                || !self.is_another_kept_waiting(&claim.holder))
            && self.all_can_end(id, by)
    }

    /// Whether a client waits that holds no more than its share.
    fn is_another_kept_waiting(&self, holder: &Holder) -> bool {
        let is_kept_waiting = |claim: &Claim| {
            claim.waits() && claim.holder != *holder && self.is_within_share(&claim.holder, claim.wanted)
        };
        self.claims.values().any(is_kept_waiting)
    }

    /// Whether no claim that waits for others needs less. Such a one goes on in any case, so that
    /// one does.
    fn is_nearest_to_its_end(&self, id: u64, claim: &Claim) -> bool {
        let is_nearer = |(other_id, other): (&u64, &Claim)| {
            other.waits()
                && (other.left(), *other_id) < (claim.left(), id)
                && self.is_room_for_response(other, other.wanted)
        };
        !self.claims.iter().any(is_nearer)
    }

    /// Whether all claims could end one after the other if this one got so much more.
    fn all_can_end(&self, id: u64, by: usize) -> bool {
        let Some(mut free) = (self.largest() + self.taken_back).checked_sub(self.used + by) else {
            return false;
        };
        let claims = self.claims.iter().filter(|(_, claim)| !claim.is_pushed_out);
        let mut claims: Vec<(usize, usize)> = claims
            .map(|(other, claim)| match *other == id {
                true => (claim.left().saturating_sub(by), claim.held + by),
                false => (claim.left(), claim.held),
            })
            .collect();
        claims.sort_unstable();
        claims.into_iter().all(|(left, held)| {
            let ends = left <= free;
            free += held;
            ends
        })
    }

    /// Takes memory back from those that hold more than their share, the youngest claims first, for
    /// one that holds less.
    fn push_out_for(&mut self, id: u64, by: usize) {
        let Some(holder) = self.claims.get(&id).map(|claim| claim.holder.clone()) else {
            return;
        };
        if !self.is_within_share(&holder, by) {
            return;
        }
        while self.used + by > self.largest() + self.taken_back || !self.all_can_end(id, by) {
            let can_be = |(_, claim): &(&u64, &Claim)| {
                let is_free = claim.can_be_pushed_out && !claim.is_pushed_out && claim.held > 0;
                is_free && claim.holder != holder && !self.is_within_share(&claim.holder, 0)
            };
            let Some(youngest) = self.claims.iter().rev().find(can_be).map(|(id, _)| *id) else {
                return;
            };
            let Some(claim) = self.claims.get_mut(&youngest) else {
                return;
            };
            claim.is_pushed_out = true;
            claim.woken.notify_one();
            let (holder, held) = (claim.holder.clone(), claim.held);
            self.taken_back += held;
            self.holds_less(&holder, false, held);
        }
    }
}

#[cfg(test)]
mod tests;
