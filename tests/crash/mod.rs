//! Crashes at every step: recordings of whole lives, and the states that cutting them off leaves.

pub(crate) mod cut;
pub(crate) mod explorer;
pub(crate) mod liar;
pub(crate) mod recording;
pub(crate) mod workload;
