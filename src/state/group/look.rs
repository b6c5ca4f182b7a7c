//! Looks at several keys as of one moment; see the parent module.

use std::sync::Arc;

use super::{PHASES, PUBLISHED, State, View};
use crate::error::Result;
use crate::planted::{Planted, planted};
use crate::sync::Ordering;

/// Looks that are made in a view from the beginning after one was disturbed: others will be. The
/// next one is made in the present again, which is wasted if it is disturbed, too.
const IN_VIEWS: u64 = 64;

impl State {
    /// Runs `look`, which may read several keys, so that it sees one moment: in the present, or if
    /// that changes too fast, in a view.
    pub(crate) fn consistently<T>(
        self: &Arc<State>,
        mut look: impl FnMut(Option<&Arc<View>>) -> Result<T>,
    ) -> Result<T> {
        let in_views = self.in_views.load(Ordering::Relaxed);
        if in_views == 0 {
            let before = self.await_turn();
            let answer = look(None);
            if self.is_whole(before) || planted(Planted::TornLook) {
                return answer;
            }
            self.in_views.store(IN_VIEWS, Ordering::Relaxed);
        } else {
            self.in_views.store(in_views - 1, Ordering::Relaxed);
        }
        loop {
            let right = self.lock_changes();
            // Before the lock is released: a roll-back that begins then is noticed.
            let (view, rolled_back) = (
                View::begin(self, &right, None),
                self.rolled_back.load(Ordering::Acquire),
            );
            drop(right);
            let answer = look(Some(&Arc::new(view)));
            if self.rolled_back.load(Ordering::Acquire) == rolled_back {
                return answer;
            }
        }
    }

    /// Whether nothing has happened since this epoch that a look must not have in between. The end
    /// of a group that was there at its beginning may be.
    fn is_whole(&self, before: u64) -> bool {
        let after = self.epoch.load(Ordering::Acquire);
        after == before || before % PHASES == PUBLISHED && after == before.wrapping_add(PHASES - PUBLISHED)
    }
}
