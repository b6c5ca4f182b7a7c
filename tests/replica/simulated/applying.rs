//! A replica is killed at every step that its store makes on disk while it applies a log, or its
//! power is cut there, or one call fails. It goes on where it is, and ends as one that was left
//! alone.

use std::sync::Arc;

use bytes::Bytes;
use embercask::storage::{CutPolicy, Fault, FaultKind, FaultStorage, MemStorage};
use embercask::{Maintenance, Store};
use embercask_replica::applier::Applier;
use embercask_replica::clock::LogClock;
use embercask_replica::content::{self, Content};
use embercask_replica::entry::{Body, Conditions, Entry, Header, Lifetime, Operation, Tags, encode_operations, upload};
use embercask_replica::log::Delivery;
use embercask_replica::state::StateError;
use test_support::{Rng, rng};

use super::cluster::{CLUSTER, START_MS, etag, open, seed_store};

const WRITER: u128 = 5;
/// Fewer steps would mean that the store does something else than it did.
const STEPS_MIN: u64 = 40;

fn put(namespace: u128, key: &str, value: usize) -> Operation {
    Operation::Put {
        namespace,
        key: key.to_owned().into(),
        value: vec![b'v'; value].into(),
        metadata: None,
        lifetime: Lifetime::Forever,
        conditions: Conditions::default(),
    }
}

fn named(id: u128, name: &str) -> Operation {
    let name = name.to_owned();
    Operation::CreateNamespace { id, name }
}

/// Puts unless the key is there.
fn create(key: &str, value: usize) -> Operation {
    let Operation::Put {
        namespace,
        key,
        value,
        metadata,
        lifetime,
        ..
    } = put(1, key, value)
    else {
        unreachable!("it is a put");
    };
    let conditions = Conditions {
        if_match: None,
        if_none_match: Some(Tags::Any),
    };
    Operation::Put {
        namespace,
        key,
        value,
        metadata,
        lifetime,
        conditions,
    }
}

/// A log with every kind of entry, repeats among them.
fn deliveries() -> Vec<Delivery> {
    let mut bodies = vec![Body::Genesis];
    let mut operations = |all: Vec<Operation>| bodies.push(Body::Operations(all));
    operations(vec![named(1, "one")]);
    operations(vec![put(1, "a", 10), put(1, "b", 20)]);
    operations(vec![put(1, "a", 30)]);
    operations(vec![create("a", 1), create("c", 2), create("c", 3)]);
    operations(vec![named(2, "two")]);
    operations(vec![put(2, "x", 5), put(1, "y", 5)]);
    operations(vec![Operation::SetDefaultTtl {
        namespace: 2,
        ttl_ms: Some(1000),
    }]);
    operations(vec![Operation::RenameNamespace {
        id: 1,
        name: "first".to_owned(),
    }]);
    operations(vec![named(3, "one")]);
    operations(vec![put(3, "z", 1)]);
    operations(vec![Operation::DropNamespace { id: 2 }]);
    operations(vec![put(2, "gone", 5), put(1, "d", 5)]);
    operations(vec![named(2, "two")]);
    operations(vec![Operation::DropNamespace { id: 9 }]);
    operations(vec![put(2, "again", 5)]);
    let long = encode_operations(&[put(1, "long", 270_000), create("long", 4)]).expect("it has an encoding");
    bodies.extend(upload(1, &long).expect("it is short enough"));
    bodies.extend((0..10).map(|index| Body::Operations(vec![put(1, &format!("key-{index}"), 100)])));
    let entries = (1..).zip(bodies).map(|(counter, body)| {
        let header = Header {
            cluster: CLUSTER,
            writer: WRITER,
            counter,
            sent_ms: START_MS,
        };
        (Entry { header, body }).encode().expect("it is short enough")
    });
    let mut entries: Vec<Bytes> = entries.collect();
    for repeated in [3, 5, 12] {
        entries.insert(repeated + 4, entries[repeated].clone());
    }
    let deliveries = (1..).zip(entries).map(|(position, bytes)| Delivery {
        position,
        stamp_ms: START_MS + 10 * position,
        bytes,
    });
    deliveries.collect()
}

fn faulty(disk: &Arc<MemStorage>) -> (FaultStorage, Store, LogClock) {
    let faults = FaultStorage::new(disk.clone()).counting_mutating_steps_only();
    let clock = LogClock::new();
    let options = Store::options().maintenance(Maintenance::Manual).clock(clock.clone());
    let store = options
        .storage(Arc::new(faults.clone()))
        .open("/store")
        .expect("it opens");
    (faults, store, clock)
}

/// Applies what follows in pieces of this many entries, as far as it can.
fn apply(applier: &mut Applier, all: &[Delivery], piece: usize) -> bool {
    let next = applier.state().position as usize;
    all[next..]
        .chunks(piece)
        .all(|some| applier.apply(some).stopped.is_none())
}

