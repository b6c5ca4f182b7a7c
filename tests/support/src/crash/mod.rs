//! Crashes at every step: recordings of whole runs, and the states that cutting them off leaves.

pub mod cut;
pub mod explorer;
pub mod liar;
pub mod recording;
pub mod trouble;
pub mod workload;
