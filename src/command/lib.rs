//! The command `embercask` and its server: a store from the command line, and as Workers KV over
//! HTTP.
//!
//! `cli` is the command line, `server` is `embercask serve`, and `common` is shared by both. `cli`
//! calls `server`, never the other way round. This package uses only the engine's public interface.

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

mod cli;
mod common;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod planted;
mod server;

pub use cli::main;
