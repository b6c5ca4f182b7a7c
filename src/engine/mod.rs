//! The engine: all parts of an open store, below the handles that users hold. No part depends on
//! it.
//!
//! ```text
//! engine            opens, writes, maintains, closes
//!   recovery        from files to a state and a log
//!   compact         reclaims the space of dead records
//!   housekeeping    removes expired and dropped keys from memory
//!   scrub           reads sealed segments again, to find rot
//!   log             appends, makes durable, rotates, seals
//!   state           the indexes of the keys
//! ```

mod background;
mod checkpoint;
mod growth;
mod idle;
mod maintain;
pub(crate) mod offload;
pub(crate) mod operation;
mod reader;
mod say;
pub(crate) mod transaction;
pub(crate) mod verdict;
pub(crate) mod write;

use std::path::Path;
use std::sync::{Arc, Mutex};

use crate::compact::Compactor;
use crate::context::Context;
use crate::error::{Error, Result};
use crate::housekeeping::Housekeeping;
use crate::log::Log;
use crate::options::{Durability, Options};
use crate::planted::{Planted, planted};
use crate::recovery::{self, Recovered, RecoveryReport, index_file};
use crate::scrub::Scrub;
use crate::state::State;
use crate::sync::lock;

pub(crate) use self::background::Workers;
pub use self::checkpoint::CheckpointReport;
pub use self::idle::Background;
use self::offload::Offload;
pub(crate) use self::reader::Reader;
pub use self::reader::Refreshed;
use self::say::Said;

/// An open store.
pub(crate) struct Engine {
    pub(crate) context: Arc<Context>,
    pub(crate) state: Arc<State>,
    pub(crate) log: Arc<Log>,
    pub(crate) housekeeping: Arc<Housekeeping>,
    pub(crate) scrub: Arc<Scrub>,
    pub(crate) compactor: Compactor,
    /// Held by a transaction that has met too many conflicts, until it ends.
    pub(crate) transactions: Mutex<()>,
    /// Held while a namespace is created, renamed or dropped.
    pub(crate) namespace_changes: Mutex<()>,
    /// Of asynchronous calls.
    pub(crate) offload: Offload,
    /// The result of closing, once it has been attempted.
    close_result: Mutex<Option<Result<()>>>,
    said: Said,
}

impl Engine {
    /// Opens the store in this directory, or creates one.
    pub(crate) fn open(directory: &Path, options: Options) -> Result<(Engine, RecoveryReport)> {
        let mut recovered = recovery::open(directory, options)?;
        let report = std::mem::take(&mut recovered.report);
        Ok((Engine::of(recovered), report))
    }

    /// The engine of what recovery has opened.
    fn of(recovered: Recovered) -> Engine {
        let (context, state, log) = (recovered.context, recovered.state, recovered.log);
        let housekeeping = recovered.housekeeping;
        let scrub = Arc::new(Scrub::new(context.clone(), state.clone(), log.clone()));
        Engine {
            compactor: Compactor::new(
                context.clone(),
                state.clone(),
                log.clone(),
                housekeeping.clone(),
                scrub.clone(),
            ),
            context,
            state,
            log,
            housekeeping,
            scrub,
            transactions: Mutex::new(()),
            namespace_changes: Mutex::new(()),
            offload: Offload::default(),
            close_result: Mutex::default(),
            said: Said::default(),
        }
    }

    /// Closes the store; closing again returns the same result.
    pub(crate) fn close(&self) -> Result<()> {
        let result = self.close_log();
        // After the last change. Nothing is told from here on, whatever closing has come to.
        self.log.end_watching();
        self.offload.end();
        result
    }

    /// An error if the call comes from a function of the program that a checkpoint of this store
    /// has called: calls that wait for the checkpoint would wait for themselves.
    pub(crate) fn check_not_in_progress(&self) -> Result<()> {
        self.compactor.control.check_not_held_here()
    }

    fn close_log(&self) -> Result<()> {
        self.context.begin_closing();
        let _running = self.compactor.control.lock()?;
        let _no_scrub = self.scrub.keep_out();
        // The first result, since what was lost then is still lost.
        let mut ended = lock(&self.close_result);
        match &*ended {
            Some(_) if planted(Planted::ForgetFailedClose) => return Ok(()),
            Some(result) => return result.clone(),
            None => {}
        }
        if self.context.set_closed() {
            // An earlier close panicked.
            return Err(Error::Closed);
        }
        let result = match planted(Planted::CloseWithoutSync) {
            true => Ok(()),
            false => self.log.close(),
        };
        if let Err(error) = &result {
            self.log.stop(error);
        } else {
            index_file::write(&self.context, &self.state, &self.log, &self.housekeeping);
        }
        self.log.unlock_directory();
        *ended = Some(result.clone());
        // Calls that wait for the threads, which have ended.
        self.context.rounds.end();
        result
    }

    /// The durability of a write that may set its own.
    pub(crate) fn durability(&self, own: Option<Durability>) -> Durability {
        match self.context.options.in_memory && !planted(Planted::SyncMemory) {
            true => Durability::Buffered,
            false => own.unwrap_or(self.context.options.durability),
        }
    }
}

/// Handles print the store that they are of: by its path, without anything that is stored in it.
impl std::fmt::Debug for Engine {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Engine")
            .field("path", &self.context.path())
            .finish_non_exhaustive()
    }
}
