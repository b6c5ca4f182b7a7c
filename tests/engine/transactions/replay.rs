//! Histories of transactions on many threads, checked for serializability: commits have sequences,
//! so the serial order is known, and each read must be what a model shows at its place.

use std::collections::BTreeMap;
use std::sync::Mutex;

use embercask::storage::MemStorage;
use embercask::{Durability, Namespace, Result, Store, Transaction, TransactionOptions};
use test_support::{Rng, is_exhaustive, rng};

type Keys = BTreeMap<String, String>;

/// One step of a transaction, with what it has found.
#[derive(Clone, Debug)]
enum Step {
    Get(String, Option<String>),
    /// The keys with a prefix, and their values.
    List(String, Vec<(String, String)>),
    Count(u64),
    /// Deletes without a value.
    Write(String, Option<String>),
}

#[derive(Debug)]
struct Committed {
    sequence: u64,
    steps: Vec<Step>,
}

impl Step {
    /// Asserts that this is what happens to these keys.
    fn replay(&self, keys: &mut Keys) {
        match self {
            Step::Get(key, found) => assert_eq!(keys.get(key), found.as_ref(), "{self:?}"),
            Step::List(prefix, found) => {
                let listed = keys.iter().filter(|(key, _)| key.starts_with(prefix));
                let listed: Vec<_> = listed.map(|(key, value)| (key.clone(), value.clone())).collect();
                assert_eq!(listed, *found, "{self:?}");
            }
            Step::Count(count) => assert_eq!(keys.len() as u64, *count, "{self:?}"),
            Step::Write(key, Some(value)) => drop(keys.insert(key.clone(), value.clone())),
            Step::Write(key, None) => drop(keys.remove(key)),
        }
    }
}

fn random_key(rng: &mut Rng, keys: u64) -> String {
    format!("{}/{}", rng.below(3), rng.below(keys))
}

fn random_step(
    transaction: &mut Transaction,
    namespace: &Namespace,
    (rng, keys): (&mut Rng, u64),
    value: &str,
) -> Result<Step> {
    let key = random_key(rng, keys);
    Ok(match rng.below(8) {
        0 | 1 => {
            transaction.put(namespace, &key, value)?;
            Step::Write(key, Some(value.to_owned()))
        }
        2 => {
            transaction.delete(namespace, &key)?;
            Step::Write(key, None)
        }
        3 => {
            let prefix = format!("{}/", rng.below(3));
            let mut list = transaction.list(namespace)?.prefix(&prefix).with_values().page_size(3);
            if rng.below(2) == 0 {
                list = list.reverse();
            }
            let mut listed = Vec::new();
            for entry in list {
                let entry = entry?;
                let value = entry.value().unwrap().as_str()?.to_owned();
                listed.push((entry.key_str()?.to_owned(), value));
            }
            listed.sort();
            Step::List(prefix, listed)
        }
        4 => Step::Count(transaction.count(namespace)?),
        _ => {
            let found = transaction.get(namespace, &key)?;
            Step::Get(key, found.map(|value| value.as_str().unwrap().to_owned()))
        }
    })
}

/// What one thread does; the value of each write is unique.
fn run(store: &Store, namespace: &Namespace, (mut rng, keys): (Rng, u64), history: &Mutex<Vec<Committed>>) {
    for _ in 0..if is_exhaustive() { 2_000 } else { 150 } {
        let value = rng.next().to_string();
        let write = |key: String| Step::Write(key, Some(value.clone()));
        let committed = match rng.below(10) {
            0 => {
                let key = random_key(&mut rng, keys);
                let sequence = namespace.put(&key, &value).unwrap();
                Committed {
                    sequence,
                    steps: vec![write(key)],
                }
            }
            1 => {
                let steps: Vec<_> = (0..3).map(|_| write(random_key(&mut rng, keys))).collect();
                let mut batch = store.batch();
                for step in &steps {
                    if let Step::Write(key, Some(value)) = step {
                        batch.put(namespace, key, value);
                    }
                }
                let sequence = batch.commit().unwrap();
                Committed { sequence, steps }
            }
            _ => {
                // The closure may run again, by the same plan.
                let plan = rng.split();
                let options = TransactionOptions::new().attempts(10_000);
                let committed = store.transaction_with(&options, |transaction| {
                    let mut rng = plan.clone();
                    let mut steps = Vec::new();
                    for _ in 0..1 + rng.below(6) {
                        steps.push(random_step(transaction, namespace, (&mut rng, keys), &value)?);
                        if rng.below(3) == 0 {
                            std::thread::yield_now();
                        }
                    }
                    Ok(steps)
                });
                let committed = committed.unwrap();
                Committed {
                    sequence: committed.sequence,
                    steps: committed.value,
                }
            }
        };
        history.lock().unwrap().push(committed);
    }
}

fn check(mut history: Vec<Committed>) {
    let is_write = |step: &Step| matches!(step, Step::Write(..));
    // What only reads comes after the write whose sequence it has.
    history.sort_by_key(|committed| (committed.sequence, !committed.steps.iter().any(is_write)));
    let mut keys = Keys::new();
    for committed in &history {
        for step in &committed.steps {
            step.replay(&mut keys);
        }
    }
}

#[test]
fn transactions_are_serializable_in_the_order_of_their_sequences() {
    let mut rng = rng();
    for round in 0..24 {
        let (threads, keys) = ([2, 4, 8][round % 3], [1, 3, 40][round / 3 % 3]);
        let durability = [Durability::Buffered, Durability::Os][round % 2];
        let store = Store::options()
            .segment_bytes(16 << 10)
            .durability(durability)
            .storage(std::sync::Arc::new(MemStorage::new()))
            .open("/store")
            .unwrap();
        let namespace = store.namespace("N").unwrap();
        let history = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..threads {
                let rng = rng.split();
                let (store, namespace, history) = (&store, &namespace, &history);
                scope.spawn(move || run(store, namespace, (rng, keys), history));
            }
        });
        check(history.into_inner().unwrap());
        assert_eq!(store.stats().snapshots.kept_records, 0);
    }
}
