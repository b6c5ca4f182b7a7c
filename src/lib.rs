//! embercask: a log-structured, persistent key-value store with the data model of Workers KV.

#![deny(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]
#![warn(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::dbg_macro
)]

mod clock;
mod compact;
mod error;
mod format;
mod index;
mod limits;
mod log;
mod options;
mod segment;
pub mod storage;
mod store;
mod sync;

pub use clock::{Clock, ManualClock, SystemClock};
pub use compact::CompactionReport;
pub use error::{Error, ErrorKind, Result};
pub use limits::Limits;
pub use log::recovery::RecoveryReport;
pub use options::{
    Condition, Durability, Maintenance, Options, Progress, PutOptions, ReadMode, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
};
pub use segment::Value;
pub use store::*;
