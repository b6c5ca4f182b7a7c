//! Bodies of the fuzz targets that use only the public interface. Those that need internals are in
//! `src/fuzzing`.

pub mod store_model;
pub mod store_open;
