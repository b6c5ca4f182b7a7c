//! Maintenance on the thread of a caller.

use super::Engine;
use crate::error::Result;

impl Engine {
    /// One round of all background work except compaction: all of it that is due is done on return,
    /// or, of scrubbing, at most one pass.
    pub(crate) fn maintain(&self) -> Result<()> {
        self.context.check_open()?;
        let done = self.maintain_log_and_state();
        // Whatever failed: damage is found on a full disk too.
        self.scrub.go_on();
        self.say();
        done
    }

    fn maintain_log_and_state(&self) -> Result<()> {
        let flushed = self.log.flush();
        // First, since the rest may take long, and even if pending records do not fit on the disk:
        // what is written must not wait for that.
        self.log.sync_behind()?;
        flushed?;
        self.log.renew_hints()?;
        self.log.seal_all()?;
        self.housekeeping.sweep_expired();
        self.housekeeping.clean_expiry_queue();
        self.housekeeping.empty_dropped_namespaces()?;
        self.housekeeping.merge_orders();
        self.housekeeping.shrink(0);
        Ok(())
    }
}
