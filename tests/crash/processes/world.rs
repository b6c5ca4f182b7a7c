//! The parent's side: one store, round after round.
//!
//! In each round a child works on the store until it is killed. Then the parent opens the store, or
//! a copy (so that the next child finds the store as the kill left it, and may be killed while
//! recovering it), compares its content with the acknowledgements, and checks the child's
//! checkpoints. Another copy gets a power cut, see [`power`](crate::processes::power). State once
//! seen must be seen again in the next round.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use embercask::storage::OsStorage;
use embercask::{ErrorKind, Maintenance, ManualClock, Options, Result, Store};
use tempfile::TempDir;

use crate::processes::child::{checkpoint_in, elsewhere_in, moved_in, store_in};
use crate::processes::deadly::replaced_manifest;
use crate::processes::expect::{Expectation, Heard, World, nothing};
use crate::processes::look::look;
use crate::processes::plan::{Kill, Operation, Phase, Plan, WRITERS_MAX, Wandering};
use crate::processes::power::Durable;
use test_support::model::Promise;
use test_support::process::{Child, bytes_in, copy_directory, open_in, remove_directory, was_killed};
use test_support::way::Prepared;
use test_support::{Rng, file_names};

/// More than a store with these few keys ever needs, but soon exceeded without compaction across
/// rounds.
const STORE_BYTES_MAX: u64 = 3 << 20;

/// Event counts for the summary.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) kills: BTreeMap<Phase, u64>,
    pub(crate) finished: u64,
    pub(crate) acknowledged: u64,
    pub(crate) rounds_acknowledged: u64,
    pub(crate) unpromised: u64,
    pub(crate) checkpoints_made: u64,
    pub(crate) checkpoints_cut: u64,
    pub(crate) recovered: u64,
    pub(crate) power_cuts: u64,
    /// Power cuts that removed something.
    pub(crate) power_cuts_felt: u64,
    /// Rounds in which the parent compacted and reclaimed something.
    pub(crate) compacted: u64,
    pub(crate) wandered: BTreeMap<String, u64>,
    pub(crate) store_bytes_max: u64,
}

/// A store and its expected content.
pub(crate) struct Story {
    /// Kept if a round fails.
    root: Option<TempDir>,
    test: &'static str,
    seed: u64,
    expected: World,
    durable: Durable,
    /// Whether everything expected has survived even a power cut.
    start_is_durable: bool,
    pub(crate) tally: Tally,
}

/// What a child reported.
struct Told {
    heard: Heard,
    opened: bool,
    /// What the child was doing when it ended; none if it ran to the end.
    killed_in: Option<Phase>,
}

impl Drop for Story {
    fn drop(&mut self) {
        if std::thread::panicking()
            && let Some(root) = self.root.take()
        {
            println!(
                "kept: {}; its `killed` is the store as the kill left it, `cut` the store after a power cut",
                root.keep().display()
            );
        }
    }
}

impl Story {
    pub(crate) fn new(test: &'static str, seed: u64) -> Story {
        Story {
            root: Some(tempfile::tempdir().expect("a directory")),
            test,
            seed,
            expected: nothing(),
            durable: Durable::default(),
            start_is_durable: true,
            tally: Tally::default(),
        }
    }

    fn root(&self) -> &Path {
        self.root.as_ref().expect("it is taken last").path()
    }

    pub(crate) fn round(&mut self, round: u64) {
        let plan = Plan::of(self.seed, round);
        println!("round {round}: {:?}", plan.kill);
        let store = store_in(self.root());
        let told = self.live(&plan);
        self.come_home(&plan);
        self.durable.settle(&store);
        let prepared = plan.way.prepare_directory(&store);
        let killed = self.root().join("killed");
        copy_directory(&store, &killed);
        let expectation = Expectation::new(&plan, &self.expected, told.heard.clone());
        self.cut_power(&plan, &expectation, &told, &killed);
        let opened = if plan.open_original {
            store
        } else {
            let copy = self.root().join("copy");
            copy_directory(&killed, &copy);
            copy
        };
        self.settle(&plan, &expectation, &told, &opened, prepared);
        self.tally.store_bytes_max = self.tally.store_bytes_max.max(bytes_in(&killed));
        assert!(
            bytes_in(&killed) < STORE_BYTES_MAX,
            "round {round}: the store has grown to {} bytes",
            bytes_in(&killed)
        );
        assert_eq!(open_in(self.root()), [""; 0], "round {round}: files left open");
    }

