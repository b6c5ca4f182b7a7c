//! A store that is only read: what was loaded last, and how it is replaced by what is there now.
//!
//! Each operation works on one engine from its beginning to its end, so on one state of the store;
//! a refresh builds another engine and puts it in place. The old one goes with the last operation
//! that uses it. Its log takes no writes, and its directory lets nothing be changed.

use std::path::Path;
use std::sync::{Arc, Mutex};

use arc_swap::{ArcSwap, Guard};

use super::Engine;
use crate::context::Context;
use crate::error::Result;
use crate::options::Options;
use crate::planted::{Planted, planted};
use crate::recovery::RecoveryReport;
use crate::recovery::reading::{self, Followed};
use crate::sync::lock;

/// What [`Store::refresh`](crate::Store::refresh) found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Refreshed {
    /// Whether the store has changed on disk since it was opened or last refreshed. The change may
    /// be one that shows nothing else, such as a compaction.
    pub changed: bool,
    /// Sequence of the newest record that the store shows.
    pub sequence: u64,
}

impl Engine {
    /// For a store that writes: it shows everything.
    pub(crate) fn nothing_to_refresh(&self) -> Refreshed {
        Refreshed {
            changed: false,
            sequence: self.log.lock().last_sequence,
        }
    }
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Reader {
    pub(crate) context: Arc<Context>,
    current: ArcSwap<Engine>,
    /// Held by the thread that refreshes.
    followed: Mutex<Followed>,
}

impl Reader {
    pub(crate) fn open(directory: &Path, options: Options) -> Result<(Reader, RecoveryReport)> {
        let loaded = reading::open(directory, options)?;
        let report = loaded.recovered.report.clone();
        let engine = Engine::of(loaded.recovered);
        let reader = Reader {
            context: engine.context.clone(),
            current: ArcSwap::from_pointee(engine),
            followed: Mutex::new(loaded.followed),
        };
        Ok((reader, report))
    }

    /// What was loaded last, for one operation.
    #[inline]
    pub(crate) fn current(&self) -> Guard<Arc<Engine>> {
        self.current.load()
    }

    /// Loads the store again if it has changed. Others may go on reading what was loaded before.
    pub(crate) fn refresh(&self) -> Result<Refreshed> {
        self.context.check_open()?;
        let mut followed = lock(&self.followed);
        self.context.check_open()?;
        let changed = !followed.is_current(&self.context.directory) && !planted(Planted::NeverRefresh);
        if changed {
            let loaded = reading::load(&self.context)?;
            *followed = loaded.followed;
            self.current.store(Arc::new(Engine::of(loaded.recovered)));
        } else {
            // In memory only, as all of this.
            self.current().housekeeping.sweep_expired();
        }
        Ok(Refreshed {
            changed,
            ..self.current().nothing_to_refresh()
        })
    }

    /// Ends the use of the store: there is nothing to be written or released.
    pub(crate) fn close(&self) {
        self.context.begin_closing();
        self.context.set_closed();
    }
}
