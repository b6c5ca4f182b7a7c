//! The bodies of the server's fuzz targets, which need no sockets: settings, requests in both
//! protocols, and the parsers alone.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a fuzz target reports a finding by a panic"
)]

mod administration;
mod bulk;
mod composed;
mod conditions;
mod escapes;
mod meaning;
mod parsers;
mod request;
mod second;
mod settings;

pub use parsers::{server_bulk, server_form, server_metadata, server_path};
pub use request::server_request;
pub use settings::server_settings;
