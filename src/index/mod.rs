//! The in-memory indexes. They know locations and keys, not files, and can all be rebuilt from the
//! log.

pub(crate) mod expiry;
pub(crate) mod hash;
pub(crate) mod keydir;
pub(crate) mod namespaces;
pub(crate) mod order;
