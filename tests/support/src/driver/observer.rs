//! Who follows what a driver does.

use std::sync::Arc;

use embercask::storage::{MemStorage, Storage};

use crate::model::{Promise, State};

/// Follows what a driver does. The default only looks away.
pub trait Observer: Send + Sync {
    /// What the store works on, in the place of the disk itself.
    fn storage(&self, disk: &MemStorage) -> Arc<dyn Storage> {
        Arc::new(disk.clone())
    }

    /// Whether the driver may let power fail where nothing can be lost by it.
    fn may_lose_power(&self) -> bool {
        true
    }

    /// The driver looks at the store, or goes on: meanwhile no disk may fail.
    fn calm(&self, _is_calm: bool) {}

    /// A write begins that leads to this state.
    fn begins(&self, _state: &State) {}

    /// The write that began has led to this state.
    fn changed(&self, _state: &State) {}

    /// The newest state and all before it are covered by an acknowledgement of this class.
    fn acknowledged(&self, _promise: Promise) {}
}

pub(super) struct Nobody;

impl Observer for Nobody {}
