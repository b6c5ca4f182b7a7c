//! Does to a store and to its model the same, and compares what both show.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use embercask::storage::{CutPolicy, Fault, FaultKind, FaultStorage, MemStorage, Operation, Storage};
use embercask::{
    Clock, Condition, Durability, Error, ErrorKind, Maintenance, ManualClock, Namespace, PutOptions, ReadMode, Result,
    Store, Value,
};

use crate::model::{History, Item, Keyspace, Promise, State, describe};
use crate::ops::{
    BatchItem, Crash, Doing, FIRST_NAMES, Failure, Guard, NAMES, Op, Put, Relapse, Settings, Upkeep, Write, keys,
};

pub(crate) const DIRECTORY: &str = "/data/store";
pub(crate) const START_MS: u64 = 1_700_000_000_000;
/// More steps than any life has.
const STEPS_MAX: usize = 1_000_000;
/// Values that are kept across everything that happens.
const HELD_MAX: usize = 6;

/// What a write returned.
#[derive(Debug)]
enum Done {
    Sequence(u64),
    Existed(bool),
    Nothing,
}

/// What a write must do.
#[derive(Debug)]
enum Plan {
    /// It ends well, with this state. Sequences in it that are 0 are to be learnt.
    Change {
        state: State,
        existed: Option<bool>,
        written: Vec<(String, Vec<u8>)>,
        promise: Promise,
        dropped: u64,
    },
    Conflict(Option<u64>),
    NotFound,
    Exists,
}

/// Follows what a driver does. The default only looks away.
pub(crate) trait Observer: Send + Sync {
    /// What the store works on, in the place of the disk itself.
    fn storage(&self, disk: &MemStorage) -> Arc<dyn Storage> {
        Arc::new(disk.clone())
    }

    /// Whether the driver may let power fail where nothing can be lost by it.
    fn may_lose_power(&self) -> bool {
        true
    }

    /// The driver looks at the store, or goes on: meanwhile no disk may fail.
    fn calm(&self, _is_calm: bool) {}

    /// A write begins that leads to this state.
    fn begins(&self, _state: &State) {}

    /// The write that began has led to this state.
    fn changed(&self, _state: &State) {}

    /// The newest state and all before it are covered by an acknowledgement of this class.
    fn acknowledged(&self, _promise: Promise) {}
}

struct Nobody;

impl Observer for Nobody {}

pub(crate) struct Driver {
    observer: Arc<dyn Observer>,
    disk: MemStorage,
    faults: FaultStorage,
    clock: ManualClock,
    settings: Settings,
    store: Store,
    handles: BTreeMap<String, Namespace>,
    /// The last handle of each name that was dropped.
    stale: BTreeMap<usize, Namespace>,
    history: History,
    keys: Vec<Vec<u8>>,
    now: u64,
    wall: u64,
    /// Somebody has set the wall clock since the store was opened.
    wall_shifted: bool,
    /// The highest sequence that a write returned.
    last_sequence: u64,
    /// Keys of dropped namespaces that may still be in the indexes.
    dropped_keys: u64,
    step: usize,
    held: Vec<(Value, Arc<[u8]>)>,
}

pub(crate) fn open(faults: &FaultStorage, clock: &ManualClock, settings: &Settings) -> Result<Store> {
    Store::options()
        .segment_bytes(settings.segment_bytes)
        .durability(settings.durability)
        .expiry_grace(Duration::from_millis(settings.grace_ms))
        .read_mode(if settings.pread { ReadMode::Pread } else { ReadMode::Map })
        .maintenance(Maintenance::Manual)
        .clock(clock.clone())
        .storage(Arc::new(faults.clone()))
        .open(DIRECTORY)
}

fn faults_over(storage: Arc<dyn Storage>) -> FaultStorage {
    FaultStorage::new(storage).counting_mutating_steps_only()
}

fn after(disk: &MemStorage, crash: &Crash) -> MemStorage {
    match crash {
        Crash::Kill => disk.crash_process(),
        Crash::PowerCut(policy) => disk.power_cut(policy),
    }
}

fn survived_by(crash: &Crash) -> Promise {
    match crash {
        Crash::Kill => Promise::Kill,
        // Everything survives, so that this is no worse than a kill.
        Crash::PowerCut(CutPolicy::KeepAll) => Promise::Kill,
        Crash::PowerCut(_) => Promise::PowerCut,
    }
}

fn fault(failure: Failure) -> Fault {
    let on = |operation| Fault::new(FaultKind::Error(std::io::ErrorKind::Other)).on(operation);
    match failure {
        Failure::Write => on(Operation::Write),
        Failure::ShortWrite(bytes) => Fault::new(FaultKind::ShortWrite { bytes }),
        Failure::Sync => on(Operation::Sync),
        Failure::SyncThatLoses => Fault::new(FaultKind::FailedSync).on(Operation::Sync),
        Failure::DirectorySync => on(Operation::SyncDirectory),
        Failure::Create => on(Operation::Create),
        Failure::Rename => on(Operation::Rename),
        Failure::Remove => on(Operation::Remove),
        Failure::SetLen => on(Operation::SetLen),
        Failure::Full => Fault::new(FaultKind::Full).repeated(),
    }
}

/// What a disk that fails may be answered with.
fn is_failure(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Io | ErrorKind::NoSpace | ErrorKind::Poisoned)
}

fn delete_hints(disk: &MemStorage) {
    for path in disk.files(DIRECTORY) {
        if path.extension().is_some_and(|extension| extension == "hint") {
            disk.remove_file(&path).unwrap();
        }
    }
}

