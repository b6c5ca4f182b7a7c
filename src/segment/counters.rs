//! The counters of one segment: live, expired and total records and bytes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::format::segment::Summary;
use crate::planted::{Planted, planted};
use crate::sync::ChangeRight;

/// Counters of one segment. Only one thread changes them: it holds the change lock, or opens the
/// store. So additions are a load and a store, cheaper than an atomic read-modify-write.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Puts that the keydir points at.
    live_puts: AtomicU64,
    live_bytes: AtomicU64,
    /// All puts and their bytes.
    puts: AtomicU64,
    put_bytes: AtomicU64,
    tombstones: AtomicU64,
    tombstone_bytes: AtomicU64,
    /// The latest expiry of a record that left the indexes because it expired.
    latest_expired: AtomicU64,
    /// Bytes of puts that left the indexes because they expired.
    expired_bytes: AtomicU64,
    /// The same bytes by expiry time.
    expired: Mutex<ExpiredSums>,
    /// Lowest sequence plus one; 0 if there is no put or tombstone yet.
    min_sequence_plus_one: AtomicU64,
    /// The sequence before the earliest death plus one; 0 if no put has died.
    dying_plus_one: AtomicU64,
}

/// Bytes that expired, summed over intervals of time, in order. An expired record that may not be
/// dropped yet (or a steady stream of them) then holds back only records that expired at about the
/// same time.
#[derive(Debug, Default)]
struct ExpiredSums(Vec<ExpiredSum>);

/// Bytes that expired from `first` to `latest`, in milliseconds since the epoch.
#[derive(Clone, Copy, Debug)]
struct ExpiredSum {
    first: u64,
    latest: u64,
    bytes: u64,
}

impl ExpiredSums {
    /// Maximum number of sums per segment.
    const SUMS_MAX: usize = 16;

    fn add(&mut self, expiry: u64, bytes: u64) {
        let at = self.0.partition_point(|sum| sum.latest < expiry);
        match self.0.get_mut(at) {
            Some(sum) if sum.first <= expiry => sum.bytes += bytes,
            _ => self.0.insert(
                at,
                ExpiredSum {
                    first: expiry,
                    latest: expiry,
                    bytes,
                },
            ),
        }
        if self.0.len() > Self::SUMS_MAX {
            self.merge();
        }
    }

    /// Merges the two neighbours whose sum holds back the fewest bytes for the shortest time.
    fn merge(&mut self) {
        let together = |pair: &[ExpiredSum]| match pair {
            [early, late] => Some(ExpiredSum {
                first: early.first,
                latest: late.latest,
                bytes: early.bytes + late.bytes,
            }),
            _ => None,
        };
        let cost = |sum: &ExpiredSum| u128::from(sum.bytes) * u128::from(sum.latest - sum.first);
        let pairs = self.0.windows(2).filter_map(together).enumerate();
        if let Some((at, sum)) = pairs.min_by_key(|(_, sum)| cost(sum)) {
            self.0.splice(at..at + 2, [sum]);
        }
    }

    /// Upper bound of the bytes that expired after this time.
    fn after(&self, time_ms: u64) -> u64 {
        let after = self.0.iter().filter(|sum| sum.latest > time_ms);
        after.map(|sum| sum.bytes).sum()
    }
}

/// A snapshot of [`Counters`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) live_puts: u64,
    pub(crate) live_bytes: u64,
    pub(crate) puts: u64,
    pub(crate) put_bytes: u64,
    pub(crate) tombstones: u64,
    pub(crate) tombstone_bytes: u64,
    /// The latest expiry of a record that left the indexes because it expired; 0 if none did.
    pub(crate) latest_expired: u64,
    /// Bytes of puts that left the indexes because they expired; part of the dead bytes.
    pub(crate) expired_bytes: u64,
    /// `u64::MAX` if there is no put or tombstone.
    pub(crate) min_sequence: u64,
    /// No put that is dead died at or before this sequence: a put dies when a newer record of its
    /// key gets a higher one, or when it leaves the indexes because it expired, and then every
    /// later record has a higher one. `u64::MAX` if none has died.
    pub(crate) dying_after: u64,
}

