//! What clients write, and what they were told.

use std::collections::{BTreeSet, HashMap};

use bytes::Bytes;
use embercask_replica::entry::{Conditions, Lifetime, Operation, Outcome, Tags};
use embercask_replica::writer::{Answer, WriteError, Written};
use test_support::Rng;

use super::cluster::{Cluster, Running, START_MS, etag};
use super::model::Model;

/// A namespace that stays.
pub const NAMESPACE: u128 = 1;
/// Namespaces that come and go.
const OTHERS: u128 = 3;
const COUNTERS: u64 = 2;

pub struct Write {
    operations: Vec<Operation>,
    client: usize,
    /// The highest position that was told before it was submitted.
    floor: u64,
    answer: Option<Result<Written, WriteError>>,
}

pub struct Clients {
    pub writes: Vec<Write>,
    busy: Vec<bool>,
    /// The highest position that was told.
    told: u64,
}

/// How many answers of which kind there were.
#[derive(Debug, Default)]
pub struct Answered {
    pub done: u64,
    pub not_met: u64,
    pub unknown: u64,
    /// Of those without an answer, how many were applied.
    pub unknown_applied: u64,
    pub increments: u64,
}

impl Clients {
    pub fn new(clients: usize) -> Clients {
        Clients {
            writes: Vec::new(),
            busy: vec![false; clients],
            told: 0,
        }
    }

    /// One of those that wait for nothing writes to this replica.
    pub fn write(&mut self, running: &mut Running, random: &mut Rng, now_ms: u64) {
        let Some(client) = self.busy.iter().position(|busy| !busy) else {
            return;
        };
        let index = self.writes.len();
        let operations = operations(index, running, random);
        let submitted = running.writer.submit(operations.clone(), index, now_ms);
        let answer = submitted.err().map(|(_, error)| Err(error));
        self.busy[client] = answer.is_none();
        self.writes.push(Write {
            operations,
            client,
            floor: self.told,
            answer,
        });
    }

    /// The first replica is given this.
    pub fn write_this(&mut self, cluster: &mut Cluster, operations: Vec<Operation>) {
        let index = self.writes.len();
        let now_ms = cluster.now_ms;
        let running = cluster.replicas[0].running.as_mut().expect("it runs");
        running
            .writer
            .submit(operations.clone(), index, now_ms)
            .expect("there is room");
        self.busy[0] = true;
        self.writes.push(Write {
            operations,
            client: 0,
            floor: self.told,
            answer: None,
        });
    }

    pub fn answered(&mut self, answers: Vec<Answer<usize>>) {
        for (index, answer) in answers {
            let write = &mut self.writes[index];
            assert!(write.answer.is_none(), "write {index} is answered twice");
            if let Ok(written) = &answer {
                assert!(
                    written.position > write.floor,
                    "write {index} is before what preceded it"
                );
                self.told = self.told.max(written.position);
            }
            write.answer = Some(answer);
            self.busy[write.client] = false;
        }
    }

    /// Compares all answers with what the log says.
    pub fn check(&self, model: &Model) -> Answered {
        let mut places: HashMap<Bytes, Vec<u64>> = HashMap::new();
        for (position, applied) in (1..).zip(&model.applied) {
            for mark in applied.iter().filter_map(|(operation, _)| mark(operation)) {
                places.entry(mark).or_default().push(position);
            }
        }
        for (mark, positions) in &places {
            assert_eq!(positions.len(), 1, "{mark:?} was applied at {positions:?}");
        }
        let mut answered = Answered::default();
        for (index, write) in self.writes.iter().enumerate() {
            let first = write.operations.first().and_then(mark);
            match &write.answer {
                Some(Ok(written)) => {
                    let (operations, outcomes) = found(write, written, model);
                    assert_eq!(operations, write.operations, "write {index} at {}", written.position);
                    assert_eq!(outcomes, written.outcomes, "write {index} at {}", written.position);
                    let is_done = |outcome: &&Outcome| matches!(outcome, Outcome::Done { .. });
                    answered.done += outcomes.iter().filter(is_done).count() as u64;
                    answered.not_met += (outcomes.len() - outcomes.iter().filter(is_done).count()) as u64;
                }
                Some(Err(WriteError::TooLate | WriteError::QueueFull | WriteError::Incomplete)) => {
                    let is_absent = first.is_none_or(|mark| !places.contains_key(&mark));
                    assert!(
                        is_absent,
                        "write {index} was applied, and its client told that it was not"
                    );
                }
                Some(Err(_)) => {
                    answered.unknown += 1;
                    answered.unknown_applied += u64::from(first.is_some_and(|mark| places.contains_key(&mark)));
                }
                None => panic!("write {index} has no answer"),
            }
        }
        answered.increments = self.check_counters(model);
        answered
    }

