//! What sender and receiver of a checkpoint agree on.

/// The last file of the archive. It is empty, and no file of a store has such a name.
pub(crate) const END: &str = "end-of-checkpoint";