fn contents(applier: &Applier) -> Result<Content, StateError> {
    content::digest(applier.store(), applier.state().log_ms())
}

/// Opens what is left and applies the rest of the log.
fn go_on(disk: MemStorage, all: &[Delivery], piece: usize) -> (u64, Content) {
    let clock = LogClock::new();
    let store = open(&Arc::new(disk), clock.clone());
    let mut applier = Applier::open(store, clock, etag).expect("it is a replica");
    let from = applier.state().position;
    assert!(apply(&mut applier, all, piece));
    (from, contents(&applier).expect("it can be read"))
}

/// How many steps it takes, and what the store holds then.
fn undisturbed(all: &[Delivery], piece: usize) -> (u64, Content) {
    let (faults, store, clock) = faulty(&seed_store(1));
    let first = faults.steps();
    let mut applier = Applier::open(store, clock, etag).expect("it is a replica");
    assert!(apply(&mut applier, all, piece));
    (faults.steps() - first, contents(&applier).expect("it can be read"))
}

/// At this step the storage stops, for good.
fn killed_at(step: u64, all: &[Delivery], piece: usize) -> (Arc<MemStorage>, u64) {
    let disk = seed_store(1);
    let (faults, store, clock) = faulty(&disk);
    faults.stop_at(faults.steps() + step);
    let mut applier = Applier::open(store, clock, etag).expect("it is a replica");
    // The last entry may count as applied: what is not written out is in the log.
    apply(&mut applier, all, piece);
    assert!(faults.is_stopped());
    let position = applier.state().position;
    (disk, position)
}

#[test]
fn a_replica_killed_at_any_step_of_applying_loses_and_doubles_nothing() {
    let mut random = rng();
    let all = deliveries();
    let (mut kills, mut back, mut unwritten) = (0, 0, 0);
    for piece in [1, 4, all.len()] {
        let (steps, expected) = undisturbed(&all, piece);
        assert_eq!(expected.namespaces, 3);
        for step in 0..steps {
            let (disk, position) = killed_at(step, &all, piece);
            let pieces = 1 + random.below(5) as usize;
            let (from, found) = go_on(disk.crash_process(), &all, pieces);
            // The last entries may have been in memory alone: the log has them.
            unwritten += u64::from(from < position);
            assert_eq!(found, expected, "killed at step {step} in pieces of {piece}");
            let policies = policies(&mut random);
            let chosen = random.below(policies.len() as u64) as usize;
            let chosen = if piece == 4 {
                0..policies.len()
            } else {
                chosen..chosen + 1
            };
            for policy in &policies[chosen] {
                let (from, found) = go_on(disk.power_cut(policy), &all, pieces);
                back += u64::from(from < position);
                assert_eq!(found, expected, "{policy:?} at step {step} in pieces of {piece}");
            }
            kills += 1;
        }
    }
    println!("{kills} kills, {unwritten} of them before something was written out, {back} cuts took entries back");
    test_support::at_least(STEPS_MIN, kills, "kills");
    test_support::at_least(STEPS_MIN, back, "power cuts that took entries back");
}

fn policies(random: &mut Rng) -> [CutPolicy; 3] {
    let (seed, grain) = (random.next(), 512);
    [
        CutPolicy::LoseUnsynced,
        CutPolicy::KeepAll,
        CutPolicy::Random { seed, grain },
    ]
}

#[test]
fn a_store_that_fails_once_is_asked_again_and_nothing_is_skipped() {
    let all = deliveries();
    let (steps, expected) = undisturbed(&all, 4);
    let (mut failed, mut went_on) = (0, 0);
    for step in 0..steps {
        let disk = seed_store(1);
        let (faults, store, clock) = faulty(&disk);
        let fault = Fault::new(FaultKind::Error(std::io::ErrorKind::Other));
        faults.inject(fault.at(faults.steps() + step));
        let mut applier = Applier::open(store, clock, etag).expect("it is a replica");
        let is_applied = apply(&mut applier, &all, 4);
        failed += u64::from(!is_applied);
        let found = match apply(&mut applier, &all, 4).then(|| contents(&applier)) {
            Some(Ok(found)) => {
                went_on += u64::from(!is_applied);
                found
            }
            // A store that is poisoned has to be opened again.
            Some(Err(_)) | None => {
                drop(applier);
                go_on(disk.crash_process(), &all, 4).1
            }
        };
        assert_eq!(found, expected, "failed at step {step}");
    }
    println!("{failed} calls failed, {went_on} stores went on");
    test_support::at_least(10, failed, "failed calls");
    test_support::at_least(5, went_on, "stores that went on");
}
