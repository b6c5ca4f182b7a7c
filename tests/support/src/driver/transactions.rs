//! Transactions, and what is done beside them.

use std::collections::{BTreeMap, BTreeSet};

use embercask::{Error, ErrorKind, Result, TransactionOptions, Value};

use super::Driver;
use super::look::item_of;
use super::perform::{Done, is_same};
use super::plan::{Logged, Outcome, Plan, Stage};
use crate::model::{Item, State};
use crate::ops::{Guard, Intrusion, NAMES, PREFIXES, Step, Transaction};

/// Number of the value that an intrusion puts, among those of one operation.
const PART_OF_INTRUSION: usize = 1_000;

/// Sequence of the record that an intrusion puts, until that is known.
const UNKNOWN: u64 = u64::MAX;

/// What has become of the intrusion into the last transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Intruded {
    #[default]
    No,
    /// With the sequence of its put.
    Done(Option<u64>),
    Failed,
}

/// What a step of a transaction shows.
#[derive(Debug)]
enum Shown {
    Nothing,
    Value(Option<Read>),
    Keys(Vec<(Vec<u8>, Read)>),
    Count(u64),
}

#[derive(Debug)]
struct Read {
    item: Item,
    /// Put by the transaction itself.
    is_own: bool,
}

impl Read {
    fn of(value: &Value) -> Read {
        Read {
            item: item_of(value),
            is_own: value.sequence() == 0,
        }
    }

    fn is(&self, found: &Read) -> bool {
        self.is_own == found.is_own && is_same(&self.item, &found.item)
    }
}

impl Shown {
    /// Whether this, which was expected, is what was found.
    fn is(&self, found: &Shown) -> bool {
        match (self, found) {
            (Shown::Nothing, Shown::Nothing) => true,
            (Shown::Count(expected), Shown::Count(found)) => expected == found,
            (Shown::Value(expected), Shown::Value(found)) => match (expected, found) {
                (Some(expected), Some(found)) => expected.is(found),
                (expected, found) => expected.is_none() && found.is_none(),
            },
            (Shown::Keys(expected), Shown::Keys(found)) => {
                expected.len() == found.len()
                    && expected
                        .iter()
                        .zip(found)
                        .all(|((key, expected), (found_key, found))| key == found_key && expected.is(found))
            }
            _ => false,
        }
    }
}

/// One run of the closure, as it must be.
#[derive(Debug, Default)]
struct Attempt {
    /// What each step shows; the last one may be refused.
    shown: Vec<Shown>,
    refusal: Option<Refusal>,
    /// By namespace and key.
    writes: BTreeMap<(usize, Vec<u8>), Option<Item>>,
    namespaces: BTreeSet<usize>,
    /// Keys that were looked up in the store.
    keys: BTreeSet<(usize, Vec<u8>)>,
    /// Namespaces and prefixes that were listed.
    ranges: Vec<(usize, &'static [u8])>,
    /// Items of the store that were seen.
    seen: Vec<Item>,
}

#[derive(Debug)]
enum Refusal {
    NotFound,
    Conflict(Option<u64>),
}

impl Refusal {
    fn plan(self) -> Plan {
        match self {
            Refusal::NotFound => Plan::refused(ErrorKind::NotFound),
            Refusal::Conflict(found) => Plan::conflict(found),
        }
    }
}

/// Whether an intrusion makes a transaction begin again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Conflicts {
    No,
    /// It deletes a key that has expired, which may have left the indexes.
    Perhaps,
    Yes,
}

