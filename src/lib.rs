//! embercask
pub mod storage;
mod index;
mod sync;
