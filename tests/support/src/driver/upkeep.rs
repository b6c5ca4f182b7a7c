//! Operations that change nothing visible: flushes, syncs, sweeps, compaction, closing.

use embercask::Result;

use super::Driver;
use crate::model::Promise;
use crate::ops::Upkeep;

impl Driver {
    pub(super) fn upkeep(&mut self, upkeep: &Upkeep) {
        let result = self.perform_upkeep(upkeep);
        if let Err(error) = result {
            panic!("{upkeep:?}: {error}");
        }
        self.settle_upkeep(upkeep);
    }

    pub(super) fn perform_upkeep(&self, upkeep: &Upkeep) -> Result<()> {
        let store = &self.store;
        match upkeep {
            Upkeep::Flush => store.flush(),
            Upkeep::Sync => store.sync(),
            Upkeep::Maintain => store.maintain(),
            Upkeep::Compact => store.compact().map(drop),
            Upkeep::CompactSubset(mask) => store.compact_subset(*mask).map(drop),
            Upkeep::CompactIfWorthwhile => store.compact_if_worthwhile().map(drop),
            Upkeep::Close => store.clone().close(),
        }
    }

    fn settle_upkeep(&mut self, upkeep: &Upkeep) {
        match upkeep {
            Upkeep::Flush => self.acknowledge(Promise::Kill),
            Upkeep::Sync | Upkeep::Close => self.acknowledge(Promise::PowerCut),
            Upkeep::Maintain => {
                self.acknowledge(Promise::Kill);
                self.swept();
            }
            Upkeep::Compact => {
                self.swept();
                let stats = self.store.stats();
                // Shortly after a clock jump, expired records are kept.
                if self.settings.grace_ms == 0 && !self.wall_shifted {
                    assert_eq!(
                        (stats.dead_bytes, stats.tombstone_bytes),
                        (0, 0),
                        "waste after compact(): {stats:?}"
                    );
                }
            }
            Upkeep::CompactSubset(_) | Upkeep::CompactIfWorthwhile => {}
        }
    }

    /// Everything expired or dropped has left the indexes, except that after the clock was set some
    /// expired keys are only hidden.
    fn swept(&mut self) {
        let now = self.now;
        self.dropped_keys = 0;
        if !self.wall_shifted {
            self.history.now_mut().sweep(now);
            self.check_exact_counts();
            self.expiries_were_told();
        }
    }
}
