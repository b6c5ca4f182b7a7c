//! What is said of the store as a whole, see [`crate::report`].

use std::sync::atomic::{AtomicBool, Ordering};

use super::Engine;
use crate::recovery::RecoveryReport;
use crate::report::Level;

/// What was said of the state of the store.
#[derive(Debug, Default)]
pub(super) struct Said {
    full: AtomicBool,
    poisoned: AtomicBool,
}

impl Engine {
    /// Says what has happened since the last call. The calling thread holds no lock.
    pub(crate) fn say(&self) {
        if !cfg!(feature = "log") {
            return;
        }
        let (path, report) = (self.context.path().display(), &self.context.events.report);
        let is_full = self.log.reserve.is_full();
        if self.said.full.swap(is_full, Ordering::Relaxed) != is_full {
            report.note(Level::Warn, || match is_full {
                true => format!("the disk is full; puts are refused until there is room: {path}"),
                false => format!("there is room on the disk again: {path}"),
            });
        }
        let poisoned = self.log.lock().poisoned().map(str::to_owned);
        if let Some(cause) = poisoned
            && !self.said.poisoned.swap(true, Ordering::Relaxed)
        {
            report.note(Level::Error, || {
                format!("writes are refused until the store is opened again: {cause}: {path}")
            });
        }
        report.say();
    }

    /// Says what opening the store has found.
    pub(crate) fn say_recovered(&self, found: &RecoveryReport) {
        let path = self.context.path().display();
        self.context.events.report.note(Level::Info, || {
            let RecoveryReport { segments, keys, .. } = found;
            let (rewritten, discarded) = (found.rewritten_bytes, found.discarded_bytes);
            match (found.created, found.clean) {
                (true, _) => format!("created: {path}"),
                (_, true) => format!("opened with {keys} keys in {segments} segments: {path}"),
                _ => format!(
                    "recovered {keys} keys in {segments} segments, copied {rewritten} bytes that were not known to be \
                     durable, discarded {discarded} behind the end of the log: {path}"
                ),
            }
        });
        self.say();
    }
}
