//! Replicas by hand: each a store on a simulated disk, an applier, a writer and a reader of the
//! simulated log. The test decides whose turn it is.

use std::sync::Arc;

use embercask::storage::{CutPolicy, MemStorage};
use embercask::{Maintenance, Store};
use embercask_replica::applier::{Applier, ApplyError, Verdict};
use embercask_replica::clock::LogClock;
use embercask_replica::entry::Digest;
use embercask_replica::simulated::{SimulatedLog, SimulatedReader};
use embercask_replica::writer::{Answer, Writer, WriterSettings};
use test_support::Rng;

use super::model::Model;

pub const CLUSTER: u128 = 0xc1;
pub const START_MS: u64 = 1_800_000_000_000;

/// Not a good tag, but a different one for what differs here.
pub fn etag(value: &[u8], metadata: Option<&[u8]>, expiry_ms: Option<u64>) -> u128 {
    let all = [
        value,
        &[0xff],
        metadata.unwrap_or(b"\0none"),
        &expiry_ms.unwrap_or(0).to_le_bytes(),
    ]
    .concat();
    let step = |tag: u128, byte: &u8| (tag ^ u128::from(*byte)).wrapping_mul(0x0000_0100_0000_0000_0000_0000_0000_013b);
    all.iter().fold(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d, step)
}

pub fn open(disk: &Arc<MemStorage>, clock: LogClock) -> Store {
    let options = Store::options().maintenance(Maintenance::Manual).clock(clock);
    options.storage(disk.clone()).open("/store").expect("the store opens")
}

/// A new store that is the seed of the cluster.
pub fn seed_store(seed: u64) -> Arc<MemStorage> {
    let disk = Arc::new(MemStorage::seeded(seed));
    let store = open(&disk, LogClock::new());
    Applier::init(&store, CLUSTER).expect("it is no replica yet");
    store.close().expect("it closes");
    disk
}

/// A replica while it runs.
pub struct Running {
    pub applier: Applier,
    pub writer: Writer<usize>,
    reader: Option<SimulatedReader>,
    read_ms: u64,
    applied_ms: u64,
    beat_ms: u64,
    knows_time: bool,
}

pub struct Replica {
    pub disk: Arc<MemStorage>,
    pub running: Option<Running>,
    /// How often it was started: the writer has another id each time.
    starts: u64,
}

/// How often what has happened.
#[derive(Debug, Default)]
pub struct Visited {
    pub kills: u64,
    pub cuts: u64,
    pub readers: u64,
    pub gaps: u64,
    pub damaged: u64,
    pub seeded_again: u64,
    pub compared: u64,
}

pub struct Cluster {
    pub log: Arc<SimulatedLog>,
    pub replicas: Vec<Replica>,
    pub model: Model,
    pub now_ms: u64,
    pub visited: Visited,
    /// Answers of replicas that were seeded again.
    left: Vec<Answer<usize>>,
    /// By position.
    digests: Vec<Option<Digest>>,
}

/// Which start of which replica sent an entry.
fn ticket(index: usize, starts: u64, counter: u64) -> u64 {
    (index as u64) << 52 | starts << 32 | counter
}

impl Cluster {
    pub fn new(replicas: usize, seed: u64) -> Cluster {
        let replicas = (0..replicas as u64).map(|index| Replica {
            disk: seed_store(seed + index),
            running: None,
            starts: 0,
        });
        let mut cluster = Cluster {
            log: SimulatedLog::new(seed, START_MS),
            replicas: replicas.collect(),
            model: Model::default(),
            now_ms: 1,
            visited: Visited::default(),
            left: Vec::new(),
            digests: Vec::new(),
        };
        for index in 0..cluster.replicas.len() {
            cluster.start(index);
        }
        cluster
    }

    pub fn advance(&mut self, ms: u64) {
        self.now_ms += ms;
        self.log.advance(ms);
    }

    pub fn start(&mut self, index: usize) {
        let now_ms = self.now_ms;
        let replica = &mut self.replicas[index];
        if replica.running.is_some() {
            return;
        }
        replica.starts += 1;
        let clock = LogClock::new();
        let store = open(&replica.disk, clock.clone());
        let id = u128::from(ticket(index + 1, replica.starts, 0));
        let settings = WriterSettings {
            operations_max: 500,
            ..WriterSettings::default()
        };
        replica.running = Some(Running {
            applier: Applier::open(store, clock, etag).expect("it is a replica"),
            writer: Writer::new(CLUSTER, id, settings),
            reader: None,
            read_ms: now_ms,
            applied_ms: now_ms,
            beat_ms: 0,
            knows_time: false,
        });
    }

    /// Kills a replica, or cuts its power, and returns what its writer had not answered.
    pub fn kill(&mut self, index: usize, cut: Option<CutPolicy>) -> Vec<Answer<usize>> {
        let replica = &mut self.replicas[index];
        let Some(mut running) = replica.running.take() else {
            return Vec::new();
        };
        self.visited.kills += 1;
        self.visited.cuts += u64::from(cut.is_some());
        let left = match cut {
            Some(policy) => replica.disk.power_cut(&policy),
            None => replica.disk.crash_process(),
        };
        replica.disk = Arc::new(left);
        let (first, last) = (ticket(index, replica.starts, 0), ticket(index, replica.starts + 1, 0));
        self.log.forget_sender(|ticket| (first..last).contains(&ticket));
        running.writer.stop();
        running.writer.answers()
    }

