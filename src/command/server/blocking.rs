//! Blocking work, off the runtime's threads.

use super::error::ApiError;
use super::limited_log;

/// Runs work that may wait for the disk or for other writers on a thread that may block. Puts that
/// wait at the same time share one sync of the store.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        Err(error) => {
            limited_log::aborted(&error);
            Err(ApiError::new(500, 10001, "internal error"))
        }
    }
}
