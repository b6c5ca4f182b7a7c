//! The applier against a naive model, and killed at every step.

mod against_model;
mod draw;
mod failures;
mod kills;
mod model;
mod node;

/// The cluster of these logs.
const CLUSTER: u128 = 7;

/// When they begin.
const START_MS: u64 = 1_800_000_000_000;
