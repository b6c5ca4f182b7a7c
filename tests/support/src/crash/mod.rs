//! Crashes at every step: recordings of whole lives, and the states that cutting them off leaves.

pub mod cut;
pub mod explorer;
pub mod liar;
pub mod recording;
pub mod trouble;
pub mod workload;
