//! Closing a store, by a call or with its last handle.

use std::sync::PoisonError;

use super::Inner;
use super::current::Mode;
use crate::callback;
use crate::context::Context;
use crate::engine::{Engine, Workers};
use crate::error::Result;
use crate::sync::lock;

impl Drop for Inner {
    fn drop(&mut self) {
        if !self.context.is_of_this_process() {
            // After a fork: locks may be held by threads that do not exist here, and joining the
            // workers would never return. The parent has everything; drop this copy and do nothing.
            let workers = self.workers.get_mut().unwrap_or_else(PoisonError::into_inner);
            std::mem::forget(workers.take());
            return;
        }
        if callback::is_running()
            && let Mode::Writes(engine) = &self.mode
        {
            // The thread that runs the program's function may hold what closing needs, or be one of
            // those that it waits for.
            let (engine, workers) = (engine.clone(), lock(&self.workers).take());
            std::thread::spawn(move || note_failed(&engine.context, close_engine(&engine, workers)));
            return;
        }
        // Call `close` to see errors.
        note_failed(&self.context, self.close());
    }
}

fn note_failed(context: &Context, closed: Result<()>) {
    if let Err(error) = closed {
        context.events.note_background_error(&error);
    }
}

fn close_engine(engine: &Engine, workers: Option<Workers>) -> Result<()> {
    // First, since busy writers would keep the threads sealing and compacting, and this call would
    // wait for them forever.
    engine.log.refuse_writes();
    drop(workers);
    let closed = engine.close();
    engine.say();
    closed
}

impl Inner {
    pub(super) fn close(&self) -> Result<()> {
        self.context.check_process()?;
        let engine = match &self.mode {
            Mode::Writes(engine) => engine,
            Mode::Reads(reader) => {
                reader.close();
                return Ok(());
            }
        };
        engine.check_not_in_progress()?;
        let workers = lock(&self.workers).take();
        close_engine(engine, workers)
    }
}
