//! Compares this store with what other nodes tell in their beats.

use std::collections::{HashMap, VecDeque};

use crate::entry::Digest;
use crate::state::State;

/// How many of the last digests are kept to compare with beats.
const RECENT_MAX: usize = 65_536;

/// Beats count for this long: 30 seconds of log time.
const BEAT_MS: u64 = 30_000;

/// The digests of the last positions.
#[derive(Debug)]
pub(super) struct Recent {
    /// Position of the last one.
    position: u64,
    digests: VecDeque<Digest>,
}

impl Recent {
    pub(super) fn new(state: &State) -> Recent {
        Recent {
            position: state.position,
            digests: VecDeque::from([state.digest]),
        }
    }

    pub(super) fn push(&mut self, digest: Digest) {
        if self.digests.len() == RECENT_MAX {
            self.digests.pop_front();
        }
        self.digests.push_back(digest);
        self.position += 1;
    }

    /// The digest at a position; `None` if it is too old or has not come yet.
    pub(super) fn at(&self, position: u64) -> Option<Digest> {
        let back = usize::try_from(self.position.checked_sub(position)?).ok()?;
        let index = self.digests.len().checked_sub(back + 1)?;
        self.digests.get(index).copied()
    }

    /// Forgets those after a state that the store was found in.
    pub(super) fn cut(&mut self, state: &State) {
        let after = usize::try_from(self.position.saturating_sub(state.position)).unwrap_or(usize::MAX);
        self.digests.truncate(self.digests.len().saturating_sub(after));
        self.position = state.position;
        if self.digests.back() != Some(&state.digest) {
            *self = Recent::new(state);
        }
    }
}

/// This store differs from others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Disagreement {
    /// The writers that tell another digest.
    pub others: Vec<u128>,
    /// How many others were heard of late.
    pub heard: usize,
}

/// What was heard last from each writer.
#[derive(Debug, Default)]
pub(super) struct Heard {
    /// Its log time, and whether it agreed.
    last: HashMap<u128, (u64, bool)>,
}

impl Heard {
    /// Notes a beat, and whether it agreed.
    pub(super) fn note(&mut self, writer: u128, agrees: Option<bool>, log_ms: u64) {
        self.last
            .retain(|_, (heard_ms, _)| log_ms.saturating_sub(*heard_ms) <= BEAT_MS);
        if let Some(agrees) = agrees {
            self.last.insert(writer, (log_ms, agrees));
        }
    }

    /// The writers that disagree, if they are at least half of those heard of late. This node
    /// counts as one that agrees: otherwise one that differs would be half of the others that each
    /// of three nodes hears, and none of them would be ready.
    pub(super) fn disagreement(&self, own: u128, log_ms: u64) -> Option<Disagreement> {
        let recent = self.last.iter();
        let recent =
            recent.filter(|(writer, (heard_ms, _))| **writer != own && log_ms.saturating_sub(*heard_ms) <= BEAT_MS);
        let (agreeing, others): (Vec<_>, Vec<_>) = recent.partition(|(_, (_, agrees))| *agrees);
        let heard = agreeing.len() + others.len();
        let mut others: Vec<_> = others.into_iter().map(|(writer, _)| *writer).collect();
        others.sort_unstable();
        (!others.is_empty() && 2 * others.len() > heard).then_some(Disagreement { others, heard })
    }
}
