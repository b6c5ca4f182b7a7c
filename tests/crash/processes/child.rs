//! The child process: executes the plan of its round, reporting each step, until it is killed.
//!
//! Reports: `B phase` and `E phase` for the beginning and the end of opening and closing; `B writer
//! number` before an operation and `E writer number` after it returned, which acknowledges it; and
//! those of [`Deadly`].

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use embercask::{Durability, Error, Namespace, PutOptions, Result, Snapshot, Store, TransactionOptions};

use crate::processes::deadly::{Deadly, Fuse, Moment};
use crate::processes::plan::{Change, Kill, Operation, Phase, Plan, Wandering, name_of};
use test_support::process::{Role, report};

/// The directory of a world's store.
pub(crate) fn store_in(root: &Path) -> PathBuf {
    root.join("store")
}

/// The store's directory for the rest of a round in which it is renamed.
pub(crate) fn moved_in(root: &Path) -> PathBuf {
    root.join("moved")
}

/// Working directory of a process that leaves; it contains an empty directory with the name of the
/// store.
pub(crate) fn elsewhere_in(root: &Path) -> PathBuf {
    root.join("elsewhere")
}

/// Target directory of a checkpoint.
pub(crate) fn checkpoint_in(root: &Path, round: u64, writer: usize, number: usize) -> PathBuf {
    root.join(format!("checkpoint {round} {writer} {number}"))
}

struct Worker<'a> {
    root: &'a Path,
    plan: &'a Plan,
    fuse: &'a Fuse,
    store: Store,
    writer: usize,
}

/// Runs one round in the directory of a world.
pub(crate) fn work(role: &Role) {
    let root = role.directory.as_path();
    let plan = &Plan::of(role.numbers[0], role.numbers[1]);
    let moment = match plan.kill {
        Kill::AtCall { moment, .. } => moment,
        _ => Moment::Before,
    };
    let fuse = Arc::new(Fuse::new(moment));
    let directory = store_in(root);
    let opened_as = if plan.wandering == Wandering::ProcessLeaves {
        std::env::set_current_dir(root).expect("the directory of the world");
        Path::new("store")
    } else {
        &directory
    };
    let storage = Deadly::over_the_disk(fuse.clone(), Some(opened_as), &directory);
    enter(plan, &fuse, Phase::Opening);
    report(format_args!("B opening"));
    let store = plan.options(Arc::new(storage)).open(opened_as).expect("open");
    report(format_args!("E opening"));
    wander(plan, root);
    enter(plan, &fuse, Phase::Working);
    thread::scope(|scope| {
        for writer in 0..plan.writers {
            let worker = Worker {
                root,
                plan,
                fuse: &fuse,
                store: store.clone(),
                writer,
            };
            scope.spawn(move || worker.run());
        }
    });
    enter(plan, &fuse, Phase::Closing);
    report(format_args!("B closing"));
    store.close().expect("close");
    report(format_args!("E closing"));
}

fn wander(plan: &Plan, root: &Path) {
    match plan.wandering {
        Wandering::Stays => {}
        Wandering::ProcessLeaves => {
            std::fs::create_dir_all(elsewhere_in(root).join("store")).expect("another directory");
            std::env::set_current_dir(elsewhere_in(root)).expect("another directory");
        }
        Wandering::IsRenamed => {
            std::fs::rename(store_in(root), moved_in(root)).expect("a new name");
            std::fs::create_dir(store_in(root)).expect("another directory");
        }
    }
}

fn enter(plan: &Plan, fuse: &Fuse, entered: Phase) {
    if let Kill::AtCall { phase, calls, .. } = plan.kill
        && phase == entered
    {
        fuse.light(calls);
    }
}