impl Counts {
    /// Puts that the keydir no longer points at.
    pub(crate) fn dead_puts(&self) -> u64 {
        self.puts.saturating_sub(self.live_puts)
    }

    /// Whether the segment has records that compaction may be able to drop.
    pub(crate) fn is_wasteful(&self) -> bool {
        self.dead_puts() > 0 || self.tombstones > 0
    }

    pub(crate) fn dead_bytes(&self) -> u64 {
        self.put_bytes.saturating_sub(self.live_bytes)
    }

    /// Shadows up to this sequence hide no record of this segment; None if no shadow does.
    ///
    /// A shadow hides only records that are dead, and each of them died at the sequence of its
    /// oldest shadow at the latest: when that was written, the record was in the indexes, and was
    /// removed from them, or it had left them before.
    pub(crate) fn hides_up_to(&self) -> Option<u64> {
        let dying_after = match self.dying_after {
            // It has just died.
            u64::MAX => 0,
            after => after,
        };
        (self.dead_puts() > 0).then(|| dying_after.max(self.min_sequence))
    }
}

impl Counters {
    /// Counters of a segment with this summary and no live records yet. It is not known when the
    /// others died.
    pub(crate) fn of(summary: &Summary) -> Counters {
        Counters::of_copies(summary, 0)
    }

    /// The same, of records that had not died at this sequence.
    pub(crate) fn of_copies(summary: &Summary, dying_after: u64) -> Counters {
        let counters = Counters::default();
        counters
            .dying_plus_one
            .store(dying_after.wrapping_add(1), Ordering::Relaxed);
        counters.puts.store(summary.puts, Ordering::Relaxed);
        counters.put_bytes.store(summary.put_bytes, Ordering::Relaxed);
        counters.tombstones.store(summary.tombstones, Ordering::Relaxed);
        counters
            .tombstone_bytes
            .store(summary.tombstone_bytes, Ordering::Relaxed);
        counters
            .min_sequence_plus_one
            .store(summary.min_sequence.wrapping_add(1), Ordering::Relaxed);
        counters
    }

    pub(crate) fn add_put(&self, _: &ChangeRight, bytes: u64, sequence: u64) {
        add(&self.puts, 1);
        add(&self.put_bytes, bytes);
        self.note_sequence(sequence);
    }

    pub(crate) fn add_tombstone(&self, _: &ChangeRight, bytes: u64, sequence: u64) {
        add(&self.tombstones, 1);
        add(&self.tombstone_bytes, bytes);
        self.note_sequence(sequence);
    }

