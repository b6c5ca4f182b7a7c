//! Transfers between accounts: transactions that read two keys and put both.
//!
//! The balance of an account is the generation of its value. What each transfer has moved is noted
//! and added up afterwards, so that every balance is known, and with them the total.

use super::Workload;
use crate::context::Context;
use crate::data::{self, Key};
use crate::durability::Durability;
use crate::engine::{Check, Transactional};
use crate::random::Random;
use crate::threads::together;
use crate::{engine::Need, outcome::Measure};
use anyhow::{Result, ensure};
use std::sync::{Mutex, PoisonError};

/// Far from zero and from the most that a balance can be.
const BALANCE_AT_FIRST: u16 = 30_000;
const AMOUNT_MAX: u64 = 100;
/// How often transfers of two threads meet, and among how many accounts, if there are as many.
const CONFLICTS: [(&str, u64); 3] = [("no", u64::MAX), ("some", 1_000), ("heavy", 4)];
const THREADS_MAX: u64 = 2;
const LOAD_BATCH: u64 = 1_000;

const NEEDS: &[Need] = &[Need::Reads, Need::Files, Need::Transactions];

pub const WORKLOADS: &[Workload] = &[
    Workload {
        name: "transactions",
        title: "Transactions that read two keys and put both, drawn from all keys (no conflict), 1,000 (some) and 4 (heavy)",
        needs: NEEDS,
        run: |context| run(context, (context.writes() / 5).max(50)),
    },
    Workload {
        name: "sync-transactions",
        title: "The same, with commits that wait for the device",
        needs: &[Need::Reads, Need::Files, Need::Transactions, Need::SyncCommits],
        run: |context| {
            let durability = Durability::Sync;
            let context = Context {
                durability,
                ..context.clone()
            };
            run(&context, (context.keys / 1_000).clamp(50, 1_000))
        },
    },
];

/// What a transaction has moved.
struct Transfer {
    from: u64,
    to: u64,
    amount: u16,
}

/// The accounts, and what each has to have.
struct Accounts {
    balances: Vec<i64>,
    value_bytes: usize,
}

fn run(context: &Context, transfers: u64) -> Result<Vec<Measure>> {
    let mut accounts = Accounts::open(context)?;
    let engine = context.open_transactional()?;
    // Also brings all of them into the cache of an engine that has one.
    accounts.check(|key, check| engine.get(key, check))?;
    let mut measures = Vec::new();
    for (conflict, most) in CONFLICTS {
        for threads in 1..=THREADS_MAX {
            let count = accounts.count().min(most);
            let (attempts, elapsed) = accounts.transfer(&*engine, count, transfers / threads, threads)?;
            let done = transfers / threads * threads;
            let plural = if threads == 1 { "" } else { "s" };
            let name = format!("{conflict} conflict, {threads} thread{plural}");
            measures.push(Measure::rate(&name, done, elapsed));
            if conflict == "heavy" && threads == THREADS_MAX {
                let attempts = attempts as f64 / done as f64;
                measures.push(Measure::cost(
                    format!("attempts, {name}"),
                    attempts,
                    "attempts a transaction",
                ));
            }
        }
    }
    accounts.check(|key, check| engine.get(key, check))?;
    engine.close()?;
    let engine = context.open()?;
    accounts.check(|key, check| engine.get(key, check))?;
    engine.close()?;
    Ok(measures)
}

impl Accounts {
    /// Puts all accounts.
    fn open(context: &Context) -> Result<Accounts> {
        let engine = context.open()?;
        let mut start = 0;
        while start < context.keys {
            let end = (start + LOAD_BATCH).min(context.keys);
            let entry = |number| (Key::random(number), context.value(number, BALANCE_AT_FIRST));
            engine.put_batch(&(start..end).map(entry).collect::<Vec<_>>())?;
            start = end;
        }
        engine.settle()?;
        engine.close()?;
        Ok(Accounts {
            balances: vec![i64::from(BALANCE_AT_FIRST); context.keys as usize],
            value_bytes: context.value_bytes,
        })
    }

    fn count(&self) -> u64 {
        self.balances.len() as u64
    }

