//! Snapshots, each of which must be of one moment, and transactions, of which none may be lost.

use std::collections::VecDeque;
use std::sync::atomic::Ordering;

use embercask::{Error, Namespace, Snapshot, TransactionOptions};

use super::{BATCHERS, FILLED, KEYS, STEADY, SUMS, Storm, WRITERS};
use crate::concurrency::{intact, random_class, value_of};
use test_support::Rng;

/// Snapshots that are held at the same time.
const HELD: usize = 3;

/// What a snapshot shows of the keys whose writers count.
#[derive(Clone, Debug, Default, PartialEq)]
struct Moment {
    plain: [u64; WRITERS],
    batched: [u64; BATCHERS],
    sum: u64,
}

impl Moment {
    /// Whether nothing in it is older than in this one.
    fn is_no_older_than(&self, other: &Moment) -> bool {
        let is_in_order = |this: &[u64], other: &[u64]| this.iter().zip(other).all(|(this, other)| this >= other);
        is_in_order(&self.plain, &other.plain) && is_in_order(&self.batched, &other.batched) && self.sum >= other.sum
    }
}

impl Storm {
    pub(super) fn sum_key(number: u64) -> String {
        format!("sum {number}")
    }

    /// What was acknowledged of each of these writers.
    fn acknowledged(&self) -> Moment {
        let acknowledged = &self.acknowledged;
        Moment {
            plain: acknowledged
                .plain
                .each_ref()
                .map(|keys| keys.iter().map(|key| key.load(Ordering::SeqCst)).max().unwrap()),
            batched: acknowledged
                .batched
                .each_ref()
                .map(|number| number.load(Ordering::SeqCst)),
            sum: acknowledged.sum.load(Ordering::SeqCst),
        }
    }

    /// What this snapshot shows, after checking that it is of one moment.
    fn moment(&self, snapshot: &Snapshot) -> Moment {
        let get = |namespace: &Namespace, key: &str| {
            let value = snapshot.get(namespace, key).unwrap();
            value.map_or(0, |value| intact(&value))
        };
        let mut moment = Moment::default();
        for writer in 0..WRITERS {
            let found: [u64; KEYS] = std::array::from_fn(|key| get(&self.first, &Self::plain_key(writer, key)));
            let newest = *found.iter().max().unwrap();
            // It goes round its keys, so the newest number tells all of them.
            let expected =
                std::array::from_fn(|key| (0..=newest).rev().find(|n| *n as usize % KEYS == key).unwrap_or(0));
            assert_eq!(found, expected, "writer {writer} has no such moment");
            moment.plain[writer] = newest;
        }
        for batcher in 0..BATCHERS {
            let [a, b, c] = [(&self.first, "a"), (&self.second, "b"), (&self.first, "c")]
                .map(|(namespace, key)| get(namespace, &format!("pair {batcher} {key}")));
            assert!(a == b && b == c, "half a batch: {a}, {b} and {c}");
            moment.batched[batcher] = a;
            let fill = snapshot.list(&self.second).unwrap().prefix(format!("fill {batcher} "));
            let fill = fill.with_values().page_size(100).into_iter();
            let fill: Vec<_> = fill.map(|entry| intact(entry.unwrap().value().unwrap())).collect();
            assert!(
                fill.is_empty() || fill.len() as u64 == FILLED,
                "{} keys of a batch",
                fill.len()
            );
            assert!(
                fill.iter().all(|number| *number == fill[0] && *number <= a),
                "half a batch: {a} and {fill:?}"
            );
        }
        for number in 0..SUMS {
            let key = Self::sum_key(number);
            let [first, second] = [&self.first, &self.second].map(|namespace| get(namespace, &key));
            assert_eq!(first, second, "half a transaction");
            moment.sum += first;
        }
        let keys = snapshot.list(&self.first).unwrap().prefix("steady ").into_iter();
        let keys = keys.map(|entry| entry.unwrap().key_str().unwrap().len());
        let steady = keys.filter(|length| *length == "steady 000".len()).count();
        assert_eq!(steady, STEADY, "each permanent key is listed once");
        moment
    }