/// Everything that the store shows.
pub(crate) fn look(store: &Store) -> Result<State> {
    let mut state = State::default();
    for info in store.namespaces()? {
        let mut keyspace = Keyspace {
            id: info.id,
            items: BTreeMap::new(),
        };
        for entry in store.open_namespace(&info.name)?.list().limit(7).with_values() {
            let entry = entry?;
            let value = entry.value().unwrap();
            let item = Item {
                value: value.as_bytes().into(),
                metadata: value.metadata().map(Into::into),
                expiry: value.expiry_ms(),
                sequence: value.sequence(),
            };
            keyspace.items.insert(entry.key().to_vec(), item);
        }
        state.namespaces.insert(info.name, keyspace);
    }
    Ok(state)
}

/// Bytes that a put takes in the log, see `docs/format.md`.
fn record_bytes(key: usize, item: &Item) -> u64 {
    let optional = if item.expiry.is_some() { 8 } else { 0 } + if item.metadata.is_some() { 4 } else { 0 };
    let metadata = item.metadata.as_ref().map_or(0, |metadata| metadata.len());
    (24 + optional + key + metadata + item.value.len()).next_multiple_of(8) as u64
}

impl Driver {
    pub(crate) fn new(settings: &Settings) -> Driver {
        Driver::observed(settings, &ManualClock::new(START_MS), Arc::new(Nobody))
    }

    /// As [`new`](Self::new), with somebody who follows, at a time that they know.
    pub(crate) fn observed(settings: &Settings, clock: &ManualClock, observer: Arc<dyn Observer>) -> Driver {
        let mut driver = Driver::on(MemStorage::new(), settings, clock, observer).unwrap();
        for name in 0..FIRST_NAMES {
            driver.write(&Write::CreateNamespace { name });
        }
        driver
    }

    /// Goes on with what is on this disk, whatever that is. Values of writes from here on are unlike those from before.
    pub(crate) fn resume(
        disk: MemStorage,
        settings: &Settings,
        clock: &ManualClock,
        observer: Arc<dyn Observer>,
    ) -> Result<Driver> {
        let mut driver = Driver::on(disk, settings, clock, observer)?;
        driver.step = STEPS_MAX;
        driver.meet_namespaces()?;
        driver.history.push(look(&driver.store)?);
        driver.history.acknowledge(Promise::PowerCut);
        driver.last_sequence = driver.store.stats().last_sequence;
        Ok(driver)
    }

    /// As [`observed`](Self::observed), without any namespace, on a disk that may fail.
    pub(crate) fn on(
        disk: MemStorage,
        settings: &Settings,
        clock: &ManualClock,
        observer: Arc<dyn Observer>,
    ) -> Result<Driver> {
        let faults = faults_over(observer.storage(&disk));
        let (clock, now) = (clock.clone(), clock.wall_ms());
        let store = open(&faults, &clock, settings)?;
        Ok(Driver {
            observer,
            disk,
            faults,
            clock,
            settings: settings.clone(),
            store,
            handles: BTreeMap::new(),
            stale: BTreeMap::new(),
            history: History::new(),
            keys: keys(),
            now,
            wall: now,
            wall_shifted: false,
            last_sequence: 0,
            dropped_keys: 0,
            step: 0,
            held: Vec::new(),
        })
    }

    /// Does one thing, and looks at everything afterwards.
    pub(crate) fn run(&mut self, op: &Op) {
        self.act(op);
        self.check();
    }

    /// Does one thing.
    pub(crate) fn act(&mut self, op: &Op) {
        self.step += 1;
        match op {
            Op::Write(write) => self.write(write),
            Op::Upkeep(upkeep) => self.upkeep(upkeep),
            Op::Advance(ms) => {
                self.clock.advance(*ms);
                self.wall += ms;
                self.now = self.now.max(self.wall);
            }
            Op::ShiftWall(ms) => {
                self.wall = self.wall.saturating_add_signed(*ms);
                self.clock.set_wall(self.wall);
                self.now = self.now.max(self.wall);
                self.wall_shifted = true;
            }
            Op::Reopen { delete_hints, settings } => self.reopen(*delete_hints, settings),
            Op::Crash {
                crash,
                relapses,
                delete_hints,
                settings,
            } => {
                self.crash(crash, relapses, *delete_hints, settings);
            }
            Op::CrashWithin {
                doing,
                calls,
                crash,
                relapses,
                settings,
            } => {
                self.faults.stop_at(self.faults.steps() + calls);
                self.attempt(doing);
                self.crash(crash, relapses, false, settings);
            }
            Op::FailWithin {
                doing,
                calls,
                failure,
                crash,
                settings,
            } => {
                self.faults.inject(fault(*failure).at(self.faults.steps() + calls));
                self.fail(doing);
                self.faults.clear();
                let crash = match (failure, crash) {
                    // What such a sync has lost is lost even where a power cut takes nothing.
                    (Failure::SyncThatLoses, Crash::PowerCut(CutPolicy::KeepAll)) => {
                        &Crash::PowerCut(CutPolicy::KeepPrefix { operations: usize::MAX })
                    }
                    (_, crash) => crash,
                };
                self.crash(crash, &[], false, settings);
            }
        }
    }

    pub(crate) fn state(&self) -> &State {
        self.history.now()
    }

    pub(crate) fn disk(&self) -> &MemStorage {
        &self.disk
    }

    pub(crate) fn store(&self) -> &Store {
        &self.store
    }

    fn acknowledge(&mut self, promise: Promise) {
        self.history.acknowledge(promise);
        self.observer.acknowledged(promise);
    }

    // Writes.

