//! The command `embercask` and its server: what a person does with a store without writing a
//! program, and Workers KV over HTTP.
//!
//! `cli` is the command line, `server` what `embercask serve` runs, and `common` what both use.
//! `cli` calls `server`, which knows nothing of it. This package uses nothing but the engine's
//! public interface.

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
