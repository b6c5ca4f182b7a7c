//! What happens in the background, said through the `log` facade if the feature `log` is on.
//!
//! A program's logger may do anything, and may be slow. So what happens is only noted where it
//! happens, perhaps under a lock, and said where the thread holds none.

#[cfg(feature = "log")]
use std::sync::Mutex;

use crate::planted::{Planted, planted};
#[cfg(feature = "log")]
use crate::sync::lock;

/// How much a message matters.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Level {
    /// Data are damaged, or nothing can be written any more.
    Error,
    /// Something failed, and is tried again.
    Warn,
    /// Once in the life of an open store.
    Info,
    /// Work that is done all the time.
    Debug,
}

/// Messages that wait to be said.
#[derive(Debug, Default)]
pub(crate) struct Report {
    #[cfg(feature = "log")]
    waiting: Mutex<Vec<(::log::Level, String)>>,
}

/// Most messages that wait. More come only from a store that fails all the time.
#[cfg(feature = "log")]
const WAITING_MAX: usize = 256;

/// The target of all messages.
#[cfg(feature = "log")]
const TARGET: &str = "embercask";

impl Report {
    /// Notes a message. It contains neither keys nor values, except the key of a damaged record.
    #[cfg_attr(not(feature = "log"), expect(clippy::unused_self, reason = "nothing is said then"))]
    #[inline]
    pub(crate) fn note(&self, level: Level, message: impl FnOnce() -> String) {
        if planted(Planted::SayNothing) {
            return;
        }
        #[cfg(feature = "log")]
        self.queue(level, message);
        #[cfg(not(feature = "log"))]
        let _ = (level, message);
    }

    #[cfg(feature = "log")]
    fn queue(&self, level: Level, message: impl FnOnce() -> String) {
        let level = match level {
            Level::Error => ::log::Level::Error,
            Level::Warn => ::log::Level::Warn,
            Level::Info => ::log::Level::Info,
            Level::Debug => ::log::Level::Debug,
        };
        if level > ::log::max_level() {
            return;
        }
        let message = message();
        let mut waiting = lock(&self.waiting);
        if waiting.len() < WAITING_MAX {
            waiting.push((level, message));
        }
    }

    /// Says what waits. The calling thread holds no lock.
    #[cfg_attr(not(feature = "log"), expect(clippy::unused_self, reason = "nothing is said then"))]
    #[inline]
    pub(crate) fn say(&self) {
        #[cfg(feature = "log")]
        {
            let waiting = std::mem::take(&mut *lock(&self.waiting));
            for (level, message) in waiting {
                ::log::log!(target: TARGET, level, "{message}");
            }
        }
    }
}
