//! The hash of a key. Keys are untrusted input, so the hash is seeded with secret seeds.

use std::hash::Hasher;

use foldhash::SharedSeed;
use foldhash::quality::FoldHasher;

/// Hashes keys. The same seeds give the same hashes as long as the hash function does not change;
/// see [`KeyHasher::probe`].
pub(crate) struct KeyHasher {
    seeds: [u64; 2],
    shared: SharedSeed,
}

impl KeyHasher {
    pub(crate) fn new(seeds: [u64; 2]) -> KeyHasher {
        KeyHasher {
            seeds,
            shared: SharedSeed::from_u64(seeds[1]),
        }
    }

    pub(crate) fn seeds(&self) -> [u64; 2] {
        self.seeds
    }

    #[inline]
    pub(crate) fn hash(&self, namespace: u32, key: &[u8]) -> u64 {
        let mut hasher = FoldHasher::with_seed(self.seeds[0], &self.shared);
        hasher.write(key);
        hasher.write_u32(namespace);
        hasher.finish()
    }

    /// A digest of this hasher's hashes of fixed keys, covering every length that the hash function
    /// may treat differently. Stored hashes may be used only if the probe stored with them still
    /// matches.
    pub(crate) fn probe(&self) -> u64 {
        let bytes: Vec<u8> = (0..1024u32).map(|number| (number * 7 + number / 251) as u8).collect();
        let keys = (0..=bytes.len()).filter_map(|length| bytes.get(..length));
        keys.zip(0..).fold(0, |sum: u64, (key, namespace)| {
            sum.rotate_left(5) ^ self.hash(namespace, key)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seeds_make_the_same_hashes_and_others_do_not() {
        let hasher = KeyHasher::new([1, 2]);
        let same = KeyHasher::new(hasher.seeds());
        assert_eq!(hasher.hash(3, b"key"), same.hash(3, b"key"));
        assert_eq!(hasher.probe(), same.probe());
        for other in [[1, 3], [2, 2], [2, 1]].map(KeyHasher::new) {
            assert_ne!(hasher.hash(3, b"key"), other.hash(3, b"key"));
            assert_ne!(hasher.probe(), other.probe());
        }
        assert_ne!(hasher.hash(3, b"key"), hasher.hash(4, b"key"));
    }
}
