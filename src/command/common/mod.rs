//! Shared by the command line and the server: failures, signals, bytes as text and back, JSON, and
//! the statistics of a store.

pub(crate) mod base64;
pub(crate) mod blanks;
pub(crate) mod checkpoint_archive;
pub(crate) mod duration;
pub(crate) mod failure;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
pub(crate) mod interrupt;
pub(crate) mod json_text;
pub(crate) mod log;
pub(crate) mod objects;
pub(crate) mod parse;
pub(crate) mod pattern;
pub(crate) mod reserved;
pub(crate) mod statistics;
pub(crate) mod store_options;
pub(crate) mod text;
