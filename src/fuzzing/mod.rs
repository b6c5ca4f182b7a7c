//! The bodies of the fuzz targets that use the library's internals: one function per parser of
//! untrusted bytes.
//!
//! Each takes arbitrary bytes and asserts more than that nothing panics: bytes that decode encode
//! to the same bytes; flipped bits and truncation are refused; no length exceeds the bytes present;
//! and two ways to read the same bytes agree. The first bytes of an input say how the rest is used:
//! as it is, or with its checksums repaired ([`repair`](crate::testing::repair)), so that the code
//! behind the checksums is reached; and how it is damaged.
//!
//! Compiled for tests and for fuzzing only (`fuzz/README.md` says how to run them); as ordinary
//! tests they run over the corpus and past findings. Targets that need only the public interface
//! are in `tests/support/src/fuzz`, those of the command and its server in `src/command`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a target reports a finding by panicking"
)]

mod format;
mod hint;
mod index;
mod segment;
mod store;
#[cfg(test)]
mod tests;

pub use format::{file_name, namespace_record, record_decode};
pub use hint::hint_load;
pub use index::index_load;
pub use segment::segment_scan;
pub use store::{cursor, manifest_load};
