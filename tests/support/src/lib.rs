//! Code shared by test programs, benchmarks and fuzz targets; never part of the library.
//!
//! * [`manual`], [`open`] and related functions: small stores and what they show;
//!   [`Way`](way::Way): the ways to open one.
//! * [`rng`]: randomness that prints its seed; [`Sample`]: the part of everything that a suite
//!   visits by default.
//! * [`future`]: futures without a runtime.
//! * [`hooked`]: a storage with a hook before each call; [`process`]: the test binary run again as
//!   a child.
//! * [`ops`], [`model`], [`driver`]: what can happen to a store, what it should then show, and a
//!   driver that does it and compares.
//! * [`crash`]: runs that are cut off at every step, and disks that fail or lie.
//! * [`fuzz`]: bodies of the fuzz targets that use only the public interface.

pub mod crash;
mod depth;
pub mod driver;
pub mod future;
pub mod fuzz;
pub mod hooked;
pub mod model;
pub mod ops;
pub mod process;
mod random;
mod run;
mod store;
pub mod way;

pub use depth::{Sample, is_exhaustive};
pub use embercask::testing::until;
pub use random::{Rng, mix, rng};
pub use run::{StopOnDrop, at_least, skip};
pub use store::{DIRECTORY, class, ending, file_names, is_corruption, keys, manual, open, text, written};
