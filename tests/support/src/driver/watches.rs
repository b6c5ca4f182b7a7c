//! Watchers: what they are told is what has changed, in that order.

use std::collections::{BTreeMap, VecDeque};

use embercask::{Event, Watch, WatchOptions};

use super::Driver;
use super::plan::Logged;
use crate::model::{Item, State};
use crate::ops::{NAMES, PREFIXES, Write};

/// Most watchers held at a time.
const WATCHERS_MAX: usize = 4;

/// A watcher, and what it must be told.
pub(super) struct Watcher {
    watch: Watch,
    id: u128,
    prefix: &'static [u8],
    capacity: usize,
    values: bool,
    expected: VecDeque<Expected>,
    /// The puts that may be told to have expired.
    known: BTreeMap<Vec<u8>, Known>,
    last_sequence: u64,
    is_dropped: bool,
    /// Has been told of the drop.
    is_over: bool,
}

#[derive(Debug)]
struct Known {
    /// 0 if unknown.
    sequence: u64,
    expiry: Option<u64>,
    /// Whether it had not expired when the watcher began: else it may have left the indexes before.
    was_visible: bool,
}

/// A record that the watcher has not been told of yet.
#[derive(Debug)]
struct Expected {
    key: Vec<u8>,
    item: Option<Item>,
    /// Whether it must be told.
    is_certain: bool,
    /// Its sequence is above the first of these and not above the second.
    between: (u64, u64),
}

impl Known {
    /// Whether it has this sequence and has expired.
    fn is(&self, sequence: u64, highest: u64) -> bool {
        (self.sequence == 0 || self.sequence == sequence) && self.has_expired(highest)
    }

    fn has_expired(&self, now: u64) -> bool {
        self.expiry.is_some_and(|expiry| expiry <= now)
    }
}

impl Expected {
    fn is(&self, key: &[u8], sequence: u64, is_put: bool) -> bool {
        let known = self.item.as_ref().map_or(0, |item| item.sequence);
        self.key == key
            && self.item.is_some() == is_put
            && (known == 0 || known == sequence)
            && sequence > self.between.0
            && sequence <= self.between.1
    }
}

impl Watcher {
    /// Takes all that waits. Returns whether something was missed.
    fn take(&mut self, state: &State, (now, highest): (u64, u64)) -> bool {
        let (mut told, mut has_missed) = (0, false);
        while let Some(event) = self.watch.try_next() {
            match event {
                Event::Put {
                    key,
                    sequence,
                    expiry_ms,
                    value,
                    ..
                } => {
                    let expected = self.told(&key, sequence, true);
                    let item = expected.item.as_ref().unwrap();
                    assert_eq!(expiry_ms, item.expiry, "expiry of {}", key.escape_ascii());
                    assert_eq!(value.is_some(), self.values, "whether a value is told");
                    if let Some(value) = value {
                        assert_eq!(value.as_bytes(), &*item.value, "value of {}", key.escape_ascii());
                        assert_eq!(value.metadata(), item.metadata.as_deref());
                        assert_eq!(value.sequence(), sequence);
                    }
                    let known = Known {
                        sequence,
                        expiry: expiry_ms,
                        was_visible: true,
                    };
                    self.known.insert(key, known);
                }
                Event::Delete { key, sequence, .. } => {
                    self.told(&key, sequence, false);
                    self.known.remove(&key);
                }
                Event::Expired { key, sequence, .. } => {
                    assert!(key.starts_with(self.prefix), "{}", key.escape_ascii());
                    let known = self.known.remove(&key);
                    assert!(
                        known.as_ref().is_some_and(|known| known.is(sequence, highest)),
                        "{} of {sequence} is told to have expired, known was {known:?}",
                        key.escape_ascii()
                    );
                }
                Event::Missed { up_to, .. } => {
                    assert!(
                        !has_missed && told == self.capacity,
                        "{told} events and then some were missed"
                    );
                    let left_out = self.expected.iter().filter_map(|expected| expected.item.as_ref());
                    let newest = left_out.map(|item| item.sequence).max().unwrap_or(0);
                    assert!(
                        up_to >= newest,
                        "{newest} was left out, but missed is said up to {up_to}"
                    );
                    self.expected.clear();
                    self.know(state, now);
                    has_missed = true;
                    continue;
                }
                Event::Dropped { sequence, .. } => {
                    assert!(
                        self.is_dropped && sequence > self.last_sequence,
                        "dropped at {sequence}"
                    );
                    self.must_be_told_all();
                    assert!(self.watch.is_ended(), "nothing follows a drop");
                    self.is_over = true;
                    return has_missed;
                }
                event => panic!("{event:?}"),
            }
            assert!(
                !has_missed,
                "told behind what was missed, though nothing has happened since"
            );
            told += 1;
            assert!(told <= self.capacity, "{told} events waited, more than the capacity");
        }
        assert!(!self.is_dropped, "the drop was not told");
        self.must_be_told_all();
        has_missed
    }

    /// A record was told: removes it, and what comes before it and need not be told.
    fn told(&mut self, key: &[u8], sequence: u64, is_put: bool) -> Expected {
        assert!(
            sequence > self.last_sequence,
            "{sequence} is told after {}",
            self.last_sequence
        );
        self.last_sequence = sequence;
        loop {
            let Some(next) = self.expected.pop_front() else {
                panic!("{} of {sequence} is told, expected nothing", key.escape_ascii());
            };
            if next.is(key, sequence, is_put) {
                return next;
            }
            assert!(
                !next.is_certain,
                "{} of {sequence} is told, expected {next:?}",
                key.escape_ascii()
            );
        }
    }

