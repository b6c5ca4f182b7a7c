//! The outcome of a run, and how a child process reports it to its parent.

use serde::{Deserialize, Serialize};

/// Whether higher or lower values of a measure are better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    Higher,
    Lower,
}

/// One number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measure {
    /// The name of the measure; unique in its workload.
    pub name: String,
    pub value: f64,
    pub unit: String,
    pub better: Better,
}

impl Measure {
    /// A rate of operations.
    pub fn rate(name: impl Into<String>, operations: u64, elapsed: std::time::Duration) -> Measure {
        let value = operations as f64 / elapsed.as_secs_f64().max(1e-9);
        Measure {
            name: name.into(),
            value,
            unit: "operations/s".into(),
            better: Better::Higher,
        }
    }

    /// A measure where lower is better.
    pub fn cost(name: impl Into<String>, value: f64, unit: &str) -> Measure {
        Measure {
            name: name.into(),
            value,
            unit: unit.into(),
            better: Better::Lower,
        }
    }
}

/// The single line that a child prints.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Measured(Vec<Measure>),
    /// Why this engine cannot run this workload.
    Skipped(String),
    /// The error, for example a value that was not as written.
    Failed(String),
}