    fn write(&mut self, write: &Write) {
        let plan = self.plan(write);
        if let Plan::Change { state, .. } = &plan {
            self.observer.begins(state);
        }
        let done = self.perform(write);
        self.settle_write(write, plan, done);
    }

    /// The write has ended as it must.
    fn settle_write(&mut self, write: &Write, plan: Plan, done: Result<Done>) {
        match (plan, done) {
            (
                Plan::Change {
                    mut state,
                    existed,
                    written,
                    promise,
                    dropped,
                },
                Ok(done),
            ) => {
                match done {
                    Done::Sequence(last) => {
                        let first = last + 1 - written.len() as u64;
                        assert!(
                            written.is_empty() || first > self.last_sequence,
                            "{write:?}: sequence {first} after {}",
                            self.last_sequence
                        );
                        for ((name, key), sequence) in written.iter().zip(first..) {
                            let item = state
                                .namespaces
                                .get_mut(name)
                                .and_then(|keyspace| keyspace.items.get_mut(key));
                            // A later write of the same batch may have deleted it.
                            item.into_iter().for_each(|item| item.sequence = sequence);
                        }
                        self.last_sequence = self.last_sequence.max(last);
                    }
                    Done::Existed(found) => {
                        assert_eq!(Some(found), existed, "{write:?}: whether the key was there");
                        for (name, key) in written {
                            let value = self.handles[&name].get(&key).unwrap().expect("it was written just now");
                            assert!(value.sequence() > self.last_sequence, "{write:?}: sequence");
                            self.last_sequence = value.sequence();
                            let keyspace = state.namespaces.get_mut(&name).unwrap();
                            keyspace.items.get_mut(&key).unwrap().sequence = value.sequence();
                        }
                    }
                    Done::Nothing => {}
                }
                self.dropped_keys += dropped;
                self.observer.changed(&state);
                self.history.push(state);
                self.acknowledge(promise);
            }
            (Plan::Conflict(expected), Err(Error::Conflict { found })) => {
                assert_eq!(found, expected, "{write:?}: what the conflict says is there");
            }
            (Plan::NotFound, Err(Error::NamespaceNotFound { .. })) => {}
            (Plan::Exists, Err(Error::NamespaceExists { .. })) => {}
            (plan, done) => panic!("{write:?} ended in {done:?}; expected was {plan:?}"),
        }
    }

    fn promise(&self, own: Option<Durability>) -> Promise {
        match own.unwrap_or(self.settings.durability) {
            Durability::Buffered => Promise::Nothing,
            Durability::Os => Promise::Kill,
            Durability::Sync => Promise::PowerCut,
        }
    }

    fn value(&self, put: &Put, part: usize) -> Arc<[u8]> {
        let text = format!("{}.{part} ", self.step);
        text.bytes().cycle().take(put.length).collect()
    }

    fn metadata(&self, length: usize) -> Arc<[u8]> {
        format!("meta {} ", self.step).bytes().cycle().take(length).collect()
    }

    fn item(&self, put: &Put, part: usize) -> Item {
        Item {
            value: self.value(put, part),
            metadata: put.metadata.map(|length| self.metadata(length)),
            expiry: put.ttl.map(|ttl| self.now + ttl),
            sequence: 0,
        }
    }

    fn visible(&self, namespace: usize, key: usize) -> Option<&Item> {
        self.state()
            .namespaces
            .get(NAMES[namespace])?
            .get(&self.keys[key], self.now)
    }

    fn exists(&self, namespace: usize) -> bool {
        self.state().namespaces.contains_key(NAMES[namespace])
    }

    fn condition(&self, guard: Guard, namespace: usize, key: usize) -> Condition {
        let sequence = self.visible(namespace, key).map(|item| item.sequence);
        match guard {
            Guard::Absent => Condition::Absent,
            Guard::Present => Condition::Present,
            Guard::Current => Condition::Sequence(sequence.unwrap_or(1)),
            Guard::Stale => Condition::Sequence(sequence.map_or(self.last_sequence, |sequence| sequence - 1)),
        }
    }

    /// The conflict that a guard must end in.
    fn conflict(&self, guard: Option<Guard>, namespace: usize, key: usize) -> Option<Plan> {
        let found = self.visible(namespace, key).map(|item| item.sequence);
        let holds = match guard? {
            Guard::Absent => found.is_none(),
            Guard::Present | Guard::Current => found.is_some(),
            Guard::Stale => false,
        };
        (!holds).then_some(Plan::Conflict(found))
    }

