//! The bodies of the fuzz targets that reach inside the library: one function for each parser of
//! bytes from outside.
//!
//! Each takes any bytes at all and asserts what must hold of them, not only that nothing panics:
//! what decodes encodes to the same bytes; whatever one bit less or one byte less makes of it is
//! refused; no length exceeds what is there; and two ways to read the same bytes agree. The first
//! bytes of an input say how the rest is used: as it is, or with its checksums put
//! right ([`repair`](crate::testing::repair)), so that the code behind the checksums is reached;
//! and which damage is done to it.
//!
//! Compiled for tests and for fuzzing only (`fuzz/README.md` tells how to run them); as ordinary
//! tests they run over the corpus and past findings. The targets that need no more than the public
//! interface are in `tests/support/src/fuzz`, those of the command and its server in `src/command`.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "to panic is how a target tells what it found"
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