/// A transaction as it must be.
#[derive(Debug)]
struct Course<'a> {
    /// With their numbers; without those in namespaces that do not exist.
    steps: Vec<(usize, &'a Step)>,
    /// Before which of them.
    intrusion: Option<(usize, &'a Intrusion)>,
    first: Attempt,
    second: Option<Attempt>,
    conflicts: Conflicts,
    /// What the intrusion leads to.
    beside: Option<Beside>,
}

#[derive(Debug)]
struct Beside {
    state: State,
    now: u64,
    plan: Plan,
}

impl Attempt {
    /// What a key has, and whether the transaction has written it.
    fn look_up(&mut self, (state, now): (&State, u64), namespace: usize, key: &[u8]) -> Option<Read> {
        let place = (namespace, key.to_vec());
        if let Some(own) = self.writes.get(&place) {
            return own.clone().map(|item| Read { item, is_own: true });
        }
        self.keys.insert(place);
        let item = state.namespaces[NAMES[namespace]].get(key, now)?.clone();
        self.seen.push(item.clone());
        Some(Read { item, is_own: false })
    }

    fn list(&mut self, (state, now): (&State, u64), namespace: usize, prefix: &'static [u8]) -> Vec<(Vec<u8>, Read)> {
        self.ranges.push((namespace, prefix));
        let mut listed = BTreeMap::new();
        for (key, item) in state.namespaces[NAMES[namespace]].with_prefix(prefix, now) {
            if !self.writes.contains_key(&(namespace, key.to_vec())) {
                self.seen.push(item.clone());
                listed.insert(key.to_vec(), (item.clone(), false));
            }
        }
        for ((of, key), own) in &self.writes {
            if let Some(item) = own.clone().filter(|_| *of == namespace && key.starts_with(prefix)) {
                listed.insert(key.clone(), (item, true));
            }
        }
        let read = |(key, (item, is_own))| (key, Read { item, is_own });
        listed.into_iter().map(read).collect()
    }
}

fn namespace_of(step: &Step) -> usize {
    match step {
        Step::Get { namespace, .. }
        | Step::List { namespace, .. }
        | Step::Count { namespace, .. }
        | Step::Put { namespace, .. }
        | Step::Delete { namespace, .. } => *namespace,
    }
}

impl Driver {
    /// One run of the closure on this state, which begins at this time. During it the clock may
    /// advance, before a step.
    fn attempt_of(&self, steps: &[(usize, &Step)], begun: (&State, u64), advance: Option<(usize, u64)>) -> Attempt {
        let mut attempt = Attempt::default();
        for (at, (number, step)) in steps.iter().enumerate() {
            let namespace = namespace_of(step);
            let Some(keyspace) = begun.0.namespaces.get(NAMES[namespace]) else {
                attempt.refusal = Some(Refusal::NotFound);
                return attempt;
            };
            attempt.namespaces.insert(namespace);
            let shown = match step {
                Step::Get { key, .. } => Shown::Value(attempt.look_up(begun, namespace, &self.keys[*key])),
                Step::Count { prefix, .. } => {
                    Shown::Count(attempt.list(begun, namespace, PREFIXES[*prefix]).len() as u64)
                }
                Step::List { prefix, reverse, .. } => {
                    let mut listed = attempt.list(begun, namespace, PREFIXES[*prefix]);
                    if *reverse {
                        listed.reverse();
                    }
                    Shown::Keys(listed)
                }
                Step::Put { key, put, guard, .. } => {
                    let key = &self.keys[*key];
                    if let Some(guard) = guard {
                        let found = attempt.look_up(begun, namespace, key);
                        let found = found.map(|read| match read.item.sequence {
                            0 if !read.is_own => UNKNOWN,
                            sequence => sequence,
                        });
                        if found.is_some() != matches!(guard, Guard::Present) {
                            attempt.refusal = Some(Refusal::Conflict(found));
                            return attempt;
                        }
                    }
                    let passed = advance.map_or(0, |(before, ms)| if at >= before { ms } else { 0 });
                    let item = self.item_at(begun.1 + passed, keyspace.default_ttl, put, *number);
                    attempt.writes.insert((namespace, key.clone()), Some(item));
                    Shown::Nothing
                }
                Step::Delete { key, .. } => {
                    attempt.writes.insert((namespace, self.keys[*key].clone()), None);
                    Shown::Nothing
                }
            };
            attempt.shown.push(shown);
        }
        attempt
    }

    fn course<'a>(&self, transaction: &'a Transaction) -> Course<'a> {
        let steps = transaction.steps.iter().enumerate();
        let steps: Vec<_> = steps.filter(|(_, step)| self.exists(namespace_of(step))).collect();
        let exists = |intrusion: &Intrusion| match intrusion {
            Intrusion::Put { namespace, .. } | Intrusion::Delete { namespace, .. } => self.exists(*namespace),
            Intrusion::DropNamespace { name } => self.exists(*name),
            Intrusion::Advance(_) => true,
        };
        let intrusion = transaction.intrusion.as_ref().filter(|(_, what)| exists(what));
        let intrusion = intrusion.map(|(at, what)| ((*at).min(steps.len()), what));
        let advance = match intrusion {
            Some((at, Intrusion::Advance(ms))) => Some((at, *ms)),
            _ => None,
        };
        let first = self.attempt_of(&steps, (self.state(), self.now), advance);
        let mut course = Course {
            steps,
            intrusion: intrusion.filter(|(at, _)| first.refusal.is_none() || *at <= first.shown.len()),
            first,
            second: None,
            conflicts: Conflicts::No,
            beside: None,
        };
        if let Some((_, intrusion)) = course.intrusion {
            let beside = self.beside(intrusion);
            course.conflicts = self.conflicts(&course.first, intrusion, beside.now);
            if course.conflicts != Conflicts::No {
                course.second = Some(self.attempt_of(&course.steps, (&beside.state, beside.now), None));
            }
            course.beside = Some(beside);
        }
        course
    }

    fn beside(&self, intrusion: &Intrusion) -> Beside {
        let promise = self.promise(None);
        let answered = || Outcome::Answer(super::perform::Answer::Nothing);
        let (mut now, mut plan) = (self.now, Plan::default());
        match intrusion {
            Intrusion::Put { namespace, key, put } => {
                let item = self.item(*namespace, put, PART_OF_INTRUSION);
                plan = self.put_one(*namespace, *key, item, promise, answered());
            }
            Intrusion::Delete { namespace, key } => {
                let existed = super::perform::Answer::Nothing;
                plan = self.delete_one(*namespace, *key, promise, existed);
            }
            Intrusion::DropNamespace { name } => plan = self.plan(&crate::ops::Write::DropNamespace { name: *name }),
            Intrusion::Advance(ms) => now += ms,
        }
        let state = plan.stages.last().map_or_else(|| self.state(), |stage| &stage.state);
        Beside {
            state: state.clone(),
            now,
            plan,
        }
    }

    fn conflicts(&self, first: &Attempt, intrusion: &Intrusion, now: u64) -> Conflicts {
        if first.writes.is_empty() {
            return Conflicts::No;
        }
        let listed = |namespace: usize, key: usize| {
            let key = &self.keys[key];
            let mut ranges = first.ranges.iter();
            ranges.any(|(of, prefix)| *of == namespace && key.starts_with(prefix))
        };
        let read = |namespace: usize, key: usize| first.keys.contains(&(namespace, self.keys[key].clone()));
        let yes_if = |conflicts| if conflicts { Conflicts::Yes } else { Conflicts::No };
        match intrusion {
            Intrusion::DropNamespace { name } => yes_if(first.namespaces.contains(name)),
            Intrusion::Advance(_) => yes_if(first.seen.iter().any(|item| !item.is_visible(now))),
            Intrusion::Put { namespace, key, .. } => yes_if(read(*namespace, *key) || listed(*namespace, *key)),
            Intrusion::Delete { namespace, key } => {
                let (read, listed) = (read(*namespace, *key), listed(*namespace, *key));
                let is_there = self.keyspace(*namespace).items.contains_key(&self.keys[*key]);
                match self.visible(*namespace, *key) {
                    Some(_) => yes_if(read || listed),
                    // Absent before and after.
                    None if listed && is_there => Conflicts::Perhaps,
                    None => Conflicts::No,
                }
            }
        }
    }

    pub(super) fn plan_transaction(&self, transaction: &Transaction) -> Plan {
        let course = self.course(transaction);
        let (base, mut plan) = match course.beside {
            Some(beside) => (beside.state, beside.plan),
            None => (self.state().clone(), Plan::default()),
        };
        let (attempts, last) = match (course.conflicts, course.second) {
            (Conflicts::Perhaps, Some(second)) => (1..=2, second),
            (_, Some(second)) if course.first.refusal.is_none() && !transaction.fails => (2..=2, second),
            _ => (1..=1, course.first),
        };
        if let Some(refusal) = last.refusal {
            plan.outcome = refusal.plan().outcome;
            return plan;
        }
        if transaction.fails {
            plan.outcome = Outcome::Refused(ErrorKind::Cancelled);
            return plan;
        }
        plan.outcome = Outcome::Committed(attempts);
        if last.writes.is_empty() {
            return plan;
        }
        let (mut state, stage) = (base, plan.stages.len());
        for ((namespace, key), item) in last.writes {
            // What has been read is what is there, so no delete of an expired key is in doubt: a
            // batch deletes what is absent, too.
            let logged = self.apply(&mut state, namespace, &key, item);
            plan.log.push(Logged {
                stage,
                is_certain: true,
                ..logged
            });
        }
        plan.stages.push(Stage {
            state,
            promise: self.promise(transaction.durability),
        });
        plan
    }

    pub(super) fn perform_transaction(&mut self, transaction: &Transaction) -> Result<Done> {
        let course = self.course(transaction);
        let mut intruded = Intruded::No;
        let mut options = TransactionOptions::new();
        if let Some(durability) = transaction.durability {
            options = options.durability(durability);
        }
        let committed = self.store.transaction_with(&options, |running| {
            let is_first = running.attempt() == 1;
            let expected = match &course.second {
                Some(second) if !is_first => second,
                _ => &course.first,
            };
            for (at, (number, step)) in course.steps.iter().enumerate() {
                if let Some((_, intrusion)) = course.intrusion.filter(|(before, _)| is_first && at == *before) {
                    self.intrude(intrusion, &mut intruded)?;
                }
                let shown = self.take_step(running, *number, step)?;
                // Without the intrusion something else is shown the second time.
                if intruded != Intruded::Failed {
                    let expected = expected.shown.get(at);
                    assert!(
                        expected.is_some_and(|expected| expected.is(&shown)),
                        "attempt {}: {step:?} shows {shown:?}, expected {expected:?}",
                        running.attempt()
                    );
                }
            }
            let at_the_end = |(before, _): &(usize, _)| is_first && *before == course.steps.len();
            if let Some((_, intrusion)) = course.intrusion.filter(at_the_end) {
                self.intrude(intrusion, &mut intruded)?;
            }
            if transaction.fails {
                Err(Error::Cancelled)
            } else {
                Ok(())
            }
        });
        if let (Some((_, Intrusion::DropNamespace { name })), Intruded::Done(_)) = (course.intrusion, intruded) {
            self.was_dropped(*name);
        }
        self.intruded = intruded;
        if let (Err(Error::Conflict { found: Some(found) }), Intruded::Done(Some(sequence))) = (&committed, intruded)
            && *found == sequence
        {
            return Err(Error::Conflict { found: Some(UNKNOWN) });
        }
        committed.map(|committed| Done::Committed {
            attempts: committed.attempts,
            sequence: committed.sequence,
        })
    }

    fn intrude(&self, intrusion: &Intrusion, intruded: &mut Intruded) -> Result<()> {
        *intruded = Intruded::Failed;
        let sequence = match intrusion {
            Intrusion::Put { namespace, key, put } => {
                let value = self.value(put.length, PART_OF_INTRUSION);
                let handle = self.handle(*namespace)?;
                Some(handle.put_with(&self.keys[*key], value, self.put_options(put))?)
            }
            Intrusion::Delete { namespace, key } => {
                self.handle(*namespace)?.delete(&self.keys[*key])?;
                None
            }
            Intrusion::DropNamespace { name } => {
                self.store.drop_namespace(NAMES[*name])?;
                None
            }
            Intrusion::Advance(ms) => {
                self.clock.advance(*ms);
                None
            }
        };
        *intruded = Intruded::Done(sequence);
        Ok(())
    }

    fn take_step(&self, running: &mut embercask::Transaction, number: usize, step: &Step) -> Result<Shown> {
        let handle = self.handle(namespace_of(step))?;
        Ok(match step {
            Step::Get { key, .. } => {
                let key = &self.keys[*key];
                let found = if number.is_multiple_of(2) {
                    running.get(handle, key)?
                } else {
                    running.get_many(handle, &[key])?.remove(0)
                };
                Shown::Value(found.as_ref().map(Read::of))
            }
            Step::Count { prefix, .. } => Shown::Count(match PREFIXES[*prefix] {
                b"" => running.count(handle)?,
                prefix => running.list(handle)?.prefix(prefix).count()?,
            }),
            Step::List { prefix, reverse, .. } => {
                let mut list = running.list(handle)?.prefix(PREFIXES[*prefix]).with_values();
                list = list.page_size(1 + self.step % 4);
                if *reverse {
                    list = list.reverse();
                }
                let mut listed = Vec::new();
                for entry in list {
                    let entry = entry?;
                    listed.push((entry.key().to_vec(), Read::of(entry.value().unwrap())));
                }
                Shown::Keys(listed)
            }
            Step::Put { key, put, guard, .. } => {
                let mut options = self.put_options(put);
                if let Some(guard) = guard {
                    options = options.condition(match guard {
                        Guard::Present => embercask::Condition::Present,
                        _ => embercask::Condition::Absent,
                    });
                }
                running.put_with(handle, &self.keys[*key], self.value(put.length, number), options)?;
                Shown::Nothing
            }
            Step::Delete { key, .. } => {
                running.delete(handle, &self.keys[*key])?;
                Shown::Nothing
            }
        })
    }
}
