//! Many writes, grouped into batches.

use std::time::Duration;

use super::destination::{Destination, Place, Refused};
use super::limits;
use super::remarks::Remarks;
use super::transfer::array::Item;
use crate::common::failure::{Failure, Outcome};
use crate::common::interrupt;
use crate::common::text::{quoted, time};
use crate::planted::{Planted, planted};

/// Writes in a batch, and bytes of keys and values in it. A larger value is written alone.
const BATCH_WRITES: usize = 1000;
const BATCH_BYTES: usize = 4 << 20;
/// A key that expires this soon counts as expired: its put might come too late.
const EXPIRES_SOON_MS: u64 = 1000;
/// A server that refuses an expiry within this time does so because it is too soon.
const REFUSED_SOON_MS: u64 = 3_600_000;

/// A write, and its position in the input.
pub(crate) struct Write {
    pub(crate) position: Position,
    pub(crate) namespace: Place,
    pub(crate) key: Vec<u8>,
    pub(crate) change: Change,
}

/// The position of a line or pair in the input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Position {
    /// Of the line or pair, counted from 1.
    number: u64,
    /// Of the line on which a pair begins, where that is known and another.
    line: Option<u64>,
}

impl Position {
    pub(crate) fn of_line(number: u64) -> Position {
        Position { number, line: None }
    }

    pub(crate) fn of_item(item: &Item<'_>) -> Position {
        Position {
            number: item.number,
            line: Some(item.line),
        }
    }

    /// The position in a message. `called` is the input with what it consists of, such as
    /// `pairs.json, pair`.
    pub(crate) fn told(self, called: &str, key: Option<&[u8]>) -> String {
        let mut told = format!("{called} {}", self.number);
        if let Some(line) = self.line {
            told += &format!(", line {line}");
        }
        if let Some(key) = key {
            told += &format!(", key {}", quoted(key));
        }
        told
    }
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
    /// Until this time, in seconds since the epoch.
    UntilSeconds(u64),
}

impl Lifetime {
    /// Its end, in milliseconds since the epoch, if that is known before the put.
    pub(crate) fn end_ms(self) -> Option<u64> {
        match self {
            Lifetime::Default | Lifetime::Forever | Lifetime::For(_) => None,
            Lifetime::UntilMs(ms) => Some(ms),
            Lifetime::UntilSeconds(seconds) => Some(seconds.saturating_mul(1000)),
        }
    }

    /// Why it cannot be, if it is over or empty, in the unit of the input.
    pub(crate) fn refusal(self, now_ms: u64) -> Option<String> {
        let end = self.end_ms().filter(|end| *end <= now_ms).map(time);
        match (self, end) {
            (Lifetime::For(Duration::ZERO), _) => Some("a lifetime of 0 seconds is too short".to_owned()),
            (Lifetime::UntilMs(ms), Some(end)) => Some(format!(
                "the expiration {ms} is over: it means {end}, in milliseconds since the epoch"
            )),
            (Lifetime::UntilSeconds(seconds), Some(end)) => Some(format!(
                "the expiration {seconds} is over: it means {end}, in seconds since the epoch"
            )),
            _ => None,
        }
    }
}

impl Write {
    /// Whether it is a put of a key that expires before this time.
    fn ends_before(&self, ms: u64) -> bool {
        match &self.change {
            Change::Put { lifetime, .. } => lifetime.end_ms().is_some_and(|end| end < ms),
            Change::Delete => false,
        }
    }

    fn bytes(&self) -> usize {
        let value = match &self.change {
            Change::Put { value, .. } => value.len(),
            Change::Delete => 0,
        };
        self.key.len() + value
    }
}

/// Which puts to skip or to refuse.
#[derive(Clone, Copy, Default)]
pub(crate) struct Rules {
    /// Refuse puts that are beyond the limits of Workers KV; otherwise remark on them.
    pub(crate) workers_kv_limits: bool,
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
    pub(crate) remarks: Remarks,
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
            remarks: Remarks::default(),
        }
    }

    /// Changes how messages refer to writes. Those that are added must be committed already.
    #[cfg(feature = "miniflare")]
    pub(crate) fn now_called(&mut self, called: String) {
        self.called = called;
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
        self.check_limits(&write)?;
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

    /// Refuses a put that is beyond the limits of Workers KV, or remarks on it.
    fn check_limits(&mut self, write: &Write) -> Outcome {
        let Change::Put { value, metadata, .. } = &write.change else {
            return Ok(());
        };
        // A server says by itself what it does not take.
        if self.destination.is_server() && !self.rules.workers_kv_limits {
            return Ok(());
        }
        let Some(why) = limits::beyond_workers_kv(&write.key, value, metadata.as_deref()) else {
            return Ok(());
        };
        let position = || write.position.told(&self.called, Some(&write.key));
        if self.rules.workers_kv_limits {
            return Err(limits::refused(&why).at(position()));
        }
        self.remarks.add(&limits::remark(&why), position);
        Ok(())
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
        let is_decided_later = self.is_if_absent() && self.destination.is_server();
        if is_decided_later || writes.len() == 1 {
            return writes.iter().try_for_each(|write| self.write(write));
        }
        match self.destination.write_all(&writes) {
            Ok(()) => self.tally.done += writes.len() as u64,
            // One write is invalid, so none was done. Writing them one by one does those before it,
            // and names it.
            Err(Refused::Invalid(_) | Refused::Expiry(_)) if !planted(Planted::StopAtWrong) => {
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
        let mut chosen = Vec::with_capacity(pending.len());
        for write in pending {
            if self.rules.skip_expired && write.ends_before(earliest) {
                self.tally.expired += 1;
            } else {
                chosen.push(write);
            }
        }
        if !self.is_if_absent() {
            return Ok(chosen);
        }
        let (chosen, present) = self.destination.absent(chosen)?;
        self.tally.present += present;
        Ok(chosen)
    }

    fn is_if_absent(&self) -> bool {
        self.rules.if_absent && !planted(Planted::ImportOverPresent)
    }

    /// Does one write alone; an error names its position and key.
    fn write(&mut self, write: &Write) -> Outcome {
        let refusal = match &write.change {
            Change::Put { lifetime, .. } => lifetime.refusal(self.destination.now_ms()),
            Change::Delete => None,
        };
        let conditional = match self.is_if_absent() {
            true => self.destination.put_if_absent(write),
            false => None,
        };
        let done = conditional.unwrap_or_else(|| self.destination.write(write).map(|()| true));
        let is_soon = write.ends_before(self.destination.now_ms().saturating_add(REFUSED_SOON_MS));
        if self.rules.skip_expired && is_soon && matches!(done, Err(Refused::Expiry(_))) {
            self.tally.expired += 1;
            return Ok(());
        }
        let is_done = done.map_err(|refused| {
            let failure = match (refused, refusal) {
                (Refused::Invalid(_), Some(refusal)) => Failure::usage(refusal, ""),
                (refused, _) => refused.into_failure(),
            };
            failure.at(write.position.told(&self.called, Some(&write.key)))
        })?;
        match is_done {
            true => self.tally.done += 1,
            false => self.tally.present += 1,
        }
        Ok(())
    }
}
