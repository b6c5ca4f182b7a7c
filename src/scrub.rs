//! Reading sealed segments again and again at a given rate, so that rot is found while there still
//! is a copy elsewhere, and not when the record is needed.
//!
//! * Nothing is read unless [`Options::scrub_bytes_per_second`](crate::Options) is set.
//! * Segments are read from their files, whatever the read mode: a block that the device cannot
//!   read is then an error, while a map would end the process.
//! * Between two reads no segment, map or file is held: compaction may remove the segment, and its
//!   space is free at once. What is kept is where the scan stands, and the bytes of records that
//!   have not been read to their end.
//! * No lock that anyone else waits for is held during a read, except by closing: another process
//!   may have the directory after that.
//! * Each error is noted once for its segment, until the segment is gone or is found sound.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use crate::context::Context;
use crate::error::{Error, Result};
use crate::format::Damage;
use crate::format::record::FIXED_HEADER_LEN;
use crate::format::segment::{SEAL_LEN, SegmentHeader};
use crate::location::segment_index;
use crate::log::Log;
use crate::log::hints::check_scan;
use crate::log::segment_files::Ended;
use crate::planted::{Planted, planted};
use crate::segment::scan::{End, Scanner};
use crate::state::State;
use crate::storage::read_exact_at;
use crate::sync::lock;

/// Most bytes of one read.
const READ_BYTES: u64 = 256 << 10;
/// Bytes that are checked at once, unless a record or batch is longer.
const CHECK_BYTES: usize = 1 << 20;
/// Shortest and longest sleep of the thread that scrubs.
const SLEEP_MIN: Duration = Duration::from_millis(20);
const SLEEP_MAX: Duration = Duration::from_secs(1);

/// What scrubbing did and found since the store was opened; see
/// [`Options::scrub_bytes_per_second`](crate::Options::scrub_bytes_per_second).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ScrubStats {
    /// Passes over all sealed segments that have ended.
    pub passes: u64,
    /// Bytes read.
    pub bytes: u64,
    /// When the last pass ended, in milliseconds since the Unix epoch; `None` if none has.
    pub last_pass_ms: Option<u64>,
    /// Segments that are damaged, or that the device failed to read, as of their last reading.
    /// Segments that compaction has removed since do not count.
    pub damaged_segments: u64,
    /// The first error in each of them, oldest segment first.
    /// [`Store::verify`](crate::Store::verify) lists all.
    pub errors: Vec<String>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Scrub {
    context: Arc<Context>,
    state: Arc<State>,
    log: Arc<Log>,
    /// Held by the thread that scrubs.
    round: Mutex<Round>,
    found: Mutex<Found>,
}

/// How far scrubbing has come.
#[derive(Debug, Default)]
pub(crate) struct Round {
    /// What may be read, in thousandths of a byte: bytes a second times milliseconds.
    allowance: u128,
    /// The time, on the monotonic clock, up to which the allowance was given.
    allowed_ms: u64,
    /// The segment of this pass that was begun last.
    last: Option<u64>,
    /// It, until it has been read.
    reading: Option<Reading>,
}

/// A segment that is being read.
#[derive(Debug)]
struct Reading {
    ended: Ended,
    scanner: Scanner<'static>,
    /// Bytes that the scanner has not passed yet.
    bytes: Vec<u8>,
    /// Check when there are this many.
    wanted: usize,
    /// Where they end in the file.
    read_end: u64,
    /// Where the segment ends, seal included.
    end: u64,
}

#[derive(Debug, Default)]
struct Found {
    /// Without the errors.
    stats: ScrubStats,
    errors: BTreeMap<u64, Error>,
}

impl Round {
    /// Adds what may be read for the time that has passed.
    fn allow(&mut self, bytes_per_second: u64, now_ms: u64) {
        let passed_ms = match planted(Planted::ScrubWithoutRate) {
            true => u64::MAX,
            false => now_ms.saturating_sub(self.allowed_ms),
        };
        let more = u128::from(bytes_per_second) * u128::from(passed_ms);
        self.allowance = self.allowance.saturating_add(more);
        self.allowed_ms = now_ms;
    }

    fn allowed_bytes(&self) -> u64 {
        u64::try_from(self.allowance / 1000).unwrap_or(u64::MAX)
    }

