//! Bodies of the fuzz targets that use the public interface alone; those that reach inside are in
//! `src/fuzzing`.

pub mod store_model;
pub mod store_open;
