//! What an operation works on: the engine of a store that writes, or what a store that only reads
//! has loaded last.

use std::ops::Deref;
use std::sync::Arc;

use arc_swap::Guard;

use super::{Inner, Namespace, Store};
use crate::engine::{Engine, Reader};
use crate::error::{Error, Result};
use crate::index::namespaces::NamespaceState;
use crate::index::order::KeyOrder;
use crate::planted::{Planted, planted};

/// Attempts of a read whose files are gone, each after a refresh. What a refresh finds is open, up
/// to a number of files; so more than one are needed only with many segments that are not mapped,
/// and a writer that replaces them at that moment.
pub(super) const READ_ATTEMPTS_MAX: usize = 10;

/// How the store was opened.
#[derive(Debug)]
pub(crate) enum Mode {
    /// Alone in its directory.
    Writes(Arc<Engine>),
    /// Beside others.
    Reads(Reader),
}

/// The engine of one operation, from its beginning to its end.
pub(crate) enum Current<'a> {
    Writer(&'a Engine),
    Loaded(Guard<Arc<Engine>>),
}

impl Deref for Current<'_> {
    type Target = Engine;

    #[inline]
    fn deref(&self) -> &Engine {
        match self {
            Current::Writer(engine) => engine,
            Current::Loaded(engine) => engine,
        }
    }
}

/// The indexes of a namespace in one [`Current`].
enum StateRef<'a> {
    Writer(&'a NamespaceState),
    Loaded(Arc<NamespaceState>),
}

/// A namespace for one operation, with the engine that it is looked up in.
pub(super) struct NamespaceView<'a> {
    pub(super) engine: Current<'a>,
    state: StateRef<'a>,
}

impl NamespaceView<'_> {
    /// An error if the namespace has been dropped since.
    #[inline]
    pub(super) fn check(&self) -> Result<()> {
        self.state().check_present()
    }

    /// The indexes of the namespace.
    #[inline]
    pub(super) fn state(&self) -> &NamespaceState {
        match &self.state {
            StateRef::Writer(state) => state,
            StateRef::Loaded(state) => state,
        }
    }

    /// Whether the files that a read has looked for may only have been replaced, by a process that
    /// writes beside this one: then the read is repeated after a refresh.
    pub(super) fn may_have_moved(&self, error: &Error) -> bool {
        matches!(self.engine, Current::Loaded(_)) && error.is_vanished() && !planted(Planted::TrustVanished)
    }
}

impl Inner {
    /// The engine of the store as it is now.
    #[inline]
    pub(crate) fn current(&self) -> Current<'_> {
        match &self.mode {
            Mode::Writes(engine) => Current::Writer(engine),
            Mode::Reads(reader) => Current::Loaded(reader.current()),
        }
    }
}

impl Store {
    /// The engine for a call that writes; an error if the store was opened for reading only.
    #[inline]
    pub(crate) fn writer(&self) -> Result<&Arc<Engine>> {
        match &self.inner.mode {
            Mode::Writes(engine) => Ok(engine),
            Mode::Reads(reader) => {
                reader.context.check_open()?;
                Err(Error::ReadOnly)
            }
        }
    }

    /// The engine of the store as it is now.
    #[inline]
    pub(crate) fn current(&self) -> Current<'_> {
        self.inner.current()
    }

    /// The same, for what outlives one operation. What a store that only reads has loaded stays as
    /// it is.
    pub(super) fn engine_now(&self) -> Arc<Engine> {
        match &self.inner.mode {
            Mode::Writes(engine) => engine.clone(),
            Mode::Reads(reader) => reader.current().clone(),
        }
    }

    /// A handle on a namespace that was found. One of a store that only reads finds its namespace
    /// again in each operation, and keeps nothing of what was loaded.
    pub(super) fn handle(&self, found: Arc<NamespaceState>) -> Namespace {
        let state = match &self.inner.mode {
            Mode::Writes(_) => found,
            Mode::Reads(_) => {
                let (number, id) = (found.number, found.stable_id);
                Arc::new(NamespaceState::new(number, id, &found.name(), KeyOrder::new()))
            }
        };
        Namespace::new(self.clone(), state)
    }
}

impl Namespace {
    /// The namespace as it is now; an error if it was dropped, or the store was closed.
    #[inline]
    pub(super) fn view(&self) -> Result<NamespaceView<'_>> {
        let inner = &self.store.inner;
        inner.context.check_open()?;
        let engine = inner.current();
        let state = match &engine {
            Current::Writer(_) => {
                self.state.check_present()?;
                StateRef::Writer(&self.state)
            }
            Current::Loaded(engine) => StateRef::Loaded(self.found_in(engine).ok_or_else(|| self.state.gone())?),
        };
        Ok(NamespaceView { engine, state })
    }

    /// The namespace in what a store that only reads has loaded.
    fn found_in(&self, engine: &Engine) -> Option<Arc<NamespaceState>> {
        let found = engine.state.namespaces.by_number(self.state.number)?;
        (found.stable_id == self.state.stable_id && !found.is_dropped()).then_some(found)
    }

    /// The indexes of the namespace in this engine, which a handle on it may not have. Those of a
    /// namespace that was dropped if there are none.
    pub(super) fn state_in(&self, engine: &Engine) -> Arc<NamespaceState> {
        if !self.store.is_read_only() {
            return self.state.clone();
        }
        self.found_in(engine).unwrap_or_else(|| {
            let (number, id) = (self.state.number, self.state.stable_id);
            NamespaceState::new(number, id, &self.name(), KeyOrder::new())
                .dropped_before()
                .into()
        })
    }

    /// Asks `ask` of the namespace's indexes as they are now; of those that the handle was made
    /// with if the namespace was dropped.
    pub(super) fn with_state<T>(&self, ask: impl FnOnce(&NamespaceState) -> T) -> T {
        match self.store.current() {
            Current::Writer(_) => ask(&self.state),
            Current::Loaded(engine) => ask(&self.found_in(&engine).unwrap_or_else(|| self.state.clone())),
        }
    }

    /// Runs a read on the namespace as it is now. A store that only reads is refreshed, and the
    /// read run again, if it has come to a file that is gone.
    #[inline]
    pub(super) fn read<T>(&self, mut look: impl FnMut(&NamespaceView<'_>) -> Result<T>) -> Result<T> {
        let Mode::Writes(engine) = &self.store.inner.mode else {
            return self.read_loaded(&mut look);
        };
        self.store.inner.context.check_open()?;
        self.state.check_present()?;
        look(&NamespaceView {
            engine: Current::Writer(engine),
            state: StateRef::Writer(&self.state),
        })
    }

    #[cold]
    fn read_loaded<T>(&self, look: &mut dyn FnMut(&NamespaceView<'_>) -> Result<T>) -> Result<T> {
        let view = self.view()?;
        let mut answer = look(&view);
        if !answer.as_ref().is_err_and(|error| view.may_have_moved(error)) {
            return answer;
        }
        drop(view);
        for _ in 0..READ_ATTEMPTS_MAX {
            self.store.refresh()?;
            let view = self.view()?;
            answer = look(&view);
            if !answer.as_ref().is_err_and(|error| view.may_have_moved(error)) {
                break;
            }
        }
        answer
    }
}