    fn note_sequence(&self, sequence: u64) {
        // A batch may come after what was written behind it.
        let lowest = self.min_sequence_plus_one.load(Ordering::Relaxed);
        if lowest == 0 || sequence < lowest - 1 {
            self.min_sequence_plus_one
                .store(sequence.wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// Reverts [`Counters::add_put`] or [`Counters::add_tombstone`].
    pub(crate) fn roll_back(&self, _: &ChangeRight, put: bool, bytes: u64) {
        let (count, sum) = if put {
            (&self.puts, &self.put_bytes)
        } else {
            (&self.tombstones, &self.tombstone_bytes)
        };
        subtract(count, 1);
        subtract(sum, bytes);
    }

    /// Notes that the segment has a put with this expiry that has expired.
    pub(crate) fn note_expired(&self, _: &ChangeRight, expiry_ms: u64) {
        let latest = self.latest_expired.load(Ordering::Relaxed).max(expiry_ms);
        self.latest_expired.store(latest, Ordering::Relaxed);
    }

    /// Counts a put of `bytes` bytes that is not in the indexes solely because it has expired.
    pub(crate) fn add_expired(&self, right: &ChangeRight, expiry_ms: u64, bytes: u64) {
        self.note_expired(right, expiry_ms);
        add(&self.expired_bytes, bytes);
        self.expired().add(expiry_ms, bytes);
    }

    /// The part of [`Counts::expired_bytes`] that expired after this time; may include bytes that
    /// expired before.
    pub(crate) fn expired_after(&self, time_ms: u64) -> u64 {
        self.expired().after(time_ms)
    }

    fn expired(&self) -> MutexGuard<'_, ExpiredSums> {
        self.expired.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts `puts` puts, of `bytes` bytes in all, that the keydir now points at.
    pub(crate) fn add_live(&self, _: &ChangeRight, puts: u64, bytes: u64) {
        add(&self.live_puts, puts);
        add(&self.live_bytes, bytes);
    }

    /// Counts a put that the keydir no longer points at, because it was moved or rolled back.
    pub(crate) fn remove_live(&self, _: &ChangeRight, bytes: u64) {
        debug_assert!(self.live_puts.load(Ordering::Relaxed) > 0, "more died than was live");
        subtract(&self.live_puts, 1);
        subtract(&self.live_bytes, bytes);
    }

    /// Counts a put that died: every record that hides it has a higher sequence than this one.
    pub(crate) fn die(&self, right: &ChangeRight, bytes: u64, dying_after: u64) {
        self.remove_live(right, bytes);
        let earliest = self.dying_plus_one.load(Ordering::Relaxed).wrapping_sub(1);
        let dying_after = if planted(Planted::ForgetDeaths) {
            u64::MAX - 1
        } else {
            dying_after
        };
        if dying_after < earliest {
            self.dying_plus_one
                .store(dying_after.wrapping_add(1), Ordering::Relaxed);
        }
    }

    /// Takes over the live and expired counts of the segment object that this one replaces.
    pub(crate) fn set_live(&self, _: &ChangeRight, counts: &Counts) {
        self.live_puts.store(counts.live_puts, Ordering::Relaxed);
        self.live_bytes.store(counts.live_bytes, Ordering::Relaxed);
        self.latest_expired.store(counts.latest_expired, Ordering::Relaxed);
        self.expired_bytes.store(counts.expired_bytes, Ordering::Relaxed);
        // Only the latest expiry is known, so all expired bytes are counted there.
        let mut expired = ExpiredSums::default();
        expired.add(counts.latest_expired, counts.expired_bytes);
        *self.expired() = expired;
    }

    pub(crate) fn get(&self) -> Counts {
        let live_puts = self.live_puts.load(Ordering::Relaxed);
        Counts {
            live_puts,
            // The length of a put with a damaged header is unknown, so its bytes are not subtracted
            // when it dies.
            live_bytes: match live_puts {
                0 => 0,
                _ => self.live_bytes.load(Ordering::Relaxed),
            },
            puts: self.puts.load(Ordering::Relaxed),
            put_bytes: self.put_bytes.load(Ordering::Relaxed),
            tombstones: self.tombstones.load(Ordering::Relaxed),
            tombstone_bytes: self.tombstone_bytes.load(Ordering::Relaxed),
            latest_expired: self.latest_expired.load(Ordering::Relaxed),
            expired_bytes: self.expired_bytes.load(Ordering::Relaxed),
            min_sequence: self.min_sequence_plus_one.load(Ordering::Relaxed).wrapping_sub(1),
            dying_after: self.dying_plus_one.load(Ordering::Relaxed).wrapping_sub(1),
        }
    }
}

/// Adds to a counter that only the caller changes.
fn add(counter: &AtomicU64, amount: u64) {
    counter.store(counter.load(Ordering::Relaxed).wrapping_add(amount), Ordering::Relaxed);
}

/// Subtracts from a counter that only the caller changes.
fn subtract(counter: &AtomicU64, amount: u64) {
    counter.store(
        counter.load(Ordering::Relaxed).saturating_sub(amount),
        Ordering::Relaxed,
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_keeps_the_shadows_that_came_after_its_first_death() {
        let (right, counters) = (ChangeRight::new(), Counters::default());
        for sequence in [10, 11, 12] {
            counters.add_put(&right, 100, sequence);
            counters.add_live(&right, 1, 100);
        }
        assert_eq!(counters.get().hides_up_to(), None);
        counters.die(&right, 100, 40);
        assert_eq!(counters.get().hides_up_to(), Some(40));
        counters.die(&right, 100, 50);
        assert_eq!(counters.get().hides_up_to(), Some(40));
        // Nothing can hide a record before the first one.
        counters.die(&right, 100, 0);
        assert_eq!(counters.get().hides_up_to(), Some(10));

        let summary = Summary {
            puts: 2,
            put_bytes: 200,
            min_sequence: 10,
            ..Summary::default()
        };
        // Of a segment that was found on disk it is not known when its records died.
        assert_eq!(Counters::of(&summary).get().hides_up_to(), Some(10));
        let copies = Counters::of_copies(&summary, 60);
        assert_eq!(copies.get().hides_up_to(), Some(60));
        copies.add_live(&right, 2, 200);
        assert_eq!(copies.get().hides_up_to(), None);
        // A put that has died since the counters were read.
        let died = Counts {
            puts: 1,
            dying_after: u64::MAX,
            min_sequence: 10,
            ..Counts::default()
        };
        assert_eq!(died.hides_up_to(), Some(10));
    }

    #[test]
    fn what_expired_late_holds_back_little_of_what_expired_before() {
        let (day_ms, year_ms) = (24 * 3_600_000, 365 * 24 * 3_600_000);
        // In order, in reverse, and from the middle outwards.
        for order in 0..3 {
            let (puts, length) = (60_000_u64, 1_000);
            let mut sums = ExpiredSums::default();
            sums.add(year_ms, length);
            for put in 0..puts {
                let put = match order {
                    0 => put,
                    1 => puts - 1 - put,
                    _ if put % 2 == 0 => (puts + put) / 2,
                    _ => (puts - put) / 2,
                };
                sums.add(put * day_ms / puts, length);
                assert!(sums.0.len() <= ExpiredSums::SUMS_MAX);
                assert!(sums.0.is_sorted_by(|early, late| early.latest < late.first));
            }
            assert_eq!(sums.after(day_ms), length, "order {order}");
            for part in [0, 10_000, 30_000, 59_000, 59_993] {
                let (after, exactly) = (sums.after(part * day_ms / puts), (puts - part) * length);
                assert!(after >= exactly, "order {order}, {part}: {after}");
                assert!(after <= exactly + puts * length / 4, "order {order}, {part}: {after}");
            }
            assert_eq!(sums.after(year_ms), 0);
        }
    }

    #[test]
    fn expiry_times_that_recur_take_one_sum_each_and_the_cheapest_are_merged_first() {
        let (hour_ms, length) = (3_600_000, 1_000);
        let mut sums = ExpiredSums::default();
        for turn in 0..3 {
            for hour in 0..ExpiredSums::SUMS_MAX as u64 {
                // In another order each time.
                let hour = (hour * 5 + turn) % ExpiredSums::SUMS_MAX as u64;
                sums.add(hour * hour_ms, length);
                sums.add(hour * hour_ms, length);
                assert!(sums.0.is_sorted_by(|early, late| early.latest < late.first));
            }
        }
        for hour in 0..ExpiredSums::SUMS_MAX as u64 {
            let exactly = (ExpiredSums::SUMS_MAX as u64 - 1 - hour) * 6 * length;
            assert_eq!(sums.after(hour * hour_ms), exactly);
        }
        // Many bytes, held back for a millisecond at most, are better than a few for an hour.
        sums.add(hour_ms + 1, 1_000_000_000);
        sums.add(hour_ms + 2, 1_000_000_000);
        // Between those two, which count as one now.
        sums.add(hour_ms + 1, length);
        assert!(sums.0.is_sorted_by(|early, late| early.latest < late.first));
        for hour in 2..ExpiredSums::SUMS_MAX as u64 {
            let exactly = (ExpiredSums::SUMS_MAX as u64 - 1 - hour) * 6 * length;
            assert_eq!(sums.after(hour * hour_ms), exactly, "{hour}");
        }
        assert_eq!(sums.after(hour_ms + 2), (ExpiredSums::SUMS_MAX as u64 - 2) * 6 * length);
    }
}