    fn spend(&mut self, bytes: u64) {
        self.allowance = self.allowance.saturating_sub(u128::from(bytes) * 1000);
    }
}

impl Reading {
    fn of(ended: Ended) -> Reading {
        let seal = if ended.cut { 0 } else { SEAL_LEN };
        Reading {
            scanner: Scanner::new(&[], ended.header),
            bytes: Vec::new(),
            wanted: CHECK_BYTES,
            read_end: 0,
            end: ended.summary.data_end.saturating_add(seal),
            ended,
        }
    }

    /// Checks what has been read. An error names the first damage; records that have not been read
    /// to their end are left for the next time.
    fn check(&mut self, context: &Context) -> Result<()> {
        let Ended { header, summary, cut } = self.ended;
        let id = header.segment_id;
        let base = self.read_end - self.bytes.len() as u64;
        if base == 0 && SegmentHeader::decode(&self.bytes) != Ok(header) {
            return Err(Error::damage(
                &context.segment_path(id),
                0,
                Damage::Mismatch("the header"),
            ));
        }
        let mut scanner = std::mem::replace(&mut self.scanner, Scanner::new(&[], header)).resume(&self.bytes);
        let end = loop {
            if let Err(end) = scanner.next() {
                break end;
            }
        };
        let passed = (scanner.valid_end() - base) as usize;
        if self.read_end == self.end {
            check_scan(context, id, &scanner, end, Some(summary))?;
            return match end {
                End::Sealed => Ok(()),
                _ if cut => Ok(()),
                _ => Err(Error::damage(
                    &context.segment_path(id),
                    summary.data_end,
                    Damage::Mismatch("the seal"),
                )),
            };
        }
        let may_go_on = match end {
            // More may be missing only because it has not been read.
            End::Damaged { damage, .. } => damage == Damage::Short,
            End::Clean => self.bytes.len() - passed < FIXED_HEADER_LEN,
            End::Sealed => false,
        };
        if !may_go_on {
            check_scan(context, id, &scanner, end, Some(summary))?;
        }
        self.scanner = scanner.pause();
        self.bytes.drain(..passed);
        self.bytes.shrink_to(CHECK_BYTES);
        self.wanted = CHECK_BYTES.max(2 * self.bytes.len());
        Ok(())
    }
}

impl Scrub {
    pub(crate) fn new(context: Arc<Context>, state: Arc<State>, log: Arc<Log>) -> Scrub {
        let round = Round {
            allowed_ms: context.time.monotonic_ms(),
            ..Round::default()
        };
        Scrub {
            context,
            state,
            log,
            round: Mutex::new(round),
            found: Mutex::default(),
        }
    }

    /// Whether the options ask for it.
    pub(crate) fn is_on(&self) -> bool {
        self.context.options.scrub_bytes_per_second.is_some()
    }

    /// How long a thread may sleep between two calls of [`Scrub::go_on`]: until a read is worth it.
    pub(crate) fn sleep(&self) -> Duration {
        let bytes_per_second = self.context.options.scrub_bytes_per_second.unwrap_or(1).max(1);
        let micros = READ_BYTES.saturating_mul(1_000_000) / bytes_per_second;
        Duration::from_micros(micros).clamp(SLEEP_MIN, SLEEP_MAX)
    }

