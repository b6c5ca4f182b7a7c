//! Replicas of a store, on simulated disks. One binary, of the package `embercask-replica`.

mod applier;
#[cfg(feature = "testing")]
mod simulated;
