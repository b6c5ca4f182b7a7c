//! What a group commit asks of the log that it is part of.

use crate::error::{Error, Result};

/// What a group commit writes to.
pub(crate) trait Environment {
    /// The end of the log; kept under the writer lock.
    type Tail: std::fmt::Debug + Send;
    /// What a leader needs to write out the pending records without the lock.
    type Pending;
    /// What a leader needs to sync without the lock.
    type Unsynced;

    /// Bytes appended and not written out.
    fn pending_bytes(&self, tail: &Self::Tail) -> u64;
    /// Everything appended and not written out; None if there is nothing.
    fn pending(&self, tail: &Self::Tail) -> Option<Self::Pending>;
    /// Writes the pending records out.
    fn write(&self, pending: &Self::Pending) -> Result<()>;
    /// Whether a failed write-out would roll anything back now.
    fn would_roll_back(&self, tail: &Self::Tail) -> bool;
    /// The write-out failed: does what takes long of a roll-back, without the lock.
    fn prepare_roll_back(&self, pending: &mut Self::Pending);
    /// The write-out succeeded. `newer` is the first sequence appended meanwhile, if any.
    fn written(&self, tail: &mut Self::Tail, pending: &Self::Pending, newer: Option<u64>);
    /// Copies everything pending to where it survives the process, without a system call. Returns
    /// whether the flush thread is to be woken, or None if this cannot be done, or it is better to
    /// write out now. `is_writing`: another thread is writing out.
    fn keep(&self, tail: &mut Self::Tail, is_writing: bool) -> Option<bool>;
    /// Everything pending was acknowledged: a failed write-out must not roll it back.
    fn acknowledge(&self, tail: &mut Self::Tail);
    /// A write-out failed: rolls back what was not acknowledged. Returns the last sequence that
    /// stays in the log, or None if nothing was rolled back. An error poisons the log.
    fn roll_back(
        &self,
        tail: &mut Self::Tail,
        pending: Self::Pending,
        written_sequence: u64,
        error: &Error,
    ) -> Result<Option<u64>>;

    /// Everything written out and not synced.
    fn unsynced(&self, tail: &Self::Tail) -> Self::Unsynced;
    /// Syncs the written records.
    fn sync(&self, unsynced: &Self::Unsynced) -> Result<()>;
    /// Whether the sync that just finished may be trusted. Checked under the lock, so that a
    /// failure reported to another call meanwhile is seen before this sync is acknowledged.
    fn check_synced(&self, tail: &Self::Tail) -> Result<()>;
    /// The records are durable; `is_news` if some of them were not before.
    fn synced(&self, tail: &mut Self::Tail, unsynced: Self::Unsynced, is_news: bool);

    /// An error if nothing may be acknowledged any more.
    fn check_device(&self) -> Result<()>;
    /// Called when much is pending.
    fn wake_flusher(&self);
}
