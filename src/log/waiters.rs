//! The threads that wait for the log to be written out or synced past their sequence, and how each
//! learns of a failure.

use crate::error::Error;

/// One place per waiting thread, so never more places than threads that waited at once. A failed
/// write-out stores its error in the places it concerns; a list of failures would have to be kept,
/// and searched, for as long as a thread waits.
#[derive(Debug, Default)]
pub(super) struct Waiters {
    places: Vec<Place>,
    /// Which places are free.
    free: Vec<usize>,
}

#[derive(Debug)]
enum Place {
    Free,
    /// Waits for this sequence.
    Waiting(u64),
    /// The waiter's records were rolled back, or nothing will be written any more.
    Failed(Error),
}

/// A waiter's place. Handed back with [`Waiters::leave`].
#[derive(Debug)]
#[must_use = "a ticket that is not handed back leaks its place"]
pub(super) struct Ticket(usize);

impl Waiters {
    /// Registers a thread that waits for this sequence.
    pub(super) fn arrive(&mut self, sequence: u64) -> Ticket {
        let place = Place::Waiting(sequence);
        let index = match self.free.pop() {
            Some(index) => {
                if let Some(free) = self.places.get_mut(index) {
                    *free = place;
                }
                index
            }
            None => {
                self.places.push(place);
                self.places.len() - 1
            }
        };
        Ticket(index)
    }

    /// Frees the place of a waiter that has collected its outcome.
    pub(super) fn leave(&mut self, ticket: Ticket) {
        if let Some(place) = self.places.get_mut(ticket.0) {
            *place = Place::Free;
            self.free.push(ticket.0);
        }
    }

    /// Records from this sequence on were not written out, and never will be.
    pub(super) fn fail_from(&mut self, from: u64, error: &Error) {
        for place in &mut self.places {
            if matches!(place, Place::Waiting(sequence) if *sequence >= from) {
                *place = Place::Failed(error.clone());
            }
        }
    }

    /// The failure that this waiter has to report; None if its records may still be written.
    pub(super) fn failure_of(&self, ticket: &Ticket) -> Option<&Error> {
        match self.places.get(ticket.0) {
            Some(Place::Failed(error)) => Some(error),
            _ => None,
        }
    }

    /// Whether no thread is waiting.
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.free.len() == self.places.len()
    }

    /// Number of places.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        self.places.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_to_those_whose_records_it_took_and_to_nobody_else() {
        let mut waiters = Waiters::default();
        let (early, late) = (waiters.arrive(5), waiters.arrive(7));
        waiters.fail_from(6, &Error::Closed);
        assert!(waiters.failure_of(&early).is_none());
        assert!(waiters.failure_of(&late).is_some());
        waiters.leave(late);
        // The next waiter in the same place has not failed.
        let next = waiters.arrive(8);
        assert!(waiters.failure_of(&next).is_none());
        assert_eq!(waiters.places(), 2);
        waiters.leave(early);
        assert!(!waiters.is_empty());
        waiters.leave(next);
        assert!(waiters.is_empty());
    }
}
