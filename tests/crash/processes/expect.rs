//! What a store may show after a round: for each writer the states after its operations, and the
//! range of them that the acknowledgements allow.
//!
//! * If an operation was acknowledged in a class that survives the crash, it survives, and so does
//!   everything, of any writer, that had been acknowledged before it began: there is one log.
//! * Operations that never began leave no trace.
//! * There are no holes between writers either: if an operation survives, so does each one
//!   acknowledged before it began.

use embercask::Durability;

use crate::processes::plan::{Operation, Plan, WRITERS_MAX, name_of};
use test_support::model::{Keyspace, Promise, State};

/// The content of each writer's namespaces.
pub(crate) type World = Vec<State>;

/// For each writer, the minimum and maximum number of its operations that may have been applied.
pub(crate) type Bounds = Vec<(usize, usize)>;

/// The reports that were read, as positions in their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heard {
    /// For each writer, the position at which each operation began.
    pub(crate) begun: Vec<Vec<usize>>,
    /// For each writer, the position at which each operation was acknowledged; the last may be
    /// missing.
    pub(crate) ended: Vec<Vec<usize>>,
    /// The position at which closing began, if it was acknowledged.
    pub(crate) closed: Option<usize>,
}

/// A writer's states and promises.
#[derive(Debug)]
struct Course {
    /// Before the first operation, and after each one that began.
    states: Vec<State>,
    /// What the acknowledgement of each operation promises.
    promises: Vec<Promise>,
}

#[derive(Debug)]
pub(crate) struct Expectation {
    courses: Vec<Course>,
    heard: Heard,
}

fn promise_of(durability: Durability) -> Promise {
    match durability {
        Durability::Buffered => Promise::Nothing,
        Durability::Os => Promise::Kill,
        Durability::Sync => Promise::PowerCut,
    }
}

/// Applies an operation to a writer's state. `None` if it is impossible in this state.
fn apply(state: &mut State, writer: usize, operation: &Operation) -> Option<Promise> {
    let spaces = &mut state.namespaces;
    match operation {
        Operation::Create { name, id } => {
            let name = name_of(writer, *name);
            if spaces.contains_key(&name) {
                return None;
            }
            let keyspace = Keyspace {
                id: *id,
                ..Keyspace::default()
            };
            spaces.insert(name, keyspace);
            Some(Promise::PowerCut)
        }
        Operation::Rename { from, to } => {
            let (from, to) = (name_of(writer, *from), name_of(writer, *to));
            if spaces.contains_key(&to) {
                return None;
            }
            let keyspace = spaces.remove(&from)?;
            spaces.insert(to, keyspace);
            Some(Promise::PowerCut)
        }
        Operation::Drop { name } => spaces.remove(&name_of(writer, *name)).map(|_| Promise::PowerCut),
        Operation::Write { changes, durability } => {
            if !changes
                .iter()
                .all(|change| spaces.contains_key(&name_of(writer, change.name)))
            {
                return None;
            }
            for change in changes {
                let items = &mut spaces.get_mut(&name_of(writer, change.name))?.items;
                match &change.item {
                    Some(item) => items.insert(change.key.clone(), item.clone()),
                    None => items.remove(&change.key),
                };
            }
            Some(promise_of(*durability))
        }
        Operation::Flush | Operation::Maintain => Some(Promise::Kill),
        Operation::Sync | Operation::Checkpoint => Some(Promise::PowerCut),
        Operation::Compact | Operation::CompactSubset(_) => None,
    }
}

/// Number of positions before `end`.
fn before(positions: &[usize], end: usize) -> usize {
    positions.partition_point(|position| *position < end)
}

impl Expectation {
    /// `start` is the content of the store at the beginning of the round.
    pub(crate) fn new(plan: &Plan, start: &World, heard: Heard) -> Expectation {
        let course = |(writer, state): (usize, &State)| {
            let mut course = Course {
                states: vec![state.clone()],
                promises: Vec::new(),
            };
            for operation in plan.operations(writer).iter().take(heard.begun[writer].len()) {
                let mut next = course.states[course.states.len() - 1].clone();
                let promise = apply(&mut next, writer, operation);
                course.promises.push(promise.unwrap_or(Promise::Nothing));
                course.states.push(next);
            }
            course
        };
        Expectation {
            courses: start.iter().enumerate().map(course).collect(),
            heard,
        }
    }