    /// Moves the directory back from where the child left it. Whatever took its place must be
    /// empty.
    fn come_home(&mut self, plan: &Plan) {
        let root = self.root();
        let (store, moved) = (store_in(root), moved_in(root));
        let decoy = match plan.wandering {
            Wandering::Stays => return,
            Wandering::ProcessLeaves => elsewhere_in(root).join("store"),
            Wandering::IsRenamed if moved.exists() => store.clone(),
            Wandering::IsRenamed => return,
        };
        if decoy.exists() {
            let strays = file_names(&decoy);
            assert_eq!(strays, [""; 0], "round {}: written into another directory", plan.round);
            std::fs::remove_dir(&decoy).expect("it is empty");
        }
        if plan.wandering == Wandering::IsRenamed {
            std::fs::rename(moved, store).expect("its old name");
        }
        *self.tally.wandered.entry(format!("{:?}", plan.wandering)).or_default() += 1;
    }

    /// Runs a child to its end, killed or not.
    fn live(&mut self, plan: &Plan) -> Told {
        self.durable.begin();
        let mut child = Child::spawn(self.test, "work", self.root(), &[self.seed, plan.round]);
        let mut heard = Heard {
            begun: vec![Vec::new(); WRITERS_MAX],
            ended: vec![Vec::new(); WRITERS_MAX],
            closed: None,
        };
        let mut phase = Some(Phase::Opening);
        let (mut opened, mut closing) = (false, None);
        let mut busy = BTreeMap::new();
        let operations: Vec<_> = (0..WRITERS_MAX).map(|writer| plan.operations(writer)).collect();
        let mut position = 0;
        while let Some(report) = child.next_report() {
            position += 1;
            if let Kill::AfterReports(reports) = plan.kill
                && position as u64 == reports + 1
            {
                child.kill();
            }
            if self.durable.hear(&report) {
                continue;
            }
            let words: Vec<&str> = report.split(' ').collect();
            let number = |word: &str| word.parse::<usize>().expect("a number");
            match words[..] {
                ["B", "opening"] => {}
                ["E", "opening"] => {
                    opened = true;
                    phase = Some(Phase::Working);
                }
                ["B", "closing"] => {
                    closing = Some(position);
                    phase = Some(Phase::Closing);
                }
                ["E", "closing"] => {
                    heard.closed = closing;
                    phase = None;
                }
                ["B", writer, begun] => {
                    heard.begun[number(writer)].push(position);
                    let doing = match operations[number(writer)][number(begun)] {
                        Operation::Compact | Operation::CompactSubset(_) => Phase::Compacting,
                        Operation::Checkpoint => Phase::Checkpointing,
                        _ => Phase::Working,
                    };
                    busy.insert(number(writer), doing);
                }
                ["E", writer, _] => {
                    heard.ended[number(writer)].push(position);
                    busy.remove(&number(writer));
                }
                _ => panic!("round {}: an unknown report: {report}", plan.round),
            }
        }
        if phase == Some(Phase::Working) {
            phase = busy.values().max().copied().or(phase);
        }
        let status = child.wait();
        assert!(
            was_killed(status) || status.success() && phase.is_none(),
            "round {}: the child failed ({status}); see its output above",
            plan.round
        );
        match phase {
            Some(phase) => *self.tally.kills.entry(phase).or_default() += 1,
            None => self.tally.finished += 1,
        }
        let acknowledged = heard.ended.iter().map(|ended| ended.len() as u64).sum::<u64>();
        self.tally.acknowledged += acknowledged;
        self.tally.rounds_acknowledged += u64::from(acknowledged > 0);
        Told {
            heard,
            opened,
            killed_in: phase,
        }
    }

    /// Cuts the power after the kill: everything durable, and a prefix of the rest, must be there.
    fn cut_power(&mut self, plan: &Plan, expectation: &Expectation, told: &Told, killed: &Path) {
        let bounds = expectation.after(Promise::PowerCut);
        let synced = told.opened && bounds.iter().any(|(least, _)| *least > 0);
        // Otherwise the store may be in a state from some rounds ago.
        if !(self.start_is_durable || synced) {
            return;
        }
        let cut = self.root().join("cut");
        copy_directory(killed, &cut);
        let done = self.durable.cut(
            &cut,
            &replaced_manifest(&store_in(self.root())),
            &mut Rng::new(self.seed ^ plan.round),
        );
        let context = format!("round {}, and a power cut:{done}", plan.round);
        let store = open(plan, &cut).unwrap_or_else(|error| panic!("{context} open: {error}"));
        let found = look(&store);
        store.close().unwrap_or_else(|error| panic!("{context} close: {error}"));
        if let Err(wrong) = expectation.settle(&found, &bounds, plan.looked_at_ms()) {
            panic!("{context} {wrong}");
        }
        self.tally.power_cuts += 1;
        self.tally.power_cuts_felt += u64::from(!done.is_empty());
    }

