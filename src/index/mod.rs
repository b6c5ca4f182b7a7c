//! The indexes in memory. They know locations and keys, not files; all of them can be rebuilt from
//! the log.

pub(crate) mod expiry;
pub(crate) mod hash;
pub(crate) mod keydir;
pub(crate) mod namespaces;
pub(crate) mod order;
