//! The file of results.

use crate::durability::Durability;
use crate::machine::Machine;
use crate::outcome::Outcome;
use anyhow::{Context as _, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// Everything that the report needs.
#[derive(Serialize, Deserialize)]
pub struct Results {
    pub machine: Machine,
    /// The day on which the runs began, in UTC.
    pub date: String,
    /// The exact command.
    pub command: String,
    pub keys: u64,
    pub value_bytes: usize,
    pub rounds: u32,
    pub durability: Durability,
    pub engines: Vec<EngineNote>,
    pub runs: Vec<Run>,
}

/// An engine as described in the report.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineNote {
    pub name: String,
    pub version: String,
    pub settings: String,
    /// The settings in class `sync`, in which some workloads always run.
    pub settings_sync: String,
    pub is_yardstick: bool,
}

/// One run of one workload on one engine.
#[derive(Serialize, Deserialize)]
pub struct Run {
    pub engine: String,
    pub workload: String,
    pub round: u32,
    pub outcome: Outcome,
}

impl Results {
    /// Replaces the file atomically, so that an interrupted comparison keeps its measurements.
    pub fn write(&self, path: &Path) -> Result<()> {
        let unfinished = path.with_extension("json.unfinished");
        let text = serde_json::to_string_pretty(self)?;
        std::fs::write(&unfinished, text).with_context(|| format!("write {}", unfinished.display()))?;
        std::fs::rename(&unfinished, path).with_context(|| format!("write {}", path.display()))
    }

    /// Reads a file.
    pub fn read(path: &Path) -> Result<Results> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        serde_json::from_str(&text).with_context(|| format!("understand {}", path.display()))
    }
}
