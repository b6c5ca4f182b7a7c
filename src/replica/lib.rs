//! Replicas of an embercask store. All writes go through one replicated log, which is kept by
//! another system; every node applies that log, in its order, into a whole store of its own, and
//! reads from there.
//!
//! [`entry`] is what stands in the log, [`log`] what is asked of the system that keeps it,
//! [`applier`] applies the one to a store, at the time of [`clock`], and [`state`] is what the
//! store then holds about it. [`writer`] gets writes into the log, and [`node`] runs both for a
//! server.

#![deny(unsafe_code)]
#![warn(missing_docs, unreachable_pub)]
#![cfg_attr(not(any(test, fuzzing)), warn(clippy::too_many_arguments, clippy::too_many_lines))]
#![warn(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::dbg_macro
)]

pub mod applier;
pub mod clock;
pub mod content;
pub mod entry;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod log;
#[cfg(feature = "nats")]
pub mod nats;
pub mod node;
#[cfg(any(test, feature = "testing"))]
pub mod simulated;
pub mod state;
mod uploads;
pub mod writer;
pub mod writers;
