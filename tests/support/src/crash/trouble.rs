//! Disk failures, and a storage that fails with one of them from a given step on.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use embercask::ErrorKind;
use embercask::storage::{Fault, FaultKind, FaultStorage, MemStorage, Operation, Storage};

use crate::driver::Observer;

/// A kind of failure, beginning at a step.
#[derive(Clone, Debug)]
pub struct Trouble {
    pub name: &'static str,
    pub kind: FaultKind,
    /// None: any operation fails.
    pub operation: Option<Operation>,
    /// Calls keep failing until the disk is put in order.
    pub lasts: bool,
    /// Steps count calls of all kinds, not only modifying ones.
    pub all_calls: bool,
    /// The error kind that the failed call may return, apart from a poisoned store.
    pub answer: ErrorKind,
}

/// Counts the calls of a whole run, across all its disks, and makes them fail.
pub struct Troublemaker {
    pub trouble: Trouble,
    pub at: u64,
    state: Mutex<Troubled>,
}

#[derive(Default)]
struct Troubled {
    storage: Option<FaultStorage>,
    /// Calls and injected faults on earlier disks.
    steps_before: u64,
    struck_before: u64,
    in_order: bool,
    calm: bool,
}

impl Troublemaker {
    pub fn new(trouble: &Trouble, at: u64) -> Arc<Troublemaker> {
        Arc::new(Troublemaker {
            trouble: trouble.clone(),
            at,
            state: Mutex::default(),
        })
    }

    fn state(&self) -> MutexGuard<'_, Troubled> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn struck(&self) -> bool {
        let state = self.state();
        state.struck_before + state.storage.as_ref().map_or(0, FaultStorage::struck) > 0
    }

    pub fn put_in_order(&self) {
        self.state().in_order = true;
        self.arm();
    }

    /// Sets the disk to fail as planned from here on, or to work.
    fn arm(&self) {
        let (struck, state) = (self.struck(), self.state());
        let Some(storage) = &state.storage else { return };
        storage.clear();
        let is_over = state.in_order || (struck && !self.trouble.lasts);
        if !state.calm && !is_over {
            let at = self.at.saturating_sub(state.steps_before);
            let mut fault = Fault::new(self.trouble.kind).at(at);
            fault.repeats = self.trouble.lasts;
            fault.operation = self.trouble.operation;
            storage.inject(fault);
        }
    }
}

impl Observer for Troublemaker {
    fn storage(&self, disk: &MemStorage) -> Arc<dyn Storage> {
        let mut storage = FaultStorage::new(Arc::new(disk.clone()));
        if !self.trouble.all_calls {
            storage = storage.counting_mutating_steps_only();
        }
        let mut state = self.state();
        if let Some(before) = state.storage.replace(storage.clone()) {
            state.steps_before += before.steps();
            state.struck_before += before.struck();
        }
        drop(state);
        self.arm();
        Arc::new(storage)
    }

    fn may_lose_power(&self) -> bool {
        false
    }

    fn calm(&self, is_calm: bool) {
        self.state().calm = is_calm;
        self.arm();
    }
}

fn trouble(name: &'static str, kind: FaultKind, operation: Option<Operation>, lasts: bool) -> Trouble {
    Trouble {
        name,
        kind,
        operation,
        lasts,
        all_calls: false,
        answer: if kind == FaultKind::Full {
            ErrorKind::NoSpace
        } else {
            ErrorKind::Io
        },
    }
}

pub const FAILED: FaultKind = FaultKind::Error(io::ErrorKind::Other);

/// All kinds of failures, by name.
pub fn troubles() -> Vec<Trouble> {
    let mut troubles = vec![
        Trouble {
            all_calls: true,
            ..trouble("an input or output error", FAILED, None, false)
        },
        trouble("a short write", FaultKind::ShortWrite { bytes: 7 }, None, false),
        trouble("a write of nothing", FaultKind::ShortWrite { bytes: 0 }, None, false),
        trouble("a full disk", FaultKind::Full, None, true),
        trouble("a failed sync", FaultKind::FailedSync, None, false),
        trouble("syncs that fail", FaultKind::FailedSync, None, true),
    ];
    use Operation::{Create, HardLink, Map, OpenRead, Remove, Rename};
    troubles
        .extend([Create, OpenRead, Map].map(|operation| trouble("too many open files", FAILED, Some(operation), true)));
    troubles.push(Trouble {
        all_calls: true,
        ..trouble("no descriptors", FaultKind::NoDescriptors, None, true)
    });
    let denied = FaultKind::Error(io::ErrorKind::PermissionDenied);
    troubles.extend(
        [Create, OpenRead, Rename, Remove, HardLink]
            .map(|operation| trouble("no permission", denied, Some(operation), true)),
    );
    troubles
}
