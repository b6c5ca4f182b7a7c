//! Many writes, grouped into batches.

use std::collections::HashSet;
use std::time::Duration;

use super::destination::{Destination, Place, Refused};
use crate::common::failure::Outcome;
use crate::common::interrupt;
use crate::common::text::escape_short;
use crate::planted::{Planted, planted};

/// Writes in a batch, and bytes of keys and values in it. A larger value is written alone.
const BATCH_WRITES: usize = 1000;
const BATCH_BYTES: usize = 4 << 20;
/// A key that expires this soon counts as expired: its put might come too late.
const EXPIRES_SOON_MS: u64 = 1000;
/// Characters of a key that a message shows.
const SHOWN_MAX: usize = 100;

/// A write, and the number of its line or pair in the input.
pub(crate) struct Write {
    pub(crate) number: u64,
    pub(crate) namespace: Place,
    pub(crate) key: Vec<u8>,
    pub(crate) change: Change,
}

pub(crate) enum Change {
    Put {
        value: Vec<u8>,
        lifetime: Lifetime,
        metadata: Option<Vec<u8>>,
    },
    Delete,
}

/// How long a key lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// That of its namespace; where that has none, forever.
    Default,
    Forever,
    For(Duration),
    /// Until this time, in milliseconds since the epoch.
    UntilMs(u64),
}

impl Write {
    fn bytes(&self) -> usize {
        let value = match &self.change {
            Change::Put { value, .. } => value.len(),
            Change::Delete => 0,
        };
        self.key.len() + value
    }
}

/// Which puts to skip.
#[derive(Clone, Copy, Default)]
pub(crate) struct Rules {
    /// Puts that have expired.
    pub(crate) skip_expired: bool,
    /// Puts of keys that exist.
    pub(crate) if_absent: bool,
}

/// Number of writes by outcome.
#[derive(Default)]
pub(crate) struct Tally {
    pub(crate) done: u64,
    pub(crate) expired: u64,
    pub(crate) present: u64,
}

/// Commits writes in order, in batches that are atomic.
pub(crate) struct Writer {
    destination: Destination,
    rules: Rules,
    /// How messages refer to a write, without its number: `pairs.json, pair`.
    called: String,
    pending: Vec<Write>,
    pending_bytes: usize,
    /// A commit failed, so some pending writes were dropped.
    failed: bool,
    pub(crate) tally: Tally,
}

impl Writer {
    pub(crate) fn new(destination: Destination, rules: Rules, called: String) -> Writer {
        Writer {
            destination,
            rules,
            called,
            pending: Vec::new(),
            pending_bytes: 0,
            failed: false,
            tally: Tally::default(),
        }
    }

    pub(crate) fn destination(&self) -> &Destination {
        &self.destination
    }

    /// Whether all added writes are committed, or skipped by the rules.
    pub(crate) fn is_idle(&self) -> bool {
        self.pending.is_empty() && !self.failed
    }

    /// Whether a write has failed; the pending writes after it were dropped.
    pub(crate) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Adds a write. Commits the pending writes once there are enough for a batch, and then checks
    /// for Ctrl-C.
    pub(crate) fn add(&mut self, write: Write) -> Outcome {
        let bytes = write.bytes();
        if bytes > BATCH_BYTES {
            self.commit()?;
        }
        self.pending.push(write);
        self.pending_bytes += bytes;
        if self.pending.len() < BATCH_WRITES && self.pending_bytes < BATCH_BYTES {
            return Ok(());
        }
        self.commit()?;
        interrupt::check("completed writes are kept")
    }

    /// Commits all pending writes.
    pub(crate) fn commit(&mut self) -> Outcome {
        let written = self.write_pending();
        self.failed |= written.is_err();
        written
    }

    fn write_pending(&mut self) -> Outcome {
        self.pending_bytes = 0;
        let pending = std::mem::take(&mut self.pending);
        let writes = self.chosen(pending)?;
        if let [only] = &writes[..] {
            return self.write(only);
        }
        match self.destination.write_all(&writes) {
            Ok(()) => self.tally.done += writes.len() as u64,
            // One write is invalid, so none was done. Writing them one by one does those before it,
            // and names it.
            Err(Refused::Invalid(_)) if !planted(Planted::StopAtWrong) => {
                for write in &writes {
                    self.write(write)?;
                }
            }
            Err(refused) => return Err(refused.into_failure()),
        }
        Ok(())
    }

    /// The writes that the rules do not skip.
    fn chosen(&mut self, pending: Vec<Write>) -> Outcome<Vec<Write>> {
        let earliest = self.destination.now_ms().saturating_add(EXPIRES_SOON_MS);
        let mut put = HashSet::new();
        let mut chosen = Vec::with_capacity(pending.len());
        for write in pending {
            if let Change::Put { lifetime, .. } = &write.change {
                let is_expired = matches!(lifetime, Lifetime::UntilMs(expiry) if *expiry < earliest);
                if self.rules.skip_expired && is_expired {
                    self.tally.expired += 1;
                    continue;
                }
                // No other process writes to the store meanwhile. A batch may contain a key twice.
                if self.rules.if_absent
                    && !planted(Planted::ImportOverPresent)
                    && (write.namespace.contains(&write.key)? || !put.insert((write.namespace.id(), write.key.clone())))
                {
                    self.tally.present += 1;
                    continue;
                }
            }
            chosen.push(write);
        }
        Ok(chosen)
    }

    /// Does one write alone; an error names its number and key.
    fn write(&mut self, write: &Write) -> Outcome {
        self.destination.write(write).map_err(|refused| {
            let (number, key) = (write.number, escape_short(&write.key, SHOWN_MAX));
            let failure = refused.into_failure();
            failure.at(format_args!("{} {number}, key \"{key}\"", self.called))
        })?;
        self.tally.done += 1;
        Ok(())
    }
}
