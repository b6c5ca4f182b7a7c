//! The documented rules of time, from outside: which put of a key is visible when, and when it may
//! be dropped from disk.

/// How long nothing is dropped from disk after a jump, see `docs/decisions/0010`.
pub(crate) const PAUSE_MS: u64 = 10 * 60_000;
/// The minimum difference between the clocks that counts as a jump.
const JUMP_MS_MIN: u64 = 1_000;

/// The newest write of a key, a put.
#[derive(Clone, Debug)]
pub(crate) struct Newest {
    pub(crate) value: String,
    pub(crate) expiry: Option<u64>,
    pub(crate) sequence: u64,
    pub(crate) on_disk: OnDisk,
    /// The latest time that this opening has seen since the write.
    pub(crate) seen: u64,
}

/// Whether the record of an expired put is still on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OnDisk {
    Yes,
    /// Something was entitled to drop it after it expired.
    Perhaps,
    No,
}

impl Newest {
    /// Whether this opening shows it: once it has seen a time at or after the expiry, the put is
    /// gone.
    pub(crate) fn is_visible(&self) -> bool {
        self.is_visible_at(self.seen)
    }

    /// Whether another opening shows it at this time.
    pub(crate) fn is_visible_at(&self, wall: u64) -> bool {
        self.on_disk != OnDisk::No && self.expiry.is_none_or(|expiry| wall < expiry)
    }
}

/// The documented rules for when an expired put may be dropped from disk.
pub(crate) struct Grace {
    pub(crate) grace_ms: u64,
    pub(crate) wall: u64,
    pub(crate) monotonic: u64,
    pub(crate) pause_until: u64,
}

impl Grace {
    /// Compaction or a sweep reads the clocks. Puts that expired up to the returned time may be
    /// dropped from disk.
    pub(crate) fn look(&mut self, wall: u64, monotonic: u64) -> Option<u64> {
        let passed = monotonic - self.monotonic;
        if wall.saturating_sub(self.wall) > passed + self.grace_ms.max(JUMP_MS_MIN) {
            self.pause_until = monotonic + PAUSE_MS;
        }
        (self.wall, self.monotonic) = (wall, monotonic);
        (monotonic >= self.pause_until).then(|| wall.saturating_sub(self.grace_ms))
    }
}

impl OnDisk {
    /// The state after something was entitled to drop it.
    pub(crate) fn max_doubt(self) -> OnDisk {
        if self == OnDisk::No {
            OnDisk::No
        } else {
            OnDisk::Perhaps
        }
    }
}