    fn begun(&self) -> impl Iterator<Item = usize> + '_ {
        self.heard.begun.iter().map(Vec::len)
    }

    /// What may remain after a crash that leaves what `survived` covers.
    pub(crate) fn after(&self, survived: Promise) -> Bounds {
        // Everything acknowledged before this position is covered by something that began there.
        let mut covered = self.heard.closed.unwrap_or(0);
        for (course, (begun, ended)) in self.courses.iter().zip(self.heard.begun.iter().zip(&self.heard.ended)) {
            let kept = (0..ended.len())
                .rev()
                .find(|number| course.promises[*number] >= survived);
            covered = covered.max(kept.map_or(0, |number| begun[number]));
        }
        let least = |(course, ended): (&Course, &Vec<usize>)| {
            let own = (0..ended.len())
                .rev()
                .find(|number| course.promises[*number] >= survived);
            before(ended, covered).max(own.map_or(0, |number| number + 1))
        };
        self.courses
            .iter()
            .zip(&self.heard.ended)
            .map(least)
            .zip(self.begun())
            .collect()
    }

    /// What a checkpoint may hold: everything acknowledged before it began, nothing that began
    /// after it ended.
    pub(crate) fn checkpoint(&self, writer: usize, number: usize) -> Bounds {
        let begun = self.heard.begun[writer][number];
        let ended = self.heard.ended[writer].get(number).copied().unwrap_or(usize::MAX);
        let bounds = |(begins, ends): (&Vec<usize>, &Vec<usize>)| (before(ends, begun), before(begins, ended));
        self.heard.begun.iter().zip(&self.heard.ended).map(bounds).collect()
    }

    /// The state that each writer is in, if it is within the bounds.
    pub(crate) fn settle(&self, found: &World, bounds: &Bounds, now_ms: u64) -> Result<World, String> {
        let mut matching = Vec::new();
        for (writer, (found, &(least, most))) in found.iter().zip(bounds).enumerate() {
            let states = &self.courses[writer].states;
            let fits = |count: &usize| states[*count].looks_like(found, now_ms);
            let fitting: Vec<usize> = (least..=most).filter(fits).collect();
            if fitting.is_empty() {
                let elsewhere: Vec<usize> = (0..states.len()).filter(fits).collect();
                return Err(format!(
                    "writer {writer} must be in the state after {least} to {most} of its operations; it is in the \
                     state after one of: {elsewhere:?}\nfound:{}\nafter {least}:{}\nafter {most}:{}",
                    describe(found, now_ms),
                    describe(&states[least], now_ms),
                    describe(&states[most], now_ms)
                ));
            }
            matching.push(fitting);
        }
        self.find_hole(&matching)?;
        let settled = |(course, fitting): (&Course, &Vec<usize>)| course.states[fitting[fitting.len() - 1]].clone();
        Ok(self.courses.iter().zip(&matching).map(settled).collect())
    }

    /// An error if an operation is certainly missing although another writer's operation, which
    /// began after it was acknowledged, is certainly there.
    fn find_hole(&self, matching: &[Vec<usize>]) -> Result<(), String> {
        let kept = |(writer, fitting): (usize, &Vec<usize>)| {
            let last = fitting[0].checked_sub(1)?;
            Some((self.heard.begun[writer][last], writer, last))
        };
        let Some((begun, keeper, last)) = matching.iter().enumerate().filter_map(kept).max() else {
            return Ok(());
        };
        for (writer, fitting) in matching.iter().enumerate() {
            let missing = fitting[fitting.len() - 1];
            if self.heard.ended[writer]
                .get(missing)
                .is_some_and(|ended| *ended < begun)
            {
                return Err(format!(
                    "a hole: operation {missing} of writer {writer} is missing, and operation {last} of writer \
                     {keeper}, which began after that was acknowledged, is there"
                ));
            }
        }
        Ok(())
    }
}

/// An empty world.
pub(crate) fn nothing() -> World {
    vec![State::default(); WRITERS_MAX]
}

fn describe(state: &State, now_ms: u64) -> String {
    let mut text = String::new();
    for (name, keyspace) in &state.namespaces {
        text += &format!("\n  {name} (id {:x}):", keyspace.id);
        for (key, item) in keyspace.visible(now_ms) {
            let value = &item.value[..item.value.len().min(14)];
            text += &format!(" {}={}", key[..key.len().min(6)].escape_ascii(), value.escape_ascii());
        }
    }
    text
}
