//! Room that is kept for keys which will be inserted.

use super::{Keydir, Shard};

/// Numbers of keys by shard, for [`Keydir::promise`].
#[derive(Debug, Default)]
pub(crate) struct Shares(Box<[(usize, usize)]>);

impl Keydir {
    /// How many of these hashes, sorted, fall into which shards.
    pub(crate) fn shares<'h>(sorted: impl IntoIterator<Item = &'h u64>) -> Shares {
        let mut shares: Vec<(usize, usize)> = Vec::new();
        for hash in sorted {
            let shard = Self::shard_of(*hash);
            match shares.last_mut() {
                Some((last, count)) if *last == shard => *count += 1,
                _ => shares.push((shard, 1)),
            }
        }
        Shares(shares.into())
    }

    /// Keeps room for as many new keys as that; false if there is not enough. The caller makes sure
    /// that no other thread does the same, or inserts keys.
    pub(crate) fn promise(&self, shares: &Shares) -> bool {
        let has_room = self.of(shares).all(|(shard, count)| shard.has_room(count));
        if has_room {
            self.of(shares).for_each(|(shard, count)| shard.promise(count));
        }
        has_room
    }

    /// Ends a promise: the keys were inserted, or will not be.
    pub(crate) fn redeem(&self, shares: &Shares) {
        self.of(shares).for_each(|(shard, count)| shard.redeem(count));
    }

    fn of<'a>(&'a self, shares: &'a Shares) -> impl Iterator<Item = (&'a Shard, usize)> {
        let shares = shares.0.iter();
        shares.filter_map(|(shard, count)| Some((self.shards.get(*shard)?, *count)))
    }
}