    pub(super) fn take_snapshots(&self, mut rng: Rng) {
        let mut held = VecDeque::new();
        let mut newest = Moment::default();
        // This many snapshots, and more until enough of them were compared with acknowledged
        // values.
        let (mut taken, mut compared) = (0, 0);
        while taken < self.operations / 20 || compared < self.operations / 40 {
            let before = self.acknowledged();
            let snapshot = self.store.snapshot().unwrap();
            let after = self.acknowledged();
            let moment = self.moment(&snapshot);
            assert!(moment.is_no_older_than(&before), "{moment:?} lacks some of {before:?}");
            assert!(moment.is_no_older_than(&newest), "{moment:?} after {newest:?}");
            // Each writer may have begun one operation more.
            for (shown, after) in moment
                .plain
                .iter()
                .zip(after.plain)
                .chain(moment.batched.iter().zip(after.batched))
            {
                assert!(*shown <= after + 1, "{moment:?} was not yet there, {after:?} was");
            }
            taken += 1;
            compared += u64::from(before.batched.iter().all(|number| *number > 0));
            newest = moment.clone();
            held.push_back((snapshot, moment));
            if held.len() > HELD || rng.below(4) == 0 {
                let (snapshot, moment) = held.pop_front().unwrap();
                assert_eq!(self.moment(&snapshot), moment, "a snapshot has changed");
            }
        }
        for (snapshot, moment) in held {
            assert_eq!(self.moment(&snapshot), moment, "a snapshot has changed");
        }
    }

    /// Gives other transactions some turns to commit, so that they often come in between.
    fn let_another_commit(&self) {
        let before = self.acknowledged.sum.load(Ordering::SeqCst);
        let mut turns = 0;
        while turns < 100 && self.acknowledged.sum.load(Ordering::SeqCst) == before {
            turns += 1;
            std::thread::yield_now();
        }
    }

    /// Adds to the same sum in both namespaces, and reads what others write.
    pub(super) fn transact(&self, mut rng: Rng) {
        for _ in 0..self.operations / 10 {
            let key = Self::sum_key(rng.below(SUMS));
            let batcher = rng.below(BATCHERS as u64) as usize;
            let reads_batch = rng.below(2) == 0;
            let least = self.acknowledged.batched[batcher].load(Ordering::SeqCst);
            let options = TransactionOptions::new().durability(random_class(&mut rng));
            loop {
                let committed = self.store.transaction_with(&options, |transaction| {
                    let mut get = |namespace: &Namespace, key: &str| {
                        let value = transaction.get(namespace, key)?;
                        Ok::<_, Error>(value.map_or(0, |value| intact(&value)))
                    };
                    let (first, second) = (get(&self.first, &key)?, get(&self.second, &key)?);
                    assert_eq!(first, second, "half a transaction");
                    if reads_batch {
                        let [a, b] = ["a", "b"].map(|key| format!("pair {batcher} {key}"));
                        let (a, b) = (get(&self.first, &a)?, get(&self.second, &b)?);
                        assert!(a == b && a >= least, "half a batch: {least}, {a} and {b}");
                    }
                    if transaction.attempt() == 1 {
                        self.let_another_commit();
                    }
                    transaction.put(&self.first, &key, value_of(first + 1))?;
                    transaction.put(&self.second, &key, value_of(first + 1))
                });
                match committed {
                    Ok(_) => break,
                    // What it reads is written all the time, until the batchers have ended.
                    Err(Error::TransactionConflict { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
            }
            self.acknowledged.sum.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// The sums after all transactions have ended.
    pub(super) fn check_sums(&self, first: &Namespace, second: &Namespace) {
        for namespace in [first, second] {
            let values = (0..SUMS).map(|number| namespace.get(Self::sum_key(number)).unwrap());
            let sum: u64 = values.map(|value| value.map_or(0, |value| intact(&value))).sum();
            assert_eq!(
                sum,
                self.acknowledged.sum.load(Ordering::SeqCst),
                "a transaction is lost"
            );
        }
    }
}
