//! Readers and listers, which compare what they see with what was acknowledged before.

use std::sync::atomic::Ordering;

use embercask::Namespace;

use super::{BATCHERS, KEYS, STEADY, Storm, WRITERS};
use crate::concurrency::intact;
use test_support::Rng;

impl Storm {
    pub(super) fn read(&self, mut rng: Rng) {
        let mut plain = [[0; KEYS]; WRITERS];
        let mut batched = [0; BATCHERS];
        // This many reads, and more until enough of them were compared with an acknowledged value.
        let (mut looks, mut compared) = (0, 0);
        while looks < self.operations || compared < self.operations / 2 {
            looks += 1;
            if rng.below(2) == 0 {
                let (writer, key) = (rng.below(WRITERS as u64) as usize, rng.below(KEYS as u64) as usize);
                let least = plain[writer][key].max(self.acknowledged.plain[writer][key].load(Ordering::SeqCst));
                let name = Self::plain_key(writer, key);
                compared += u64::from(least > 0);
                if rng.below(8) == 0 {
                    assert!(least == 0 || self.first.contains(&name).unwrap(), "{name} is missing");
                    continue;
                }
                let found = self.first.get(&name).unwrap().map_or(0, |value| intact(&value));
                assert!(found >= least, "{name} went back from {least} to {found}");
                plain[writer][key] = found;
                continue;
            }
            let batcher = rng.below(BATCHERS as u64) as usize;
            let seen = &mut batched[batcher];
            let least = (*seen).max(self.acknowledged.batched[batcher].load(Ordering::SeqCst));
            compared += u64::from(least > 0);
            let [a, b, c] = ["a", "b", "c"].map(|key| format!("pair {batcher} {key}"));
            let get = |namespace: &Namespace, key: &str| namespace.get(key).unwrap().map_or(0, |value| intact(&value));
            match rng.below(4) {
                0 => {
                    let first = get(&self.first, &a);
                    let second = get(&self.second, &b);
                    assert!(
                        least <= first && first <= second,
                        "half a batch: {least}, {first}, then {second}"
                    );
                    *seen = second;
                }
                1 => {
                    let first = get(&self.second, &b);
                    let second = get(&self.first, &c);
                    assert!(
                        least <= first && first <= second,
                        "half a batch: {least}, {first}, then {second}"
                    );
                    *seen = second;
                }
                2 => {
                    let found = self.first.get_many(&[&a, &c]).unwrap();
                    let [first, second] = [0, 1].map(|n| found[n].as_ref().map_or(0, |value| intact(value)));
                    assert!(
                        first == second && least <= first,
                        "half a batch: {least}, {first} and {second}"
                    );
                    *seen = first;
                }
                _ => {
                    let list = self.first.list().prefix(format!("pair {batcher} ")).with_values();
                    let list = if rng.below(2) == 0 { list.reverse() } else { list };
                    let page = list.page().unwrap();
                    let found: Vec<_> = page.iter().map(|entry| intact(entry.value().unwrap())).collect();
                    assert!(
                        found.is_empty() && least == 0 || found.len() == 2,
                        "half a batch: {found:?}"
                    );
                    assert!(
                        found.iter().all(|n| *n == found[0] && *n >= least),
                        "half a batch: {least}, {found:?}"
                    );
                    *seen = found.first().copied().unwrap_or(0);
                }
            }
        }
    }

    pub(super) fn list(&self, mut rng: Rng) {
        let expected: Vec<_> = (0..STEADY).map(|n| format!("steady {n:03}")).collect();
        for _ in 0..self.operations / 20 {
            let (reverse, with_values) = (rng.below(2) == 0, rng.below(3) == 0);
            let mut list = self
                .first
                .list()
                .prefix("steady ")
                .page_size(1 + rng.below(40) as usize);
            if reverse {
                list = list.reverse();
            }
            if with_values {
                list = list.with_values();
            }
            let mut keys = Vec::new();
            for entry in list {
                let entry = entry.unwrap();
                if with_values {
                    intact(entry.value().unwrap());
                }
                keys.push(entry.key_str().unwrap().to_owned());
            }
            if reverse {
                keys.reverse();
            }
            assert!(keys.is_sorted_by(|a, b| a < b), "keys are out of order or repeated");
            keys.retain(|key| key.len() == "steady 000".len());
            assert_eq!(keys, expected, "each permanent key is listed once");
            let count = self.first.list().prefix("steady ").count().unwrap() as usize;
            assert!((STEADY..=STEADY * 4).contains(&count), "{count}");
        }
    }
}