    /// What this write must do, by the rules alone.
    fn plan(&self, write: &Write) -> Plan {
        let mut state = self.state().clone();
        let (mut existed, mut written, mut dropped) = (None, Vec::new(), 0);
        let mut promise = Promise::PowerCut;
        let mut change = |state: &mut State, namespace: usize, key: usize, item: Option<Item>| {
            let (name, key) = (NAMES[namespace].to_owned(), self.keys[key].clone());
            let items = &mut state.namespaces.get_mut(&name).unwrap().items;
            match item {
                Some(item) => items.insert(key.clone(), item),
                None => items.remove(&key),
            };
            written.push((name, key));
        };
        match write {
            Write::Put { namespace, .. }
            | Write::Delete { namespace, .. }
            | Write::SetTtl { namespace, .. }
            | Write::RemoveExpiry { namespace, .. }
            | Write::SetMetadata { namespace, .. }
                if !self.exists(*namespace) =>
            {
                return Plan::NotFound;
            }
            Write::Put {
                namespace,
                key,
                put: what,
                guard,
                durability,
            } => {
                if let Some(conflict) = self.conflict(*guard, *namespace, *key) {
                    return conflict;
                }
                change(&mut state, *namespace, *key, Some(self.item(what, 0)));
                promise = self.promise(*durability);
            }
            Write::Delete {
                namespace,
                key,
                guard,
                durability,
            } => {
                if let Some(conflict) = self.conflict(*guard, *namespace, *key) {
                    return conflict;
                }
                existed = Some(self.visible(*namespace, *key).is_some());
                state
                    .namespaces
                    .get_mut(NAMES[*namespace])
                    .unwrap()
                    .items
                    .remove(&self.keys[*key]);
                promise = self.promise(*durability);
            }
            Write::Batch { items, durability } => {
                for item in self.batch_items(items) {
                    if !self.exists(item.namespace) {
                        return Plan::NotFound;
                    }
                    if let Some(conflict) = self.conflict(item.guard, item.namespace, item.key) {
                        return conflict;
                    }
                }
                for (part, item) in self.batch_items(items).enumerate() {
                    let put = item.put.as_ref().map(|what| self.item(what, part));
                    change(&mut state, item.namespace, item.key, put);
                }
                promise = self.promise(*durability);
            }
            Write::SetTtl { namespace, key, .. }
            | Write::RemoveExpiry { namespace, key }
            | Write::SetMetadata { namespace, key, .. } => {
                let Some(item) = self.visible(*namespace, *key) else {
                    return Plan::Change {
                        state,
                        existed: Some(false),
                        written,
                        promise: Promise::Nothing,
                        dropped,
                    };
                };
                let mut item = item.clone();
                match write {
                    Write::SetTtl { ttl, .. } => item.expiry = Some(self.now + ttl),
                    Write::SetMetadata { metadata, .. } => item.metadata = metadata.map(|length| self.metadata(length)),
                    _ => item.expiry = None,
                }
                change(&mut state, *namespace, *key, Some(item));
                existed = Some(true);
                promise = self.promise(None);
            }
            Write::CreateNamespace { name } => {
                if self.exists(*name) {
                    return Plan::Exists;
                }
                let keyspace = Keyspace {
                    id: self.new_id(),
                    items: BTreeMap::new(),
                };
                state.namespaces.insert(NAMES[*name].to_owned(), keyspace);
            }
            Write::RenameNamespace { from, to } => {
                if !self.exists(*from) {
                    return Plan::NotFound;
                }
                if self.exists(*to) {
                    return Plan::Exists;
                }
                let keyspace = state.namespaces.remove(NAMES[*from]).unwrap();
                state.namespaces.insert(NAMES[*to].to_owned(), keyspace);
            }
            Write::DropNamespace { name } => match state.namespaces.remove(NAMES[*name]) {
                None => return Plan::NotFound,
                Some(keyspace) => dropped = keyspace.items.len() as u64,
            },
        }
        Plan::Change {
            state,
            existed,
            written,
            promise,
            dropped,
        }
    }

