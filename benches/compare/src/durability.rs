//! The two durability classes in which engines are compared: what a write survives once it has
//! returned.

use serde::{Deserialize, Serialize};

/// Comparing a write that waits for the device with one that does not is meaningless, so every run
/// has one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Survives any end of the process, but not a power cut.
    Os,
    /// Survives a power cut: every commit waits for the device.
    Sync,
}

impl Durability {
    /// Its name on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Durability::Os => "os",
            Durability::Sync => "sync",
        }
    }
}
