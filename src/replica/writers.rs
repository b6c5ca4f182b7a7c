//! Which entries of each writer were applied, so that none is applied twice.
//!
//! A writer sends an entry again until it knows that the log has taken it. The log drops most
//! repeats, but only for some minutes, and several entries of a writer are on their way at a time:
//! an earlier one may come after a later one. So for each writer the highest counter is kept, and
//! which of the 64 below it have come; what is below those counts as a repeat.

use std::collections::HashMap;

use embercask::Namespace;

use crate::state::{Fields, StateError, unknown};

/// Most entries of one writer that may be on their way at a time.
pub const IN_FLIGHT_MAX: usize = 16;

/// Entries that arrive this long after they were sent first are not applied: 1 hour of log time.
pub const LATE_MS: u64 = 60 * 60 * 1000;

/// Writers and unfinished uploads are forgotten this long after their last entry: 2 hours of log
/// time. Longer than [`LATE_MS`], so that a repeat cannot come after that.
pub const FORGET_MS: u64 = 2 * LATE_MS;

const PREFIX: &str = "writer/";

/// What was applied of one writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Window {
    highest: u64,
    /// Bit `i` is the counter `highest - 1 - i`.
    below: u64,
    /// Log time of its last entry.
    last_ms: u64,
}

impl Window {
    /// Notes an entry; false if it is a repeat.
    fn note(&mut self, counter: u64, log_ms: u64) -> bool {
        if counter > self.highest {
            let by = counter - self.highest;
            let shifted = |bits: u64, by: u64| u32::try_from(by).ok().and_then(|by| bits.checked_shl(by)).unwrap_or(0);
            self.below = shifted(self.below, by) | shifted(1, by - 1);
            self.highest = counter;
        } else {
            let bit = match self.highest - counter {
                below @ 1..=64 => 1 << (below - 1),
                // The highest one again, or too far below it.
                _ => return false,
            };
            if self.below & bit != 0 {
                return false;
            }
            self.below |= bit;
        }
        self.last_ms = log_ms;
        true
    }

    fn encode(&self) -> [u8; 24] {
        let mut bytes = [0; 24];
        let fields = [self.highest, self.below, self.last_ms].map(u64::to_le_bytes);
        for (to, from) in bytes.iter_mut().zip(fields.iter().flatten()) {
            *to = *from;
        }
        bytes
    }

    fn decode(bytes: &[u8]) -> Option<Window> {
        let mut fields = Fields(bytes);
        let window = Window {
            highest: fields.u64()?,
            below: fields.u64()?,
            last_ms: fields.u64()?,
        };
        fields.end(window)
    }
}

/// All writers that are remembered.
#[derive(Debug, Default)]
pub(crate) struct Writers {
    windows: HashMap<u128, Window>,
    /// Those that have changed since the last [`Writers::take_changes`].
    changed: Vec<u128>,
    /// None of them is forgotten before this log time.
    forget_from_ms: u64,
}

impl Writers {
    pub(crate) fn load(reserved: &Namespace) -> Result<Writers, StateError> {
        let mut writers = Writers::default();
        let mut entries = reserved.list().prefix(PREFIX).with_values().walk();
        while let Some(entry) = entries.next()? {
            let id = entry
                .key_str()
                .ok()
                .and_then(|key| u128::from_str_radix(key.get(PREFIX.len()..)?, 16).ok());
            let window = entry.value().and_then(|value| Window::decode(value));
            let (Some(id), Some(window)) = (id, window) else {
                return Err(unknown(entry.key()));
            };
            writers.windows.insert(id, window);
        }
        Ok(writers)
    }

    /// Notes an entry at this log time; false if it is a repeat.
    pub(crate) fn note(&mut self, writer: u128, counter: u64, log_ms: u64) -> bool {
        let is_new = self.windows.entry(writer).or_default().note(counter, log_ms);
        if is_new {
            self.changed.push(writer);
        }
        is_new
    }

    /// Forgets those of which nothing has come for long.
    pub(crate) fn forget(&mut self, log_ms: u64) {
        if log_ms < self.forget_from_ms {
            return;
        }
        let changed = &mut self.changed;
        self.windows.retain(|id, window| {
            let is_kept = is_kept(window.last_ms, log_ms);
            if !is_kept {
                changed.push(*id);
            }
            is_kept
        });
        let oldest = self.windows.values().map(|window| window.last_ms).min();
        // One that comes later lasts longer.
        self.forget_from_ms = oldest.unwrap_or(log_ms).saturating_add(FORGET_MS);
    }

    /// Key and value of each that has changed; no value for those that were forgotten.
    pub(crate) fn take_changes(&mut self) -> Vec<(String, Option<[u8; 24]>)> {
        let mut changed = std::mem::take(&mut self.changed);
        changed.sort_unstable();
        changed.dedup();
        let records = changed.iter().map(|id| {
            let value = self.windows.get(id).map(Window::encode);
            (format!("{PREFIX}{id:032x}"), value)
        });
        records.collect()
    }
}

/// Whether something is still remembered whose last entry came at that log time.
pub(crate) fn is_kept(last_ms: u64, log_ms: u64) -> bool {
    log_ms.saturating_sub(last_ms) < FORGET_MS
}

#[cfg(test)]
mod tests;
