//! Snapshots held across everything that happens, compared with copies of the model.

use std::collections::BTreeMap;

use embercask::{Error, Namespace, Result, Snapshot};

use super::Driver;
use super::compare::Reader;
use crate::model::State;
use crate::ops::Upkeep;

/// Most snapshots held at a time.
const SNAPSHOTS_MAX: usize = 5;

/// A snapshot, and what it must show.
pub(super) struct Taken {
    snapshot: Snapshot,
    state: State,
    /// By the names of that moment.
    handles: BTreeMap<String, Namespace>,
    /// Of namespaces dropped before.
    dropped: Vec<Namespace>,
    /// What has happened since.
    since: Since,
}

#[derive(Clone, Copy, Debug, Default)]
struct Since {
    writes: bool,
    compaction: bool,
    drops: bool,
    sweep: bool,
    failure: bool,
}

impl Driver {
    pub(super) fn take_snapshot(&mut self) -> Result<()> {
        if self.snapshots.len() == SNAPSHOTS_MAX {
            self.drop_snapshot(self.step);
        }
        let snapshot = self.store.snapshot()?;
        let newest = self.store.stats().last_sequence;
        assert!(snapshot.sequence() <= newest, "a snapshot of the future");
        self.snapshots.push(Taken {
            snapshot,
            state: self.state().clone(),
            handles: self.handles.clone(),
            dropped: self.stale.values().cloned().collect(),
            since: Since::default(),
        });
        self.visited.note("snapshots taken");
        Ok(())
    }

    pub(super) fn drop_snapshot(&mut self, number: usize) {
        if self.snapshots.is_empty() {
            return;
        }
        let number = number % self.snapshots.len();
        self.check_snapshot(number);
        self.snapshots.swap_remove(number);
        if !self.snapshots.is_empty() {
            self.visited.note("snapshots dropped before others");
        }
    }

    /// Reads all of them.
    pub(super) fn check_snapshots(&mut self) {
        for number in 0..self.snapshots.len() {
            self.check_snapshot(number);
        }
        self.check_what_is_kept();
    }

    /// Reads one of them in some steps, so that each is read now and then.
    pub(super) fn check_some_snapshot(&mut self) {
        if self.step.is_multiple_of(3) && !self.snapshots.is_empty() {
            self.check_snapshot(self.step / 3 % self.snapshots.len());
        }
        self.check_what_is_kept();
    }

    fn check_what_is_kept(&self) {
        let stats = self.store.stats().snapshots;
        assert_eq!(stats.open, self.snapshots.len() as u64, "{stats:?}");
        if self.snapshots.is_empty() {
            assert_eq!(stats, Default::default(), "nothing is kept for no snapshot");
        }
    }

    /// Compares all that a snapshot shows with the model of its moment.
    fn check_snapshot(&mut self, number: usize) {
        let Taken {
            snapshot,
            state,
            handles,
            dropped,
            since,
        } = &self.snapshots[number];
        let names = snapshot.namespaces().unwrap().into_iter();
        let names: Vec<_> = names.map(|info| (info.name, info.id)).collect();
        let expected = state.namespaces.iter();
        let expected: Vec<_> = expected.map(|(name, keyspace)| (name.clone(), keyspace.id)).collect();
        assert_eq!(names, expected, "namespaces of a snapshot");
        for (name, keyspace) in &state.namespaces {
            let reader = Reader::Past(snapshot, &handles[name]);
            self.check_keyspace(reader, keyspace);
            assert_eq!(snapshot.open_namespace(name).unwrap().id(), keyspace.id, "{name}");
        }
        for handle in dropped {
            let found = snapshot.get(handle, &self.keys[0]);
            assert!(matches!(found, Err(Error::NamespaceNotFound { .. })), "{found:?}");
        }
        let since = *since;
        self.visited.note("snapshots read");
        for (happened, what) in [
            (since.writes, "snapshots read after writes"),
            (
                since.compaction && since.writes,
                "snapshots read after writes and compaction",
            ),
            (since.sweep, "snapshots read after a sweep"),
            (since.drops, "snapshots read after a drop of a namespace"),
            (since.failure, "snapshots read after a failure"),
        ] {
            if happened {
                self.visited.note(what);
            }
        }
    }

    pub(super) fn snapshots_outlive_write(&mut self, is_drop: bool) {
        for taken in &mut self.snapshots {
            taken.since.writes = true;
            taken.since.drops |= is_drop;
        }
    }

    pub(super) fn snapshots_outlive_upkeep(&mut self, upkeep: &Upkeep) {
        for taken in &mut self.snapshots {
            match upkeep {
                Upkeep::Compact | Upkeep::CompactSubset(_) | Upkeep::CompactIfWorthwhile => {
                    taken.since.compaction = true;
                }
                Upkeep::Maintain => taken.since.sweep = true,
                Upkeep::Flush | Upkeep::Sync | Upkeep::Close => {}
            }
        }
    }

    pub(super) fn snapshots_outlive_failure(&mut self) {
        self.snapshots.iter_mut().for_each(|taken| taken.since.failure = true);
    }

    /// The store has read the clock.
    pub(super) fn snapshots_see(&mut self, now: u64) {
        self.snapshots.iter_mut().for_each(|taken| taken.state.see(now));
    }

    /// The store was closed: snapshots can no longer be read.
    pub(super) fn snapshots_are_closed(&mut self) {
        for taken in self.snapshots.drain(..) {
            let Some(handle) = taken.handles.values().next() else {
                continue;
            };
            let found = taken.snapshot.get(handle, &self.keys[0]);
            assert!(matches!(found, Err(Error::Closed)), "{found:?}");
            let listed = taken.snapshot.list(handle);
            assert!(matches!(listed, Err(Error::Closed)), "{listed:?}");
            self.visited.note("snapshots closed with the store");
        }
    }
}
