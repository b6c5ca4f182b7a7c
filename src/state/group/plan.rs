//! What is known of a group before it is in the log.

use crate::index::keydir::{Keydir, Shares};

/// Groups of more records are sorted by key when they are built; in smaller ones all are visited.
pub(super) const SORTED_MIN: usize = 4096;

/// Larger groups are settled after the writer lock is released.
pub(crate) const AT_ONCE_MAX: usize = if cfg!(test) { 8 } else { 256 };

/// The order of a group's records, which is known before they are in the log.
#[derive(Debug)]
pub(crate) struct GroupPlan {
    pub(super) hashes: Box<[u64]>,
    /// Hash and number of each record, sorted: of a key's the newest comes last.
    pub(super) by_hash: Box<[(u64, u32)]>,
    /// Numbers of the records, sorted by namespace, key and number; empty for a small group.
    pub(super) by_key: Box<[u32]>,
    /// Whether any two keys may be equal.
    pub(super) repeats: bool,
    /// Of a group that is not settled at once: how many keys need room where in the keydir.
    pub(super) shares: Option<Shares>,
}

impl GroupPlan {
    /// The plan of these records, each with the hash, the namespace and the key.
    pub(crate) fn new<'a>(records: impl ExactSizeIterator<Item = (u64, u32, &'a [u8])> + Clone) -> GroupPlan {
        let hashes: Box<[_]> = records.clone().map(|(hash, ..)| hash).collect();
        let mut by_hash: Box<[_]> = hashes.iter().copied().zip(0..).collect();
        by_hash.sort_unstable();
        let repeats = by_hash
            .windows(2)
            .any(|pair| matches!(pair, [(hash, _), (next, _)] if hash == next));
        let by_key = if records.len() > SORTED_MIN {
            let mut keys: Vec<_> = records
                .zip(0..)
                .map(|((_, namespace, key), number)| (namespace, key, number))
                .collect();
            keys.sort_unstable();
            keys.into_iter().map(|(_, _, number)| number).collect()
        } else {
            Box::default()
        };
        let shares = (hashes.len() > AT_ONCE_MAX).then(|| Keydir::shares(by_hash.iter().map(|(hash, _)| hash)));
        GroupPlan {
            hashes,
            by_hash,
            by_key,
            repeats,
            shares,
        }
    }

    /// Whether the group is so large that others should not wait until it is settled.
    pub(crate) fn is_large(&self) -> bool {
        self.shares.is_some()
    }

    pub(in crate::state) fn shares(&self) -> Option<&Shares> {
        self.shares.as_ref()
    }

    /// Hash of each record.
    pub(crate) fn hashes(&self) -> &[u64] {
        &self.hashes
    }
}
