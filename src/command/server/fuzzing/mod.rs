//! The bodies of the fuzz targets of the server, as far as it can be reached without sockets:
//! settings, requests through both faces, and in `parsers` what only parses.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "to panic is how a target tells what it found"
)]

mod bulk;
mod composed;
mod parsers;
mod request;
mod second;
mod settings;

pub use parsers::{server_bulk, server_form, server_metadata, server_path};
pub use request::server_request;
pub use settings::server_settings;