    /// Writes to namespaces that never were are left out: there is no handle for them.
    fn batch_items<'a>(&self, items: &'a [BatchItem]) -> impl Iterator<Item = &'a BatchItem> {
        let known: Vec<bool> = (0..NAMES.len())
            .map(|name| self.exists(name) || self.stale.contains_key(&name))
            .collect();
        items.iter().filter(move |item| known[item.namespace])
    }

    fn new_id(&self) -> u128 {
        self.step as u128 * 100 + self.handles.len() as u128 + 1
    }

    fn handle(&self, namespace: usize) -> Result<&Namespace> {
        match (self.handles.get(NAMES[namespace]), self.stale.get(&namespace)) {
            (Some(handle), _) | (None, Some(handle)) => Ok(handle),
            (None, None) => Err(self.store.open_namespace(NAMES[namespace]).unwrap_err()),
        }
    }

    fn put_options(&self, put: &Put) -> PutOptions {
        let mut options = PutOptions::new();
        if let Some(ttl) = put.ttl {
            options = options.ttl(Duration::from_millis(ttl));
        }
        if let Some(length) = put.metadata {
            options = options.metadata(&*self.metadata(length));
        }
        options
    }

    /// Lets the store do it.
    fn perform(&mut self, write: &Write) -> Result<Done> {
        match write {
            Write::Put {
                namespace,
                key,
                put,
                guard,
                durability,
            } => {
                let mut options = self.put_options(put);
                if let Some(durability) = durability {
                    options = options.durability(*durability);
                }
                if let Some(guard) = guard {
                    options = options.condition(self.condition(*guard, *namespace, *key));
                }
                let handle = self.handle(*namespace)?;
                handle
                    .put_with(&self.keys[*key], self.value(put, 0), options)
                    .map(Done::Sequence)
            }
            Write::Delete {
                namespace,
                key,
                guard,
                durability,
            } => {
                let condition = guard.map(|guard| self.condition(guard, *namespace, *key));
                let deleted = self
                    .handle(*namespace)?
                    .delete_with(&self.keys[*key], condition, *durability)?;
                Ok(Done::Existed(deleted.existed))
            }
            Write::Batch { items, durability } => {
                let mut batch = self.store.batch();
                for (part, item) in self.batch_items(items).enumerate() {
                    let (handle, key) = (self.handle(item.namespace)?, &self.keys[item.key]);
                    let condition = item.guard.map(|guard| self.condition(guard, item.namespace, item.key));
                    batch = match (&item.put, condition) {
                        (Some(put), condition) => {
                            let mut options = self.put_options(put);
                            if let Some(condition) = condition {
                                options = options.condition(condition);
                            }
                            batch.put_with(handle, key, self.value(put, part), options)
                        }
                        (None, Some(condition)) => batch.delete_if(handle, key, condition),
                        (None, None) => batch.delete(handle, key),
                    };
                }
                if let Some(durability) = durability {
                    batch = batch.durability(*durability);
                }
                batch.commit().map(Done::Sequence)
            }
            Write::SetTtl { namespace, key, ttl } => {
                let handle = self.handle(*namespace)?;
                handle
                    .set_ttl(&self.keys[*key], Duration::from_millis(*ttl))
                    .map(Done::Existed)
            }
            Write::RemoveExpiry { namespace, key } => self
                .handle(*namespace)?
                .remove_expiry(&self.keys[*key])
                .map(Done::Existed),
            Write::SetMetadata {
                namespace,
                key,
                metadata,
            } => {
                let metadata = metadata.map(|length| self.metadata(length));
                self.handle(*namespace)?
                    .set_metadata(&self.keys[*key], metadata.as_deref())
                    .map(Done::Existed)
            }
            Write::CreateNamespace { name } => {
                let handle = self.store.create_namespace_with_id(NAMES[*name], self.new_id())?;
                self.handles.insert(NAMES[*name].to_owned(), handle);
                Ok(Done::Nothing)
            }
            Write::RenameNamespace { from, to } => {
                self.store.rename_namespace(NAMES[*from], NAMES[*to])?;
                let handle = self.handles.remove(NAMES[*from]).unwrap();
                self.handles.insert(NAMES[*to].to_owned(), handle);
                Ok(Done::Nothing)
            }
            Write::DropNamespace { name } => {
                self.store.drop_namespace(NAMES[*name])?;
                let handle = self.handles.remove(NAMES[*name]).unwrap();
                self.stale.insert(*name, handle);
                Ok(Done::Nothing)
            }
        }
    }

    // Upkeep.

    fn upkeep(&mut self, upkeep: &Upkeep) {
        let result = self.perform_upkeep(upkeep);
        if let Err(error) = result {
            panic!("{upkeep:?}: {error}");
        }
        self.settle_upkeep(upkeep);
    }

    fn perform_upkeep(&self, upkeep: &Upkeep) -> Result<()> {
        let store = &self.store;
        match upkeep {
            Upkeep::Flush => store.flush(),
            Upkeep::Sync => store.sync(),
            Upkeep::Maintain => store.maintain(),
            Upkeep::Compact => store.compact().map(drop),
            Upkeep::CompactSubset(mask) => store.compact_subset(*mask).map(drop),
            Upkeep::CompactIfWorthwhile => store.compact_if_worthwhile().map(drop),
            Upkeep::Close => store.clone().close(),
        }
    }

    fn settle_upkeep(&mut self, upkeep: &Upkeep) {
        match upkeep {
            Upkeep::Flush => self.acknowledge(Promise::Kill),
            Upkeep::Sync | Upkeep::Close => self.acknowledge(Promise::PowerCut),
            Upkeep::Maintain => {
                self.acknowledge(Promise::Kill);
                self.swept();
            }
            Upkeep::Compact => {
                self.swept();
                let stats = self.store.stats();
                // While a jump of the clock is fresh, what has expired is kept.
                if self.settings.grace_ms == 0 && !self.wall_shifted {
                    assert_eq!(
                        (stats.dead_bytes, stats.tombstone_bytes),
                        (0, 0),
                        "waste after compact(): {stats:?}"
                    );
                }
            }
            Upkeep::CompactSubset(_) | Upkeep::CompactIfWorthwhile => {}
        }
    }

    /// Everything expired or dropped has left the indexes.
    fn swept(&mut self) {
        let now = self.now;
        self.history.now_mut().sweep(now);
        self.dropped_keys = 0;
        self.check_exact_counts();
    }

    // The end of a store and the beginning of the next.

    fn reopen(&mut self, without_hints: bool, settings: &Settings) {
        let unswept = self.state().keys() != self.state().visible_keys(self.now) || self.dropped_keys > 0;
        let before = self.store.stats();
        self.store.clone().close().unwrap();
        assert!(matches!(self.store.sync(), Ok(()) | Err(Error::Closed)));
        assert!(matches!(self.store.namespaces(), Err(Error::Closed)));
        self.acknowledge(Promise::PowerCut);
        // What a clean close leaves is durable. Only the names of hints may not be.
        let power_cut = self.step.is_multiple_of(2) && self.observer.may_lose_power();
        let disk = if power_cut {
            self.disk.power_cut(&CutPolicy::LoseUnsynced)
        } else {
            self.disk.crash_process()
        };
        if without_hints {
            delete_hints(&disk);
        }
        self.begin(disk, settings)
            .unwrap_or_else(|error| panic!("opening after a clean close: {error}"));
        let report = self.store.recovery_report();
        assert!(report.clean && !report.created, "{report:?}");
        assert!(
            report.hints_rebuilt == 0 || without_hints || power_cut,
            "hints do not fit: {report:?}"
        );
        self.history.now_mut().sweep(self.now);
        if !unswept {
            let after = self.store.stats();
            for segment in &after.segments {
                let same = before
                    .segments
                    .iter()
                    .find(|other| other.id == segment.id)
                    .map(|other| {
                        let mut other = *other;
                        other.sealed = true;
                        other
                    });
                assert_eq!(
                    Some(*segment),
                    same,
                    "counters differ from a recount; before: {before:?}"
                );
            }
        }
        self.check_exact_counts();
    }

    /// Opens the store on this disk.
    fn begin(&mut self, disk: MemStorage, settings: &Settings) -> Result<()> {
        self.handles.clear();
        self.stale.clear();
        self.wall = self.wall.max(self.now);
        self.clock.set_wall(self.wall);
        self.wall_shifted = false;
        self.dropped_keys = 0;
        self.settings = settings.clone();
        self.disk = disk;
        self.faults = faults_over(self.observer.storage(&self.disk));
        self.store = open(&self.faults, &self.clock, settings)?;
        self.meet_namespaces()
    }

    fn meet_namespaces(&mut self) -> Result<()> {
        for info in self.store.namespaces()? {
            self.handles
                .insert(info.name.clone(), self.store.open_namespace(&info.name)?);
        }
        Ok(())
    }

    /// Tries something while the machine may stop.
    fn attempt(&mut self, doing: &Doing) {
        match doing {
            Doing::Write(write) => {
                let plan = self.plan(write);
                let done = self.perform(write);
                let stopped = self.faults.is_stopped();
                match (plan, done) {
                    (Plan::Change { state, .. }, Err(error)) => {
                        assert!(stopped, "{write:?}: {error}");
                        // It may or may not have happened, as a whole.
                        self.history.push(state);
                    }
                    // Sequences may not be read any more; they are not compared across a crash.
                    (Plan::Change { state, promise, .. }, Ok(_)) if stopped => {
                        self.history.push(state);
                        self.history.acknowledge(promise);
                    }
                    (_, Err(_)) if stopped => {}
                    (plan, done) => self.settle_write(write, plan, done),
                }
            }
            Doing::Upkeep(upkeep) => match (self.perform_upkeep(upkeep), upkeep) {
                (Ok(()), Upkeep::Flush | Upkeep::Maintain) => self.history.acknowledge(Promise::Kill),
                (Ok(()), Upkeep::Sync | Upkeep::Close) => self.history.acknowledge(Promise::PowerCut),
                (Ok(()), _) => {}
                (Err(error), _) => assert!(self.faults.is_stopped(), "{upkeep:?}: {error}"),
            },
        }
    }

    /// Tries something while a storage call may fail. Whatever comes of it, reads go on, and show what was before or after.
    fn fail(&mut self, doing: &Doing) {
        let before = self.state().clone();
        let failed = match doing {
            Doing::Write(write) => {
                let plan = self.plan(write);
                match (plan, self.perform(write)) {
                    (Plan::Change { state, .. }, Err(error)) => {
                        // It may or may not have happened, as a whole.
                        self.history.push(state);
                        Some(error)
                    }
                    // What went well is compared across the crash, where sequences are not.
                    (Plan::Change { state, promise, .. }, Ok(_)) => {
                        self.history.push(state);
                        self.history.acknowledge(promise);
                        None
                    }
                    (_, Err(error)) => Some(error).filter(is_failure),
                    (plan, Ok(done)) => panic!("{write:?} ended in {done:?}; expected was {plan:?}"),
                }
            }
            Doing::Upkeep(upkeep) => {
                let result = self.perform_upkeep(upkeep);
                match (&result, upkeep) {
                    (Ok(()), Upkeep::Flush | Upkeep::Maintain) => self.history.acknowledge(Promise::Kill),
                    (Ok(()), Upkeep::Sync | Upkeep::Close) => self.history.acknowledge(Promise::PowerCut),
                    _ => {}
                }
                result.err()
            }
        };
        if let Some(error) = &failed {
            assert!(is_failure(error), "{doing:?}: {error:?}");
        }
        if matches!(doing, Doing::Upkeep(Upkeep::Close)) {
            return;
        }
        let found = look(&self.store).unwrap_or_else(|error| panic!("reading after {doing:?} failed: {error}"));
        let (now, after) = (self.now, self.state());
        assert!(
            after.looks_like(&found, now) || (failed.is_some() && before.looks_like(&found, now)),
            "what {doing:?}, which returned {failed:?}, left is neither all of it nor nothing"
        );
    }

    fn crash(&mut self, crash: &Crash, relapses: &[Relapse], without_hints: bool, settings: &Settings) {
        let mut disk = after(&self.disk, crash);
        let mut survived = survived_by(crash);
        if without_hints {
            delete_hints(&disk);
        }
        for relapse in relapses {
            let faults = faults_over(Arc::new(disk.clone()));
            faults.stop_at(relapse.calls);
            self.wall = self.wall.max(self.now);
            self.clock.set_wall(self.wall);
            let opened = open(&faults, &self.clock, settings);
            match &opened {
                Err(error) => assert!(faults.is_stopped(), "opening after {crash:?}: {error}"),
                Ok(store) if !faults.is_stopped() => {
                    let found = look(store).unwrap();
                    self.settle_crash(survived, &found);
                    survived = Promise::Kill;
                }
                Ok(_) => {}
            }
            disk = after(&disk, &relapse.crash);
            survived = survived.max(survived_by(&relapse.crash));
        }
        self.begin(disk, settings)
            .unwrap_or_else(|error| panic!("opening after {crash:?} and {relapses:?}: {error}"));
        let found = look(&self.store).unwrap();
        self.settle_crash(survived, &found);
        self.last_sequence = self.store.stats().last_sequence;
        self.check_exact_counts();
    }

    fn settle_crash(&mut self, survived: Promise, found: &State) {
        if let Err(error) = self.history.settle(survived, found, self.now) {
            panic!("{error}");
        }
    }

    // On a disk that may fail.

    /// Does a write. One that fails has happened or not, as a whole, and after a crash it may be the other way round.
    pub(crate) fn try_write(&mut self, write: &Write) -> Result<()> {
        self.step += 1;
        let plan = self.plan(write);
        let done = self.perform(write);
        self.observer.calm(true);
        let result = match (plan, done) {
            (plan, Err(error)) if is_failure(&error) => {
                let found =
                    look(&self.store).unwrap_or_else(|other| panic!("reading after {write:?}, {error}: {other}"));
                let happened = matches!(&plan, Plan::Change { state, .. } if state.looks_like(&found, self.now));
                assert!(
                    happened || self.state().looks_like(&found, self.now),
                    "{write:?} failed, {error}, and left\n{}\nof\n{}",
                    describe(&found, self.now),
                    describe(self.state(), self.now)
                );
                if let Plan::Change { state, .. } = plan {
                    self.history.push(state);
                }
                self.history.push(found);
                self.last_sequence = self.last_sequence.max(self.store.stats().last_sequence);
                self.handles.clear();
                self.meet_namespaces().unwrap();
                Err(error)
            }
            (plan, done) => {
                self.settle_write(write, plan, done);
                Ok(())
            }
        };
        self.observer.calm(false);
        result
    }

    /// Does something that leaves all as it is, failed or not.
    pub(crate) fn try_upkeep(&mut self, upkeep: &Upkeep) -> Result<()> {
        let result = self.perform_upkeep(upkeep);
        match (&result, upkeep) {
            (Ok(()), Upkeep::Flush | Upkeep::Maintain) => self.history.acknowledge(Promise::Kill),
            (Ok(()), Upkeep::Sync | Upkeep::Close) => self.history.acknowledge(Promise::PowerCut),
            (Ok(()), _) => {}
            (Err(error), _) => assert!(is_failure(error), "{upkeep:?}: {error}"),
        }
        result
    }

    /// Lets go of the store, closed or not, and opens it again; on a disk that works, if on this one it cannot be done.
    pub(crate) fn try_reopen(&mut self, settings: &Settings) -> Result<()> {
        let mut result = self.begin(self.disk.crash_process(), settings);
        self.observer.calm(true);
        if let Err(error) = &result {
            assert!(is_failure(error), "opening: {error}");
            self.begin(self.disk.crash_process(), settings)
                .unwrap_or_else(|second| panic!("opening again after {error}: {second}"));
        }
        // An opening that went well may have failed to hand out a namespace.
        result = result.and_then(|()| self.meet_namespaces());
        let found = look(&self.store).unwrap();
        self.settle_crash(Promise::Kill, &found);
        self.last_sequence = self.store.stats().last_sequence;
        self.observer.calm(false);
        result
    }

    pub(crate) fn advance(&mut self, ms: u64) {
        self.act(&Op::Advance(ms));
    }

    /// What the store shows is what the model says, however it fares otherwise.
    pub(crate) fn check_shown(&self) {
        self.observer.calm(true);
        let found = look(&self.store).unwrap_or_else(|error| panic!("reading: {error}"));
        assert!(
            self.state().looks_like(&found, self.now),
            "the store shows\n{}\ninstead of\n{}",
            describe(&found, self.now),
            describe(self.state(), self.now)
        );
        self.observer.calm(false);
    }

    /// Whether a crash just now would leave what was promised, without damage.
    pub(crate) fn outlives(&self, crash: &Crash) -> Result<(), String> {
        let disk = after(&self.disk, crash);
        let clock = ManualClock::new(self.now);
        let store = open(&faults_over(Arc::new(disk)), &clock, &self.settings);
        let store = store.map_err(|error| format!("opening after {crash:?}: {error}"))?;
        let found = look(&store).map_err(|error| format!("reading after {crash:?}: {error}"))?;
        let mut history = self.history.clone();
        history
            .settle(survived_by(crash), &found, self.now)
            .map_err(|error| format!("after {crash:?}: {error}"))?;
        match store.verify() {
            Ok(report) if report.is_sound() => Ok(()),
            Ok(report) => Err(format!("damage after {crash:?}: {:?}", report.damaged)),
            Err(error) => Err(format!("verify after {crash:?}: {error}")),
        }
    }

    // Checks.

    /// Everything that the store shows is what the model says.
    pub(crate) fn check(&mut self) {
        let state = self.history.now();
        let (now, keys) = (self.now, &self.keys);
        let infos: Vec<_> = self
            .store
            .namespaces()
            .unwrap()
            .into_iter()
            .map(|info| (info.name, info.id))
            .collect();
        let expected: Vec<_> = state
            .namespaces
            .iter()
            .map(|(name, keyspace)| (name.clone(), keyspace.id))
            .collect();
        assert_eq!(infos, expected, "namespaces");
        for (name, keyspace) in &state.namespaces {
            let handle = &self.handles[name];
            assert_eq!((handle.name(), handle.id()), (name.clone(), keyspace.id));
            let many = handle.get_many(keys).unwrap();
            for (key, from_many) in keys.iter().zip(&many) {
                let (item, value) = (keyspace.get(key, now), handle.get(key).unwrap());
                let what = || format!("{name}/{}", key[..key.len().min(12)].escape_ascii());
                assert_eq!(handle.contains(key).unwrap(), item.is_some(), "contains {}", what());
                for value in [&value, from_many] {
                    assert_eq!(
                        value.is_some(),
                        item.is_some(),
                        "{}: found {value:?}, expected {item:?}",
                        what()
                    );
                    if let (Some(value), Some(item)) = (value, item) {
                        assert_eq!(value.as_bytes(), &*item.value, "value of {}", what());
                        assert_eq!(value.metadata(), item.metadata.as_deref(), "metadata of {}", what());
                        assert_eq!(value.expiry_ms(), item.expiry, "expiry of {}", what());
                        assert_eq!(value.sequence(), item.sequence, "sequence of {}", what());
                    }
                }
            }
            self.check_listing(handle, keyspace);
            let found = many.into_iter().flatten().nth(self.step % keys.len());
            if let Some(value) = found {
                let bytes = value.as_bytes().into();
                let slot = self.step % HELD_MAX;
                if slot < self.held.len() {
                    self.held[slot] = (value, bytes)
                } else {
                    self.held.push((value, bytes))
                }
            }
        }
        for (name, handle) in &self.stale {
            let answer = handle.get(&keys[0]);
            assert!(
                matches!(answer, Err(Error::NamespaceNotFound { .. })),
                "{}: {answer:?}",
                NAMES[*name]
            );
        }
        for (value, bytes) in &self.held {
            assert_eq!(value.as_bytes(), &**bytes, "a value that was held changed");
        }
        self.check_stats();
    }

    fn check_listing(&self, handle: &Namespace, keyspace: &Keyspace) {
        let (keys, step) = (&self.keys, self.step);
        let expected: Vec<_> = keyspace
            .visible(self.now)
            .map(|(key, item)| (key.to_vec(), item))
            .collect();
        assert_eq!(
            handle.count().unwrap(),
            expected.len() as u64,
            "count of {}",
            handle.name()
        );
        // Another part of the keys in each step, in pages of another size.
        let prefixes: [&[u8]; 7] = [b"", b"a", b"ab", b"user-", b"\0", b"\xff", b"abc\0"];
        let prefix = prefixes[step % prefixes.len()];
        let (low, high) = (&keys[step % keys.len()], &keys[(step / 3) % keys.len()]);
        let (with_start, after_start, with_end) = (step % 5 == 1, step % 5 == 2, step % 5 >= 3);
        let reverse = step.is_multiple_of(2);
        let mut list = handle.list().limit(1 + step % 4).prefix(prefix);
        if with_start {
            list = list.start(low);
        }
        if after_start {
            list = list.start_after(low);
        }
        if with_end {
            list = list.end(high);
        }
        let mut part: Vec<_> = expected
            .iter()
            .filter(|(key, _)| {
                key.starts_with(prefix)
                    && (!with_start || key >= low)
                    && (!after_start || key > low)
                    && (!with_end || key < high)
            })
            .collect();
        assert_eq!(list.count().unwrap(), part.len() as u64, "count of {list:?}");
        if reverse {
            part.reverse();
            list = list.reverse();
        }
        if step.is_multiple_of(3) {
            list = list.with_values();
        }
        let mut found = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = list.clone().cursor(cursor).page().unwrap();
            for entry in page.iter() {
                let value = entry.value().map(|value| value.as_bytes().to_vec());
                found.push((
                    entry.key().to_vec(),
                    entry.expiry_ms(),
                    entry.metadata().map(<[u8]>::to_vec),
                    value,
                ));
            }
            match page.cursor() {
                Some(next) => cursor = next.to_owned(),
                None => break,
            }
        }
        let seen: Vec<_> = found
            .iter()
            .map(|(key, expiry, metadata, _)| (key.clone(), *expiry, metadata.clone()))
            .collect();
        let wanted: Vec<_> = part
            .iter()
            .map(|(key, item)| (key.clone(), item.expiry, item.metadata.as_deref().map(<[u8]>::to_vec)))
            .collect();
        assert_eq!(seen, wanted, "{list:?}");
        if step.is_multiple_of(3) {
            let values: Vec<_> = found.iter().map(|(_, _, _, value)| value.as_deref()).collect();
            let wanted: Vec<_> = part.iter().map(|(_, item)| Some(&*item.value)).collect();
            assert_eq!(values, wanted, "values of {list:?}");
        }
    }

    fn check_stats(&self) {
        let (state, stats) = (self.state(), self.store.stats());
        let (fewest, most) = (state.visible_keys(self.now), state.keys() + self.dropped_keys);
        assert!(
            (fewest..=most).contains(&stats.keys),
            "{} keys, not {fewest} to {most}",
            stats.keys
        );
        assert_eq!(stats.namespaces, state.namespaces.len() as u64);
        let live: u64 = stats.segments.iter().map(|segment| segment.live_records).sum();
        assert_eq!(
            live,
            stats.keys + stats.namespaces,
            "what segments and the index say of live records: {stats:?}"
        );
        assert_eq!((&stats.poisoned, &stats.background_error), (&None, &None));
        assert!(stats.durable_sequence <= stats.last_sequence, "{stats:?}");
        // Nothing is left behind on the disk.
        let listed: Vec<_> = stats
            .segments
            .iter()
            .map(|segment| format!("{:016x}.segment", segment.id))
            .collect();
        let mut there: Vec<_> = self
            .disk
            .files(DIRECTORY)
            .iter()
            .filter(|path| path.extension().is_some_and(|extension| extension == "segment"))
            .filter_map(|path| Path::file_name(path).map(|name| name.to_string_lossy().into_owned()))
            .collect();
        there.sort();
        assert_eq!(there, listed, "segments on the disk");
    }

    /// When nothing waits to be swept, counters are exact.
    fn check_exact_counts(&self) {
        let (state, stats) = (self.state(), self.store.stats());
        assert_eq!(stats.keys, state.visible_keys(self.now), "keys when all is swept");
        let names = state
            .namespaces
            .keys()
            .map(|name| (24u64 + 4 + 16 + name.len() as u64).next_multiple_of(8));
        let records = state
            .namespaces
            .values()
            .flat_map(|keyspace| &keyspace.items)
            .map(|(key, item)| record_bytes(key.len(), item));
        assert_eq!(
            stats.live_bytes,
            names.chain(records).sum::<u64>(),
            "live bytes when all is swept: {stats:?}"
        );
    }
}
