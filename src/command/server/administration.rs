//! Long work that clients start over HTTP: one of each kind at a time. It goes on when the client
//! that started it is gone.

use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use embercask::Progress;
use serde_json::{Value, json};

use super::blocking::blocking;
use super::error::ApiError;
use super::shared::Shared;
use crate::common::text::quoted;
use crate::planted::{Planted, planted};

/// Interval between attempts to cancel a compaction, each of which ends one run.
const CANCEL_EVERY: Duration = Duration::from_millis(20);

/// The work that clients start.
pub(super) struct Administration {
    pub(super) compaction: Arc<Work>,
    pub(super) checkpoint: Arc<Work>,
    /// Where checkpoints are made; None for nowhere.
    pub(super) checkpoint_directory: Option<PathBuf>,
}

impl Default for Administration {
    fn default() -> Administration {
        Administration {
            compaction: Work::new("a compaction"),
            checkpoint: Work::new("a checkpoint"),
            checkpoint_directory: None,
        }
    }
}

/// One kind of work.
pub(super) struct Work {
    what: &'static str,
    is_running: AtomicBool,
    done_bytes: AtomicU64,
    total_bytes: AtomicU64,
    /// What the last one reported.
    last: Mutex<Value>,
}

/// Work that has begun, until it is dropped.
struct Begun(Arc<Work>);

impl Drop for Begun {
    fn drop(&mut self) {
        self.0.is_running.store(false, Ordering::SeqCst);
    }
}

impl Work {
    fn new(what: &'static str) -> Arc<Work> {
        Arc::new(Work {
            what,
            is_running: AtomicBool::new(false),
            done_bytes: AtomicU64::new(0),
            total_bytes: AtomicU64::new(0),
            last: Mutex::new(Value::Null),
        })
    }

    fn begin(self: &Arc<Work>, shared: &Shared) -> Result<Begun, ApiError> {
        if self.is_running.swap(true, Ordering::SeqCst) {
            return Err(ApiError::new(409, 10001, format!("{} is under way already", self.what)));
        }
        let begun = Begun(Arc::clone(self));
        // After the mark: a server that stops first says so, and then looks for marks.
        if shared.is_closing() {
            return Err(ApiError::new(503, 10001, "shutting down"));
        }
        self.set_progress(Progress {
            done_bytes: 0,
            total_bytes: 0,
        });
        Ok(begun)
    }

    pub(super) fn is_running(&self) -> bool {
        self.is_running.load(Ordering::SeqCst)
    }

    pub(super) fn set_progress(&self, progress: Progress) {
        self.done_bytes.store(progress.done_bytes, Ordering::Relaxed);
        self.total_bytes.store(progress.total_bytes, Ordering::Relaxed);
    }

    /// Whether it is under way, how far it is, and what the last one reported.
    pub(super) fn shown(&self) -> Value {
        json!({
            "running": self.is_running(),
            "done_bytes": self.done_bytes.load(Ordering::Relaxed),
            "total_bytes": self.total_bytes.load(Ordering::Relaxed),
            "last": *self.last.lock().unwrap_or_else(PoisonError::into_inner),
        })
    }

    /// Starts the work, and waits at most this long for its report; None if it goes on.
    pub(super) async fn run(
        self: &Arc<Work>,
        shared: &Arc<Shared>,
        wait: Duration,
        work: impl FnOnce(&Shared) -> Result<Value, ApiError> + Send + 'static,
    ) -> Result<Option<Value>, ApiError> {
        let begun = self.begin(shared)?;
        let shared = Arc::clone(shared);
        let ended = blocking(move || {
            let outcome = work(&shared);
            let report = match &outcome {
                Ok(report) => report.clone(),
                Err(error) => json!({ "error": error.message }),
            };
            *begun.0.last.lock().unwrap_or_else(PoisonError::into_inner) = report;
            drop(begun);
            outcome
        });
        match tokio::time::timeout(wait, ended).await {
            Ok(ended) => ended.map(Some),
            Err(_) => Ok(None),
        }
    }
}

