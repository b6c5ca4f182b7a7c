//! Replicas, clients and a log that does everything wrong, in an order that a seed decides. What
//! was acknowledged is there, once and in order; all replicas are equal.

use embercask::storage::CutPolicy;
use embercask_replica::entry::Operation;
use embercask_replica::simulated::Faults;
use test_support::{Rng, rng};

use super::clients::{Answered, Clients, NAMESPACE};
use super::cluster::Cluster;
use super::sound;

const REPLICAS: usize = 3;
const CLIENTS: usize = 8;
const ROUNDS: u64 = 6;
const STEPS: u64 = 6000;
const HEALING_STEPS_MAX: u64 = 200_000;

/// `EMBERCASK_ROUNDS` makes more.
fn rounds() -> u64 {
    let rounds = std::env::var("EMBERCASK_ROUNDS").ok();
    rounds.map_or(ROUNDS, |rounds| rounds.parse().expect("EMBERCASK_ROUNDS is a number"))
}

struct Round {
    cluster: Cluster,
    clients: Clients,
    random: Rng,
    cuts_log: bool,
}

#[derive(Debug, Default)]
struct Total {
    answered: Answered,
    kills: u64,
    cuts: u64,
    gaps: u64,
    damaged: u64,
    seeded_again: u64,
    compared: u64,
    repeated: u64,
    late: u64,
    uploaded: u64,
    entries_lost: u64,
    deduplicated: u64,
    unacknowledged: u64,
    duplicates: u64,
    reordered: u64,
    silent: u64,
}

#[test]
fn nothing_acknowledged_is_lost_doubled_or_reordered() {
    let mut random = rng();
    let mut total = Total::default();
    for round in 0..rounds() {
        let seed = random.next();
        println!("round {round}: seed {seed}");
        run(round, seed, &mut total);
    }
    println!("{total:?}");
    let floors = [
        ("writes done", total.answered.done, 1000),
        ("conditions that did not hold", total.answered.not_met, 100),
        ("writes without an answer", total.answered.unknown, 20),
        ("of which applied", total.answered.unknown_applied, 3),
        ("steps of counters", total.answered.increments, 100),
        ("kills", total.kills, 20),
        ("power cuts", total.cuts, 2),
        ("gaps", total.gaps, 10),
        ("damaged entries", total.damaged, 10),
        ("replicas seeded again", total.seeded_again, 1),
        ("digests compared", total.compared, 1000),
        ("repeats beyond the log's window", total.repeated, 2),
        ("long writes", total.uploaded, 5),
        ("entries lost with a leader", total.entries_lost, 5),
        ("repeats that the log dropped", total.deduplicated, 10),
        ("lost acknowledgements", total.unacknowledged, 10),
        ("duplicates delivered", total.duplicates, 5),
        ("reordered deliveries", total.reordered, 5),
        ("silent readers", total.silent, 5),
    ];
    for (what, visited, least) in floors {
        test_support::at_least(least * rounds().min(ROUNDS) / ROUNDS, visited, what);
    }
}

fn run(number: u64, seed: u64, total: &mut Total) {
    let mut random = Rng::new(seed);
    let mut round = Round {
        cluster: Cluster::new(REPLICAS, random.next()),
        clients: Clients::new(CLIENTS),
        cuts_log: random.below(2) == 0,
        random,
    };
    round.begin();
    // Some rounds are calm, so that a lot is done between the faults.
    let faults = [60, 20, 5][(number % 3) as usize];
    round.cluster.log.set_faults(Faults::all(faults));
    if (number / 3).is_multiple_of(2) {
        round.cluster.log.set_window_ms(100);
    }
    for _ in 0..STEPS {
        round.step();
    }
    round.heal();
    sound::check(&round.cluster);
    round.add_to(total);
}

impl Round {
    /// The namespace that stays is the first that the clients make.
    fn begin(&mut self) {
        let create = Operation::CreateNamespace {
            id: NAMESPACE,
            name: "stays".to_owned(),
        };
        self.clients.write_this(&mut self.cluster, vec![create]);
        self.settle();
    }

