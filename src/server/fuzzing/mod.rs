//! The bodies of the fuzz targets of the server, as far as it can be reached without sockets: settings, and requests through both faces. What
//! only parses has targets in the library's `src/fuzzing/server.rs`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "to panic is how a target tells what it found"
)]

#[path = "../../fuzzing/bulk.rs"]
mod bulk;
mod composed;
mod request;
mod second;
mod settings;

use crate::cli::fuzzing::json;

pub use request::server_request;
pub use settings::server_settings;
