//! The command `embercask`: what a person does with a store without writing a program.
//!
//! It is a program of its own beside the library, and so can use nothing but the library's public interface.

#![deny(unsafe_code)]
#![warn(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::todo,
    clippy::unimplemented,
    clippy::dbg_macro
)]

#[path = "../cli/mod.rs"]
mod cli;
#[path = "../planted.rs"]
mod planted;
#[cfg(feature = "server")]
#[path = "../server/mod.rs"]
mod server;

fn main() -> std::process::ExitCode {
    cli::main()
}