    /// No two clients were told that they made the same step of a counter.
    fn check_counters(&self, model: &Model) -> u64 {
        let mut steps = BTreeSet::new();
        let mut unknown = 0;
        for write in &self.writes {
            let [
                Operation::Put {
                    key, value, conditions, ..
                },
            ] = &write.operations[..]
            else {
                continue;
            };
            if !key.starts_with(b"counter") || conditions.is_empty() {
                continue;
            }
            match &write.answer {
                Some(Ok(written)) if matches!(written.outcomes[..], [Outcome::Done { .. }]) => {
                    assert!(steps.insert((key.clone(), number(value))), "{key:?} made a step twice");
                }
                Some(Ok(_)) | None => {}
                Some(Err(_)) => unknown += 1,
            }
        }
        let keyspace = model.namespaces.get(&NAMESPACE);
        let counter = |index| keyspace.and_then(|keyspace| keyspace.items.get(&counter_key(index)));
        let sum: u64 = (0..COUNTERS).filter_map(counter).map(|item| number(&item.value)).sum();
        let told = steps.len() as u64;
        assert!(
            (told..=told + unknown).contains(&sum),
            "{told} steps told, {unknown} unknown, {sum} made"
        );
        told
    }
}

/// The operations of the entry at the position that a write was told, as far as they are its own.
fn found(write: &Write, written: &Written, model: &Model) -> (Vec<Operation>, Vec<Outcome>) {
    let applied = &model.applied[written.position as usize - 1];
    let place = applied.windows(write.operations.len()).position(|window| {
        let same = window.iter().zip(&write.operations);
        same.into_iter().all(|((found, _), own)| found == own)
    });
    let own = place.map_or(&[][..], |place| &applied[place..place + write.operations.len()]);
    own.iter().cloned().unzip()
}

fn counter_key(index: u64) -> Bytes {
    format!("counter-{index}").into()
}

fn number(value: &[u8]) -> u64 {
    std::str::from_utf8(value)
        .ok()
        .and_then(|text| text.parse().ok())
        .expect("a counter is a number")
}

/// What no other operation has.
fn mark(operation: &Operation) -> Option<Bytes> {
    match operation {
        Operation::Put { metadata, .. } => metadata.clone(),
        _ => None,
    }
}

fn operations(index: usize, running: &mut Running, random: &mut Rng) -> Vec<Operation> {
    match random.below(100) {
        0..30 => vec![increment(index, running, random)],
        30..34 => vec![namespaces(random)],
        34..36 => vec![put(index, 0, random, 300_000 + random.clone().below(700_000) as usize)],
        36..50 => (0..1 + random.below(8))
            .map(|place| put(index, place, random, 20))
            .collect(),
        50..60 => vec![Operation::Delete {
            namespace: namespace(random),
            key: key(random),
            conditions: conditions(random),
        }],
        _ => vec![put(index, 0, random, 20)],
    }
}

fn namespaces(random: &mut Rng) -> Operation {
    let id = 2 + u128::from(random.next()) % OTHERS;
    let name = format!("other-{}", random.below(OTHERS as u64));
    match random.below(6) {
        0..3 => Operation::CreateNamespace { id, name },
        3 => Operation::RenameNamespace { id, name },
        4 => Operation::DropNamespace { id },
        _ => Operation::SetDefaultTtl {
            namespace: id,
            ttl_ms: (random.below(2) == 0).then_some(1 + random.below(5000)),
        },
    }
}

fn namespace(random: &mut Rng) -> u128 {
    match random.below(3) {
        0 => 2 + u128::from(random.next()) % OTHERS,
        _ => NAMESPACE,
    }
}

fn key(random: &mut Rng) -> Bytes {
    format!("key-{}", random.below(20)).into()
}

fn conditions(random: &mut Rng) -> Conditions {
    let mut tags = || match random.below(8) {
        0 => Some(Tags::Any),
        1 => Some(Tags::These(vec![u128::from(random.below(3))])),
        _ => None,
    };
    Conditions {
        if_match: tags(),
        if_none_match: tags(),
    }
}

fn put(index: usize, place: u64, random: &mut Rng, length: usize) -> Operation {
    let lifetime = match random.below(8) {
        0 => Lifetime::Default,
        1 => Lifetime::After(random.below(20_000)),
        2 => Lifetime::At(START_MS + random.below(60_000)),
        _ => Lifetime::Forever,
    };
    Operation::Put {
        namespace: namespace(random),
        key: key(random),
        value: vec![random.next() as u8; length].into(),
        metadata: Some(format!("{index}/{place}").into()),
        lifetime,
        conditions: conditions(random),
    }
}

/// A step from what this replica shows.
fn increment(index: usize, running: &mut Running, random: &mut Rng) -> Operation {
    let key = counter_key(random.below(COUNTERS));
    let namespace = running
        .applier
        .store()
        .namespace_by_id(NAMESPACE)
        .expect("the store answers");
    let found = namespace.and_then(|namespace| namespace.get(&key).expect("the store answers"));
    let conditions = match &found {
        Some(found) => Conditions {
            if_match: Some(Tags::These(vec![etag(found, found.metadata(), found.expiry_ms())])),
            if_none_match: None,
        },
        None => Conditions {
            if_match: None,
            if_none_match: Some(Tags::Any),
        },
    };
    let next = found.map_or(0, |found| number(&found)) + 1;
    Operation::Put {
        namespace: NAMESPACE,
        key,
        value: next.to_string().into(),
        metadata: Some(format!("{index}/0").into()),
        lifetime: Lifetime::Forever,
        conditions,
    }
}