    /// The store opens and shows an allowed state, which it must show from then on.
    fn settle(&mut self, plan: &Plan, expectation: &Expectation, told: &Told, directory: &Path, prepared: Prepared) {
        let context = format!("round {}, killed in {:?}, {directory:?}:", plan.round, told.killed_in);
        let store = open(plan, directory).unwrap_or_else(|error| panic!("{context} open: {error}"));
        prepared.assert_no_more_used(store.recovery_report());
        let unclean = !store.recovery_report().clean;
        assert!(
            told.killed_in.is_some() || !unclean,
            "{context} not clean although it was closed"
        );
        self.tally.recovered += u64::from(unclean);
        let found = look(&store);
        let bounds = expectation.after(Promise::Kill);
        let settled = expectation.settle(&found, &bounds, plan.looked_at_ms());
        let settled = settled.unwrap_or_else(|wrong| panic!("{context} {wrong}"));
        self.checkpoints(plan, expectation, told, &store);
        if plan.compact {
            let report = store
                .compact()
                .unwrap_or_else(|error| panic!("{context} compact: {error}"));
            self.tally.compacted += u64::from(report.reclaimed_bytes > 0);
            let stats = store.stats();
            // Besides live data: shadows that must stay, some expired records in their grace
            // period, headers and seals.
            assert!(
                stats.segment_bytes <= 2 * stats.live_bytes + (256 << 10),
                "{context} compaction leaves too much: {stats:#?}"
            );
        }
        store.close().unwrap_or_else(|error| panic!("{context} close: {error}"));
        let prepared = plan.way.prepare_directory(directory);
        let again = open(plan, directory).unwrap_or_else(|error| panic!("{context} open again: {error}"));
        let report = again.recovery_report();
        prepared.assert_all_used(report);
        assert!(report.clean, "{context} not clean although it was closed: {report:?}");
        let shown = look(&again);
        for (writer, (shown, settled)) in shown.iter().zip(&settled).enumerate() {
            assert!(
                shown.looks_like(settled, plan.looked_at_ms()),
                "{context} opened again, it shows different content of writer {writer}"
            );
        }
        again.close().unwrap_or_else(|error| panic!("{context} close: {error}"));
        let acknowledged: usize = told.heard.ended.iter().map(Vec::len).sum();
        let least: usize = bounds.iter().map(|(least, _)| least).sum();
        self.tally.unpromised += (acknowledged - least) as u64;
        self.expected = settled;
        for state in &mut self.expected {
            state.sweep(plan.looked_at_ms());
        }
        self.start_is_durable = plan.open_original;
        if plan.open_original {
            self.durable = Durable::all(directory);
        }
    }

    /// An acknowledged checkpoint exists and is sound; one that was cut short is sound or does not
    /// exist, and can be written again.
    fn checkpoints(&mut self, plan: &Plan, expectation: &Expectation, told: &Told, store: &Store) {
        for (writer, begun) in told.heard.begun.iter().enumerate() {
            let operations = plan.operations(writer);
            let begun = operations.iter().take(begun.len()).enumerate();
            let numbers = begun.filter(|(_, operation)| matches!(operation, Operation::Checkpoint));
            for (number, _) in numbers {
                let target = checkpoint_in(self.root(), plan.round, writer, number);
                let context = format!("round {}, checkpoint {number} of writer {writer}:", plan.round);
                let acknowledged = number < told.heard.ended[writer].len();
                if acknowledged || target.exists() {
                    let copy = open(plan, &target).unwrap_or_else(|error| panic!("{context} open: {error}"));
                    let report = copy.recovery_report();
                    assert!(report.clean, "{context} not clean: {report:?}");
                    let bounds = expectation.checkpoint(writer, number);
                    if let Err(wrong) = expectation.settle(&look(&copy), &bounds, plan.looked_at_ms()) {
                        panic!("{context} {wrong}");
                    }
                    copy.close().unwrap_or_else(|error| panic!("{context} close: {error}"));
                    self.tally.checkpoints_made += 1;
                } else {
                    let made = store.checkpoint(&target);
                    made.unwrap_or_else(|error| panic!("{context} written again after it was cut short: {error}"));
                    let copy = open(plan, &target).unwrap_or_else(|error| panic!("{context} open: {error}"));
                    let (copied, shown) = (look(&copy), look(store));
                    for (copied, shown) in copied.iter().zip(&shown) {
                        assert!(
                            copied.looks_like(shown, plan.looked_at_ms()),
                            "{context} written again, it shows different content"
                        );
                    }
                    copy.close().unwrap_or_else(|error| panic!("{context} close: {error}"));
                    self.tally.checkpoints_cut += 1;
                }
                let partial = PathBuf::from(format!("{}.partial", target.display()));
                assert!(
                    !partial.exists() || acknowledged,
                    "{context} written again, but leftovers remain"
                );
                remove_directory(&target);
                remove_directory(&partial);
            }
        }
    }
}

/// Opens the store for the parent, without background work.
fn open(plan: &Plan, directory: &Path) -> Result<Store> {
    let options: Options = plan
        .options(Arc::new(OsStorage))
        .maintenance(Maintenance::Manual)
        .clock(ManualClock::new(plan.looked_at_ms()));
    let store = options.open(directory);
    if let Err(error) = &store {
        assert_ne!(error.kind(), ErrorKind::InUse, "the lock outlived its process");
    }
    store
}
