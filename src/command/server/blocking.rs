//! Blocking work, off the runtime's threads.

use super::error::ApiError;
use super::limited_log;

/// Values of up to this many bytes are read, written and tagged on the thread that serves the
/// connection if nothing has to be waited for: handing them to another would take longer.
pub(super) const AT_ONCE_BYTES_MAX: usize = 16 << 10;

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
