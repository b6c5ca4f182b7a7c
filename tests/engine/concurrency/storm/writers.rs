//! Writers, which record what was acknowledged.

use std::sync::atomic::Ordering;
use std::time::Duration;

use embercask::Durability;

use super::{FILLED, KEYS, STEADY, Storm};
use crate::concurrency::{random_class, value_of};
use test_support::{Rng, class};

impl Storm {
    pub(super) fn write_plain(&self, writer: usize, mut rng: Rng) {
        for n in 1..=self.operations {
            let key = n as usize % KEYS;
            let options = class(random_class(&mut rng));
            self.first
                .put_with(Self::plain_key(writer, key), value_of(n), options)
                .unwrap();
            self.acknowledged.plain[writer][key].store(n, Ordering::SeqCst);
        }
    }

    /// Writes the same number under two keys of one namespace and one of another.
    pub(super) fn write_batches(&self, batcher: usize, mut rng: Rng) {
        for n in 1..=self.operations {
            let value = value_of(n);
            let mut batch = self.store.batch();
            batch.put(&self.first, format!("pair {batcher} a"), &value);
            batch.put(&self.second, format!("pair {batcher} b"), &value);
            if rng.below(16) == 0 {
                // So many that the batch enters the indexes while others write.
                for number in 0..FILLED {
                    batch.put(&self.second, format!("fill {batcher} {number}"), &value);
                }
            }
            batch.put(&self.first, format!("pair {batcher} c"), &value);
            batch.durability(random_class(&mut rng)).commit().unwrap();
            self.acknowledged.batched[batcher].store(n, Ordering::SeqCst);
        }
    }

    /// Keys that come, go and expire between permanent ones, which are overwritten too.
    pub(super) fn churn(&self, mut rng: Rng) {
        for n in 1..=self.operations {
            let steady = rng.below(STEADY as u64);
            let options = class(Durability::Buffered);
            let fleeting = format!("steady {steady:03} {}", rng.below(3));
            match rng.below(4) {
                0 => drop(
                    self.first
                        .put_with(format!("steady {steady:03}"), value_of(n), options)
                        .unwrap(),
                ),
                1 => drop(self.first.put_with(&fleeting, value_of(n), options).unwrap()),
                2 => {
                    let options = options.ttl(Duration::from_millis(1 + rng.below(5)));
                    self.first.put_with(&fleeting, value_of(n), options).unwrap();
                }
                _ => drop(
                    self.first
                        .delete_with(&fleeting, None, Some(Durability::Buffered))
                        .unwrap(),
                ),
            }
        }
    }
}