    /// Waits for a read in progress; none begins while this is held.
    pub(crate) fn keep_out(&self) -> MutexGuard<'_, Round> {
        lock(&self.round)
    }

    /// Reads as much as the rate allows since the last call, but at most to the end of the pass.
    /// Does nothing if another thread is at it.
    pub(crate) fn go_on(&self) {
        let Some(bytes_per_second) = self.context.options.scrub_bytes_per_second else {
            return;
        };
        let Ok(mut round) = self.round.try_lock() else { return };
        round.allow(bytes_per_second, self.context.time.monotonic_ms());
        let may_go_on = || {
            self.context
                .check_open()
                .and_then(|()| self.context.check_closing())
                .is_ok()
        };
        while round.allowed_bytes() > 0 && may_go_on() {
            let Some(mut reading) = round.reading.take().or_else(|| self.next_after(round.last)) else {
                self.end_pass(&mut round);
                return;
            };
            let id = reading.ended.header.segment_id;
            round.last = Some(id);
            match self.read_on(&mut reading, &mut round) {
                Ok(()) if reading.read_end == reading.end => self.note_sound(id),
                Ok(()) => round.reading = Some(reading),
                Err(error) => self.note(id, error),
            }
        }
    }

    /// The sealed segment with the lowest id after this one.
    fn next_after(&self, last: Option<u64>) -> Option<Reading> {
        let mut next: Option<Ended> = None;
        self.state.segments.for_each(|segment| {
            let Some(summary) = segment.summary else { return };
            let is_later = last.is_none_or(|last| last < segment.id());
            if is_later && next.is_none_or(|next| segment.id() < next.header.segment_id) {
                next = Some(Ended {
                    header: segment.header,
                    summary,
                    cut: segment.cut,
                });
            }
        });
        next.map(Reading::of)
    }

    /// Reads one piece of a segment, and checks it once there is enough.
    fn read_on(&self, reading: &mut Reading, round: &mut Round) -> Result<()> {
        let id = reading.ended.header.segment_id;
        let path = self.context.segment_path(id);
        let file = self.log.files.open(id)?;
        if reading.read_end == 0 {
            let length = (file.len()).map_err(|error| self.context.read_error(id, 0, error.into()))?;
            if length < reading.end {
                return Err(Error::damage(&path, length, Damage::Short));
            }
            if length > reading.end && !reading.ended.cut {
                let damage = Damage::Mismatch("the length that the manifest gives");
                return Err(Error::damage(&path, reading.end, damage));
            }
        }
        let have = reading.bytes.len();
        let length = round
            .allowed_bytes()
            .min(READ_BYTES)
            .min((reading.wanted - have) as u64)
            .min(reading.end - reading.read_end);
        reading.bytes.resize(have + length as usize, 0);
        let piece = reading.bytes.get_mut(have..).unwrap_or_default();
        read_exact_at(&*file, piece, reading.read_end)
            .map_err(|error| self.context.read_error(id, reading.read_end, error.into()))?;
        reading.read_end += length;
        round.spend(length);
        lock(&self.found).stats.bytes += length;
        if reading.bytes.len() >= reading.wanted || reading.read_end == reading.end {
            reading.check(&self.context)?;
        }
        Ok(())
    }

    fn end_pass(&self, round: &mut Round) {
        // What is left over must not add up to a burst.
        round.allowance = round.allowance.min(u128::from(READ_BYTES) * 1000);
        if round.last.take().is_some() {
            let mut found = lock(&self.found);
            found.stats.passes += 1;
            found.stats.last_pass_ms = Some(self.context.time.wall_ms());
        }
    }

    fn note_sound(&self, id: u64) {
        lock(&self.found).errors.remove(&id);
    }

    /// Keeps the error of a segment, unless that was compacted away meanwhile.
    fn note(&self, id: u64, error: Error) {
        if !self.log.manifest.lists(id) || planted(Planted::ForgetScrubbed) {
            return;
        }
        let is_damage = |error: &Error| matches!(error, Error::Corruption { .. });
        let mut found = lock(&self.found);
        let is_known = (found.errors.get(&id)).is_some_and(|known| is_damage(known) || !is_damage(&error));
        if is_known {
            return;
        }
        self.context.events.note_background_error(&error);
        if error.is_unreadable() {
            found.errors.insert(id, error);
        }
    }

    /// The damage that scrubbing has found in this segment. Not that the device failed to read it,
    /// which may not happen again.
    pub(crate) fn damage(&self, id: u64) -> Option<Error> {
        let found = lock(&self.found);
        let error = found.errors.get(&id);
        error.filter(|error| matches!(error, Error::Corruption { .. })).cloned()
    }

    pub(crate) fn stats(&self) -> ScrubStats {
        let mut found = lock(&self.found);
        found.errors.retain(|id, _| {
            let segment = self.state.segments.get(segment_index(*id));
            segment.is_some_and(|segment| segment.id() == *id)
        });
        ScrubStats {
            damaged_segments: found.errors.len() as u64,
            errors: found.errors.values().map(Error::to_string).collect(),
            ..found.stats.clone()
        }
    }
}

#[cfg(test)]
mod tests;