    fn must_be_told_all(&self) {
        let left = self.expected.iter().find(|expected| expected.is_certain);
        assert!(left.is_none(), "not told: {left:?}");
    }

    /// Takes over what may expire from the model.
    fn know(&mut self, state: &State, now: u64) {
        let keyspace = state.namespaces.values().find(|keyspace| keyspace.id == self.id);
        let items = keyspace.into_iter().flat_map(|keyspace| &keyspace.items);
        let items = items.filter(|(key, _)| key.starts_with(self.prefix));
        self.known = items
            .map(|(key, item)| {
                let known = Known {
                    sequence: item.sequence,
                    expiry: item.expiry,
                    was_visible: item.is_visible(now),
                };
                (key.clone(), known)
            })
            .collect();
    }
}

impl Driver {
    pub(super) fn watch(&mut self, namespace: usize, prefix: usize, capacity: usize, values: bool) {
        if !self.exists(namespace) {
            return;
        }
        if self.watchers.len() == WATCHERS_MAX {
            self.drop_watcher(self.step);
        }
        let (handle, prefix) = (&self.handles[NAMES[namespace]], PREFIXES[prefix]);
        let options = WatchOptions::new().capacity(capacity).values(values);
        let watch = match handle.watch_with(prefix, options) {
            Ok(watch) => watch,
            Err(error) => panic!("watching: {error}"),
        };
        let mut watcher = Watcher {
            last_sequence: watch.sequence(),
            watch,
            id: handle.id(),
            prefix,
            capacity,
            values,
            expected: VecDeque::new(),
            known: BTreeMap::new(),
            is_dropped: false,
            is_over: false,
        };
        watcher.know(self.state(), self.now);
        self.watchers.push(watcher);
        self.visited.note("watchers begun");
    }

    pub(super) fn drop_watcher(&mut self, number: usize) {
        if !self.watchers.is_empty() {
            let number = number % self.watchers.len();
            self.take_events(|at| at == number);
            if number < self.watchers.len() {
                self.watchers.swap_remove(number);
            }
        }
    }

    /// Records were written after this sequence, of which the watchers must be told, or may be.
    pub(super) fn expect_told(&mut self, log: &[Logged], after: u64, is_certain: bool) {
        if self.watchers.is_empty() || log.is_empty() {
            return;
        }
        let newest = self.store.stats().last_sequence;
        for watcher in &mut self.watchers {
            for logged in log {
                if logged.id == watcher.id && logged.key.starts_with(watcher.prefix) && !watcher.is_dropped {
                    watcher.expected.push_back(Expected {
                        key: logged.key.clone(),
                        item: logged.item.clone(),
                        is_certain: is_certain && logged.is_certain,
                        between: (after, newest),
                    });
                }
            }
        }
    }

    /// Tells the watchers of namespaces that are gone to expect that.
    pub(super) fn expect_drop(&mut self, write: &Write) {
        if !matches!(write, Write::DropNamespace { .. } | Write::Transaction(_)) {
            return;
        }
        let stale: Vec<u128> = self.stale.values().map(embercask::Namespace::id).collect();
        for watcher in &mut self.watchers {
            watcher.is_dropped |= stale.contains(&watcher.id);
        }
    }

    /// After a failed write: forgets the watchers of namespaces that are gone all the same, since a
    /// store that refuses writes may not tell of the drop.
    pub(super) fn forget_watchers_without(&mut self, state: &State) {
        let ids: Vec<u128> = state.namespaces.values().map(|keyspace| keyspace.id).collect();
        self.watchers.retain(|watcher| ids.contains(&watcher.id));
    }

    /// Takes what waits for some of the watchers in this step, so that others wait longer.
    pub(super) fn take_some_events(&mut self) {
        let step = self.step;
        self.take_events(|number| (step + number).is_multiple_of(3));
    }

    pub(super) fn take_all_events(&mut self) {
        self.take_events(|_| true);
    }

    fn take_events(&mut self, mut wanted: impl FnMut(usize) -> bool) {
        let mut watchers = std::mem::take(&mut self.watchers);
        for (number, watcher) in watchers.iter_mut().enumerate() {
            if !wanted(number) {
                continue;
            }
            let before = watcher.last_sequence;
            let known = watcher.known.len();
            let has_missed = watcher.take(self.history.now(), (self.now, self.highest));
            if watcher.last_sequence > before {
                self.visited.note("watchers told of something");
            }
            if watcher.known.len() < known {
                self.visited.note("watchers told that less is there");
            }
            if has_missed {
                self.visited.note("watchers told that they have missed something");
            }
            if watcher.is_over {
                self.visited.note("watchers told of a drop");
            }
        }
        watchers.retain(|watcher| !watcher.is_over);
        self.watchers = watchers;
    }

    /// All that has expired was removed from the indexes, so the watchers have been told.
    pub(super) fn expiries_were_told(&mut self) {
        self.take_all_events();
        for watcher in &self.watchers {
            let mut known = watcher.known.iter();
            let late = known.find(|(_, known)| known.was_visible && known.has_expired(self.now));
            assert!(late.is_none(), "not told that it has expired: {late:?}");
        }
    }

    /// The store was closed: the watchers have been told all, and no more follows.
    pub(super) fn watchers_are_closed(&mut self) {
        self.take_all_events();
        for watcher in self.watchers.drain(..) {
            assert!(watcher.watch.is_ended(), "a closed store tells nothing");
        }
    }
}
