//! Observers of a driver.

use std::sync::Arc;

use embercask::storage::{MemStorage, Storage};

use crate::model::{Promise, State};

/// Observes a driver. The default does nothing.
pub trait Observer: Send + Sync {
    /// The storage that the store uses instead of the disk itself.
    fn storage(&self, disk: &MemStorage) -> Arc<dyn Storage> {
        Arc::new(disk.clone())
    }

    /// Whether the driver may cut power where nothing can be lost.
    fn may_lose_power(&self) -> bool {
        true
    }

    /// The driver is checking the store, or has resumed; no disk may fail while it checks.
    fn calm(&self, _is_calm: bool) {}

    /// A write that leads through these states begins.
    fn begins(&self, _states: &[State]) {}

    /// The write that began has led through these states.
    fn changed(&self, _states: &[State]) {}

    /// An acknowledgement of this class covers the newest state and all before it.
    fn acknowledged(&self, _promise: Promise) {}
}

pub(super) struct Nobody;

impl Observer for Nobody {}