impl Worker<'_> {
    fn run(&self) {
        let writer = self.writer;
        for (number, operation) in self.plan.operations(writer).iter().enumerate() {
            report(format_args!("B {writer} {number}"));
            if let Err(error) = self.perform(number, operation) {
                panic!("writer {writer}, operation {number}, {operation:?}: {error}");
            }
            report(format_args!("E {writer} {number}"));
        }
    }

    fn name(&self, name: usize) -> String {
        name_of(self.writer, name)
    }

    /// Skips operations that are impossible in the current state, as the parent does in its
    /// prediction.
    fn perform(&self, number: usize, operation: &Operation) -> Result<()> {
        let done = match operation {
            Operation::Create { name, id } => self.store.create_namespace_with_id(&self.name(*name), *id).map(drop),
            Operation::Rename { from, to } => self.store.rename_namespace(&self.name(*from), &self.name(*to)),
            Operation::Drop { name } => self.store.drop_namespace(&self.name(*name)),
            Operation::Write { changes, durability } if changes.len() > 1 && !number.is_multiple_of(2) => {
                self.transact(changes, *durability)
            }
            Operation::Write { changes, durability } => self.write(changes, *durability),
            Operation::Flush => self.store.flush(),
            Operation::Sync => self.store.sync(),
            Operation::Maintain => self.store.maintain(),
            Operation::Compact => {
                enter(self.plan, self.fuse, Phase::Compacting);
                self.beside_a_snapshot(|| self.store.compact().map(drop))
            }
            Operation::CompactSubset(mask) => {
                enter(self.plan, self.fuse, Phase::Compacting);
                self.beside_a_snapshot(|| self.store.compact_subset(*mask).map(drop))
            }
            Operation::Checkpoint => {
                enter(self.plan, self.fuse, Phase::Checkpointing);
                let target = checkpoint_in(self.root, self.plan.round, self.writer, number);
                self.store.checkpoint(target).map(drop)
            }
        };
        match done {
            Err(Error::NamespaceExists { .. } | Error::NamespaceNotFound { .. }) => Ok(()),
            done => done,
        }
    }

    /// Compacts while a snapshot is held, which shows the same before and after.
    fn beside_a_snapshot(&self, compact: impl FnOnce() -> Result<()>) -> Result<()> {
        let snapshot = self.store.snapshot()?;
        let before = shown_by(&snapshot)?;
        compact()?;
        assert_eq!(
            shown_by(&snapshot)?,
            before,
            "compaction has changed what a snapshot shows"
        );
        Ok(())
    }

    /// As [`write`](Self::write), as a transaction that reads each key before it changes it.
    fn transact(&self, changes: &[Change], durability: Durability) -> Result<()> {
        let open = |change: &Change| self.store.open_namespace(&self.name(change.name));
        let namespaces = changes.iter().map(open).collect::<Result<Vec<Namespace>>>()?;
        let options = TransactionOptions::new().durability(durability);
        let committed = self.store.transaction_with(&options, |transaction| {
            for (change, namespace) in changes.iter().zip(&namespaces) {
                transaction.get(namespace, &change.key)?;
                match put_options(change) {
                    Some((value, options)) => transaction.put_with(namespace, &change.key, value, options)?,
                    None => transaction.delete(namespace, &change.key)?,
                }
            }
            Ok(())
        });
        committed.map(drop)
    }

    fn write(&self, changes: &[Change], durability: Durability) -> Result<()> {
        let open = |change: &Change| self.store.open_namespace(&self.name(change.name));
        let namespaces = changes.iter().map(open).collect::<Result<Vec<Namespace>>>()?;
        if let ([change], [namespace]) = (changes, &namespaces[..]) {
            return match put_options(change) {
                Some((value, options)) => namespace
                    .put_with(&change.key, value, options.durability(durability))
                    .map(drop),
                None => namespace.delete_with(&change.key, None, Some(durability)).map(drop),
            };
        }
        let mut batch = self.store.batch();
        for (change, namespace) in changes.iter().zip(&namespaces) {
            match put_options(change) {
                Some((value, options)) => batch.put_with(namespace, &change.key, value, options),
                None => batch.delete(namespace, &change.key),
            };
        }
        batch.durability(durability).commit().map(drop)
    }
}

/// Namespace, key, sequence and length of a value.
type Shown = (u128, Vec<u8>, u64, usize);

fn shown_by(snapshot: &Snapshot) -> Result<Vec<Shown>> {
    let mut shown = Vec::new();
    for info in snapshot.namespaces()? {
        let namespace = snapshot.open_namespace(&info.name)?;
        for entry in snapshot.list(&namespace)?.with_values() {
            let entry = entry?;
            let value = entry.value().expect("values are listed");
            shown.push((info.id, entry.key().to_vec(), value.sequence(), value.len()));
        }
    }
    Ok(shown)
}

fn put_options(change: &Change) -> Option<(&[u8], PutOptions)> {
    let item = change.item.as_ref()?;
    let mut options = PutOptions::new();
    if let Some(metadata) = &item.metadata {
        options = options.metadata(&metadata[..]);
    }
    if let Some(expiry) = item.expiry {
        options = options.expires_at_ms(expiry);
    }
    Some((&item.value, options))
}
