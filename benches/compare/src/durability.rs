//! The two classes in which engines are compared: what a write has survived when it returns.

use serde::{Deserialize, Serialize};

/// Comparing a write that waits for the device with one that does not says nothing, so every run
/// has one class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// Survives the end of the process in whatever way, not a power cut.
    Os,
    /// Survives a power cut: every commit waits for the device.
    Sync,
}

impl Durability {
    /// The word for it on the command line and in results.
    pub fn name(self) -> &'static str {
        match self {
            Durability::Os => "os",
            Durability::Sync => "sync",
        }
    }
}