    fn step(&mut self) {
        let index = self.cluster.any(&mut self.random);
        match self.random.below(1000) {
            0..300 => {
                self.cluster.step_log();
            }
            300..500 => self.pump(index),
            500..750 => self.cluster.read(index),
            750..900 => {
                let now_ms = self.cluster.now_ms;
                if let Some(running) = &mut self.cluster.replicas[index].running {
                    self.clients.write(running, &mut self.random, now_ms);
                }
            }
            900..970 => self.cluster.advance(1 + self.random.clone().below(40)),
            970..980 => self.cluster.advance(self.random.clone().below(3000)),
            980..990 => self.cluster.start(index),
            _ => self.rarely(index),
        }
    }

    fn rarely(&mut self, index: usize) {
        match self.random.below(100) {
            0..25 => self.kill(index, None),
            25..45 => {
                let policy = self.policy();
                self.kill(index, Some(policy));
            }
            45..60 => {
                if let Some(running) = &self.cluster.replicas[index].running {
                    running.applier.store().sync().expect("a simulated disk syncs");
                }
            }
            60..80 => {
                let skew_ms = self.random.below(2 * 3_600_000) as i64 - 3_600_000;
                let skew_ms = [0, skew_ms, skew_ms / 1000][self.random.below(3) as usize];
                self.cluster.log.set_skew_ms(skew_ms);
            }
            80..85 => self.cluster.advance(5_400_000),
            _ => self.truncate(),
        }
    }

    fn policy(&mut self) -> CutPolicy {
        match self.random.below(3) {
            0 => CutPolicy::LoseUnsynced,
            1 => CutPolicy::KeepAll,
            _ => CutPolicy::Random {
                seed: self.random.next(),
                grain: 512,
            },
        }
    }

    fn kill(&mut self, index: usize, cut: Option<CutPolicy>) {
        let answers = self.cluster.kill(index, cut);
        self.clients.answered(answers);
    }

    /// The log forgets what is old: what all replicas have, and in some rounds more. One replica at
    /// least has on disk what it forgets, or nobody could go on.
    fn truncate(&mut self) {
        let running = self
            .cluster
            .replicas
            .iter()
            .filter_map(|replica| replica.running.as_ref());
        let Some(newest) = running.max_by_key(|running| running.applier.state().position) else {
            return;
        };
        newest.applier.store().sync().expect("a simulated disk syncs");
        let newest = newest.applier.state().position;
        let first = if self.cuts_log { newest } else { self.cluster.needed() };
        self.cluster.log.truncate(first);
    }

    fn pump(&mut self, index: usize) {
        let answers = self.cluster.pump(index);
        self.clients.answered(answers);
    }

    /// Everything works again, until all have applied everything.
    fn heal(&mut self) {
        self.cluster.log.set_faults(Faults::default());
        for index in 0..REPLICAS {
            self.cluster.start(index);
        }
        self.settle();
    }

    fn settle(&mut self) {
        for _ in 0..HEALING_STEPS_MAX {
            for index in 0..REPLICAS {
                self.pump(index);
            }
            while self.cluster.step_log() {}
            for index in 0..REPLICAS {
                self.cluster.read(index);
                self.pump(index);
            }
            if self.cluster.is_level() && !self.cluster.log.step() {
                return;
            }
            self.cluster.advance(10);
        }
        panic!("it does not settle");
    }

    fn add_to(&self, total: &mut Total) {
        let answered = self.clients.check(&self.cluster.model);
        let (visited, model) = (&self.cluster.visited, &self.cluster.model);
        let happened = self.cluster.log.happened();
        total.answered.done += answered.done;
        total.answered.not_met += answered.not_met;
        total.answered.unknown += answered.unknown;
        total.answered.unknown_applied += answered.unknown_applied;
        total.answered.increments += answered.increments;
        total.kills += visited.kills;
        total.cuts += visited.cuts;
        total.gaps += visited.gaps;
        total.damaged += visited.damaged;
        total.seeded_again += visited.seeded_again;
        total.compared += visited.compared;
        total.repeated += model.repeated;
        total.late += model.late;
        total.uploaded += model.uploaded;
        total.entries_lost += happened.entries_lost;
        total.deduplicated += happened.deduplicated;
        total.unacknowledged += happened.faults.unacknowledged;
        total.duplicates += happened.faults.duplicate;
        total.reordered += happened.faults.reordered;
        total.silent += happened.faults.silent;
    }
}
