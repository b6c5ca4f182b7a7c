//! What happens to a record when its segment is compacted: facts in, decision out.
//!
//! * A put is dropped only if a newer record of its key is on the device, or if it has expired.
//! * A shadow (a tombstone, or an expired put, which is written as a tombstone) is dropped only if
//!   no other segment can hold an older record of its key. Otherwise it is kept under its own
//!   sequence.

/// Everything the decision depends on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// It is a put, not a tombstone.
    pub(super) is_put: bool,
    /// The keydir points at it.
    pub(super) is_live: bool,
    /// It belongs to a dropped namespace, whose own shadow covers all its records.
    pub(super) is_dropped: bool,
    /// It has expired.
    pub(super) is_expired: bool,
    /// A put of its key is known to be in the log; if this record is not live, that put is newer.
    pub(super) is_replaced: bool,
    /// No segment outside the run can hold an older record of its key.
    pub(super) hides_nothing: bool,
    /// It expired long enough ago to be dropped from disk.
    pub(super) is_past_grace: bool,
}

/// What happens to a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Copy,
    /// An expired put, written as a tombstone.
    Bury,
    /// An expired put that is copied, since it has not been expired for long.
    Linger,
    /// A shadow that hides nothing outside the inputs, and no record that lingers: dropped.
    Spent,
    /// Dropped: a newer record of the key is elsewhere.
    Gone,
}

impl Facts {
    /// Whether it may hide an older record of its key.
    pub(super) fn is_shadow(&self) -> bool {
        !self.is_put || self.is_expired
    }
}

/// Decides the fate of a record.
pub(super) fn fate(facts: &Facts) -> Fate {
    if facts.is_live {
        return Fate::Copy;
    }
    if facts.is_dropped || !facts.is_shadow() || facts.is_replaced {
        return Fate::Gone;
    }
    match (facts.is_put, facts.is_past_grace, facts.hides_nothing) {
        (false, _, true) | (true, true, true) => Fate::Spent,
        (false, _, false) => Fate::Copy,
        (true, true, false) => Fate::Bury,
        (true, false, _) => Fate::Linger,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every combination of facts.
    fn all() -> impl Iterator<Item = Facts> {
        (0..1u32 << 7).map(|bits| Facts {
            is_put: bits & 1 != 0,
            is_live: bits & 2 != 0,
            is_dropped: bits & 4 != 0,
            is_expired: bits & 8 != 0,
            is_replaced: bits & 16 != 0,
            hides_nothing: bits & 32 != 0,
            is_past_grace: bits & 64 != 0,
        })
    }

    #[test]
    fn each_record_goes_the_way_that_the_table_says() {
        let (put, tombstone) = (
            Facts {
                is_put: true,
                ..Facts::default()
            },
            Facts::default(),
        );
        let expired = Facts {
            is_expired: true,
            ..put
        };
        let past_grace = Facts {
            is_past_grace: true,
            ..expired
        };
        let alone = |facts| Facts {
            hides_nothing: true,
            ..facts
        };
        let replaced = |facts| Facts {
            is_replaced: true,
            ..facts
        };
        let dropped = |facts| Facts {
            is_dropped: true,
            ..facts
        };
        let live = |facts| Facts { is_live: true, ..facts };
        for (facts, expected) in [
            (live(put), Fate::Copy),
            (live(expired), Fate::Copy),
            (put, Fate::Gone),
            (replaced(put), Fate::Gone),
            (dropped(put), Fate::Gone),
            (tombstone, Fate::Copy),
            (alone(tombstone), Fate::Spent),
            (replaced(tombstone), Fate::Gone),
            (dropped(tombstone), Fate::Gone),
            (expired, Fate::Linger),
            (alone(expired), Fate::Linger),
            (past_grace, Fate::Bury),
            (alone(past_grace), Fate::Spent),
            (replaced(past_grace), Fate::Gone),
            (dropped(past_grace), Fate::Gone),
        ] {
            assert_eq!(fate(&facts), expected, "{facts:?}");
        }
    }

    #[test]
    fn nothing_live_goes_and_no_shadow_that_may_hide_anything() {
        for facts in all() {
            let fate = fate(&facts);
            let goes = matches!(fate, Fate::Spent | Fate::Gone);
            assert!(!(facts.is_live && fate != Fate::Copy), "{facts:?}");
            let is_covered = facts.is_dropped || facts.is_replaced || facts.hides_nothing;
            assert!(!(goes && facts.is_shadow() && !is_covered), "{facts:?}");
            // Within the grace period an expired put is dropped only for a newer record.
            let lingers = facts.is_put && facts.is_expired && !facts.is_past_grace;
            assert!(!(lingers && matches!(fate, Fate::Spent | Fate::Bury)), "{facts:?}");
            // A tombstone is never treated as a put.
            assert!(facts.is_put || !matches!(fate, Fate::Bury | Fate::Linger), "{facts:?}");
        }
    }
}