/// Cancels the compaction that a client started, until it has ended.
pub(super) async fn cancel_compaction(shared: &Shared) {
    while shared.administration.compaction.is_running() {
        shared.store.cancel_compaction();
        tokio::time::sleep(CANCEL_EVERY).await;
    }
}

/// The path of a checkpoint with this name: directly below the directory, and nothing is there.
pub(super) fn checkpoint_path(directory: &Path, name: &str) -> Result<PathBuf, ApiError> {
    let refused = |what: &str| Err(ApiError::new(400, 10001, format!("{} {what}", quoted(name.as_bytes()))));
    let is_one_part = {
        let mut parts = Path::new(name).components();
        matches!((parts.next(), parts.next()), (Some(Component::Normal(part)), None) if part == name)
    };
    let is_plain = !name.contains(['/', '\\', ':']) && !name.contains(char::is_control) && !name.starts_with('.');
    if !(is_one_part && is_plain || planted(Planted::CheckpointAnywhere)) {
        return refused("is not the name of a directory; it is a single name, without / and a dot at its beginning");
    }
    if name.len() > 200 {
        return refused("is longer than 200 bytes");
    }
    let path = directory.join(name);
    // A link counts too, wherever it leads.
    if path.symlink_metadata().is_ok() && !planted(Planted::CheckpointAnywhere) {
        return Err(ApiError::new(
            409,
            10014,
            format!("there is a {} already", quoted(name.as_bytes())),
        ));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use embercask::storage::MemStorage;
    use embercask::{Durability, Store};

    use super::super::access::Tokens;
    use super::*;

    #[test]
    fn work_begins_alone_and_without_the_progress_of_the_last_one() {
        let store = Store::options().storage(Arc::new(MemStorage::new())).open("/store");
        let times = Duration::from_secs(60);
        let shared = Shared::new(store.unwrap(), Tokens::default(), Durability::Sync, 100 << 20, times);
        let work = Work::new("a checkpoint");
        let begun = work.begin(&shared).map_err(|error| error.status).unwrap();
        work.set_progress(Progress {
            done_bytes: 7,
            total_bytes: 8,
        });
        assert_eq!(work.begin(&shared).map(drop).map_err(|error| error.status), Err(409));
        assert_eq!(
            (&work.shown()["running"], &work.shown()["done_bytes"]),
            (&true.into(), &7.into())
        );
        drop(begun);
        assert_eq!(
            (&work.shown()["running"], &work.shown()["done_bytes"]),
            (&false.into(), &7.into())
        );
        let begun = work.begin(&shared).map_err(|error| error.status).unwrap();
        assert_eq!(
            (&work.shown()["running"], &work.shown()["done_bytes"]),
            (&true.into(), &0.into())
        );
        drop(begun);
        shared.begin_closing();
        assert_eq!(work.begin(&shared).map(drop).map_err(|error| error.status), Err(503));
        assert!(!work.is_running());
    }

    #[test]
    fn a_checkpoint_stays_below_its_directory() {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| checkpoint_path(directory.path(), name).map_err(|error| error.status);
        for good in ["monday", "2026-11-30 06.00", "größe", "a..b", "-"] {
            assert_eq!(path(good), Ok(directory.path().join(good)));
        }
        let long = "x".repeat(201);
        for wrong in [
            "", ".", "..", "../a", "a/b", "a/", "/etc", "a/../..", "a\\b", "a\0", "a\nb", ".hidden", "c:", &long,
        ] {
            assert_eq!(path(wrong), Err(400), "{wrong:?}");
        }
        std::fs::create_dir(directory.path().join("there")).unwrap();
        assert_eq!(path("there"), Err(409));
        #[cfg(unix)]
        {
            std::os::unix::fs::symlink("/nowhere", directory.path().join("link")).unwrap();
            assert_eq!(path("link"), Err(409), "although it leads nowhere");
        }
    }
}