    /// Transfers among the first `count` accounts on each thread. Returns the attempts of all, and
    /// the time.
    fn transfer(
        &mut self,
        engine: &dyn Transactional,
        count: u64,
        transfers_each: u64,
        threads: u64,
    ) -> Result<(u64, std::time::Duration)> {
        let value_bytes = self.value_bytes;
        let all = Mutex::new((0, Vec::new()));
        let elapsed = together(threads, |thread| {
            let mut random = Random::new(thread);
            let (mut attempts, mut transfers) = (0, Vec::with_capacity(transfers_each as usize));
            for _ in 0..transfers_each {
                let from = random.below(count);
                let to = (from + 1 + random.below(count - 1)) % count;
                let mut transfer = Transfer { from, to, amount: 0 };
                let most = 1 + random.below(AMOUNT_MAX) as u16;
                attempts += engine.transact([&*Key::random(from), &*Key::random(to)], &mut |values| {
                    transfer.made(values, most, value_bytes)
                })?;
                transfers.push(transfer);
            }
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            all.0 += attempts;
            all.1.push(transfers);
            Ok(())
        })?;
        let (attempts, transfers) = all.into_inner().unwrap_or_else(PoisonError::into_inner);
        for transfer in transfers.iter().flatten() {
            self.balances[transfer.from as usize] -= i64::from(transfer.amount);
            self.balances[transfer.to as usize] += i64::from(transfer.amount);
        }
        Ok((attempts, elapsed))
    }

    /// Every account has to have what the transfers have left it, so the total is as at first.
    fn check(&self, get: impl Fn(&[u8], Check) -> Result<()>) -> Result<()> {
        let mut total = 0;
        for (number, expected) in (0..).zip(&self.balances) {
            get(&Key::random(number), &mut |value| {
                let found = i64::from(data::check_value(value, number, self.value_bytes)?);
                ensure!(
                    found == *expected,
                    "account {number} has {found} instead of {expected}: a transaction was lost, or made twice"
                );
                total += found;
                Ok(())
            })?;
        }
        let expected = self.balances.len() as i64 * i64::from(BALANCE_AT_FIRST);
        ensure!(total == expected, "the total is {total} instead of {expected}");
        Ok(())
    }
}

impl Transfer {
    /// The values of both accounts after moving at most so much, and notes how much it was. May be
    /// called again with other values.
    fn made(&mut self, values: [&[u8]; 2], most: u16, value_bytes: usize) -> Result<[Vec<u8>; 2]> {
        let from = data::check_value(Some(values[0]), self.from, value_bytes)?;
        let to = data::check_value(Some(values[1]), self.to, value_bytes)?;
        self.amount = most.min(from).min(u16::MAX - to);
        Ok([
            data::value(self.from, from - self.amount, value_bytes),
            data::value(self.to, to + self.amount, value_bytes),
        ])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{Change, changed};
    use std::collections::HashMap;

    type Values = HashMap<Vec<u8>, Vec<u8>>;

    /// Transactions under one lock; every hundredth is lost, if so told.
    struct Locked {
        loses: bool,
        /// The number of transactions, and the values.
        state: Mutex<(u64, Values)>,
    }

    impl Transactional for Locked {
        fn get(&self, key: &[u8], check: Check) -> Result<()> {
            check(self.state.lock().unwrap().1.get(key).map(Vec::as_slice))
        }

        fn transact(&self, keys: [&[u8]; 2], change: Change) -> Result<u64> {
            let mut state = self.state.lock().unwrap();
            let [first, second] = changed(keys.map(|key| state.1.get(key).map(Vec::as_slice)), change)?;
            state.0 += 1;
            if !self.loses || !state.0.is_multiple_of(100) {
                state.1.insert(keys[0].to_vec(), first);
                state.1.insert(keys[1].to_vec(), second);
            }
            Ok(1)
        }

        fn close(self: Box<Self>) -> Result<()> {
            Ok(())
        }
    }

    fn checked(loses: bool) -> Result<()> {
        let mut accounts = Accounts {
            balances: vec![BALANCE_AT_FIRST.into(); 4],
            value_bytes: 20,
        };
        let entry = |number| (Key::random(number).to_vec(), data::value(number, BALANCE_AT_FIRST, 20));
        let engine = Locked {
            loses,
            state: Mutex::new((0, (0..4).map(entry).collect())),
        };
        accounts.transfer(&engine, 4, 5_000, 2)?;
        accounts.check(|key, check| engine.get(key, check))
    }

    #[test]
    fn a_transaction_that_is_lost_as_a_whole_is_found_though_the_total_is_right() {
        checked(false).unwrap();
        assert!(checked(true).unwrap_err().to_string().contains("instead of"));
    }
}
