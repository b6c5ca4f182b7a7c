//! `embercask export` and `embercask import`: whole namespaces through files, in bounded memory.

pub(crate) mod array;
mod export;
mod import;
mod record;
mod stream;

pub(crate) use export::export;
pub(crate) use import::import;
pub(crate) use stream::Input;