    /// Sends what a writer wants to be sent, and returns its answers.
    pub fn pump(&mut self, index: usize) -> Vec<Answer<usize>> {
        let now_ms = self.now_ms;
        let starts = self.replicas[index].starts;
        let Some(running) = &mut self.replicas[index].running else {
            return std::mem::take(&mut self.left);
        };
        let state = *running.applier.state();
        let log_ms = state.log_ms() + (now_ms - running.applied_ms);
        let mut publications = running.writer.poll(now_ms, running.knows_time.then_some(log_ms));
        let is_idle = now_ms >= running.applied_ms.max(running.beat_ms) + 1000;
        let is_due = is_idle || now_ms >= running.beat_ms + if running.knows_time { 10_000 } else { 500 };
        if is_due {
            running.beat_ms = now_ms;
            publications.extend(running.writer.beat(state.position, state.digest, (now_ms, log_ms)));
        }
        for publication in publications {
            let ticket = ticket(index, starts, publication.counter);
            self.log.send(ticket, &publication.id, publication.entry);
        }
        let mut answers = running.writer.answers();
        answers.append(&mut self.left);
        answers
    }

    /// Lets one thing happen to the log, and tells writers and the model of it.
    pub fn step_log(&mut self) -> bool {
        let happened = self.log.step();
        while let Some(delivery) = self.log.entry(self.model.position + 1) {
            self.model.apply(&delivery);
        }
        for (of, result) in self.log.acknowledgements() {
            let replica = &mut self.replicas[(of >> 52) as usize];
            if let Some(running) = &mut replica.running {
                running.writer.published(of & 0xffff_ffff, result, self.now_ms);
            }
        }
        happened
    }

    /// Lets a replica read and apply something.
    pub fn read(&mut self, index: usize) {
        let now_ms = self.now_ms;
        let Some(running) = &mut self.replicas[index].running else {
            return;
        };
        let state = *running.applier.state();
        if running.reader.is_none() {
            if state.check_bounds(&self.log.holds()).is_err() {
                self.seed_again(index);
                return;
            }
            self.visited.readers += 1;
            running.reader = Some(self.log.reader(state.position + 1));
            running.read_ms = now_ms;
        }
        let taken = running.reader.as_mut().map(SimulatedReader::take);
        match taken {
            Some(Ok(deliveries)) if !deliveries.is_empty() => {
                running.read_ms = now_ms;
                self.apply(index, &deliveries);
            }
            // Nothing for long: it may have gone silent.
            Some(Ok(_)) if now_ms < running.read_ms + 4000 => {}
            Some(_) | None => running.reader = None,
        }
    }

    fn apply(&mut self, index: usize, deliveries: &[embercask_replica::log::Delivery]) {
        let replica = &mut self.replicas[index];
        let (own, now_ms) = (u128::from(ticket(index + 1, replica.starts, 0)), self.now_ms);
        let Some(running) = &mut replica.running else { return };
        let progress = running.applier.apply(deliveries);
        for applied in &progress.applied {
            running.knows_time |= applied.writer == own;
            assert_ne!(
                applied.verdict,
                Verdict::Beat { agrees: Some(false) },
                "replica {index}"
            );
            self.model.check(applied);
            running.writer.applied(applied);
        }
        if !progress.applied.is_empty() {
            running.applied_ms = now_ms;
        }
        if let Some(error) = progress.stopped {
            match error {
                ApplyError::Gap { .. } => self.visited.gaps += 1,
                ApplyError::Malformed { .. } => self.visited.damaged += 1,
                error => panic!("replica {index}: {error}"),
            }
            running.reader = None;
        }
        let state = *running.applier.state();
        let place = state.position as usize;
        if self.digests.len() <= place {
            self.digests.resize(place + 1, None);
        }
        let known = self.digests[place].get_or_insert(state.digest);
        assert_eq!(*known, state.digest, "replica {index} differs at {place}");
        self.visited.compared += 1;
    }

    /// Gives a replica that is behind the log's start what another one holds, as it holds it.
    fn seed_again(&mut self, index: usize) {
        let ahead = |replica: &Replica| {
            let running = replica.running.as_ref()?;
            Some(running.applier.state().position).filter(|position| position + 1 >= self.log.holds().first)
        };
        let Some(from) = self.replicas.iter().position(|replica| ahead(replica).is_some()) else {
            return;
        };
        self.visited.seeded_again += 1;
        let copy = self.replicas[from].disk.crash_process();
        let answers = self.kill(index, None);
        self.left.extend(answers);
        self.replicas[index].disk = Arc::new(copy);
        self.start(index);
    }

    /// The first position that some replica needs.
    pub fn needed(&self) -> u64 {
        let positions = self.replicas.iter().map(|replica| {
            let running = replica.running.as_ref();
            running.map_or(0, |running| running.applier.state().position)
        });
        positions.min().unwrap_or(0) + 1
    }

    pub fn is_level(&self) -> bool {
        let last = self.log.holds().last;
        let is_there = |replica: &Replica| {
            let running = replica.running.as_ref();
            running.is_some_and(|running| running.applier.state().position == last && running.writer.held() == 0)
        };
        self.replicas.iter().all(is_there)
    }

    /// One of them at random.
    pub fn any(&self, random: &mut Rng) -> usize {
        random.below(self.replicas.len() as u64) as usize
    }
}
